//! What an application costs a month, by the formulas of `docs/cost.md`. Pure.

#![allow(clippy::cast_precision_loss, reason = "an estimate")]

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use kcl_core::metrics::{Dimension, Metric, MetricsLevel};
use serde::Serialize;

use crate::console::Columns;
use crate::prices::Prices;

/// How long a month is, in minutes: 730 hours, as price lists count.
const MINUTES: f64 = 730.0 * 60.0;

/// How many members a fleet row takes, and the bytes of an entry beside the worker's id (`docs/cost.md`).
const MEMBERS: f64 = 10.0;
const ENTRY_BYTES: f64 = 110.0;

/// Workers coordinate in one of these ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mode {
    /// `Coordination::Fleet`.
    Fleet,
    /// `Coordination::PerLease`.
    PerLease,
    /// The Java KCL 2.x.
    Java2,
}

/// How much is told to CloudWatch: of our catalogue of metrics, or with [`Mode::Java2`] of the KCL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Metrics {
    /// Nothing.
    None,
    /// The level SUMMARY.
    Summary,
    /// The level DETAILED.
    Detailed,
}

impl Metrics {
    /// Metrics for each shard, for each worker, and for the application; those of trouble are left out.
    fn counts(self, mode: Mode) -> (u64, u64, u64) {
        let level = match self {
            Self::None => return (0, 0, 0),
            Self::Summary => MetricsLevel::Summary,
            Self::Detailed => MetricsLevel::Detailed,
        };
        match (mode, self) {
            (Mode::Java2, Self::Summary) => (6, 12, 20),
            (Mode::Java2, _) => (12, 25, 40),
            (Mode::Fleet | Mode::PerLease, _) => {
                let mut counts = (0, 0, 0);
                for metric in Metric::ALL.iter().map(|metric| metric.descriptor()) {
                    match metric.dimensions {
                        _ if metric.level > level => {}
                        [Dimension::ShardId] => counts.0 += 1,
                        [Dimension::WorkerIdentifier] => counts.1 += 1,
                        [] => counts.2 += 1,
                        _ => {}
                    }
                }
                counts
            }
        }
    }
}

/// What the bill depends on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CostInput {
    /// Leases, or shards.
    pub shards: u64,
    /// Workers.
    pub workers: u64,
    /// How they coordinate.
    pub mode: Mode,
    /// The lease duration.
    pub lease_duration: Duration,
    /// How often each shard is checkpointed; none: never.
    pub checkpoint_interval: Option<Duration>,
    /// Bytes of a lease row; `docs/cost.md` says about 450.
    pub row_bytes: u64,
    /// Bytes of a worker's id.
    pub worker_id_bytes: u64,
    /// Units a second, read and write, if the table is provisioned.
    pub provisioned: Option<(u64, u64)>,
    /// What is told to CloudWatch.
    pub metrics: Metrics,
    /// Enhanced fan-out consumers.
    pub fan_out_consumers: u64,
    /// What is written to the stream, in bytes a second.
    pub bytes_per_second: f64,
}

/// A line of the bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// The service.
    pub service: &'static str,
    /// What for.
    pub what: String,
    /// How much of it a month.
    pub amount: f64,
    /// In which unit.
    pub unit: &'static str,
    /// US dollars a month.
    pub dollars: f64,
}

/// The bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// What it was made for.
    pub input: CostInput,
    /// Write units of the lease table a minute.
    pub write_units_per_minute: f64,
    /// Read units of the lease table a minute.
    pub read_units_per_minute: f64,
    /// The lines.
    pub items: Vec<Item>,
    /// US dollars a month.
    pub dollars: f64,
    /// The region of the prices.
    pub prices_region: String,
    /// The age of the prices.
    pub prices_as_of: String,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// Write and read units of the lease table a minute, at rest and without checkpoints (`docs/cost.md`, "Formulas").
#[must_use]
pub fn units(input: &CostInput) -> (f64, f64) {
    let (workers, leases) = (input.workers as f64, input.shards as f64);
    let beats = 180.0 / input.lease_duration.as_secs_f64();
    let bytes = leases * input.row_bytes as f64;
    let listing = (bytes / 4_096.0).ceil() / 2.0;
    match input.mode {
        Mode::Fleet => {
            let rows = (workers / MEMBERS).ceil();
            let row = MEMBERS.min(workers) * (ENTRY_BYTES + input.worker_id_bytes as f64);
            let looks = workers * (60.0 + 60.0 * (rows - 1.0) / rows);
            let between_audits = (leases / 200.0).ceil().clamp(1.0, 10.0);
            let audits = 1.05 * ((workers - 1.0) / between_audits + 1.0);
            (
                beats * workers * (row / 1_024.0).ceil(),
                looks * (row / 4_096.0).ceil() / 2.0 + audits * listing,
            )
        }
        Mode::PerLease => {
            // 15.8 listings a minute at the default `lease_scan_interval` of 4 s for a lease duration of 10 s.
            let listings = 15.8 * 10.0 / input.lease_duration.as_secs_f64();
            (beats * leases, listings * workers * listing)
        }
        Mode::Java2 => {
            let failover = input.lease_duration.as_secs_f64() * 1_000.0;
            let renewals = 60_000.0 / (failover / 3.0 - 25.0).max(1.0);
            let scans = 60_000.0 / (2.0 * (failover + 25.0)) + 0.2;
            (renewals * leases, (scans * workers + 0.5) * listing)
        }
    }
}

/// Write units a minute that checkpoints add. In `PerLease` they are renewals, and cost only what they are more often.
fn checkpoints(input: &CostInput) -> f64 {
    let Some(interval) = input.checkpoint_interval else { return 0.0 };
    let rate = 60.0 / interval.as_secs_f64() * input.shards as f64;
    match input.mode {
        Mode::Fleet | Mode::Java2 => rate,
        Mode::PerLease => (rate - 180.0 / input.lease_duration.as_secs_f64() * input.shards as f64).max(0.0),
    }
}

impl Cost {
    /// Makes the bill.
    #[must_use]
    pub fn of(input: CostInput, prices: &Prices) -> Self {
        let mut items = Vec::new();
        let mut item = |service, what: &str, amount: f64, unit, price: f64| {
            if amount > 0.0 {
                items.push(Item { service, what: what.to_owned(), amount, unit, dollars: amount * price });
            }
        };
        let (at_rest, reads) = units(&input);
        let checkpoints = checkpoints(&input);
        let d = &prices.dynamodb;
        match input.provisioned {
            None => {
                let million = MINUTES / 1e6;
                item(
                    "DynamoDB",
                    "heartbeats and renewals",
                    at_rest * million,
                    "million write units",
                    d.million_write_units,
                );
                item(
                    "DynamoDB",
                    "checkpoints",
                    checkpoints * million,
                    "million write units",
                    d.million_write_units,
                );
                item(
                    "DynamoDB",
                    "looks and listings",
                    reads * million,
                    "million read units",
                    d.million_read_units,
                );
            }
            Some((read, write)) => {
                item("DynamoDB", "provisioned writes", write as f64 * 730.0, "unit hours", d.write_unit_hour);
                item("DynamoDB", "provisioned reads", read as f64 * 730.0, "unit hours", d.read_unit_hour);
            }
        }
        let gigabytes = (input.shards * input.row_bytes) as f64 / 1_073_741_824.0;
        item("DynamoDB", "storage", gigabytes, "GB", d.gb_month);

        let (per_shard, per_worker, global) = input.metrics.counts(input.mode);
        let metrics = per_shard * input.shards + per_worker * input.workers + global;
        if metrics > 0 {
            let average = prices.metrics(metrics) / metrics as f64;
            item("CloudWatch", "custom metrics", metrics as f64, "metrics", average);
            // Each worker sends every 10 s, up to 1,000 data in a request.
            let share = (per_shard * input.shards) as f64 / input.workers.max(1) as f64
                + (per_worker + global) as f64;
            let requests = input.workers as f64 * 6.0 * MINUTES * (share / 1_000.0).ceil();
            item(
                "CloudWatch",
                "PutMetricData",
                requests / 1_000.0,
                "thousand requests",
                prices.cloudwatch.thousand_requests,
            );
        }
        let hours = (input.fan_out_consumers * input.shards) as f64 * 730.0;
        item(
            "Kinesis",
            "fan-out consumers",
            hours,
            "consumer-shard hours",
            prices.kinesis.fan_out_shard_hour,
        );
        let read = input.fan_out_consumers as f64 * input.bytes_per_second * MINUTES * 60.0 / 1_073_741_824.0;
        item("Kinesis", "fan-out data", read, "GB", prices.kinesis.fan_out_gb);

        let mut notes = vec![format!(
            "prices of {} as of {}: check them (--print-prices), AWS changes them",
            prices.region, prices.as_of
        )];
        if let Some((read, write)) = input.provisioned {
            let needed = ((at_rest + checkpoints) / 60.0, reads / 60.0);
            if needed.0 > write as f64 || needed.1 > read as f64 {
                notes.push(format!(
                    "the table is too small: it needs {:.1} write and {:.1} read units a second at rest",
                    needed.0, needed.1
                ));
            }
        }
        if input.fan_out_consumers > 0 && input.bytes_per_second == 0.0 {
            notes.push("fan-out data is left out: give --rate and --record-size".to_owned());
        }
        notes.push("at rest: changes of ownership, the free tier and taxes are left out".to_owned());
        Self {
            dollars: items.iter().map(|item| item.dollars).sum(),
            write_units_per_minute: at_rest + checkpoints,
            read_units_per_minute: reads,
            items,
            prices_region: prices.region.clone(),
            prices_as_of: prices.as_of.clone(),
            notes,
            input,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CostInput { shards, workers, mode, .. } = &self.input;
        let mode = mode.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        writeln!(f, "{shards} shards, {workers} workers, {mode}")?;
        writeln!(
            f,
            "lease table: {:.0} write units and {:.0} read units a minute\n",
            self.write_units_per_minute, self.read_units_per_minute
        )?;
        let mut columns = Columns::headed(["SERVICE", "WHAT", "A MONTH", "UNIT", "US DOLLARS"]);
        for item in &self.items {
            columns.row([
                item.service.to_owned(),
                item.what.clone(),
                if item.amount < 10.0 {
                    format!("{:.3}", item.amount)
                } else {
                    format!("{:.0}", item.amount)
                },
                item.unit.to_owned(),
                format!("{:.2}", item.dollars),
            ]);
        }
        columns.row([
            "total".into(),
            String::new(),
            String::new(),
            String::new(),
            format!("{:.2}", self.dollars),
        ]);
        write!(f, "{columns}")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::DEFAULT_PRICES;

    fn input(shards: u64, workers: u64, mode: Mode) -> CostInput {
        CostInput {
            shards,
            workers,
            mode,
            lease_duration: Duration::from_secs(10),
            checkpoint_interval: None,
            row_bytes: 450,
            worker_id_bytes: 46,
            provisioned: None,
            metrics: Metrics::None,
            fan_out_consumers: 0,
            bytes_per_second: 0.0,
        }
    }

    /// The table of `docs/cost.md`: leases, workers, and write and read units of the three modes a minute.
    #[test]
    fn the_formulas_give_the_table_of_the_documentation() {
        for (leases, workers, fleet, per_lease, java) in [
            (10, 2, (36.0, 62.0), (180.0, 16.0), (181.0, 7.0)),
            (100, 4, (72.0, 143.0), (1_800.0, 316.0), (1_814.0, 73.0)),
            (1_000, 20, (720.0, 1_172.0), (17_996.0, 15_472.0), (18_140.0, 3_472.0)),
            (5_000, 50, (1_800.0, 4_374.0), (89_987.0, 193_305.0), (90_700.0, 43_120.0)),
            (20_000, 200, (7_200.0, 35_400.0), (360_000.0, 3_090_000.0), (362_800.0, 688_000.0)),
        ] {
            // The rows of the simulated tables: tokens and ids of members make those of a fleet longer.
            for (mode, row_bytes, (writes, reads)) in
                [(Mode::Fleet, 441, fleet), (Mode::PerLease, 400, per_lease), (Mode::Java2, 441, java)]
            {
                let found = units(&CostInput { row_bytes, ..input(leases, workers, mode) });
                for (found, documented) in [(found.0, writes), (found.1, reads)] {
                    let off: f64 = (found - documented) / documented;
                    assert!(off.abs() < 0.02, "{mode:?} {leases} {workers}: {found} and not {documented}");
                }
            }
        }
    }

    #[test]
    fn the_bill_adds_up() {
        let prices = Prices::parse(DEFAULT_PRICES).unwrap();
        let mut input = input(100, 4, Mode::Fleet);
        input.metrics = Metrics::Detailed;
        input.fan_out_consumers = 2;
        input.bytes_per_second = 1_048_576.0;
        input.checkpoint_interval = Some(Duration::from_secs(60));
        let cost = Cost::of(input, &prices);
        let dollars = |what: &str| cost.items.iter().find(|item| item.what == what).unwrap().dollars;
        // 72 units a minute, twice as many where rows take two KB; 100 checkpoints a minute.
        assert!((dollars("heartbeats and renewals") - 72.0 * 43_800.0 / 1e6 * 0.625).abs() < 1e-9);
        assert!((dollars("checkpoints") - 100.0 * 43_800.0 / 1e6 * 0.625).abs() < 1e-9);
        // 14 a shard, 23 a worker, 28 in all.
        assert!((dollars("custom metrics") - 1_520.0 * 0.30).abs() < 1e-6);
        assert!((dollars("fan-out consumers") - 200.0 * 730.0 * 0.015).abs() < 1e-6);
        assert!((dollars("fan-out data") - 2.0 * 2_628_000.0 / 1_024.0 * 0.013).abs() < 1e-6);
        let sum: f64 = cost.items.iter().map(|item| item.dollars).sum();
        assert!((cost.dollars - sum).abs() < 1e-9);
    }

    #[test]
    fn checkpoints_renew_in_per_lease() {
        let mut input = input(100, 4, Mode::PerLease);
        input.checkpoint_interval = Some(Duration::from_secs(5));
        assert!(checkpoints(&input).abs() < 1e-9);
        input.checkpoint_interval = Some(Duration::from_secs(1));
        assert!((checkpoints(&input) - 100.0 * (60.0 - 18.0)).abs() < 1e-9);
    }

    #[test]
    fn a_provisioned_table_that_is_too_small_is_told() {
        let prices = Prices::parse(DEFAULT_PRICES).unwrap();
        let mut input = input(1_000, 20, Mode::PerLease);
        input.provisioned = Some((10, 10));
        let cost = Cost::of(input, &prices);
        assert!(cost.notes.iter().any(|note| note.contains("too small")), "{:?}", cost.notes);
    }
}
