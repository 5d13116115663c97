//! Enhanced fan-out: one subscription per shard, pushed to, without the wire.
//!
//! Whoever can open a subscription implements [`Subscriber`]; the rest is here. [`course`] decides where the next
//! subscription starts, when it may be opened and what a failure means: pure, told the time. [`pump`] is the task
//! that carries it out: it drains the subscription into the [`buffer`], closes it when the buffer is full, and opens
//! it anew when there is room. [`turns`] spaces the calls of a worker. [`FanOutReader`] is the [`ShardReader`] at
//! the other end of the buffer. `docs/fan-out.md` in the repository has the states and the table of failures.
//!
//! [`ShardReader`]: super::ShardReader

mod buffer;
mod course;
mod failure;
mod pump;
mod reader;
mod slot;
#[cfg(test)]
mod tests;
mod turns;

use std::fmt::Debug;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub(crate) use buffer::Pool;
pub(crate) use failure::{Class, Failure};
pub(crate) use reader::{FanOutReader, Shared};
pub(crate) use turns::Turns;

pub(crate) use super::FanOutTimeouts;
use super::{SourceBatch, StartFrom};
use crate::model::SequenceNumber;

/// What comes through a subscription.
#[derive(Debug)]
pub(crate) enum Signal {
    /// The service took the subscription. The first signal, and the only one of its kind.
    Opened,
    /// An event; it may be empty, as a sign of life.
    Event(Event),
}

/// An event of `SubscribeToShard`.
#[derive(Debug)]
pub(crate) struct Event {
    /// The records, and the end if this is the last event of a closed shard.
    pub(crate) batch: SourceBatch,
    /// After which number a later subscription goes on; none at the end of the shard.
    pub(crate) continuation: Option<SequenceNumber>,
}

/// A subscription: opens when it is first polled, closes when it is dropped. It ends when the service ends it in
/// order, as it does every five minutes, and after a failure.
pub(crate) struct Subscription {
    /// What comes through it. Polls are cancel-safe.
    pub(crate) signals: BoxStream<'static, Result<Signal, Failure>>,
    /// Takes the connection under it out of use.
    pub(crate) condemn: Box<dyn FnOnce() + Send>,
}

/// Opens subscriptions on one shard.
#[async_trait]
pub(crate) trait Subscriber: Debug + Send + Sync + 'static {
    /// Makes sure that there is a consumer to subscribe with. Waits for it as long as it takes; each call made for
    /// it has a time-out of its own. Cancel-safe.
    async fn prepare(&self) -> Result<(), Failure>;

    /// Creates a subscription that starts there.
    fn subscribe(&self, from: StartFrom) -> Subscription;

    /// Finds out what a failure of class [`Class::Missing`] is about: shard, stream or consumer.
    async fn look_again(&self, failure: Failure) -> Failure;
}
