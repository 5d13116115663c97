use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

use crate::model::{Checkpoint, HashKeyRange, Position, ShardId, StreamIdentity, WorkerId};

/// Marks the write that produced a row, so that its author recognises it after a lost answer.
///
/// A repeat of the same write carries the same token. Workers of the Java KCL leave the attribute as it is,
/// so a row is the result of a given write only if token *and* counter are those the write would have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptToken(pub Uuid);

impl fmt::Display for AttemptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A checkpoint that was prepared but not yet committed (`pendingCheckpoint…` attributes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCheckpoint {
    /// The position to be committed.
    pub position: Position,
    /// Opaque bytes for the processor that commits, if any.
    pub state: Option<Bytes>,
}

/// The rows of a table, by shard. Rows are shared, not copied: tables are listed again and again.
pub type LeaseTable = BTreeMap<ShardId, Arc<Lease>>;

/// A lease row: who processes a shard, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The shard; also the row's key (`leaseKey`).
    pub shard: ShardId,
    /// The worker that holds the lease; none if it is free (`leaseOwner`).
    pub owner: Option<WorkerId>,
    /// The fencing counter: every take, renewal and checkpoint adds 1 (`leaseCounter`).
    pub counter: u64,
    /// How far the shard is processed (`checkpoint`, `checkpointSubSequenceNumber`).
    pub checkpoint: Checkpoint,
    /// A prepared checkpoint (`pendingCheckpoint`, `…SubSequenceNumber`, `…State`).
    pub pending: Option<PendingCheckpoint>,
    /// How often the owner changed since the last checkpoint (`ownerSwitchesSinceCheckpoint`).
    pub owner_switches: u64,
    /// The shard's parents (`parentShardId`).
    pub parents: BTreeSet<ShardId>,
    /// The shard's children, known once it ended (`childShardIds`).
    pub children: BTreeSet<ShardId>,
    /// The hash keys of the shard (`startingHashKey`, `endingHashKey`); rows of old KCLs lack them.
    pub hash_key_range: Option<HashKeyRange>,
    /// The time a starting sentinel `LATEST` or `AT_TIMESTAMP` stands for (`startTimestampMillis`, ours).
    pub start_timestamp: Option<SystemTime>,
    /// The stream the lease belongs to (`streamIdentity`, ours); rows made by Java lack it.
    pub stream: Option<StreamIdentity>,
    /// The token of the last write by a worker of ours (`attemptToken`, ours).
    pub token: Option<AttemptToken>,
    /// A worker of ours that asks the owner for this lease (`handOverRequest`, ours).
    pub requested_by: Option<WorkerId>,
    /// During a hand-off of the Java KCL 3.x: the worker that still processes (`checkpointOwner`).
    pub checkpoint_owner: Option<WorkerId>,
}

impl Lease {
    /// Creates a free lease with counter 0, no lineage and no range.
    #[must_use]
    pub const fn new(shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            shard,
            owner: None,
            counter: 0,
            checkpoint,
            pending: None,
            owner_switches: 0,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_key_range: None,
            start_timestamp: None,
            stream: None,
            token: None,
            requested_by: None,
            checkpoint_owner: None,
        }
    }

    /// Whether the shard is processed to its end.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.checkpoint.is_shard_end()
    }

    /// Whether `worker` owns the lease.
    #[must_use]
    pub fn is_owned_by(&self, worker: &WorkerId) -> bool {
        self.owner.as_ref() == Some(worker)
    }
}
