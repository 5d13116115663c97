use std::collections::BTreeMap;
use std::sync::Arc;

use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{Lease, StoreError, StoreErrorKind, StoreOperation, StoreUsage};
use kcl_core::model::ShardId;

use crate::size::{read_units, row_bytes, write_units};

/// What the map holds under a key.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    Lease(Arc<Lease>),
    Unreadable(String),
    Foreign(String),
    Fleet(FleetRow),
}

/// A row with its size. Listings ask for the sizes of all rows, writes change one.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) row: Row,
    pub(crate) bytes: usize,
}

/// The rows and the counters, under one lock.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<ShardId, Kept>,
    pub(crate) usage: StoreUsage,
}

impl Rows {
    /// Counts a read of one row.
    pub(crate) fn count_read(&mut self, operation: StoreOperation, key: &ShardId, strong: bool) {
        let bytes = self.bytes(key);
        self.usage.count(operation, read_units(bytes, strong), 0.0);
    }

    /// Counts a write on one row that had this size before it.
    pub(crate) fn count_write(&mut self, operation: StoreOperation, key: &ShardId, before: usize) {
        let after = self.bytes(key);
        self.usage.count(operation, 0.0, write_units(before, after));
    }

    /// The size of a row, none if there is no such row.
    pub(crate) fn bytes(&self, key: &ShardId) -> usize {
        self.rows.get(key).map_or(0, |kept| kept.bytes)
    }

    /// The lease under a key: nothing if there is no row or one of another kind.
    pub(crate) fn lease(
        &self,
        operation: StoreOperation,
        shard: &ShardId,
    ) -> Result<Option<&Lease>, StoreError> {
        match self.row(shard) {
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
        match self.row(&ShardId::from(row.to_string())) {
            Some(Row::Fleet(row)) => Ok(Some(row)),
            None => Ok(None),
            Some(Row::Lease(_) | Row::Unreadable(_) | Row::Foreign(_)) => {
                Err(invalid(operation, format!("the key is taken by a row of another kind: key={row}")))
            }
        }
    }

    pub(crate) fn row(&self, key: &ShardId) -> Option<&Row> {
        self.rows.get(key).map(|kept| &kept.row)
    }

    pub(crate) fn put(&mut self, key: ShardId, row: Row) {
        let bytes = row_bytes(key.as_str(), &row);
        self.rows.insert(key, Kept { row, bytes });
    }

    pub(crate) fn put_lease(&mut self, lease: Lease) {
        self.put(lease.shard.clone(), Row::Lease(Arc::new(lease)));
    }
}

pub(crate) fn invalid(operation: StoreOperation, message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, operation.name(), "memory", message)
}
