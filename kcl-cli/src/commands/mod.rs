//! The commands: each looks, makes a report or a plan of it, and shows or carries it out.

mod backup;
mod config;
mod leases;
mod look;
mod positions;
mod reckon;

use std::collections::BTreeSet;

use kcl_core::Entropy;
use kcl_core::lease::{AttemptToken, Lease};
use kcl_core::model::ShardId;

use crate::access::Access;
use crate::args::{CheckpointCommand, Command, ConfigCommand, LeasesCommand, ShardsCommand, WriteArgs};
use crate::console::Console;
use crate::error::CliError;
use crate::observation::Observation;
use crate::write::guard;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In order: exit code 0.
    InOrder,
    /// `audit`, `config check` or `status --check` found problems: exit code 1.
    ProblemsFound,
}

impl Outcome {
    const fn of(has_problems: bool) -> Self {
        if has_problems { Self::ProblemsFound } else { Self::InOrder }
    }
}

/// Carries out a command.
///
/// # Errors
/// If it failed or was refused: exit code 2. The error says what to do.
pub async fn run(command: &Command, access: &Access, console: &mut Console<'_>) -> Result<Outcome, CliError> {
    match command {
        Command::Status(arguments) => return look::status(arguments, access, console).await,
        Command::Audit(arguments) => return look::audit(arguments, access, console).await,
        Command::Config(ConfigCommand::Check { file, with_environment }) => {
            return config::check(file, *with_environment, console);
        }
        Command::Config(ConfigCommand::Convert { file }) => config::convert(file, console)?,
        Command::Leases(LeasesCommand::List) => leases::list(access, console).await?,
        Command::Leases(LeasesCommand::Show { shard }) => leases::show(shard, access, console).await?,
        Command::Leases(LeasesCommand::Release { shards, write }) => {
            leases::release(shards, write, access, console).await?;
        }
        Command::Leases(LeasesCommand::Move { shard, to, write }) => {
            leases::give(shard, to, write, access, console).await?;
        }
        Command::Leases(LeasesCommand::HandOver { shard, to, withdraw: _, write }) => {
            leases::hand_over(shard, to.as_deref(), write, access, console).await?;
        }
        Command::Checkpoint(CheckpointCommand::Show { shards, lag }) => {
            positions::show(shards, *lag, access, console).await?;
        }
        Command::Checkpoint(CheckpointCommand::Set { shard, position, write }) => {
            positions::set(shard, *position, write, access, console).await?;
        }
        Command::Reset(arguments) => positions::reset(arguments, access, console).await?,
        Command::Export { output } => backup::export(output.as_deref(), access, console).await?,
        Command::Import(arguments) => backup::import(arguments, access, console).await?,
        Command::Cost(arguments) => reckon::cost(arguments, access, console).await?,
        Command::Shards(ShardsCommand::Tree) => look::tree(access, console).await?,
        Command::Shards(estimate @ ShardsCommand::Estimate { .. }) => reckon::estimate(estimate, console)?,
    }
    Ok(Outcome::InOrder)
}

/// A token for a write of this tool.
fn token(entropy: &Entropy) -> AttemptToken {
    AttemptToken(entropy.uuid())
}

/// Judges the owners of these leases, unless it is forced, and refuses what may be live. Returns warnings.
async fn judged(
    observation: &mut Observation,
    shards: &BTreeSet<ShardId>,
    write: &WriteArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<Vec<String>, CliError> {
    if !write.force {
        observation.watch(access, shards, console).await?;
    }
    let of_a_fleet = observation.watcher.sees_a_fleet();
    let mut warnings = Vec::new();
    for shard in shards {
        let lease = observation.view.lease(shard.as_str())?;
        warnings.extend(guard(shard, &observation.watcher.standing(lease), write.force, of_a_fleet)?);
    }
    Ok(warnings)
}

/// The entries of dead owners that have to be removed before these leases are written.
fn evictions<'a>(
    observation: &Observation,
    leases: impl IntoIterator<Item = &'a Lease>,
) -> Vec<crate::write::PlannedWrite> {
    let standings: Vec<_> = leases.into_iter().map(|lease| observation.watcher.standing(lease)).collect();
    crate::write::evictions(&standings)
}
