//! P-1: callbacks of a processor are serial and in legal order, and one process has one processor of a shard at a
//! time; and the part of D-1 that shows there: a failed batch comes again before any other.

use std::collections::BTreeMap;

use kcl_core::{Callback, Position, ShardContext, ShardId};

use super::{Finding, Life, Promise};
use crate::sim::history::Instance;

/// First and last position and number of the records of a batch.
pub(super) type Batch = (Position, Position, usize);

#[derive(Debug, Default)]
pub(super) struct Callbacks {
    processors: BTreeMap<Instance, Processor>,
}

#[derive(Debug)]
struct Processor {
    life: Life,
    shard: ShardId,
    there: bool,
    running: Option<Callback>,
    last: Option<(Callback, bool)>,
    batch: Option<Batch>,
    attempt: u32,
    /// The last position of a batch handed over.
    reached: Option<Position>,
}

impl Callbacks {
    pub(super) fn create(&mut self, instance: Instance, life: Life, context: &ShardContext) {
        let processor = Processor {
            life,
            shard: context.shard.clone(),
            there: true,
            running: None,
            last: None,
            batch: None,
            attempt: 0,
            reached: context.checkpoint.position(),
        };
        self.processors.insert(instance, processor);
    }

    pub(super) fn gone(&mut self, instance: Instance) {
        if let Some(processor) = self.processors.get_mut(&instance) {
            (processor.there, processor.running) = (false, None);
        }
    }

    pub(super) fn of(&self, life: &Life) -> usize {
        self.processors.values().filter(|processor| processor.there && processor.life == *life).count()
    }

    pub(super) fn whose(&self, instance: Instance) -> Option<(Life, ShardId)> {
        let processor = self.processors.get(&instance)?;
        Some((processor.life.clone(), processor.shard.clone()))
    }

    pub(super) fn batch_of(&self, instance: Instance) -> Option<Batch> {
        self.processors.get(&instance)?.batch
    }

    pub(super) fn begin(
        &mut self,
        instance: Instance,
        callback: Callback,
        attempt: u32,
        batch: Option<Batch>,
    ) -> Finding {
        let processor = self.processors.get(&instance)?;
        let broken = |seen: String| Some((Promise::P1, format!("#{instance} {}: {seen}", processor.shard)));
        if let Some(running) = processor.running {
            return broken(format!("{callback} begins while {running} runs"));
        }
        let twin = self.processors.iter().find(|(other, twin)| {
            **other != instance
                && twin.there
                && twin.running.is_some()
                && twin.life == processor.life
                && twin.shard == processor.shard
        });
        if let Some((other, twin)) = twin {
            let running = twin.running.unwrap_or(callback);
            return broken(format!("{callback} begins while #{other} of the same worker runs {running}"));
        }
        if let Err(seen) = is_legal(processor.last, callback) {
            return broken(seen);
        }
        if let Some(finding) = processor.continues(instance, callback, attempt, batch) {
            return Some(finding);
        }
        let processor = self.processors.get_mut(&instance)?;
        processor.running = Some(callback);
        if callback == Callback::ProcessRecords {
            (processor.batch, processor.attempt) = (batch, attempt);
            processor.reached = processor.reached.max(batch.map(|(_, last, _)| last));
        }
        None
    }

    pub(super) fn end(&mut self, instance: Instance, callback: Callback, done: bool) {
        if let Some(processor) = self.processors.get_mut(&instance) {
            processor.running = None;
            processor.last = Some((callback, done));
        }
    }
}

impl Processor {
    /// D-1 within the life of a processor: the failed batch again, as it was; else what comes after the last.
    fn continues(
        &self,
        instance: Instance,
        callback: Callback,
        attempt: u32,
        batch: Option<Batch>,
    ) -> Finding {
        let failed = self.last == Some((Callback::ProcessRecords, false));
        let seen = match callback {
            Callback::ProcessRecords if failed => {
                (batch != self.batch || attempt != self.attempt + 1).then(|| {
                    format!(
                        "{batch:?} attempt {attempt} after {:?} attempt {} failed",
                        self.batch, self.attempt
                    )
                })
            }
            Callback::ProcessRecords => {
                let first = batch.map(|(first, ..)| first);
                (attempt != 0 || first.is_some() && first <= self.reached)
                    .then(|| format!("{batch:?} attempt {attempt} after {:?} was handed over", self.reached))
            }
            Callback::ShardEnded => failed.then(|| format!("shard_ended although {:?} failed", self.batch)),
            _ => None,
        };
        seen.map(|seen| (Promise::D1, format!("#{instance} {}: {seen}", self.shard)))
    }
}

fn is_legal(last: Option<(Callback, bool)>, next: Callback) -> Result<(), String> {
    use Callback::{Initialize, LeaseLost, ProcessRecords, ShardEnded, ShutdownRequested};
    let legal = match last {
        None | Some((Initialize, false)) => next == Initialize,
        Some((Initialize, true) | (ProcessRecords, _)) => next != Initialize,
        Some((ShardEnded, false)) => matches!(next, ShardEnded | ShutdownRequested | LeaseLost),
        Some((ShutdownRequested, true)) => next == LeaseLost,
        Some((ShutdownRequested, false)) => matches!(next, ShutdownRequested | LeaseLost),
        Some((ShardEnded, true) | (LeaseLost, _)) => false,
        Some(_) => true,
    };
    if legal {
        return Ok(());
    }
    Err(match last {
        None => format!("{next} comes first"),
        Some((last, done)) => format!("{next} after {last} (succeeded: {done})"),
    })
}
