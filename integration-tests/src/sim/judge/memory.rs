//! M-1: what is read ahead of the processor stays within the budget.

use std::collections::{BTreeMap, VecDeque};

use kcl_core::{Position, ShardId};

use super::{Finding, Life, Promise};

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What each reader read, in order, by where it ends.
    read: BTreeMap<(Life, u64), Read>,
}

#[derive(Debug, Default)]
struct Read {
    waiting: VecDeque<(Position, usize)>,
    /// The payload of the largest answer.
    largest: usize,
}

impl Memory {
    pub(super) fn fetch(&mut self, life: &Life, reader: u64, records: &[(Position, usize)]) {
        let read = self.read.entry((life.clone(), reader)).or_default();
        read.largest = read.largest.max(records.iter().map(|(_, bytes)| bytes).sum());
        read.waiting.extend(records);
    }

    /// Counts what was read and not acknowledged by anybody yet; an answer is asked for while there is room, so the
    /// limit may be exceeded by one.
    pub(super) fn check(
        &mut self,
        life: &Life,
        reader: u64,
        shard: &ShardId,
        passed: Option<Position>,
        limit: usize,
    ) -> Finding {
        let read = self.read.get_mut(&(life.clone(), reader))?;
        while let Some((at, _)) = read.waiting.front()
            && passed.is_some_and(|passed| at.sequence <= passed.sequence)
        {
            read.waiting.pop_front();
        }
        let bytes: usize = read.waiting.iter().map(|(_, bytes)| bytes).sum();
        (bytes > limit + read.largest).then(|| {
            let seen =
                format!("{life} read {bytes} bytes of {shard} ahead, and {limit} are allowed, and an answer");
            (Promise::M1, seen)
        })
    }
}
