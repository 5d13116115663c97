//! One subscription: what is pushed, and when.

use std::fmt;
use std::task::{Context, Waker};
use std::time::SystemTime;

#[cfg(feature = "tokio")]
use std::pin::Pin;
#[cfg(feature = "tokio")]
use std::task::Poll;

use crate::error::ApiError;

use super::consumer::{ConsumerStatus, Consumers, Slot, consumer_not_found};
use super::errors::{in_use, shard_not_found, stream_not_found};
use super::sequence::SequenceNumber;
use super::shard::{ChildShard, StoredRecord, Window, shard_id};
use super::sleepers::Bed;
use super::state::State;
use super::stream::StreamStatus;
use super::{Kinesis, instant, millis_of};

/// What a subscription pushes at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionEvent {
    /// The records, in order; none in a heartbeat.
    pub records: Vec<StoredRecord>,
    /// Where to go on, with [`AfterSequenceNumber`](super::IteratorStart::AfterSequenceNumber) or
    /// [`AtSequenceNumber`](super::IteratorStart::AtSequenceNumber): a number above the last record
    /// sent, and no record's. `None` at the end of a closed shard, together with the last records.
    pub continuation: Option<SequenceNumber>,
    /// How long ago the last record sent arrived if more follow it, and zero if none do.
    pub millis_behind_latest: u64,
    /// The children of the shard at its end, otherwise empty.
    pub child_shards: Vec<ChildShard>,
}

/// What a subscription does at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// It pushes this.
    Event(SubscriptionEvent),
    /// It has nothing to push until then, unless something changes.
    Wait(SystemTime),
    /// It has ended.
    End,
}

/// A subscription as [`Kinesis::subscribe_to_shard`] gives it.
///
/// It reads when asked, so one that nobody asks buffers nothing. It ends without an error after the
/// session length and after the event that ends a closed shard, and with one when its stream or its
/// consumer is deleted (`ResourceNotFoundException`) or another call takes it over
/// (`ResourceInUseException`). Dropping it closes it.
pub struct Subscription {
    kinesis: Kinesis,
    seat: Seat,
    /// The record index to go on from.
    position: u64,
    last_event: u64,
    ends_at: u64,
    is_over: bool,
    #[cfg(feature = "tokio")]
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Whom a subscription is of, and what it is to.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) stream: u64,
    pub(crate) stream_name: String,
    pub(crate) account: String,
    pub(crate) consumer: String,
    /// The second of the consumer's registration.
    pub(crate) second: u64,
    pub(crate) shard: u32,
    pub(crate) number: u64,
}

/// Where and when a subscription starts, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) position: u64,
    pub(crate) opened: u64,
    pub(crate) ends_at: u64,
}

impl Seat {
    fn bed(&self) -> Bed {
        (self.stream, self.shard, self.number)
    }

    /// The slot of the consumer for the shard, whoever holds it.
    fn slot<'a>(&self, consumers: &'a mut Consumers) -> Option<&'a mut Slot> {
        let consumer = consumers.registered.get_mut(&self.consumer)?;
        let is_same = consumer.second == self.second && consumer.status == ConsumerStatus::Active;
        if is_same { consumer.slots.get_mut(&self.shard) } else { None }
    }
}

impl Subscription {
    pub(crate) fn new(kinesis: Kinesis, seat: Seat, start: Start) -> Self {
        Self {
            kinesis,
            seat,
            position: start.position,
            last_event: start.opened,
            ends_at: start.ends_at,
            is_over: false,
            #[cfg(feature = "tokio")]
            timer: None,
        }
    }

    /// Says what the subscription does now.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`: the subscription has ended with it.
    pub fn try_next(&mut self) -> Result<Step, ApiError> {
        self.step(None)
    }

    /// As [`try_next`](Self::try_next), and wakes the task at the next change that may concern the
    /// subscription. To ask again when the time that is waited for has come is up to the caller.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn poll_step(&mut self, cx: &Context<'_>) -> Result<Step, ApiError> {
        self.step(Some(cx.waker()))
    }

    /// Waits for the next event, on tokio's clock. `None` is the end.
    ///
    /// A put wakes it; it never polls in between. On a clock that is not tokio's it asks that clock
    /// again whenever the time it waits for has passed on tokio's.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next). `None` follows.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    #[cfg(feature = "tokio")]
    pub async fn next(&mut self) -> Option<Result<SubscriptionEvent, ApiError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for what [`next`](Self::next) waits for.
    #[cfg(feature = "tokio")]
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SubscriptionEvent, ApiError>>> {
        loop {
            let until = match self.poll_step(cx) {
                Ok(Step::Event(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(Step::Wait(until)) => until,
                Ok(Step::End) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let wait = until.duration_since(self.kinesis.clock().now()).unwrap_or_default();
            let deadline = tokio::time::Instant::now() + wait;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            timer.as_mut().reset(deadline);
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }

    fn step(&mut self, waker: Option<&Waker>) -> Result<Step, ApiError> {
        if self.is_over {
            return Ok(Step::End);
        }
        let kinesis = self.kinesis.clone();
        kinesis.with(|state| {
            let step = self.advance(state);
            match &step {
                Ok(Step::Wait(_)) => {
                    if let Some(waker) = waker {
                        state.sleepers.lie_down(self.seat.bed(), waker);
                    }
                }
                Ok(Step::Event(event)) => {
                    self.last_event = state.now;
                    if event.continuation.is_none() {
                        self.close(state);
                    }
                }
                Ok(Step::End) | Err(_) => self.close(state),
            }
            step
        })
    }

    fn advance(&mut self, state: &mut State) -> Result<Step, ApiError> {
        let (now, rate, options) =
            (state.now, state.options.limits.subscription_bytes, state.options.subscriptions);
        let seat = &self.seat;
        let gone = || stream_not_found(&seat.stream_name, &seat.account);
        let stream = state.by_id(seat.stream).ok_or_else(gone)?;
        if !matches!(stream.status, StreamStatus::Active | StreamStatus::Updating) {
            return Err(gone());
        }
        stream.expire_shards(now);
        let slot = seat.slot(&mut stream.consumers);
        let slot =
            slot.ok_or_else(|| consumer_not_found(&seat.consumer, &seat.stream_name, &seat.account))?;
        if slot.holder != Some(seat.number) {
            return Err(in_use(format!(
                "Another subscription of this consumer has taken over: {}:{}:{}:{}",
                seat.account,
                seat.stream_name,
                shard_id(seat.shard),
                seat.consumer
            )));
        }
        if self.ends_at <= now {
            return Ok(Step::End);
        }
        let Some(shard) = stream.shards.get_mut(&seat.shard) else {
            return Err(shard_not_found(&shard_id(seat.shard), &seat.stream_name, &seat.account));
        };
        shard.trim(stream.retention, now);

        let delay = millis_of(options.propagation_delay);
        let opens_at = slot.bytes.opens_at(rate, now);
        if opens_at.is_none() {
            let arrived_by = now.saturating_sub(delay);
            let records = options.event_records.max(1);
            let page =
                shard.read(self.position, Window { records, bytes: options.event_bytes, arrived_by }, now);
            if !page.records.is_empty() || page.next.is_none() {
                slot.bytes.charge(rate, page.bytes);
                self.position = page.next.unwrap_or(self.position);
                let continuation = page.next.map(|next| shard.continuation(next, now));
                let tells_children = continuation.is_none() && !options.hide_children;
                return Ok(Step::Event(SubscriptionEvent {
                    records: page.records,
                    continuation,
                    millis_behind_latest: page.millis_behind_latest,
                    child_shards: if tells_children { stream.children_of(seat.shard) } else { Vec::new() },
                }));
            }
        }

        let follows_at = shard.follows_at(self.position);
        // A pace of zero would never let a waiter wait.
        let beats_at = self.last_event.saturating_add(millis_of(options.heartbeat).max(1));
        if beats_at <= now {
            return Ok(Step::Event(SubscriptionEvent {
                records: Vec::new(),
                continuation: Some(shard.continuation(self.position, now)),
                millis_behind_latest: follows_at.map_or(0, |at| now.saturating_sub(at)),
                child_shards: Vec::new(),
            }));
        }
        let pushes_at = follows_at.map(|at| at.saturating_add(delay).max(opens_at.unwrap_or(0)));
        let changes_at = stream.pending.map(|(due, _)| due);
        let until = [pushes_at, changes_at].into_iter().flatten().fold(beats_at.min(self.ends_at), u64::min);
        Ok(Step::Wait(instant(until)))
    }

    /// Ends the subscription and leaves its place, if it still holds it.
    fn close(&mut self, state: &mut State) {
        self.is_over = true;
        state.sleepers.get_up(self.seat.bed());
        let Some(stream) = state.by_id(self.seat.stream) else { return };
        if let Some(slot) = self.seat.slot(&mut stream.consumers)
            && slot.holder == Some(self.seat.number)
        {
            slot.holder = None;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.is_over {
            let kinesis = self.kinesis.clone();
            kinesis.with(|state| self.close(state));
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("seat", &self.seat)
            .field("position", &self.position)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
