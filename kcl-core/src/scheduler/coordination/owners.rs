use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::lease::{Lease, LeaseTable};
use crate::model::{ShardId, WorkerId};

/// Who owns a lease, and since when this worker has seen that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerSeen {
    /// The owner; none if the lease is free.
    pub owner: Option<WorkerId>,
    /// When this worker first saw that. No row says since when it is so.
    pub since: Instant,
}

impl OwnerSeen {
    /// An owner that was first seen then.
    #[must_use]
    pub const fn new(owner: Option<WorkerId>, since: Instant) -> Self {
        Self { owner, since }
    }
}

/// Remembers when each lease was first seen with its owner. Shown as it is; copied only when an owner changes.
#[derive(Debug, Default)]
pub(super) struct Owners {
    seen: Arc<BTreeMap<ShardId, OwnerSeen>>,
    /// The table this was compared with last.
    table: Arc<LeaseTable>,
}

impl Owners {
    /// Compares with the table as it is now, and returns what is known.
    pub(super) fn see(
        &mut self,
        leases: &Arc<LeaseTable>,
        now: Instant,
    ) -> Arc<BTreeMap<ShardId, OwnerSeen>> {
        if Arc::ptr_eq(leases, &self.table) {
            return Arc::clone(&self.seen);
        }
        self.table = Arc::clone(leases);
        // Hardly ever does an owner change: side by side, nothing is looked up.
        let is_news =
            |lease: &Lease, seen: Option<&OwnerSeen>| seen.is_none_or(|seen| seen.owner != lease.owner);
        let same = self.seen.len() == leases.len()
            && self
                .seen
                .iter()
                .zip(leases.iter())
                .all(|((known, seen), (shard, lease))| known == shard && !is_news(lease, Some(seen)));
        if !same {
            let seen = Arc::make_mut(&mut self.seen);
            seen.retain(|shard, _| leases.contains_key(shard));
            for lease in leases.values() {
                if is_news(lease, seen.get(&lease.shard)) {
                    seen.insert(lease.shard.clone(), OwnerSeen::new(lease.owner.clone(), now));
                }
            }
        }
        Arc::clone(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Checkpoint;

    #[tokio::test(start_paused = true)]
    async fn an_owner_counts_from_when_it_was_first_seen_and_what_is_shown_is_shared_until_one_changes() {
        let mut leases = BTreeMap::new();
        for (shard, owner) in [("a", Some("alpha")), ("b", None)] {
            let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
            lease.owner = owner.map(WorkerId::from);
            leases.insert(lease.shard.clone(), Arc::new(lease));
        }
        let start = Instant::now();
        let mut owners = Owners::default();
        let first = owners.see(&Arc::new(leases.clone()), start);
        assert_eq!(first["a"], OwnerSeen::new(Some("alpha".into()), start));
        let later = start + Duration::from_secs(5);
        assert!(Arc::ptr_eq(&first, &owners.see(&Arc::new(leases.clone()), later)), "nothing changed");
        Arc::make_mut(leases.get_mut("b").unwrap()).owner = Some("beta".into());
        Arc::make_mut(leases.get_mut("a").unwrap()).counter += 1;
        let second = owners.see(&Arc::new(leases.clone()), later);
        assert_eq!((second["a"].since, second["b"].since), (start, later));
        leases.remove("a");
        assert_eq!(owners.see(&Arc::new(leases), later).len(), 1);
    }
}
