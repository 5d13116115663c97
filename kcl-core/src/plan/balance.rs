//! Which leases to take, to ask for and to adopt.
//!
//! Every worker computes the same plan for the whole fleet from what it sees and acts on its own part of it.
//! Views differ a little, and every write is conditional, so a disagreement costs a lost race and is settled by
//! the next scan.
//!
//! What counts for balance are the leases that can do work: those that have not ended and do not wait for a
//! parent. A lease counts for the worker that asks for it, or else for its owner. Free and expired leases go,
//! one after the other, to the worker with the fewest; what is still free after the grace goes to anybody. Then
//! leases move from the worker with the most to the one with the fewest until they differ by at most one, so at
//! balance nothing moves. Workers of ours are asked and hand over when they are ready; an owner that ignores a
//! request (a Java worker) is stolen from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::lease::Lease;
use crate::model::{ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// What the plan of leases to take depends on.
#[derive(Clone, Copy, Debug)]
pub struct BalanceInput<'a> {
    /// The worker that plans.
    pub me: &'a WorkerId,
    /// Every lease row of the stream as last seen; a shard must not occur twice.
    pub leases: &'a [LeaseView<'a>],
    /// The leases this worker holds.
    pub held: &'a BTreeSet<ShardId>,
    /// The leases on which this worker has a write under way, or whose former consumer is still ending here.
    /// They are left alone.
    pub busy: &'a BTreeSet<ShardId>,
    /// The limits.
    pub limits: BalanceLimits,
}

/// A lease row and what this worker has observed of it.
#[derive(Clone, Copy, Debug)]
pub struct LeaseView<'a> {
    /// The row.
    pub lease: &'a Lease,
    /// Whether its owner failed to renew it for the lease duration, by this worker's clock.
    pub expired: bool,
    /// For how long the lease has been seen free or expired; none or zero if only just or not at all.
    pub free_for: Option<Duration>,
    /// For how long the request that the row carries, whosever it is, has been seen; none if only just.
    pub requested_for: Option<Duration>,
}

/// The limits of what a worker takes and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceLimits {
    /// The most unfinished leases this worker has, requested ones included.
    pub max_leases: usize,
    /// The most requests of this worker that are outstanding at a time.
    pub max_requests: usize,
    /// After this time a free lease goes to anybody. Usual: a fifth of the lease duration.
    pub grace: Duration,
    /// After this time without answer to a request the lease is stolen. After four times this a request no
    /// longer counts: whoever made it is gone.
    pub request_timeout: Duration,
}

/// What to do with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// The row names this worker, which does not hold the lease: write a fence and hold it.
    Adopt,
    /// The lease is free or expired: take it.
    Take,
    /// Take the lease from an owner that does not answer requests.
    Steal,
    /// Ask the owner to hand the lease over.
    Request,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopt => "adopt",
            Self::Take => "take",
            Self::Steal => "steal",
            Self::Request => "request",
        })
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The lease.
    pub shard: ShardId,
    /// What to do with it.
    pub action: Action,
    /// Why.
    pub reason: BalanceReason,
}

/// Why a lease is adopted, taken, stolen or asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BalanceReason {
    /// The row names this worker, which does not hold the lease.
    NamesMe,
    /// The lease is free and this is its share of the free ones.
    Free,
    /// The lease has expired and this is its share of the free ones.
    Expired {
        /// The owner that stopped renewing it.
        owner: WorkerId,
    },
    /// The lease stayed free longer than the grace.
    LeftOver,
    /// The lease is free and waits for a parent; it has no weight.
    WaitsForParent,
    /// The owner has at least two more leases than this worker.
    Imbalance {
        /// The owner.
        owner: WorkerId,
        /// How many leases count for it.
        has: usize,
        /// How many leases count for this worker.
        mine: usize,
    },
    /// The owner has not answered this worker's request.
    RequestIgnored {
        /// The owner.
        owner: WorkerId,
    },
    /// The owner has at least two more leases than this worker, and the lease carries the request of a worker
    /// that is gone.
    RequestAbandoned {
        /// The owner.
        owner: WorkerId,
    },
}

impl fmt::Display for BalanceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamesMe => f.write_str("the row names this worker"),
            Self::Free => f.write_str("free"),
            Self::Expired { owner } => write!(f, "expired: owner={owner}"),
            Self::LeftOver => f.write_str("free for longer than the grace"),
            Self::WaitsForParent => f.write_str("free while it waits for a parent"),
            Self::Imbalance { owner, has, mine } => {
                write!(f, "imbalance: owner={owner} has={has} mine={mine}")
            }
            Self::RequestIgnored { owner } => write!(f, "request not answered: owner={owner}"),
            Self::RequestAbandoned { owner } => {
                write!(f, "imbalance, and an abandoned request stands: owner={owner}")
            }
        }
    }
}

/// Plans what to adopt, take, steal and ask for, in this order.
///
/// Workers with the same view never plan the same lease twice, but for leases left over after the grace.
#[must_use]
pub fn plan_balance(input: &BalanceInput<'_>) -> Vec<Decision> {
    if is_at_rest(input) { Vec::new() } else { Balance::new(input).plan() }
}

/// Whether it is plain that nothing is to be done, as in most plans: every lease is held and renewed, nobody asks for
/// one, and all workers have the same number. A large table is gone through once for that.
fn is_at_rest(input: &BalanceInput<'_>) -> bool {
    if planted(Plant::NeverRest) {
        return false;
    }
    let mut counts = BTreeMap::from([(input.me, 0_usize)]);
    for view in input.leases {
        let lease = view.lease;
        let Some(owner) = &lease.owner else { return false };
        let is_plain = !view.expired
            && !lease.is_ended()
            && lease.requested_by.is_none()
            && lease.checkpoint_owner.is_none()
            && lease.parents.is_empty();
        let is_looked_after =
            owner != input.me || input.held.contains(&lease.shard) || input.busy.contains(&lease.shard);
        if !is_plain || !is_looked_after {
            return false;
        }
        *counts.entry(owner).or_default() += 1;
    }
    let (most, least) = (counts.values().max(), counts.values().min());
    most.zip(least).is_none_or(|(most, least)| *most < least + 2)
}

/// How a lease takes part in balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It has ended, or it is being handed off by the Java KCL.
    Untouchable,
    /// Free or expired.
    Free,
    /// Owned by a worker that renews it.
    Owned,
}

struct Entry<'a> {
    view: &'a LeaseView<'a>,
    role: Role,
    /// Whether it counts: not ended and not waiting for a parent.
    counts: bool,
    /// The worker it counts for.
    counts_for: Option<&'a WorkerId>,
    /// The worker whose request stands, if it is recent.
    request: Option<&'a WorkerId>,
}

impl Entry<'_> {
    /// Whether it can be moved away from its owner.
    fn is_movable(&self) -> bool {
        self.role == Role::Owned && self.counts && self.request.is_none()
    }
}

struct Balance<'a> {
    input: &'a BalanceInput<'a>,
    entries: BTreeMap<&'a ShardId, Entry<'a>>,
    /// How many leases count for each live worker.
    counts: BTreeMap<&'a WorkerId, usize>,
    /// How many more leases this worker may have.
    room: usize,
    decisions: Vec<Decision>,
}

impl<'a> Balance<'a> {
    fn new(input: &'a BalanceInput<'a>) -> Self {
        let me = input.me;
        // Most leases have no parents, and most tables no such lease: rows are looked up for them alone.
        let rows: BTreeMap<&ShardId, &Lease> =
            if input.leases.iter().all(|view| view.lease.parents.is_empty()) {
                BTreeMap::new()
            } else {
                input.leases.iter().map(|view| (&view.lease.shard, view.lease)).collect()
            };
        let entries: BTreeMap<&ShardId, Entry<'a>> =
            input.leases.iter().map(|view| (&view.lease.shard, Entry::new(view, &rows, input))).collect();
        let mut counts = BTreeMap::from([(me, 0)]);
        for entry in entries.values() {
            let owner = entry.view.lease.owner.as_ref().filter(|_| !entry.view.expired);
            for worker in owner.into_iter().chain(entry.request) {
                counts.entry(worker).or_insert(0);
            }
        }
        for entry in entries.values().filter(|entry| entry.counts) {
            if let Some(count) = entry.counts_for.and_then(|worker| counts.get_mut(worker)) {
                *count += 1;
            }
        }
        let taken = entries
            .values()
            .filter(|entry| !entry.view.lease.is_ended())
            .filter(|entry| {
                input.held.contains(&entry.view.lease.shard)
                    || (entry.request == Some(me) && entry.role == Role::Owned)
            })
            .count();
        let room = input.limits.max_leases.saturating_sub(taken);
        Self { input, entries, counts, room, decisions: Vec::new() }
    }

    fn plan(mut self) -> Vec<Decision> {
        // A worker no row names is unknown to the others, and others may be so to it.
        let is_known = self
            .entries
            .values()
            .any(|entry| entry.view.lease.is_owned_by(self.input.me) || entry.request == Some(self.input.me));
        self.adopt();
        let took = self.take_free();
        self.steal_ignored();
        if !took {
            self.ask(is_known);
        }
        self.decisions.sort_by_key(|decision| decision.action);
        self.decisions
    }

    fn adopt(&mut self) {
        let me = self.input.me;
        let mine: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.role != Role::Untouchable && entry.view.lease.is_owned_by(me))
            .map(|entry| &entry.view.lease.shard)
            .collect();
        for shard in mine {
            self.decide(shard, Action::Adopt, BalanceReason::NamesMe);
        }
    }

    /// Shares out the free leases; whether this worker takes any.
    fn take_free(&mut self) -> bool {
        let me = self.input.me;
        let decided = self.decisions.len();
        let mut mine = Vec::new();
        for (shard, entry) in &self.entries {
            if entry.role != Role::Free {
                continue;
            }
            let receiver = if entry.counts { self.least_loaded() } else { self.heir(entry.view.lease) };
            if entry.counts
                && let Some(count) = self.counts.get_mut(receiver)
            {
                *count += 1;
            }
            let left_over = entry.view.free_for.is_some_and(|time| time >= self.input.limits.grace);
            if receiver == me {
                let reason = match &entry.view.lease.owner {
                    _ if !entry.counts => BalanceReason::WaitsForParent,
                    Some(owner) => BalanceReason::Expired { owner: owner.clone() },
                    None => BalanceReason::Free,
                };
                mine.push((false, *shard, reason));
            } else if left_over {
                mine.push((true, *shard, BalanceReason::LeftOver));
            }
        }
        // The own share first. Workers that go for the same leases go in different orders.
        mine.sort_by_key(|(left_over, shard, _)| (*left_over, std::cmp::Reverse(affinity(me, shard))));
        for (_, shard, reason) in mine {
            self.decide(shard, Action::Take, reason);
        }
        self.decisions.len() > decided
    }

    fn steal_ignored(&mut self) {
        let me = self.input.me;
        let mut ignored = Vec::new();
        for (shard, entry) in &self.entries {
            let timed_out =
                entry.view.requested_for.is_some_and(|time| time >= self.input.limits.request_timeout);
            let (Role::Owned, Some(owner)) = (entry.role, &entry.view.lease.owner) else { continue };
            if entry.request != Some(me) || owner == me || !timed_out {
                continue;
            }
            // The lease counts for this worker already; more than one ahead of the owner it has no claim to it.
            if self.count(me) <= self.count(owner) + 1 {
                ignored.push((*shard, BalanceReason::RequestIgnored { owner: owner.clone() }));
            }
        }
        for (shard, reason) in ignored {
            // The room for it was set aside when it was asked for.
            if self.is_free_to_act_on(shard) {
                self.decisions.push(Decision { shard: shard.clone(), action: Action::Steal, reason });
            }
        }
    }

    /// Moves leases in thought until the fleet is balanced, and asks for those that come to this worker.
    fn ask(&mut self, is_known: bool) {
        let me = self.input.me;
        let limit = self.input.limits.max_requests;
        let gap = if planted(Plant::NeverRest) { 1 } else { 2 };
        let (most, least) = (self.counts.values().max(), self.counts.values().min());
        if most.zip(least).is_none_or(|(most, least)| *most < least + gap) {
            // At rest a table of many leases is not sorted by owner for nothing.
            return;
        }
        let mut outstanding: BTreeMap<&WorkerId, usize> = BTreeMap::new();
        let mut movable: BTreeMap<&WorkerId, BTreeSet<&ShardId>> = BTreeMap::new();
        for (shard, entry) in &self.entries {
            if let (Some(requester), Role::Owned) = (entry.request, entry.role) {
                *outstanding.entry(requester).or_default() += 1;
            }
            if let (true, Some(owner)) = (entry.is_movable(), &entry.view.lease.owner) {
                movable.entry(owner).or_default().insert(*shard);
            }
        }
        // Others that start now are as unknown as this worker. One request makes it known to them; from the
        // next scan on they divide the rest together.
        let my_limit = if is_known { limit } else { limit.min(1) };
        let mut by_load: BTreeSet<(usize, &WorkerId)> =
            self.counts.iter().map(|(worker, count)| (*count, *worker)).collect();
        let mut receivers = by_load.clone();
        while let (Some(&(most, donor)), Some(&(least, receiver))) = (by_load.last(), receivers.first()) {
            if most < least + gap {
                break;
            }
            let asked = outstanding.entry(receiver).or_default();
            if *asked >= if receiver == me { my_limit } else { limit } {
                receivers.remove(&(least, receiver));
                continue;
            }
            let leases = movable.entry(donor).or_default();
            let chosen = if receiver == me && !is_known {
                introduction(me, donor, leases, (most - least) / 2)
            } else {
                leases.iter().copied().max_by_key(|shard| affinity(receiver, shard))
            };
            let Some(shard) = chosen else {
                by_load.remove(&(most, donor));
                continue;
            };
            leases.remove(shard);
            if receiver == me {
                let abandoned =
                    self.entries.get(shard).is_some_and(|entry| entry.view.lease.requested_by.is_some());
                let owner = donor.clone();
                let decided = if abandoned {
                    self.decide(shard, Action::Steal, BalanceReason::RequestAbandoned { owner })
                } else {
                    let reason = BalanceReason::Imbalance { owner, has: most, mine: least };
                    self.decide(shard, Action::Request, reason)
                };
                if !decided {
                    if self.room == 0 {
                        receivers.remove(&(least, receiver));
                    }
                    continue;
                }
            }
            *asked += 1;
            by_load.remove(&(most, donor));
            receivers.remove(&(most, donor));
            by_load.remove(&(least, receiver));
            receivers.remove(&(least, receiver));
            by_load.insert((most - 1, donor));
            receivers.insert((most - 1, donor));
            by_load.insert((least + 1, receiver));
            receivers.insert((least + 1, receiver));
        }
    }

    /// Adds a decision unless the lease is held or busy here or there is no room for it.
    fn decide(&mut self, shard: &ShardId, action: Action, reason: BalanceReason) -> bool {
        if self.room == 0 || !self.is_free_to_act_on(shard) {
            return false;
        }
        self.room -= 1;
        self.decisions.push(Decision { shard: shard.clone(), action, reason });
        true
    }

    fn is_free_to_act_on(&self, shard: &ShardId) -> bool {
        !self.input.held.contains(shard) && !self.input.busy.contains(shard)
    }

    fn count(&self, worker: &WorkerId) -> usize {
        self.counts.get(worker).copied().unwrap_or(0)
    }

    fn least_loaded(&self) -> &'a WorkerId {
        let least = self.counts.iter().min_by_key(|(worker, count)| (**count, **worker));
        least.map_or(self.input.me, |(worker, _)| worker)
    }

    /// Who gets a free lease that waits for a parent: the worker that processes the parent.
    fn heir(&self, lease: &Lease) -> &'a WorkerId {
        let parent_owner = lease.parents.iter().find_map(|parent| {
            let entry = self.entries.get(parent).filter(|entry| entry.role == Role::Owned)?;
            entry.counts_for
        });
        parent_owner.unwrap_or_else(|| {
            let by_affinity = self.counts.keys().copied().max_by_key(|worker| affinity(worker, &lease.shard));
            by_affinity.unwrap_or(self.input.me)
        })
    }
}

impl<'a> Entry<'a> {
    fn new(view: &'a LeaseView<'a>, rows: &BTreeMap<&ShardId, &Lease>, input: &BalanceInput<'a>) -> Self {
        let lease = view.lease;
        let waits = !lease.checkpoint.is_real()
            && lease.parents.iter().any(|parent| rows.get(parent).is_some_and(|row| !row.is_ended()));
        let abandoned = input.limits.request_timeout.saturating_mul(4);
        let is_recent = view.requested_for.is_none_or(|time| time < abandoned);
        let owner = lease.owner.as_ref();
        let role = match owner {
            _ if lease.is_ended() => Role::Untouchable,
            // A row that names this worker is this worker's, however long it was not renewed.
            Some(owner) if owner == input.me && lease.checkpoint_owner.is_none() => Role::Owned,
            None => Role::Free,
            Some(_) if view.expired => Role::Free,
            Some(_) if lease.checkpoint_owner.is_some() => Role::Untouchable,
            Some(_) => Role::Owned,
        };
        let request = lease.requested_by.as_ref().filter(|_| role == Role::Owned && is_recent);
        let counts_for = request.or(owner).filter(|_| role != Role::Free);
        Self { view, role, counts: !lease.is_ended() && !waits, counts_for, request }
    }
}

/// The first lease that a worker nobody knows asks a donor for.
///
/// Others nobody knows may ask at the same time. All of them choose among the same few leases, no more than the
/// donor can give without having too few afterwards.
fn introduction<'a>(
    me: &WorkerId,
    donor: &WorkerId,
    leases: &BTreeSet<&'a ShardId>,
    few: usize,
) -> Option<&'a ShardId> {
    let mut candidates: Vec<_> = leases.iter().copied().collect();
    candidates.sort_by_key(|shard| std::cmp::Reverse(affinity(donor, shard)));
    candidates.into_iter().take(few).max_by_key(|shard| affinity(me, shard))
}

/// A number that is the same everywhere for the same worker and shard, and unlike that of any other pair: the
/// order by which workers choose among shards (FNV-1a, then mixed so that every bit depends on every byte).
pub(super) fn affinity(worker: &WorkerId, shard: &ShardId) -> u64 {
    let bytes = worker.as_str().bytes().chain([0]).chain(shard.as_str().bytes());
    let mut hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests;
