//! `cost` and `shards estimate`.

use std::collections::BTreeSet;

use crate::access::Access;
use crate::args::{CostArgs, ShardsCommand};
use crate::console::Console;
use crate::cost::{Cost, CostInput, Mode};
use crate::error::{CliError, CliErrorKind, usage};
use crate::estimate::{Estimate, EstimateInput};
use crate::observation::Observation;
use crate::prices::{DEFAULT_PRICES, Prices};
use crate::signs::{FleetKind, Signs};

pub(super) async fn cost(
    arguments: &CostArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if arguments.print_prices {
        return console.print(DEFAULT_PRICES);
    }
    let prices = match &arguments.prices {
        None => Prices::parse(DEFAULT_PRICES)?,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::new(CliErrorKind::Missing, format!("cannot read {}", path.display()))
                    .with_source(error)
            })?;
            Prices::parse(&text)?
        }
    };
    let (mut shards, mut workers, mut mode) = (arguments.shards, arguments.workers, arguments.mode);
    let mut provisioned = arguments.provisioned;
    if access.table().is_ok() && (shards.is_none() || workers.is_none() || mode.is_none()) {
        let seen = Observation::of_table(access).await?;
        let leases = seen.view.leases();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let owners: BTreeSet<_> = leases.values().filter_map(|lease| lease.owner.as_ref()).collect();
        let members = seen.watcher.members().len();
        shards = shards.or(Some(count(leases.values().filter(|lease| !lease.is_ended()).count())));
        workers = workers.or(Some(count(if members > 0 { members } else { owners.len() })));
        mode = mode.or(Some(match Signs::read(&seen.view, Some(&seen.watcher), None).kind {
            FleetKind::PerLease if !owners.is_empty() => Mode::PerLease,
            FleetKind::Java2 | FleetKind::Java3 => Mode::Java2,
            _ => Mode::Fleet,
        }));
        provisioned = provisioned.or(seen.view.shape.as_ref().and_then(|shape| shape.provisioned));
    }
    let (Some(shards), Some(workers)) = (shards, workers) else {
        return Err(usage("how many shards and workers?")
            .with_hint("give --shards and --workers, or --application to count them in its lease table"));
    };
    let input = CostInput {
        shards,
        // A table whose workers are all stopped is reckoned as with one.
        workers: workers.max(1),
        mode: mode.unwrap_or(Mode::Fleet),
        lease_duration: access.lease_duration(),
        checkpoint_interval: arguments.checkpoint_interval,
        row_bytes: arguments.row_bytes,
        worker_id_bytes: arguments.worker_id_bytes,
        provisioned,
        metrics: arguments.metrics,
        fan_out_consumers: arguments.fan_out_consumers,
        bytes_per_second: arguments.rate * arguments.record_size,
    };
    console.show(&Cost::of(input, &prices))
}

pub(super) fn estimate(arguments: &ShardsCommand, console: &mut Console<'_>) -> Result<(), CliError> {
    let ShardsCommand::Estimate { record_size, rate, consumers, fan_out_consumers, headroom } = arguments
    else {
        return Ok(());
    };
    let input = EstimateInput {
        record_bytes: *record_size,
        records_per_second: *rate,
        polling_consumers: *consumers,
        fan_out_consumers: *fan_out_consumers,
        headroom_percent: *headroom,
    };
    console.show(&Estimate::of(input).map_err(usage)?)
}
