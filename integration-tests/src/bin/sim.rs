//! The fleet simulator: `cargo run --release -p integration-tests --bin sim -- --seeds 1000`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's own output")]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use integration_tests::bill::{Beginning, Question, SoFar};
use integration_tests::sim::plan::{Plan, Reading, Wire, Wishes};
use integration_tests::sim::plants::{PLANTINGS, Planting};
use integration_tests::sim::run::run;
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use integration_tests::sim::world::Verdict;
use kcl_core::Coordination;

/// Runs whole fleets in virtual time, makes them fail, and says which promise is broken, if any.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed: a number, or a hexadecimal one such as 0x1f.
    #[arg(long, default_value = "0")]
    from: Seed,
    /// Runs this seed alone and prints its history.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<Seed>,
    /// How many seeds run at a time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// What the runs are about; "list" prints what there is.
    #[arg(long, default_value = "any")]
    scenario: String,
    /// How many shards the stream has, whatever the seed says.
    #[arg(long)]
    shards: Option<u32>,
    /// How many workers start, whatever the seed says.
    #[arg(long)]
    workers: Option<usize>,
    /// Over the model ("model") or the AWS SDK ("sdk"), whatever the seed says.
    #[arg(long, value_parser = wire)]
    wire: Option<Wire>,
    /// By polling ("polling") or by fan-out ("fan-out"), whatever the seed says.
    #[arg(long, value_parser = reading)]
    reading: Option<Reading>,
    /// As a fleet ("fleet") or lease by lease ("per-lease"), whatever the seed says.
    #[arg(long, value_parser = coordination)]
    coordination: Option<Coordination>,
    /// Plants a bug, by its name.
    #[arg(long)]
    plant: Option<String>,
    /// Prints a line of the seed, its history's digest and its outcome for each run.
    #[arg(long)]
    digests: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints what a fleet at rest asks of its lease table, in requests and units per minute by operation.
    Bill {
        /// How many workers.
        #[arg(long)]
        workers: usize,
        /// How many shards.
        #[arg(long)]
        shards: u32,
        /// As a fleet ("fleet") or lease by lease ("per-lease").
        #[arg(long, value_parser = coordination, default_value = "fleet")]
        coordination: Coordination,
        /// Starts one worker, and the others once it has every lease.
        #[arg(long)]
        joining: bool,
        /// Lets no worker have more leases than its share, so that a large fleet comes to rest soon.
        #[arg(long, conflicts_with = "joining")]
        capped: bool,
        /// How many minutes are simulated.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// Fails if the run and the formulas of docs/cost.md differ by more than a tenth, or if a fleet moved a lease.
        #[arg(long)]
        check: bool,
    },
    /// Plants every bug there is and fails if one is not noticed.
    Plants {
        /// Only the one of this name.
        #[arg(long)]
        only: Option<String>,
    },
}

fn wire(text: &str) -> Result<Wire, String> {
    match text {
        "model" => Ok(Wire::Model),
        "sdk" => Ok(Wire::Sdk),
        _ => Err(format!("{text:?} is neither \"model\" nor \"sdk\"")),
    }
}

fn reading(text: &str) -> Result<Reading, String> {
    match text {
        "polling" => Ok(Reading::Polling),
        "fan-out" => Ok(Reading::FanOut),
        _ => Err(format!("{text:?} is neither \"polling\" nor \"fan-out\"")),
    }
}

fn coordination(text: &str) -> Result<Coordination, String> {
    match text {
        "fleet" => Ok(Coordination::Fleet),
        "per-lease" => Ok(Coordination::PerLease),
        _ => Err(format!("{text:?} is neither \"fleet\" nor \"per-lease\"")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(Command::Plants { only }) => plants(only.as_deref(), arguments.jobs),
        Some(Command::Bill { workers, shards, coordination, joining, capped, minutes, check }) => {
            let (workers, shards, coordination) = (*workers, *shards, *coordination);
            let beginning = match (joining, capped) {
                (true, _) => Beginning::Joining,
                (false, true) => Beginning::Capped,
                (false, false) => Beginning::Together,
            };
            let time = Duration::from_secs(60) * *minutes;
            bill(Question { workers, shards, coordination, beginning, time }, *check)
        }
        None => seeds(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

/// How far a run may be from the formulas.
const TOLERANCE: f64 = 0.1;

fn bill(question: Question, check: bool) -> Result<bool, String> {
    let answer = question.answer_telling(|so_far| match so_far {
        SoFar::Settling(after, owned, (most, least)) => {
            eprintln!("after {after:?}: {owned} leases are owned, {least} to {most} by each worker");
        }
        SoFar::AtRest(answer) => {
            let (minutes, rates) = (answer.minutes(), answer.total());
            eprintln!(
                "after {minutes:.0} minutes at rest: {:.1} requests, {:.1} read and {:.1} write units a minute",
                rates.requests, rates.read_units, rates.write_units
            );
        }
    });
    let answer = answer.map_err(|error| error.to_string())?;
    println!("{answer}");
    let difference = answer.difference();
    println!("the formula is off by {:.1} % at most", difference * 100.0);
    let rests = question.coordination != Coordination::Fleet || answer.lease_writes() == 0;
    Ok(!check || (difference <= TOLERANCE && rests))
}

fn seeds(arguments: &Arguments) -> Result<bool, String> {
    if arguments.scenario == "list" {
        for scenario in Scenario::ALL {
            println!("{scenario}");
        }
        return Ok(true);
    }
    let scenario: Scenario = arguments.scenario.parse().map_err(|error| format!("{error}"))?;
    let bug = match &arguments.plant {
        Some(name) => Some(planting(name)?.plant),
        None => None,
    };
    let wishes = Wishes {
        shards: arguments.shards,
        workers: arguments.workers,
        wire: arguments.wire,
        reading: arguments.reading,
        coordination: arguments.coordination,
    };
    let draw = |seed| Plan::draw(Seed(seed), scenario, wishes).map_err(|error| error.to_string());
    if let Some(seed) = arguments.seed {
        let plan = draw(seed.0)?;
        println!("{plan}\n");
        let verdict = run(plan, bug);
        for line in verdict.history.lines() {
            println!("{line}");
        }
        println!("\n{}", verdict.state);
        println!("{}", outcome(&verdict));
        return Ok(verdict.breach.is_none());
    }
    if arguments.jobs == 0 {
        return Err("--jobs must be at least 1".to_owned());
    }
    // A plan that cannot be is told before anything runs.
    draw(arguments.from.0)?;
    let begun = clock();
    let bar = progress(arguments.seeds);
    let totals = Totals::default();
    in_parallel(arguments.from.0, arguments.seeds, arguments.jobs, |seed| {
        let verdict = match draw(seed) {
            Ok(plan) => run(plan, bug),
            Err(problem) => return bar.println(format!("seed {seed}: {problem}")),
        };
        totals.add(&verdict);
        if arguments.digests {
            bar.suspend(|| println!("{seed} {:016x} {}", verdict.history.digest(), outcome(&verdict)));
        } else if verdict.breach.is_some() {
            let (story, again) = (outcome(&verdict), replay(arguments, seed));
            bar.suspend(|| println!("{story}\n{}\nreplay: {again}\n", end_of(&verdict)));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    println!("{}", totals.line(scenario, clock().saturating_sub(begun)));
    Ok(totals.broken.load(Ordering::Relaxed) == 0)
}

/// How to run a seed again and see everything.
fn replay(arguments: &Arguments, seed: u64) -> String {
    let mut command = format!("cargo run --release -p integration-tests --bin sim -- --seed {seed}");
    if arguments.scenario != "any" {
        command += &format!(" --scenario {}", arguments.scenario);
    }
    if let Some(shards) = arguments.shards {
        command += &format!(" --shards {shards}");
    }
    if let Some(workers) = arguments.workers {
        command += &format!(" --workers {workers}");
    }
    if let Some(wire) = arguments.wire {
        command += &format!(" --wire {}", if wire == Wire::Sdk { "sdk" } else { "model" });
    }
    if let Some(reading) = arguments.reading {
        command += &format!(" --reading {}", if reading == Reading::FanOut { "fan-out" } else { "polling" });
    }
    if let Some(coordination) = arguments.coordination {
        let name = if coordination == Coordination::Fleet { "fleet" } else { "per-lease" };
        command += &format!(" --coordination {name}");
    }
    if let Some(plant) = &arguments.plant {
        command += &format!(" --plant {plant}");
    }
    command
}

fn outcome(verdict: &Verdict) -> String {
    let seed = verdict.plan.seed;
    match &verdict.breach {
        Some(breach) => format!("seed {seed}: {breach}"),
        None => format!("seed {seed}: every promise kept for {:.1} s", verdict.took.as_secs_f64()),
    }
}

/// The last of what happened, and the state at the end.
fn end_of(verdict: &Verdict) -> String {
    const SHOWN: usize = 40;
    let skipped = verdict.history.len().saturating_sub(SHOWN);
    let lines: Vec<String> = verdict.history.lines().skip(skipped).collect();
    format!("{}\n{}", lines.join("\n"), verdict.state)
}

#[derive(Debug, Default)]
struct Totals {
    runs: AtomicU64,
    broken: AtomicU64,
    millis: AtomicU64,
    put: AtomicU64,
    delivered: AtomicU64,
    entries: AtomicU64,
}

impl Totals {
    fn add(&self, verdict: &Verdict) {
        let add = |total: &AtomicU64, more: u64| total.fetch_add(more, Ordering::Relaxed);
        add(&self.runs, 1);
        add(&self.broken, u64::from(verdict.breach.is_some()));
        add(&self.millis, u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX));
        add(&self.put, verdict.records.0);
        add(&self.delivered, verdict.records.1);
        add(&self.entries, verdict.history.len() as u64);
    }

    fn line(&self, scenario: Scenario, took: Duration) -> String {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        format!(
            "{scenario}: {} seeds, {} broken; {:.1} virtual hours, {} records put, {} delivered, {} events, in {:.1} s",
            of(&self.runs),
            of(&self.broken),
            of(&self.millis) as f64 / 3_600_000.0,
            of(&self.put),
            of(&self.delivered),
            of(&self.entries),
            took.as_secs_f64()
        )
    }
}

fn progress(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} to go");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Real time since the process began to ask for it.
#[allow(clippy::disallowed_methods, reason = "how long the simulator itself takes is real time")]
fn clock() -> Duration {
    static BEGUN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(std::time::Instant::now).elapsed()
}

/// Runs the seeds on so many threads.
fn in_parallel(from: u64, count: u64, jobs: usize, run: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    run(from.wrapping_add(index));
                }
            });
        }
    });
}

fn planting(name: &str) -> Result<&'static Planting, String> {
    PLANTINGS.iter().find(|planting| planting.plant.name() == name).ok_or_else(|| {
        let names: Vec<_> = PLANTINGS.iter().map(|planting| planting.plant.name()).collect();
        format!("no bug is called {name:?}; there are: {}", names.join(", "))
    })
}

fn plants(only: Option<&str>, jobs: usize) -> Result<bool, String> {
    let plantings: Vec<&Planting> = match only {
        Some(name) => vec![planting(name)?],
        None => PLANTINGS.iter().collect(),
    };
    let mut unnoticed = 0;
    for planting in &plantings {
        let noticed = notice(planting, jobs.max(1));
        let name = planting.plant.name();
        match noticed {
            Some((seed, breach)) if planting.breaks.contains(&breach.promise) => {
                println!("{name:<28} noticed by seed {seed} of {}: {breach}", planting.scenario);
            }
            Some((seed, breach)) => {
                unnoticed += 1;
                println!("{name:<28} MISTAKEN by seed {seed} of {}: {breach}", planting.scenario);
            }
            None => {
                unnoticed += 1;
                println!("{name:<28} NOT NOTICED in {} seeds of {}", planting.seeds, planting.scenario);
            }
        }
        let _ = std::io::stdout().flush();
    }
    println!("{} bugs planted, {unnoticed} not noticed", plantings.len());
    Ok(unnoticed == 0)
}

/// The lowest of the seeds run that notices the bug.
fn notice(planting: &Planting, jobs: usize) -> Option<(u64, integration_tests::sim::judge::Breach)> {
    let found = Mutex::new(None);
    let over = AtomicBool::new(false);
    in_parallel(0, planting.seeds, jobs, |seed| {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let (reading, coordination) = (Some(planting.reading), Some(planting.coordination));
        let wishes = Wishes { wire: planting.wire, reading, coordination, ..Wishes::default() };
        let Ok(plan) = Plan::draw(Seed(seed), planting.scenario, wishes) else { return };
        if let Some(breach) = run(plan, Some(planting.plant)).breach {
            over.store(true, Ordering::Relaxed);
            if let Ok(mut found) = found.lock() {
                let earlier = found.as_ref().is_some_and(|(known, _)| *known < seed);
                if !earlier {
                    *found = Some((seed, breach));
                }
            }
        }
    });
    found.into_inner().ok().flatten()
}
