//! D-2: the stored checkpoint never passes what was acknowledged and never goes back; and the part of L-2 that shows
//! there: what was reported as stored is stored.

use std::collections::{BTreeMap, BTreeSet};

use kcl_core::model::Checkpoint;
use kcl_core::{Position, ShardId};

use super::{Finding, Promise};

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    acknowledged: BTreeMap<ShardId, Position>,
    finished: BTreeSet<ShardId>,
    /// The furthest checkpoint that ever landed.
    landed: BTreeMap<ShardId, Checkpoint>,
}

impl Checkpoints {
    pub(super) fn acknowledge(&mut self, shard: &ShardId, position: Position) {
        let known = self.acknowledged.entry(shard.clone()).or_insert(position);
        *known = (*known).max(position);
    }

    pub(super) fn finish(&mut self, shard: &ShardId) {
        self.finished.insert(shard.clone());
    }

    /// Up to where records need not be kept any more.
    pub(super) fn passed(&self, shard: &ShardId) -> Option<Position> {
        self.acknowledged.get(shard).copied()
    }

    /// The row is gone: what comes in its place starts anew.
    pub(super) fn forget(&mut self, shard: &ShardId) {
        self.landed.remove(shard);
    }

    pub(super) fn store(
        &mut self,
        shard: &ShardId,
        before: Option<Checkpoint>,
        stored: Checkpoint,
    ) -> Finding {
        let broken = |seen: String| Some((Promise::D2, seen));
        if before.is_some_and(|before| before > stored) {
            return broken(format!("the checkpoint of {shard} goes back from {before:?} to {stored}"));
        }
        if before != Some(stored) {
            match stored {
                Checkpoint::At(position)
                    if self.acknowledged.get(shard).is_none_or(|ack| position > *ack) =>
                {
                    let ack = self.acknowledged.get(shard);
                    return broken(format!("checkpoint {position} of {shard}, acknowledged {ack:?}"));
                }
                Checkpoint::ShardEnd if !self.finished.contains(shard) => {
                    return broken(format!("{shard} is stored as ended before shard_ended succeeded"));
                }
                _ => {}
            }
        }
        let landed = self.landed.entry(shard.clone()).or_insert(stored);
        *landed = (*landed).max(stored);
        None
    }

    /// L-2: whether a checkpoint that was reported as stored is.
    pub(super) fn is_stored(&self, shard: &ShardId, position: Position) -> Finding {
        let landed = self.landed.get(shard);
        let stored = landed.is_none_or(|landed| *landed >= Checkpoint::At(position));
        (!stored).then(|| {
            let seen = format!("checkpoint {position} of {shard} was reported as stored; {landed:?} is");
            (Promise::L2, seen)
        })
    }
}
