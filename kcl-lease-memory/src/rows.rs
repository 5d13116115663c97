use std::collections::BTreeMap;

use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{Lease, StoreError, StoreErrorKind, StoreOperation, StoreUsage};
use kcl_core::model::ShardId;

/// What the map holds under a key.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    Lease(Box<Lease>),
    Unreadable(String),
    Foreign(String),
    Fleet(FleetRow),
}

/// The rows and the counters, under one lock.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<ShardId, Row>,
    pub(crate) usage: StoreUsage,
}

impl Rows {
    pub(crate) fn count(&mut self, operation: StoreOperation) {
        self.usage.count(operation, 0.0, 0.0);
    }

    /// The lease under a key: nothing if there is no row or one of another kind.
    pub(crate) fn lease(
        &self,
        operation: StoreOperation,
        shard: &ShardId,
    ) -> Result<Option<&Lease>, StoreError> {
        match self.rows.get(shard) {
            Some(Row::Lease(lease)) => Ok(Some(lease)),
            Some(Row::Unreadable(reason)) => {
                Err(invalid(operation, format!("the row cannot be read: key={shard} reason={reason}")))
            }
            Some(Row::Foreign(_) | Row::Fleet(_)) | None => Ok(None),
        }
    }

    /// The fleet row of this number; an error if its key is taken by a row of another kind.
    pub(crate) fn fleet_row(
        &self,
        operation: StoreOperation,
        row: FleetRowKey,
    ) -> Result<Option<&FleetRow>, StoreError> {
        match self.rows.get(&ShardId::from(row.to_string())) {
            Some(Row::Fleet(row)) => Ok(Some(row)),
            None => Ok(None),
            Some(Row::Lease(_) | Row::Unreadable(_) | Row::Foreign(_)) => {
                Err(invalid(operation, format!("the key is taken by a row of another kind: key={row}")))
            }
        }
    }

    pub(crate) fn put(&mut self, lease: Lease) {
        self.rows.insert(lease.shard.clone(), Row::Lease(Box::new(lease)));
    }
}

pub(crate) fn invalid(operation: StoreOperation, message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, operation.name(), "memory", message)
}
