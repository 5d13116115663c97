//! Which leases to create so that nothing the start position promised goes unread (S-2).
//!
//! Only the oldest readable shards of a lineage get leases here; the younger ones get theirs when their parents
//! end. So the leases that are not finished, together with the children still to come, cover every hash key,
//! and a lease row proves that whatever came before it is accounted for.
//!
//! | shard without a lease | gets one |
//! |---|---|
//! | it, or a descendant, was started, or starts at `LATEST` | never: it was processed, or passed over |
//! | a parent's row is at `SHARD_END` | now, from its beginning: a hole |
//! | a parent has an unfinished lease, or will get one | when that parent ends |
//! | its parent was processed and its row deleted | now, from its beginning: a hole |
//! | its parent, or an older ancestor, left the listing before it was finished | now, from its beginning |
//! | none of these: no history | now, at the start position (`LATEST`: if open) |
//!
//! "From its beginning" is `TRIM_HORIZON`. Where the application started at a timestamp and the parent may have
//! ended before it, it is `AT_TIMESTAMP`: the child may have been open at that time, and for a child that was
//! born later the two are the same.
//!
//! A first start that was cut short leaves a table that is not empty. Under `TRIM_HORIZON` and `AT_TIMESTAMP`
//! the rules above complete it. Under `LATEST` the rows that exist carry the time of that start; what has no
//! history is then read from that time on, closed shards included, because they may have been open then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use super::lineage::ShardGraph;
use super::{bounds, overlap};
use crate::lease::{Lease, LeaseTable};
use crate::model::{Checkpoint, ChildShard, InitialPosition, Shard, ShardId, StreamIdentity, WorkerId};

/// What the plan of leases to create depends on.
#[derive(Clone, Copy, Debug)]
pub struct SyncInput<'a> {
    /// Every shard the stream lists, open and closed.
    pub shards: &'a [Shard],
    /// The lease rows of the stream, by shard. Must be read before the shards are listed, or a shard that was
    /// split in between looks like a hole; creating its lease twice does no harm.
    pub leases: &'a LeaseTable,
    /// Where the application starts on shards without history.
    pub initial: InitialPosition,
    /// The stream, stored with every lease.
    pub stream: &'a StreamIdentity,
    /// The wall-clock time of this sync, stored with leases that start at `LATEST`.
    pub start_timestamp: Option<SystemTime>,
    /// Whether the table holds no lease at all, readable or not.
    pub first_start: bool,
}

/// The leases to create, in this order, and what looked odd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncPlan {
    /// The leases to create. Ancestors come first, so that a crash midway leaves a set that the next sync
    /// completes.
    pub create: Vec<PlannedLease>,
    /// The shards without a lease that get theirs when an ancestor ends.
    pub pending: BTreeSet<ShardId>,
    /// What looked odd in the listing. None of it stops the plan.
    pub problems: Vec<SyncProblem>,
}

impl SyncPlan {
    /// Whether the shard had no lease when the plan was made and must get one: now or when an ancestor ends.
    #[must_use]
    pub fn awaits(&self, shard: &ShardId) -> bool {
        self.pending.contains(shard) || self.create.iter().any(|planned| planned.lease.shard == *shard)
    }
}

/// A lease to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLease {
    /// The row, without owner.
    pub lease: Lease,
    /// Why it is needed.
    pub reason: CreateReason,
}

/// Why a lease is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateReason {
    /// Nothing is known of the shard or its kin: the start position applies.
    NoHistory,
    /// A first start at `LATEST` did not get as far as this shard: it is completed as of its own time.
    CompletesStart,
    /// This parent's row is at `SHARD_END`.
    ParentEnded(ShardId),
    /// The parent has no row, but this descendant of it was started or starts at `LATEST`.
    ParentProcessed {
        /// The descendant.
        witness: ShardId,
    },
    /// This ancestor has a lease row and left the listing; the generations between are gone too.
    AncestorTrimmed(ShardId),
}

impl fmt::Display for CreateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHistory => f.write_str("no history: starts at the initial position"),
            Self::CompletesStart => f.write_str("completes a first start that was cut short"),
            Self::ParentEnded(parent) => write!(f, "parent has ended: parent={parent}"),
            Self::ParentProcessed { witness } => {
                write!(f, "parent was processed: witness={witness}")
            }
            Self::AncestorTrimmed(ancestor) => {
                write!(f, "ancestor is no longer listed: ancestor={ancestor}")
            }
        }
    }
}

/// Something odd in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncProblem {
    /// Nothing is listed.
    NothingListed,
    /// A shard is listed as open although it has a child: the listing was made during a split or merge.
    OpenParent {
        /// The parent.
        parent: ShardId,
        /// The child.
        child: ShardId,
    },
    /// No listed shard takes these hash keys: the listing is incomplete. List again.
    UncoveredHashKeys {
        /// The first of them.
        first: u128,
        /// The last of them.
        last: u128,
    },
    /// A shard descends from itself; it is left alone.
    Circular(ShardId),
}

impl fmt::Display for SyncProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingListed => f.write_str("the stream lists no shards"),
            Self::OpenParent { parent, child } => {
                write!(f, "an open shard has a child: parent={parent} child={child}")
            }
            Self::UncoveredHashKeys { first, last } => {
                write!(f, "no listed shard takes these hash keys: first={first} last={last}")
            }
            Self::Circular(shard) => write!(f, "a shard descends from itself: shard={shard}"),
        }
    }
}

/// Plans the leases to create.
///
/// Applying the plan and planning again gives an empty plan.
#[must_use]
pub fn plan_sync(input: &SyncInput<'_>) -> SyncPlan {
    Sync::new(input).plan()
}

/// The leases of the children of a shard that is about to be marked as ended, owned by the one who ends it.
///
/// They start at their beginning. Only if nothing was delivered from a parent that starts at a timestamp does
/// the child start at that timestamp too: it may hold records from before it.
#[must_use]
pub fn child_leases(
    parent: &Lease,
    children: &[ChildShard],
    owner: &WorkerId,
    initial: InitialPosition,
    stream: &StreamIdentity,
) -> Vec<Lease> {
    let timestamp = match (parent.checkpoint, parent.start_timestamp, initial) {
        (Checkpoint::AtTimestamp, Some(stored), _) => Some(stored),
        (Checkpoint::AtTimestamp, None, InitialPosition::AtTimestamp(configured)) => Some(configured),
        _ => None,
    };
    let start = timestamp.map_or(Start::TRIM_HORIZON, Start::at_timestamp);
    children
        .iter()
        .map(|child| {
            let mut parents: BTreeSet<_> = child.parents.iter().cloned().collect();
            if parents.is_empty() {
                parents.insert(parent.shard.clone());
            }
            let mut lease = start.lease(child.id.clone(), stream);
            lease.owner = Some(owner.clone());
            lease.parents = parents;
            lease.hash_key_range = Some(child.hash_key_range);
            lease
        })
        .collect()
}

/// Where a new lease starts.
#[derive(Clone, Copy, Debug)]
struct Start {
    checkpoint: Checkpoint,
    timestamp: Option<SystemTime>,
}

impl Start {
    const TRIM_HORIZON: Self = Self { checkpoint: Checkpoint::TrimHorizon, timestamp: None };

    const fn at_timestamp(timestamp: SystemTime) -> Self {
        Self { checkpoint: Checkpoint::AtTimestamp, timestamp: Some(timestamp) }
    }

    const fn latest(timestamp: Option<SystemTime>) -> Self {
        Self { checkpoint: Checkpoint::Latest, timestamp }
    }

    fn lease(self, shard: ShardId, stream: &StreamIdentity) -> Lease {
        let mut lease = Lease::new(shard, self.checkpoint);
        lease.start_timestamp = self.timestamp;
        lease.stream = Some(stream.clone());
        lease
    }
}

/// What becomes of a listed shard.
#[derive(Clone, Copy, Debug)]
enum Fate<'a> {
    /// Its row is at `SHARD_END`.
    Ended,
    /// It has an unfinished row, or gets one now or when an ancestor ends.
    Covered,
    /// It has no row and was processed or passed over, as this row proves.
    Settled(&'a Lease),
    /// The start position passes it over.
    Skipped,
}

/// What a shard without a row descends from.
enum Origin<'a> {
    /// A parent will end and create the lease.
    Pending,
    /// A parent with a row at `SHARD_END`.
    Ended(&'a Lease),
    /// A parent without a row that was processed; the row proves it.
    Processed(&'a Lease),
    /// An ancestor with a row whose shard is no longer listed.
    Trimmed(&'a Lease),
    /// Nothing that is known.
    Nothing,
}

struct Sync<'a> {
    input: &'a SyncInput<'a>,
    graph: ShardGraph<'a>,
    /// The listed shards, parents first.
    by_age: Vec<&'a Shard>,
    /// The listed shards that descend from themselves.
    circular: Vec<&'a Shard>,
    /// For a listed shard: the row of a descendant that shows it was processed or passed over.
    witnesses: BTreeMap<&'a ShardId, &'a Lease>,
    /// The rows of shards that have left the listing.
    trimmed: Vec<&'a Lease>,
    /// The earliest start time that any row carries.
    epoch: Option<SystemTime>,
}

impl<'a> Sync<'a> {
    fn new(input: &'a SyncInput<'a>) -> Self {
        let graph = ShardGraph::new(input.shards);
        let trimmed =
            input.leases.values().map(|lease| &**lease).filter(|lease| is_trimmed(lease, &graph)).collect();
        let epoch = input.leases.values().filter_map(|lease| lease.start_timestamp).min();
        let (by_age, circular) = graph.by_age();
        let witnesses = witnesses(&graph, &by_age, input.leases);
        Self { input, graph, by_age, circular, witnesses, trimmed, epoch }
    }

    fn plan(&self) -> SyncPlan {
        let mut plan = SyncPlan { problems: self.problems(), ..SyncPlan::default() };
        let mut fates = BTreeMap::new();
        for shard in self.by_age.iter().copied() {
            let fate = match self.input.leases.get(&shard.id) {
                Some(lease) if lease.is_ended() => Fate::Ended,
                Some(_) => Fate::Covered,
                None => match self.witnesses.get(&shard.id) {
                    Some(witness) => Fate::Settled(witness),
                    None => self.plan_shard(shard, &fates, &mut plan),
                },
            };
            fates.insert(&shard.id, fate);
        }
        plan
    }

    fn plan_shard(
        &self,
        shard: &'a Shard,
        fates: &BTreeMap<&'a ShardId, Fate<'a>>,
        plan: &mut SyncPlan,
    ) -> Fate<'a> {
        let (start, reason) = match self.origin(shard, fates) {
            Origin::Pending => {
                plan.pending.insert(shard.id.clone());
                return Fate::Covered;
            }
            Origin::Ended(parent) => {
                (self.born_by_resharding(parent), CreateReason::ParentEnded(parent.shard.clone()))
            }
            Origin::Processed(witness) => (
                self.beside(witness, shard),
                CreateReason::ParentProcessed { witness: witness.shard.clone() },
            ),
            Origin::Trimmed(ancestor) => {
                (self.after_trimmed(ancestor), CreateReason::AncestorTrimmed(ancestor.shard.clone()))
            }
            Origin::Nothing => match self.without_history(shard) {
                Some(start) => start,
                None => return Fate::Skipped,
            },
        };
        let mut lease = start.lease(shard.id.clone(), self.input.stream);
        lease.parents = shard.parents().cloned().collect();
        lease.hash_key_range = Some(shard.hash_key_range);
        plan.create.push(PlannedLease { lease, reason });
        Fate::Covered
    }

    fn origin(&self, shard: &'a Shard, fates: &BTreeMap<&'a ShardId, Fate<'a>>) -> Origin<'a> {
        let mut origin = Origin::Nothing;
        for parent in shard.parents() {
            let row = self.input.leases.get(parent);
            let candidate = match (fates.get(parent), row) {
                (Some(Fate::Ended), Some(row)) => return Origin::Ended(row),
                (None, Some(row)) if row.is_ended() => return Origin::Ended(row),
                (Some(Fate::Covered), _) => Origin::Pending,
                (Some(Fate::Settled(witness)), _) => Origin::Processed(witness),
                (None, Some(row)) if is_trimmed(row, &self.graph) => Origin::Trimmed(row),
                // The row of a shard too young for this listing, or of a parent the listing puts after its child.
                (None, Some(_)) => Origin::Pending,
                (Some(Fate::Ended | Fate::Skipped) | None, _) => Origin::Nothing,
            };
            if !matches!(origin, Origin::Pending) && !matches!(candidate, Origin::Nothing) {
                origin = candidate;
            }
        }
        if matches!(origin, Origin::Nothing) {
            // The generations between may have expired: then only the hash keys still tell of the descent.
            let ancestor = self.trimmed.iter().find(|lease| {
                lease.hash_key_range.is_none_or(|range| overlap(&range, &shard.hash_key_range))
            });
            if let Some(ancestor) = ancestor {
                return Origin::Trimmed(ancestor);
            }
        }
        origin
    }

    /// The start of a shard whose ancestor left the listing with this row.
    fn after_trimmed(&self, ancestor: &Lease) -> Start {
        match (self.input.initial, ancestor.start_timestamp) {
            // The ancestor may have been closed before the start and have this row only because that was cut
            // short. If it was not, whatever follows it is younger than the start.
            (InitialPosition::Latest, Some(stored)) => Start::at_timestamp(stored),
            _ => self.born_by_resharding(ancestor),
        }
    }

    /// The start of a shard whose ancestor has this row.
    fn born_by_resharding(&self, ancestor: &Lease) -> Start {
        let InitialPosition::AtTimestamp(configured) = self.input.initial else {
            return Start::TRIM_HORIZON;
        };
        match ancestor.start_timestamp {
            Some(stored) => Start::at_timestamp(stored.min(configured)),
            None if ancestor.checkpoint == Checkpoint::AtTimestamp => Start::at_timestamp(configured),
            None => Start::TRIM_HORIZON,
        }
    }

    /// The start of a shard whose parent was processed or passed over as the row of a nephew or sibling shows.
    fn beside(&self, witness: &Lease, shard: &Shard) -> Start {
        if self.input.initial != InitialPosition::Latest {
            return self.born_by_resharding(witness);
        }
        // A start time in the row says that it was there from the start and not born by resharding, so this
        // shard was too.
        let from_start = witness.start_timestamp.is_some() || witness.checkpoint == Checkpoint::Latest;
        let time = witness.start_timestamp.or(self.epoch);
        match time {
            _ if !from_start => Start::TRIM_HORIZON,
            _ if shard.is_open() => Start::latest(time.or(self.input.start_timestamp)),
            Some(time) => Start::at_timestamp(time),
            None => Start::TRIM_HORIZON,
        }
    }

    /// The start of a shard of which nothing is known; none if the start position passes it over.
    fn without_history(&self, shard: &Shard) -> Option<(Start, CreateReason)> {
        let begun = if self.input.first_start { None } else { self.epoch };
        match (self.input.initial, begun) {
            (InitialPosition::TrimHorizon, _) => Some((Start::TRIM_HORIZON, CreateReason::NoHistory)),
            (InitialPosition::AtTimestamp(configured), begun) => {
                let time = begun.map_or(configured, |begun| begun.min(configured));
                Some((Start::at_timestamp(time), CreateReason::NoHistory))
            }
            (InitialPosition::Latest, Some(begun)) if shard.is_open() => {
                Some((Start::latest(Some(begun)), CreateReason::CompletesStart))
            }
            (InitialPosition::Latest, Some(begun)) => {
                Some((Start::at_timestamp(begun), CreateReason::CompletesStart))
            }
            (InitialPosition::Latest, None) if shard.is_open() => {
                Some((Start::latest(self.input.start_timestamp), CreateReason::NoHistory))
            }
            (InitialPosition::Latest, None) => None,
        }
    }

    fn problems(&self) -> Vec<SyncProblem> {
        if self.input.shards.is_empty() {
            return vec![SyncProblem::NothingListed];
        }
        let mut problems = Vec::new();
        for parent in self.graph.open() {
            for child in self.graph.children(&parent.id) {
                problems.push(SyncProblem::OpenParent { parent: parent.id.clone(), child: child.clone() });
            }
        }
        let mut ranges: Vec<_> = self.graph.open().map(|shard| bounds(&shard.hash_key_range)).collect();
        ranges.sort_unstable();
        let mut next = Some(0);
        for (first, last) in ranges {
            let Some(expected) = next else { break };
            if first > expected {
                problems.push(SyncProblem::UncoveredHashKeys { first: expected, last: first - 1 });
            }
            next = last.max(expected.saturating_sub(1)).checked_add(1);
        }
        if let Some(first) = next {
            problems.push(SyncProblem::UncoveredHashKeys { first, last: u128::MAX });
        }
        problems.extend(self.circular.iter().map(|shard| SyncProblem::Circular(shard.id.clone())));
        problems
    }
}

/// Whether the shard of a row has left the listing. A shard that is too young for the listing has not: none that is
/// younger is listed either, by however many generations the listing lags; what left it was closed and has younger
/// successors.
pub(super) fn is_trimmed(lease: &Lease, graph: &ShardGraph<'_>) -> bool {
    let has_younger = graph.youngest().is_some_and(|youngest| youngest.id > lease.shard);
    has_younger
        && !graph.is_listed(&lease.shard)
        && !lease.parents.iter().any(|parent| graph.is_listed(parent))
}

/// For each listed shard the row of a descendant that shows it needs no reading any more, if there is one.
///
/// A real checkpoint shows that every ancestor had ended. `LATEST` shows that they were closed before the
/// start. `TRIM_HORIZON` and `AT_TIMESTAMP` show nothing: the lease of a merge's child is created when the
/// first of its parents ends.
pub(super) fn witnesses<'a>(
    graph: &ShardGraph<'a>,
    by_age: &[&'a Shard],
    leases: &'a LeaseTable,
) -> BTreeMap<&'a ShardId, &'a Lease> {
    let lineage = super::Lineage::new(leases);
    let mut witnesses: BTreeMap<&ShardId, &Lease> = BTreeMap::new();
    for shard in by_age.iter().rev() {
        let witness = graph.children(&shard.id).chain(lineage.children(&shard.id)).find_map(|child| {
            leases
                .get(child)
                .map(|lease| &**lease)
                .filter(|lease| lease.checkpoint.is_real() || lease.checkpoint == Checkpoint::Latest)
                .or_else(|| witnesses.get(child).copied())
        });
        if let Some(witness) = witness {
            witnesses.insert(&shard.id, witness);
        }
    }
    witnesses
}

#[cfg(test)]
mod tests;
