//! Which rows of ended shards to delete.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::lineage::{Lineage, ShardGraph};
use super::overlap;
use super::sync::{is_trimmed, witnesses};
use crate::lease::{Lease, LeaseTable};
use crate::model::{Checkpoint, Shard, ShardId};

/// What the plan of rows to delete depends on.
#[derive(Clone, Copy, Debug)]
pub struct CleanupInput<'a> {
    /// The lease rows of the stream, by shard.
    pub leases: &'a LeaseTable,
    /// Every shard the stream lists, open and closed.
    pub shards: &'a [Shard],
    /// For how long each row has been seen at `SHARD_END`; a row that is not here was not seen so yet.
    pub ended_for: &'a BTreeMap<ShardId, Duration>,
    /// How long a row is kept after its end was first seen, so that a late write cannot bring it back.
    pub retention: Duration,
}

/// The rows to delete, in this order, and the leases whose shards are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupPlan {
    /// The rows to delete, parents first.
    pub delete: Vec<Deletion>,
    /// Unfinished leases whose shards left the listing: their records are lost. They are not deleted; the
    /// consumer of such a lease finds the shard gone, reports the loss and ends it.
    pub trimmed: Vec<TrimmedLease>,
}

/// A row to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The row as it was seen; delete it only while its counter and checkpoint are these.
    pub lease: Lease,
    /// Why it is not needed any more.
    pub reason: DeleteReason,
}

/// Why a row is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteReason {
    /// Every child was started.
    ChildrenStarted,
    /// The shard and its children left the listing, and whatever follows in its hash keys was started.
    SuccessorsStarted,
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChildrenStarted => "ended and every child was started",
            Self::SuccessorsStarted => "ended and no longer listed, and its successors were started",
        })
    }
}

/// An unfinished lease whose shard left the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrimmedLease {
    /// The shard.
    pub shard: ShardId,
    /// How far it was processed; what came after is lost.
    pub checkpoint: Checkpoint,
}

impl fmt::Display for TrimmedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stream no longer lists a shard that was not finished, records after the checkpoint are lost; \
             its lease is ended and its successors are read from their beginning: shard={} checkpoint={}",
            self.shard, self.checkpoint
        )
    }
}

/// Plans which rows to delete.
///
/// A row goes once it has been at `SHARD_END` for the retention, every child has a real checkpoint (or has had
/// one and is itself deleted), and no row of a parent stays behind. Applying the plan and planning again gives
/// an empty plan, and no shard whose row was deleted is ever created again by [`plan_sync`](super::plan_sync):
/// the rows of its descendants prove that it was processed.
#[must_use]
pub fn leases_to_delete(input: &CleanupInput<'_>) -> CleanupPlan {
    let graph = ShardGraph::new(input.shards);
    let (by_age, _circular) = graph.by_age();
    let witnesses = witnesses(&graph, &by_age, input.leases);
    let has_gap = has_gap(input, &by_age, &witnesses);
    let cleanup = Cleanup { input, lineage: Lineage::new(input.leases), witnesses, has_gap, graph };
    cleanup.plan()
}

struct Cleanup<'a> {
    input: &'a CleanupInput<'a>,
    graph: ShardGraph<'a>,
    lineage: Lineage<'a>,
    witnesses: BTreeMap<&'a ShardId, &'a Lease>,
    /// Whether some listed shard still has to get a lease that no end of a parent will bring.
    has_gap: bool,
}

/// Whether a listed shard has no row, was not processed, and no unfinished ancestor will create its lease.
fn has_gap(input: &CleanupInput<'_>, by_age: &[&Shard], witnesses: &BTreeMap<&ShardId, &Lease>) -> bool {
    let mut unfinished: BTreeSet<&ShardId> = BTreeSet::new();
    by_age.iter().any(|shard| {
        let covered = match input.leases.get(&shard.id) {
            Some(lease) => !lease.is_ended(),
            None => shard.parents().any(|parent| unfinished.contains(parent)),
        };
        if covered {
            unfinished.insert(&shard.id);
        }
        !covered && !input.leases.contains_key(&shard.id) && !witnesses.contains_key(&shard.id)
    })
}

impl Cleanup<'_> {
    fn plan(&self) -> CleanupPlan {
        let trimmed = self
            .input
            .leases
            .values()
            .filter(|lease| !lease.is_ended())
            .filter(|lease| is_trimmed(lease, &self.graph))
            .map(|lease| TrimmedLease { shard: lease.shard.clone(), checkpoint: lease.checkpoint })
            .collect();
        let mut deletable: BTreeMap<&ShardId, DeleteReason> = self
            .input
            .leases
            .values()
            .filter_map(|lease| Some((&lease.shard, self.reason(lease)?)))
            .collect();
        let mut delete = Vec::new();
        let mut gone: BTreeSet<&ShardId> = BTreeSet::new();
        loop {
            let next: Vec<_> = deletable
                .iter()
                .filter(|(shard, _)| self.rows_of_parents(shard).all(|parent| gone.contains(parent)))
                .map(|(shard, reason)| (*shard, *reason))
                .collect();
            if next.is_empty() {
                break;
            }
            for (shard, reason) in next {
                deletable.remove(shard);
                gone.insert(shard);
                delete.extend(
                    self.input.leases.get(shard).map(|lease| Deletion { lease: Lease::clone(lease), reason }),
                );
            }
        }
        CleanupPlan { delete, trimmed }
    }

    fn rows_of_parents(&self, shard: &ShardId) -> impl Iterator<Item = &ShardId> {
        let named = self.input.leases.get(shard).into_iter().flat_map(|lease| &lease.parents);
        named.chain(self.graph.parents(shard)).filter(|parent| self.input.leases.contains_key(*parent))
    }

    fn reason(&self, lease: &Lease) -> Option<DeleteReason> {
        let ended_for = self.input.ended_for.get(&lease.shard)?;
        if !lease.is_ended() || *ended_for < self.input.retention {
            return None;
        }
        if self.has_gap && lease.start_timestamp.is_some() {
            // A first start that was cut short is completed as of the time this row remembers.
            return None;
        }
        let children: BTreeSet<_> = self
            .lineage
            .children(&lease.shard)
            .chain(self.graph.children(&lease.shard))
            .filter(|child| self.graph.is_listed(child) || self.input.leases.contains_key(*child))
            .collect();
        if !children.is_empty() {
            let started = children.into_iter().all(|child| self.is_started(child));
            return started.then_some(DeleteReason::ChildrenStarted);
        }
        if self.graph.is_listed(&lease.shard) {
            // Its children are not listed yet, or the stream is being deleted.
            return None;
        }
        let mut successors = self
            .graph
            .roots()
            .filter(|root| lease.hash_key_range.is_none_or(|range| overlap(&range, &root.hash_key_range)))
            .peekable();
        successors.peek()?;
        successors.all(|root| self.is_started(&root.id)).then_some(DeleteReason::SuccessorsStarted)
    }

    fn is_started(&self, shard: &ShardId) -> bool {
        match self.input.leases.get(shard) {
            Some(lease) => lease.checkpoint.is_real(),
            None => self.witnesses.contains_key(shard),
        }
    }
}

#[cfg(test)]
mod tests;
