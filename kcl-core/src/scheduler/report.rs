use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bill::Bill;
use super::coordination::{FleetSnapshot, OwnerSeen, TableView};
use super::explain::Explanation;
use crate::consumer::{ShardReport, Stage};
use crate::lease::{LeaseHandle, LeaseTable, LossReason, Phase};
use crate::model::{Shard, ShardId, WorkerId};
use crate::settings::Settings;

/// What a scheduler shows of itself and of the fleet, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The moment.
    pub at: Instant,
    /// This worker.
    pub worker: WorkerId,
    /// What the scheduler is doing.
    pub phase: SchedulerPhase,
    /// The shards this worker holds leases of.
    pub shards: BTreeMap<ShardId, ShardSnapshot>,
    /// Every lease of the application, as the table showed when it was last listed, and what was written since.
    pub leases: Arc<LeaseTable>,
    /// How long ago the table was last listed to its end; none before the first time.
    pub listed_ago: Option<Duration>,
    /// The rows of the lease table that cannot be read, by key, and what is wrong with each. They are left alone.
    pub unreadable: BTreeMap<String, String>,
    /// Whether this worker keeps house: compares the stream's shards with the leases.
    pub housekeeper: bool,
    /// What this worker sees of its fleet; none with [`Coordination::PerLease`](crate::Coordination::PerLease).
    pub fleet: Option<FleetSnapshot>,
    /// What the lease store has counted, while the scheduler runs.
    pub bill: Option<Bill>,
    /// Whether this worker takes leases: it is not on standby and does not stop.
    pub taking: bool,
    /// Who owns each lease, and since when this worker has seen that.
    pub owners: Arc<BTreeMap<ShardId, OwnerSeen>>,
    /// The leases whose owners let them stand still for a lease duration, and since when that is known. Only with
    /// [`Coordination::PerLease`](crate::Coordination::PerLease); in a fleet the members say who lives.
    pub expired: BTreeMap<ShardId, Instant>,
    /// The leases this worker gave up by itself, and until when it leaves them to others.
    pub given_up: BTreeMap<ShardId, Instant>,
    /// The stream's shards, as last listed by this worker. Who does not keep house lists them at its start and when a
    /// shard ends.
    pub listed_shards: Arc<Vec<Shard>>,
    /// How long ago that was; none before the first time.
    pub shards_listed_ago: Option<Duration>,
    /// The failures to list them, if the last attempt failed.
    pub listing_failure: Option<ListingFailure>,
    /// The HTTP endpoint, if there is one: see `Endpoint` (feature `http`).
    pub endpoint: Option<EndpointSnapshot>,
}

/// The stream's shards cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListingFailure {
    /// How often it failed in a row.
    pub failures: u32,
    /// When it failed first.
    pub since: Instant,
    /// The latest error, with its causes.
    pub error: String,
}

impl ListingFailure {
    /// The first of a row of failures, or the next one.
    pub(crate) fn after(earlier: Option<&Self>, error: String, now: Instant) -> Self {
        match earlier {
            Some(Self { failures, since, .. }) => {
                Self { failures: failures.saturating_add(1), since: *since, error }
            }
            None => Self { failures: 1, since: now, error },
        }
    }
}

/// The HTTP endpoint of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// The address it was told to listen on.
    pub address: SocketAddr,
    /// The address it listens on; none while it cannot.
    pub bound: Option<SocketAddr>,
    /// Why it cannot, with the causes; it keeps trying.
    pub error: Option<String>,
}

impl Snapshot {
    /// How many unfinished leases each worker owns.
    #[must_use]
    pub fn leases_by_owner(&self) -> BTreeMap<WorkerId, usize> {
        let mut counts = BTreeMap::new();
        for owner in self.leases.values().filter(|lease| !lease.is_ended()).filter_map(|l| l.owner.clone()) {
            *counts.entry(owner).or_default() += 1;
        }
        counts
    }

    /// The payload bytes read ahead for all shards.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shards.values().map(|shard| shard.report.buffered_bytes).sum()
    }

    /// The id under which this worker owns leases.
    #[must_use]
    pub fn owner_id(&self) -> &WorkerId {
        self.fleet.as_ref().and_then(|fleet| fleet.member.as_ref()).unwrap_or(&self.worker)
    }

    /// Why a shard is moving or not: see [`Explanation`].
    #[must_use]
    pub fn explain(&self, shard: &ShardId, settings: &Settings) -> Explanation {
        Explanation::of(self, shard, settings)
    }

    /// The snapshot of a worker that has seen nothing.
    #[cfg(all(test, feature = "http"))]
    pub(crate) fn at_rest(worker: WorkerId, phase: SchedulerPhase) -> Self {
        Self::of_table(worker, phase, &TableView::default())
    }

    pub(crate) fn of_table(worker: WorkerId, phase: SchedulerPhase, table: &TableView) -> Self {
        Self {
            at: Instant::now(),
            worker,
            phase,
            shards: BTreeMap::new(),
            leases: Arc::clone(&table.leases),
            fleet: table.fleet.clone(),
            bill: None,
            listed_ago: table.listed_at.map(|at| at.elapsed()),
            unreadable: table.unreadable.clone(),
            housekeeper: table.leader,
            taking: table.taking,
            owners: Arc::clone(&table.owners),
            expired: table.expired.clone(),
            given_up: table.given_up.clone(),
            listed_shards: Arc::default(),
            shards_listed_ago: None,
            listing_failure: None,
            endpoint: None,
        }
    }
}

/// A held shard, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// What its consumer shows.
    pub report: ShardReport,
    /// For how long a delivery may still start under the lease as confirmed so far; zero if it is fenced.
    pub valid_for: Duration,
    /// The worker that the lease goes to, if it is being handed over.
    pub handing_over_to: Option<WorkerId>,
    /// Whether its consumer has shown life as it promised (L-3).
    pub shows_life: bool,
}

impl ShardSnapshot {
    pub(crate) fn new(report: ShardReport, handle: &LeaseHandle, now: Instant) -> Self {
        let handing_over_to = match handle.standing().phase {
            Phase::HandOver(worker) => Some(worker),
            Phase::Held | Phase::Lost(_) => None,
        };
        Self {
            report,
            valid_for: handle.valid_until().saturating_duration_since(now),
            handing_over_to,
            shows_life: handle.keeps_promise(),
        }
    }
}

/// What a scheduler is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulerPhase {
    /// Not running yet.
    Created,
    /// Prepares the table, lists shards and leases.
    Starting,
    /// Processes shards.
    Running,
    /// Drains shards and releases leases.
    Stopping,
    /// Done.
    Stopped,
}

/// How a shard came out of a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardOutcome {
    /// `shutdown_requested` succeeded and the lease was released.
    Released,
    /// The lease was released or given up, but something failed on the way.
    ReleasedUncleanly,
    /// The shard was processed to its end meanwhile.
    Ended,
    /// The lease was lost before it could be released.
    Lost(LossReason),
    /// The deadline came first; the lease runs out by itself.
    DeadlineExceeded(Stage),
}

/// What a shutdown achieved.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How each shard that was held came out.
    pub shards: BTreeMap<ShardId, ShardOutcome>,
    /// How long it took.
    pub took: Duration,
}

impl ShutdownReport {
    /// Whether every shard ended or was released in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.shards.values().all(|outcome| matches!(outcome, ShardOutcome::Released | ShardOutcome::Ended))
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = self.shards.values().filter(|o| matches!(o, ShardOutcome::Released)).count();
        write!(f, "{clean} of {} shards released in order, in {:?}", self.shards.len(), self.took)
    }
}

/// The consumers that run, shared with handles.
pub(crate) type Running = Arc<BTreeMap<ShardId, RunningShard>>;

/// One consumer that runs.
#[derive(Clone, Debug)]
pub(crate) struct RunningShard {
    pub(crate) handle: LeaseHandle,
    pub(crate) report: tokio::sync::watch::Receiver<ShardReport>,
}
