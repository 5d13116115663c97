//! `status`, `audit` and `shards tree`: read only.

use std::collections::BTreeMap;

use tokio::select;
use tokio::time::sleep;

use super::Outcome;
use crate::access::Access;
use crate::args::{AuditArgs, StatusArgs};
use crate::audit::Audit;
use crate::console::Console;
use crate::error::CliError;
use crate::lineage::Tree;
use crate::observation::{Observation, initial};
use crate::status::Status;
use crate::stream;

pub(super) async fn status(
    arguments: &StatusArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<Outcome, CliError> {
    let initial = initial(arguments.initial_position)?;
    let mut observation = Observation::of_application(access).await?;
    let mut shown = 0;
    loop {
        if arguments.lag {
            observation.look_at_records(access).await?;
        }
        let status = Status::of(&observation.seen(initial));
        let Some(interval) = arguments.watch else {
            console.show(&status)?;
            return Ok(Outcome::of(arguments.check && status.has_problems()));
        };
        console.show_again(&status, shown == 0)?;
        shown += 1;
        let outcome = Outcome::of(arguments.check && status.has_problems());
        if arguments.count.is_some_and(|count| shown >= count) {
            return Ok(outcome);
        }
        select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(outcome),
            () = sleep(interval) => {}
        }
        observation.look_again(access).await?;
        if observation.stream.is_some() {
            observation.stream = stream::observe(access, &observation.view).await?;
        }
    }
}

pub(super) async fn audit(
    arguments: &AuditArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<Outcome, CliError> {
    let initial = initial(arguments.initial_position)?;
    let mut observation = Observation::of_application(access).await?;
    if arguments.watch {
        let shards = observation.view.leases().into_keys().collect();
        observation.watch(access, &shards, console).await?;
    }
    if arguments.lag {
        observation.look_at_records(access).await?;
    }
    let audit = Audit::of(&observation.seen(initial));
    console.show(&audit)?;
    Ok(Outcome::of(!audit.problems.is_empty()))
}

pub(super) async fn tree(access: &Access, console: &mut Console<'_>) -> Result<(), CliError> {
    let (stream, leases) = if access.table().is_ok() {
        let view = Observation::of_table(access).await?.view;
        let stream = match stream::observe(access, &view).await? {
            Some(stream) => stream,
            None => stream::observe_named(access).await?,
        };
        (stream, view.leases())
    } else {
        (stream::observe_named(access).await?, BTreeMap::new())
    };
    console.show(&Tree::of(&stream.identity.arn, &stream.shards, &leases))
}
