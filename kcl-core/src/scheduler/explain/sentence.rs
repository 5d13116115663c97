//! Explanations in words.

use std::fmt;
use std::time::Duration;

use super::super::length::Length;
use super::super::report::SchedulerPhase;
use super::{Activity, Cause, Explanation, Failing, ParentWait, TakeOutlook};
use crate::consumer::Budget;
use crate::model::Position;

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shard, self.reason())
    }
}

/// The sentence without its subject.
pub(super) struct Reason<'a>(pub(super) &'a Explanation);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { cause, held_up_by, fallback, .. } = self.0;
        write!(f, "{cause}")?;
        if let Some(budget) = held_up_by {
            write!(f, "; nothing more is read ahead, because the buffer of the {budget} is full")?;
        }
        if let Some(error) = fallback {
            write!(f, "; it is polled, because it cannot be subscribed to: {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shard => "shard",
            Self::Worker => "worker",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(SchedulerPhase::Stopped) => {
                f.write_str("is not processed: the scheduler has stopped")
            }
            Self::NotRunning(_) => f.write_str("is not processed yet: the scheduler is starting"),
            Self::Starting => f.write_str("is about to start"),
            Self::NoConsumer { held_for } => {
                write!(f, "has been held for {} and waits for its consumer to start", Length(*held_for))
            }
            Self::WaitingForParents { parents, failing } => {
                if parents.is_empty() {
                    f.write_str("is about to see that its parents have ended")?;
                } else {
                    write!(f, "waits for the end of {}", Parents(parents))?;
                }
                match failing {
                    Some(failing) => write!(f, ", which cannot be looked up: {failing}"),
                    None => Ok(()),
                }
            }
            Self::InCallback { name, batch, running_for, limit } => {
                write!(f, "has been in {name} for {} of at most {}", Length(*running_for), Length(*limit))?;
                match batch {
                    Some(batch) => write!(f, ", with {}", Batch(*batch)),
                    None => Ok(()),
                }
            }
            Self::Retrying { batch: Some(batch), failing } => {
                write!(f, "retries {}: {failing}", Batch(*batch))
            }
            Self::Retrying { batch: None, failing } => write!(f, "retries a step: {failing}"),
            Self::Idle { quiet_for } => write!(
                f,
                "is idle: everything is delivered, and nothing new has come for {}",
                Length(*quiet_for)
            ),
            Self::Reading { behind: Some(behind) } if !behind.is_zero() => {
                write!(f, "is being processed, {} behind the tip", Length(*behind))
            }
            Self::Reading { .. } => f.write_str("is being processed"),
            Self::LagGrows { behind, least, growing_for } => write!(
                f,
                "gets no records although it is {} behind the tip, and was {} behind {} ago",
                Length(*behind),
                Length(*least),
                Length(*growing_for)
            ),
            Self::BackPressured { budget, held_up_for, buffered_bytes } => write!(
                f,
                "has not been read for {}: the buffer of the {budget} is full ({buffered_bytes} bytes of this shard)",
                Length(*held_up_for)
            ),
            Self::Throttled(failing) => write!(f, "is throttled: {failing}"),
            Self::ReaderFailing(failing) => write!(f, "cannot be read: {failing}"),
            Self::SourceSilent { silent_for, limit } => write!(
                f,
                "is stalled: the source has not answered for {}, and the lease is given up after {}",
                Length(*silent_for),
                Length(*limit)
            ),
            Self::ConsumerSilent => f.write_str(
                "is stalled: its consumer shows no sign of life, and its lease is not renewed any more",
            ),
            Self::Paused { paused_for } => {
                write!(f, "has been paused on request for {}", Length(*paused_for))
            }
            Self::Fenced { fenced_for } => write!(
                f,
                "has records and may not deliver them: the lease cannot be renewed, for {} now",
                Length(*fenced_for)
            ),
            Self::HandingOver { to, waits_for } => {
                write!(f, "is being handed over to {to}{}", Wait(waits_for))
            }
            Self::Draining { waits_for } => write!(f, "is being drained and released{}", Wait(waits_for)),
            Self::Ending { failing: None } => f.write_str("has been read to its end, which is being stored"),
            Self::Ending { failing: Some(failing) } => {
                write!(f, "has been read to its end, which cannot be stored: {failing}")
            }
            Self::Losing => f.write_str("was given up or lost, and its processor is being told"),
            Self::LeasedBy { worker, seen_for, member, asked_for_by, parents } => {
                write!(f, "is leased by {worker}")?;
                if let Some(seen_for) = seen_for {
                    write!(f, ", as seen for {}", Length(*seen_for))?;
                }
                if *member == Some(false) {
                    f.write_str(", which is not a member of the fleet")?;
                }
                if let Some(asker) = asked_for_by {
                    write!(f, ", and was asked for by {asker}")?;
                }
                if !parents.is_empty() {
                    write!(f, ", and waits for the end of {}", Parents(parents))?;
                }
                Ok(())
            }
            Self::Expired { worker, expired_for, outlook } => write!(
                f,
                "is leased by {worker}, which has been taken for dead for {}: {outlook}",
                Length(*expired_for)
            ),
            Self::Free { seen_for, outlook } => {
                f.write_str("is free")?;
                if let Some(seen_for) = seen_for {
                    write!(f, ", as seen for {}", Length(*seen_for))?;
                }
                write!(f, ": {outlook}")
            }
            Self::Ended { children } => {
                f.write_str("is processed to its end")?;
                for (index, child) in children.iter().enumerate() {
                    write!(f, "{}{child}", if index == 0 { "; its children are " } else { " and " })?;
                }
                Ok(())
            }
            Self::NoLease { parents } if parents.is_empty() => {
                f.write_str("has no lease yet; the next comparison of shards and leases creates it")
            }
            Self::NoLease { parents } => {
                write!(f, "has no lease yet, and gets one at the end of {}", Parents(parents))
            }
            Self::Unreadable(reason) => {
                write!(f, "is not processed: its row in the lease table cannot be read: {reason}")
            }
            Self::Unknown { listed_ago } => {
                f.write_str("is unknown: neither the lease table nor the stream's listing has it")?;
                match listed_ago {
                    Some(ago) => write!(f, ", which is {} old", Length(*ago)),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, failing_for, next_attempt_in, error } = self;
        match failures {
            1 => write!(f, "failed once, {} ago", Length(*failing_for))?,
            _ => write!(f, "failed {failures} times in {}", Length(*failing_for))?,
        }
        if let Some(wait) = next_attempt_in {
            write!(f, ", again in {}", Length(*wait))?;
        }
        write!(f, ": {error}")
    }
}

impl fmt::Display for TakeOutlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided(decision) => f.write_str(decision),
            Self::Soon => f.write_str("the next plan of the workers shares it out"),
            Self::Stopping => f.write_str("this worker is stopping, and another takes it"),
            Self::Standby => f.write_str("this worker is on standby and takes nothing"),
            Self::NotAMember => f.write_str("this worker takes nothing until it is a member of the fleet"),
            Self::ForeignOwner(owner) => {
                write!(
                    f,
                    "nothing is taken while {owner}, which is not a member of the fleet, works on the table"
                )
            }
            Self::LeftToOthers(wait) => {
                write!(f, "this worker gave it up and leaves it to others for {}", Length(*wait))
            }
            Self::Full(most) => write!(f, "this worker holds {most} leases, the most it may (max_leases)"),
        }
    }
}

struct Parents<'a>(&'a [ParentWait]);

impl fmt::Display for Parents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ParentWait { shard, checkpoint, owner }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " and " };
            match (checkpoint, owner) {
                (None, _) => write!(f, "{separator}{shard} (without a lease yet)")?,
                (Some(checkpoint), Some(owner)) => {
                    write!(f, "{separator}{shard} (at {checkpoint}, held by {owner})")?;
                }
                (Some(checkpoint), None) => {
                    write!(f, "{separator}{shard} (at {checkpoint}, held by nobody)")?
                }
            }
        }
        Ok(())
    }
}

struct Batch((Position, Position));

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.0;
        if first == last { write!(f, "the record {first}") } else { write!(f, "the batch {first} to {last}") }
    }
}

struct Wait<'a>(&'a Option<(&'static str, Duration)>);

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((name, length)) => write!(f, ", once {name} ends, which has run for {}", Length(*length)),
            None => Ok(()),
        }
    }
}
