//! A lease store whose failed calls are counted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::fleet::{FleetRow, FleetRowKey};
use crate::lease::{
    Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore, PageToken, Patch,
    Prepared, StoreError, StoreErrorKind, StoreUsage, Write,
};
use crate::metrics::{MetricEvent, Metrics};
use crate::model::ShardId;

/// Tells of calls that fail. A call that is given up before it is answered is not seen here.
#[derive(Debug)]
pub(super) struct MeteredStore {
    store: Arc<dyn LeaseStore>,
    metrics: Metrics,
}

impl MeteredStore {
    /// Puts itself in front of a store, if anybody is told.
    pub(super) fn over(store: Arc<dyn LeaseStore>, metrics: &Metrics) -> Arc<dyn LeaseStore> {
        if metrics.is_on() { Arc::new(Self { store, metrics: metrics.clone() }) } else { store }
    }

    fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            let throttled = error.kind() == StoreErrorKind::Throttled;
            self.metrics.record(&MetricEvent::CallFailed { call: error.operation(), throttled });
        })
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LeaseStore for MeteredStore {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.note(self.store.prepare().await)
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        self.note(self.store.list(page, consistency).await)
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        self.note(self.store.get(shard, consistency).await)
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        self.note(self.store.create(lease).await)
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        self.note(self.store.update(shard, expect, patch).await)
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        self.note(self.store.delete(shard, expect).await)
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        self.note(self.store.fleet_row(row, consistency).await)
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        self.note(self.store.change_fleet(row, change).await)
    }

    fn usage(&self) -> StoreUsage {
        self.store.usage()
    }
}
