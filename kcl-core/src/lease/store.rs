use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::{AttemptToken, Lease, PendingCheckpoint, StoreError, StoreUsage};
use crate::fleet::{FleetEntry, FleetRow, FleetRowKey, MEMBERS_PER_ROW};
use crate::model::{Checkpoint, HashKeyRange, ShardId, WorkerId};

/// What a conditional write requires of the row. Everything that is set must hold; the row must exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The value `leaseCounter` must have.
    pub counter: Option<u64>,
    /// What `leaseOwner` must be.
    pub owner: OwnerExpectation,
    /// The value `checkpoint` must have (both parts).
    pub checkpoint: Option<Checkpoint>,
    /// Whether no hand-over may be asked for by another worker than this one (`handOverRequest` absent or it).
    pub unrequested_but_by: Option<WorkerId>,
}

/// What a conditional write requires of the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerExpectation {
    /// Nothing.
    #[default]
    Any,
    /// That the lease is free.
    Absent,
    /// That this worker owns it.
    Is(WorkerId),
}

impl Expectation {
    /// Whether `lease` meets the expectation.
    #[must_use]
    pub fn holds_for(&self, lease: &Lease) -> bool {
        self.counter.is_none_or(|counter| lease.counter == counter)
            && match &self.owner {
                OwnerExpectation::Any => true,
                OwnerExpectation::Absent => lease.owner.is_none(),
                OwnerExpectation::Is(owner) => lease.owner.as_ref() == Some(owner),
            }
            && self.checkpoint.is_none_or(|checkpoint| lease.checkpoint == checkpoint)
            && self
                .unrequested_but_by
                .as_ref()
                .is_none_or(|me| lease.requested_by.as_ref().is_none_or(|other| other == me))
    }
}

/// What to do with an optional attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Set it.
    Set(T),
    /// Remove it.
    Remove,
}

impl<T: Clone> Change<T> {
    fn apply(&self, current: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Set(value) => *current = Some(value.clone()),
            Self::Remove => *current = None,
        }
    }
}

/// What to do with `ownerSwitchesSinceCheckpoint`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerSwitches {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Add 1.
    Increment,
    /// Set it to 0.
    Reset,
    /// Set it to this.
    Set(u64),
}

/// The attributes a write changes; every other attribute of the row, known or not, stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Sets `leaseCounter`.
    pub counter: Option<u64>,
    /// Changes `leaseOwner`.
    pub owner: Change<WorkerId>,
    /// Sets `checkpoint` and `checkpointSubSequenceNumber`.
    pub checkpoint: Option<Checkpoint>,
    /// Changes `startTimestampMillis`. Times before 1970 and fractions of milliseconds are dropped.
    pub start_timestamp: Change<SystemTime>,
    /// Changes the `pendingCheckpoint…` attributes.
    pub pending: Change<PendingCheckpoint>,
    /// Changes `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: OwnerSwitches,
    /// Sets `childShardIds`.
    pub children: Option<BTreeSet<ShardId>>,
    /// Sets `startingHashKey` and `endingHashKey`.
    pub hash_key_range: Option<HashKeyRange>,
    /// Sets `attemptToken`.
    pub token: Option<AttemptToken>,
    /// Changes `handOverRequest`.
    pub requested_by: Change<WorkerId>,
    /// Removes `checkpointOwner`.
    pub clear_checkpoint_owner: bool,
}

impl Patch {
    /// The row as the patch leaves it.
    #[must_use]
    pub fn apply_to(&self, lease: &Lease) -> Lease {
        let mut patched = lease.clone();
        if let Some(counter) = self.counter {
            patched.counter = counter;
        }
        self.owner.apply(&mut patched.owner);
        if let Some(checkpoint) = self.checkpoint {
            patched.checkpoint = checkpoint;
        }
        self.start_timestamp.apply(&mut patched.start_timestamp);
        self.pending.apply(&mut patched.pending);
        match self.owner_switches {
            OwnerSwitches::Keep => {}
            OwnerSwitches::Increment => patched.owner_switches += 1,
            OwnerSwitches::Reset => patched.owner_switches = 0,
            OwnerSwitches::Set(switches) => patched.owner_switches = switches,
        }
        if let Some(children) = &self.children {
            patched.children.clone_from(children);
        }
        if let Some(range) = self.hash_key_range {
            patched.hash_key_range = Some(range);
        }
        if let Some(token) = self.token {
            patched.token = Some(token);
        }
        self.requested_by.apply(&mut patched.requested_by);
        if self.clear_checkpoint_owner {
            patched.checkpoint_owner = None;
        }
        patched
    }
}

/// The outcome of a conditional write that was answered.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The condition held; this is the row afterwards (for a delete: the row before).
    Applied(Lease),
    /// The condition did not hold and nothing was changed; this is the row, if there is one.
    Conflict(Option<Lease>),
}

/// A conditional write on a fleet row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetChange {
    /// Creates the row with no members, if there is none.
    Create,
    /// Adds the entry of a member, if it has none and fewer than [`MEMBERS_PER_ROW`] others have.
    Join {
        /// The member.
        worker: WorkerId,
        /// Its first entry.
        entry: FleetEntry,
    },
    /// Replaces the entry of a member, if it has one with a smaller heartbeat. Also how a member leaves.
    Beat {
        /// The member.
        worker: WorkerId,
        /// Its entry from now on.
        entry: FleetEntry,
    },
    /// Removes the entry of a member, if it has one with exactly this heartbeat.
    Remove {
        /// The member.
        worker: WorkerId,
        /// The heartbeat that stood still.
        heartbeat: u64,
    },
    /// Raises the number of rows, if the row exists and says fewer or nothing.
    Rows(u32),
    /// Deletes the row, if it exists and has no members.
    DeleteEmpty,
}

impl FleetChange {
    /// What the change makes of `row`: the row afterwards, none if it is deleted; or `Err` if it is refused.
    ///
    /// # Errors
    /// If the condition does not hold for `row`.
    pub fn apply_to(&self, row: Option<&FleetRow>) -> Result<Option<FleetRow>, FleetRefused> {
        let existing = row.ok_or(FleetRefused);
        match self {
            Self::Create if row.is_none() => Ok(Some(FleetRow::default())),
            Self::Create => Err(FleetRefused),
            Self::Join { worker, entry } => {
                let mut row = existing?.clone();
                if row.workers.len() >= MEMBERS_PER_ROW || row.workers.contains_key(worker) {
                    return Err(FleetRefused);
                }
                row.workers.insert(worker.clone(), entry.clone());
                Ok(Some(row))
            }
            Self::Beat { worker, entry } => {
                let current = existing?.workers.get(worker).ok_or(FleetRefused)?;
                if current.heartbeat >= entry.heartbeat {
                    return Err(FleetRefused);
                }
                let mut row = existing?.clone();
                row.workers.insert(worker.clone(), entry.clone());
                Ok(Some(row))
            }
            Self::Remove { worker, heartbeat } => {
                let mut row = existing?.clone();
                let removed = row.workers.remove(worker).ok_or(FleetRefused)?;
                if removed.heartbeat == *heartbeat { Ok(Some(row)) } else { Err(FleetRefused) }
            }
            Self::Rows(rows) => {
                let mut row = existing?.clone();
                if row.rows.is_some_and(|current| current >= *rows) {
                    return Err(FleetRefused);
                }
                row.rows = Some(*rows);
                Ok(Some(row))
            }
            Self::DeleteEmpty if existing?.workers.is_empty() => Ok(None),
            Self::DeleteEmpty => Err(FleetRefused),
        }
    }
}

/// The condition of a [`FleetChange`] does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetRefused;

/// The outcome of a [`FleetChange`] that was answered.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetWrite {
    /// The condition held; this is the row afterwards, none if it was deleted.
    Applied(Option<FleetRow>),
    /// The condition did not hold and nothing was changed; this is the row, if there is one.
    Conflict(Option<FleetRow>),
}

/// Which copy of the data a read may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every write answered before the read was sent is seen.
    Strong,
    /// May be a little old; costs half.
    Eventual,
}

/// Where a listing goes on. Opaque; made and read by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(pub String);

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct LeasePage {
    /// The lease rows of the page.
    pub leases: Vec<Arc<Lease>>,
    /// Rows that are meant to be leases but cannot be understood; they are reported and left alone.
    pub unreadable: Vec<UnreadableRow>,
    /// Rows of other kinds; they are left alone.
    pub foreign: Vec<ForeignRow>,
    /// Where the next page begins; none on the last.
    pub next: Option<PageToken>,
}

/// A row that is meant to be a lease but cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The row's key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A row of another kind in the lease table (Java KCL 3.5: leader lock, worker metrics, …; our fleet rows).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRow {
    /// The row's key.
    pub key: String,
    /// Its `entityType`.
    pub entity_type: String,
}

/// What a store found when it was prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prepared {
    /// Whether the store was created by this call.
    pub created: bool,
    /// A sign that a Java KCL 3.x leader assigns the leases of this table: what was found and where.
    /// Such a table must not be worked on.
    pub java_leadership: Option<String>,
    /// What the store may serve at most, if that is fixed.
    pub provisioned: Option<ProvisionedUnits>,
}

/// The units a second that a store may serve (`DynamoDB`: `ProvisionedThroughput` of a table that is not on demand).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvisionedUnits {
    /// Read units.
    pub read: u64,
    /// Write units.
    pub write: u64,
}

impl ProvisionedUnits {
    /// So many units a second.
    #[must_use]
    pub const fn new(read: u64, write: u64) -> Self {
        Self { read, write }
    }
}

/// Keeps lease rows. Dumb on purpose: the lease protocol is written once, over these primitives.
///
/// # Contract
/// - `create`, `update`, `delete` and `change_fleet` are conditional and linearizable per row. A condition that does not hold
///   is [`Write::Conflict`] or [`FleetWrite::Conflict`], not an error, and carries the row as it is, if there is one.
/// - `update` changes only the attributes its [`Patch`] names. Attributes the store does not know survive.
/// - An error whose [`StoreError::may_have_applied`] is true leaves open whether the write happened *or will
///   still happen*. Every other error guarantees that it did not and will not.
/// - `list` returns one page a call; pages together contain every row that existed throughout. Read
///   with [`Consistency::Eventual`], rows may be as old as that allows.
/// - Every call ends within the store's own request time-out and is cancel-safe in the sense that dropping the
///   future leaves the store usable; a write dropped midway may or may not have been applied.
/// - The store does not retry. Retries are the caller's.
/// - Fleet rows are listed as foreign rows of the type `FLEET`.
#[async_trait]
pub trait LeaseStore: Debug + Display + Send + Sync + 'static {
    /// Creates or checks what the store needs (for example its table). Idempotent.
    async fn prepare(&self) -> Result<Prepared, StoreError>;

    /// Returns the page that begins at `page`, or the first.
    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError>;

    /// Returns one lease, or nothing if there is no such row.
    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError>;

    /// Creates the row if none with its key exists.
    async fn create(&self, lease: &Lease) -> Result<Write, StoreError>;

    /// Changes the row if it exists and meets `expect`.
    async fn update(&self, shard: &ShardId, expect: &Expectation, patch: &Patch)
    -> Result<Write, StoreError>;

    /// Deletes the row if it exists and meets `expect`.
    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError>;

    /// Returns one fleet row, or nothing if there is none.
    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError>;

    /// Changes a fleet row as [`FleetChange::apply_to`] says, or leaves it as it is.
    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError>;

    /// What this store, and those that count together with it, have counted since they were made.
    fn usage(&self) -> StoreUsage;
}

macro_rules! forward {
    ($wrapper:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: LeaseStore + ?Sized> LeaseStore for $wrapper {
            async fn prepare(&self) -> Result<Prepared, StoreError> {
                (**self).prepare().await
            }

            async fn list(
                &self,
                page: Option<PageToken>,
                consistency: Consistency,
            ) -> Result<LeasePage, StoreError> {
                (**self).list(page, consistency).await
            }

            async fn get(
                &self,
                shard: &ShardId,
                consistency: Consistency,
            ) -> Result<Option<Lease>, StoreError> {
                (**self).get(shard, consistency).await
            }

            async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
                (**self).create(lease).await
            }

            async fn update(
                &self,
                shard: &ShardId,
                expect: &Expectation,
                patch: &Patch,
            ) -> Result<Write, StoreError> {
                (**self).update(shard, expect, patch).await
            }

            async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
                (**self).delete(shard, expect).await
            }

            async fn fleet_row(
                &self,
                row: FleetRowKey,
                consistency: Consistency,
            ) -> Result<Option<FleetRow>, StoreError> {
                (**self).fleet_row(row, consistency).await
            }

            async fn change_fleet(
                &self,
                row: FleetRowKey,
                change: &FleetChange,
            ) -> Result<FleetWrite, StoreError> {
                (**self).change_fleet(row, change).await
            }

            fn usage(&self) -> StoreUsage {
                (**self).usage()
            }
        }
    };
}

forward!(Arc<S>);
forward!(Box<S>);
