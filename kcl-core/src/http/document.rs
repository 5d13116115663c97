//! The status as JSON. Its shape is stable: fields are added, none is renamed, removed or given another meaning under the
//! same `version`. Lengths of time are in milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::answer::Look;
use crate::model::{Checkpoint, ShardId};
use crate::scheduler::{
    Explanation, Health, MemberSnapshot, PerMinute, Problem, SchedulerPhase, ShardSnapshot, Snapshot,
};

const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Document {
    version: u32,
    pub(super) application: String,
    pub(super) stream: String,
    pub(super) worker: String,
    pub(super) phase: &'static str,
    pub(super) health: &'static str,
    pub(super) problems: Vec<ProblemDocument>,
    pub(super) notes: Vec<String>,
    pub(super) housekeeper: bool,
    /// The shards this worker holds.
    pub(super) shards: Vec<ShardDocument>,
    pub(super) leases: LeaseCounts,
    /// The leases of shards that this worker does not hold; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_leases: Option<Vec<LeaseDocument>>,
    pub(super) fleet: Option<Vec<MemberDocument>>,
    pub(super) bill: Option<BillDocument>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProblemDocument {
    pub(super) kind: &'static str,
    pub(super) shard: Option<String>,
    pub(super) text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ShardDocument {
    pub(super) shard: String,
    pub(super) activity: &'static str,
    pub(super) stage: String,
    pub(super) reason: String,
    pub(super) problem: Option<&'static str>,
    pub(super) lag_millis: Option<u64>,
    pub(super) checkpoint: String,
    pub(super) checkpoint_age_millis: u64,
    pub(super) uncheckpointed: bool,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) buffered_bytes: usize,
    pub(super) failures: u32,
    pub(super) last_error: Option<String>,
    pub(super) last_fetch_millis_ago: Option<u64>,
    pub(super) last_delivery_millis_ago: Option<u64>,
    pub(super) lease_valid_millis: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseCounts {
    pub(super) total: usize,
    pub(super) held_here: usize,
    pub(super) held_by_others: usize,
    pub(super) free: usize,
    pub(super) ended: usize,
    pub(super) unreadable: usize,
    pub(super) by_owner: BTreeMap<String, usize>,
    pub(super) listed_millis_ago: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseDocument {
    pub(super) shard: String,
    pub(super) owner: Option<String>,
    pub(super) checkpoint: String,
    pub(super) reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct MemberDocument {
    pub(super) member: String,
    pub(super) is_this: bool,
    pub(super) state: &'static str,
    pub(super) leases: u64,
    pub(super) target: Option<u64>,
    pub(super) bytes_per_second: u64,
    pub(super) cpu_thousandths: Option<u16>,
    pub(super) heartbeat_millis_ago: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct BillDocument {
    pub(super) running_millis: u64,
    /// Per minute, by operation of the lease store.
    pub(super) per_minute: BTreeMap<&'static str, RateDocument>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct RateDocument {
    pub(super) requests: f64,
    pub(super) read_units: f64,
    pub(super) write_units: f64,
}

impl From<PerMinute> for RateDocument {
    fn from(rate: PerMinute) -> Self {
        Self { requests: rate.requests, read_units: rate.read_units, write_units: rate.write_units }
    }
}

/// The answer of `/health/ready`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    status: &'static str,
    shards: usize,
    problems: Vec<ProblemDocument>,
    notes: Vec<String>,
}

impl Readiness {
    pub(super) fn of(health: &Health, snapshot: &Snapshot) -> Self {
        Self {
            status: health.name(),
            shards: snapshot.shards.len(),
            problems: problems(health),
            notes: notes(snapshot),
        }
    }
}

pub(super) const fn phase(phase: SchedulerPhase) -> &'static str {
    match phase {
        SchedulerPhase::Created => "created",
        SchedulerPhase::Starting => "starting",
        SchedulerPhase::Running => "running",
        SchedulerPhase::Stopping => "stopping",
        SchedulerPhase::Stopped => "stopped",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn problems(health: &Health) -> Vec<ProblemDocument> {
    let document = |Problem { kind, shard, text }: &Problem| ProblemDocument {
        kind: kind.name(),
        shard: shard.as_ref().map(ToString::to_string),
        text: text.clone(),
    };
    health.problems().iter().map(document).collect()
}

fn notes(snapshot: &Snapshot) -> Vec<String> {
    Health::notes(snapshot).iter().map(ToString::to_string).collect()
}

impl Document {
    pub(super) fn of(look: &Look<'_>, all: bool) -> Self {
        let snapshot = &look.snapshot;
        let health = look.health();
        let explain = |shard: &ShardId| Explanation::of(snapshot, shard, look.settings);
        let shards =
            snapshot.shards.iter().map(|(shard, held)| ShardDocument::of(&explain(shard), held, snapshot));
        let other_leases = all.then(|| {
            let others = snapshot.leases.values().filter(|lease| !snapshot.shards.contains_key(&lease.shard));
            let document = |lease: &std::sync::Arc<crate::lease::Lease>| LeaseDocument {
                shard: lease.shard.to_string(),
                owner: lease.owner.as_ref().map(ToString::to_string),
                checkpoint: checkpoint(lease.checkpoint),
                reason: explain(&lease.shard).reason().to_string(),
            };
            others.map(document).collect()
        });
        let fleet = snapshot.fleet.as_ref().map(|fleet| {
            let me = snapshot.owner_id();
            let member = |(id, member): (&crate::model::WorkerId, &MemberSnapshot)| MemberDocument {
                member: id.to_string(),
                is_this: id == me,
                state: member.state.as_str(),
                leases: member.leases,
                target: fleet.shares.get(id).map(|share| share.target),
                bytes_per_second: member.load,
                cpu_thousandths: member.cpu,
                heartbeat_millis_ago: millis(member.moved_ago),
            };
            fleet.members.iter().map(member).collect()
        });
        let bill = snapshot.bill.as_ref().map(|bill| BillDocument {
            running_millis: millis(bill.running_for),
            per_minute: bill
                .per_minute()
                .into_iter()
                .map(|(operation, rate)| (operation.name(), rate.into()))
                .collect(),
        });
        Self {
            version: VERSION,
            application: look.application.to_owned(),
            stream: look.stream.to_owned(),
            worker: snapshot.owner_id().to_string(),
            phase: phase(snapshot.phase),
            health: health.name(),
            problems: problems(&health),
            notes: notes(snapshot),
            housekeeper: snapshot.housekeeper,
            shards: shards.collect(),
            leases: LeaseCounts::of(snapshot),
            other_leases,
            fleet,
            bill,
        }
    }
}

impl ShardDocument {
    fn of(explanation: &Explanation, held: &ShardSnapshot, snapshot: &Snapshot) -> Self {
        let report = &held.report;
        let ago = |at| millis(snapshot.at.saturating_duration_since(at));
        Self {
            shard: explanation.shard.to_string(),
            activity: explanation.activity.name(),
            stage: format!("{:?}", report.stage),
            reason: explanation.reason().to_string(),
            problem: explanation.problem.map(crate::scheduler::ProblemKind::name),
            lag_millis: report.millis_behind,
            checkpoint: checkpoint(report.checkpoint),
            checkpoint_age_millis: ago(report.checkpointed_at),
            uncheckpointed: report.uncheckpointed,
            records: report.records,
            bytes: report.bytes,
            buffered_bytes: report.buffered_bytes,
            failures: report.failures,
            last_error: report.last_error.clone(),
            last_fetch_millis_ago: report.last_fetch.map(ago),
            last_delivery_millis_ago: report.last_delivery.map(ago),
            lease_valid_millis: millis(held.valid_for),
        }
    }
}

impl LeaseCounts {
    fn of(snapshot: &Snapshot) -> Self {
        let me = snapshot.owner_id();
        let unfinished = || snapshot.leases.values().filter(|lease| !lease.is_ended());
        Self {
            total: snapshot.leases.len(),
            held_here: unfinished().filter(|lease| lease.owner.as_ref() == Some(me)).count(),
            held_by_others: unfinished()
                .filter(|lease| lease.owner.as_ref().is_some_and(|o| o != me))
                .count(),
            free: unfinished().filter(|lease| lease.owner.is_none()).count(),
            ended: snapshot.leases.len() - unfinished().count(),
            unreadable: snapshot.unreadable.len(),
            by_owner: snapshot
                .leases_by_owner()
                .into_iter()
                .map(|(owner, leases)| (owner.to_string(), leases))
                .collect(),
            listed_millis_ago: snapshot.listed_ago.map(millis),
        }
    }
}

/// A checkpoint as the lease table has it; the place inside an aggregate behind a slash.
fn checkpoint(checkpoint: Checkpoint) -> String {
    match checkpoint.sub_sequence() {
        0 => checkpoint.sequence_text(),
        sub_sequence => format!("{}/{sub_sequence}", checkpoint.sequence_text()),
    }
}
