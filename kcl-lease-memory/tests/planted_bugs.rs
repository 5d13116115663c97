//! The conformance suite notices the mistakes that stores are likely to make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use kcl_core::fleet::{FleetRow, FleetRowKey, MEMBERS_PER_ROW};
use kcl_core::lease::{
    Change, Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore,
    OwnerExpectation, PageToken, Patch, Prepared, StoreError, StoreUsage, Write,
};
use kcl_core::model::{ShardId, WorkerId};
use kcl_core::testing::conformance;
use kcl_lease_memory::MemoryLeaseStore;

/// Those of fleet rows come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bug {
    None,
    CreateOverwrites,
    CounterIgnored,
    OwnerIgnored,
    FreeTakenForAny,
    CheckpointIgnored,
    RequestIgnored,
    RowBroughtBack,
    DeleteAtWill,
    ConflictHidesRow,
    AppliedShowsOldRow,
    TokenForgotten,
    ChildrenMerged,
    PendingKept,
    CheckpointOwnerKept,
    LoneReadThenWrite,
    PageBeginsOneLate,
    LastPageForgotten,
    TimestampInSeconds,
    BeatsGoBack,
    BeatBringsBack,
    RemovedAtAnyBeat,
    RowsLowered,
    MembersDeleted,
    JoinsBeyondRoom,
    NothingCounted,
}

#[derive(Debug)]
struct Buggy {
    inner: MemoryLeaseStore,
    bug: Bug,
}

impl Buggy {
    fn new(bug: Bug) -> Self {
        Self { inner: MemoryLeaseStore::new().with_page_size(NonZeroUsize::new(9).unwrap()), bug }
    }

    fn expect(&self, expect: &Expectation) -> Expectation {
        let mut expect = expect.clone();
        match self.bug {
            Bug::CounterIgnored => expect.counter = None,
            Bug::OwnerIgnored => expect.owner = OwnerExpectation::Any,
            Bug::FreeTakenForAny if expect.owner == OwnerExpectation::Absent => {
                expect.owner = OwnerExpectation::Any;
            }
            Bug::CheckpointIgnored => expect.checkpoint = None,
            Bug::RequestIgnored => expect.unrequested_but_by = None,
            _ => {}
        }
        expect
    }

    fn patch(&self, patch: &Patch, row: Option<&Lease>) -> Patch {
        let mut patch = patch.clone();
        match self.bug {
            Bug::TokenForgotten => patch.token = None,
            Bug::PendingKept if patch.pending == Change::Remove => patch.pending = Change::Keep,
            Bug::CheckpointOwnerKept => patch.clear_checkpoint_owner = false,
            Bug::ChildrenMerged => {
                if let (Some(children), Some(row)) = (&mut patch.children, row) {
                    children.extend(row.children.iter().cloned());
                }
            }
            _ => {}
        }
        patch
    }
}

impl fmt::Display for Buggy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.bug)
    }
}

#[async_trait]
impl LeaseStore for Buggy {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.inner.prepare().await
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        let is_first = page.is_none();
        let mut listed = self.inner.list(page, consistency).await?;
        match self.bug {
            Bug::PageBeginsOneLate if !is_first => drop(listed.leases.remove(0)),
            Bug::LastPageForgotten => listed.next = None,
            _ => {}
        }
        Ok(listed)
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        self.inner.get(shard, consistency).await
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        if self.bug == Bug::CreateOverwrites {
            self.inner.insert(lease.clone());
            return Ok(Write::Applied(lease.clone()));
        }
        let mut lease = lease.clone();
        if let (Bug::TimestampInSeconds, Some(at)) = (self.bug, &mut lease.start_timestamp) {
            let since = at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
            *at -= std::time::Duration::from_nanos(u64::from(since.subsec_nanos()));
        }
        self.inner.create(&lease).await
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        let before = self.inner.get(shard, Consistency::Strong).await?;
        let (expect, patch) = (self.expect(expect), self.patch(patch, before.as_ref()));
        match (self.bug, before) {
            (Bug::RowBroughtBack, None) => {
                self.inner.insert(
                    patch.apply_to(&Lease::new(shard.clone(), kcl_core::model::Checkpoint::TrimHorizon)),
                );
                Ok(Write::Conflict(None))
            }
            (Bug::LoneReadThenWrite, Some(before)) if expect.holds_for(&before) => {
                tokio::task::yield_now().await;
                self.inner.insert(patch.apply_to(&before));
                Ok(Write::Applied(patch.apply_to(&before)))
            }
            (bug, before) => Ok(match (bug, self.inner.update(shard, &expect, &patch).await?) {
                (Bug::ConflictHidesRow, Write::Conflict(_)) => Write::Conflict(None),
                (Bug::AppliedShowsOldRow, Write::Applied(_)) => Write::Applied(before.unwrap()),
                (_, write) => write,
            }),
        }
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        let at_will = Expectation::default();
        let expect = if self.bug == Bug::DeleteAtWill { at_will } else { self.expect(expect) };
        self.inner.delete(shard, &expect).await
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        self.inner.fleet_row(row, consistency).await
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        if self.bug < Bug::BeatsGoBack {
            return self.inner.change_fleet(row, change).await;
        }
        let key = ShardId::from(row.to_string());
        let before = self.inner.fleet_row(row, Consistency::Strong).await?;
        let current = |worker: &WorkerId| Some(before.as_ref()?.workers.get(worker)?.heartbeat);
        match (self.bug, change) {
            (Bug::BeatsGoBack, FleetChange::Beat { worker, entry }) if current(worker).is_some() => {
                let heartbeat = current(worker).unwrap();
                let remove = FleetChange::Remove { worker: worker.clone(), heartbeat };
                let _ = self.inner.change_fleet(row, &remove).await?;
                let join = FleetChange::Join { worker: worker.clone(), entry: entry.clone() };
                self.inner.change_fleet(row, &join).await
            }
            (Bug::BeatBringsBack, FleetChange::Beat { worker, entry }) if current(worker).is_none() => {
                let join = FleetChange::Join { worker: worker.clone(), entry: entry.clone() };
                self.inner.change_fleet(row, &join).await
            }
            (Bug::RemovedAtAnyBeat, FleetChange::Remove { worker, .. }) if current(worker).is_some() => {
                let heartbeat = current(worker).unwrap();
                let remove = FleetChange::Remove { worker: worker.clone(), heartbeat };
                self.inner.change_fleet(row, &remove).await
            }
            (Bug::RowsLowered, FleetChange::Rows(_)) if before.is_some() => {
                self.inner.remove(&key);
                let _ = self.inner.change_fleet(row, &FleetChange::Create).await?;
                for (worker, entry) in before.unwrap().workers {
                    let _ = self.inner.change_fleet(row, &FleetChange::Join { worker, entry }).await?;
                }
                self.inner.change_fleet(row, change).await
            }
            (Bug::MembersDeleted, FleetChange::DeleteEmpty) if before.is_some() => {
                self.inner.remove(&key);
                Ok(FleetWrite::Applied(None))
            }
            (Bug::JoinsBeyondRoom, FleetChange::Join { worker, entry })
                if before.as_ref().is_some_and(|row| row.workers.len() == MEMBERS_PER_ROW) =>
            {
                let mut row = before.unwrap();
                row.workers.insert(worker.clone(), entry.clone());
                Ok(FleetWrite::Applied(Some(row)))
            }
            _ => self.inner.change_fleet(row, change).await,
        }
    }

    fn usage(&self) -> StoreUsage {
        if self.bug == Bug::NothingCounted { StoreUsage::default() } else { self.inner.usage() }
    }
}

/// Whether the suite fails.
fn is_noticed(bug: Bug) -> bool {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let suite = || runtime.block_on(conformance::all(async |_| Buggy::new(bug)));
    catch_unwind(AssertUnwindSafe(suite)).is_err()
}

#[test]
fn every_planted_bug_is_noticed() {
    assert!(!is_noticed(Bug::None), "without a bug the wrapper conforms");
    for bug in [
        Bug::CreateOverwrites,
        Bug::CounterIgnored,
        Bug::OwnerIgnored,
        Bug::FreeTakenForAny,
        Bug::CheckpointIgnored,
        Bug::RequestIgnored,
        Bug::RowBroughtBack,
        Bug::DeleteAtWill,
        Bug::ConflictHidesRow,
        Bug::AppliedShowsOldRow,
        Bug::TokenForgotten,
        Bug::ChildrenMerged,
        Bug::PendingKept,
        Bug::CheckpointOwnerKept,
        Bug::LoneReadThenWrite,
        Bug::PageBeginsOneLate,
        Bug::LastPageForgotten,
        Bug::TimestampInSeconds,
        Bug::BeatsGoBack,
        Bug::BeatBringsBack,
        Bug::RemovedAtAnyBeat,
        Bug::RowsLowered,
        Bug::MembersDeleted,
        Bug::JoinsBeyondRoom,
        Bug::NothingCounted,
    ] {
        assert!(is_noticed(bug), "{bug:?} passed the suite");
    }
}
