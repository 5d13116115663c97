//! What users implement: [`RecordProcessor`] and, if they wish, [`RecordProcessorFactory`] and [`ErrorPolicy`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::checkpointer::Checkpointer;
use crate::error::BoxError;
use crate::lease::PendingCheckpoint;
use crate::model::{Checkpoint, HashKeyRange, Position, Record, ShardId, StreamIdentity};

/// The shard a processor is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardContext {
    /// The stream.
    pub stream: StreamIdentity,
    /// The shard.
    pub shard: ShardId,
    /// The hash keys of the shard, if known.
    pub hash_key_range: Option<HashKeyRange>,
    /// Where processing goes on: everything up to here was processed before.
    pub checkpoint: Checkpoint,
    /// A checkpoint an earlier holder prepared and did not commit.
    pub pending: Option<PendingCheckpoint>,
}

/// Records of one shard, in order, as handed to [`RecordProcessor::process_records`].
///
/// Cheap to clone; a failed batch is delivered again as it was.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    pub(crate) shard: Arc<ShardContext>,
    pub(crate) records: Arc<Vec<Record>>,
    pub(crate) behind: Option<Duration>,
    pub(crate) attempt: u32,
}

impl RecordBatch {
    /// The records. Never empty unless [`Settings::deliver_empty_batches`](crate::Settings) is set.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The shard the records came from.
    #[must_use]
    pub fn shard(&self) -> &ShardContext {
        &self.shard
    }

    /// How far the shard was behind its tip when the records were fetched (`MillisBehindLatest`), if known.
    #[must_use]
    pub const fn behind(&self) -> Option<Duration> {
        self.behind
    }

    /// How often this batch was delivered before: 0 the first time.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// Processes the records of one shard.
///
/// One processor is made for each hold of a lease. Its callbacks are serial and in legal order (P-1):
/// `initialize`, then any number of `process_records`, then at most one of `shard_ended`, `lease_lost` and
/// `shutdown_requested`; `lease_lost` may still follow `shutdown_requested`. A callback that fails is retried
/// and then counts as one call; a `shard_ended` that never succeeded may be followed by the other two. Nothing
/// is called after the last, and nothing but `initialize` on a processor whose `initialize` did not succeed. A
/// callback beyond its limit is dropped midway, and its processor not called again.
///
/// A panic counts as an error; the same processor is called again. Callbacks may block their thread: leases
/// are renewed on another one. They should end within [`Settings::callback_limit`](crate::Settings).
#[async_trait]
pub trait RecordProcessor: Send {
    /// Called first. On error it is retried with back-off as [`ErrorPolicy`] says.
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), BoxError> {
        let _ = shard;
        Ok(())
    }

    /// Takes the next records.
    ///
    /// `Ok` acknowledges the batch. On error [`ErrorPolicy`] decides; by default the same batch comes again
    /// (D-1). `checkpointer` stores how far the application got; see [`CheckpointPolicy`] to have that done.
    ///
    /// [`CheckpointPolicy`]: crate::CheckpointPolicy
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError>;

    /// Called after the last record of a closed shard was acknowledged. After `Ok` the library stores the end of
    /// the shard itself, and its children start. Also called if the stream does not know the shard any more
    /// before its end was read; [`Event::DataLoss`](crate::Event) tells of it.
    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        checkpointer.checkpoint().await?;
        Ok(())
    }

    /// Called when the lease is lost: another worker goes on from the stored checkpoint, so nothing can be
    /// stored any more. Not retried.
    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Called when the shard is given up on purpose (shutdown, balance, error policy, a source that is silent).
    /// After it the lease is released. A batch that failed before is not covered by
    /// [`Checkpointer::checkpoint`]. Called at most three times if it fails.
    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

#[async_trait]
impl RecordProcessor for Box<dyn RecordProcessor> {
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), BoxError> {
        (**self).initialize(shard).await
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        (**self).process_records(batch, checkpointer).await
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        (**self).shard_ended(checkpointer).await
    }

    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        (**self).lease_lost().await
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        (**self).shutdown_requested(checkpointer).await
    }
}

/// Makes processors. Closures `Fn(&ShardContext) -> impl RecordProcessor` are factories.
pub trait RecordProcessorFactory: Send + Sync + 'static {
    /// Makes a processor for one hold of the shard's lease. A panic counts as a failed `initialize`.
    fn create(&self, shard: &ShardContext) -> Box<dyn RecordProcessor>;
}

impl<F, P> RecordProcessorFactory for F
where
    F: Fn(&ShardContext) -> P + Send + Sync + 'static,
    P: RecordProcessor + 'static,
{
    fn create(&self, shard: &ShardContext) -> Box<dyn RecordProcessor> {
        Box::new(self(shard))
    }
}

/// Which callback failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Callback {
    /// [`RecordProcessorFactory::create`] or [`RecordProcessor::initialize`].
    Initialize,
    /// [`RecordProcessor::process_records`].
    ProcessRecords,
    /// [`RecordProcessor::shard_ended`].
    ShardEnded,
    /// [`RecordProcessor::shutdown_requested`].
    ShutdownRequested,
    /// [`RecordProcessor::lease_lost`].
    LeaseLost,
}

impl Callback {
    /// The name of the method.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::ProcessRecords => "process_records",
            Self::ShardEnded => "shard_ended",
            Self::ShutdownRequested => "shutdown_requested",
            Self::LeaseLost => "lease_lost",
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed callback, for [`ErrorPolicy`] to decide on.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProcessorFailure<'a> {
    /// The shard.
    pub shard: &'a ShardContext,
    /// The callback.
    pub callback: Callback,
    /// How often it failed in a row, this time included.
    pub failures: u32,
    /// The error it returned; for a panic, an error that carries the panic's message.
    pub error: &'a BoxError,
    /// Whether it panicked.
    pub panicked: bool,
    /// The first and the last record of the failed batch, if it was one.
    pub batch: Option<(Position, Position)>,
}

/// What to do after a failed callback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// Call it again after the library's growing delay
    /// ([`Settings::retry_initial`](crate::Settings) to [`Settings::retry_max`](crate::Settings)).
    #[default]
    Retry,
    /// Call it again after this delay.
    RetryAfter(Duration),
    /// Give the lease up, so that a worker (this one not excluded) starts again at the checkpoint.
    ReleaseLease,
    /// Stop the scheduler; [`Scheduler::run`](crate::Scheduler::run) returns the error.
    StopScheduler,
    /// Go on after the batch, counted and reported, once [`ErrorPolicy::dead_letter`] has taken it. For any other
    /// callback than `process_records` this is `Retry`.
    Skip,
}

/// Decides what a failed callback means. Closures `Fn(&ProcessorFailure) -> OnError` are policies.
#[async_trait]
pub trait ErrorPolicy: Send + Sync + 'static {
    /// Decides.
    fn on_error(&self, failure: &ProcessorFailure<'_>) -> OnError;

    /// Takes a batch that is about to be skipped. On error it is not skipped but retried.
    async fn dead_letter(&self, batch: &RecordBatch, error: &BoxError) -> Result<(), BoxError> {
        let _ = (batch, error);
        Ok(())
    }
}

#[async_trait]
impl<F> ErrorPolicy for F
where
    F: Fn(&ProcessorFailure<'_>) -> OnError + Send + Sync + 'static,
{
    fn on_error(&self, failure: &ProcessorFailure<'_>) -> OnError {
        self(failure)
    }
}

/// The default policy: retry the same call, without end, with a growing delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysRetry;

#[async_trait]
impl ErrorPolicy for AlwaysRetry {
    fn on_error(&self, _: &ProcessorFailure<'_>) -> OnError {
        OnError::Retry
    }
}
