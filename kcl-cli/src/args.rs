//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cost::{Metrics, Mode};
use crate::text::{Target, parse_amount, parse_bytes, parse_duration};

/// Looks at, repairs and reckons what an application of the Kinesis Client Library keeps in its lease table.
///
/// Works on tables of kcl-core and of the Java KCL 1.x to 3.x. Nothing is written that was not shown before. Exit codes:
/// 0 in order, 1 problems found (audit, config check, status --check), 2 failed or refused.
#[derive(Clone, Debug, Parser)]
#[command(name = "kcl", version)]
pub struct Cli {
    /// Where things are.
    #[command(flatten)]
    pub connection: Connection,
    /// Prints JSON with stable field names instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the services, the table and the stream are.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The application; also the name of its lease table.
    #[arg(long, short, global = true)]
    pub application: Option<String>,
    /// The lease table's name or ARN, if it is not the application's name.
    #[arg(long, global = true)]
    pub table: Option<String>,
    /// The stream's name or ARN. Without it the one that all rows name, if kcl-core wrote them.
    #[arg(long, short, global = true)]
    pub stream: Option<String>,
    /// The region; else AWS_REGION and the usual files.
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// The profile; else AWS_PROFILE.
    #[arg(long, global = true)]
    pub profile: Option<String>,
    /// Another endpoint for all services; else AWS_ENDPOINT_URL and its kin.
    #[arg(long, global = true)]
    pub endpoint_url: Option<String>,
    /// The lease duration (failoverTimeMillis) of workers whose rows do not say theirs.
    #[arg(long, global = true, default_value = "10s", value_parser = parse_duration)]
    pub lease_duration: Duration,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            application: None,
            table: None,
            stream: None,
            region: None,
            profile: None,
            endpoint_url: None,
            lease_duration: Duration::from_secs(10),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Shows shards, owners, stages, checkpoints, holes and orphans.
    Status(StatusArgs),
    /// Shows leases, frees them, gives or asks for them.
    #[command(subcommand)]
    Leases(LeasesCommand),
    /// Shows checkpoints and sets them.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Sets every lease back to a position, or deletes them all. Stop the workers first.
    Reset(ResetArgs),
    /// Writes the whole table to a file: every row with every attribute.
    Export {
        /// The file; else standard output.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Restores rows from a file that export has written.
    Import(ImportArgs),
    /// Looks for what is wrong: holes, unreadable and foreign rows, leases of another stream, mixed fleets.
    Audit(AuditArgs),
    /// Reckons what an application costs a month.
    Cost(CostArgs),
    /// Estimates the number of shards, shows their lineage.
    #[command(subcommand)]
    Shards(ShardsCommand),
    /// Checks files of configuration, converts those of the Java KCL.
    #[command(subcommand)]
    Config(ConfigCommand),
}

impl Command {
    /// Whether it asks no service, and so needs neither region nor credentials.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// Of `kcl status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Reads a record of each shard for lag and checkpoint age: GetShardIterator and GetRecords once a shard, which
    /// count against the 5 calls a second that consumers share.
    #[arg(long)]
    pub lag: bool,
    /// Shows it again and again, every so often (2s), until Ctrl-C.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration)]
    pub watch: Option<Duration>,
    /// Ends --watch after so many times.
    #[arg(long, requires = "watch")]
    pub count: Option<u64>,
    /// Ends with exit code 1 if there are problems.
    #[arg(long)]
    pub check: bool,
    /// Where the application starts on shards without history: TRIM_HORIZON, LATEST or a time. Else guessed from rows.
    #[arg(long, value_name = "POSITION")]
    pub initial_position: Option<Target>,
}

/// Of `kcl audit`.
#[derive(Clone, Debug, Default, Args)]
pub struct AuditArgs {
    /// Watches the owners, for at most two and a half lease durations, to tell those that are gone.
    #[arg(long)]
    pub watch: bool,
    /// Looks for checkpoints beyond the retention, at the price of status --lag.
    #[arg(long)]
    pub lag: bool,
    /// Where the application starts on shards without history: TRIM_HORIZON, LATEST or a time. Else guessed from rows.
    #[arg(long, value_name = "POSITION")]
    pub initial_position: Option<Target>,
}

/// How to write.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct WriteArgs {
    /// Says what would be written, and writes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Writes without a question.
    #[arg(long)]
    pub yes: bool,
    /// Writes although a lease may be live, without watching it first. Fences its owner.
    #[arg(long)]
    pub force: bool,
}

/// `kcl leases`.
#[derive(Clone, Debug, Subcommand)]
pub enum LeasesCommand {
    /// Shows every lease as it is stored.
    List,
    /// Shows one lease with every attribute of its row, known or not.
    Show {
        /// The lease's key: the shard's id.
        shard: String,
    },
    /// Frees leases whose owners are gone: removes leaseOwner. Watches the owners first.
    Release {
        /// The leases' keys.
        #[arg(required = true)]
        shards: Vec<String>,
        /// How to write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Gives a free lease, or one whose owner is gone, to a worker.
    Move {
        /// The lease's key.
        shard: String,
        /// The worker's id, as in leaseOwner.
        #[arg(long)]
        to: String,
        /// How to write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Asks the live owner to hand a lease over to a worker. Safe; only workers of kcl-core with PerLease answer.
    HandOver {
        /// The lease's key.
        shard: String,
        /// The worker's id, as in leaseOwner.
        #[arg(long, required_unless_present = "withdraw")]
        to: Option<String>,
        /// Takes back what was asked for.
        #[arg(long, conflicts_with = "to")]
        withdraw: bool,
        /// How to write.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// `kcl checkpoint`.
#[derive(Clone, Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Shows checkpoints.
    Show {
        /// The leases' keys; else all.
        shards: Vec<String>,
        /// Reads a record of each shard for lag and checkpoint age, as status --lag.
        #[arg(long)]
        lag: bool,
    },
    /// Sets the checkpoint of a lease whose owner is gone, or that is free. Watches the owner first.
    Set {
        /// The lease's key.
        shard: String,
        /// TRIM_HORIZON, LATEST, a time as 2026-01-31T12:00:00Z, or the sequence number (with /SUB inside an aggregate)
        /// of the last record that counts as processed.
        position: Target,
        /// How to write.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Of `kcl reset`.
#[derive(Clone, Debug, Args)]
#[group(id = "how", required = true, multiple = false, args = ["to", "delete_rows"])]
pub struct ResetArgs {
    /// TRIM_HORIZON, LATEST or a time.
    #[arg(long, value_name = "POSITION")]
    pub to: Option<Target>,
    /// Deletes every lease row; workers create them anew at the position they are configured with.
    #[arg(long)]
    pub delete_rows: bool,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Of `kcl import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The file.
    pub file: PathBuf,
    /// Replaces rows that are there and differ. Without it they are kept.
    #[arg(long)]
    pub overwrite: bool,
    /// Creates the table if there is none, on demand.
    #[arg(long)]
    pub create_table: bool,
    /// Restores the fleet rows too, which say who was a member at the time of the export.
    #[arg(long)]
    pub with_fleet: bool,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Of `kcl cost`.
#[derive(Clone, Debug, Args)]
pub struct CostArgs {
    /// Shards (leases). Else those of the lease table, if an application is given.
    #[arg(long)]
    pub shards: Option<u64>,
    /// Workers. Else the owners in the lease table.
    #[arg(long)]
    pub workers: Option<u64>,
    /// How workers coordinate. Else what the lease table shows, or fleet.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// How often each shard is checkpointed. Else checkpoints are left out.
    #[arg(long, value_parser = parse_duration)]
    pub checkpoint_interval: Option<Duration>,
    /// Bytes of a lease row.
    #[arg(long, default_value_t = 450)]
    pub row_bytes: u64,
    /// Bytes of a worker's id.
    #[arg(long, default_value_t = 50)]
    pub worker_id_bytes: u64,
    /// Read and write units a second of a provisioned table, as READ,WRITE. Else it is on demand.
    #[arg(long, value_name = "READ,WRITE", value_parser = parse_units)]
    pub provisioned: Option<(u64, u64)>,
    /// What is told to CloudWatch.
    #[arg(long, value_enum, default_value = "none")]
    pub metrics: Metrics,
    /// Applications that read with enhanced fan-out.
    #[arg(long, default_value_t = 0)]
    pub fan_out_consumers: u64,
    /// Records put a second, for what fan-out reads.
    #[arg(long, default_value = "0", value_parser = parse_amount)]
    pub rate: f64,
    /// The size of a record, as 2KB.
    #[arg(long, default_value = "0", value_parser = parse_bytes)]
    pub record_size: f64,
    /// A file of prices.
    #[arg(long)]
    pub prices: Option<PathBuf>,
    /// Prints the prices that are built in, to be edited, and ends.
    #[arg(long)]
    pub print_prices: bool,
}

/// `kcl shards`.
#[derive(Clone, Debug, Subcommand)]
pub enum ShardsCommand {
    /// Estimates how many shards a stream needs.
    Estimate {
        /// The size of a record as it is put, partition key included, as 2KB.
        #[arg(long, value_parser = parse_bytes)]
        record_size: f64,
        /// Records put a second, at the peak.
        #[arg(long, value_parser = parse_amount)]
        rate: f64,
        /// Applications that poll.
        #[arg(long, default_value_t = 1)]
        consumers: u64,
        /// Applications with enhanced fan-out.
        #[arg(long, default_value_t = 0)]
        fan_out_consumers: u64,
        /// The share of each shard, in percent, that stays unused.
        #[arg(long, default_value = "25", value_parser = parse_amount)]
        headroom: f64,
    },
    /// Shows who descends from whom, with leases if an application is given.
    Tree,
}

/// `kcl config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says what is wrong with a file: TOML of kcl-core, or .properties of the Java KCL. Exit code 1 if anything is.
    Check {
        /// The file; what ends in .properties is Java's.
        file: PathBuf,
        /// With TOML: takes the variables KCL_… of the environment, too, as a worker does.
        #[arg(long)]
        with_environment: bool,
    },
    /// Makes TOML of a .properties file of the Java KCL, and reports every key of it on standard error.
    Convert {
        /// The file.
        file: PathBuf,
    },
}

fn parse_units(text: &str) -> Result<(u64, u64), String> {
    let parse = || {
        let (read, write) = text.split_once(',')?;
        Some((read.trim().parse().ok()?, write.trim().parse().ok()?))
    };
    parse().ok_or_else(|| format!("not units: {text:?}; write them as READ,WRITE, for example 20,10"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_that_hold_everywhere_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["kcl", "leases", "list", "--application", "a", "--json"]).unwrap();
        assert_eq!(cli.connection.application.as_deref(), Some("a"));
        assert!(cli.json);
        let cli = Cli::try_parse_from(["kcl", "-a", "a", "status", "--watch", "--count", "2"]).unwrap();
        let Command::Status(status) = cli.command else { panic!() };
        assert_eq!((status.watch, status.count), (Some(Duration::from_secs(2)), Some(2)));
    }

    #[test]
    fn what_is_missing_or_contradicts_is_refused() {
        for line in [
            "kcl reset",
            "kcl reset --to LATEST --delete-rows",
            "kcl leases release",
            "kcl leases hand-over s",
            "kcl leases hand-over s --to w --withdraw",
            "kcl checkpoint set s SHARD_END",
            "kcl cost --provisioned 5",
            "kcl status --count 5",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
