//! The place of the one subscription a reader has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Failure, Signal, Subscription};

/// A wait is measured in this many parts, each from one look at the subscription to the next: when a callback blocks
/// the thread, at most one part is wrongly counted as silence.
const LOOKS: u32 = 4;

/// Holds a subscription that one task polls and another can close at once.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Held>>);

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Open(Subscription),
    /// For good.
    Shut,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a subscription in, unless the slot is shut.
    pub(super) fn open(&self, subscription: Subscription) {
        let mut held = self.lock();
        if !matches!(*held, Held::Shut) {
            *held = Held::Open(subscription);
        }
    }

    /// Closes the subscription.
    pub(super) fn close(&self) {
        self.empty(false);
    }

    /// Closes the subscription and lets the connection under it be used no more.
    pub(super) fn condemn(&self) {
        self.empty(true);
    }

    fn empty(&self, condemned: bool) {
        let held = {
            let mut held = self.lock();
            let next = if matches!(*held, Held::Shut) { Held::Shut } else { Held::Nothing };
            std::mem::replace(&mut *held, next)
        };
        if let Held::Open(subscription) = held {
            if condemned {
                (subscription.condemn)();
            }
            drop(subscription.signals);
        }
    }

    /// Closes the subscription now, and every later one before it opens.
    pub(super) fn shut(&self) {
        let held = std::mem::replace(&mut *self.lock(), Held::Shut);
        drop(held);
    }

    /// Waits for what comes next, this long: nothing if time is up, an inner nothing if the subscription has ended.
    /// Waits for ever if there is no subscription.
    pub(super) async fn next(&self, limit: Duration) -> Option<Option<Result<Signal, Failure>>> {
        for _ in 0..LOOKS {
            let signal = std::future::poll_fn(|context| match &mut *self.lock() {
                Held::Open(subscription) => subscription.signals.poll_next_unpin(context),
                Held::Nothing | Held::Shut => Poll::Pending,
            });
            if let Ok(signal) = timeout(limit / LOOKS, signal).await {
                return Some(signal);
            }
        }
        None
    }
}
