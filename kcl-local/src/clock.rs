//! The wall clock of the local services.
//!
//! Arrival times, iterator expiry, retention and limits all read one [`Clock`], so that a test can
//! run hours of service time in milliseconds.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Tells the wall-clock time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current wall-clock time.
    fn now(&self) -> SystemTime;
}

/// A shared [`Clock`].
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that follows tokio's, so that a paused runtime also stops the services' time.
///
/// Time is `base` at construction and advances with [`tokio::time::Instant`].
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    base: SystemTime,
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioClock {
    /// Creates a clock that shows `base` now.
    #[must_use]
    pub fn new(base: SystemTime) -> Self {
        Self { base, origin: tokio::time::Instant::now() }
    }
}

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.base + self.origin.elapsed()
    }
}

/// A clock that moves only when told.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<SystemTime>,
}

impl ManualClock {
    /// Creates a clock that stands at `now`.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self { now: Mutex::new(now) }
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
