//! A model of Amazon Kinesis Data Streams.
//!
//! [`Kinesis`] keeps streams, shards and records in memory behind one lock and offers the
//! operations of the service as plain synchronous calls; the module `api` puts the service's JSON
//! protocol over them. A put assigns the sequence number, stamps the arrival and makes the record
//! visible in one step, so a reader can never pass over a record that was acknowledged.
//!
//! All time is the given clock's: arrival times, retention, iterator and token lifetimes, sessions,
//! delays and limits. Time that runs backwards is taken to stand still.
//!
//! A registered consumer's [`Subscription`] is pushed what is put: it says at each moment what it
//! sends or until when it waits, and with feature `tokio` it can be awaited.
//!
//! ```
//! use std::sync::Arc;
//! use kcl_local::clock::SystemClock;
//! use kcl_local::kinesis::{IteratorStart, Kinesis, NewRecord, Step};
//!
//! # fn main() -> Result<(), kcl_local::error::ApiError> {
//! let kinesis = Kinesis::new(Arc::new(SystemClock));
//! kinesis.create_stream("orders", 1)?;
//! let placed = kinesis.put_record("orders", NewRecord::new("customer-7", "an order"))?;
//! let iterator = kinesis.get_shard_iterator("orders", &placed.shard_id, &IteratorStart::TrimHorizon)?;
//! let page = kinesis.get_records(&iterator, None)?;
//! assert_eq!(page.records[0].sequence_number, placed.sequence_number);
//!
//! let audit = kinesis.register_stream_consumer("orders", "audit")?;
//! let start = IteratorStart::TrimHorizon;
//! let mut subscription = kinesis.subscribe_to_shard(&audit.arn, &placed.shard_id, &start)?;
//! let Step::Event(event) = subscription.try_next()? else { unreachable!("there is a record") };
//! assert_eq!(event.records, page.records);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::SharedClock;

mod bucket;
mod consumer;
mod control;
mod errors;
mod hash_key;
mod list;
mod md5;
mod options;
mod put;
mod read;
mod reshard;
mod sequence;
mod settings;
mod shard;
mod sleepers;
mod state;
mod stream;
mod subscribe;
mod subscription;
mod token;

#[cfg(feature = "wire")]
pub mod api;

pub use consumer::{ConsumerDescription, ConsumerPage, ConsumerRef, ConsumerStatus};
pub use control::{AccountLimits, NewStream, StreamDescription, StreamPage};
pub use hash_key::{HashKeyRange, hash_key};
pub use list::{ListShards, ShardFilter, ShardPage};
pub use options::{KinesisOptions, Limits, SubscriptionOptions};
pub use put::{NewRecord, Placement};
pub use read::{GetRecordsOutput, IteratorStart};
pub use reshard::ShardCountUpdate;
pub use sequence::{ParseSequenceNumberError, SequenceNumber};
pub use settings::TagPage;
pub use shard::{ChildShard, ShardDescription, StoredRecord};
pub use state::StreamRef;
pub use stream::{StreamMode, StreamStatus, StreamSummary};
pub use subscription::{Step, Subscription, SubscriptionEvent};

use state::State;

/// The model: streams, shards and records on a given clock. Clones share the same state.
#[derive(Clone)]
pub struct Kinesis {
    shared: Arc<Shared>,
}

struct Shared {
    clock: SharedClock,
    state: Mutex<State>,
    listeners: Mutex<Vec<Listener>>,
}

type Listener = Arc<dyn Fn() + Send + Sync>;

impl Kinesis {
    /// Creates a service without streams and with default options.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self::with_options(clock, KinesisOptions::default())
    }

    /// Creates a service without streams.
    #[must_use]
    pub fn with_options(clock: SharedClock, options: KinesisOptions) -> Self {
        let state = Mutex::new(State::new(options));
        Self { shared: Arc::new(Shared { clock, state, listeners: Mutex::default() }) }
    }

    /// The clock the service runs on.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> KinesisOptions {
        self.with(|state| state.options.clone())
    }

    /// Changes the options of the running service.
    ///
    /// Region, account and retention concern streams made later; the rest takes effect at once.
    /// `change` runs under the service's lock and must not call the service.
    pub fn configure(&self, change: impl FnOnce(&mut KinesisOptions)) {
        self.altering(|state| change(&mut state.options));
    }

    /// Has `listener` called after each call that put records or changed streams or options, from the thread that
    /// made it. Changes that come about by time alone, such as the end of a delay, are not told.
    pub fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        let mut listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::new(listener));
    }

    /// Runs one operation that changes something, wakes all subscriptions, and tells of it.
    fn altering<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        self.telling(|state| {
            let outcome = operation(state);
            state.sleepers.rouse_all();
            outcome
        })
    }

    /// Runs one operation that changes something and rouses whom it concerns, and tells of it.
    fn telling<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let outcome = self.with(operation);
        // Called without the lock: listeners may call the service.
        let listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            listener();
        }
        outcome
    }

    /// Runs one operation: alone, and at one moment.
    fn with<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let (outcome, roused) = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.now = state.now.max(millis(self.shared.clock.now()));
            let outcome = operation(&mut state);
            (outcome, state.sleepers.take_roused())
        };
        // Woken without the lock: a waker may poll at once.
        for waker in roused {
            waker.wake();
        }
        outcome
    }
}

impl fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the state: it may be large, and its lock may be held where this is called.
        f.debug_struct("Kinesis").field("clock", &self.shared.clock).finish_non_exhaustive()
    }
}

/// Milliseconds since the Unix epoch; zero before it.
fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis_of)
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment so many milliseconds after the Unix epoch.
fn instant(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
