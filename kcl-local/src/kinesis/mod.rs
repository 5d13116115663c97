//! A model of Amazon Kinesis Data Streams.

use crate::clock::SharedClock;

#[cfg(feature = "wire")]
pub mod api;

/// The model: streams, shards and records on a given clock. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Kinesis {
    clock: SharedClock,
}

impl Kinesis {
    /// Creates a service without streams.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }

    /// The clock the service runs on.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
}
