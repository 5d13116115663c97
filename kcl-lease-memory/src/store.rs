use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{
    Consistency, Expectation, FleetChange, FleetWrite, ForeignRow, Lease, LeasePage, LeaseStore, PageToken,
    Patch, Prepared, StoreError, StoreOperation, StoreUsage, UnreadableRow, Write,
};
use kcl_core::model::ShardId;

use crate::rows::{Row, Rows, invalid};
use crate::size::read_units;

/// The `entityType` of fleet rows.
const FLEET: &str = "FLEET";

const DEFAULT_PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(1_000).expect("1,000 is not zero");

/// A page ends after so many bytes, as `DynamoDB`'s do (`Scan`: 1 MB).
const PAGE_BYTES: usize = 1 << 20;

/// Lease rows in the memory of this process.
///
/// # Clone
/// Clones share the rows and the counters of [`usage`](LeaseStore::usage).
///
/// # Consistency
/// Every call takes effect at once and whole: reads of either [`Consistency`] and listings see every write
/// that was answered before. No call waits, so none can time out.
///
/// # Examples
/// ```
/// # use kcl_core::lease::{Consistency, Lease, LeaseStore, Write};
/// # use kcl_core::model::Checkpoint;
/// # use kcl_lease_memory::MemoryLeaseStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kcl_core::lease::StoreError> {
/// let store = MemoryLeaseStore::new();
/// let lease = Lease::new("shardId-000000000000".into(), Checkpoint::TrimHorizon);
/// assert_eq!(store.create(&lease).await?, Write::Applied(lease.clone()));
/// assert_eq!(store.get(&lease.shard, Consistency::Strong).await?, Some(lease));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryLeaseStore {
    rows: Arc<Mutex<Rows>>,
    page_size: NonZeroUsize,
}

impl Default for MemoryLeaseStore {
    fn default() -> Self {
        Self { rows: Arc::default(), page_size: DEFAULT_PAGE_SIZE }
    }
}

impl MemoryLeaseStore {
    /// Creates a store without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many rows a page of a listing has at most. Default 1,000.
    ///
    /// Belongs to this clone and the clones made of it.
    #[must_use]
    pub const fn with_page_size(mut self, rows: NonZeroUsize) -> Self {
        self.page_size = rows;
        self
    }

    /// Every lease in the order of the keys. Not counted as a request.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        let rows = self.lock();
        let lease = |row: &Row| match row {
            Row::Lease(lease) => Some((**lease).clone()),
            Row::Unreadable(_) | Row::Foreign(_) | Row::Fleet(_) => None,
        };
        rows.rows.values().filter_map(|kept| lease(&kept.row)).collect()
    }

    /// The size of every row, leases and others, by key: the bytes that it would have as a `DynamoDB` item.
    #[must_use]
    pub fn row_sizes(&self) -> BTreeMap<ShardId, usize> {
        let rows = self.lock();
        rows.rows.iter().map(|(key, kept)| (key.clone(), kept.bytes)).collect()
    }

    /// Puts a lease, over any row with its key: what an operator does by hand. Not counted as a request.
    pub fn insert(&self, lease: Lease) {
        self.lock().put_lease(lease);
    }

    /// Puts a row that is meant to be a lease but cannot be understood, over any row with its key.
    pub fn insert_unreadable(&self, key: impl Into<ShardId>, reason: impl Into<String>) {
        self.lock().put(key.into(), Row::Unreadable(reason.into()));
    }

    /// Puts a row of another kind, over any row with its key.
    pub fn insert_foreign(&self, key: impl Into<ShardId>, entity_type: impl Into<String>) {
        self.lock().put(key.into(), Row::Foreign(entity_type.into()));
    }

    /// Removes a row of any kind and says whether there was one. Not counted as a request.
    pub fn remove(&self, key: &ShardId) -> bool {
        self.lock().rows.remove(key).is_some()
    }

    /// No call leaves the rows half-written, so they are sound after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a row and counts it as a write.
    fn write<T>(
        &self,
        operation: StoreOperation,
        key: &ShardId,
        write: impl FnOnce(&mut Rows) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut rows = self.lock();
        let before = rows.bytes(key);
        let result = write(&mut rows);
        rows.count_write(operation, key, before);
        result
    }
}

impl fmt::Display for MemoryLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.lock().usage.count(StoreOperation::Prepare, 0.0, 0.0);
        Ok(Prepared::default())
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        let mut rows = self.lock();
        let begin = match page {
            Some(PageToken(last)) => Bound::Excluded(ShardId::from(last)),
            None => Bound::Unbounded,
        };
        let mut rest = rows.rows.range((begin, Bound::Unbounded));
        let mut listed = LeasePage::default();
        let mut last = None;
        let mut bytes = 0;
        for (key, kept) in rest.by_ref().take(self.page_size.get()) {
            last = Some(key);
            bytes += kept.bytes;
            let full = bytes >= PAGE_BYTES;
            let foreign = |kind: &str| ForeignRow { key: key.to_string(), entity_type: kind.to_owned() };
            match &kept.row {
                Row::Lease(lease) => listed.leases.push(Arc::clone(lease)),
                Row::Unreadable(reason) => {
                    listed.unreadable.push(UnreadableRow { key: key.to_string(), reason: reason.clone() });
                }
                Row::Foreign(entity_type) => listed.foreign.push(foreign(entity_type)),
                Row::Fleet(_) => listed.foreign.push(foreign(FLEET)),
            }
            if full {
                break;
            }
        }
        if rest.next().is_some() {
            listed.next = last.map(|key| PageToken(key.to_string()));
        }
        let units = read_units(bytes, consistency == Consistency::Strong);
        rows.usage.count(StoreOperation::List, units, 0.0);
        Ok(listed)
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        let mut rows = self.lock();
        rows.count_read(StoreOperation::Get, shard, consistency == Consistency::Strong);
        Ok(rows.lease(StoreOperation::Get, shard)?.cloned())
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        self.write(StoreOperation::Create, &lease.shard, |rows| {
            if let Some(current) = rows.lease(StoreOperation::Create, &lease.shard)? {
                return Ok(Write::Conflict(Some(current.clone())));
            }
            if let Some(Row::Foreign(_) | Row::Fleet(_)) = rows.row(&lease.shard) {
                let message = format!("the key is taken by a row of another kind: key={}", lease.shard);
                return Err(invalid(StoreOperation::Create, message));
            }
            rows.put_lease(lease.clone());
            Ok(Write::Applied(lease.clone()))
        })
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        self.write(StoreOperation::Update, shard, |rows| {
            let patched = match rows.lease(StoreOperation::Update, shard)? {
                Some(lease) if expect.holds_for(lease) => patch.apply_to(lease),
                other => return Ok(Write::Conflict(other.cloned())),
            };
            rows.put_lease(patched.clone());
            Ok(Write::Applied(patched))
        })
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        self.write(StoreOperation::Delete, shard, |rows| {
            let deleted = match rows.lease(StoreOperation::Delete, shard)? {
                Some(lease) if expect.holds_for(lease) => lease.clone(),
                other => return Ok(Write::Conflict(other.cloned())),
            };
            rows.rows.remove(shard);
            Ok(Write::Applied(deleted))
        })
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        let mut rows = self.lock();
        let key = ShardId::from(row.to_string());
        rows.count_read(StoreOperation::FleetRow, &key, consistency == Consistency::Strong);
        Ok(rows.fleet_row(StoreOperation::FleetRow, row)?.cloned())
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        let key = ShardId::from(row.to_string());
        self.write(StoreOperation::ChangeFleet, &key, |rows| {
            let current = rows.fleet_row(StoreOperation::ChangeFleet, row)?;
            let Ok(changed) = change.apply_to(current) else {
                return Ok(FleetWrite::Conflict(current.cloned()));
            };
            match &changed {
                Some(changed) => rows.put(key.clone(), Row::Fleet(changed.clone())),
                None => drop(rows.rows.remove(&key)),
            }
            Ok(FleetWrite::Applied(changed))
        })
    }

    /// Requests, and the units they would consume of a DynamoDB table.
    fn usage(&self) -> StoreUsage {
        self.lock().usage.clone()
    }
}
