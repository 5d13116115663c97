//! Who descends from whom, by what the stream lists and by what the lease rows remember.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::lease::{Lease, LeaseTable};
use crate::model::{Checkpoint, SequenceNumber, Shard, ShardId};
use crate::plant::{Plant, planted};

/// The listed shards of a stream by id, with their children.
#[derive(Clone, Debug)]
pub struct ShardGraph<'a> {
    shards: BTreeMap<&'a ShardId, &'a Shard>,
    children: BTreeMap<&'a ShardId, BTreeSet<&'a ShardId>>,
}

impl<'a> ShardGraph<'a> {
    /// Arranges a listing. Parents that are no longer listed are remembered as ids only.
    #[must_use]
    pub fn new(shards: &'a [Shard]) -> Self {
        let mut children: BTreeMap<&ShardId, BTreeSet<&ShardId>> = BTreeMap::new();
        for shard in shards {
            for parent in shard.parents() {
                children.entry(parent).or_default().insert(&shard.id);
            }
        }
        Self { shards: shards.iter().map(|shard| (&shard.id, shard)).collect(), children }
    }

    /// The shard with this id, if the stream lists it.
    #[must_use]
    pub fn get(&self, id: &ShardId) -> Option<&'a Shard> {
        self.shards.get(id).copied()
    }

    /// Whether the stream lists the shard.
    #[must_use]
    pub fn is_listed(&self, id: &ShardId) -> bool {
        self.shards.contains_key(id)
    }

    /// The listed shard that was made last: ids grow.
    #[must_use]
    pub fn youngest(&self) -> Option<&'a Shard> {
        self.shards.values().next_back().copied()
    }

    /// Every listed shard, in the order of ids.
    pub fn shards(&self) -> impl Iterator<Item = &'a Shard> {
        self.shards.values().copied()
    }

    /// The shards that still take records.
    pub fn open(&self) -> impl Iterator<Item = &'a Shard> {
        self.shards().filter(|shard| shard.is_open())
    }

    /// The shards that take no more records.
    pub fn closed(&self) -> impl Iterator<Item = &'a Shard> {
        self.shards().filter(|shard| !shard.is_open())
    }

    /// The shards none of whose parents is listed: the oldest that can still be read.
    pub fn roots(&self) -> impl Iterator<Item = &'a Shard> {
        self.shards().filter(|shard| !shard.parents().any(|parent| self.is_listed(parent)))
    }

    /// The ids of the shard's parents, listed or not.
    pub fn parents(&self, id: &ShardId) -> impl Iterator<Item = &'a ShardId> + use<'a> {
        self.get(id).into_iter().flat_map(Shard::parents)
    }

    /// The ids of the listed shards that name this one as a parent; it need not be listed itself.
    pub fn children(&self, id: &ShardId) -> impl Iterator<Item = &'a ShardId> {
        self.children.get(id).into_iter().flatten().copied()
    }

    /// The listed shards, parents before children and otherwise by starting sequence number and id, and those
    /// that are left because they descend from themselves (a listing no stream should give).
    pub(super) fn by_age(&self) -> (Vec<&'a Shard>, Vec<&'a Shard>) {
        let key = |shard: &'a Shard| -> (SequenceNumber, &'a ShardId) {
            (shard.starting_sequence_number, &shard.id)
        };
        let mut unplaced_parents: BTreeMap<&ShardId, usize> = self
            .shards()
            .map(|shard| {
                let parents: BTreeSet<_> = shard.parents().filter(|id| self.is_listed(id)).collect();
                (&shard.id, parents.len())
            })
            .collect();
        let mut ready: BTreeSet<_> = self.roots().map(key).collect();
        let mut placed = Vec::with_capacity(self.shards.len());
        while let Some((_, id)) = ready.pop_first() {
            unplaced_parents.remove(id);
            placed.extend(self.get(id));
            for child in self.children(id).filter_map(|child| self.get(child)) {
                if let Some(unplaced) = unplaced_parents.get_mut(&child.id) {
                    *unplaced -= 1;
                    if *unplaced == 0 {
                        ready.insert(key(child));
                    }
                }
            }
        }
        let circular = unplaced_parents.keys().filter_map(|id| self.get(id)).collect();
        (placed, circular)
    }
}

/// Descent as the lease rows remember it, and what it proves.
///
/// A row names its shard's parents and, once the shard has ended, its children; both are used.
#[derive(Clone, Debug)]
pub struct Lineage<'a> {
    leases: &'a LeaseTable,
    children: BTreeMap<&'a ShardId, BTreeSet<&'a ShardId>>,
}

impl<'a> Lineage<'a> {
    /// Arranges the rows of a table.
    #[must_use]
    pub fn new(leases: &'a LeaseTable) -> Self {
        let mut children: BTreeMap<&ShardId, BTreeSet<&ShardId>> = BTreeMap::new();
        for lease in leases.values() {
            for parent in &lease.parents {
                children.entry(parent).or_default().insert(&lease.shard);
            }
            if !lease.children.is_empty() {
                children.entry(&lease.shard).or_default().extend(&lease.children);
            }
        }
        Self { leases, children }
    }

    /// The ids of the shard's children, as far as rows know them.
    pub fn children(&self, id: &ShardId) -> impl Iterator<Item = &'a ShardId> {
        self.children.get(id).into_iter().flatten().copied()
    }

    /// A descendant that has been delivered from or has ended. It proves that the shard was finished, because
    /// no shard is started before its parents have ended (S-1).
    #[must_use]
    pub fn started_descendant(&self, id: &ShardId) -> Option<&'a Lease> {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<_> = self.children(id).collect();
        while let Some(descendant) = ahead.pop() {
            if !seen.insert(descendant) {
                continue;
            }
            match self.leases.get(descendant) {
                Some(lease) if lease.checkpoint.is_real() => return Some(lease),
                _ => ahead.extend(self.children(descendant)),
            }
        }
        None
    }

    /// Judges whether the shard of `lease` may be started (S-1, RE-4).
    ///
    /// A parent is done if
    /// - its row is at `SHARD_END`, or
    /// - one of its descendants has a real checkpoint: it was started, so the parent had ended, or
    /// - it has no row and is not `awaited`.
    ///
    /// `awaited` says of a shard without a row whether it still has to get one: [`SyncPlan::awaits`] of a plan
    /// over a listing and rows of now. A parent that the stream no longer lists, or that the start position
    /// passes over (`LATEST`), is not awaited.
    ///
    /// [`SyncPlan::awaits`]: super::SyncPlan::awaits
    #[must_use]
    pub fn parents_done(&self, lease: &Lease, awaited: &dyn Fn(&ShardId) -> bool) -> ParentsDone {
        let mut waiting = Vec::new();
        if lease.checkpoint.is_real() {
            return ParentsDone { waiting };
        }
        if planted(Plant::IgnoreParents) {
            return ParentsDone { waiting };
        }
        let looked_at = if planted(Plant::IgnoreOneParent) { 1 } else { usize::MAX };
        for parent in lease.parents.iter().take(looked_at) {
            let reason = match self.leases.get(parent) {
                Some(row) if row.is_ended() => continue,
                Some(row) => WaitReason::Unfinished(row.checkpoint),
                None if awaited(parent) => WaitReason::NoLeaseYet,
                None => continue,
            };
            if self.started_descendant(parent).is_none() {
                waiting.push(WaitingParent { parent: parent.clone(), reason });
            }
        }
        ParentsDone { waiting }
    }
}

/// Judges whether the shard of `lease` may be started: [`Lineage::parents_done`] for a single question.
#[must_use]
pub fn parents_done(lease: &Lease, leases: &LeaseTable, awaited: &dyn Fn(&ShardId) -> bool) -> ParentsDone {
    Lineage::new(leases).parents_done(lease, awaited)
}

/// The answer whether a shard's parents are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentsDone {
    /// The parents that are not done, in the order of ids.
    pub waiting: Vec<WaitingParent>,
}

impl ParentsDone {
    /// Whether every parent is done, so that the shard may be started.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl fmt::Display for ParentsDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.waiting.is_empty() {
            return f.write_str("all parents are done");
        }
        f.write_str("waiting for ")?;
        for (index, parent) in self.waiting.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{} ({})", parent.parent, parent.reason)?;
        }
        Ok(())
    }
}

/// A parent that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingParent {
    /// The parent.
    pub parent: ShardId,
    /// Why it counts as not done.
    pub reason: WaitReason,
}

/// Why a parent counts as not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// Its row is not at `SHARD_END` but here.
    Unfinished(Checkpoint),
    /// It has no row yet and will get one.
    NoLeaseYet,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished(checkpoint) => write!(f, "at {checkpoint}"),
            Self::NoLeaseYet => f.write_str("has no lease yet"),
        }
    }
}

#[cfg(test)]
mod tests;
