//! The one source of randomness: jitter, attempt tokens, ids.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

/// A seedable source of randomness. Clones share one stream of numbers.
#[derive(Clone, Debug)]
pub struct Entropy {
    rng: Arc<Mutex<fastrand::Rng>>,
}

impl Default for Entropy {
    /// Seeds from the operating system.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that draws a seed")]
    fn default() -> Self {
        Self::from_rng(fastrand::Rng::new())
    }
}

impl Entropy {
    fn from_rng(rng: fastrand::Rng) -> Self {
        Self { rng: Arc::new(Mutex::new(rng)) }
    }

    /// Creates a source that yields the same numbers for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::from_rng(fastrand::Rng::with_seed(seed))
    }

    /// Splits off an independent source whose numbers depend only on the state of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }

    /// The next 64 random bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.lock().unwrap_or_else(PoisonError::into_inner).u64(..bound) }
    }

    /// A number in `0.0..1.0`.
    #[must_use]
    pub fn unit(&self) -> f64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    /// A duration between half of `around` and `around` and a half.
    #[must_use]
    pub fn jitter(&self, around: Duration) -> Duration {
        around.mul_f64(0.5 + self.unit())
    }

    /// A random (version 4) UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0u8; 16];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
