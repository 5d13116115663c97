//! What a fleet asks of its lease table: counted in a run, and as the formulas of `docs/cost.md` have it.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use kcl_core::fleet::MEMBERS_PER_ROW;
use kcl_core::lease::{LeaseStore as _, OperationUsage, StoreOperation, StoreUsage};
use kcl_core::model::ShardId;
use kcl_core::testing::{Recorder, World, WorldError};
use kcl_core::{Coordination, SchedulerBuilder, Settings};
use kcl_lease_memory::MemoryLeaseStore;

/// How long a fleet may take to come to rest.
const SETTLING: Duration = Duration::from_secs(600);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_secs(5);
/// How much virtual time passes between two interim answers.
const TOLD_EVERY: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

/// A fleet whose bill is asked for. Its stream is idle, so no checkpoint is stored.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// How many workers.
    pub workers: usize,
    /// How many shards, and so leases.
    pub shards: u32,
    /// How they coordinate.
    pub coordination: Coordination,
    /// How it begins.
    pub beginning: Beginning,
    /// For how long they are watched once they are at rest.
    pub time: Duration,
}

/// How a fleet begins. At rest it makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// All workers start at once.
    #[default]
    Together,
    /// All workers start at once, none with more leases than its share: nothing has to move, so that a large fleet comes
    /// to rest in a fraction of the time.
    Capped,
    /// The first worker has every lease before the others join it.
    Joining,
}

/// Requests and units a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Requests.
    pub requests: f64,
    /// Read units.
    pub read_units: f64,
    /// Write units.
    pub write_units: f64,
}

/// What is told while a run goes on.
#[derive(Debug)]
pub enum SoFar<'a> {
    /// How many leases are owned after this time, and how many whoever has most and least has.
    Settling(Duration, usize, (usize, usize)),
    /// The bill until now.
    AtRest(&'a Answer),
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Answer {
    question: Question,
    usage: StoreUsage,
    table_bytes: usize,
    fleet_row_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BillError {
    /// There is nothing to count.
    #[error("a bill needs at least one worker and one shard, and a minute to watch them")]
    Nothing,
    /// The fleet did not come to rest.
    #[error("the leases are not shared evenly after {SETTLING:?}: {owned} of {shards} are owned")]
    Restless {
        /// How many leases are owned.
        owned: usize,
        /// How many there are.
        shards: u32,
    },
    /// The world broke.
    #[error(transparent)]
    World(#[from] WorldError),
}

impl Question {
    /// Runs the fleet in virtual time.
    ///
    /// # Errors
    /// If it makes no sense, or the fleet does not come to rest.
    pub fn answer(self) -> Result<Answer, BillError> {
        self.answer_telling(|_| {})
    }

    /// Runs the fleet in virtual time, and tells how it does on the way: a large one takes long.
    ///
    /// # Errors
    /// If it makes no sense, or the fleet does not come to rest.
    pub fn answer_telling(self, so_far: impl FnMut(SoFar<'_>)) -> Result<Answer, BillError> {
        if self.workers == 0 || self.shards == 0 || self.time < MINUTE {
            return Err(BillError::Nothing);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        runtime.block_on(self.watch(so_far))
    }

    async fn watch(self, mut so_far: impl FnMut(SoFar<'_>)) -> Result<Answer, BillError> {
        // Pages end where those of DynamoDB do.
        let rows = MemoryLeaseStore::new().with_page_size(NonZeroUsize::MAX);
        let (app, coordination) = (Recorder::new(), self.coordination);
        let mut settings = Settings::default();
        if self.beginning == Beginning::Capped {
            settings.max_leases = (self.shards as usize).div_ceil(self.workers);
        }
        let mut world = World::new(1, self.shards, rows.clone(), move |_, worker: SchedulerBuilder| {
            worker.processor(app.clone()).settings(settings.clone()).coordination(coordination)
        })?;
        for number in 0..self.workers {
            if self.beginning == Beginning::Joining && number == 1 {
                self.settle(&mut world, &mut so_far).await?;
            }
            // As long as the names that workers get by default, which are those of hosts.
            world.start(&format!("ip-10-0-{}-{}.example", number / 200, number % 200 + 20))?;
        }
        self.settle(&mut world, &mut so_far).await?;
        // The last changes are told, listed and forgotten.
        world.run_for(MINUTE * 2).await?;
        let before = rows.usage();
        let mut watched = Duration::ZERO;
        loop {
            let step = TOLD_EVERY.min(self.time - watched);
            world.run_for(step).await?;
            watched += step;
            let answer = self.counted(watched, rows.usage().since(&before), &rows);
            if watched == self.time {
                return Ok(answer);
            }
            so_far(SoFar::AtRest(&answer));
        }
    }

    /// Waits until the workers there are share the leases evenly.
    async fn settle(self, world: &mut World, so_far: &mut impl FnMut(SoFar<'_>)) -> Result<(), BillError> {
        let mut waited = Duration::ZERO;
        loop {
            let owned: Vec<usize> = world.workers().iter().map(|name| world.owned(name)).collect();
            let all: usize = owned.iter().sum();
            let most = owned.iter().max().copied().unwrap_or(0);
            let least = owned.iter().min().copied().unwrap_or(0);
            if all == self.shards as usize && most - least <= 1 {
                return Ok(());
            }
            if waited >= SETTLING {
                return Err(BillError::Restless { owned: all, shards: self.shards });
            }
            so_far(SoFar::Settling(waited, all, (most, least)));
            world.run_for(LOOK).await?;
            waited += LOOK;
        }
    }

    fn counted(self, time: Duration, usage: StoreUsage, rows: &MemoryLeaseStore) -> Answer {
        let sizes = rows.row_sizes();
        let is_fleet_row = |key: &ShardId| key.as_str().starts_with("kcl:fleet:");
        let largest = sizes.iter().filter(|(key, _)| is_fleet_row(key)).map(|(_, bytes)| *bytes).max();
        let table_bytes = sizes.values().sum();
        Answer { question: Self { time, ..self }, usage, table_bytes, fleet_row_bytes: largest.unwrap_or(0) }
    }
}

impl Answer {
    /// For how many virtual minutes the fleet was watched.
    #[must_use]
    pub fn minutes(&self) -> f64 {
        self.question.time.as_secs_f64() / 60.0
    }

    fn rates(&self, usage: OperationUsage) -> Rates {
        let minutes = self.minutes();
        Rates {
            requests: usage.requests as f64 / minutes,
            read_units: usage.read_units / minutes,
            write_units: usage.write_units / minutes,
        }
    }

    /// All operations together.
    #[must_use]
    pub fn total(&self) -> Rates {
        self.rates(self.usage.total())
    }

    /// How often leases were written: at rest, `Fleet` never does.
    #[must_use]
    pub fn lease_writes(&self) -> u64 {
        let writes = [StoreOperation::Create, StoreOperation::Update, StoreOperation::Delete];
        writes.iter().map(|operation| self.usage.of(*operation).requests).sum()
    }

    /// What the formulas say of a fleet with rows of these sizes.
    #[must_use]
    pub fn predicted(&self) -> Rates {
        let Question { workers, shards, coordination, .. } = self.question;
        match coordination {
            Coordination::PerLease => per_lease(workers, shards, self.table_bytes),
            _ => fleet(workers, shards, self.table_bytes, self.fleet_row_bytes),
        }
    }

    /// What the formula of KCL 2.x says of a table of this size.
    #[must_use]
    pub fn java(&self) -> Rates {
        java(self.question.workers, self.question.shards, self.table_bytes)
    }

    /// How far the run is from the formulas: the largest of the three differences, as a share.
    #[must_use]
    pub fn difference(&self) -> f64 {
        let (run, said) = (self.total(), self.predicted());
        let pairs = [
            (run.requests, said.requests),
            (run.read_units, said.read_units),
            (run.write_units, said.write_units),
        ];
        pairs.into_iter().map(|(run, said)| (run - said).abs() / said).fold(0.0, f64::max)
    }
}

/// The units of reading so many bytes, eventually consistent, at half a unit for every 4 KB begun.
fn read(bytes: usize) -> f64 {
    bytes.div_ceil(4096).max(1) as f64 / 2.0
}

/// The pages of a scan.
fn pages(bytes: usize) -> f64 {
    bytes.div_ceil(1 << 20).max(1) as f64
}

/// `Coordination::Fleet` at rest, by `docs/cost.md`.
#[must_use]
pub fn fleet(workers: usize, leases: u32, table_bytes: usize, fleet_row_bytes: usize) -> Rates {
    let duration = Settings::default().lease_duration.as_secs_f64();
    let (workers, rows) = (workers as f64, workers.div_ceil(MEMBERS_PER_ROW) as f64);
    let beats = workers * 60.0 * 3.0 / duration;
    let looks = workers * (60.0 + 60.0 * (rows - 1.0) / rows);
    // All but whoever keeps house list large tables less often.
    let patience = f64::from((leases.div_ceil(200)).clamp(1, 10));
    let audits = ((workers - 1.0) / patience + 1.0) * 60.0 / AUDIT_SECONDS;
    Rates {
        requests: beats + looks + audits * pages(table_bytes),
        read_units: looks * read(fleet_row_bytes) + audits * read(table_bytes),
        write_units: beats * fleet_row_bytes.div_ceil(1024) as f64,
    }
}

/// `Coordination::PerLease` at rest, by `docs/cost.md`.
#[must_use]
pub fn per_lease(workers: usize, leases: u32, table_bytes: usize) -> Rates {
    let settings = Settings::default();
    let renewals = f64::from(leases) * 60.0 * 3.0 / settings.lease_duration.as_secs_f64();
    // Less a random tenth at most.
    let lists = workers as f64 * 60.0 / (settings.lease_scan_interval.as_secs_f64() * 0.95);
    Rates {
        requests: renewals + lists * pages(table_bytes),
        read_units: lists * read(table_bytes),
        write_units: renewals,
    }
}

/// KCL 2.x at its defaults: a renewal for each lease every 3.308 s; a scan of each worker every 20.05 s to take leases
/// and every 5 min for elections; one of the leader every 2 min to audit.
#[must_use]
pub fn java(workers: usize, leases: u32, table_bytes: usize) -> Rates {
    let renewals = f64::from(leases) * 18.14;
    let scans = workers as f64 * (2.99 + 0.2) + 0.5;
    Rates {
        requests: renewals + scans * pages(table_bytes),
        read_units: scans * read(table_bytes),
        write_units: renewals,
    }
}

/// About how long from one audit to the next: a minute, less a random tenth at most.
const AUDIT_SECONDS: f64 = 57.0;

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { workers, shards, coordination, .. } = self.question;
        let minutes = self.minutes();
        writeln!(f, "{workers} workers, {shards} leases, {coordination:?}, {minutes:.0} minutes at rest")?;
        writeln!(f, "{} bytes of table, {} of a fleet row", self.table_bytes, self.fleet_row_bytes)?;
        writeln!(f, "{:<16}{:>12}{:>14}{:>14}", "per minute", "requests", "read units", "write units")?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, rates: Rates| {
            let Rates { requests, read_units, write_units } = rates;
            writeln!(f, "{name:<16}{requests:>12.1}{read_units:>14.1}{write_units:>14.1}")
        };
        for operation in StoreOperation::ALL {
            let usage = self.usage.of(operation);
            if usage.requests > 0 {
                line(f, operation.name(), self.rates(usage))?;
            }
        }
        line(f, "all", self.total())?;
        line(f, "by the formula", self.predicted())?;
        line(f, "KCL 2.x", self.java())
    }
}
