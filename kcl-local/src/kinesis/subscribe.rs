//! Opening a subscription.

use std::sync::Arc;

use crate::error::ApiError;

use super::consumer::{ConsumerRef, ConsumerStatus, consumer_not_active, consumer_not_found};
use super::errors::{in_use, limit, stream_not_found};
use super::read::position;
use super::shard::shard_id;
use super::state::State;
use super::stream::StreamStatus;
use super::subscription::{Seat, Start, Subscription};
use super::{IteratorStart, Kinesis, millis_of};

impl Kinesis {
    /// Subscribes a consumer to a shard: from `start` on its records come as events.
    ///
    /// A consumer has at most one subscription to a shard. Another call within 5 seconds of a
    /// successful one is refused, whether that subscription still lasts or not; a later call takes
    /// over, and the subscription before fails with `ResourceInUseException`. (Source: the API
    /// reference of `SubscribeToShard`.)
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` as said above, and for a consumer that
    /// is being registered or deregistered; `InvalidArgumentException` for a sequence number the
    /// shard did not give out or a time in the future; `LimitExceededException`.
    pub fn subscribe_to_shard<'a>(
        &self,
        consumer: impl Into<ConsumerRef<'a>>,
        shard: &str,
        start: &IteratorStart,
    ) -> Result<Subscription, ApiError> {
        self.subscribe_unless(&consumer.into(), shard, start, || Ok(()))
    }

    /// The shards that a consumer is subscribed to now, in their order, for tests that a reader has
    /// gone or come.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `InvalidArgumentException`.
    pub fn subscribed_shards<'a>(
        &self,
        consumer: impl Into<ConsumerRef<'a>>,
    ) -> Result<Vec<Arc<str>>, ApiError> {
        let consumer = consumer.into();
        self.with(|state| {
            let (stream, name) = state.consumer(&consumer)?;
            let missing = || consumer_not_found(&name, &stream.name, &stream.account);
            let slots = &stream.consumers.registered.get(&name).ok_or_else(missing)?.slots;
            let held = slots.iter().filter(|(_, slot)| slot.holder.is_some());
            Ok(held.map(|(shard, _)| shard_id(*shard)).collect())
        })
    }

    /// As [`subscribe_to_shard`](Self::subscribe_to_shard), unless `veto` refuses what all other
    /// checks allow.
    pub(crate) fn subscribe_unless(
        &self,
        consumer: &ConsumerRef<'_>,
        shard: &str,
        start: &IteratorStart,
        veto: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<Subscription, ApiError> {
        let (seat, start) = self.with(|state| state.subscribe(consumer, shard, start, veto))?;
        Ok(Subscription::new(self.clone(), seat, start))
    }
}

impl State {
    fn subscribe(
        &mut self,
        consumer: &ConsumerRef<'_>,
        shard: &str,
        start: &IteratorStart,
        veto: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<(Seat, Start), ApiError> {
        let (now, limits, options) = (self.now, self.options.limits, self.options.subscriptions);
        let number = self.subscribed + 1;
        let (stream, name) = self.consumer(consumer)?;
        let (id, stream_name, account) = (stream.id, stream.name.clone(), stream.account.clone());
        if matches!(stream.status, StreamStatus::Creating | StreamStatus::Deleting) {
            return Err(stream_not_found(&stream_name, &account));
        }
        let found = stream.shard(shard, now)?;
        let index = found.index;
        let position = position(found, start, now, "SubscribeToShard", (&stream_name, &account));

        let missing = || consumer_not_found(&name, &stream_name, &account);
        let consumer = stream.consumers.registered.get_mut(&name).ok_or_else(missing)?;
        if consumer.status != ConsumerStatus::Active {
            return Err(consumer_not_active(consumer, &stream_name, &account));
        }
        let second = consumer.second;
        let slot = consumer.slots.entry(index).or_default();
        if !slot.calls.take(limits.subscribe, 1, now) {
            return Err(limit(format!(
                "Rate exceeded for SubscribeToShard of consumer {name} and shard {shard} in stream {stream_name} under \
                 account {account}."
            )));
        }
        if slot.opened.is_some_and(|opened| now < opened.saturating_add(millis_of(options.exclusive))) {
            return Err(in_use(format!(
                "Another active subscription exists for this consumer: {account}:{stream_name}:{shard}:{name}"
            )));
        }
        let position = position?;
        veto()?;
        slot.holder = Some(number);
        slot.opened = Some(now);
        self.subscribed = number;
        // A subscription that has lost its place is to find out.
        self.sleepers.rouse(id, index);
        let seat = Seat { stream: id, stream_name, account, consumer: name, second, shard: index, number };
        let ends_at = now.saturating_add(millis_of(options.session));
        Ok((seat, Start { position, opened: now, ends_at }))
    }
}
