use std::collections::BTreeMap;

/// A call of a lease store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// [`LeaseStore::prepare`](super::LeaseStore::prepare).
    Prepare,
    /// [`LeaseStore::list`](super::LeaseStore::list); every page is a call.
    List,
    /// [`LeaseStore::get`](super::LeaseStore::get).
    Get,
    /// [`LeaseStore::create`](super::LeaseStore::create).
    Create,
    /// [`LeaseStore::update`](super::LeaseStore::update).
    Update,
    /// [`LeaseStore::delete`](super::LeaseStore::delete).
    Delete,
    /// [`LeaseStore::fleet_row`](super::LeaseStore::fleet_row).
    FleetRow,
    /// [`LeaseStore::change_fleet`](super::LeaseStore::change_fleet).
    ChangeFleet,
}

impl StoreOperation {
    /// Every operation.
    pub const ALL: [Self; 8] = [
        Self::Prepare,
        Self::List,
        Self::Get,
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::FleetRow,
        Self::ChangeFleet,
    ];

    /// The conditional writes.
    pub const WRITES: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::ChangeFleet];

    /// Its name, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::FleetRow => "fleet row",
            Self::ChangeFleet => "change fleet",
        }
    }
}

/// What calls of one operation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperationUsage {
    /// How many requests were sent; whatever the outcome.
    pub requests: u64,
    /// The read units they consumed, as `DynamoDB` counts (`ConsumedCapacity`).
    pub read_units: f64,
    /// The write units they consumed. A refused conditional write costs as much as one that is applied.
    pub write_units: f64,
}

/// What a store counted since it was made, by operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreUsage {
    /// Operations that were called.
    pub by_operation: BTreeMap<StoreOperation, OperationUsage>,
}

impl StoreUsage {
    /// What calls of `operation` came to.
    #[must_use]
    pub fn of(&self, operation: StoreOperation) -> OperationUsage {
        self.by_operation.get(&operation).copied().unwrap_or_default()
    }

    /// What all calls came to.
    #[must_use]
    pub fn total(&self) -> OperationUsage {
        self.by_operation.values().fold(OperationUsage::default(), |sum, usage| OperationUsage {
            requests: sum.requests + usage.requests,
            read_units: sum.read_units + usage.read_units,
            write_units: sum.write_units + usage.write_units,
        })
    }

    /// What was counted since `earlier`, an older count of the same store.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let by_operation = self.by_operation.iter().map(|(operation, now)| {
            let before = earlier.of(*operation);
            let usage = OperationUsage {
                requests: now.requests.saturating_sub(before.requests),
                read_units: now.read_units - before.read_units,
                write_units: now.write_units - before.write_units,
            };
            (*operation, usage)
        });
        Self { by_operation: by_operation.collect() }
    }

    /// Counts one request.
    pub fn count(&mut self, operation: StoreOperation, read_units: f64, write_units: f64) {
        let usage = self.by_operation.entry(operation).or_default();
        usage.requests += 1;
        usage.read_units += read_units;
        usage.write_units += write_units;
    }
}
