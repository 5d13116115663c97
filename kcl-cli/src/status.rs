//! What an operator wants to know of an application, from what was seen. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use kcl_core::lease::{Lease, LeaseTable};
use kcl_core::model::{Checkpoint, HashKeyRange, InitialPosition, Shard, ShardId};
use kcl_core::plan::{
    CreateReason, Lineage, RefusalReason, ShardGraph, SyncInput, SyncPlan, check_table, plan_sync,
};
use serde::Serialize;

use crate::console::Columns;
use crate::coverage::{Gap, gaps};
use crate::liveness::{Member, Standing, Watcher};
use crate::signs::{FleetKind, Signs};
use crate::stream::{Position, StreamView};
use crate::table::TableView;
use crate::text::duration_text;

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The application's name, if it was given.
    pub application: Option<&'a str>,
    /// The table.
    pub view: &'a TableView,
    /// The stream, if it is known which one it is.
    pub stream: Option<&'a StreamView>,
    /// What watching showed.
    pub watcher: &'a Watcher,
    /// Where the leases are, as far as it was looked at.
    pub positions: &'a BTreeMap<ShardId, Position>,
    /// What the look for a Java leader found.
    pub leadership: Option<&'a str>,
    /// Where the application starts on shards without history; guessed from the rows if it is not told.
    pub initial: Option<InitialPosition>,
    /// What else was noticed on the way.
    pub notes: &'a [String],
    /// The time.
    pub now: SystemTime,
}

/// What is being done about a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// It has an owner and its parents are done.
    Processing,
    /// It has a lease, and waits until its parents are processed to their ends.
    WaitingForParents,
    /// Its owner was asked for it, or a hand-off of the Java KCL 3.x is on its way.
    HandingOver,
    /// Nobody owns it.
    Free,
    /// Its owner is gone.
    OwnerGone,
    /// It is processed to its end.
    Ended,
    /// It has no lease yet and gets one when an ancestor ends.
    Pending,
    /// It has no lease and should have one.
    MissingLease,
    /// It has no lease; whether it should have one depends on where the application started.
    NoLease,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processing => "processing",
            Self::WaitingForParents => "waiting for parents",
            Self::HandingOver => "handing over",
            Self::Free => "free",
            Self::OwnerGone => "owner gone",
            Self::Ended => "ended",
            Self::Pending => "pending",
            Self::MissingLease => "missing lease",
            Self::NoLease => "no lease",
        })
    }
}

/// A shard, its lease, and what is being done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShardStatus {
    /// The shard, or the key of its lease.
    pub shard: String,
    /// Whether the stream still lists it; none if the stream is not known.
    pub listed: Option<bool>,
    /// Whether it still takes records; none if that is not known.
    pub open: Option<bool>,
    /// What is being done about it.
    pub stage: Stage,
    /// The owner of its lease.
    pub owner: Option<String>,
    /// What is known of the owner.
    pub standing: Option<Standing>,
    /// Who is to get the lease next.
    pub next_owner: Option<String>,
    /// `leaseCounter`.
    pub counter: Option<u64>,
    /// The checkpoint: a sequence number or a sentinel.
    pub checkpoint: Option<String>,
    /// The place inside an aggregate.
    pub sub_sequence_number: Option<u64>,
    /// How far behind the tip, in milliseconds; only if it was looked at.
    pub lag_millis: Option<u64>,
    /// How old the record at the checkpoint is, in milliseconds; only if it was looked at.
    pub checkpoint_age_millis: Option<u64>,
    /// The parents it waits for.
    pub waiting_for: Vec<String>,
    /// What else there is to say.
    pub note: Option<String>,
}

/// Something that needs a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The kind, a fixed word.
    pub kind: &'static str,
    /// The row, shard or worker it is about.
    pub subject: String,
    /// What it is, and what to do about it.
    pub message: String,
}

/// The state of an application.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The application.
    pub application: Option<String>,
    /// The lease table.
    pub table: String,
    /// The stream's ARN, if it is known.
    pub stream: Option<String>,
    /// Whose table it is.
    pub fleet: Signs,
    /// The shards, and leases of shards that are not listed.
    pub shards: Vec<ShardStatus>,
    /// The members of the fleet, and for other fleets the owners of leases.
    pub members: Vec<Member>,
    /// How many unfinished leases each owner has.
    pub owners: BTreeMap<String, usize>,
    /// Hash keys that no unfinished lease and no pending shard has.
    pub holes: Vec<Gap>,
    /// Leases of shards that the stream does not list.
    pub orphans: Vec<String>,
    /// What needs a look.
    pub problems: Vec<Problem>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// Where the application starts, as far as rows tell.
fn initial_position(leases: &LeaseTable) -> InitialPosition {
    let of = |sentinel| leases.values().find(|lease| lease.checkpoint == sentinel);
    if of(Checkpoint::Latest).is_some() {
        InitialPosition::Latest
    } else if let Some(time) = of(Checkpoint::AtTimestamp).and_then(|lease| lease.start_timestamp) {
        InitialPosition::AtTimestamp(time)
    } else if of(Checkpoint::TrimHorizon).is_none()
        && leases.values().any(|lease| lease.start_timestamp.is_some())
    {
        // Rows that started at LATEST keep its time when they go on; those of other starts have none.
        InitialPosition::Latest
    } else {
        InitialPosition::TrimHorizon
    }
}

/// The comparison of the stream's shards with the leases, as workers make it.
fn comparison(seen: &Seen<'_>, leases: &LeaseTable, stream: &StreamView) -> SyncPlan {
    plan_sync(&SyncInput {
        shards: &stream.shards,
        leases,
        initial: seen.initial.unwrap_or_else(|| initial_position(leases)),
        stream: &stream.identity,
        start_timestamp: Some(seen.now),
        first_start: leases.is_empty() && seen.view.unreadable().next().is_none(),
    })
}

impl Status {
    /// Makes the report.
    #[must_use]
    pub fn of(seen: &Seen<'_>) -> Self {
        let leases = seen.view.leases();
        let plan = seen.stream.map(|stream| comparison(seen, &leases, stream));
        let fleet = Signs::read(seen.view, Some(seen.watcher), seen.leadership);
        let shards = shards(seen, &leases, plan.as_ref());
        let mut owners: BTreeMap<String, usize> = BTreeMap::new();
        for owner in
            leases.values().filter(|lease| !lease.is_ended()).filter_map(|lease| lease.owner.as_ref())
        {
            *owners.entry(owner.to_string()).or_default() += 1;
        }
        let holes = holes(seen, &leases, plan.as_ref());
        let orphans = orphans(seen, &leases);
        let mut status = Self {
            application: seen.application.map(str::to_owned),
            table: seen.view.table.clone(),
            stream: seen.stream.map(|stream| stream.identity.arn.clone()),
            fleet,
            shards,
            members: seen.watcher.members(),
            owners,
            holes,
            orphans,
            problems: Vec::new(),
            notes: Vec::new(),
        };
        status.problems = status.find_problems(seen, &leases, plan.as_ref());
        status.notes = status.find_notes(seen);
        status
    }

    fn find_problems(&self, seen: &Seen<'_>, leases: &LeaseTable, plan: Option<&SyncPlan>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem =
            |kind, subject: String, message: String| problems.push(Problem { kind, subject, message });
        for row in seen.view.unreadable() {
            problem(
                "unreadable-row",
                row.key.clone(),
                format!(
                    "{}; workers leave it alone, Java KCL up to 3.4 stops at it: correct or delete it",
                    row.reason
                ),
            );
        }
        if self.fleet.kind == FleetKind::Mixed {
            problem(
                "mixed-fleet",
                self.table.clone(),
                "a fleet of kcl-core and Java workers show in one table; stop one of them (docs/migrating.md)".into(),
            );
        }
        for row in seen.view.foreign().filter(|row| !crate::signs::is_entity_of_java(&row.entity_type)) {
            problem(
                "foreign-row",
                row.key.clone(),
                format!(
                    "a row of an unknown kind, entityType {:?}; Java KCL up to 3.4 fails on it",
                    row.entity_type
                ),
            );
        }
        if let (Some(plan), Some(stream)) = (plan, seen.stream) {
            for planned in &plan.create {
                if planned.reason != CreateReason::NoHistory {
                    let message = format!(
                        "has no lease and should have one ({}); a worker that keeps house creates it within a minute, \
                         else none does",
                        planned.reason
                    );
                    problem("missing-lease", planned.lease.shard.to_string(), message);
                }
            }
            for odd in &plan.problems {
                problem("odd-listing", stream.identity.arn.clone(), odd.to_string());
            }
            for refusal in check_table(&stream.shards, leases, &stream.identity) {
                let kind = match refusal.reason {
                    RefusalReason::CheckpointOutside { .. } | RefusalReason::EndedWhileOpen => {
                        "impossible-checkpoint"
                    }
                    _ => "wrong-stream",
                };
                problem(kind, refusal.shard.to_string(), refusal.to_string());
            }
        }
        // Shards without any history are no hole when the application started after them.
        let undecided = self.shards.iter().any(|shard| shard.stage == Stage::NoLease);
        for gap in self.holes.iter().filter(|_| !leases.is_empty() && !undecided) {
            problem(
                "hole",
                format!("{}-{}", gap.first, gap.last),
                format!(
                    "{:.2} % of the hash keys have no unfinished lease: nobody reads them",
                    gap.share * 100.0
                ),
            );
        }
        for shard in &self.shards {
            match (shard.stage, &shard.standing) {
                (Stage::OwnerGone, Some(standing)) => problem(
                    "owner-gone",
                    shard.shard.clone(),
                    format!(
                        "{}; a live worker takes it, and if there is none: kcl leases release {}",
                        standing.evidence(),
                        shard.shard
                    ),
                ),
                _ if shard.note.as_deref() == Some(TRIMMED) => problem(
                    "trimmed-checkpoint",
                    shard.shard.clone(),
                    "the record at the checkpoint is beyond the stream's retention: records may be lost"
                        .into(),
                ),
                _ => {}
            }
        }
        for orphan in &self.orphans {
            problem(
                "orphan",
                orphan.clone(),
                "the lease of a shard that the stream does not list and that did not end: its remaining records are \
                 beyond the retention, or the stream is another one"
                    .into(),
            );
        }
        for member in self.members.iter().filter(|member| member.dead) {
            problem(
                "dead-member",
                member.worker.clone(),
                "its heartbeat stood still for its lease duration; another member removes it, if there is one".into(),
            );
        }
        problems
    }

    fn find_notes(&self, seen: &Seen<'_>) -> Vec<String> {
        let mut notes = seen.notes.to_vec();
        match seen.stream {
            None if seen.view.has_several_streams() => {}
            None => notes.push(
                "the stream is not known: holes, orphans and lag cannot be told; give --stream NAME_OR_ARN"
                    .to_owned(),
            ),
            Some(stream) => notes.extend(stream.note.clone()),
        }
        if self.shards.iter().any(|shard| shard.stage == Stage::NoLease) {
            notes.push(
                "shards without a lease and without history: read if the application starts at TRIM_HORIZON, passed \
                 over if it started at LATEST after they were closed (--initial-position says which)"
                    .to_owned(),
            );
        }
        if seen.watcher.views() < 2 && self.shards.iter().any(|shard| shard.owner.is_some()) {
            notes.push("one look does not tell whether owners live: --watch does".to_owned());
        }
        if seen.positions.is_empty() {
            notes.push("rows hold no times: --lag looks at the stream for lag and checkpoint age".to_owned());
        }
        notes
    }

    /// Whether something needs a look.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }
}

const TRIMMED: &str = "the checkpoint is beyond the retention of the stream";

fn shards(seen: &Seen<'_>, leases: &LeaseTable, plan: Option<&SyncPlan>) -> Vec<ShardStatus> {
    let listed: BTreeMap<&ShardId, &Shard> =
        seen.stream.iter().flat_map(|stream| &stream.shards).map(|shard| (&shard.id, shard)).collect();
    let lineage = Lineage::new(leases);
    let ids: BTreeSet<&ShardId> = listed.keys().copied().chain(leases.keys()).collect();
    let graph = seen.stream.map(|stream| ShardGraph::new(&stream.shards));
    ids.into_iter()
        .filter_map(|id| {
            let shard = listed.get(id).copied();
            match leases.get(id) {
                Some(lease) => Some(with_lease(seen, lease, shard, &lineage, plan)),
                None => without_lease(id, shard?, plan, graph.as_ref(), leases),
            }
        })
        .collect()
}

fn with_lease(
    seen: &Seen<'_>,
    lease: &Lease,
    shard: Option<&Shard>,
    lineage: &Lineage<'_>,
    plan: Option<&SyncPlan>,
) -> ShardStatus {
    let awaited = |parent: &ShardId| plan.is_some_and(|plan| plan.awaits(parent));
    let waiting = lineage.parents_done(lease, &awaited).waiting;
    let standing = seen.watcher.standing(lease);
    let next_owner = match (&lease.checkpoint_owner, &lease.requested_by) {
        (Some(_), _) => lease.owner.as_ref(),
        (None, requested) => requested.as_ref(),
    };
    let stage = match &standing {
        _ if lease.is_ended() => Stage::Ended,
        Standing::Free => Stage::Free,
        Standing::Gone { .. } | Standing::Dead { .. } => Stage::OwnerGone,
        _ if next_owner.is_some() => Stage::HandingOver,
        _ if !waiting.is_empty() => Stage::WaitingForParents,
        _ => Stage::Processing,
    };
    let position = seen.positions.get(&lease.shard);
    ShardStatus {
        shard: lease.shard.to_string(),
        listed: seen.stream.map(|_| shard.is_some()),
        open: shard.map(Shard::is_open),
        stage,
        // While a Java KCL 3.x hands off, `leaseOwner` is already the next one.
        owner: lease.checkpoint_owner.as_ref().or(lease.owner.as_ref()).map(ToString::to_string),
        standing: (!lease.is_ended() || lease.owner.is_some()).then_some(standing),
        next_owner: next_owner.map(ToString::to_string),
        counter: Some(lease.counter),
        checkpoint: Some(lease.checkpoint.sequence_text()),
        sub_sequence_number: Some(lease.checkpoint.sub_sequence()),
        lag_millis: position.and_then(|position| position.lag_millis),
        checkpoint_age_millis: position.and_then(|position| position.checkpoint_age_millis),
        waiting_for: waiting.iter().map(|parent| parent.parent.to_string()).collect(),
        note: position.and_then(|position| position.note.clone()),
    }
}

/// A listed shard without a lease; none if it was processed before and its row deleted.
fn without_lease(
    id: &ShardId,
    shard: &Shard,
    plan: Option<&SyncPlan>,
    graph: Option<&ShardGraph<'_>>,
    leases: &LeaseTable,
) -> Option<ShardStatus> {
    let plan = plan?;
    let planned = plan.create.iter().find(|planned| planned.lease.shard == *id);
    let (stage, note) = match planned {
        Some(planned) if planned.reason == CreateReason::NoHistory => {
            (Stage::NoLease, planned.reason.to_string())
        }
        Some(planned) => (Stage::MissingLease, planned.reason.to_string()),
        None if plan.pending.contains(id) => {
            (Stage::Pending, "gets its lease when an ancestor ends".to_owned())
        }
        None => return None,
    };
    let waiting_for = graph
        .into_iter()
        .flat_map(|graph| graph.parents(id))
        .filter(|parent| leases.get(*parent).is_none_or(|lease| !lease.is_ended()))
        .map(ToString::to_string);
    Some(ShardStatus {
        shard: id.to_string(),
        listed: Some(true),
        open: Some(shard.is_open()),
        stage,
        owner: None,
        standing: None,
        next_owner: None,
        counter: None,
        checkpoint: None,
        sub_sequence_number: None,
        lag_millis: None,
        checkpoint_age_millis: None,
        waiting_for: if stage == Stage::Pending { waiting_for.collect() } else { Vec::new() },
        note: Some(note),
    })
}

/// Hash keys without an unfinished lease or a pending shard. Rows of old KCLs hold no hash keys; the listing has them.
fn holes(seen: &Seen<'_>, leases: &LeaseTable, plan: Option<&SyncPlan>) -> Vec<Gap> {
    let listed: BTreeMap<&ShardId, HashKeyRange> = seen
        .stream
        .iter()
        .flat_map(|stream| &stream.shards)
        .map(|shard| (&shard.id, shard.hash_key_range))
        .collect();
    let unfinished: Vec<Option<HashKeyRange>> = leases
        .values()
        .filter(|lease| !lease.is_ended())
        .map(|lease| lease.hash_key_range.or_else(|| listed.get(&lease.shard).copied()))
        .collect();
    if unfinished.iter().any(Option::is_none) {
        return Vec::new();
    }
    let pending = plan.iter().flat_map(|plan| &plan.pending).filter_map(|shard| listed.get(shard).copied());
    gaps(unfinished.into_iter().flatten().chain(pending))
}

/// Unfinished leases of shards that the stream no longer lists. One that is younger than the listing is no orphan.
fn orphans(seen: &Seen<'_>, leases: &LeaseTable) -> Vec<String> {
    let Some(stream) = seen.stream else { return Vec::new() };
    let graph = ShardGraph::new(&stream.shards);
    let youngest = graph.youngest().map(|shard| &shard.id);
    leases
        .values()
        .filter(|lease| !lease.is_ended() && !graph.is_listed(&lease.shard))
        .filter(|lease| {
            let is_newborn = youngest.is_some_and(|youngest| lease.shard > *youngest)
                && lease.parents.iter().any(|parent| graph.is_listed(parent));
            !is_newborn
        })
        .map(|lease| lease.shard.to_string())
        .collect()
}

pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A sequence number has 56 digits; its end tells more than its beginning.
pub(crate) fn shortened(checkpoint: &str) -> String {
    let digits = checkpoint.len();
    if digits > 24 {
        format!("{}…{}", &checkpoint[..6], &checkpoint[digits - 12..])
    } else {
        checkpoint.to_owned()
    }
}

pub(crate) fn millis_text(millis: Option<u64>) -> String {
    or_dash(millis.map(|millis| duration_text(Duration::from_millis(millis))))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {}, {}", self.table, self.fleet.kind)?;
        if let Some(stream) = &self.stream {
            writeln!(f, "stream {stream}")?;
        }
        let mut columns =
            Columns::headed(["SHARD", "STAGE", "OWNER", "OWNER IS", "LAG", "CHECKPOINT AGE", "CHECKPOINT"]);
        for shard in &self.shards {
            let checkpoint = match (&shard.checkpoint, shard.sub_sequence_number) {
                (Some(text), Some(sub)) if sub > 0 => format!("{}/{sub}", shortened(text)),
                (Some(text), _) => shortened(text),
                (None, _) => "-".to_owned(),
            };
            let owner = match (&shard.owner, &shard.next_owner) {
                (Some(owner), Some(next)) => format!("{owner} -> {next}"),
                (owner, _) => or_dash(owner.as_ref()),
            };
            columns.row([
                shard.shard.clone(),
                shard.stage.to_string(),
                owner,
                or_dash(shard.standing.as_ref().filter(|s| **s != Standing::Free).map(Standing::word)),
                millis_text(shard.lag_millis),
                millis_text(shard.checkpoint_age_millis),
                checkpoint,
            ]);
        }
        write!(f, "\n{columns}")?;
        if !self.members.is_empty() {
            let mut columns = Columns::headed(["MEMBER", "STATE", "LEASES", "HEARTBEAT", "STOOD STILL"]);
            for member in &self.members {
                columns.row([
                    member.worker.clone(),
                    if member.dead { "dead".to_owned() } else { member.state.to_owned() },
                    member.leases.to_string(),
                    member.heartbeat.to_string(),
                    millis_text(Some(member.still_millis)),
                ]);
            }
            write!(f, "\n{columns}")?;
        } else if !self.owners.is_empty() {
            let mut columns = Columns::headed(["OWNER", "UNFINISHED LEASES"]);
            for (owner, leases) in &self.owners {
                columns.row([owner.clone(), leases.to_string()]);
            }
            write!(f, "\n{columns}")?;
        }
        problems_text(f, &self.problems)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

pub(crate) fn problems_text(f: &mut fmt::Formatter<'_>, problems: &[Problem]) -> fmt::Result {
    writeln!(f)?;
    if problems.is_empty() {
        writeln!(f, "no problems found")?;
    }
    for problem in problems {
        writeln!(f, "PROBLEM {}: {}: {}", problem.kind, problem.subject, problem.message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
