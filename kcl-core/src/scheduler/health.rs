//! How well a scheduler is doing: a pure function of what it shows.

use std::fmt;
use std::time::Duration;

use super::coordination::audit_interval;
use super::explain::Explanation;
use super::length::Length;
use super::report::{SchedulerPhase, Snapshot};
use crate::consumer::Stage;
use crate::fleet::MemberState;
use crate::model::ShardId;
use crate::settings::Settings;

/// How many failed listings of the stream's shards in a row are no passing trouble.
const LISTING_FAILURES: u32 = 3;
/// How old a checkpoint is told of while records are delivered beyond it.
const OLD_CHECKPOINT: Duration = Duration::from_secs(5 * 60);

/// How well a scheduler is doing, fit for a readiness or liveness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Not running yet, or still starting.
    Starting,
    /// Every held shard is processed, idle for want of traffic, or waits for good reason. So is a worker that holds
    /// nothing: [`Health::notes`] says so.
    Ready,
    /// Running, and something is wrong. A failed read of the stream counts from the third in a row.
    Degraded(Vec<Problem>),
    /// Stopping or stopped.
    Dead,
}

/// Something that is wrong. `Display` says what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// The shard it is about, if it is about one.
    pub shard: Option<ShardId>,
    /// What is wrong, in words; names the shard.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What can be wrong with a scheduler that runs. `docs/operations.md` says what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The worker is no member of its fleet: its heartbeats cannot be written.
    NotAMember,
    /// The lease table is provisioned with less than its workers need.
    TableTooSmall,
    /// A worker of another kind works on the lease table.
    ForeignOwner,
    /// The lease table cannot be listed.
    TableNotListed,
    /// A row of the lease table cannot be read.
    UnreadableRow,
    /// The stream's shards cannot be listed: from the third failure in a row.
    ShardsNotListed,
    /// The HTTP endpoint cannot listen.
    Endpoint,
    /// A shard has records, and its lease cannot be renewed.
    Fenced,
    /// A callback of a shard fails and is retried.
    CallbackFailing,
    /// A callback of a shard has used a quarter of [`Settings::callback_limit`].
    CallbackSlow,
    /// A shard cannot be read: from the third failure in a row.
    ReaderFailing,
    /// Reads of a shard are throttled: from the third in a row.
    Throttled,
    /// The source has not answered for half of [`Settings::stall_timeout`].
    SourceSilent,
    /// A shard's consumer shows no sign of life, or did not start.
    ConsumerSilent,
    /// A shard gets no records for [`Settings::stall_timeout`] while its lag grows.
    LagGrows,
    /// Something between the callbacks fails: looking parents or children up, storing an end.
    StepFailing,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::NotAMember,
        Self::TableTooSmall,
        Self::ForeignOwner,
        Self::TableNotListed,
        Self::UnreadableRow,
        Self::ShardsNotListed,
        Self::Endpoint,
        Self::Fenced,
        Self::CallbackFailing,
        Self::CallbackSlow,
        Self::ReaderFailing,
        Self::Throttled,
        Self::SourceSilent,
        Self::ConsumerSilent,
        Self::LagGrows,
        Self::StepFailing,
    ];

    /// A name for alarms and documents, for example `callback-failing`. Stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAMember => "not-a-member",
            Self::TableTooSmall => "table-too-small",
            Self::ForeignOwner => "foreign-owner",
            Self::TableNotListed => "table-not-listed",
            Self::UnreadableRow => "unreadable-row",
            Self::ShardsNotListed => "shards-not-listed",
            Self::Endpoint => "endpoint",
            Self::Fenced => "fenced",
            Self::CallbackFailing => "callback-failing",
            Self::CallbackSlow => "callback-slow",
            Self::ReaderFailing => "reader-failing",
            Self::Throttled => "throttled",
            Self::SourceSilent => "source-silent",
            Self::ConsumerSilent => "consumer-silent",
            Self::LagGrows => "lag-grows",
            Self::StepFailing => "step-failing",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something to know that is no problem. `Display` says what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The worker holds no shard.
    HoldsNothing {
        /// Whether there are unfinished leases at all.
        leases: usize,
    },
    /// The worker is on standby: it takes nothing until it is activated.
    Standby,
    /// Shards are paused on request.
    Paused {
        /// How many.
        shards: usize,
    },
    /// Records are delivered, and the stored checkpoint has not moved for at least five minutes. They come again if the
    /// worker dies.
    OldCheckpoint {
        /// The shard.
        shard: ShardId,
        /// For how long it has not moved.
        age: Duration,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HoldsNothing { leases: 0 } => {
                f.write_str("this worker holds no shard, and there are no leases")
            }
            Self::HoldsNothing { leases } => {
                write!(f, "this worker holds no shard; there are {leases} unfinished leases")
            }
            Self::Standby => f.write_str("this worker is on standby and takes no leases"),
            Self::Paused { shards: 1 } => f.write_str("1 shard is paused on request"),
            Self::Paused { shards } => write!(f, "{shards} shards are paused on request"),
            Self::OldCheckpoint { shard, age } => write!(
                f,
                "{shard}: records are delivered, and the checkpoint has not moved for {}",
                Length(*age)
            ),
        }
    }
}

impl Health {
    /// Judges what a scheduler shows, by its settings.
    #[must_use]
    pub fn of(snapshot: &Snapshot, settings: &Settings) -> Self {
        match snapshot.phase {
            SchedulerPhase::Created | SchedulerPhase::Starting => return Self::Starting,
            SchedulerPhase::Stopping | SchedulerPhase::Stopped => return Self::Dead,
            SchedulerPhase::Running => {}
        }
        let mut problems = Vec::new();
        of_worker(snapshot, settings, &mut |kind, text| {
            problems.push(Problem { kind, shard: None, text });
        });
        for shard in snapshot.shards.keys() {
            let explanation = Explanation::of(snapshot, shard, settings);
            if let Some(kind) = explanation.problem {
                problems.push(Problem { kind, shard: Some(shard.clone()), text: explanation.to_string() });
            }
        }
        if problems.is_empty() { Self::Ready } else { Self::Degraded(problems) }
    }

    /// One word: `starting`, `ready`, `degraded` or `dead`. Stable.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::Dead => "dead",
        }
    }

    /// What is wrong; nothing unless degraded.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Degraded(problems) => problems,
            Self::Starting | Self::Ready | Self::Dead => &[],
        }
    }

    /// What there is to know beside problems, of a scheduler that runs.
    #[must_use]
    pub fn notes(snapshot: &Snapshot) -> Vec<Note> {
        let mut notes = Vec::new();
        if snapshot.phase != SchedulerPhase::Running {
            return notes;
        }
        if snapshot.shards.is_empty() {
            let leases = snapshot.leases.values().filter(|lease| !lease.is_ended()).count();
            notes.push(Note::HoldsNothing { leases });
        }
        if is_standby(snapshot) {
            notes.push(Note::Standby);
        }
        let paused = snapshot.shards.values().filter(|held| held.report.stage == Stage::Paused).count();
        if paused > 0 {
            notes.push(Note::Paused { shards: paused });
        }
        for (shard, held) in &snapshot.shards {
            let report = &held.report;
            let age = snapshot.at.saturating_duration_since(report.checkpointed_at);
            let delivers = report.last_delivery.is_some_and(|at| at > report.checkpointed_at);
            if report.uncheckpointed && delivers && age >= OLD_CHECKPOINT {
                notes.push(Note::OldCheckpoint { shard: shard.clone(), age });
            }
        }
        notes
    }
}

/// Whether the worker takes nothing because it was not told to, rather than because it cannot.
fn is_standby(snapshot: &Snapshot) -> bool {
    match &snapshot.fleet {
        Some(fleet) => {
            let me = fleet.member.as_ref().and_then(|me| fleet.members.get(me));
            !snapshot.taking && me.is_none_or(|me| me.state == MemberState::Observer)
        }
        None => !snapshot.taking,
    }
}

fn of_worker(snapshot: &Snapshot, settings: &Settings, problem: &mut dyn FnMut(ProblemKind, String)) {
    let listing_interval = match &snapshot.fleet {
        Some(_) => audit_interval(snapshot.leases.len()),
        None => settings.lease_scan_interval,
    };
    if let Some(fleet) = &snapshot.fleet {
        if fleet.member.is_none() {
            let text = "not a member of the fleet: the lease table cannot be written".to_owned();
            problem(ProblemKind::NotAMember, text);
        }
        if let Some((has, needs)) = &fleet.too_small {
            let text = format!(
                "the lease table is provisioned with {} read and {} write units a second, its workers need {} and {}: \
                 heartbeats may be throttled; provision more, or make it on demand",
                has.read, has.write, needs.read, needs.write
            );
            problem(ProblemKind::TableTooSmall, text);
        }
        if let Some(owner) = &fleet.foreign_owner {
            let text = format!("{owner} works on the lease table and is not a member of the fleet");
            problem(ProblemKind::ForeignOwner, text);
        }
    }
    if snapshot.listed_ago.is_none_or(|ago| ago > settings.lease_duration.max(listing_interval) * 3) {
        let text = match snapshot.listed_ago {
            Some(ago) => format!("the lease table cannot be listed, for {} now", Length(ago)),
            None => "the lease table cannot be listed".to_owned(),
        };
        problem(ProblemKind::TableNotListed, text);
    }
    for (key, reason) in &snapshot.unreadable {
        let text = format!("the row {key} of the lease table cannot be read: {reason}");
        problem(ProblemKind::UnreadableRow, text);
    }
    if let Some(failure) = &snapshot.listing_failure
        && failure.failures >= LISTING_FAILURES
    {
        let text = format!(
            "the stream's shards could not be listed {} times in {}: {}",
            failure.failures,
            Length(snapshot.at.saturating_duration_since(failure.since)),
            failure.error
        );
        problem(ProblemKind::ShardsNotListed, text);
    }
    if let Some(endpoint) = &snapshot.endpoint
        && let Some(error) = &endpoint.error
    {
        let text = format!("the HTTP endpoint cannot listen on {}: {error}", endpoint.address);
        problem(ProblemKind::Endpoint, text);
    }
}

#[cfg(test)]
mod tests;
