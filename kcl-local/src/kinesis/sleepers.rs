//! Subscriptions that wait for their shard to change.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

/// Stream, shard and number of a subscription.
pub(crate) type Bed = (u64, u32, u64);

/// The wakers of subscriptions with nothing to send.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    asleep: BTreeMap<Bed, Waker>,
    roused: Vec<Waker>,
}

impl Sleepers {
    /// Has `waker` woken at the next change that may concern the subscription.
    pub(crate) fn lie_down(&mut self, bed: Bed, waker: &Waker) {
        self.asleep.entry(bed).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    pub(crate) fn get_up(&mut self, bed: Bed) {
        self.asleep.remove(&bed);
    }

    /// Wakes the subscriptions to one shard.
    pub(crate) fn rouse(&mut self, stream: u64, shard: u32) {
        let beds = (stream, shard, 0)..=(stream, shard, u64::MAX);
        let roused = self.asleep.extract_if(beds, |_, _| true);
        self.roused.extend(roused.map(|(_, waker)| waker));
    }

    pub(crate) fn rouse_all(&mut self) {
        self.roused.extend(mem::take(&mut self.asleep).into_values());
    }

    /// Who is to be woken, once the lock is free.
    pub(crate) fn take_roused(&mut self) -> Vec<Waker> {
        mem::take(&mut self.roused)
    }
}
