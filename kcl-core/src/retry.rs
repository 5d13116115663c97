//! The one owner of retries: how long to wait before the next attempt.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::entropy::Entropy;

/// A growing, jittered delay between attempts.
///
/// `backoff` computes the exponential part; its own jitter and its own clock are switched off, because they
/// can be neither seeded nor paused.
#[derive(Debug)]
pub(crate) struct Backoff {
    exponential: ExponentialBackoff,
    entropy: Entropy,
    attempts: u32,
}

impl Backoff {
    /// Starts with `initial`, doubles up to `max`; each delay is jittered by half of itself either way.
    pub(crate) fn new(initial: Duration, max: Duration, entropy: Entropy) -> Self {
        let mut exponential = ExponentialBackoff {
            initial_interval: initial,
            max_interval: max,
            multiplier: 2.0,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        exponential.reset();
        Self { exponential, entropy, attempts: 0 }
    }

    /// The delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let max = self.exponential.max_interval;
        self.entropy.jitter(self.exponential.next_backoff().unwrap_or(max))
    }

    /// How many delays were asked for since the last reset.
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts anew, after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.exponential.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_within_their_jitter() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(initial, max, Entropy::seeded(7));
        for _ in 0..2 {
            let mut expected = initial;
            for attempt in 1..10 {
                let delay = backoff.next_delay();
                assert!(delay >= expected / 2 && delay <= expected * 3 / 2, "{attempt}: {delay:?}");
                assert_eq!(backoff.attempts(), attempt);
                expected = (expected * 2).min(max);
            }
            backoff.reset();
        }
    }
}
