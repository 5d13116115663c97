//! What happened in a run, in order of virtual time.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kcl_core::lease::Lease;
use kcl_core::{Callback, Position, ShardId};

/// Which hold of a shard by which worker a processor was made for: the number of the processor in the run.
pub type Instance = u64;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The world did something, or a worker reported something.
    Said(String),
    /// Records `first` to `last` of a key were put.
    Put {
        /// The key.
        key: String,
        /// The counter of the first.
        first: u64,
        /// The counter of the last.
        last: u64,
        /// Whether as an aggregate.
        aggregated: bool,
    },
    /// A callback began.
    Began {
        /// The processor.
        instance: Instance,
        /// Its worker.
        worker: String,
        /// Its shard.
        shard: ShardId,
        /// The callback.
        callback: Callback,
        /// How often the batch failed before.
        attempt: u32,
        /// First and last position and number of the records.
        batch: Option<(Position, Position, usize)>,
    },
    /// A callback ended.
    Ended {
        /// The processor.
        instance: Instance,
        /// The callback.
        callback: Callback,
        /// How.
        outcome: &'static str,
    },
    /// A processor asked for a checkpoint; this is the answer.
    Checkpointed {
        /// The processor.
        instance: Instance,
        /// The position, if one was named.
        position: Option<Position>,
        /// The answer.
        answer: String,
    },
    /// A write landed in the lease table.
    Wrote {
        /// The life of the worker that wrote.
        worker: String,
        /// The call.
        call: &'static str,
        /// The row afterwards.
        row: Box<Lease>,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) => f.write_str(text),
            Self::Put { key, first, last, aggregated } => {
                let how = if *aggregated { " in an aggregate" } else { "" };
                write!(f, "put {key}:{first}..={last}{how}")
            }
            Self::Began { instance, worker, shard, callback, attempt, batch } => {
                write!(f, "{worker} #{instance} {shard} {callback} begins")?;
                if let Some((first, last, records)) = batch {
                    write!(f, ": {records} records, {first} to {last}")?;
                }
                if *attempt > 0 { write!(f, ", attempt {attempt}") } else { Ok(()) }
            }
            Self::Ended { instance, callback, outcome } => write!(f, "#{instance} {callback} {outcome}"),
            Self::Checkpointed { instance, position, answer } => match position {
                Some(position) => write!(f, "#{instance} checkpoint at {position}: {answer}"),
                None => write!(f, "#{instance} checkpoint: {answer}"),
            },
            Self::Wrote { worker, call, row } => {
                let owner = row.owner.as_ref().map_or("-", |owner| owner.as_str());
                write!(
                    f,
                    "{worker} {call} landed: {} owner {owner} counter {} checkpoint {}",
                    row.shard, row.counter, row.checkpoint
                )?;
                match &row.requested_by {
                    Some(worker) => write!(f, " requested by {worker}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Everything that happened so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<(Duration, Entry)>,
}

impl History {
    /// Adds what happened at `at`.
    pub fn push(&mut self, at: Duration, entry: Entry) {
        self.entries.push((at, entry));
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What happened, each with its time.
    pub fn entries(&self) -> impl Iterator<Item = (Duration, &Entry)> {
        self.entries.iter().map(|(at, entry)| (*at, entry))
    }

    /// A line for each entry.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.entries.iter().map(|(at, entry)| format!("{:>10.4} {entry}", at.as_secs_f64()))
    }

    /// A number that two histories share if they are the same, line for line.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for line in self.lines() {
            line.hash(&mut hasher);
        }
        hasher.finish()
    }
}
