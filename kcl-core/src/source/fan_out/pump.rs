//! The task that drains a shard's subscription into the reader's buffer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::buffer::Buffer;
use super::course::{Course, Verdict};
use super::failure::{Class, Failure, Then};
use super::slot::Slot;
use super::{FanOutTimeouts, Signal, Subscriber, Turns};
use crate::metrics::{MetricEvent, Metrics};
use crate::model::ShardId;
use crate::plant::{Plant, planted};
use crate::source::{SourceError, SourceErrorKind};
use crate::time::Clock;

const OPERATION: &str = "SubscribeToShard";

/// How long a subscription stays open while the buffer is full. Meanwhile the service may fill the stream's window;
/// after that it would be silent anyway, and on a shared connection stand in the way of others.
const PATIENCE: Duration = Duration::from_secs(1);

/// Everything the task works with.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) subscriber: Arc<dyn Subscriber>,
    pub(super) shard: ShardId,
    /// How errors name the shard.
    pub(super) resource: String,
    pub(super) course: Course,
    pub(super) timeouts: FanOutTimeouts,
    pub(super) turns: Arc<Turns>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) slot: Slot,
    pub(super) metrics: Metrics,
}

/// How a subscription came to its end.
enum Close {
    /// So did the shard.
    ShardEnd,
    /// The service or this reader ended it in order.
    Orderly,
    /// There is no room for what it brings.
    NoRoom,
    Failed(Failure),
}

impl Close {
    /// For metrics.
    const fn cause(&self) -> &'static str {
        match self {
            Self::ShardEnd => "shard_end",
            Self::Orderly => "in_order",
            Self::NoRoom => "buffer_full",
            Self::Failed(failure) => failure.class.name(),
        }
    }
}

impl Pump {
    /// Subscribes again and again until the shard has ended.
    pub(super) async fn run(mut self) {
        let mut is_silent = false;
        loop {
            // Nothing is open while nothing is wanted.
            self.buffer.low().await;
            self.buffer.give_life_signs(!is_silent);
            sleep_until(self.course.ready()).await;
            let outcome = match self.subscriber.prepare().await {
                Ok(()) => self.drain().await,
                Err(failure) => Close::Failed(failure),
            };
            self.metrics.record(&MetricEvent::SubscriptionEnded { cause: outcome.cause() });
            if let Close::Failed(failure) = &outcome
                && failure.class == Class::Throttled
                && failure.error.operation() == OPERATION
            {
                self.metrics.record(&MetricEvent::CallFailed { call: OPERATION, throttled: true });
            }
            match outcome {
                Close::ShardEnd => return self.slot.close(),
                Close::Orderly | Close::NoRoom => {
                    is_silent = false;
                    self.slot.close();
                }
                Close::Failed(failure) => {
                    is_silent = !failure.class.reaction().is_answer;
                    self.fail(failure).await;
                }
            }
        }
    }

    /// Opens a subscription and moves what it brings into the buffer.
    async fn drain(&mut self) -> Close {
        self.turns.take().await;
        self.buffer.give_life_signs(false);
        let from = self.course.start(self.clock.now(), Instant::now());
        tracing::debug!(shard = %self.shard, ?from, "subscribes");
        self.slot.open(self.subscriber.subscribe(from));
        match self.slot.next(self.timeouts.open).await {
            Some(Some(Ok(Signal::Opened))) => {}
            Some(Some(Err(failure))) => return Close::Failed(failure),
            Some(_) => return self.failed(Class::Corrupt, "the service answered without a subscription"),
            None => return self.silent("the service did not answer the call", self.timeouts.open),
        }
        let end = self.course.opened(Instant::now());
        let mut limit = self.timeouts.first_event;
        let mut brought = "no event came after the call was answered";
        loop {
            if self.buffer.is_full() && timeout(PATIENCE, self.buffer.room()).await.is_err() {
                tracing::debug!(shard = %self.shard, "the buffer is full: unsubscribes until there is room");
                if planted(Plant::AcceptWithoutRoom)
                    && let Some(Some(Ok(Signal::Event(event)))) = self.slot.next(PATIENCE).await
                {
                    self.course.accepted(event.continuation);
                }
                return Close::NoRoom;
            }
            let next = async {
                // Time counts from here on: what the processor took is not the service's silence.
                self.slot.next(limit).await
            };
            let signal = match end {
                Some(end) => match tokio::time::timeout_at(end, next).await {
                    Ok(signal) => signal,
                    Err(_) if self.course.ended() => return Close::Orderly,
                    Err(_) => return self.silent(brought, limit),
                },
                None => next.await,
            };
            match signal {
                Some(Some(Ok(Signal::Event(event)))) => {
                    let is_end = event.batch.end.is_some();
                    self.course.accepted(event.continuation);
                    self.buffer.push(event.batch);
                    if is_end {
                        return Close::ShardEnd;
                    }
                    limit = self.timeouts.inactivity;
                    brought = "no further event came";
                }
                Some(Some(Ok(Signal::Opened))) => {}
                Some(Some(Err(failure))) => return Close::Failed(failure),
                Some(None) if self.course.ended() => {
                    tracing::debug!(shard = %self.shard, "the subscription ended in order");
                    return Close::Orderly;
                }
                Some(None) => {
                    return self.failed(Class::Unavailable, "the service ended the subscription at once");
                }
                None => return self.silent(brought, limit),
            }
        }
    }

    /// Settles a failure: absorbs it, or has the reader told.
    async fn fail(&mut self, failure: Failure) {
        let reaction = failure.class.reaction();
        if reaction.condemns {
            self.slot.condemn();
        } else {
            self.slot.close();
        }
        let failure = if reaction.then == Then::LookAgain {
            self.subscriber.look_again(failure).await
        } else {
            failure
        };
        if reaction.slows {
            self.turns.slow_down();
        }
        let (class, text) = (failure.class, failure.error.to_string());
        match self.course.failed(Instant::now(), failure) {
            Verdict::Retry => {
                tracing::debug!(shard = %self.shard, ?class, error = text, "absorbed a failure");
                self.buffer.absorb(self.course.absorbed());
            }
            Verdict::Report(error) => self.buffer.report(error),
        }
    }

    fn silent(&self, what: &str, limit: Duration) -> Close {
        self.failed(Class::Silent, format!("{what} within {limit:?}"))
    }

    fn failed(&self, class: Class, message: impl Into<String>) -> Close {
        let error = SourceError::new(SourceErrorKind::Unavailable, OPERATION, self.resource.clone(), message);
        Close::Failed(Failure { class, error })
    }
}
