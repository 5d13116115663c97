//! Who should own what: has it planned, and carries out this worker's part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::Coordination;
use super::{EXPECTING_LIMIT, FleetSnapshot, MemberSnapshot};
use crate::fleet::rules::{self, Presence};
use crate::fleet::{FleetRowKey, MemberState, row_of};
use crate::lease::keeper::Acquisition;
use crate::lease::{Lease, ProvisionedUnits};
use crate::load::LoadSource;
use crate::model::{ShardId, WorkerId};
use crate::plan::{
    Holder, Placement, PlacementAction, PlacementInput, PlacementLease, PlacementMember, Share,
    plan_placement,
};

/// R4: for how long members and their moves must not have changed before leases move for balance.
const SETTLING_TIME: Duration = Duration::from_secs(2);
/// How many decisions are kept for show.
const DECISIONS_SHOWN: usize = 100;
/// How long after a plan another is made though nothing happened.
const REPLAN_INTERVAL: Duration = Duration::from_secs(30);
/// How long after a plan another is made while a member is short of leases and given none, because its heartbeat was
/// not seen to move of late (R4).
const UNSEEN_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a change of hands is remembered: about as long as a deployment takes.
const MOVE_MEMORY: Duration = Duration::from_secs(900);
/// The weight of the newest sample in a lease's rate.
const NEWEST: f64 = 0.3;

/// What planning remembers from one plan to the next.
#[derive(Debug)]
pub(super) struct Placing {
    /// Since when leases have been free, or their owners known to be gone.
    orphans: BTreeMap<ShardId, Instant>,
    /// When leases came to this worker for the sake of balance.
    moved: BTreeMap<ShardId, Instant>,
    /// When this worker was given each lease that others gave it.
    given_at: BTreeMap<ShardId, Instant>,
    /// How often each lease was seen to change hands of late, and when last.
    moves: BTreeMap<ShardId, (u32, Instant)>,
    /// Until when nothing more is taken on, because a consumer here showed no sign of life.
    sick_until: Option<Instant>,
    /// The rows whose members are to give this worker leases, since when.
    expected: BTreeMap<FleetRowKey, Instant>,
    shares: BTreeMap<WorkerId, Share>,
    decisions: VecDeque<(ShardId, String)>,
    /// When this worker planned last.
    planned_at: Option<Instant>,
    rates: BTreeMap<ShardId, Rate>,
    sampled: Instant,
    cpu: Option<u16>,
}

/// What a lease's consumer processes.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    total: u64,
    bytes_per_second: f64,
}

impl Placing {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            orphans: BTreeMap::new(),
            moved: BTreeMap::new(),
            given_at: BTreeMap::new(),
            moves: BTreeMap::new(),
            sick_until: None,
            expected: BTreeMap::new(),
            shares: BTreeMap::new(),
            decisions: VecDeque::new(),
            planned_at: None,
            rates: BTreeMap::new(),
            sampled: now,
            cpu: None,
        }
    }

    /// Whether members of this row are about to give this worker leases.
    pub(super) fn expects_from(&self, row: FleetRowKey, now: Instant) -> bool {
        self.expected.get(&row).is_some_and(|since| now < *since + EXPECTING_LIMIT)
    }

    /// What all leases of this worker process, in bytes a second.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is no more than a u64 holds"
    )]
    pub(super) fn load(&self) -> u64 {
        self.rates.values().map(|rate| rate.bytes_per_second).sum::<f64>() as u64
    }

    pub(super) const fn cpu(&self) -> Option<u16> {
        self.cpu
    }

    /// A lease came to this worker; `for_balance` says whether it rests now (R4).
    pub(super) fn came(&mut self, shard: ShardId, for_balance: bool, now: Instant) {
        if for_balance {
            self.moved.insert(shard, now);
        } else {
            self.moved.remove(&shard);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate is no exact number")]
    fn sample(
        &mut self,
        processed: impl Iterator<Item = (ShardId, u64)>,
        load: Option<&dyn LoadSource>,
        now: Instant,
    ) {
        let seconds = now.saturating_duration_since(self.sampled).as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        self.sampled = now;
        self.cpu = load.and_then(LoadSource::cpu);
        let before = std::mem::take(&mut self.rates);
        for (shard, total) in processed {
            let mut rate = before.get(&shard).copied().unwrap_or(Rate { total, bytes_per_second: 0.0 });
            let now_per_second = total.saturating_sub(rate.total) as f64 / seconds;
            rate.bytes_per_second += NEWEST * (now_per_second - rate.bytes_per_second);
            rate.total = total;
            self.rates.insert(shard, rate);
        }
    }

    /// A lease that another member gave is held from now on.
    pub(super) fn was_given(&mut self, shard: ShardId, now: Instant) {
        self.given_at.insert(shard, now);
    }

    /// A lease was seen to change hands.
    pub(super) fn changed_hands(&mut self, shard: &ShardId, now: Instant) {
        let (moves, at) = self.moves.entry(shard.clone()).or_insert((0, now));
        if *at + MOVE_MEMORY < now {
            *moves = 0;
        }
        (*moves, *at) = (*moves + 1, now);
    }

    /// The row of a lease that was given to this worker says how often it changed hands of late; some of that was
    /// perhaps before this worker came.
    pub(super) fn told_moves(&mut self, row: &Lease, now: Instant) {
        let told = u32::try_from(row.owner_switches).unwrap_or(u32::MAX);
        let (moves, at) = self.moves.entry(row.shard.clone()).or_insert((0, now));
        (*moves, *at) = ((*moves).max(told), now);
    }

    /// When this worker planned last.
    pub(super) const fn planned_at(&self) -> Option<Instant> {
        self.planned_at
    }

    /// A lease is not held any more.
    pub(super) fn lost(&mut self, shard: &ShardId) {
        self.given_at.remove(shard);
        self.moved.remove(shard);
    }

    /// A lease was given up because its consumer showed no sign of life: for a while others are the better place for
    /// leases.
    pub(super) fn sick(&mut self, until: Instant) {
        self.sick_until = Some(until);
    }

    pub(super) fn is_sick(&self, now: Instant) -> bool {
        self.sick_until.is_some_and(|until| now < until)
    }

    fn decided(&mut self, shard: ShardId, what: String) {
        if self.decisions.len() >= DECISIONS_SHOWN {
            self.decisions.pop_front();
        }
        self.decisions.push_back((shard, what));
    }
}

/// One plan of this worker: what it saw, for the planner to borrow from.
struct Scene<'a> {
    rows: Vec<&'a Lease>,
    holders: Vec<Holder<'a>>,
}

impl Coordination {
    /// Plans, and carries out this worker's part (R4, R5).
    pub(in super::super) fn plan_fleet(&mut self, now: Instant) {
        self.publish_fleet_table(now);
        if let Some(fleet) = &mut self.fleet {
            fleet.placing.planned_at = Some(now);
        }
        self.warn_if_too_small();
        self.give_up_hopeless_gives(now);
        self.adopt_all_named(now);
        let Some(placement) = self.place(now) else { return };
        let Some(fleet) = &mut self.fleet else { return };
        let blocked = fleet.foreign.alarm(now).is_some();
        if !blocked {
            fleet.foreign.settle();
        }
        let donors = placement.expected.keys().filter_map(row_of);
        let draining = fleet
            .neighbours
            .live()
            .filter(|(_, entry, _)| entry.state == MemberState::Draining && entry.leases > 0);
        let is_active = fleet.membership.entry.state == MemberState::Active;
        let rows: BTreeSet<FleetRowKey> =
            donors.chain(draining.filter(|_| is_active).filter_map(|(id, ..)| row_of(id))).collect();
        let before = std::mem::take(&mut fleet.placing.expected);
        for row in rows {
            let since = before.get(&row).copied().unwrap_or(now);
            fleet.placing.expected.insert(row, since);
            if !before.contains_key(&row) {
                fleet.look_now(row, false, now);
            }
        }
        fleet.placing.shares = placement.shares;
        for decision in placement.decisions {
            let shard = decision.shard;
            let reason = decision.reason.to_string();
            match decision.action {
                PlacementAction::Take => {
                    let given_up = self.given_up_until.get(&shard).copied().filter(|until| now < *until);
                    if let Some(until) = given_up {
                        self.plan_soon(until);
                    }
                    let ending = self.keeper.ending().any(|ending| *ending == shard);
                    if blocked || given_up.is_some() || ending || self.side_busy.contains(&shard) {
                        continue;
                    }
                    let Some(row) = self.table.get(&shard).cloned() else { continue };
                    self.keeper.acquire(&row, Acquisition::Take, reason.clone(), now);
                    self.note_decision(shard, format!("take: {reason}"));
                }
                PlacementAction::Give(to) => {
                    info!(%shard, %to, %reason, "giving the lease away");
                    let switches = self.switches_with_next(&shard);
                    self.keeper.hand_over(&shard, Some((to.clone(), switches)));
                    self.note_decision(shard, format!("give to {to}: {reason}"));
                }
            }
        }
    }

    /// How often a lease will have changed hands of late when it has once more.
    pub(super) fn switches_with_next(&self, shard: &ShardId) -> u64 {
        let seen = self.fleet.as_ref().and_then(|fleet| fleet.placing.moves.get(shard));
        seen.map_or(0, |(moves, _)| u64::from(*moves)) + 1
    }

    fn note_decision(&mut self, shard: ShardId, what: String) {
        if let Some(fleet) = &mut self.fleet {
            fleet.placing.decided(shard, what);
        }
    }

    /// The plan, if this worker may act on one now; also says when the next is due.
    pub(super) fn place(&mut self, now: Instant) -> Option<Placement> {
        let lease_duration = self.settings.lease_duration;
        let fleet = self.fleet.as_mut()?;
        fleet.placing.sample(self.keeper.processed(), self.way.load.as_deref(), now);
        let me = fleet.membership.confirmed_id()?.clone();
        // R1: nothing is taken, and no plan is made, on the strength of a validity that has lapsed.
        if fleet.activating || !fleet.is_listed_since(self.listing_shown_begun) || !fleet.proof.holds() {
            return None;
        }
        // Whose turn it is to keep house shows in plans (R8).
        let mut next = now + REPLAN_INTERVAL.min(self.settings.shard_sync_interval * 2);
        let changed_at = fleet.origin + fleet.neighbours.changed_at;
        let settled_at = changed_at + SETTLING_TIME;
        if settled_at > now {
            next = next.min(settled_at);
        }
        let listed = self.listing_shown_begun.is_some_and(|begun| begun >= changed_at);
        let settled = settled_at <= now && listed && !self.keeper.is_acquiring();
        if let Some(fleet) = &mut self.fleet {
            fleet.placing.moves.retain(|_, (_, at)| *at + MOVE_MEMORY >= now);
        }
        let scene = self.scene(&me, now);
        let fleet = self.fleet.as_ref()?;
        let mut orphans = BTreeMap::new();
        let giving: BTreeMap<&ShardId, &WorkerId> = self.keeper.giving().collect();
        let mut leases = Vec::with_capacity(scene.rows.len());
        for (row, holder) in scene.rows.iter().zip(scene.holders) {
            let shard = &row.shard;
            let mine = matches!(holder, Holder::Member(owner) if *owner == me);
            let orphan_for = match holder {
                Holder::Free | Holder::Gone(_) if !row.is_ended() => {
                    let since = fleet.placing.orphans.get(shard).copied().unwrap_or(now);
                    orphans.insert(shard.clone(), since);
                    if since + SETTLING_TIME > now {
                        next = next.min(since + SETTLING_TIME);
                    }
                    Some(now - since)
                }
                _ => None,
            };
            let given_ago = fleet.placing.given_at.get(shard).filter(|_| mine).map(|at| now - *at);
            let rests_until = fleet.placing.moved.get(shard).map(|moved| *moved + lease_duration * 6);
            let rested = rests_until.is_none_or(|until| until <= now);
            if let Some(until) = rests_until.filter(|_| !rested) {
                next = next.min(until);
            }
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is small and positive"
            )]
            let weight = mine
                .then(|| fleet.placing.rates.get(shard).map(|rate| rate.bytes_per_second as u64))
                .flatten();
            let giving_to = giving.get(shard).copied();
            leases.push(PlacementLease {
                lease: row,
                holder,
                orphan_for,
                rested,
                given_ago,
                moves: fleet.placing.moves.get(shard).map_or(0, |(moves, _)| *moves),
                weight,
                giving_to,
            });
        }
        let moment = fleet.moment(now);
        let mut members: BTreeMap<WorkerId, PlacementMember> = BTreeMap::new();
        for (id, entry, moved) in fleet.neighbours.live() {
            let is_me = *id == me;
            let state = if is_me { fleet.membership.entry.state } else { entry.state };
            let moved_ago = moment.saturating_sub(moved);
            let lively = is_me || rules::may_receive(MemberState::Active, moved_ago, entry.lease_duration);
            let member = PlacementMember {
                state,
                lively,
                leases: entry.leases,
                load: entry.load,
                cpu: entry.cpu,
                limits: if is_me { fleet.membership.entry.limits } else { entry.limits },
                known_for: moment.saturating_sub(fleet.neighbours.first_seen(id)),
            };
            members.insert(id.clone(), member);
        }
        let placement = plan_placement(&PlacementInput {
            me: &me,
            members: &members,
            leases: &leases,
            settled,
            strategy: self.way.placement,
            max_moves: self.settings.max_requests,
        });
        let is_short = |id: &WorkerId| placement.shares.get(id).is_some_and(|share| share.has < share.target);
        if members.iter().any(|(id, member)| !member.lively && is_short(id)) {
            next = next.min(now + UNSEEN_INTERVAL);
        }
        let fleet = self.fleet.as_mut()?;
        fleet.placing.orphans = orphans;
        self.next_plan = Some(self.next_plan.map_or(next, |planned| planned.min(next)).max(now));
        Some(placement)
    }

    /// Every lease and who holds it, as far as this worker knows.
    fn scene(&self, me: &WorkerId, now: Instant) -> Scene<'_> {
        let held: BTreeMap<&ShardId, &Lease> =
            self.keeper.held().map(|lease| (&lease.shard, lease)).collect();
        let own = self.fleet.as_ref().and_then(|fleet| fleet.membership.id());
        let mut scene = Scene { rows: Vec::with_capacity(self.table.len()), holders: Vec::new() };
        for (shard, listed) in &self.table {
            let row = held.get(shard).copied().unwrap_or(listed);
            let holder = match &row.owner {
                _ if self.keeper.writes_on(shard) => own.map_or(Holder::Free, Holder::Member),
                None => Holder::Free,
                Some(owner) if owner == me => Holder::Member(owner),
                Some(owner) => self.holder(owner, now),
            };
            scene.rows.push(row);
            scene.holders.push(holder);
        }
        for (shard, row) in held {
            if !self.table.contains_key(shard) {
                scene.rows.push(row);
                scene.holders.push(own.map_or(Holder::Free, Holder::Member));
            }
        }
        scene
    }

    fn holder<'a>(&self, owner: &'a WorkerId, now: Instant) -> Holder<'a> {
        let Some(fleet) = &self.fleet else { return Holder::Unproven(owner) };
        if fleet.neighbours.is_live(owner) {
            return Holder::Member(owner);
        }
        match fleet.neighbours.presence(owner) {
            Presence::Gone => Holder::Gone(owner),
            Presence::MayLive => Holder::Unproven(owner),
            Presence::Foreign if fleet.foreign.is_gone(owner, now) => Holder::Gone(owner),
            Presence::Foreign => Holder::Foreign(owner),
        }
    }

    /// A receiver that is gone, drains, or may be dead is not waited for (R4).
    fn give_up_hopeless_gives(&mut self, now: Instant) {
        let Some(fleet) = &self.fleet else { return };
        let moment = fleet.moment(now);
        let may_receive = |to: &WorkerId| {
            fleet.neighbours.live().any(|(id, entry, moved)| {
                id == to
                    && rules::may_receive(entry.state, moment.saturating_sub(moved), entry.lease_duration)
            })
        };
        let hopeless: Vec<ShardId> =
            self.keeper.giving().filter(|(_, to)| !may_receive(to)).map(|(shard, _)| shard.clone()).collect();
        for shard in hopeless {
            self.keeper.hand_over(&shard, None);
        }
    }

    fn adopt_all_named(&mut self, now: Instant) {
        let Some(fleet) = self.fleet.as_ref() else { return };
        let Some(me) = fleet.membership.confirmed_id().cloned() else { return };
        let named: Vec<Lease> =
            self.table.values().filter(|row| row.is_owned_by(&me)).map(|row| Lease::clone(row)).collect();
        for row in named {
            self.adopt_named(&row, now);
        }
    }

    /// A12: what the table is provisioned with and what its members need, if that is more.
    fn table_too_small(&self) -> Option<(ProvisionedUnits, ProvisionedUnits)> {
        let fleet = self.fleet.as_ref()?;
        let has = fleet.provisioned?;
        let needs = rules::needed(fleet.neighbours.live().count(), self.settings.lease_duration);
        (needs.read > has.read || needs.write > has.write).then_some((has, needs))
    }

    fn warn_if_too_small(&mut self) {
        let too_small = self.table_too_small();
        let Some(fleet) = &mut self.fleet else { return };
        if let Some((has, needs)) = too_small.filter(|_| !fleet.warned_too_small) {
            warn!(
                ?has,
                ?needs,
                "the lease table is provisioned with less than its workers need, in units a second"
            );
        }
        fleet.warned_too_small = too_small.is_some();
    }

    /// What this worker shows of its fleet.
    pub(in super::super) fn fleet_snapshot(&self, now: Instant) -> Option<FleetSnapshot> {
        let fleet = self.fleet.as_ref()?;
        let moment = fleet.moment(now);
        let members = fleet.neighbours.live().map(|(id, entry, moved)| {
            let member = MemberSnapshot {
                state: entry.state,
                leases: entry.leases,
                load: entry.load,
                cpu: entry.cpu,
                limits: entry.limits,
                moved_ago: moment.saturating_sub(moved),
            };
            (id.clone(), member)
        });
        Some(FleetSnapshot {
            member: fleet.membership.id().cloned(),
            members: members.collect(),
            shares: fleet.placing.shares.clone(),
            decisions: fleet.placing.decisions.iter().cloned().collect(),
            foreign_owner: fleet.foreign.alarm(now).cloned(),
            too_small: self.table_too_small(),
        })
    }
}
