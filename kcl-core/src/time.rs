//! The wall clock. All waiting and all durations use tokio's clock instead.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells wall-clock time, for what is stored or shown.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current wall-clock time.
    fn now(&self) -> SystemTime;

    /// How long ago the machine was booted, by a clock that goes on while it is suspended; none if there is no such
    /// clock. Default: none.
    fn since_boot(&self) -> Option<Duration> {
        None
    }
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Linux's `CLOCK_BOOTTIME`.
    #[cfg(target_os = "linux")]
    fn since_boot(&self) -> Option<Duration> {
        Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)).ok()
    }
}

/// A wall clock that starts at a given time and then follows tokio's, paused or not.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    base: SystemTime,
    origin: Instant,
}

impl TokioClock {
    /// Creates a clock that shows `base` now.
    #[must_use]
    pub fn new(base: SystemTime) -> Self {
        Self { base, origin: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.base + self.origin.elapsed()
    }
}
