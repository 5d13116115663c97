//! The lease store, seen where calls are made and where writes land.

use std::fmt;

use async_trait::async_trait;
use kcl_core::ShardId;
use kcl_core::fleet::{FleetEntry, FleetRow, FleetRowKey};
use kcl_core::lease::{
    Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore, PageToken, Patch,
    Prepared, StoreError, StoreUsage, Write,
};

use crate::sim::judge::{Judge, Landing, Life};

/// A store whose writes the judge sees as they land, if the store underneath applies them at once; else as they are
/// answered.
#[derive(Clone, Debug)]
pub struct Landed<S> {
    inner: S,
    life: Life,
    judge: Judge,
    at_once: bool,
}

impl<S> Landed<S> {
    /// Watches the writes of one life on a store that applies them at once.
    pub const fn new(inner: S, life: Life, judge: Judge) -> Self {
        Self { inner, life, judge, at_once: true }
    }

    /// Watches the answers of one life's writes.
    pub const fn answered(inner: S, life: Life, judge: Judge) -> Self {
        Self { inner, life, judge, at_once: false }
    }

    fn tell(&self, landing: Landing<'_>, answer: &Result<Write, StoreError>) {
        match answer {
            Ok(Write::Applied(row)) if self.at_once => self.judge.landed(&self.life, landing, row),
            Ok(Write::Applied(row) | Write::Conflict(Some(row))) if !self.at_once => {
                self.judge.answered(&self.life, row);
            }
            _ => {}
        }
    }
}

impl<S: fmt::Display> fmt::Display for Landed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LeaseStore> LeaseStore for Landed<S> {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.inner.prepare().await
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        let answer = self.inner.list(page, consistency).await?;
        if !self.at_once {
            answer.leases.iter().for_each(|row| self.judge.shown(row));
        }
        Ok(answer)
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        let answer = self.inner.get(shard, consistency).await?;
        if !self.at_once {
            answer.iter().for_each(|row| self.judge.shown(row));
        }
        Ok(answer)
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        let answer = self.inner.create(lease).await;
        self.tell(Landing::Create, &answer);
        answer
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        let answer = self.inner.update(shard, expect, patch).await;
        self.tell(Landing::Update(expect, patch), &answer);
        answer
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        let answer = self.inner.delete(shard, expect).await;
        self.tell(Landing::Delete(expect), &answer);
        answer
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        self.inner.fleet_row(row, consistency).await
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        let answer = self.inner.change_fleet(row, change).await;
        if let Ok(FleetWrite::Applied(_)) = answer {
            self.judge.fleet_landed(&self.life, change);
        }
        answer
    }

    fn usage(&self) -> StoreUsage {
        self.inner.usage()
    }
}

/// A store whose calls the judge sees as they are made.
#[derive(Clone, Debug)]
pub struct Asked<S> {
    inner: S,
    life: Life,
    judge: Judge,
    rate: f64,
}

impl<S> Asked<S> {
    /// Watches the calls of one life, whose clock runs at this rate: members tell each other their lease durations in
    /// time by their own clocks, and wait for them by their own clocks.
    pub const fn new(inner: S, life: Life, judge: Judge, rate: f64) -> Self {
        Self { inner, life, judge, rate }
    }

    /// What a row says, in true time as it passes by this worker's clock.
    fn read(&self, mut row: Option<FleetRow>) -> Option<FleetRow> {
        for entry in row.iter_mut().flat_map(|row| row.workers.values_mut()) {
            entry.lease_duration = entry.lease_duration.div_f64(self.rate);
        }
        row
    }

    /// What this worker's clock makes of a time it waits for.
    fn write(&self, entry: &FleetEntry) -> FleetEntry {
        let mut entry = entry.clone();
        entry.lease_duration = entry.lease_duration.mul_f64(self.rate);
        entry
    }

    fn tell(&self, call: &str) {
        self.judge.calls(&self.life, call);
    }
}

impl<S: fmt::Display> fmt::Display for Asked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LeaseStore> LeaseStore for Asked<S> {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.tell("prepare");
        self.inner.prepare().await
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        self.tell("list");
        self.inner.list(page, consistency).await
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        self.tell("get");
        self.inner.get(shard, consistency).await
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        self.tell("create");
        self.inner.create(lease).await
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        self.tell("update");
        self.inner.update(shard, expect, patch).await
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        self.tell("delete");
        self.inner.delete(shard, expect).await
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        self.tell("fleet row");
        Ok(self.read(self.inner.fleet_row(row, consistency).await?))
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        self.tell("change fleet");
        let change = match change {
            FleetChange::Join { worker, entry } => {
                FleetChange::Join { worker: worker.clone(), entry: self.write(entry) }
            }
            FleetChange::Beat { worker, entry } => {
                FleetChange::Beat { worker: worker.clone(), entry: self.write(entry) }
            }
            other => other.clone(),
        };
        Ok(match self.inner.change_fleet(row, &change).await? {
            FleetWrite::Applied(row) => FleetWrite::Applied(self.read(row)),
            FleetWrite::Conflict(row) => FleetWrite::Conflict(self.read(row)),
        })
    }

    fn usage(&self) -> StoreUsage {
        self.inner.usage()
    }
}
