//! Who should own what in a fleet.
//!
//! Everybody computes the same placement from the same view, and acts on its own part of it: it takes the orphans that
//! the plan gives it, and gives away leases of its own (R4, R5 of `docs/fleet-protocol.md`). What counts for balance
//! are the leases that can do work: those that have not ended and do not wait for a parent.
//!
//! Shares differ by one at most, as far as limits allow, and those that have most keep the larger ones, so that
//! nothing moves that need not. Orphans, and what draining members hold, go to whoever is furthest below its share;
//! what remains is moved from those above their shares to those below, once the fleet has settled. At balance there is
//! nothing to do.

mod load;
mod reason;
mod shares;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::shares::{Seat, targets};
use super::balance::affinity;
use crate::fleet::{MemberLimits, MemberState};
use crate::lease::Lease;
use crate::model::{ShardId, WorkerId};

pub use reason::PlacementReason;

/// After this time an orphan goes to anybody (R5).
const LEFT_OVER: Duration = Duration::from_secs(2);

/// What a placement depends on.
#[derive(Clone, Copy, Debug)]
pub struct PlacementInput<'a> {
    /// The worker that plans.
    pub me: &'a WorkerId,
    /// The live members, `me` included if it is one.
    pub members: &'a BTreeMap<WorkerId, PlacementMember>,
    /// Every lease; a shard must not occur twice.
    pub leases: &'a [PlacementLease<'a>],
    /// Whether members and their moves have not changed for a while: only then leases move for balance (R4).
    pub settled: bool,
    /// What is balanced.
    pub strategy: PlacementStrategy,
    /// How many leases `me` may be giving away for balance at a time.
    pub max_moves: usize,
}

/// A live member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementMember {
    /// Whether it takes leases.
    pub state: MemberState,
    /// Whether its heartbeat was seen to move lately, so that it may be given leases (R4).
    pub lively: bool,
    /// How many unfinished leases it says it holds.
    pub leases: u64,
    /// What it says it processes, in bytes a second.
    pub load: u64,
    /// The share of its CPU limit it says it uses, in thousandths.
    pub cpu: Option<u16>,
    /// Its own limits.
    pub limits: MemberLimits,
    /// For how long `me` has known it.
    pub known_for: Duration,
}

/// A lease and what this worker knows of it.
#[derive(Clone, Copy, Debug)]
pub struct PlacementLease<'a> {
    /// The row.
    pub lease: &'a Lease,
    /// Who has it.
    pub holder: Holder<'a>,
    /// For how long it has been seen free, or its owner gone.
    pub orphan_for: Option<Duration>,
    /// Whether it may move for balance: one that did rests for a while (R4).
    pub rested: bool,
    /// How long ago another member gave it to `me`; none if `me` does not have it or came by it in another way. What was
    /// given last goes first.
    pub given_ago: Option<Duration>,
    /// How often `me` saw it change hands of late.
    pub moves: u32,
    /// What it processes, in bytes a second; known of `me`'s own leases alone.
    pub weight: Option<u64>,
    /// To whom `me` is giving it already.
    pub giving_to: Option<&'a WorkerId>,
}

/// Who has a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// A live member.
    Member(&'a WorkerId),
    /// Nobody.
    Free,
    /// A worker that is proven to be gone (R3).
    Gone(&'a WorkerId),
    /// A member that may live: the lease is left alone.
    Unproven(&'a WorkerId),
    /// A worker that is not a member of a fleet: the lease is left alone.
    Foreign(&'a WorkerId),
}

/// What is balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PlacementStrategy {
    /// The number of leases that can do work.
    #[default]
    Count,
    /// What the leases process. Orphans are shared out by number; then leases move from members that process more than
    /// the mean by the dead band to those that process less. While nothing is processed, as [`Count`](Self::Count).
    Load {
        /// How far from the mean a member's load may be, in percent of it, before leases move. Usual: 15.
        dead_band: u8,
        /// Which part of the difference is moved at once, in percent. Usual: 50.
        damping: u8,
    },
}

/// What a member has and should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many leases that can do work it has, or is being given.
    pub has: u64,
    /// How many it should have.
    pub target: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What `me` is to do now.
    pub decisions: Vec<PlacementDecision>,
    /// How many leases `me` is about to get, by the members that are to give them.
    pub expected: BTreeMap<WorkerId, usize>,
    /// What each active member has and should have.
    pub shares: BTreeMap<WorkerId, Share>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementDecision {
    /// The lease.
    pub shard: ShardId,
    /// What to do with it.
    pub action: PlacementAction,
    /// Why.
    pub reason: PlacementReason,
}

/// What to do with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlacementAction {
    /// Take it.
    Take,
    /// Give it to this member.
    Give(WorkerId),
}

/// Plans who should own what, and what `me` has to do for it.
#[must_use]
pub fn plan_placement(input: &PlacementInput<'_>) -> Placement {
    Plan::new(input).run()
}

/// What is known of a lease beyond its input.
#[derive(Clone, Copy)]
struct Item<'a> {
    view: &'a PlacementLease<'a>,
    /// Whether it counts for balance.
    runnable: bool,
}

struct Plan<'a> {
    input: &'a PlacementInput<'a>,
    items: BTreeMap<&'a ShardId, Item<'a>>,
    seats: BTreeMap<&'a WorkerId, Seat>,
    placement: Placement,
}

impl<'a> Plan<'a> {
    fn new(input: &'a PlacementInput<'a>) -> Self {
        let rows: BTreeMap<&ShardId, &Lease> =
            input.leases.iter().map(|view| (&view.lease.shard, view.lease)).collect();
        let waits = |lease: &Lease| {
            !lease.checkpoint.is_real()
                && lease.parents.iter().any(|parent| rows.get(parent).is_some_and(|row| !row.is_ended()))
        };
        let items: BTreeMap<_, _> = input
            .leases
            .iter()
            .filter(|view| !view.lease.is_ended())
            .map(|view| (&view.lease.shard, Item { view, runnable: !waits(view.lease) }))
            .collect();
        let active = input.members.iter().filter(|(_, member)| member.state == MemberState::Active);
        let mut seats: BTreeMap<&WorkerId, Seat> =
            active.map(|(id, member)| (id, Seat::new(member, id == input.me))).collect();
        for item in items.values() {
            if let Some(seat) = item.owner().and_then(|owner| seats.get_mut(owner)) {
                seat.has(item.runnable);
            }
        }
        Self { input, items, seats, placement: Placement::default() }
    }

    fn run(mut self) -> Placement {
        let homeless: Vec<Item<'a>> =
            self.items.values().copied().filter(|item| self.is_homeless(item)).collect();
        let runnable = homeless.iter().filter(|item| item.runnable).count() as u64;
        targets(&mut self.seats, runnable);
        for (id, seat) in &self.seats {
            self.placement.shares.insert((*id).clone(), Share { has: seat.count, target: seat.target });
        }
        self.house(&homeless);
        let decided = self.placement.decisions.len();
        match self.input.strategy {
            PlacementStrategy::Load { dead_band, damping } if load::is_busy(self.input) => {
                self.balance_load(dead_band, damping);
            }
            PlacementStrategy::Load { .. } | PlacementStrategy::Count => self.balance_count(),
        }
        if !self.input.settled {
            // Others may see the fleet as settled before this worker does: what they will give is expected already.
            self.placement.decisions.truncate(decided);
        }
        self.placement
    }

    /// Whether a lease needs an active member: it has none, or is with one that takes nothing.
    fn is_homeless(&self, item: &Item<'a>) -> bool {
        match item.view.holder {
            _ if item.view.giving_to.is_some() => false,
            Holder::Free | Holder::Gone(_) => true,
            Holder::Member(owner) => !self.seats.contains_key(owner),
            Holder::Unproven(_) | Holder::Foreign(_) => false,
        }
    }

    /// Finds a member for every lease that has none.
    fn house(&mut self, homeless: &[Item<'a>]) {
        let mut below: BinaryHeap<(u64, Reverse<&'a WorkerId>)> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.deficit() > 0)
            .map(|(id, seat)| (seat.deficit(), Reverse(*id)))
            .collect();
        let mut left_over = Vec::new();
        let mut leaving = Vec::new();
        for item in homeless {
            let receiver = if item.runnable {
                let next = below.pop();
                next.map(|(deficit, Reverse(id))| {
                    if deficit > 1 {
                        below.push((deficit - 1, Reverse(id)));
                    }
                    id
                })
            } else {
                self.heir(item)
            };
            if let Some(seat) = receiver.and_then(|id| self.seats.get_mut(id)) {
                seat.gets(item.runnable);
            }
            match receiver {
                Some(receiver) if item.runnable && item.view.holder == Holder::Member(self.input.me) => {
                    leaving.push((*item, receiver));
                }
                _ => self.send(item, receiver, &mut left_over),
            }
        }
        self.give_all(leaving);
        self.take_left_over(left_over);
    }

    /// Gives away what `me` has while it takes nothing. What has moved most goes to whoever came last, who is the least
    /// likely to leave next: a deployment replaces the old. How many each receiver gets stays as it is.
    fn give_all(&mut self, leaving: Vec<(Item<'a>, &'a WorkerId)>) {
        let (mut items, mut receivers): (Vec<Item<'a>>, Vec<&'a WorkerId>) = leaving.into_iter().unzip();
        items.sort_by_key(|item| Reverse(item.view.moves));
        receivers.sort_by_key(|id| self.input.members.get(*id).map(|member| member.known_for));
        for (item, receiver) in items.iter().zip(receivers) {
            self.decide(item, PlacementAction::Give(receiver.clone()), PlacementReason::TakesNothing);
        }
    }

    /// What `me` does so that a homeless lease comes to its receiver.
    fn send(&mut self, item: &Item<'a>, receiver: Option<&'a WorkerId>, left_over: &mut Vec<Item<'a>>) {
        let me = self.input.me;
        match item.view.holder {
            Holder::Free | Holder::Gone(_) if receiver == Some(me) => {
                let reason = match item.view.holder {
                    _ if !item.runnable => PlacementReason::WaitsForParent,
                    Holder::Gone(owner) => PlacementReason::OwnerGone { owner: owner.clone() },
                    _ => PlacementReason::Free,
                };
                self.decide(item, PlacementAction::Take, reason);
            }
            Holder::Free | Holder::Gone(_) => {
                if item.view.orphan_for.is_some_and(|time| time >= LEFT_OVER) {
                    left_over.push(*item);
                }
            }
            Holder::Member(owner) if owner == me => {
                // What can do work is given with the rest of it.
                if let Some(receiver) = receiver.filter(|_| !item.runnable) {
                    let to = receiver.clone();
                    self.decide(item, PlacementAction::Give(to), PlacementReason::TakesNothing);
                }
            }
            Holder::Member(owner) if receiver == Some(me) => {
                *self.placement.expected.entry(owner.clone()).or_default() += 1;
            }
            Holder::Member(_) | Holder::Unproven(_) | Holder::Foreign(_) => {}
        }
    }

    /// R5: what nobody took for a while goes to anybody who has room. Members go through them in different orders.
    fn take_left_over(&mut self, mut left_over: Vec<Item<'a>>) {
        let me = self.input.me;
        let Some(mut room) = self.seats.get(me).map(Seat::room) else { return };
        left_over.sort_by_key(|item| Reverse(affinity(me, &item.view.lease.shard)));
        for item in left_over {
            if room == 0 {
                return;
            }
            room -= 1;
            self.decide(&item, PlacementAction::Take, PlacementReason::LeftOver);
        }
    }

    /// Who gets a lease that waits for a parent: whoever processes the parent, if it has room.
    fn heir(&self, item: &Item<'a>) -> Option<&'a WorkerId> {
        let shard = &item.view.lease.shard;
        let has_room = |id: &WorkerId| self.seats.get(id).is_some_and(|seat| seat.lively && seat.room() > 0);
        let parents = item.view.lease.parents.iter();
        let of_parent = parents.filter_map(|parent| self.items.get(parent)?.owner()).find(|id| has_room(id));
        of_parent.or_else(|| {
            let with_room = self.seats.keys().copied().filter(|id| has_room(id));
            with_room.max_by_key(|id| affinity(id, shard))
        })
    }

    /// Moves leases from those above their shares to those below.
    fn balance_count(&mut self) {
        let me = self.input.me;
        let mut receivers: Vec<&'a WorkerId> = Vec::new();
        let mut below: BinaryHeap<(u64, Reverse<&'a WorkerId>)> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.lively && seat.deficit() > 0)
            .map(|(id, seat)| (seat.deficit(), Reverse(*id)))
            .collect();
        while let Some((deficit, Reverse(id))) = below.pop() {
            receivers.push(id);
            if deficit > 1 {
                below.push((deficit - 1, Reverse(id)));
            }
        }
        let mut donors: Vec<(Reverse<u64>, &'a WorkerId)> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.excess() > 0)
            .map(|(id, seat)| (Reverse(seat.excess()), *id))
            .collect();
        donors.sort_unstable();
        let mut mine = Vec::new();
        let mut receivers = receivers.into_iter();
        // Those with the most give in turn, so that none waits for another.
        let mut round = 0;
        loop {
            let mut gave = false;
            for (Reverse(excess), donor) in &donors {
                if *excess <= round {
                    continue;
                }
                let Some(receiver) = receivers.next() else {
                    gave = false;
                    break;
                };
                gave = true;
                if *donor == me {
                    mine.push(receiver);
                } else if receiver == me {
                    *self.placement.expected.entry((*donor).clone()).or_default() += 1;
                }
            }
            if !gave {
                break;
            }
            round += 1;
        }
        let has = self.seats.get(me).map_or(0, |seat| seat.count);
        let leases = self.movable();
        for (item, receiver) in leases.into_iter().zip(mine).take(self.moves_left()) {
            let theirs = self.seats.get(receiver).map_or(0, |seat| seat.count);
            let reason = PlacementReason::Imbalance { has, theirs };
            self.decide(&item, PlacementAction::Give(receiver.clone()), reason);
        }
    }

    /// The leases of `me` that may move for balance; what was given last first, so that a deployment moves the same few
    /// again instead of others as well. Then what nobody gave: it may have been released by a worker that is no good
    /// place for it. Last what has moved twice.
    fn movable(&self) -> Vec<Item<'a>> {
        let me = self.input.me;
        let mut movable: Vec<Item<'a>> = self
            .items
            .values()
            .copied()
            .filter(|item| item.runnable && item.view.rested && item.view.giving_to.is_none())
            .filter(|item| item.view.holder == Holder::Member(me))
            .collect();
        movable.sort_by_key(|item| {
            let given_ago = item.view.given_ago.unwrap_or(Duration::MAX);
            (item.view.moves >= 2, given_ago, affinity(me, &item.view.lease.shard))
        });
        movable
    }

    /// How many more leases `me` may begin to give away.
    fn moves_left(&self) -> usize {
        let giving = self.input.leases.iter().filter(|view| view.giving_to.is_some()).count();
        self.input.max_moves.saturating_sub(giving)
    }

    fn decide(&mut self, item: &Item<'a>, action: PlacementAction, reason: PlacementReason) {
        let shard = item.view.lease.shard.clone();
        self.placement.decisions.push(PlacementDecision { shard, action, reason });
    }
}

impl<'a> Item<'a> {
    /// The member that has the lease, or is being given it.
    fn owner(&self) -> Option<&'a WorkerId> {
        self.view.giving_to.or(match self.view.holder {
            Holder::Member(owner) => Some(owner),
            Holder::Free | Holder::Gone(_) | Holder::Unproven(_) | Holder::Foreign(_) => None,
        })
    }
}
