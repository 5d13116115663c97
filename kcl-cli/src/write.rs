//! What a command would write: planned as values, shown, and only then carried out. The planning is pure.

use std::fmt;
use std::time::SystemTime;

use kcl_core::fleet::FleetRowKey;
use kcl_core::lease::verb::Verb;
use kcl_core::lease::{AttemptToken, Change, Expectation, Lease, OwnerExpectation, OwnerSwitches, Patch};
use kcl_core::model::{ShardId, WorkerId};
use kcl_lease_dynamo::Item;
use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::error::{CliError, CliErrorKind};
use crate::liveness::Standing;
use crate::text::{Target, time_text};

/// One conditional write.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlannedWrite {
    /// Removes the entry of a member that is dead, so that its leases may be written.
    Evict {
        /// The fleet row.
        row: FleetRowKey,
        /// The member.
        worker: WorkerId,
        /// The heartbeat that stood still.
        heartbeat: u64,
    },
    /// Changes attributes of a lease.
    Update {
        /// The lease as it was shown.
        shown: Box<Lease>,
        /// The write.
        verb: Box<Verb>,
    },
    /// Deletes a lease.
    Delete {
        /// The lease as it was shown.
        shown: Box<Lease>,
    },
    /// Stores a row whole.
    Put {
        /// Its key.
        key: String,
        /// The row.
        item: Item,
        /// The row in its place as it was shown, if there is one.
        shown: Option<Item>,
    },
}

impl PlannedWrite {
    /// The key of the row.
    #[must_use]
    pub fn row(&self) -> String {
        match self {
            Self::Evict { row, .. } => row.to_string(),
            Self::Update { shown, .. } | Self::Delete { shown } => shown.shard.to_string(),
            Self::Put { key, .. } => key.clone(),
        }
    }

    const fn action(&self) -> &'static str {
        match self {
            Self::Evict { .. } => "remove-member",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
            Self::Put { shown: None, .. } => "create",
            Self::Put { shown: Some(_), .. } => "replace",
        }
    }

    /// What must still hold, in words.
    #[must_use]
    pub fn condition(&self) -> String {
        match self {
            Self::Evict { worker, heartbeat, .. } => format!("hb of {worker} is still {heartbeat}"),
            Self::Update { verb, .. } => expectation_text(&verb.expect),
            Self::Delete { shown } => expectation_text(&unchanged(shown)),
            Self::Put { shown: None, .. } => "no row has this key".into(),
            Self::Put { shown: Some(_), .. } => "every attribute is still as it was shown".into(),
        }
    }

    /// What changes, in words.
    #[must_use]
    pub fn changes(&self) -> Vec<String> {
        match self {
            Self::Evict { worker, .. } => vec![format!("the entry of {worker} is removed")],
            Self::Update { shown, verb } => changes(shown, &verb.patch),
            Self::Delete { shown } => {
                vec![format!("the row is deleted, checkpoint {} with it", shown.checkpoint)]
            }
            Self::Put { item, shown: None, .. } => vec![format!("a row of {} attributes", item.len())],
            Self::Put { item, shown: Some(shown), .. } => {
                vec![format!("the row of {} attributes becomes one of {}", shown.len(), item.len())]
            }
        }
    }
}

impl Serialize for PlannedWrite {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("PlannedWrite", 4)?;
        object.serialize_field("row", &self.row())?;
        object.serialize_field("action", self.action())?;
        object.serialize_field("condition", &self.condition())?;
        object.serialize_field("changes", &self.changes())?;
        object.end()
    }
}

impl fmt::Display for PlannedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}, if {}", self.action(), self.row(), self.condition())?;
        self.changes().iter().try_for_each(|change| writeln!(f, "    {change}"))
    }
}

fn expectation_text(expect: &Expectation) -> String {
    let mut clauses = Vec::new();
    if let Some(counter) = expect.counter {
        clauses.push(format!("leaseCounter is still {counter}"));
    }
    match &expect.owner {
        OwnerExpectation::Any => {}
        OwnerExpectation::Absent => clauses.push("leaseOwner is still absent".into()),
        OwnerExpectation::Is(owner) => clauses.push(format!("leaseOwner is still {owner}")),
    }
    if let Some(me) = &expect.unrequested_but_by {
        clauses.push(format!("handOverRequest is absent or {me}"));
    }
    clauses.join(" and ")
}

fn changes(shown: &Lease, patch: &Patch) -> Vec<String> {
    fn text(value: Option<impl fmt::Display>) -> String {
        value.map_or_else(|| "(absent)".to_owned(), |value| value.to_string())
    }
    let after = patch.apply_to(shown);
    let mut changes = Vec::new();
    let mut change = |name: &str, before: String, after: String| {
        if before != after {
            changes.push(format!("{name}: {before} -> {after}"));
        }
    };
    change("leaseOwner", text(shown.owner.as_ref()), text(after.owner.as_ref()));
    change("checkpoint", shown.checkpoint.to_string(), after.checkpoint.to_string());
    change(
        "startTimestampMillis",
        text(shown.start_timestamp.map(time_text)),
        text(after.start_timestamp.map(time_text)),
    );
    change(
        "pendingCheckpoint",
        text(shown.pending.as_ref().map(|pending| pending.position)),
        text(after.pending.as_ref().map(|pending| pending.position)),
    );
    change("handOverRequest", text(shown.requested_by.as_ref()), text(after.requested_by.as_ref()));
    change("checkpointOwner", text(shown.checkpoint_owner.as_ref()), text(after.checkpoint_owner.as_ref()));
    change("leaseCounter", shown.counter.to_string(), after.counter.to_string());
    change(
        "ownerSwitchesSinceCheckpoint",
        shown.owner_switches.to_string(),
        after.owner_switches.to_string(),
    );
    changes
}

/// The row is the one that was shown: every write by anybody moves the counter or changes the owner.
#[must_use]
pub fn unchanged(shown: &Lease) -> Expectation {
    Expectation {
        counter: Some(shown.counter),
        owner: shown.owner.clone().map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
        ..Expectation::default()
    }
}

fn update(shown: &Lease, verb: Verb) -> PlannedWrite {
    PlannedWrite::Update { shown: Box::new(shown.clone()), verb: Box::new(verb) }
}

/// Frees a lease. Its checkpoint stays.
#[must_use]
pub fn release(shown: &Lease, token: AttemptToken) -> PlannedWrite {
    let mut verb = Verb::release(shown, None, None, token);
    verb.patch.clear_checkpoint_owner = true;
    update(shown, verb)
}

/// Gives a lease to another owner, whatever the present one does.
#[must_use]
pub fn give(shown: &Lease, to: &WorkerId, token: AttemptToken) -> PlannedWrite {
    update(shown, Verb::take(shown, to, token))
}

/// Asks the owner to hand a lease over to `to`, or takes that back. Moves no counter.
#[must_use]
pub fn request(shown: &Lease, to: Option<&WorkerId>) -> PlannedWrite {
    let expect = Expectation { counter: None, ..unchanged(shown) };
    let requested_by = to.map_or(Change::Remove, |to| Change::Set(to.clone()));
    let patch = Patch { requested_by, ..Patch::default() };
    update(shown, Verb { shard: shown.shard.clone(), expect, patch })
}

/// Sets the checkpoint. The time that an earlier start stood for goes, or is replaced: it would be read from again.
#[must_use]
pub fn set_checkpoint(shown: &Lease, target: Target, now: SystemTime, token: AttemptToken) -> PlannedWrite {
    let mut verb = Verb::checkpoint(shown, target.checkpoint(), token);
    verb.patch.start_timestamp = match target.start_timestamp(now) {
        Some(time) => Change::Set(time),
        None if shown.start_timestamp.is_some() && !matches!(target, Target::After(_)) => Change::Remove,
        None => Change::Keep,
    };
    update(shown, verb)
}

/// [`set_checkpoint`], and frees the lease.
#[must_use]
pub fn reset(shown: &Lease, target: Target, now: SystemTime, token: AttemptToken) -> PlannedWrite {
    let mut planned = set_checkpoint(shown, target, now, token);
    if let PlannedWrite::Update { verb, .. } = &mut planned {
        verb.patch.owner = if shown.owner.is_some() { Change::Remove } else { Change::Keep };
        verb.patch.requested_by = if shown.requested_by.is_some() { Change::Remove } else { Change::Keep };
        verb.patch.clear_checkpoint_owner = shown.checkpoint_owner.is_some();
        verb.patch.owner_switches = OwnerSwitches::Reset;
    }
    planned
}

/// Deletes a lease.
#[must_use]
pub fn delete(shown: &Lease) -> PlannedWrite {
    PlannedWrite::Delete { shown: Box::new(shown.clone()) }
}

/// What has to be removed first: the entries of the dead owners of these leases, each once.
#[must_use]
pub fn evictions<'a>(standings: impl IntoIterator<Item = &'a Standing>) -> Vec<PlannedWrite> {
    let mut planned: Vec<PlannedWrite> = Vec::new();
    for standing in standings {
        if let Standing::Dead { worker, row, heartbeat, .. } = standing {
            let worker = WorkerId::new(worker.clone());
            let evict = PlannedWrite::Evict { row: FleetRowKey(*row), worker, heartbeat: *heartbeat };
            if !planned.contains(&evict) {
                planned.push(evict);
            }
        }
    }
    planned
}

/// Whether a lease may be written. `Ok` holds a warning if it is written by force.
///
/// # Errors
/// If somebody may be working under it and it was not forced.
pub fn guard(
    shard: &ShardId,
    standing: &Standing,
    force: bool,
    of_a_fleet: bool,
) -> Result<Option<String>, CliError> {
    if standing.is_safe() {
        return Ok(None);
    }
    let seen = standing.evidence();
    if force {
        let until = if of_a_fleet {
            "a member of a fleet notices at its next checkpoint or listing (up to 10 minutes), and delivers records \
             until then"
        } else {
            "its owner loses the lease at its next renewal or checkpoint, and may deliver records until then"
        };
        return Ok(Some(format!(
            "{shard}: somebody may be working under it ({seen}); {until}: others may deliver the same records, but \
             its checkpoints do not land any more"
        )));
    }
    let message = match standing {
        Standing::Live { .. } => format!("the lease is live: shard={shard}: {seen}"),
        _ => format!("the lease may be live: shard={shard}: {seen}"),
    };
    let ask = if of_a_fleet { "" } else { ", or ask it with kcl leases hand-over" };
    Err(CliError::new(CliErrorKind::Refused, message).with_hint(format!(
        "nothing was written. Stop the worker{ask}; --force writes all the same and fences the owner"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kcl_core::lease::PendingCheckpoint;
    use kcl_core::model::Checkpoint;

    use super::*;

    fn token() -> AttemptToken {
        AttemptToken("00000000-0000-0000-0000-000000000001".parse().unwrap())
    }

    fn lease() -> Lease {
        let mut lease = Lease::new("shardId-0".into(), Checkpoint::At(kcl_core::Position::new(7.into(), 2)));
        (lease.owner, lease.counter) = (Some("w1".into()), 41);
        lease
    }

    fn after(planned: &PlannedWrite) -> Lease {
        let PlannedWrite::Update { shown, verb } = planned else { panic!("no update: {planned:?}") };
        assert!(verb.expect.holds_for(shown));
        verb.patch.apply_to(shown)
    }

    #[test]
    fn a_write_says_what_it_does_and_on_which_condition() {
        let text = release(&lease(), token()).to_string();
        let expected = "update shardId-0, if leaseCounter is still 41 and leaseOwner is still w1\n    \
                        leaseOwner: w1 -> (absent)\n    leaseCounter: 41 -> 42\n";
        assert_eq!(text, expected);
        let text = delete(&lease()).to_string();
        assert!(text.contains("delete shardId-0") && text.contains("7/2"), "{text}");
    }

    #[test]
    fn a_request_moves_no_counter_and_bears_that_it_moves() {
        let planned = request(&lease(), Some(&"w2".into()));
        let asked = after(&planned);
        assert_eq!((asked.counter, asked.requested_by), (41, Some("w2".into())));
        let PlannedWrite::Update { verb, .. } = &planned else { panic!() };
        let mut renewed = lease();
        renewed.counter += 1;
        assert!(verb.expect.holds_for(&renewed), "renewals are not in the way");
        renewed.owner = Some("w3".into());
        assert!(!verb.expect.holds_for(&renewed));
    }

    #[test]
    fn a_checkpoint_takes_the_time_of_an_earlier_start_along() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut shown = lease();
        shown.start_timestamp = Some(SystemTime::UNIX_EPOCH);
        shown.pending =
            Some(PendingCheckpoint { position: kcl_core::Position::new(9.into(), 0), state: None });
        let latest = after(&set_checkpoint(&shown, Target::Latest, now, token()));
        assert_eq!((latest.checkpoint, latest.start_timestamp), (Checkpoint::Latest, Some(now)));
        assert_eq!((latest.pending, latest.owner), (None, Some("w1".into())));
        let oldest = after(&set_checkpoint(&shown, Target::TrimHorizon, now, token()));
        assert_eq!((oldest.checkpoint, oldest.start_timestamp), (Checkpoint::TrimHorizon, None));
        let position = kcl_core::Position::new(5.into(), 0);
        let at = after(&set_checkpoint(&shown, Target::After(position), now, token()));
        assert_eq!((at.checkpoint, at.start_timestamp), (Checkpoint::At(position), shown.start_timestamp));
        let free = after(&reset(&shown, Target::TrimHorizon, now, token()));
        assert_eq!((free.owner, free.checkpoint), (None, Checkpoint::TrimHorizon));
    }

    #[test]
    fn only_what_is_proven_safe_is_written_without_force() {
        let shard = "shardId-0".into();
        let evidence = "seen".to_owned();
        for standing in [Standing::Free, Standing::Gone { evidence: evidence.clone() }] {
            assert_eq!(guard(&shard, &standing, false, false).unwrap(), None);
        }
        for standing in [Standing::Live { evidence: evidence.clone() }, Standing::Unproven { evidence }] {
            let error = guard(&shard, &standing, false, false).unwrap_err();
            assert_eq!(error.kind(), CliErrorKind::Refused);
            assert!(guard(&shard, &standing, true, false).unwrap().unwrap().contains("next renewal"));
            assert!(guard(&shard, &standing, true, true).unwrap().unwrap().contains("up to 10 minutes"));
        }
    }

    #[test]
    fn the_dead_are_removed_once_each() {
        let dead = |worker: &str| Standing::Dead {
            evidence: String::new(),
            worker: worker.into(),
            row: 1,
            heartbeat: 5,
        };
        let planned = evictions(&[dead("a"), Standing::Free, dead("a"), dead("b")]);
        assert_eq!(planned.len(), 2);
        assert_eq!(
            planned[0].to_string(),
            "remove-member kcl:fleet:1, if hb of a is still 5\n    the entry of a is removed\n"
        );
    }
}
