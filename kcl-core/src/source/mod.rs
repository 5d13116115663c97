//! Where records come from.

mod config;
mod error;
#[cfg(any(test, feature = "test-util", feature = "fan-out-without-tls"))]
pub(crate) mod fan_out;
#[cfg(feature = "kinesis")]
pub mod kinesis;
#[cfg(any(feature = "config", feature = "kinesis"))]
pub(crate) mod name;
#[cfg(any(test, feature = "test-util", feature = "kinesis"))]
mod place;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

#[cfg(any(test, feature = "test-util", feature = "config", feature = "fan-out-without-tls"))]
pub(crate) use config::BUFFER_BYTES;
#[cfg(any(feature = "config", feature = "fan-out-without-tls"))]
pub(crate) use config::SUBSCRIPTIONS_PER_CONNECTION;
pub use config::{FanOutTimeouts, PollingConfig};
pub use error::{SourceError, SourceErrorKind};

use crate::metrics::Metrics;
use crate::model::{ChildShard, SequenceNumber, Shard, ShardId, SourceRecord, StreamIdentity};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFrom {
    /// With the oldest record of the shard.
    TrimHorizon,
    /// With records put from now on.
    Latest,
    /// With the first record that arrived at or after this time.
    AtTimestamp(SystemTime),
    /// With this record.
    AtSequence(SequenceNumber),
    /// With the record after this one.
    AfterSequence(SequenceNumber),
}

/// One answer of a shard: records in sequence order, how far behind, and whether that was all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceBatch {
    /// The records; may be empty.
    pub records: Vec<SourceRecord>,
    /// How far the answer is behind the tip, if the source said so. A hint; nothing depends on it.
    pub behind: Option<Duration>,
    /// Set with the last batch of a closed shard. The reader yields nothing after it.
    pub end: Option<SourceEnd>,
}

impl SourceBatch {
    /// Creates a batch.
    #[must_use]
    pub const fn new(records: Vec<SourceRecord>, behind: Option<Duration>, end: Option<SourceEnd>) -> Self {
        Self { records, behind, end }
    }

    /// The sum of the payloads, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.records.iter().map(|record| record.data.len()).sum()
    }
}

/// The end of a closed shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceEnd {
    /// The children the service named. May be empty although there are some: look them up by listing.
    pub children: Vec<ChildShard>,
}

/// A stream: lists its shards and opens readers on them.
///
/// # Contract
/// Calls are retried by the caller, except that a [`ShardReader`] absorbs what [`ShardReader::next`] says.
#[async_trait]
pub trait StreamSource: Debug + Send + Sync + 'static {
    /// Says which stream this is.
    async fn identity(&self) -> Result<StreamIdentity, SourceError>;

    /// Lists every shard the stream still knows, open and closed, paged to the end.
    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError>;

    /// Opens a reader. May return before the service was asked anything.
    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError>;

    /// A name for logs and errors.
    fn name(&self) -> &str;

    /// Is told before anything else to whom metrics go. Default: measures nothing of its own.
    ///
    /// A source that wraps another passes it on. If several schedulers share a source, the first counts.
    fn attach_metrics(&self, metrics: &Metrics) {
        let _ = metrics;
    }
}

#[async_trait]
impl<S: StreamSource + ?Sized> StreamSource for Arc<S> {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        (**self).identity().await
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        (**self).list_shards().await
    }

    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        (**self).open(shard, from).await
    }

    fn name(&self) -> &str {
        (**self).name()
    }

    fn attach_metrics(&self, metrics: &Metrics) {
        (**self).attach_metrics(metrics);
    }
}

/// Reads one shard in order.
#[async_trait]
pub trait ShardReader: Send + Debug {
    /// Returns the next answer, waiting as long as the reader's own pacing and back-off demand.
    ///
    /// Expired iterators, throttles, time-outs and errors of the service are absorbed: the reader backs off and
    /// goes on after the last record it has *returned*. Each absorbed failure is counted in
    /// [`ShardReader::absorbed_failures`]. An empty batch is returned at least every few seconds while the
    /// shard is idle, as a sign of life.
    ///
    /// # Cancel safety
    /// Dropping the future loses no record: the next call returns what the dropped one would have.
    ///
    /// # Errors
    /// What waiting cannot cure: rights, a shard or position that does not exist.
    async fn next(&mut self) -> Result<SourceBatch, SourceError>;

    /// How many failures in a row were absorbed since the last success, and the latest of them.
    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        None
    }

    /// Why this reader reads in another way than it was told to, if it does: the failure of the way it was told.
    fn fallback(&self) -> Option<Arc<SourceError>> {
        None
    }
}
