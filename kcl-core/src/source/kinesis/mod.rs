//! Amazon Kinesis Data Streams as a source, over the AWS SDK.
//!
//! Polling with `GetRecords`. Each module has one concern: [`KinesisStream`] is the source, `service` makes the
//! calls, `classify` says what a failed call means, `convert` turns the SDK's types into ours, `place` knows
//! where a reader goes on, `pace` when it may call again, and `polling` is the reader that joins them.

mod classify;
mod client;
mod convert;
mod name;
mod pace;
mod polling;
mod service;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{ShardReader, SourceError, StartFrom, StreamSource};
use crate::entropy::Entropy;
use crate::model::{Shard, ShardId, StreamIdentity};
use crate::time::{Clock, SystemClock};
use polling::PollingReader;
use service::Service;

/// How a shard is polled. Start from the default and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollingConfig {
    /// The time from one call to the next at the tip of a shard that nobody else polls. Default 200 ms, the five
    /// calls per second and shard the service allows; a smaller value does not lift that limit.
    #[doc(alias = "idleTimeBetweenReadsInMillis")]
    pub min_interval: Duration,
    /// The longest time from one call to the next, reached while the service keeps throttling because others
    /// poll the shard too. Default 2 s, which lets ten applications share a shard.
    pub max_interval: Duration,
    /// The most records of one `GetRecords` call. Default and maximum 10,000.
    #[doc(alias = "maxRecords")]
    pub fetch_records: u32,
    /// How long one call may take, from its start to the last byte of the answer. Default 15 s.
    #[doc(alias = "maxGetRecordsWaitTime")]
    pub call_timeout: Duration,
}

impl Default for PollingConfig {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(200),
            max_interval: Duration::from_secs(2),
            fetch_records: 10_000,
            call_timeout: Duration::from_secs(15),
        }
    }
}

/// A Kinesis data stream, read by polling.
///
/// Give it a client made for the stream's region and with credentials that may call `DescribeStreamSummary`,
/// `ListShards`, `GetShardIterator` and `GetRecords`. The client is copied with the SDK's own retries switched
/// off (retries have one owner, and that is this crate) and with a limit on the duration of each call; its HTTP
/// client, endpoint, credentials and interceptors stay as they are. Credentials are resolved by the SDK with each
/// call and never kept here.
///
/// Every request carries the stream's ARN. If the stream is given by its name, the ARN is not known until the
/// first [`StreamSource::identity`]; requests made before carry the name. `ListShards` with a paging token
/// carries neither, as the service demands.
#[derive(Debug)]
pub struct KinesisStream {
    service: Arc<Service>,
    polling: PollingConfig,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl KinesisStream {
    /// Creates the source for a stream given by name or ARN.
    ///
    /// Nothing is called yet. Text that is neither a stream's name nor a stream's ARN is reported by the first
    /// call, as [`SourceErrorKind::Misconfigured`](super::SourceErrorKind::Misconfigured).
    #[must_use]
    pub fn new(client: aws_sdk_kinesis::Client, name_or_arn: impl Into<String>) -> Self {
        let polling = PollingConfig::default();
        Self {
            service: Arc::new(Service::new(&client, name_or_arn.into(), polling.call_timeout)),
            polling,
            clock: Arc::new(SystemClock),
            entropy: Entropy::default(),
        }
    }

    /// Sets how shards are polled. Values out of range are brought into it.
    #[must_use]
    pub fn with_polling(mut self, polling: PollingConfig) -> Self {
        self.service = Arc::new(self.service.with_call_timeout(polling.call_timeout));
        self.polling = polling;
        self
    }

    /// Sets the wall clock, which is read once per reader that starts at [`StartFrom::Latest`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of jitter.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }
}

#[async_trait]
impl StreamSource for KinesisStream {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        self.service.identity().await
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.service.list_shards().await
    }

    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        self.service.check()?;
        Ok(Box::new(PollingReader::new(
            Arc::clone(&self.service),
            shard.clone(),
            from,
            &self.polling,
            Arc::clone(&self.clock),
            self.entropy.fork(),
        )))
    }

    fn name(&self) -> &str {
        self.service.name()
    }
}
