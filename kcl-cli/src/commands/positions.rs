//! `checkpoint` and `reset`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use kcl_core::Entropy;
use kcl_core::lease::{Lease, LeaseTable};
use kcl_core::model::{Checkpoint, Shard, ShardId};

use super::{evictions, judged, token};
use crate::access::Access;
use crate::args::{ResetArgs, WriteArgs};
use crate::console::Console;
use crate::error::{CliError, CliErrorKind, usage};
use crate::execute::carry_out;
use crate::leases::{CheckpointList, CheckpointReport};
use crate::observation::Observation;
use crate::signs::Signs;
use crate::text::Target;
use crate::write::{self, PlannedWrite};

pub(super) async fn show(
    shards: &[String],
    lag: bool,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut observation =
        if lag { Observation::of_application(access).await? } else { Observation::of_table(access).await? };
    if lag {
        observation.look_at_records(access).await?;
    }
    let view = &observation.view;
    let leases: Vec<Lease> = if shards.is_empty() {
        view.leases().into_values().map(Arc::unwrap_or_clone).collect()
    } else {
        shards.iter().map(|shard| view.lease(shard).cloned()).collect::<Result<_, _>>()?
    };
    console.show(&CheckpointList {
        table: view.table.clone(),
        checkpoints: leases
            .iter()
            .map(|lease| CheckpointReport::of(lease, observation.positions.get(&lease.shard)))
            .collect(),
    })
}

pub(super) async fn set(
    shard: &str,
    target: Target,
    arguments: &WriteArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut observation = Observation::of_application(access).await?;
    observation.view.lease(shard)?;
    check_time(&observation, target, arguments.force)?;
    let shards = [ShardId::from(shard)].into();
    let mut warnings = judged(&mut observation, &shards, arguments, access, console).await?;
    let lease = observation.view.lease(shard)?;
    let listed =
        observation.stream.iter().flat_map(|stream| &stream.shards).find(|listed| listed.id == lease.shard);
    warnings.extend(check_position(lease, target, listed, arguments.force)?);
    let mut planned = evictions(&observation, [lease]);
    planned.push(write::set_checkpoint(lease, target, access.now(), token(&Entropy::default())));
    carry_out(&access.store()?, planned, warnings, arguments, console).await
}

/// Java workers take the time of `AT_TIMESTAMP` from their settings and do not see the one in the row.
fn check_time(observation: &Observation, target: Target, force: bool) -> Result<(), CliError> {
    let signs = Signs::read(&observation.view, Some(&observation.watcher), observation.leadership.as_deref());
    if matches!(target, Target::Timestamp(_)) && signs.may_be_java() && !force {
        return Err(CliError::new(
            CliErrorKind::Refused,
            format!("workers of the Java KCL start at the time in their settings, not at one in a row: this table shows {}", signs.kind),
        )
        .with_hint(
            "nothing was written. Give a sequence number or TRIM_HORIZON, or, if only kcl-core will read the row, --force",
        ));
    }
    Ok(())
}

/// What a new checkpoint means, by what is known of the shard. Refuses what the shard cannot know.
fn check_position(
    lease: &Lease,
    target: Target,
    listed: Option<&Shard>,
    force: bool,
) -> Result<Vec<String>, CliError> {
    let mut warnings = Vec::new();
    if let (Target::After(position), Some(shard)) = (target, listed) {
        let is_below = position.sequence < shard.starting_sequence_number;
        let is_above = shard.ending_sequence_number.is_some_and(|ending| position.sequence > ending);
        if (is_below || is_above) && !force {
            return Err(CliError::new(
                CliErrorKind::Refused,
                format!(
                    "the sequence number is none of the shard: starting={} ending={}",
                    shard.starting_sequence_number,
                    shard
                        .ending_sequence_number
                        .map_or_else(|| "none".to_owned(), |number| number.to_string())
                ),
            )
            .with_hint(
                "nothing was written. Workers refuse such a checkpoint; --force writes it all the same",
            ));
        }
    }
    if listed.is_none() && matches!(target, Target::After(_)) {
        warnings.push(
            "the stream is not known, or does not list the shard: the sequence number is not checked".into(),
        );
    }
    match (lease.checkpoint, target) {
        (Checkpoint::At(from), Target::After(to)) if to > from => {
            warnings.push(format!("forward: records after {from} up to {to} are never delivered"));
        }
        (Checkpoint::At(from), Target::After(to)) if to < from => {
            warnings.push(format!("back: records after {to} are delivered again"));
        }
        (Checkpoint::ShardEnd, _) => warnings.push(
            "the shard was processed to its end: it is read again, beside its children, which do not wait for it".into(),
        ),
        (_, Target::Latest) => {
            warnings.push("records from the checkpoint until now are never delivered".into());
        }
        (Checkpoint::At(_), Target::TrimHorizon) => {
            warnings.push("back: every record the stream still holds is delivered again".into());
        }
        _ => {}
    }
    Ok(warnings)
}

pub(super) async fn reset(
    arguments: &ResetArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if matches!(arguments.to, Some(Target::After(_))) {
        return Err(usage("all leases are reset to TRIM_HORIZON, LATEST or a time")
            .with_hint("kcl checkpoint set takes a sequence number, for one shard"));
    }
    let mut observation = Observation::of_application(access).await?;
    if let Some(target) = arguments.to {
        check_time(&observation, target, arguments.write.force)?;
    }
    let shards: BTreeSet<ShardId> = observation.view.leases().into_keys().collect();
    let mut warnings = judged(&mut observation, &shards, &arguments.write, access, console).await?;
    let leases = observation.view.leases();
    let listed: Option<BTreeSet<&ShardId>> =
        observation.stream.as_ref().map(|stream| stream.shards.iter().map(|shard| &shard.id).collect());
    let mut planned = evictions(&observation, leases.values().map(|lease| &**lease));
    match arguments.to {
        None => {
            planned.extend(leases.values().map(|lease| write::delete(lease)));
            warnings.push(
                "workers create the leases anew at the position they are configured with; checkpoints are lost (kcl \
                 export keeps them)"
                    .into(),
            );
        }
        Some(target) => {
            let (writes, told) = resets(&leases, target, listed.as_ref(), access.now());
            planned.extend(writes);
            warnings.extend(told);
        }
    }
    for row in observation.view.unreadable() {
        warnings.push(format!("left alone, because it cannot be understood: {}", row.key));
    }
    carry_out(&access.store()?, planned, warnings, &arguments.write, console).await
}

/// The writes that set leases back, and what is left alone.
fn resets(
    leases: &LeaseTable,
    target: Target,
    listed: Option<&BTreeSet<&ShardId>>,
    now: SystemTime,
) -> (Vec<PlannedWrite>, Vec<String>) {
    let entropy = Entropy::default();
    let (mut writes, mut told) = (Vec::new(), Vec::new());
    for lease in leases.values() {
        if listed.is_some_and(|listed| !listed.contains(&lease.shard)) {
            told.push(format!("left alone, because the stream does not list it: {}", lease.shard));
        } else if !(target == Target::Latest && lease.is_ended()) {
            writes.push(write::reset(lease, target, now, token(&entropy)));
        }
    }
    match target {
        Target::Latest => told.push("records from the checkpoints until now are never delivered".into()),
        _ => told.push(
            "records are delivered again; a shard whose lease was deleted after its end is read again, too"
                .into(),
        ),
    }
    (writes, told)
}

#[cfg(test)]
mod tests {
    use kcl_core::model::HashKeyRange;

    use super::*;

    fn lease(shard: &str, checkpoint: Checkpoint) -> Lease {
        Lease::new(shard.into(), checkpoint)
    }

    fn at(sequence: u64) -> Checkpoint {
        Checkpoint::At(kcl_core::Position::new(sequence.into(), 0))
    }

    #[test]
    fn a_sequence_number_that_the_shard_cannot_know_is_refused() {
        let shard = Shard {
            id: "s".into(),
            parent: None,
            adjacent_parent: None,
            hash_key_range: HashKeyRange::FULL,
            starting_sequence_number: 10.into(),
            ending_sequence_number: Some(20.into()),
        };
        let target = |sequence: u64| Target::After(kcl_core::Position::new(sequence.into(), 0));
        for (sequence, known) in [(9, false), (10, true), (20, true), (21, false)] {
            let checked = check_position(&lease("s", at(15)), target(sequence), Some(&shard), false);
            assert_eq!(checked.is_ok(), known, "{sequence}");
            assert!(check_position(&lease("s", at(15)), target(sequence), Some(&shard), true).is_ok());
        }
        let warned =
            |sequence| check_position(&lease("s", at(15)), target(sequence), Some(&shard), false).unwrap();
        assert!(warned(12)[0].starts_with("back"));
        assert!(warned(18)[0].starts_with("forward"));
        assert!(warned(15).is_empty());
    }

    #[test]
    fn ended_leases_are_read_again_from_the_oldest_record_but_not_from_the_latest() {
        let leases: LeaseTable = [lease("a", Checkpoint::ShardEnd), lease("b", at(5)), lease("c", at(5))]
            .map(|lease| (lease.shard.clone(), Arc::new(lease)))
            .into();
        let (a, b) = (ShardId::from("a"), ShardId::from("b"));
        let listed: BTreeSet<&ShardId> = [&a, &b].into();
        let rows = |target| -> Vec<String> {
            resets(&leases, target, Some(&listed), SystemTime::UNIX_EPOCH)
                .0
                .iter()
                .map(PlannedWrite::row)
                .collect()
        };
        assert_eq!(rows(Target::TrimHorizon), ["a", "b"]);
        assert_eq!(rows(Target::Latest), ["b"]);
        assert_eq!(resets(&leases, Target::Latest, None, SystemTime::UNIX_EPOCH).0.len(), 2);
    }
}
