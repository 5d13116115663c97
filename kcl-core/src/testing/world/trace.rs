use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// What happened in a world, a line for each event, with virtual time: the same for the same seed.
#[derive(Clone, Debug)]
pub struct Trace {
    begun: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    /// Adds a line.
    pub fn note(&self, line: impl fmt::Display) {
        let at = self.begun.elapsed().as_secs_f64();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:>10.3} {line}"));
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
