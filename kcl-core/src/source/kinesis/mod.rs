//! Amazon Kinesis Data Streams as a source, over the AWS SDK.
//!
//! Polling with `GetRecords`, or enhanced fan-out with `SubscribeToShard` (feature `fan-out`). Each module has one
//! concern: [`KinesisStream`] is the source, `service` makes the calls, `classify` says what a failed call means,
//! `convert` turns the SDK's types into ours, `pace` knows when a poller may call again, `polling` is the reader
//! that polls, `fan_out` what the reader that subscribes needs of the SDK.

mod classify;
mod client;
mod convert;
#[cfg(feature = "fan-out-without-tls")]
mod fan_out;
mod pace;
mod polling;
mod service;

use std::sync::Arc;
#[cfg(feature = "fan-out-without-tls")]
use std::sync::OnceLock;

use async_trait::async_trait;

#[cfg(feature = "fan-out-without-tls")]
pub use super::FanOutTimeouts;
pub use super::PollingConfig;
use super::{ShardReader, SourceError, StartFrom, StreamSource};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::{Shard, ShardId, StreamIdentity};
use crate::time::{Clock, SystemClock};
#[cfg(feature = "fan-out-without-tls")]
use fan_out::FanOut;
#[cfg(feature = "fan-out-without-tls")]
pub use fan_out::{FallbackConfig, FanOutConfig, FanOutConsumer, HttpClientFactory, SubscriptionHttpClient};
use polling::PollingReader;
use service::Service;

/// How the shards of a stream are read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retrieval {
    /// By `GetRecords`: five calls per second and shard, and two megabytes, shared by all who poll.
    Polling(PollingConfig),
    /// By `SubscribeToShard`: pushed within some ten milliseconds, two megabytes per second and shard of one's own,
    /// at a price of its own.
    #[cfg(feature = "fan-out-without-tls")]
    FanOut(FanOutConfig),
}

impl Default for Retrieval {
    /// Polling with its defaults.
    fn default() -> Self {
        Self::Polling(PollingConfig::default())
    }
}

/// A Kinesis data stream, read by polling or by enhanced fan-out.
///
/// Give it a client made for the stream's region and with credentials that may call `DescribeStreamSummary`,
/// `ListShards`, `GetShardIterator` and `GetRecords`; with fan-out, in place of the latter two, what `FanOutConsumer`
/// says. The client is copied with the SDK's own retries switched
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
    retrieval: Retrieval,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    #[cfg(feature = "fan-out-without-tls")]
    http_clients: Option<HttpClientFactory>,
    /// Made when it is first needed: who polls pays nothing for it.
    #[cfg(feature = "fan-out-without-tls")]
    fan_out: OnceLock<FanOut>,
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
            retrieval: Retrieval::Polling(polling),
            clock: Arc::new(SystemClock),
            entropy: Entropy::default(),
            #[cfg(feature = "fan-out-without-tls")]
            http_clients: None,
            #[cfg(feature = "fan-out-without-tls")]
            fan_out: OnceLock::new(),
        }
    }

    /// Sets how shards are read. Default: polled. Values out of range are brought into it.
    #[must_use]
    pub fn with_retrieval(mut self, retrieval: Retrieval) -> Self {
        let call_timeout = match &retrieval {
            Retrieval::Polling(polling) => polling.call_timeout,
            #[cfg(feature = "fan-out-without-tls")]
            Retrieval::FanOut(config) => match &config.fallback {
                Some(fallback) => fallback.polling.call_timeout,
                None => PollingConfig::default().call_timeout,
            },
        };
        self.service = Arc::new(self.service.with_call_timeout(call_timeout));
        self.retrieval = retrieval;
        self
    }

    /// Has shards polled, in this way. Values out of range are brought into it.
    #[must_use]
    pub fn with_polling(self, polling: PollingConfig) -> Self {
        self.with_retrieval(Retrieval::Polling(polling))
    }

    /// Sets what makes the HTTP clients that subscriptions go over. One client is made for as many subscriptions as
    /// [`FanOutConfig::subscriptions_per_connection`] says; it should keep a connection of its own, and not share its
    /// flow control with other clients.
    ///
    /// Default: a [`SubscriptionHttpClient`], since three subscriptions that nobody reads bring a whole connection of
    /// the SDK's own client to a halt. All other calls go over the HTTP client of the SDK client as it was given.
    #[cfg(feature = "fan-out-without-tls")]
    #[must_use]
    pub fn with_subscription_clients(mut self, factory: HttpClientFactory) -> Self {
        self.http_clients = Some(factory);
        self
    }

    /// Deregisters the consumer of this application, if it is a [`FanOutConsumer::Managed`] one. Call it when the
    /// last worker has stopped and the application is not to run again: a consumer is billed while it exists.
    ///
    /// A scheduler takes the stream; give it one in an `Arc` to keep another.
    ///
    /// # Errors
    /// [`SourceErrorKind::Misconfigured`](super::SourceErrorKind::Misconfigured) if the consumer is not a managed one
    /// or shards are polled; else what the call failed with. That the consumer does not exist is no error.
    #[cfg(feature = "fan-out-without-tls")]
    pub async fn deregister_consumer(&self) -> Result<(), SourceError> {
        match &self.retrieval {
            Retrieval::FanOut(config) => self.fan_out(config).deregister().await,
            Retrieval::Polling(_) => {
                let kind = super::SourceErrorKind::Misconfigured;
                let message = "the stream is polled: there is no consumer";
                Err(SourceError::new(kind, "DeregisterStreamConsumer", self.service.resource(), message))
            }
        }
    }

    #[cfg(feature = "fan-out-without-tls")]
    fn fan_out(&self, config: &FanOutConfig) -> &FanOut {
        self.fan_out.get_or_init(|| {
            FanOut::new(&self.service, config, self.http_clients.as_ref(), &self.clock, &self.entropy)
        })
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
        Ok(match &self.retrieval {
            Retrieval::Polling(polling) => {
                let (service, clock) = (Arc::clone(&self.service), Arc::clone(&self.clock));
                Box::new(PollingReader::new(
                    service,
                    shard.clone(),
                    from,
                    polling,
                    clock,
                    self.entropy.fork(),
                ))
            }
            #[cfg(feature = "fan-out-without-tls")]
            Retrieval::FanOut(config) => self.fan_out(config).open(shard, from),
        })
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn attach_metrics(&self, metrics: &Metrics) {
        self.service.attach_metrics(metrics);
    }
}
