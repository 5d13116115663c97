//! Subscriptions of the model.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use kcl_local::clock::SharedClock;
use kcl_local::error::ApiError;
use kcl_local::kinesis::{ConsumerRef, ConsumerStatus, Subscription as ModelSubscription, SubscriptionEvent};

use super::{MemoryStream, StreamCall, child, record, start};
use crate::entropy::Entropy;
use crate::model::{SequenceNumber, ShardId};
use crate::source::fan_out::{
    Class, Event, Failure, FanOutReader, FanOutTimeouts, Pool, Shared, Signal, Subscriber, Subscription,
    Turns,
};
use crate::source::{ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom};
use crate::time::Clock;

/// What subscribing readers of a stream have in common.
#[derive(Clone, Debug)]
pub(super) struct FanOut {
    consumer: String,
    shared: Shared,
}

impl FanOut {
    pub(super) fn new(consumer: String, stream: &MemoryStream) -> Self {
        let shared = Shared {
            turns: Arc::new(Turns::new(Entropy::seeded(0))),
            pool: Arc::new(Pool::new(crate::source::BUFFER_BYTES)),
            timeouts: FanOutTimeouts::default(),
            clock: Arc::new(ModelClock(SharedClock::clone(stream.kinesis.clock()))),
            metrics: crate::metrics::Metrics::none(),
        };
        Self { consumer, shared }
    }

    pub(super) fn open(
        &self,
        stream: &MemoryStream,
        shard: &ShardId,
        from: StartFrom,
    ) -> Box<dyn ShardReader> {
        let resource = stream.resource(Some(shard));
        let subscriber =
            ModelSubscriber { stream: stream.clone(), consumer: self.consumer.clone(), shard: shard.clone() };
        let entropy = stream.entropy.fork();
        Box::new(FanOutReader::new(Arc::new(subscriber), shard, resource, from, &self.shared, entropy))
    }
}

/// The model's clock, told to the reader.
struct ModelClock(SharedClock);

impl Debug for ModelClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelClock").finish_non_exhaustive()
    }
}

impl Clock for ModelClock {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

/// Subscribes to a shard of the model.
#[derive(Clone, Debug)]
struct ModelSubscriber {
    stream: MemoryStream,
    consumer: String,
    shard: ShardId,
}

#[async_trait]
impl Subscriber for ModelSubscriber {
    async fn prepare(&self) -> Result<(), Failure> {
        let stream = self.arn()?;
        let kinesis = &self.stream.kinesis;
        let status = match kinesis.describe_stream_consumer(ConsumerRef::named(&stream, &self.consumer)) {
            Ok(found) => found.status,
            Err(error) if error.code == "ResourceNotFoundException" => {
                let registered = kinesis.register_stream_consumer(stream.as_str(), &self.consumer);
                registered.map_err(|error| self.failure(error))?;
                return Ok(());
            }
            Err(error) => return Err(self.failure(error)),
        };
        if status == ConsumerStatus::Active { Ok(()) } else { Err(self.told(SourceErrorKind::Unavailable)) }
    }

    fn subscribe(&self, from: StartFrom) -> Subscription {
        let stage = Stage::Closed(self.clone(), from);
        Subscription { signals: unfold(stage, Stage::next).boxed(), condemn: Box::new(|| {}) }
    }

    async fn look_again(&self, failure: Failure) -> Failure {
        let shards =
            self.stream.kinesis.shards(&self.stream.name, kcl_local::kinesis::ShardFilter::FromTrimHorizon);
        let kind = match shards {
            Ok(shards) if shards.iter().any(|shard| *shard.shard_id == *self.shard.as_str()) => {
                return Failure { class: Class::Unavailable, ..failure };
            }
            Ok(_) => SourceErrorKind::ShardMissing,
            Err(_) => SourceErrorKind::StreamMissing,
        };
        Failure { class: Class::Gone, ..self.told(kind) }
    }
}

impl ModelSubscriber {
    fn arn(&self) -> Result<String, Failure> {
        let summary = self.stream.kinesis.describe_stream_summary(&self.stream.name);
        summary.map(|summary| summary.arn).map_err(|error| self.failure(error))
    }

    /// What was planned, or drawn, to go wrong.
    fn told(&self, kind: SourceErrorKind) -> Failure {
        let class = match kind {
            SourceErrorKind::Throttled => Class::Throttled,
            SourceErrorKind::Unavailable => Class::Unavailable,
            SourceErrorKind::Denied => Class::Denied,
            SourceErrorKind::Invalid => Class::Invalid,
            _ => Class::Gone,
        };
        let (operation, resource) =
            (StreamCall::Subscribe.operation(), self.stream.resource(Some(&self.shard)));
        Failure { class, error: SourceError::new(kind, operation, resource, "as told") }
    }

    fn failure(&self, error: ApiError) -> Failure {
        let class = match error.code.as_str() {
            "ResourceInUseException" => Class::InUse,
            "LimitExceededException" => Class::Throttled,
            "ResourceNotFoundException" => Class::Missing,
            "InvalidArgumentException" => Class::Argument,
            _ if error.status >= 500 => Class::Unavailable,
            _ => Class::Invalid,
        };
        Failure { class, error: self.stream.error(StreamCall::Subscribe, Some(&self.shard), false, error) }
    }

    async fn open(&self, from: StartFrom) -> Result<ModelSubscription, Failure> {
        if let Err(error) = self.stream.begin(StreamCall::Subscribe, Some(&self.shard)).await {
            return Err(self.told(error.kind()));
        }
        if let Some(kind) = self.stream.draw_disturbance() {
            return Err(self.told(kind));
        }
        let stream = self.arn()?;
        let consumer = ConsumerRef::named(&stream, &self.consumer);
        let opened = self.stream.kinesis.subscribe_to_shard(consumer, self.shard.as_str(), &start(from));
        let opened = opened.map_err(|error| self.failure(error))?;
        self.stream.travel().await;
        Ok(opened)
    }

    fn convert(&self, event: SubscriptionEvent) -> Event {
        let (hide_children, behind) = {
            let hooks = self.stream.hooks();
            (hooks.hide_children, hooks.behind)
        };
        let continuation = event.continuation.map(|number| SequenceNumber::from_limbs(number.limbs()));
        let end = continuation.is_none().then(|| SourceEnd {
            children: if hide_children { Vec::new() } else { event.child_shards.iter().map(child).collect() },
        });
        let behind = behind.unwrap_or(std::time::Duration::from_millis(event.millis_behind_latest));
        let records = event.records.into_iter().map(record).collect();
        Event { batch: SourceBatch::new(records, Some(behind), end), continuation }
    }
}

/// Where a subscription stands.
enum Stage {
    Closed(ModelSubscriber, StartFrom),
    Open(ModelSubscriber, ModelSubscription),
    Over,
}

impl Stage {
    async fn next(self) -> Option<(Result<Signal, Failure>, Self)> {
        match self {
            Self::Closed(subscriber, from) => match subscriber.open(from).await {
                Ok(opened) => Some((Ok(Signal::Opened), Self::Open(subscriber, opened))),
                Err(failure) => Some((Err(failure), Self::Over)),
            },
            Self::Open(subscriber, mut opened) => match opened.next().await? {
                // What disturbs reads breaks subscriptions.
                Ok(event) => {
                    if let Some(kind) = subscriber.stream.draw_disturbance() {
                        return Some((Err(subscriber.told(kind)), Self::Over));
                    }
                    if let Some(kind) = subscriber.stream.suffer(Some(&subscriber.shard)).await {
                        return Some((Err(subscriber.told(kind)), Self::Over));
                    }
                    Some((Ok(Signal::Event(subscriber.convert(event))), Self::Open(subscriber, opened)))
                }
                Err(error) => Some((Err(subscriber.failure(error)), Self::Over)),
            },
            Self::Over => None,
        }
    }
}
