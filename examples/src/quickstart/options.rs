use std::fmt;
use std::time::Duration;

use kcl_core::Coordination;

/// What `--help` prints.
pub const HELP: &str = "\
A fleet of workers consumes a local stream through a reshard and a crash; every record is accounted for.

usage: cargo run -p examples --example quickstart -- [OPTIONS]

  --duration SECONDS  how long the scenario takes, 10 to 3600; default 60. The end comes a few seconds later,
                      when every record was delivered
  --seed NUMBER       what the producer writes when, and the jitter of the workers; default 1. Records differ by
                      it; how threads interleave does not depend on it
  --coordination WAY  how workers agree on who processes what: fleet (default) or per-lease
  --retrieval WAY     how workers read: polling (default), or fan-out, which subscribes to each shard
  --help              this text

Exit code 0: nothing lost, order per key held, everything checkpointed. 1: not so. 2: unknown arguments.";

/// How the scenario is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long it takes; the steps are spread over it. Default 60 s.
    pub duration: Duration,
    /// Seeds the producer and the workers' jitter. Default 1.
    pub seed: u64,
    /// How workers agree on who processes what. Default: as a fleet.
    pub coordination: Coordination,
    /// How workers read. Default: by polling.
    pub reading: Reading,
}

/// How a worker reads its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// By `GetRecords`.
    #[default]
    Polling,
    /// By `SubscribeToShard`.
    FanOut,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(60),
            seed: 1,
            coordination: Coordination::Fleet,
            reading: Reading::Polling,
        }
    }
}

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To run the scenario.
    Run(Options),
    /// To print [`HELP`].
    Help,
}

/// The arguments make no sense; says which and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; --help lists what is known", self.0)
    }
}

impl std::error::Error for UsageError {}

impl Command {
    /// Reads the arguments that follow the program's name.
    ///
    /// # Errors
    /// An unknown argument, a missing value, or one out of range.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, joined) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            match name {
                "--coordination" => {
                    let ways = [("fleet", Coordination::Fleet), ("per-lease", Coordination::PerLease)];
                    let value = joined.or_else(|| arguments.next());
                    options.coordination = one_of(name, value.as_deref(), ways)?;
                    continue;
                }
                "--retrieval" => {
                    let ways = [("polling", Reading::Polling), ("fan-out", Reading::FanOut)];
                    let value = joined.or_else(|| arguments.next());
                    options.reading = one_of(name, value.as_deref(), ways)?;
                    continue;
                }
                _ => {}
            }
            let mut number = |range: std::ops::RangeInclusive<u64>| {
                let value = joined.clone().or_else(|| arguments.next());
                let value = value.ok_or_else(|| UsageError(format!("{name} needs a value")))?;
                let parsed = value.parse::<u64>().ok().filter(|number| range.contains(number));
                let (least, most) = range.into_inner();
                parsed.ok_or_else(|| {
                    UsageError(format!("{name} takes a number from {least} to {most}, not {value:?}"))
                })
            };
            match name {
                "--duration" => options.duration = Duration::from_secs(number(10..=3600)?),
                "--seed" => options.seed = number(0..=u64::MAX)?,
                "--help" | "-h" if joined.is_none() => return Ok(Self::Help),
                _ => return Err(UsageError(format!("unknown argument {argument:?}"))),
            }
        }
        Ok(Self::Run(options))
    }
}

/// The choice that `value` names.
fn one_of<T: Copy>(name: &str, value: Option<&str>, ways: [(&str, T); 2]) -> Result<T, UsageError> {
    let [(one, _), (other, _)] = ways;
    let value = value.unwrap_or("nothing");
    let way = ways.iter().find(|(way, _)| *way == value);
    way.map(|(_, way)| *way)
        .ok_or_else(|| UsageError(format!("{name} takes {one} or {other}, not {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command, UsageError> {
        Command::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_in_both_spellings() {
        assert_eq!(parse(""), Ok(Command::Run(Options::default())));
        let expected = Options {
            duration: Duration::from_secs(15),
            seed: 42,
            coordination: Coordination::PerLease,
            reading: Reading::FanOut,
        };
        let text = "--duration 15 --seed=42 --coordination=per-lease --retrieval fan-out";
        assert_eq!(parse(text), Ok(Command::Run(expected)));
        assert_eq!(parse("--seed 3 --help"), Ok(Command::Help));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, named) in [
            ("--speed 3", "--speed"),
            ("15", "15"),
            ("--duration", "--duration"),
            ("--duration 9", "9"),
            ("--duration soon", "soon"),
            ("--seed -1", "-1"),
            ("--coordination anarchy", "anarchy"),
            ("--retrieval", "nothing"),
            ("--retrieval=osmosis", "osmosis"),
            ("--help=yes", "--help=yes"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
