use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::{LeaseStore, OperationUsage, StoreOperation, StoreUsage};

const MINUTE: Duration = Duration::from_secs(60);

/// What a scheduler's lease store has counted since the scheduler began to run.
///
/// Schedulers of one process that use clones of one store count together.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Bill {
    /// For how long the scheduler has been running.
    pub running_for: Duration,
    /// What was counted in that time.
    pub total: StoreUsage,
    /// What was counted in the last whole minute; nothing before there was one.
    pub last_minute: Option<StoreUsage>,
}

/// What an operation comes to in a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerMinute {
    /// Requests.
    pub requests: f64,
    /// Read units.
    pub read_units: f64,
    /// Write units.
    pub write_units: f64,
}

impl Bill {
    /// What each operation comes to in a minute: in the last whole one, or on average before there was one.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate is no exact number")]
    pub fn per_minute(&self) -> BTreeMap<StoreOperation, PerMinute> {
        let (usage, minutes) = match &self.last_minute {
            Some(usage) => (usage, 1.0),
            None => (&self.total, self.running_for.as_secs_f64().max(1.0) / 60.0),
        };
        let rate = |usage: &OperationUsage| PerMinute {
            requests: usage.requests as f64 / minutes,
            read_units: usage.read_units / minutes,
            write_units: usage.write_units / minutes,
        };
        usage.by_operation.iter().map(|(operation, usage)| (*operation, rate(usage))).collect()
    }
}

impl fmt::Display for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14}{:>12}{:>14}{:>14}", "per minute", "requests", "read units", "write units")?;
        let mut sum = PerMinute::default();
        let line = |f: &mut fmt::Formatter<'_>, name: &str, rate: &PerMinute| {
            writeln!(
                f,
                "{name:<14}{:>12.1}{:>14.1}{:>14.1}",
                rate.requests, rate.read_units, rate.write_units
            )
        };
        for (operation, rate) in self.per_minute() {
            line(f, operation.name(), &rate)?;
            sum.requests += rate.requests;
            sum.read_units += rate.read_units;
            sum.write_units += rate.write_units;
        }
        line(f, "all", &sum)
    }
}

/// Reads the store's counters.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    store: Arc<dyn LeaseStore>,
    begun: Instant,
    first: StoreUsage,
    minute: Arc<Mutex<Minute>>,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    from: StoreUsage,
    last: Option<StoreUsage>,
}

impl Meter {
    pub(super) fn new(store: Arc<dyn LeaseStore>) -> Self {
        let (begun, first) = (Instant::now(), store.usage());
        let minute = Minute { since: begun, from: first.clone(), last: None };
        Self { store, begun, first, minute: Arc::new(Mutex::new(minute)) }
    }

    /// Ends the minute that is counted, if it is over, and returns what was counted in it. To be called every second
    /// or so.
    pub(super) fn tick(&self) -> Option<StoreUsage> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.since.elapsed() < MINUTE {
            return None;
        }
        let usage = self.store.usage();
        minute.last = Some(usage.since(&minute.from));
        minute.from = usage;
        minute.since = Instant::now();
        minute.last.clone()
    }

    pub(super) fn bill(&self) -> Bill {
        let last_minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
        Bill { running_for: self.begun.elapsed(), total: self.store.usage().since(&self.first), last_minute }
    }
}
