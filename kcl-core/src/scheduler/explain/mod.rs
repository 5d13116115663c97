//! Why a shard is moving or not: a pure function of what a scheduler shows.

mod held;
mod sentence;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::health::ProblemKind;
use super::report::{SchedulerPhase, Snapshot};
use crate::consumer::{Budget, RetryReport};
use crate::model::{Checkpoint, Position, ShardId, WorkerId};
use crate::settings::Settings;

/// How many failed reads in a row are no passing trouble. Throttles come alone or in pairs where others read too.
const READ_FAILURES: u32 = 3;

/// Why a shard is moving or not, at the moment of a [`Snapshot`]. `Display` says it in one sentence.
///
/// Of a shard this worker holds it knows the details. Of others it knows what the lease table shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The shard.
    pub shard: ShardId,
    /// What is the case.
    pub cause: Cause,
    /// What that comes to.
    pub activity: Activity,
    /// What is wrong, if something is: [`SchedulerHandle::health`](crate::SchedulerHandle::health) names it then.
    pub problem: Option<ProblemKind>,
    /// The budget that keeps the reader from reading on, where that is a consequence and not the cause.
    pub held_up_by: Option<Budget>,
    /// Why the shard is polled although it was to be subscribed to, if it is.
    pub fallback: Option<String>,
}

/// What a shard is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Activity {
    /// Records are with the processor, or on their way to it.
    Delivering,
    /// Everything is delivered; there is no traffic.
    Idle,
    /// Nothing is delivered, for a good reason: parents, a pause, a hand-over, an end.
    Waiting,
    /// Something is wrong: see [`Explanation::problem`].
    NotProcessing,
    /// This worker does not hold the lease.
    NotHeld,
}

impl Activity {
    /// The name, for example `not processing`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivering => "delivering",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::NotProcessing => "not processing",
            Self::NotHeld => "not held",
        }
    }
}

/// What is the case with a shard. Lengths of time count up to the moment of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The scheduler does not run.
    NotRunning(SchedulerPhase),

    /// Held: its processor is about to be initialised.
    Starting,
    /// Held, without a consumer: it is about to start, or an earlier one has not ended yet.
    NoConsumer {
        /// For how long the lease has been seen as this worker's.
        held_for: Duration,
    },
    /// Held: the parents have not ended, as far as the table shows (S-1).
    WaitingForParents {
        /// The parents that have not; none if the table shows all ends and the next look at it starts the shard.
        parents: Vec<ParentWait>,
        /// The failure to look them up, if there is one.
        failing: Option<Failing>,
    },
    /// Held: a callback runs.
    InCallback {
        /// The method, for example `process_records`.
        name: &'static str,
        /// The first and the last record of the batch, if it has one.
        batch: Option<(Position, Position)>,
        /// For how long it has run.
        running_for: Duration,
        /// [`Settings::callback_limit`].
        limit: Duration,
    },
    /// Held: a callback or another step failed, and is tried again.
    Retrying {
        /// The first and the last record of the batch that comes again; none if it is another step.
        batch: Option<(Position, Position)>,
        /// How it fails.
        failing: Failing,
    },
    /// Held: everything is delivered, and answers from the tip bring nothing new.
    Idle {
        /// For how long.
        quiet_for: Duration,
    },
    /// Held: records are read and delivered as they come.
    Reading {
        /// How far the latest answer was behind the tip, if the source said so.
        behind: Option<Duration>,
    },
    /// Held: answers come without records, and are further and further behind the tip.
    LagGrows {
        /// How far the latest was behind.
        behind: Duration,
        /// How far it was when it was least.
        least: Duration,
        /// For how long it has not been less.
        growing_for: Duration,
    },
    /// Held: there is nothing to deliver because the reader may not read on.
    BackPressured {
        /// The budget that is used up.
        budget: Budget,
        /// For how long.
        held_up_for: Duration,
        /// What the shard has read ahead, in payload bytes.
        buffered_bytes: usize,
    },
    /// Held: the source asks to slow down.
    Throttled(Failing),
    /// Held: reading fails.
    ReaderFailing(Failing),
    /// Held: the source does not answer.
    SourceSilent {
        /// For how long.
        silent_for: Duration,
        /// After how long a silence the lease is given up.
        limit: Duration,
    },
    /// Held: the consumer does not show life, and its lease is not renewed any more (L-3).
    ConsumerSilent,
    /// Held: paused on request.
    Paused {
        /// For how long.
        paused_for: Duration,
    },
    /// Held: there are records, but the lease cannot be proven valid (L-1).
    Fenced {
        /// For how long.
        fenced_for: Duration,
    },
    /// Held: it is being given to another worker.
    HandingOver {
        /// That worker.
        to: WorkerId,
        /// The callback that is waited for, and for how long it has run.
        waits_for: Option<(&'static str, Duration)>,
    },
    /// Held: it is drained and its lease released.
    Draining {
        /// The callback that is waited for, and for how long it has run.
        waits_for: Option<(&'static str, Duration)>,
    },
    /// Held: its end was read, and is being stored.
    Ending {
        /// The failure to, if there is one.
        failing: Option<Failing>,
    },
    /// No longer held: the lease was lost.
    Losing,

    /// Another worker owns the lease.
    LeasedBy {
        /// The owner.
        worker: WorkerId,
        /// For how long this worker has seen that.
        seen_for: Option<Duration>,
        /// Whether the owner is a member of this worker's fleet; none without a fleet.
        member: Option<bool>,
        /// The worker that asked for the lease.
        asked_for_by: Option<WorkerId>,
        /// The parents that have not ended, if nothing of the shard is processed yet.
        parents: Vec<ParentWait>,
    },
    /// The owner lets the lease stand still: it is taken for dead.
    Expired {
        /// The owner.
        worker: WorkerId,
        /// For how long this is known.
        expired_for: Duration,
        /// What becomes of it.
        outlook: TakeOutlook,
    },
    /// Nobody owns the lease.
    Free {
        /// For how long this worker has seen that.
        seen_for: Option<Duration>,
        /// What becomes of it.
        outlook: TakeOutlook,
    },
    /// The shard is processed to its end.
    Ended {
        /// Its children.
        children: Vec<ShardId>,
    },
    /// The stream lists the shard, and it has no lease.
    NoLease {
        /// Its parents that have not ended.
        parents: Vec<ParentWait>,
    },
    /// The shard's row in the lease table cannot be read; it is left alone.
    Unreadable(String),
    /// Neither the lease table nor the stream's listing has it.
    Unknown {
        /// How long ago this worker listed the stream's shards.
        listed_ago: Option<Duration>,
    },
}

/// Something that fails and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failing {
    /// How often it failed in a row.
    pub failures: u32,
    /// How long ago it failed first.
    pub failing_for: Duration,
    /// In how long it is tried again, if that is known.
    pub next_attempt_in: Option<Duration>,
    /// The latest error, with its causes.
    pub error: String,
}

impl Failing {
    fn of(retry: &RetryReport, snapshot: &Snapshot) -> Self {
        Self {
            failures: retry.failures,
            failing_for: snapshot.at.saturating_duration_since(retry.since),
            next_attempt_in: retry.next_attempt.map(|at| at.saturating_duration_since(snapshot.at)),
            error: retry.error.clone(),
        }
    }
}

/// A parent that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentWait {
    /// The parent.
    pub shard: ShardId,
    /// How far it is processed; none if it has no lease yet.
    pub checkpoint: Option<Checkpoint>,
    /// Who holds it.
    pub owner: Option<WorkerId>,
}

/// What becomes of a lease that can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeOutlook {
    /// This worker decided about it: what, and why.
    Decided(String),
    /// The next plans share it out.
    Soon,
    /// The scheduler stops; another worker takes it.
    Stopping,
    /// This worker takes nothing: it is on standby.
    Standby,
    /// This worker takes nothing: it is not a member of its fleet.
    NotAMember,
    /// Nobody takes anything while this worker of another kind works on the table.
    ForeignOwner(WorkerId),
    /// This worker gave the lease up by itself and leaves it to others for so long.
    LeftToOthers(Duration),
    /// This worker holds as many leases as [`Settings::max_leases`] allows.
    Full(usize),
}

impl Explanation {
    /// Explains a shard, from what a scheduler shows and its settings.
    #[must_use]
    pub fn of(snapshot: &Snapshot, shard: &ShardId, settings: &Settings) -> Self {
        let mut explanation = Self {
            shard: shard.clone(),
            cause: Cause::Starting,
            activity: Activity::NotHeld,
            problem: None,
            held_up_by: None,
            fallback: None,
        };
        match (snapshot.phase, snapshot.shards.get(shard)) {
            (phase @ (SchedulerPhase::Created | SchedulerPhase::Starting | SchedulerPhase::Stopped), _) => {
                explanation.cause = Cause::NotRunning(phase);
            }
            (SchedulerPhase::Running | SchedulerPhase::Stopping, Some(held)) => {
                held::explain(&mut explanation, snapshot, held, settings);
            }
            (SchedulerPhase::Running | SchedulerPhase::Stopping, None) => {
                table::explain(&mut explanation, snapshot, settings);
            }
        }
        explanation
    }

    /// The sentence without the shard's id.
    pub fn reason(&self) -> impl std::fmt::Display + '_ {
        sentence::Reason(self)
    }
}
