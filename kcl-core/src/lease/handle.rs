use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Lease, MemberProof, PendingCheckpoint, StoreError};
use crate::checkpointer::CheckpointError;
use crate::model::{Checkpoint, ChildShard, ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// What a held lease is worth right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Until when a delivery may start: the lease duration less the safety margin, counted from the moment
    /// before the last confirmed write was sent (L-1). In a fleet the worker's heartbeats say so instead, see
    /// [`LeaseHandle::valid_until`].
    pub valid_until: Instant,
    /// What is asked of the holder.
    pub phase: Phase,
    /// The stored checkpoint, as last confirmed.
    pub checkpoint: Checkpoint,
}

/// What is asked of the holder of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing: process the shard.
    Held,
    /// Drain the shard and give the lease to this worker, which asked for it.
    HandOver(WorkerId),
    /// The lease is gone: deliver nothing more, write nothing more.
    Lost(LossReason),
}

/// Why a lease is no longer held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossReason {
    /// Another worker owns it.
    Taken {
        /// The owner the row names, if any.
        by: Option<WorkerId>,
    },
    /// It could not be renewed in time.
    Expired,
    /// Its row does not exist any more.
    Deleted,
    /// Its consumer made no progress and the lease was given up.
    Stalled,
    /// It was released or given away on purpose.
    Released,
    /// The worker was removed from its fleet: others hold it for dead.
    Evicted,
    /// The shard has ended.
    Ended,
}

/// A checkpoint write asked of the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointUpdate {
    /// Store this position.
    Commit(Checkpoint),
    /// Store this position as prepared.
    Prepare(PendingCheckpoint),
}

/// To whom a lease is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseTo {
    /// To whoever takes it.
    Anybody,
    /// To this worker.
    Worker(WorkerId),
}

/// The end of a shard asked of the keeper: create the children, then mark the parent (S-1).
#[derive(Clone, Debug)]
pub struct EndShard {
    /// The children that must have leases before the shard may be marked as ended.
    pub children: Vec<ChildShard>,
}

/// A request to the keeper of held leases.
#[derive(Debug)]
pub(crate) enum Command {
    Checkpoint {
        shard: ShardId,
        incarnation: u64,
        update: CheckpointUpdate,
        answer: oneshot::Sender<Result<(), CheckpointError>>,
    },
    Release {
        shard: ShardId,
        incarnation: u64,
        checkpoint: Option<Checkpoint>,
        to: ReleaseTo,
        answer: oneshot::Sender<Result<(), CheckpointError>>,
    },
    End {
        shard: ShardId,
        incarnation: u64,
        end: EndShard,
        answer: oneshot::Sender<Result<(), CheckpointError>>,
    },
    Read {
        shards: BTreeSet<ShardId>,
        answer: oneshot::Sender<Result<Vec<Lease>, StoreError>>,
    },
}

/// A consumer's promise to show life again (L-3): the keeper renews a lease only while the promise stands.
#[derive(Debug)]
pub(crate) struct Liveness {
    origin: Instant,
    deadline_millis: AtomicU64,
    /// Whether a consumer runs.
    runs: AtomicBool,
    /// The payload bytes acknowledged.
    processed: AtomicU64,
}

impl Liveness {
    pub(crate) fn new(limit: Duration) -> Self {
        let liveness = Self {
            origin: Instant::now(),
            deadline_millis: AtomicU64::new(0),
            runs: AtomicBool::new(false),
            processed: AtomicU64::new(0),
        };
        liveness.promise(limit);
        liveness
    }

    pub(crate) fn promise(&self, limit: Duration) {
        let deadline = self.origin.elapsed().saturating_add(limit);
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.deadline_millis.store(millis, Ordering::Relaxed);
    }

    /// The payload bytes acknowledged under the hold.
    pub(crate) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }

    /// Whether a consumer runs on the hold, or has not ended yet.
    pub(crate) fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.origin.elapsed().as_millis() <= u128::from(self.deadline_millis.load(Ordering::Relaxed))
    }
}

/// What proves that a held lease is valid.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// The renewals of the lease itself: [`Standing::valid_until`].
    Lease,
    /// The heartbeats of the worker, for all its leases (R1).
    Member(MemberProof),
}

/// A consumer's hold on one lease: its standing, and the only way to write on its row.
///
/// Clones speak for the same incarnation of the lease. Once it is lost, every write through any clone fails
/// with [`CheckpointError::LeaseLost`], also if the same worker got the lease again.
#[derive(Clone, Debug)]
pub struct LeaseHandle {
    lease: Arc<Lease>,
    incarnation: u64,
    standing: watch::Receiver<Standing>,
    commands: mpsc::Sender<Command>,
    liveness: Arc<Liveness>,
    proof: Proof,
}

impl LeaseHandle {
    pub(crate) fn new(
        lease: Lease,
        incarnation: u64,
        standing: watch::Receiver<Standing>,
        commands: mpsc::Sender<Command>,
        liveness: Arc<Liveness>,
        proof: Proof,
    ) -> Self {
        Self { lease: Arc::new(lease), incarnation, standing, commands, liveness, proof }
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        &self.lease.shard
    }

    /// The row as it was when this worker's first write on it was confirmed.
    #[must_use]
    pub fn acquired(&self) -> &Lease {
        &self.lease
    }

    /// Distinguishes holds of the same lease by the same worker one after the other.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What the lease is worth right now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether a delivery may start now (L-1).
    #[must_use]
    pub fn may_deliver(&self) -> bool {
        let standing = self.standing.borrow();
        if matches!(standing.phase, Phase::Lost(_)) {
            return false;
        }
        match &self.proof {
            Proof::Lease => Instant::now() < standing.valid_until || planted(Plant::DeliverUntilToldLost),
            Proof::Member(proof) => proof.holds(),
        }
    }

    /// Until when deliveries may start, as confirmed so far.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        let of_lease = self.standing.borrow().valid_until;
        match &self.proof {
            Proof::Lease => of_lease,
            Proof::Member(proof) => proof.until().unwrap_or(of_lease),
        }
    }

    /// Says that a consumer runs on this hold.
    pub(crate) fn consumer_started(&self) {
        self.liveness.runs.store(true, Ordering::Relaxed);
    }

    /// Says how many payload bytes were acknowledged under this hold, in all.
    pub(crate) fn processed(&self, bytes: u64) {
        self.liveness.processed.store(bytes, Ordering::Relaxed);
    }

    /// Says that the consumer of this hold is gone.
    pub(crate) fn consumer_ended(&self) {
        self.liveness.runs.store(false, Ordering::Relaxed);
    }

    /// Whether the lease is lost for this incarnation.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.standing.borrow().phase, Phase::Lost(_))
    }

    /// The same hold, for a consumer that starts over: it begins at the checkpoint stored by now.
    #[must_use]
    pub(crate) fn restarted(&self) -> Self {
        let mut lease = Lease::clone(&self.lease);
        lease.checkpoint = self.standing.borrow().checkpoint;
        Self { lease: Arc::new(lease), ..self.clone() }
    }

    /// Waits until the standing changes. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            // The keeper is gone; it reports every lease as lost before that, so nothing is left to wait for.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the lease is lost and returns why. Cancel-safe.
    pub async fn lost(&mut self) -> LossReason {
        loop {
            if let Phase::Lost(reason) = self.standing.borrow_and_update().phase.clone() {
                return reason;
            }
            self.changed().await;
        }
    }

    /// Promises to call this again within `limit`; otherwise the lease is not renewed any more (L-3).
    pub fn promise(&self, limit: Duration) {
        self.liveness.promise(limit);
    }

    /// Whether the latest promise stands.
    pub(crate) fn keeps_promise(&self) -> bool {
        self.liveness.is_alive()
    }

    /// Stores a checkpoint; returns when it is stored or cannot be.
    ///
    /// Requests that arrive while a write is under way are merged into the next one. Positions at or below the
    /// stored one are answered without a write.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw the request.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`].
    pub async fn checkpoint(&self, update: CheckpointUpdate) -> Result<(), CheckpointError> {
        self.ask(|shard, incarnation, answer| Command::Checkpoint { shard, incarnation, update, answer })
            .await
    }

    /// Stores a final checkpoint, if any, and gives the lease up in the same write.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`]; in both cases the lease counts as lost.
    pub async fn release(
        &self,
        checkpoint: Option<Checkpoint>,
        to: ReleaseTo,
    ) -> Result<(), CheckpointError> {
        self.ask(|shard, incarnation, answer| Command::Release { shard, incarnation, checkpoint, to, answer })
            .await
    }

    /// Creates the leases of the children that have none, owned by this worker, then marks the shard as ended
    /// and frees its lease (S-1). Can be repeated after an error.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`].
    pub async fn end(&self, end: EndShard) -> Result<(), CheckpointError> {
        self.ask(|shard, incarnation, answer| Command::End { shard, incarnation, end, answer }).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(ShardId, u64, oneshot::Sender<Result<(), CheckpointError>>) -> Command,
    ) -> Result<(), CheckpointError> {
        let (answer, answered) = oneshot::channel();
        let command = command(self.lease.shard.clone(), self.incarnation, answer);
        if self.commands.send(command).await.is_err() {
            return Err(CheckpointError::LeaseLost);
        }
        answered.await.unwrap_or(Err(CheckpointError::LeaseLost))
    }
}
