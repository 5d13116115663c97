//! Byte budgets of what is read ahead (M-1).
//!
//! The worker's budget covers everything read and not yet acknowledged, the shard's what is read and not yet
//! handed to the processor. A reader reserves an estimate before it fetches, since the size of an answer is
//! only known afterwards, and settles the difference when it has the answer.
//!
//! # Bound
//! What a worker holds is at most its budget plus one answer (10 MiB on Kinesis) for each shard: the one that
//! was larger than estimated, or that was fetched although the budget was used up. The latter is what a shard
//! with nothing buffered may do after a short wait, so that a few blocked processors cannot silence all other
//! shards. A shard that overdrew fetches nothing more until that answer is acknowledged.
//!
//! Readers that subscribe buffer what is pushed to them beside this, within a bound of their own:
//! `FanOutConfig::buffer_bytes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::pin;
use tokio::select;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Budget;
use crate::plant::{Plant, planted};

/// Bytes are counted in units of this many, so that a semaphore's 32-bit counts reach 4 TiB.
const UNIT: usize = 1024;
/// The largest answer of `GetRecords` and the largest event of `SubscribeToShard` hold at most this much.
const LARGEST_ANSWER: usize = 10 << 20;
/// What is reserved for an answer of a shard that has been quiet.
const SMALLEST_ESTIMATE: usize = 16 << 10;
/// How long a shard with nothing buffered waits for the budget before it overdraws it.
const PATIENCE: Duration = Duration::from_millis(500);

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The byte budget that all shards of a worker share.
#[derive(Clone, Debug)]
pub(crate) struct WorkerBudget {
    permits: Arc<Semaphore>,
    total: u32,
}

impl WorkerBudget {
    /// Creates the budget of a worker: [`Settings::worker_buffer_bytes`](crate::Settings).
    pub(crate) fn new(bytes: usize) -> Self {
        let total = units(bytes).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// The bytes reserved right now, rounded up to whole KiB per answer.
    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> usize {
        (self.total as usize - self.permits.available_permits()) * UNIT
    }

    /// The part of one shard, which may read ahead `limit` bytes.
    pub(super) fn shard(&self, limit: usize) -> ShardBudget {
        let usage = Arc::new(Usage::default());
        ShardBudget { worker: self.clone(), limit, usage, estimate: LARGEST_ANSWER.min(limit) }
    }

    /// Takes as many of `wanted` units as there are.
    fn take_available(&self, wanted: u32) -> Option<OwnedSemaphorePermit> {
        let mut wanted = wanted;
        while wanted > 0 {
            let available = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
            wanted = wanted.min(available);
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_many_owned(wanted) {
                return Some(permit);
            }
            wanted /= 2;
        }
        None
    }
}

#[derive(Debug, Default)]
struct Usage {
    /// Bytes read and not handed to the processor.
    read_ahead: AtomicUsize,
    /// Answers held of which a part is not covered by the worker's budget.
    overdrawn: AtomicUsize,
    freed: Notify,
}

/// One shard's part of the budget; kept by its reader.
#[derive(Debug)]
pub(super) struct ShardBudget {
    worker: WorkerBudget,
    limit: usize,
    usage: Arc<Usage>,
    estimate: usize,
}

impl ShardBudget {
    /// The bytes read and not handed to the processor.
    pub(super) fn meter(&self) -> BufferMeter {
        BufferMeter(Arc::clone(&self.usage))
    }

    /// Waits until one more answer may be fetched, and tells which budget it waits for. Cancel-safe.
    pub(super) async fn reserve(&self, held_up: impl Fn(Budget)) -> Reservation {
        loop {
            let read_ahead = self.usage.read_ahead.load(Ordering::Acquire);
            let fits = read_ahead == 0 || read_ahead.saturating_add(self.estimate) <= self.limit;
            if fits && self.usage.overdrawn.load(Ordering::Acquire) == 0 || planted(Plant::IgnoreBudget) {
                break;
            }
            held_up(if fits { Budget::Worker } else { Budget::Shard });
            // The reader of the shard is the only one that waits, so no permit of the notifier gets lost.
            self.usage.freed.notified().await;
        }
        let wanted = if planted(Plant::IgnoreBudget) { 0 } else { units(self.estimate) };
        let wanted = wanted.min(self.worker.total);
        let acquire = Arc::clone(&self.worker.permits).acquire_many_owned(wanted);
        pin!(acquire);
        let mut permit = acquire.as_mut().now_or_never();
        if permit.is_none() {
            held_up(Budget::Worker);
        }
        let permit = loop {
            if let Some(permit) = permit.take() {
                break permit.ok();
            }
            if self.usage.read_ahead.load(Ordering::Acquire) == 0 {
                match timeout(PATIENCE, &mut acquire).await {
                    Ok(permit) => break permit.ok(),
                    Err(_) => break self.worker.take_available(wanted),
                }
            }
            select! {
                biased;
                permit = &mut acquire => break permit.ok(),
                // A shard whose buffer ran empty need not wait for others.
                () = self.usage.freed.notified() => {}
            }
        };
        Reservation {
            worker: self.worker.clone(),
            usage: Arc::clone(&self.usage),
            permit,
            bytes: 0,
            overdrawn: false,
        }
    }

    /// Corrects a reservation to what the answer holds, and the estimate of the next.
    pub(super) fn settle(&mut self, reservation: &mut Reservation, bytes: usize) {
        reservation.settle(bytes);
        // Grows at once and shrinks by half, so that a shard that catches up is neither under- nor overestimated
        // for long.
        let expected = bytes.saturating_add(bytes / 4).max(self.estimate / 2);
        self.estimate = expected.clamp(SMALLEST_ESTIMATE, LARGEST_ANSWER).min(self.limit.max(1));
    }
}

/// Shows how much a shard has read ahead.
#[derive(Clone, Debug)]
pub(super) struct BufferMeter(Arc<Usage>);

impl BufferMeter {
    pub(super) fn bytes(&self) -> usize {
        self.0.read_ahead.load(Ordering::Acquire)
    }
}

/// The budget of one answer. Freed on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    worker: WorkerBudget,
    usage: Arc<Usage>,
    permit: Option<OwnedSemaphorePermit>,
    /// What counts as read ahead.
    bytes: usize,
    overdrawn: bool,
}

impl Reservation {
    fn settle(&mut self, bytes: usize) {
        let needed = units(bytes);
        let held =
            self.permit.as_ref().map_or(0, |permit| u32::try_from(permit.num_permits()).unwrap_or(u32::MAX));
        if held > needed {
            drop(self.permit.as_mut().and_then(|permit| permit.split((held - needed) as usize)));
        } else if let Some(more) = self.worker.take_available(needed - held) {
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
        }
        let covered = self.permit.as_ref().map_or(0, |permit| permit.num_permits());
        if covered < needed as usize {
            self.overdrawn = true;
            self.usage.overdrawn.fetch_add(1, Ordering::AcqRel);
        }
        self.bytes = bytes;
        self.usage.read_ahead.fetch_add(bytes, Ordering::AcqRel);
    }

    /// What the answer was settled at.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The answer was handed to the processor: it does not count as read ahead any more.
    pub(super) fn hand_over(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.usage.read_ahead.fetch_sub(bytes, Ordering::AcqRel);
        self.usage.freed.notify_one();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.overdrawn {
            self.usage.overdrawn.fetch_sub(1, Ordering::AcqRel);
        }
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_reads_ahead_up_to_its_limit_and_on_once_something_is_handed_over() {
        let worker = WorkerBudget::new(1 << 20);
        let mut shard = worker.shard(100 << 10);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut reservation = shard.reserve(|_| {}).await;
            shard.settle(&mut reservation, 40 << 10);
            held.push(reservation);
        }
        assert!(shard.reserve(|_| {}).now_or_never().is_none(), "80 of 100 KiB used, 50 expected");
        held[0].hand_over();
        assert!(shard.reserve(|_| {}).now_or_never().is_some());
        assert_eq!(worker.used_bytes(), 80 << 10, "what is handed over is not freed yet");
        drop(held);
        assert_eq!((worker.used_bytes(), shard.meter().bytes()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_with_nothing_buffered_waits_for_others_a_little_but_not_for_ever() {
        let worker = WorkerBudget::new(64 << 10);
        let mut greedy = worker.shard(64 << 10);
        let mut reservation = greedy.reserve(|_| {}).await;
        greedy.settle(&mut reservation, 64 << 10);
        let mut poor = worker.shard(64 << 10);
        let asked = Instant::now();
        let mut overdrawn = poor.reserve(|_| {}).await;
        assert_eq!(asked.elapsed(), PATIENCE);
        poor.settle(&mut overdrawn, 10 << 10);
        overdrawn.hand_over();
        assert!(poor.reserve(|_| {}).now_or_never().is_none(), "one answer beyond the budget at a time");
        drop(overdrawn);
        drop(reservation);
        assert!(poor.reserve(|_| {}).now_or_never().is_some());
        assert_eq!(worker.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_larger_than_estimated_takes_what_there_is_and_is_learned_from() {
        let worker = WorkerBudget::new(1 << 20);
        let mut shard = worker.shard(1 << 20);
        for _ in 0..20 {
            let mut reservation = shard.reserve(|_| {}).await;
            shard.settle(&mut reservation, 0);
        }
        assert_eq!(shard.estimate, SMALLEST_ESTIMATE);
        let mut reservation = shard.reserve(|_| {}).await;
        assert_eq!(worker.used_bytes(), SMALLEST_ESTIMATE);
        shard.settle(&mut reservation, 400 << 10);
        assert_eq!((worker.used_bytes(), shard.estimate), (400 << 10, 500 << 10));
    }
}
