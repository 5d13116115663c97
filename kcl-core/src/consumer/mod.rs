//! One shard, from first lease to last checkpoint.
//!
//! A consumer is one future. Inside it the [`reader`] reads ahead while the loop in [`mod@run`] calls the processor;
//! [`state`] says what comes next, [`delivery`] cuts batches, [`process`] and [`callback`] call the processor,
//! [`leave`] ends it.

mod budget;
mod callback;
mod delivery;
mod leave;
mod process;
mod reader;
mod report;
mod run;
mod signals;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::time::Instant;

pub(crate) use budget::WorkerBudget;
pub use report::{Budget, CallbackReport, ReaderActivity, ReaderReport, RetryReport};
pub(crate) use run::run;

use crate::checkpointer::CheckpointPolicy;
use crate::entropy::Entropy;
use crate::error::BoxError;
use crate::event::EventSender;
use crate::lease::{Lease, LossReason, StoreError};
use crate::metrics::Metrics;
use crate::model::{Checkpoint, ChildShard, InitialPosition, Position, ShardId, StreamIdentity};
use crate::processor::{ErrorPolicy, RecordProcessorFactory};
use crate::settings::Settings;
use crate::source::{SourceError, StreamSource};
use crate::time::Clock;

/// Where a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Waits until every parent's end is stored.
    WaitingForParents,
    /// `initialize` runs or is retried.
    Initializing,
    /// Waits for records.
    Fetching,
    /// `process_records` runs.
    Delivering,
    /// `process_records` failed and waits for its next attempt.
    Retrying,
    /// Has records, but the lease cannot be proven valid; delivers nothing (L-1).
    Fenced,
    /// Paused on request.
    Paused,
    /// `shard_ended` runs, or the end is being stored.
    Ending,
    /// Gives the shard up: `shutdown_requested` runs, or the release is being stored.
    Draining,
    /// `lease_lost` runs.
    Losing,
    /// Done.
    Done,
}

/// What a consumer shows of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardReport {
    /// Where it is.
    pub stage: Stage,
    /// Since when.
    pub since: Instant,
    /// When the last answer of the source arrived.
    pub last_fetch: Option<Instant>,
    /// When the last `process_records` began.
    pub last_delivery: Option<Instant>,
    /// The stored checkpoint, as far as this worker knows.
    pub checkpoint: Checkpoint,
    /// Since when records wait for a checkpoint: since one was last stored, or since the first of them was delivered if
    /// that was later. None while everything delivered is stored.
    pub unstored_since: Option<Instant>,
    /// How far the last answer was behind the tip of the shard, in milliseconds.
    pub millis_behind: Option<u64>,
    /// User records acknowledged under this lease.
    pub records: u64,
    /// Payload bytes acknowledged under this lease.
    pub bytes: u64,
    /// Payload bytes read ahead.
    pub buffered_bytes: usize,
    /// How often the current callback failed in a row.
    pub failures: u32,
    /// The latest failure, with its causes.
    pub last_error: Option<String>,
    /// The callback that runs.
    pub callback: Option<CallbackReport>,
    /// The first and the last record of the batch that is with the processor, or comes to it again.
    pub batch: Option<(Position, Position)>,
    /// The step that fails, if one does: a callback, a look at the parents, storing the end.
    pub retry: Option<RetryReport>,
    /// When the stored checkpoint was last seen to move under this lease; its acquisition before that.
    pub checkpointed_at: Instant,
    /// Whether records are acknowledged that the stored checkpoint does not cover.
    pub uncheckpointed: bool,
    /// What the reader does.
    pub reader: ReaderReport,
}

impl ShardReport {
    /// The report of a consumer that is about to start.
    pub(crate) fn starting(checkpoint: Checkpoint) -> Self {
        let now = Instant::now();
        Self {
            stage: Stage::WaitingForParents,
            since: now,
            last_fetch: None,
            last_delivery: None,
            checkpoint,
            unstored_since: None,
            millis_behind: None,
            records: 0,
            bytes: 0,
            buffered_bytes: 0,
            failures: 0,
            last_error: None,
            callback: None,
            batch: None,
            retry: None,
            checkpointed_at: now,
            uncheckpointed: false,
            reader: ReaderReport::new(now),
        }
    }
}

/// What the supervisor asks of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Process the shard.
    Run,
    /// Keep the lease, deliver nothing.
    Pause,
    /// Drain the shard and release its lease.
    Drain,
}

/// How a consumer ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The shard's end is stored.
    Ended,
    /// The lease was lost.
    Lost(LossReason),
    /// The lease was released, or the attempt to release it is over.
    Released {
        /// Whether `shutdown_requested` succeeded and the release was stored.
        clean: bool,
    },
    /// The error policy asked for the scheduler to stop. The lease was released.
    StopScheduler(BoxError),
}

/// What a consumer must know of other shards.
#[async_trait]
pub(crate) trait Lineage: Send + Sync + 'static {
    /// Whether every parent of `lease` is done: its end is stored; or its row is gone and the stream no longer
    /// lists it; or a descendant of it has a real checkpoint (S-1).
    async fn parents_done(&self, lease: &Lease) -> Result<bool, LineageError>;

    /// Waits until some shard's end was stored by this worker. Cancel-safe.
    async fn some_shard_ended(&self);

    /// The children of a closed shard: those the source named if that is all, else as the stream lists them.
    /// An error if the stream lists the shard as open, or not at all and names none.
    ///
    /// `None` if the source does not know the shard, instead of having said that it ended: then also an error if the
    /// stream lists it at all, for what it lists is there to be read (D-1).
    async fn children(
        &self,
        shard: &ShardId,
        named: Option<&[ChildShard]>,
    ) -> Result<Vec<ChildShard>, LineageError>;
}

/// Why lineage could not be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineageError {
    #[error("the lease table could not be read")]
    Store(#[from] StoreError),
    #[error("the shards could not be listed")]
    Source(#[from] SourceError),
    #[error("the source reported the end of shard {0}, but the stream lists it as open")]
    StillOpen(ShardId),
    #[error("the source does not know shard {0}, but the stream lists it")]
    StillListed(ShardId),
    #[error("shard {0} has ended or is gone, but the stream does not list what comes after it yet")]
    ChildrenUnknown(ShardId),
}

/// What all consumers of a scheduler share.
pub(crate) struct ConsumerContext {
    pub(crate) stream: StreamIdentity,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) factory: Arc<dyn RecordProcessorFactory>,
    pub(crate) error_policy: Arc<dyn ErrorPolicy>,
    pub(crate) checkpoint_policy: CheckpointPolicy,
    pub(crate) settings: Arc<Settings>,
    /// For the rare lease with a starting sentinel that carries no time of its own.
    pub(crate) initial_position: InitialPosition,
    pub(crate) lineage: Arc<dyn Lineage>,
    pub(crate) events: EventSender,
    pub(crate) entropy: Entropy,
    pub(crate) clock: Arc<dyn Clock>,
    /// One for the worker, from [`Settings::worker_buffer_bytes`].
    pub(crate) budget: WorkerBudget,
    pub(crate) metrics: Metrics,
}

impl ConsumerContext {
    /// The time an `AT_TIMESTAMP` checkpoint of `lease` stands for.
    pub(crate) fn start_timestamp(&self, lease: &Lease) -> Option<SystemTime> {
        lease.start_timestamp.or(match self.initial_position {
            InitialPosition::AtTimestamp(time) => Some(time),
            InitialPosition::TrimHorizon | InitialPosition::Latest => None,
        })
    }
}
