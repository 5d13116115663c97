//! `leases`: list, show, release, move, hand-over.

use std::collections::BTreeSet;

use kcl_core::Entropy;
use kcl_core::fleet::row_of;
use kcl_core::model::{ShardId, WorkerId};

use super::{evictions, judged, token};
use crate::access::Access;
use crate::args::WriteArgs;
use crate::backup::to_json;
use crate::console::Console;
use crate::error::{CliError, CliErrorKind, usage};
use crate::execute::carry_out;
use crate::leases::{LeaseDetail, LeaseList, UnreadableReport};
use crate::observation::{Leadership, Observation, leadership};
use crate::signs::{FleetKind, Signs};
use crate::write;

pub(super) async fn list(access: &Access, console: &mut Console<'_>) -> Result<(), CliError> {
    let view = Observation::of_table(access).await?.view;
    console.show(&LeaseList {
        table: view.table.clone(),
        leases: view.leases().values().map(|lease| (&**lease).into()).collect(),
        unreadable: view
            .unreadable()
            .map(|row| UnreadableReport { key: row.key.clone(), reason: row.reason.clone() })
            .collect(),
    })
}

pub(super) async fn show(shard: &str, access: &Access, console: &mut Console<'_>) -> Result<(), CliError> {
    let observation = Observation::of_table(access).await?;
    let lease = observation.view.lease(shard)?;
    let attributes = observation.view.rows.get(shard).into_iter().flat_map(|row| &row.item);
    let attributes = attributes
        .map(|(name, value)| Ok((name.clone(), to_json(value)?)))
        .collect::<Result<_, String>>()
        .map_err(|error| CliError::new(CliErrorKind::Invalid, error))?;
    console.show(&LeaseDetail {
        lease: lease.into(),
        standing: observation.watcher.standing(lease),
        attributes,
    })
}

pub(super) async fn release(
    shards: &[String],
    arguments: &WriteArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut observation = Observation::of_table(access).await?;
    let mut owned = BTreeSet::new();
    for shard in shards {
        if observation.view.lease(shard)?.owner.is_some() {
            owned.insert(ShardId::from(shard.as_str()));
        } else {
            console.note(format!("{shard} has no owner already"))?;
        }
    }
    let warnings = judged(&mut observation, &owned, arguments, access, console).await?;
    let entropy = Entropy::default();
    let leases =
        owned.iter().map(|shard| observation.view.lease(shard.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut planned = evictions(&observation, leases.iter().copied());
    planned.extend(leases.iter().map(|lease| write::release(lease, token(&entropy))));
    carry_out(&access.store()?, planned, warnings, arguments, console).await
}

pub(super) async fn give(
    shard: &str,
    to: &str,
    arguments: &WriteArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let to = worker(to)?;
    let mut observation = Observation::of_table(access).await?;
    if observation.view.lease(shard)?.owner.as_ref() == Some(&to) {
        return Err(usage(format!("{to} owns the lease already")));
    }
    let shards = [ShardId::from(shard)].into();
    let mut warnings = judged(&mut observation, &shards, arguments, access, console).await?;
    let lease = observation.view.lease(shard)?;
    if lease.is_ended() {
        return Err(CliError::new(
            CliErrorKind::Refused,
            format!("the shard has ended, nobody works on it: {shard}"),
        ));
    }
    warnings.extend(check_receiver(&observation, &to, arguments.force)?);
    let mut planned = evictions(&observation, [lease]);
    planned.push(write::give(lease, &to, token(&Entropy::default())));
    carry_out(&access.store()?, planned, warnings, arguments, console).await
}

/// Whether the receiver is somebody who will find the lease.
fn check_receiver(observation: &Observation, to: &WorkerId, force: bool) -> Result<Vec<String>, CliError> {
    let mut warnings = Vec::new();
    let is_member = row_of(to).is_some();
    let has_leases = observation.view.leases().values().any(|lease| lease.owner.as_ref() == Some(to));
    let is_there = if is_member { observation.watcher.is_active_member(to) } else { has_leases };
    if !is_there && !force {
        let message = if is_member {
            format!("{to} is no active member of the fleet")
        } else {
            format!("no lease names {to} as its owner, so it may not exist")
        };
        return Err(CliError::new(CliErrorKind::Refused, message).with_hint(
            "kcl status names the workers. A lease that is given to nobody is taken by others after the lease duration; \
             kcl leases release frees it at once. --force writes all the same",
        ));
    }
    if is_member {
        warnings.push(
            "members of a fleet move leases by a shared plan: the receiver finds the lease at its next listing (1 to \
             10 minutes), and the plan may move it on"
                .to_owned(),
        );
    } else {
        warnings.push("workers balance the number of leases: it may move on".to_owned());
    }
    Ok(warnings)
}

pub(super) async fn hand_over(
    shard: &str,
    to: Option<&str>,
    arguments: &WriteArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let to = to.map(worker).transpose()?;
    let observation = Observation::of_table(access).await?;
    let lease = observation.view.lease(shard)?;
    let refused = |message: String, hint: &str| {
        Err(CliError::new(CliErrorKind::Refused, message).with_hint(format!("nothing was written. {hint}")))
    };
    let Some(to) = to else {
        if lease.requested_by.is_none() {
            console.note(format!("nobody asks for {shard}"))?;
            return carry_out(&access.store()?, Vec::new(), Vec::new(), arguments, console).await;
        }
        let planned = vec![write::request(lease, None)];
        return carry_out(&access.store()?, planned, Vec::new(), arguments, console).await;
    };
    let Some(owner) = &lease.owner else {
        return refused(format!("{shard} has no owner to ask"), "kcl leases move gives it to a worker");
    };
    if *owner == to {
        return Err(usage(format!("{to} owns the lease already")));
    }
    if row_of(owner).is_some() || row_of(&to).is_some() {
        return refused(
            format!("members of a fleet take no requests from outside: owner={owner}"),
            "They move leases by a shared plan. To empty a worker stop it in order; to limit it set max_leases or \
             balance by load",
        );
    }
    if lease.checkpoint_owner.is_some() {
        return refused(format!("{shard} is being handed off already, by the Java KCL 3.x"), "Wait for it");
    }
    let leadership = match leadership(access).await? {
        Leadership::Looked(found) => found,
        Leadership::Denied(note) => {
            console.note(note)?;
            None
        }
    };
    let signs = Signs::read(&observation.view, Some(&observation.watcher), leadership.as_deref());
    if signs.kind != FleetKind::PerLease && !arguments.force {
        return refused(
            format!("workers of the Java KCL do not know requests: this table shows {}", signs.kind),
            "Their leases are moved by force: stop the worker, then kcl leases move. --force asks all the same",
        );
    }
    let mut warnings = check_receiver(&observation, &to, arguments.force)?;
    warnings.push(
        "a Java worker does not answer: beside ours the request stays unanswered until it is withdrawn"
            .into(),
    );
    let planned = vec![write::request(lease, Some(&to))];
    carry_out(&access.store()?, planned, warnings, arguments, console).await
}

fn worker(id: &str) -> Result<WorkerId, CliError> {
    if id.is_empty() {
        return Err(usage("a worker's id is not empty"));
    }
    Ok(WorkerId::from(id))
}
