//! Clocks of a machine that can be suspended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kcl_core::{Clock, TokioClock};
use tokio::time::Instant;

/// What goes on while a machine is suspended, besides the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleepless {
    /// The wall clock alone, as on systems without a clock of the time since boot.
    Wall,
    /// The clock of the time since boot alone: somebody set the wall clock back meanwhile.
    Boot,
}

/// Clocks that follow tokio's, but for what the machine slept through.
#[derive(Clone, Debug)]
pub struct Clocks {
    wall: TokioClock,
    booted: Instant,
    slept: Arc<Mutex<[Duration; 2]>>,
}

impl Clocks {
    /// Clocks that show `base` now.
    #[must_use]
    pub fn new(base: SystemTime) -> Self {
        Self { wall: TokioClock::new(base), booted: Instant::now(), slept: Arc::default() }
    }

    /// Lets a clock leap ahead of the monotonic one.
    pub fn leap(&self, which: Sleepless, by: Duration) {
        let mut slept = self.slept.lock().unwrap_or_else(PoisonError::into_inner);
        slept[usize::from(which == Sleepless::Boot)] += by;
    }

    fn slept(&self) -> [Duration; 2] {
        *self.slept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Clocks {
    fn now(&self) -> SystemTime {
        self.wall.now() + self.slept()[0]
    }

    fn since_boot(&self) -> Option<Duration> {
        Some(self.booted.elapsed() + self.slept()[1])
    }
}
