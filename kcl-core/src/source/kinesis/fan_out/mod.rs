//! Enhanced fan-out over the AWS SDK.
//!
//! [`registration`] sees to it that there is a consumer, [`subscribe`] opens subscriptions with it and says what
//! their failures mean, [`clients`] spreads them over HTTP clients, [`http2`] is the one made for it, [`fallback`]
//! polls while nothing can be subscribed to. What a reader makes of it all is in `source::fan_out`.

mod clients;
mod fallback;
mod http2;
mod registration;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

pub use clients::HttpClientFactory;
pub use http2::SubscriptionHttpClient;

use self::clients::Clients;
use self::fallback::FallbackReader;
use self::registration::Registration;
use self::subscribe::ShardSubscriber;
use super::PollingConfig;
use super::polling::PollingReader;
use super::service::Service;
use crate::entropy::Entropy;
use crate::model::ShardId;
use crate::source::fan_out::{FanOutReader, FanOutTimeouts, Pool, Shared, Turns};
use crate::source::{BUFFER_BYTES, SUBSCRIPTIONS_PER_CONNECTION, ShardReader, SourceError, StartFrom};
use crate::time::Clock;

/// The registered consumer that subscriptions belong to. It must be one that no other application uses: the service
/// gives each shard to one subscription of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FanOutConsumer {
    /// The consumer of this ARN. Nothing is registered. Needs the right to `SubscribeToShard`; with that to
    /// `DescribeStreamConsumer`, too, an error says for certain that the consumer is gone.
    Arn(String),
    /// The consumer of this name, registered if it is missing, and kept: the name of the application, usually. Needs
    /// the rights to `DescribeStreamConsumer`, `RegisterStreamConsumer` and `SubscribeToShard`.
    #[doc(alias = "consumerName")]
    Named(String),
    /// The same, and [`KinesisStream::deregister_consumer`](super::KinesisStream::deregister_consumer) deregisters
    /// it. Nothing else does: a consumer that goes with a worker would go from under the other workers.
    Managed(String),
}

/// How shards are read by enhanced fan-out. Start from [`FanOutConfig::new`] and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FanOutConfig {
    /// The consumer. Every worker of the application names the same.
    pub consumer: FanOutConsumer,
    /// When a subscription counts as dead.
    pub timeouts: FanOutTimeouts,
    /// How many subscriptions share one HTTP/2 connection at most. Default 16; 1 to 100. More make fewer
    /// connections, and more subscriptions that a broken one takes along.
    pub subscriptions_per_connection: usize,
    /// The payload bytes that wait in the buffers of all shards of the worker, beside what `shard_buffer_bytes` and
    /// `worker_buffer_bytes` of the settings let be read ahead. Default 64 MiB. From there on a shard's buffer holds one
    /// event at most (of 10 MiB at most), so memory is bounded by the sum of the three, however many processors are
    /// blocked. The buffer of one shard holds 2 MiB and an event at most.
    pub buffer_bytes: usize,
    /// Whether a shard is polled while it cannot be subscribed to. Default: it is not.
    pub fallback: Option<FallbackConfig>,
}

impl FanOutConfig {
    /// Creates the defaults for a consumer.
    #[must_use]
    pub fn new(consumer: FanOutConsumer) -> Self {
        Self {
            consumer,
            timeouts: FanOutTimeouts::default(),
            subscriptions_per_connection: SUBSCRIPTIONS_PER_CONNECTION,
            buffer_bytes: BUFFER_BYTES,
            fallback: None,
        }
    }
}

/// When a shard is polled instead, and how. Start from the default and change fields.
///
/// [`Event::FallbackStarted`](crate::Event::FallbackStarted) and
/// [`Event::FallbackEnded`](crate::Event::FallbackEnded) tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackConfig {
    /// How long fan-out must have failed in a row. Default 30 s. What waiting does not cure, as a lack of rights, is
    /// not waited for.
    pub after: Duration,
    /// How long the shard is polled before fan-out is tried again. Default 60 s. While it is tried, for seconds at
    /// most, the shard is not polled.
    pub retry_interval: Duration,
    /// How the shard is polled.
    pub polling: PollingConfig,
}

impl Default for FallbackConfig {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(30),
            retry_interval: Duration::from_secs(60),
            polling: PollingConfig::default(),
        }
    }
}

/// Opens readers that subscribe; made when the first is opened.
#[derive(Clone, Debug)]
pub(super) struct FanOut {
    service: Arc<Service>,
    fallback: Option<FallbackConfig>,
    registration: Arc<Registration>,
    clients: Arc<Clients>,
    shared: Shared,
    entropy: Entropy,
}

impl FanOut {
    pub(super) fn new(
        service: &Arc<Service>,
        config: &FanOutConfig,
        factory: Option<&HttpClientFactory>,
        clock: &Arc<dyn Clock>,
        entropy: &Entropy,
    ) -> Self {
        let shared = Shared {
            turns: Arc::new(Turns::new(entropy.fork())),
            pool: Arc::new(Pool::new(config.buffer_bytes)),
            timeouts: config.timeouts.clone(),
            clock: Arc::clone(clock),
            metrics: service.metrics().clone(),
        };
        let (consumer, open) = (config.consumer.clone(), config.timeouts.open);
        let per_connection = config.subscriptions_per_connection;
        Self {
            service: Arc::clone(service),
            fallback: config.fallback.clone(),
            registration: Arc::new(Registration::new(Arc::clone(service), consumer, entropy.fork())),
            clients: Arc::new(Clients::new(Arc::clone(service), factory.cloned(), per_connection, open)),
            shared,
            entropy: entropy.fork(),
        }
    }

    pub(super) fn open(&self, shard: &ShardId, from: StartFrom) -> Box<dyn ShardReader> {
        match &self.fallback {
            None => Box::new(self.subscribing(shard, from)),
            Some(fallback) => {
                let polling = fallback.polling.clone();
                let readers = BothWays { fan_out: self.clone(), polling, shard: shard.clone() };
                Box::new(FallbackReader::new(readers, fallback, from, Arc::clone(&self.shared.clock)))
            }
        }
    }

    fn subscribing(&self, shard: &ShardId, from: StartFrom) -> FanOutReader {
        let resource = self.service.shard_resource(shard);
        let subscriber = ShardSubscriber::new(
            Arc::clone(&self.service),
            Arc::clone(&self.registration),
            Arc::clone(&self.clients),
            shard.clone(),
        );
        FanOutReader::new(Arc::new(subscriber), shard, resource, from, &self.shared, self.entropy.fork())
    }

    pub(super) async fn deregister(&self) -> Result<(), SourceError> {
        self.registration.deregister().await
    }
}

/// The two readers of a shard that falls back.
#[derive(Debug)]
struct BothWays {
    fan_out: FanOut,
    polling: PollingConfig,
    shard: ShardId,
}

impl fallback::Readers for BothWays {
    fn subscribing(&self, from: StartFrom) -> Box<dyn ShardReader> {
        Box::new(self.fan_out.subscribing(&self.shard, from))
    }

    fn polling(&self, from: StartFrom) -> Box<dyn ShardReader> {
        let FanOut { service, shared, entropy, .. } = &self.fan_out;
        let (service, clock) = (Arc::clone(service), Arc::clone(&shared.clock));
        Box::new(PollingReader::new(service, self.shard.clone(), from, &self.polling, clock, entropy.fork()))
    }
}
