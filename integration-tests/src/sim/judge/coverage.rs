//! S-2: unfinished leases and pending children cover the hash keys.

use kcl_core::ShardId;

use super::{Finding, Promise, State};

impl State {
    /// An open shard that nobody processes or will come to, if there is one.
    pub(super) fn uncovered(&self) -> Finding {
        if self.rows.is_empty() {
            // Nobody has started yet.
            return None;
        }
        for (shard, truth) in self.shards.iter().filter(|(_, truth)| truth.open) {
            if self.rows.get(shard).is_some_and(|row| row.is_ended()) {
                return Some((Promise::S2, format!("{shard} is open and stored as ended")));
            }
            if !self.is_awaited(shard) {
                let range = truth.range;
                let seen = format!(
                    "nothing covers {shard} ({range:?}): no lease, and none of its ancestors will end"
                );
                return Some((Promise::S2, seen));
            }
        }
        None
    }

    /// Whether the shard has a lease, or will get one when its parents end.
    fn is_awaited(&self, shard: &ShardId) -> bool {
        if let Some(row) = self.rows.get(shard) {
            return !row.is_ended();
        }
        let Some(truth) = self.shards.get(shard) else { return false };
        !truth.parents.is_empty() && truth.parents.iter().all(|parent| self.is_awaited(parent))
    }
}
