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

    /// Counts what was read and not acknowledged by anybody yet. As much as is allowed may wait, and as much be in the
    /// hands of the processor; an answer is asked for while there is room, so each may be exceeded by one.
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
        let most = 2 * (limit + read.largest);
        (bytes > most).then(|| {
            let seen =
                format!("{life} read {bytes} bytes of {shard} that are not processed, at most {most} may be");
            (Promise::M1, seen)
        })
    }
}
