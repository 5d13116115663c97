//! When a reader may call again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::PollingConfig;

/// The `GetRecords` calls per second and shard that the service allows, over all readers.
const CALLS_PER_SECOND: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

/// The bytes per second and shard that the service hands out; a second's worth is saved up. A larger answer
/// blocks the shard until it is paid back: 10 MiB, the largest, for five seconds.
/// Source of both: "Quotas and limits" in the Kinesis Data Streams developer guide.
const BYTES_PER_SECOND: f64 = (2 << 20) as f64;

/// By how many calls per second the rate grows each second, and what is left of it when the service throttles.
/// Growing by addition and shrinking by multiplication lets readers that do not know of each other converge to
/// equal shares.
const GROWTH: f64 = 0.1;
const SHRINKAGE: f64 = 0.5;

/// The pace of one reader.
///
/// At the tip, calls are spaced evenly at the rate the service tolerates. Behind the tip, and as long as nobody
/// throttles, they follow each other at once within five calls in any second. What was read is paid for at two
/// mebibytes per second either way.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    fastest: f64,
    slowest: f64,
    rate: f64,
    rate_at: Instant,
    recent: VecDeque<Instant>,
    allowance: f64,
    allowance_at: Instant,
    ready: Instant,
}

impl Pace {
    pub(super) fn new(config: &PollingConfig, now: Instant) -> Self {
        let min = config.min_interval.clamp(Duration::from_millis(1), Duration::from_secs(10));
        let max = config.max_interval.clamp(min, Duration::from_secs(60));
        let fastest = min.as_secs_f64().recip();
        Self {
            fastest,
            slowest: max.as_secs_f64().recip(),
            rate: fastest,
            rate_at: now,
            recent: VecDeque::with_capacity(CALLS_PER_SECOND),
            allowance: BYTES_PER_SECOND,
            allowance_at: now,
            ready: now,
        }
    }

    /// When the next call may start.
    pub(super) const fn ready(&self) -> Instant {
        self.ready
    }

    /// The mean time between calls at the tip.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.rate.recip())
    }

    /// A call starts. Until its outcome is told, the next one is spaced from it, so that a caller who drops the
    /// call and makes another one is no faster for it.
    pub(super) fn called(&mut self, now: Instant) {
        if self.recent.len() == CALLS_PER_SECOND {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.ready = self.within_window(now + self.interval());
    }

    /// The last call brought `bytes`. `behind` says that more is waiting, `jitter` (0 to 1) keeps readers that
    /// started together from calling together.
    pub(super) fn answered(&mut self, now: Instant, bytes: usize, behind: bool, jitter: f64) {
        self.grow(now);
        let paid = self.pay(now, bytes);
        let spaced = match self.recent.back() {
            _ if behind && self.is_undisturbed() => now,
            Some(called) => *called + self.interval().mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0)),
            None => now,
        };
        self.ready = self.within_window(now.max(spaced).max(paid));
    }

    /// The service refused the last call because the shard is read too fast.
    pub(super) fn throttled(&mut self, now: Instant, jitter: f64) {
        self.grow(now);
        self.rate = (self.rate * SHRINKAGE).max(self.slowest);
        self.ready = self.within_window(now + self.interval().mul_f64(0.5 + jitter.clamp(0.0, 1.0)));
    }

    /// No call before `until`.
    pub(super) fn postpone(&mut self, until: Instant) {
        self.ready = self.ready.max(until);
    }

    /// Whether the service has not throttled lately.
    fn is_undisturbed(&self) -> bool {
        self.rate >= self.fastest
    }

    fn grow(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.rate_at).as_secs_f64();
        self.rate = (self.rate + GROWTH * elapsed).min(self.fastest);
        self.rate_at = now;
    }

    /// Charges `bytes` and returns when they are paid for. An overdraft is paid back up to a full allowance.
    fn pay(&mut self, now: Instant, bytes: usize) -> Instant {
        let elapsed = now.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance = (self.allowance + elapsed * BYTES_PER_SECOND).min(BYTES_PER_SECOND) - bytes as f64;
        self.allowance_at = now;
        if self.allowance >= 0.0 {
            return now;
        }
        now + Duration::from_secs_f64((BYTES_PER_SECOND - self.allowance) / BYTES_PER_SECOND)
    }

    /// `at`, or later if that would make more than five calls within a second.
    fn within_window(&self, at: Instant) -> Instant {
        match self.recent.front() {
            // A millisecond more, the granularity of the timer: the fifth call back must have left the window.
            Some(oldest) if self.recent.len() == CALLS_PER_SECOND => at.max(*oldest + SECOND + TICK),
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests;
