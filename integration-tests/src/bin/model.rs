//! The model of the fleet protocol: `cargo run --release -p integration-tests --bin model -- check`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's own output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use integration_tests::model::broken::Broken;
use integration_tests::model::checks::{CHECKS, Check, EXPLORATIONS, refutation_bounds};
use integration_tests::model::fleet::{Config, Fleet};
use integration_tests::model::rows::{self, Rows};
use integration_tests::model::run::{Limits, Report, explore};
use integration_tests::model::split::{self, Split};

/// Explores the fleet protocol state by state, with all its rules and without each of them.
#[derive(Debug, Parser)]
#[command(name = "model")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks the unbroken rules within stated bounds.
    Check,
    /// Refutes every variant with a rule removed, and checks the unbroken rules within the same bounds.
    Refute,
    /// Prints the shortest counter-example of a variant.
    Trace {
        /// The variant, as `refute` names it.
        variant: String,
    },
    /// Goes on with larger bounds for so long, and says how far it came.
    Explore {
        /// How many minutes for each configuration.
        #[arg(long, default_value_t = 5)]
        minutes: u64,
        /// Only the configurations whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
    },
}

fn main() -> ExitCode {
    let as_expected = match Arguments::parse().command {
        Command::Check => check(),
        Command::Refute => refute(),
        Command::Trace { variant } => trace(&variant),
        Command::Explore { minutes, only } => further(minutes, &only),
    };
    if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn line(name: &str, report: &Report) -> bool {
    println!("{name:<48} {report}");
    report.is_clean()
}

fn run_check(check: &Check, time: Option<Duration>) -> bool {
    let limits = Limits { states: check.states, time, threads: threads() };
    line(check.name, &explore(Fleet::new(check.config), limits, &[]))
}

fn check() -> bool {
    let mut clean = true;
    for check in &CHECKS {
        clean &= run_check(check, None);
    }
    for (name, model) in [("merge (R9, R5b)", Split::MERGE), ("split (R9, R5b)", Split::SPLIT)] {
        clean &= line(name, &explore(model, Limits::SHORTEST, &[]));
    }
    clean & line("fleet rows (R3)", &explore(Rows { broken: None }, Limits::SHORTEST, &[]))
}

fn refute() -> bool {
    let mut expected = true;
    for config in refutation_bounds() {
        let Config { rows, leave, rejoin, moves, late_writes, positions, callbacks, rates, .. } = config;
        let drift = u8::from(rates != Config::SMALL.rates);
        let bounds = format!(
            "unbroken: rows {rows}, leave {}, rejoin {}, moves {}, late {}, positions {positions}, callbacks {}, drift {drift}",
            u8::from(leave),
            u8::from(rejoin),
            u8::from(moves),
            u8::from(late_writes),
            u8::from(callbacks)
        );
        let limits = Limits { threads: threads(), ..Limits::SHORTEST };
        expected &= line(&bounds, &explore(Fleet::new(config), limits, &[]));
    }
    for (name, property, report) in variants() {
        let steps = report.counter_example(property).map(<[String]>::len);
        let verdict = match steps {
            Some(steps) => format!("{property} falls in {} steps", steps - 1),
            None => format!("NOT REFUTED: {property} holds"),
        };
        println!("{name:<28} {:>9} states: {verdict}", report.states);
        expected &= steps.is_some();
    }
    expected
}

/// Every variant, with the property that must fall.
fn variants() -> impl Iterator<Item = (&'static str, &'static str, Report)> {
    let fleet = Broken::ALL.into_iter().filter_map(|broken| run_variant(broken.name()));
    let split = split::Broken::ALL.into_iter().filter_map(|broken| run_variant(broken.name()));
    let rows = rows::Broken::ALL.into_iter().filter_map(|broken| run_variant(broken.name()));
    fleet.chain(split).chain(rows)
}

fn run_variant(name: &str) -> Option<(&'static str, &'static str, Report)> {
    if let Some(broken) = Broken::named(name) {
        let model = Fleet::without(broken.config(), broken);
        let property = broken.property();
        return Some((broken.name(), property, explore(model, Limits::SHORTEST, &[property])));
    }
    if let Some(broken) = split::Broken::ALL.into_iter().find(|broken| broken.name() == name) {
        let model = Split { broken: Some(broken), ..Split::MERGE };
        let property = broken.property();
        return Some((broken.name(), property, explore(model, Limits::SHORTEST, &[property])));
    }
    let broken = rows::Broken::ALL.into_iter().find(|broken| broken.name() == name)?;
    Some((broken.name(), "ROW", explore(Rows { broken: Some(broken) }, Limits::SHORTEST, &["ROW"])))
}

fn trace(variant: &str) -> bool {
    // Without symmetry workers keep their numbers from step to step.
    let found = match Broken::named(variant) {
        Some(broken) => {
            let config = Config { symmetry: false, ..broken.config() };
            let property = broken.property();
            let report = explore(Fleet::without(config, broken), Limits::SHORTEST, &[property]);
            Some((broken.name(), property, report))
        }
        None => run_variant(variant),
    };
    let Some((name, property, report)) = found else {
        eprintln!("there is no variant {variant}; refute prints them all");
        return false;
    };
    let Some(steps) = report.counter_example(property) else {
        println!("{name}: {property} holds");
        return false;
    };
    println!("{name}: {property} falls");
    for (number, step) in steps.iter().enumerate() {
        println!("{number:>4}  {step}");
    }
    true
}

fn further(minutes: u64, only: &str) -> bool {
    let time = Duration::from_secs(minutes * 60);
    let mut clean = true;
    for check in EXPLORATIONS.iter().filter(|check| check.name.contains(only)) {
        clean &= run_check(check, Some(time));
    }
    clean
}
