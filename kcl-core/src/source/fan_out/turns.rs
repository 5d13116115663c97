//! Who of a worker's readers may subscribe next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::entropy::Entropy;

/// The calls per second of a worker that owns many shards and starts, or whose connections broke. The service limits
/// the calls of each shard, not those of a worker; this keeps a thousand shards from signing, connecting and being
/// answered in the same moment, and is over in seconds.
const FASTEST: f64 = 200.0;
/// The rate that is kept however much the service throttles.
const SLOWEST: f64 = 1.0;
/// By how many calls per second the rate grows each second, and what is left of it when the service throttles:
/// workers that do not know of each other converge to equal shares.
const GROWTH: f64 = 2.0;
const SHRINKAGE: f64 = 0.5;
/// For how long after the rate shrank it does not again: calls that are refused meanwhile were made at the rate before.
const SHRINKS_ONCE: Duration = Duration::from_secs(1);

/// Gives the readers of a worker their turns to subscribe, in the order in which they ask.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Semaphore,
    rate: Mutex<Rate>,
    entropy: Entropy,
}

#[derive(Debug)]
struct Rate {
    per_second: f64,
    /// When the rate was last looked at, and the earliest next call.
    at: Option<Instant>,
    ready: Option<Instant>,
    shrank: Option<Instant>,
}

impl Rate {
    fn grow(&mut self, now: Instant) {
        let elapsed = self.at.replace(now).map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.per_second = (self.per_second + GROWTH * elapsed).min(FASTEST);
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.per_second.recip())
    }
}

impl Turns {
    pub(crate) fn new(entropy: Entropy) -> Self {
        let rate = Rate { per_second: FASTEST, at: None, ready: None, shrank: None };
        Self { queue: Semaphore::new(1), rate: Mutex::new(rate), entropy }
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one's turn. Cancel-safe: who stops waiting takes nobody's turn.
    pub(crate) async fn take(&self) {
        // The semaphore is never closed.
        let _turn = self.queue.acquire().await;
        loop {
            // The service may throttle, and the turn be moved, while it is waited for.
            let ready = self.rate().ready;
            match ready {
                Some(ready) if ready > Instant::now() => sleep_until(ready).await,
                _ => break,
            }
        }
        let now = Instant::now();
        let mut rate = self.rate();
        rate.grow(now);
        rate.ready = Some(now + rate.interval());
    }

    /// The service throttles.
    pub(crate) fn slow_down(&self) {
        let now = Instant::now();
        let mut rate = self.rate();
        rate.grow(now);
        if rate.shrank.is_some_and(|at| now < at + SHRINKS_ONCE) {
            return;
        }
        rate.shrank = Some(now);
        rate.per_second = (rate.per_second * SHRINKAGE).max(SLOWEST);
        let postponed = now + self.entropy.jitter(rate.interval());
        rate.ready = Some(rate.ready.map_or(postponed, |ready| ready.max(postponed)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    /// How many turns `workers`, each with its own turns, take of a service that takes a hundred calls a second, and
    /// how many it refuses, in each of `seconds`.
    async fn calls(workers: u64, seconds: usize) -> Vec<(usize, usize)> {
        let start = Instant::now();
        let calls: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let counts = Arc::new(Mutex::new(vec![(0, 0); seconds]));
        let mut tasks = JoinSet::new();
        for seed in 0..workers {
            let turns = Turns::new(Entropy::seeded(seed));
            let (calls, counts) = (Arc::clone(&calls), Arc::clone(&counts));
            tasks.spawn(async move {
                loop {
                    turns.take().await;
                    let now = Instant::now();
                    let second = now.duration_since(start).as_secs() as usize;
                    if second >= seconds {
                        return;
                    }
                    let mut recent = calls.lock().unwrap();
                    recent.retain(|call| now.duration_since(*call) < Duration::from_secs(1));
                    let is_taken = recent.len() < 100;
                    let mut counts = counts.lock().unwrap();
                    if is_taken {
                        recent.push(now);
                        counts[second].0 += 1;
                    } else {
                        counts[second].1 += 1;
                        turns.slow_down();
                    }
                }
            });
        }
        tasks.join_all().await;
        Arc::into_inner(counts).unwrap().into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn workers_share_what_there_is_and_use_most_of_it() {
        for workers in [1, 20] {
            let counts = calls(workers, 120).await;
            let sum = |sum: (usize, usize), second: &(usize, usize)| (sum.0 + second.0, sum.1 + second.1);
            let (taken, refused) = counts[20..].iter().fold((0, 0), sum);
            assert!(taken > 100 * 60, "{workers}: {taken} of 10,000 calls are taken");
            assert!(refused < taken / 2, "{workers}: {refused} are refused beside {taken} that are taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_refused_together_slow_down_once() {
        let turns = Turns::new(Entropy::seeded(1));
        turns.take().await;
        for _ in 0..20 {
            turns.slow_down();
        }
        let asked = Instant::now();
        for _ in 0..50 {
            turns.take().await;
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_takes_nobodys_turn() {
        let turns = Turns::new(Entropy::seeded(1));
        for _ in 0..20 {
            turns.slow_down();
        }
        turns.take().await;
        for _ in 0..100 {
            let _ = tokio::time::timeout(Duration::from_millis(1), turns.take()).await;
        }
        let asked = Instant::now();
        turns.take().await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_shards_get_their_turns_within_seconds() {
        let turns = Turns::new(Entropy::seeded(1));
        let start = Instant::now();
        for _ in 0..1_000 {
            turns.take().await;
        }
        assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    }
}
