//! Subscriptions by the SDK, and what their failures mean.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::RequestId;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_types::event_stream::RawMessage;
use futures_util::StreamExt;
use futures_util::stream::unfold;

use super::clients::{Clients, Lent};
use super::registration::Registration;
use crate::model::{SequenceNumber, ShardId};
use crate::source::fan_out::{Class, Event, Failure, Signal, Subscriber, Subscription};
use crate::source::kinesis::classify::{self, Setup, answer, chain, classify, links};
use crate::source::kinesis::convert;
use crate::source::kinesis::service::Service;
use crate::source::{SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom};

const OPERATION: &str = "SubscribeToShard";

type Events = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;
type StreamError = SdkError<SubscribeToShardEventStreamError, RawMessage>;

/// Subscribes to one shard.
#[derive(Debug)]
pub(super) struct ShardSubscriber {
    service: Arc<Service>,
    registration: Arc<Registration>,
    clients: Arc<Clients>,
    shard: ShardId,
}

impl ShardSubscriber {
    pub(super) const fn new(
        service: Arc<Service>,
        registration: Arc<Registration>,
        clients: Arc<Clients>,
        shard: ShardId,
    ) -> Self {
        Self { service, registration, clients, shard }
    }
}

#[async_trait]
impl Subscriber for ShardSubscriber {
    async fn prepare(&self) -> Result<(), Failure> {
        self.registration.arn().await.map(drop)
    }

    fn subscribe(&self, from: StartFrom) -> Subscription {
        let line = Line::default();
        let stage = Stage::Closed(Call {
            lent: self.clients.lend(),
            consumer: self.registration.known(),
            shard: self.shard.clone(),
            resource: self.service.shard_resource(&self.shard),
            setup: self.service.setup(),
            from,
            line: line.clone(),
        });
        Subscription {
            signals: unfold(stage, Stage::next).boxed(),
            condemn: Box::new(move || line.condemn()),
        }
    }

    async fn look_again(&self, failure: Failure) -> Failure {
        let shards = match self.service.list_shards().await {
            Ok(shards) => shards,
            Err(error) if error.is_retryable() => return Failure { class: Class::Unavailable, error },
            Err(error) => return Failure { class: Class::Gone, error },
        };
        if shards.iter().any(|shard| shard.id == self.shard) {
            return self.registration.look_again(failure).await;
        }
        let resource = self.service.shard_resource(&self.shard);
        let message = "the stream exists and does not list the shard (any more)";
        let error = SourceError::new(SourceErrorKind::ShardMissing, OPERATION, resource, message);
        Failure { class: Class::Gone, error: error.with_source(failure.error) }
    }
}

/// What is known of the request under a subscription, and of its connection.
#[derive(Clone, Debug, Default)]
struct Line(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    request_id: Option<String>,
    connection: Option<CaptureSmithyConnection>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condemn(&self) {
        let connection = self.lock().connection.as_ref().and_then(CaptureSmithyConnection::get);
        if let Some(connection) = connection {
            connection.poison();
        }
    }

    /// The request's id, as errors have it.
    fn request(&self) -> String {
        self.lock().request_id.as_ref().map(|id| format!(", request id {id}")).unwrap_or_default()
    }
}

/// Errors that come after the answer's head do not carry the request's id, and nothing carries the connection.
impl Intercept for Line {
    fn name(&self) -> &'static str {
        "KinesisSubscriptionLine"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.lock().connection = cfg.load::<CaptureSmithyConnection>().cloned();
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.lock().request_id = context.response().headers().request_id().map(str::to_owned);
        Ok(())
    }
}

/// A subscription to be opened.
struct Call {
    lent: Lent,
    consumer: Option<Arc<str>>,
    shard: ShardId,
    resource: String,
    setup: Setup,
    from: StartFrom,
    line: Line,
}

/// Where a subscription stands.
enum Stage {
    Closed(Call),
    Open { events: Box<Events>, call: Call },
    Over,
}

impl Stage {
    async fn next(self) -> Option<(Result<Signal, Failure>, Self)> {
        match self {
            Self::Closed(call) => match Box::pin(call.open()).await {
                Ok(answer) => {
                    Some((Ok(Signal::Opened), Self::Open { events: Box::new(answer.event_stream), call }))
                }
                Err(failure) => Some((Err(failure), Self::Over)),
            },
            Self::Open { mut events, call } => loop {
                match events.recv().await {
                    Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                        let event = convert_event(event).map_err(|problem| {
                            let message =
                                format!("an event cannot be read: {problem}{}", call.line.request());
                            call.failure(Class::Corrupt, SourceErrorKind::Unavailable, message)
                        });
                        return Some(match event {
                            Ok(event) => (Ok(Signal::Event(event)), Self::Open { events, call }),
                            Err(failure) => (Err(failure), Self::Over),
                        });
                    }
                    // An event of a kind that is not known yet.
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some((Err(call.broken(error)), Self::Over)),
                }
            },
            Self::Over => None,
        }
    }
}

impl Call {
    async fn open(&self) -> Result<SubscribeToShardOutput, Failure> {
        let consumer = self.consumer.as_deref().ok_or_else(|| {
            let message = "the consumer is being looked for";
            self.failure(Class::Unavailable, SourceErrorKind::Unavailable, message.into())
        })?;
        let position = starting_position(self.from)
            .map_err(|error| self.failure(Class::Invalid, SourceErrorKind::Invalid, error.to_string()))?;
        let answer = self
            .lent
            .client()
            .subscribe_to_shard()
            .consumer_arn(consumer)
            .shard_id(self.shard.as_str())
            .starting_position(position)
            .customize()
            .interceptor(self.line.clone())
            .send()
            .await;
        answer.map_err(|error| {
            // What comes of waiting for the first frame is wrapped in an answer that is none.
            let in_stream = links(&error).any(|link| link.downcast_ref::<StreamError>().is_some());
            let is_cut =
                links(&error).any(|link| matches!(link.downcast_ref(), Some(StreamError::ResponseError(_))));
            if in_stream {
                let class = if is_cut { Class::Corrupt } else { Class::Unavailable };
                let message =
                    format!("no first frame could be read: {}{}", chain(&error), self.line.request());
                let mut failure = self.failure(class, SourceErrorKind::Unavailable, message);
                failure.error = failure.error.with_source(error);
                return failure;
            }
            let failure = classify(error, OPERATION, &self.resource, self.setup);
            Failure { class: class(failure.class), error: failure.error }
        })
    }

    fn failure(&self, class: Class, kind: SourceErrorKind, message: String) -> Failure {
        Failure { class, error: SourceError::new(kind, OPERATION, self.resource.clone(), message) }
    }

    /// What a failure means that comes through an open subscription.
    fn broken(&self, error: StreamError) -> Failure {
        let (class, kind, message) = match &error {
            SdkError::ServiceError(exception) => {
                let code = exception_code(exception.raw());
                // An exception without a known name: it ended the stream, and says nothing against another one.
                let found = answer(code.as_deref(), 500);
                let code = code.as_deref().unwrap_or("unnamed exception");
                (class(found), found.kind(), format!("{code} in the stream: {}", chain(exception.err())))
            }
            SdkError::ResponseError(_) => (
                Class::Corrupt,
                SourceErrorKind::Unavailable,
                format!("a frame cannot be read: {}", chain(&error)),
            ),
            _ => (
                Class::Unavailable,
                SourceErrorKind::Unavailable,
                format!("the stream broke: {}", chain(&error)),
            ),
        };
        let mut failure = self.failure(class, kind, format!("{message}{}", self.line.request()));
        failure.error = failure.error.with_source(error);
        failure
    }
}

/// The name of an exception in the stream. The SDK's own types have it only for those of today's model.
fn exception_code(message: &RawMessage) -> Option<String> {
    let RawMessage::Decoded(message) = message else { return None };
    let named = |name: &str| message.headers().iter().find(|header| header.name().as_str() == name);
    let header = named(":exception-type").or_else(|| named(":error-code"))?;
    header.value().as_string().ok().map(|code| code.as_str().to_owned())
}

/// What a class of failed calls is to a subscription.
pub(super) const fn class(class: classify::Class) -> Class {
    match class {
        classify::Class::Throttled => Class::Throttled,
        classify::Class::InUse => Class::InUse,
        classify::Class::Unavailable | classify::Class::ExpiredIterator | classify::Class::ExpiredToken => {
            Class::Unavailable
        }
        classify::Class::Denied => Class::Denied,
        classify::Class::NotFound => Class::Missing,
        classify::Class::Argument => Class::Argument,
        classify::Class::Invalid => Class::Invalid,
    }
}

fn starting_position(from: StartFrom) -> Result<StartingPosition, impl Error + use<>> {
    let position = StartingPosition::builder();
    let position = match from {
        StartFrom::TrimHorizon => position.r#type(ShardIteratorType::TrimHorizon),
        StartFrom::Latest => position.r#type(ShardIteratorType::Latest),
        StartFrom::AtTimestamp(time) => position
            .r#type(ShardIteratorType::AtTimestamp)
            .timestamp(convert::cut_to_millis(DateTime::from(time))),
        StartFrom::AtSequence(number) => {
            position.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(number.to_string())
        }
        StartFrom::AfterSequence(number) => {
            position.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number.to_string())
        }
    };
    position.build()
}

/// Turns an event over, whole or not at all.
fn convert_event(event: SubscribeToShardEvent) -> Result<Event, String> {
    let records: Vec<_> = event.records.into_iter().map(convert::record).collect::<Result<_, _>>()?;
    let behind = Duration::from_millis(u64::try_from(event.millis_behind_latest).unwrap_or_default());
    // The service leaves the number out with the last event of a shard; the SDK makes an empty text of that.
    let continuation: Option<SequenceNumber> = match event.continuation_sequence_number.as_str() {
        "" => None,
        number => Some(number.parse().map_err(|error| format!("{error}"))?),
    };
    let end = continuation.is_none().then(|| SourceEnd { children: convert::children(event.child_shards) });
    Ok(Event { batch: SourceBatch::new(records, Some(behind), end), continuation })
}

#[cfg(test)]
mod tests;
