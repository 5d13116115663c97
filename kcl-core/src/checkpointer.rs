//! Storing how far an application got.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::lease::{CheckpointUpdate, LeaseHandle, PendingCheckpoint, StoreError};
use crate::metrics::{MetricEvent, Metrics};
use crate::model::{Checkpoint, Position};
use crate::plant::{Plant, planted};

/// Who stores checkpoints, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// The processor, through its [`Checkpointer`].
    #[default]
    Manual,
    /// The library, after each batch that `process_records` acknowledged.
    AfterBatch,
    /// The library, at this interval, over what `process_records` acknowledged by then; also at the end of the
    /// shard and when it is given up.
    Every(Duration),
}

/// Why a checkpoint was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The lease is lost; another worker goes on from the stored checkpoint.
    #[error("the lease is lost; another worker continues from the stored checkpoint")]
    LeaseLost,
    /// The position lies beyond what was delivered.
    #[error("the position was not delivered yet: position={position}, delivered={delivered:?}")]
    NotDelivered {
        /// The position asked for.
        position: Position,
        /// The last position delivered, if any.
        delivered: Option<Position>,
    },
    /// The store failed.
    #[error("the checkpoint could not be stored")]
    Store(#[source] Arc<StoreError>),
}

/// Stores checkpoints of one shard. A handle: clones may be kept and used from other tasks.
///
/// Checkpoints only move forward (D-2): a position at or below the stored one is answered with `Ok` and no
/// write. A position may lie inside a KPL aggregate; processing then resumes with the next of its records.
/// Once the lease is lost, released or ended, everything but the accessors fails with
/// [`CheckpointError::LeaseLost`].
///
/// # Cancel safety
/// Dropping one of the futures does not withdraw a write that was already asked for.
#[derive(Clone, Debug)]
pub struct Checkpointer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    handle: LeaseHandle,
    metrics: Metrics,
    marks: Mutex<Marks>,
}

/// How far things got. `None` means that nothing of the shard is known to be processed.
#[derive(Debug)]
struct Marks {
    /// What the lease row says, as far as this worker knows.
    stored: Checkpoint,
    /// Up to where batches were acknowledged, and records without content passed.
    acknowledged: Option<Position>,
    /// Up to where the batch reaches that is inside `process_records` right now.
    in_hand: Option<Position>,
    /// Up to where records were ever handed to the processor, acknowledged or not.
    handed: Option<Position>,
    /// Since when something handed to the processor is not stored, or the checkpoint last moved after that.
    unstored_since: Option<Instant>,
}

impl Marks {
    /// Notes that records up to `cover` are with the processor, or passed it.
    fn reach(&mut self, cover: Option<Position>) {
        self.handed = self.handed.max(cover);
        if self.handed.is_some_and(|handed| Checkpoint::At(handed) > self.stored) {
            self.unstored_since.get_or_insert_with(Instant::now);
        }
    }

    fn delivered(&self) -> Option<Position> {
        self.acknowledged.max(self.in_hand).max(self.stored.position())
    }
}

impl Checkpointer {
    pub(crate) fn new(handle: LeaseHandle, metrics: Metrics) -> Self {
        let stored = handle.acquired().checkpoint;
        let acknowledged = stored.position();
        let marks = Marks { stored, acknowledged, in_hand: None, handed: acknowledged, unstored_since: None };
        Self { shared: Arc::new(Shared { handle, metrics, marks: Mutex::new(marks) }) }
    }

    /// Stores everything delivered so far as processed: see [`Checkpointer::delivered`].
    ///
    /// Does nothing if nothing was delivered yet.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`]; the latter can be repeated.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        match self.delivered() {
            Some(position) => self.store(position).await,
            None => self.held(),
        }
    }

    /// Stores every record up to and including `position` as processed.
    ///
    /// # Errors
    /// [`CheckpointError::NotDelivered`] if the processor was not handed a record at or beyond `position` yet;
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`].
    pub async fn checkpoint_at(&self, position: Position) -> Result<(), CheckpointError> {
        self.check(position)?;
        self.store(position).await
    }

    /// Stores everything delivered so far, with `state`, as *prepared* beside the checkpoint.
    ///
    /// The next holder of the lease finds it in [`ShardContext::pending`](crate::ShardContext) until a
    /// checkpoint of any kind replaces it. If nothing was delivered yet, nothing is stored.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`].
    pub async fn prepare(&self, state: Option<Bytes>) -> Result<PreparedCheckpoint, CheckpointError> {
        match self.delivered() {
            Some(position) => self.store_prepared(position, state).await,
            None => {
                self.held()?;
                Ok(PreparedCheckpoint { checkpointer: self.clone(), position: None })
            }
        }
    }

    /// Stores `position`, with `state`, as *prepared* beside the checkpoint; see [`Checkpointer::prepare`].
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint_at`].
    pub async fn prepare_at(
        &self,
        position: Position,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, CheckpointError> {
        self.check(position)?;
        self.store_prepared(position, state).await
    }

    /// The checkpoint in the lease row, as far as this worker knows.
    #[must_use]
    pub fn stored(&self) -> Checkpoint {
        self.marks().stored
    }

    /// How far delivery got, which is what [`Checkpointer::checkpoint`] stores: through the batches that were
    /// acknowledged, the one that is inside `process_records` right now, and what was checkpointed explicitly.
    ///
    /// A batch that failed does not count until it is delivered again, so that a checkpoint in
    /// `shutdown_requested` cannot pass it (D-2). Includes records that had nothing to deliver, such as
    /// aggregates whose records all belong to other shards.
    #[must_use]
    pub fn delivered(&self) -> Option<Position> {
        self.marks().delivered()
    }

    /// Takes note that the batch that reaches up to `cover` is handed to the processor.
    pub(crate) fn hand(&self, cover: Option<Position>) {
        let mut marks = self.marks();
        marks.in_hand = cover;
        marks.reach(cover);
        if planted(Plant::CheckpointAheadOfAck) {
            marks.acknowledged = marks.acknowledged.max(cover);
        }
    }

    /// Takes note that everything up to `cover` is acknowledged, or had nothing to deliver.
    pub(crate) fn acknowledge(&self, cover: Option<Position>) {
        let mut marks = self.marks();
        marks.in_hand = None;
        marks.acknowledged = marks.acknowledged.max(cover);
        marks.reach(cover);
    }

    /// Takes note that the batch in hand failed.
    pub(crate) fn take_back(&self) {
        self.marks().in_hand = None;
    }

    /// Up to where everything is acknowledged.
    pub(crate) fn acknowledged(&self) -> Option<Position> {
        self.marks().acknowledged
    }

    /// Since when something delivered waits for a checkpoint, or the checkpoint last moved after that.
    pub(crate) fn unstored_since(&self) -> Option<Instant> {
        self.marks().unstored_since
    }

    /// Whether something acknowledged is not stored yet.
    pub(crate) fn is_behind(&self) -> bool {
        let marks = self.marks();
        marks.acknowledged.is_some_and(|position| Checkpoint::At(position) > marks.stored)
    }

    /// Stores what is acknowledged.
    pub(crate) async fn store_acknowledged(&self) -> Result<(), CheckpointError> {
        match self.acknowledged() {
            Some(position) => self.store(position).await,
            None => Ok(()),
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.shared.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Result<(), CheckpointError> {
        if self.shared.handle.is_lost() { Err(CheckpointError::LeaseLost) } else { Ok(()) }
    }

    fn check(&self, position: Position) -> Result<(), CheckpointError> {
        let delivered = {
            let marks = self.marks();
            marks.handed.max(marks.delivered())
        };
        if Some(position) <= delivered {
            Ok(())
        } else {
            Err(CheckpointError::NotDelivered { position, delivered })
        }
    }

    async fn store(&self, position: Position) -> Result<(), CheckpointError> {
        self.held()?;
        let checkpoint = Checkpoint::At(position);
        if checkpoint <= self.stored() && !planted(Plant::CheckpointGoesBack) {
            return Ok(());
        }
        self.ask(CheckpointUpdate::Commit(checkpoint)).await?;
        let mut marks = self.marks();
        marks.stored = marks.stored.max(checkpoint);
        let is_behind = marks.handed.is_some_and(|handed| Checkpoint::At(handed) > marks.stored);
        marks.unstored_since = is_behind.then(Instant::now);
        Ok(())
    }

    async fn ask(&self, update: CheckpointUpdate) -> Result<(), CheckpointError> {
        let begun = Instant::now();
        let asked = self.shared.handle.checkpoint(update).await;
        self.shared.metrics.record(&MetricEvent::Checkpointed {
            shard: self.shared.handle.shard(),
            took: begun.elapsed(),
            ok: asked.is_ok(),
        });
        asked
    }

    async fn store_prepared(
        &self,
        position: Position,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, CheckpointError> {
        self.held()?;
        // At the stored position the state can still be news; below it the next checkpoint was made already.
        if Checkpoint::At(position) >= self.stored() {
            let pending = PendingCheckpoint { position, state };
            self.ask(CheckpointUpdate::Prepare(pending)).await?;
        }
        Ok(PreparedCheckpoint { checkpointer: self.clone(), position: Some(position) })
    }
}

/// A checkpoint that is prepared and waits to be committed.
#[derive(Clone, Debug)]
pub struct PreparedCheckpoint {
    checkpointer: Checkpointer,
    position: Option<Position>,
}

impl PreparedCheckpoint {
    /// The position; none if nothing was delivered when it was prepared.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Stores the position as the checkpoint. Does nothing if a later one is stored already.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`]; the latter can be repeated.
    pub async fn commit(&self) -> Result<(), CheckpointError> {
        match self.position {
            Some(position) => self.checkpointer.store(position).await,
            None => self.checkpointer.held(),
        }
    }
}
