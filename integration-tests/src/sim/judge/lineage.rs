//! S-1: no child before its parents' ends are stored, and children have leases before that.

use kcl_core::ShardId;
use kcl_core::lease::Lease;
use kcl_core::testing::STREAM;
use kcl_local::kinesis::ShardFilter;

use super::{Finding, Promise, State};

impl State {
    /// A callback of `shard` begins: its parents' rows say that they have ended, or are gone for good.
    pub(super) fn parents_before(&self, shard: &ShardId) -> Finding {
        let truth = self.shards.get(shard)?;
        let unfinished = truth.parents.iter().find(|parent| {
            !self.ended.contains(*parent) && self.rows.get(*parent).is_some_and(|row| !row.is_ended())
        })?;
        // Of a shard that was started before, the parent's row can only be one that somebody made anew.
        let started = self.rows.get(shard).is_some_and(|row| row.checkpoint.is_real());
        (!started).then(|| {
            let checkpoint = self.rows.get(unfinished).map(|row| row.checkpoint);
            (Promise::S1, format!("{shard} starts while its parent {unfinished} is at {checkpoint:?}"))
        })
    }

    /// The end of `shard` was stored: every child that the stream has of it has a row.
    pub(super) fn children_have_leases(&self, shard: &ShardId) -> Finding {
        let children = self.shards.iter().filter(|(_, truth)| truth.parents.contains(shard));
        let orphan = children
            .map(|(child, _)| child)
            .find(|child| !self.rows.contains_key(*child) && self.has_not_expired(child))?;
        // Rows of children that have ended themselves may have been deleted, and only those.
        let grown = |child: &ShardId| {
            self.shards.iter().any(|(id, truth)| {
                truth.parents.contains(child)
                    && self.rows.get(id).is_some_and(|row: &Lease| row.checkpoint.is_real())
            })
        };
        (!grown(orphan)).then(|| {
            (Promise::S1, format!("{shard} is stored as ended, and its child {orphan} has no lease"))
        })
    }

    fn has_not_expired(&self, shard: &ShardId) -> bool {
        self.terms.retention.is_none()
            || self
                .kinesis
                .shards(STREAM, ShardFilter::FromTrimHorizon)
                .is_ok_and(|listed| listed.iter().any(|listed| *listed.shard_id == *shard.as_str()))
    }
}
