use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bill::Bill;
use super::coordination::{FleetSnapshot, TableView, audit_interval};
use crate::consumer::{ShardReport, Stage};
use crate::lease::{LeaseHandle, LeaseTable, LossReason, Phase};
use crate::model::{ShardId, WorkerId};

/// How many failed reads in a row are no passing trouble. Throttles come alone or in pairs where others read too.
const READ_FAILURES: u32 = 3;

/// What a scheduler shows of itself and of the fleet, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
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

    pub(crate) fn of_table(worker: WorkerId, phase: SchedulerPhase, table: &TableView) -> Self {
        Self {
            worker,
            phase,
            shards: BTreeMap::new(),
            leases: Arc::clone(&table.leases),
            fleet: table.fleet.clone(),
            bill: None,
            listed_ago: table.listed_at.map(|at| at.elapsed()),
            unreadable: table.unreadable.clone(),
            housekeeper: table.leader,
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
}

impl ShardSnapshot {
    pub(crate) fn new(report: ShardReport, handle: &LeaseHandle, now: Instant) -> Self {
        let handing_over_to = match handle.standing().phase {
            Phase::HandOver(worker) => Some(worker),
            Phase::Held | Phase::Lost(_) => None,
        };
        Self { report, valid_for: handle.valid_until().saturating_duration_since(now), handing_over_to }
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

/// How well a scheduler is doing, fit for a readiness or liveness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Not running yet, or still starting.
    Starting,
    /// Every held shard is processed or waits for good reason.
    Ready,
    /// Running, but these shards fail or are fenced, or the lease table or a row of it cannot be read, or it serves
    /// less than its workers need. A failed
    /// read of the stream counts from the third in a row.
    Degraded(Vec<String>),
    /// Stopping or stopped.
    Dead,
}

impl Health {
    pub(crate) fn of(snapshot: &Snapshot, scan_interval: Duration, lease_duration: Duration) -> Self {
        match snapshot.phase {
            SchedulerPhase::Created | SchedulerPhase::Starting => return Self::Starting,
            SchedulerPhase::Stopping | SchedulerPhase::Stopped => return Self::Dead,
            SchedulerPhase::Running => {}
        }
        let mut problems = Vec::new();
        let listing_interval =
            if snapshot.fleet.is_some() { audit_interval(snapshot.leases.len()) } else { scan_interval };
        if let Some(fleet) = &snapshot.fleet {
            if fleet.member.is_none() {
                problems.push("not a member of the fleet: the lease table cannot be written".to_owned());
            }
            if let Some((has, needs)) = &fleet.too_small {
                problems.push(format!(
                    "the lease table is provisioned with {} read and {} write units a second, its workers need {} and {}: \
                     heartbeats may be throttled; provision more, or make it on demand",
                    has.read, has.write, needs.read, needs.write
                ));
            }
            if let Some(owner) = &fleet.foreign_owner {
                problems.push(format!("{owner} works on the lease table and is not a member of the fleet"));
            }
        }
        if snapshot.listed_ago.is_none_or(|ago| ago > lease_duration.max(listing_interval) * 3) {
            problems.push("the lease table cannot be listed".to_owned());
        }
        for (key, reason) in &snapshot.unreadable {
            problems.push(format!("the row {key} of the lease table cannot be read: {reason}"));
        }
        for (shard, state) in &snapshot.shards {
            match state.report.stage {
                Stage::Fenced => problems.push(format!("{shard}: the lease cannot be renewed")),
                Stage::Fetching if state.report.failures < READ_FAILURES => {}
                _ if state.report.failures > 0 => {
                    let error = state.report.last_error.as_deref().unwrap_or("unknown error");
                    problems.push(format!("{shard}: failed {} times: {error}", state.report.failures));
                }
                _ => {}
            }
        }
        if problems.is_empty() { Self::Ready } else { Self::Degraded(problems) }
    }
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
