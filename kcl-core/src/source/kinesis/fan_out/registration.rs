//! The registered consumer: found, or registered, once for all readers of a worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::FanOutConsumer;
use crate::entropy::Entropy;
use crate::retry::Backoff;
use crate::source::fan_out::{Class, Failure};
use crate::source::kinesis::classify;
use crate::source::kinesis::service::Service;
use crate::source::{SourceError, SourceErrorKind};

/// The delays between looks at a consumer that is not active yet, and after failures.
const LOOK_INITIAL: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(20);
/// How many looks a consumer gets to become active: about two minutes; it takes seconds.
const LOOKS: u32 = 60;

/// The consumer of an application, shared by all readers of a worker.
#[derive(Debug)]
pub(super) struct Registration {
    service: Arc<Service>,
    consumer: FanOutConsumer,
    entropy: Entropy,
    /// One reader at a time makes calls; the others wait for what it finds.
    turn: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    arn: Option<Arc<str>>,
    /// The latest failure, and until when it is told instead of asking again.
    failed: Option<(Class, Arc<SourceError>, Instant)>,
    backoff: Backoff,
}

/// What a look at a consumer finds.
struct Found {
    arn: String,
    status: ConsumerStatus,
}

impl Registration {
    pub(super) fn new(service: Arc<Service>, consumer: FanOutConsumer, entropy: Entropy) -> Self {
        let arn = match &consumer {
            FanOutConsumer::Arn(arn) => Some(Arc::from(arn.as_str())),
            FanOutConsumer::Named(_) | FanOutConsumer::Managed(_) => None,
        };
        let backoff = Backoff::new(LOOK_INITIAL, RETRY_MAX, entropy.fork());
        let state = Mutex::new(State { arn, failed: None, backoff });
        Self { service, consumer, entropy, turn: Semaphore::new(1), state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consumer's ARN, if it is known.
    pub(super) fn known(&self) -> Option<Arc<str>> {
        self.lock().arn.clone()
    }

    /// The consumer's ARN. Registers the consumer if need be and waits until it is active. Cancel-safe: the next
    /// who asks goes on.
    pub(super) async fn arn(&self) -> Result<Arc<str>, Failure> {
        if let Some(arn) = self.known() {
            return Ok(arn);
        }
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        {
            let state = self.lock();
            if let Some(arn) = &state.arn {
                return Ok(Arc::clone(arn));
            }
            if let Some((class, error, until)) = &state.failed
                && Instant::now() < *until
            {
                return Err(Failure { class: *class, error: self.told_again(error) });
            }
        }
        let outcome = self.obtain().await;
        let mut state = self.lock();
        match outcome {
            Ok(arn) => {
                let arn: Arc<str> = arn.into();
                tracing::info!(consumer = %arn, "the consumer is active");
                (state.arn, state.failed) = (Some(Arc::clone(&arn)), None);
                state.backoff.reset();
                Ok(arn)
            }
            Err(failure) => {
                let until = Instant::now() + state.backoff.next_delay();
                let error = Arc::new(failure.error);
                let told = self.told_again(&error);
                state.failed = Some((failure.class, error, until));
                Err(Failure { class: failure.class, error: told })
            }
        }
    }

    fn told_again(&self, error: &Arc<SourceError>) -> SourceError {
        let resource = error.resource().to_owned();
        SourceError::new(error.kind(), error.operation(), resource, error.message())
            .with_source(Arc::clone(error))
    }

    fn name(&self) -> Option<&str> {
        match &self.consumer {
            FanOutConsumer::Arn(_) => None,
            FanOutConsumer::Named(name) | FanOutConsumer::Managed(name) => Some(name),
        }
    }

    fn resource(&self) -> String {
        let (FanOutConsumer::Arn(consumer)
        | FanOutConsumer::Named(consumer)
        | FanOutConsumer::Managed(consumer)) = &self.consumer;
        format!("{}, consumer {consumer}", self.service.resource())
    }

    /// Finds the consumer of this name, or registers it, and waits for it.
    async fn obtain(&self) -> Result<String, Failure> {
        let Some(name) = self.name() else {
            return Err(self.failure(SourceErrorKind::ConsumerMissing, "it is not there (any more)"));
        };
        let stream = self.service.arn().await.map_err(of_source)?;
        let mut delays = Backoff::new(LOOK_INITIAL, LOOK_MAX, self.entropy.fork());
        for _ in 0..LOOKS {
            match self.describe(Some((&stream, name)), None).await {
                Ok(found) if found.status == ConsumerStatus::Active => return Ok(found.arn),
                // Being created, or being deleted: then it will be missing.
                Ok(_) => {}
                Err(failure) if failure.class == classify::Class::NotFound => {
                    match self.register(&stream, name).await {
                        Ok(()) => tracing::info!(consumer = name, "registered the consumer"),
                        // Somebody else of the application was faster.
                        Err(failure) if failure.class == classify::Class::InUse => {}
                        Err(failure) => return Err(of_call(failure)),
                    }
                }
                Err(failure) => return Err(of_call(failure)),
            }
            sleep(delays.next_delay()).await;
        }
        Err(self.failure(SourceErrorKind::Unavailable, "it did not become active in time"))
    }

    fn failure(&self, kind: SourceErrorKind, message: &str) -> Failure {
        let class = if kind == SourceErrorKind::Unavailable { Class::Unavailable } else { Class::Gone };
        let error = SourceError::new(kind, "DescribeStreamConsumer", self.resource(), message);
        Failure { class, error }
    }

    async fn describe(
        &self,
        name: Option<(&str, &str)>,
        arn: Option<&str>,
    ) -> Result<Found, classify::Failure> {
        const OPERATION: &str = "DescribeStreamConsumer";
        let (stream, name) = name.unzip();
        let call = self
            .service
            .client()
            .describe_stream_consumer()
            .set_stream_arn(stream.map(str::to_owned))
            .set_consumer_name(name.map(str::to_owned))
            .set_consumer_arn(arn.map(str::to_owned))
            .send();
        let answer = Box::pin(call)
            .await
            .map_err(|error| self.service.classify(error, OPERATION, &self.resource()))?;
        let described = answer.consumer_description.ok_or_else(|| {
            classify::Failure::invalid(OPERATION, &self.resource(), "the answer has no description")
        })?;
        Ok(Found { arn: described.consumer_arn, status: described.consumer_status })
    }

    async fn register(&self, stream: &str, name: &str) -> Result<(), classify::Failure> {
        let call =
            self.service.client().register_stream_consumer().stream_arn(stream).consumer_name(name).send();
        match Box::pin(call).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.service.classify(error, "RegisterStreamConsumer", &self.resource())),
        }
    }

    /// What is the matter with a consumer whose subscription was not found although its shard is there. A consumer
    /// that can be registered again is forgotten, so that the next who asks registers it.
    pub(super) async fn look_again(&self, failure: Failure) -> Failure {
        let Some(arn) = self.known() else {
            return Failure { class: Class::Unavailable, ..failure };
        };
        let status = self.describe(None, Some(&arn)).await.map(|found| found.status);
        let is_gone = match status {
            // A replica that lags.
            Ok(ConsumerStatus::Active | ConsumerStatus::Creating) => {
                return Failure { class: Class::Unavailable, ..failure };
            }
            Ok(_) => true,
            Err(described) if described.class == classify::Class::NotFound => true,
            // Whoever may not look knows all the same that the shard is there.
            Err(described) if described.class == classify::Class::Denied => self.name().is_none(),
            Err(described) => return of_call(described),
        };
        if !is_gone {
            return Failure { class: Class::Unavailable, ..failure };
        }
        if self.name().is_none() {
            let message = "the stream and the shard exist, the consumer does not (any more); register it and give its \
                           new ARN, or give its name";
            let kind = SourceErrorKind::ConsumerMissing;
            let error = SourceError::new(kind, failure.error.operation(), self.resource(), message);
            return Failure { class: Class::Gone, error: error.with_source(failure.error) };
        }
        tracing::warn!(consumer = %arn, "the consumer is gone and will be registered again");
        self.forget(&arn);
        Failure { class: Class::Unavailable, ..failure }
    }

    /// Has the consumer looked for anew, unless somebody did already.
    fn forget(&self, arn: &str) {
        let mut state = self.lock();
        if state.arn.as_deref() == Some(arn) {
            state.arn = None;
        }
    }

    /// `DeregisterStreamConsumer` for a managed consumer; one that is not there is no failure.
    pub(super) async fn deregister(&self) -> Result<(), SourceError> {
        const OPERATION: &str = "DeregisterStreamConsumer";
        let FanOutConsumer::Managed(name) = &self.consumer else {
            let message = "only a managed consumer (FanOutConsumer::Managed) is deregistered";
            return Err(SourceError::new(
                SourceErrorKind::Misconfigured,
                OPERATION,
                self.resource(),
                message,
            ));
        };
        let stream = self.service.arn().await?;
        let call =
            self.service.client().deregister_stream_consumer().stream_arn(stream).consumer_name(name).send();
        if let Some(arn) = self.known() {
            self.forget(&arn);
        }
        match Box::pin(call).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let failure = self.service.classify(error, OPERATION, &self.resource());
                if failure.class == classify::Class::NotFound { Ok(()) } else { Err(failure.error) }
            }
        }
    }
}

/// What a failed call means for a subscription that waits for it. Nothing is asked about what was not found: the
/// call was about the stream.
fn of_call(failure: classify::Failure) -> Failure {
    let class = match super::subscribe::class(failure.class) {
        Class::Missing => Class::Gone,
        // Not of a shard: of a stream that is being created, say.
        Class::InUse => Class::Unavailable,
        // The request holds nothing but what the user gave.
        Class::Argument | Class::Invalid => {
            return Failure { class: Class::Invalid, error: failure.error.or_misconfigured() };
        }
        class => class,
    };
    Failure { class, error: failure.error }
}

fn of_source(error: SourceError) -> Failure {
    let class = match error.kind() {
        SourceErrorKind::Throttled => Class::Throttled,
        SourceErrorKind::Unavailable => Class::Unavailable,
        SourceErrorKind::Denied => Class::Denied,
        _ => Class::Gone,
    };
    Failure { class, error }
}
