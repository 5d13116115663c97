//! DynamoDB, by the `dynoxide-rs` library.
//!
//! Tables live in memory. Unlike AWS, a table is `ACTIVE` and an index complete at once, reads of
//! an index are never stale, nothing is throttled, and the region in ARNs is `dynoxide`; names of
//! tables have at least three characters, as there. Point-in-time recovery, which the library does
//! not have, is answered here: the switch is remembered per table, nothing is backed up.

mod api;
mod recovery;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use dynoxide::Database;

use crate::clock::SharedClock;
use crate::error::ApiError;
use recovery::Recovery;

/// A DynamoDB without tables at first. Clones share the same state.
#[derive(Clone)]
pub struct DynamoDb {
    database: Database,
    clock: SharedClock,
    recovery: Arc<Mutex<Recovery>>,
}

impl DynamoDb {
    /// Creates an empty database in memory that reads the time from `clock`.
    ///
    /// The library takes the clock for time to live and streams only; the creation time of a table
    /// and the ten minutes of a transaction token follow the operating system.
    ///
    /// # Errors
    /// `InternalServerError` if SQLite cannot be opened, which in memory means out of memory.
    pub fn new(clock: SharedClock) -> Result<Self, ApiError> {
        let database = Database::memory_with_clock(Arc::new(LibraryClock(Arc::clone(&clock))))
            .map_err(|error| ApiError::server(format!("cannot open the database: {error}")))?;
        Ok(Self { database, clock, recovery: Arc::default() })
    }

    /// Whether point-in-time recovery was switched on for `table`.
    #[must_use]
    pub fn has_point_in_time_recovery(&self, table: &str) -> bool {
        self.recovery().is_enabled(table)
    }
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// The library's view of our clock.
struct LibraryClock(SharedClock);

impl dynoxide::storage_backend::Clock for LibraryClock {
    fn now_unix_secs(&self) -> u64 {
        self.0.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}
