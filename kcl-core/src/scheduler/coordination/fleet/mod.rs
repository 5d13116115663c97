//! A member of a fleet: its heartbeats, its looks at the others, what it learns from both (`docs/fleet-protocol.md`).
//!
//! The decisions are in [`membership`], [`neighbours`] and the planner; here calls are made and answers taken.

mod join;
mod leaving;
mod looks;
mod membership;
mod modes;
pub(super) mod neighbours;
mod placing;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::join::{Join, Joined};
use self::leaving::Leaving;
use self::looks::Look;
use self::membership::{Beat, Membership, Place};
use self::modes::ForeignOwners;
use self::neighbours::{Neighbours, View};
use self::placing::Placing;
pub use self::view::{FleetSnapshot, MemberSnapshot};
use super::{Coordination, in_time};
use crate::error::Chain;
use crate::event::Event;
use crate::fleet::rules::{self, Moment, RefusedBeat};
use crate::fleet::{FleetRow, FleetRowKey, MemberLimits, MemberState};
use crate::lease::keeper::Acquisition;
use crate::lease::{
    Consistency, FleetChange, FleetWrite, Lease, LossReason, MemberProof, ProvisionedUnits, Readings,
    StoreError,
};
use crate::metrics::MetricEvent;
use crate::model::{ShardId, WorkerId};
use crate::plant::{Plant, planted};
use crate::retry::Backoff;

/// How often a table of so many rows is listed although nothing was told (R6): every minute, large tables less often, so
/// that it costs a member no more than some 30 read units a minute up to 5,000 leases. Whoever keeps house lists anyway.
pub(crate) fn audit_interval(rows: usize) -> Duration {
    const INTERVAL: Duration = Duration::from_secs(60);
    const ROWS: usize = 200;
    INTERVAL * u32::try_from(rows.div_ceil(ROWS).clamp(1, 10)).unwrap_or(1)
}

/// The least time between two listings caused by changes (R6).
const LISTING_SPACING: Duration = Duration::from_secs(2);
/// For how long leases are expected that do not come.
const EXPECTING_LIMIT: Duration = Duration::from_secs(30);
/// What comes back from a call about fleet rows.
pub(super) enum FleetDone {
    Joined(Box<Result<Joined, StoreError>>),
    Beat { id: WorkerId, row: FleetRowKey, sent: Readings, result: Result<FleetWrite, StoreError> },
    Looked { row: FleetRowKey, sent: Option<Instant>, result: Result<Option<FleetRow>, StoreError> },
    Changed { row: FleetRowKey, sent: Instant, what: Changed, result: Result<FleetWrite, StoreError> },
    Fetched { shard: ShardId, result: Box<Result<Option<Lease>, StoreError>> },
}

/// What a change of a fleet row was for.
#[derive(Clone, Debug)]
pub(super) enum Changed {
    Removed(WorkerId),
    Rows,
    Left,
    Deleted,
}

/// An entry that is to be removed.
#[derive(Clone, Debug)]
struct Eviction {
    row: FleetRowKey,
    heartbeat: u64,
    at: Instant,
    under_way: bool,
}

/// The state of a member beyond what every lease side has.
pub(super) struct Fleet {
    prefix: String,
    proof: MemberProof,
    origin: Instant,
    membership: Membership,
    neighbours: Neighbours,
    looks: BTreeMap<FleetRowKey, Look>,
    evictions: BTreeMap<WorkerId, Eviction>,
    pub(super) calls: FuturesUnordered<BoxFuture<'static, FleetDone>>,
    join_backoff: Backoff,
    placing: Placing,
    /// What the table may serve, if that is fixed, and whether it was said to be too little (A12).
    pub(super) provisioned: Option<ProvisionedUnits>,
    warned_too_small: bool,
    limits: MemberLimits,
    foreign: ForeignOwners,
    leaving: Option<Leaving>,
    /// When the last listing was begun, and whether another is wanted because of a change.
    listing_begun: Instant,
    listing_wanted: bool,
    /// Whether the table fits the stream, so that this worker may join.
    admitted: bool,
    /// When it joined, or became active after that.
    joined_at: Option<Instant>,
    /// Whether it takes leases once told to, or once workers of another kind are gone.
    wants_leases: bool,
    /// Whether it waits for the heartbeat that makes it active; it looks for others once more after that (R11).
    activating: bool,
}

impl Fleet {
    pub(super) fn new(
        prefix: &WorkerId,
        proof: MemberProof,
        lease_duration: Duration,
        (limits, state): (MemberLimits, MemberState),
        patient: bool,
        join_backoff: Backoff,
    ) -> Self {
        let now = Instant::now();
        Self {
            prefix: prefix.to_string(),
            proof,
            origin: now,
            // Who waits for others to go shows itself as one that takes nothing, so that they can go on meanwhile.
            membership: Membership::new(
                lease_duration,
                limits,
                if patient { MemberState::Observer } else { state },
                now,
            ),
            neighbours: Neighbours::default(),
            looks: BTreeMap::new(),
            evictions: BTreeMap::new(),
            calls: FuturesUnordered::new(),
            join_backoff,
            placing: Placing::new(now),
            provisioned: None,
            warned_too_small: false,
            limits,
            foreign: ForeignOwners::new(lease_duration * 2, patient),
            leaving: None,
            listing_begun: now,
            listing_wanted: false,
            admitted: false,
            joined_at: None,
            wants_leases: state == MemberState::Active,
            activating: false,
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        at.saturating_duration_since(self.origin)
    }

    /// How a listing is to be read: after a change it must show that change (A8).
    pub(super) fn begin_listing(&mut self, now: Instant) -> Consistency {
        let wanted = std::mem::take(&mut self.listing_wanted) || self.leaving.is_some();
        self.listing_begun = now;
        if wanted || self.foreign.is_watching() { Consistency::Strong } else { Consistency::Eventual }
    }

    /// How long after a listing the next one is due, if nothing happens.
    pub(super) fn listing_interval(
        &self,
        lease_duration: Duration,
        rows: usize,
        unreadable: bool,
    ) -> Duration {
        if self.foreign.is_watching() {
            lease_duration / 4
        } else if unreadable {
            // Whoever repairs the row says so to nobody.
            lease_duration / 2
        } else {
            audit_interval(rows)
        }
    }

    /// When the listing that a change asked for is due, if one did.
    pub(super) fn wants_listing_at(&self) -> Option<Instant> {
        self.listing_wanted.then(|| self.listing_begun + LISTING_SPACING)
    }

    /// R8: whether this worker keeps house.
    pub(super) fn keeps_house(&self, pass: Duration, now: Instant) -> bool {
        let me = self.membership.confirmed_id();
        me.is_some() && self.neighbours.housekeeper(pass * 4, self.moment(now)) == me
    }

    /// Counts a house-keeping pass, which others watch for (R8).
    pub(super) fn kept_house(&mut self) {
        self.membership.entry.housekeeping += 1;
    }

    /// The table fits the stream: this worker may join.
    pub(super) fn admit(&mut self) {
        self.admitted = true;
    }

    /// Whether this worker takes leases: it is not on standby and does not leave.
    pub(super) fn takes(&self) -> bool {
        self.wants_leases && self.leaving.is_none()
    }

    /// Whether the table was listed after this worker joined (R11).
    pub(super) fn is_listed_since(&self, begun: Option<Instant>) -> bool {
        matches!((self.joined_at, begun), (Some(joined), Some(begun)) if begun >= joined)
    }

    /// Shows itself as active from the next heartbeat on, unless it waits for workers of another kind to go.
    fn become_active(&mut self) {
        let waits = self.foreign.is_patient() && self.foreign.is_watching();
        let is_active = self.membership.entry.state == MemberState::Active;
        if self.wants_leases
            && self.leaving.is_none()
            && !waits
            && !is_active
            && self.membership.id().is_some()
        {
            self.membership.set_state(MemberState::Active);
            self.activating = true;
        }
    }

    /// A heartbeat that said so was confirmed: whoever looks from now on sees it, and it looks once more itself (R11).
    fn activated(&mut self, now: Instant) -> bool {
        let first = std::mem::take(&mut self.activating);
        if first {
            self.joined_at = Some(now);
            self.listing_wanted = true;
        }
        first
    }

    /// Whether another member takes leases.
    fn has_others(&self) -> bool {
        let me = self.membership.id();
        self.neighbours.live().any(|(id, entry, _)| me != Some(id) && entry.state == MemberState::Active)
    }

    /// Takes leases from now on.
    pub(super) fn activate(&mut self) {
        self.wants_leases = true;
        self.become_active();
    }

    /// Whether a live member with a smaller id may be keeping house already.
    pub(super) fn is_first(&self) -> bool {
        let me = self.membership.id();
        me.is_some() && self.neighbours.live().next().map(|(id, ..)| id) == me
    }

    /// A lease was given away.
    pub(super) fn gave(&mut self, shard: ShardId, to: WorkerId, now: Instant) {
        self.membership.gave(shard, to, now);
    }

    /// Forgets owners that own nothing any more.
    pub(super) fn retain_owners(&mut self, owns: impl Fn(&WorkerId) -> bool) {
        self.neighbours.retain_owners(owns);
    }

    /// A lease that another member gave is held from now on.
    pub(super) fn was_given(&mut self, shard: ShardId, now: Instant) {
        self.placing.was_given(shard, now);
    }

    /// What was listed, or read, in place of what was known: leases may have changed hands.
    pub(super) fn compare(&mut self, before: Option<&Lease>, after: &Lease, now: Instant) {
        if let (Some(old), Some(new)) = (before.and_then(|row| row.owner.as_ref()), &after.owner)
            && old != new
        {
            self.placing.changed_hands(&after.shard, now);
        }
    }

    /// When this worker planned last.
    pub(super) const fn planned_at(&self) -> Option<Instant> {
        self.placing.planned_at()
    }

    /// A lease is not held any more; `stalled` says whether because its consumer showed no sign of life.
    pub(super) fn lost(&mut self, shard: &ShardId, stalled: bool, now: Instant) {
        self.placing.lost(shard);
        if stalled {
            self.placing.sick(now + self.membership.entry.lease_duration * 6);
        }
    }

    /// Counts an ownership change.
    pub(super) fn moved(&mut self) {
        self.membership.moved();
    }

    /// Takes note of an owner that a lease row showed.
    pub(super) fn see_owner(&mut self, owner: &WorkerId, now: Instant) {
        let arrived = self.moment(now);
        self.neighbours.see_owner(owner, arrived);
    }

    pub(super) fn has_left(&self) -> bool {
        self.membership.place == Place::Left
    }

    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let join = match &self.membership.place {
            Place::Out { join_at } if self.admitted && self.leaving.is_none() => Some(*join_at),
            _ => None,
        };
        let looks = self.looks.values().filter(|look| !look.under_way).map(|look| look.at);
        let looks = self.membership.id().and_then(|_| looks.min());
        let evictions = self.evictions.values().filter(|e| !e.under_way).map(|eviction| eviction.at).min();
        let leaving = self.leaving.as_ref().and_then(Leaving::next_wake);
        [join, self.membership.next_beat(now), looks, evictions, leaving].into_iter().flatten().min()
    }
}

impl Coordination {
    /// Sends what a member has to send now. Heartbeats come first (A12).
    pub(super) fn fleet_send_due(&mut self, now: Instant) {
        let leases = self.unfinished_held();
        let Some(fleet) = &mut self.fleet else { return };
        if let Place::Out { join_at } = fleet.membership.place
            && fleet.admitted
            && join_at <= now
            && fleet.leaving.is_none()
        {
            fleet.membership.place = Place::Joining;
            let (store, entropy) = (Arc::clone(&self.store), self.entropy.clone());
            let (prefix, entry) = (fleet.prefix.clone(), fleet.membership.first_entry());
            let time_out = self.settings.lease_duration / 6;
            fleet.calls.push(Box::pin(async move {
                let join = Join { store: &*store, prefix: &prefix, entry, entropy: &entropy, time_out };
                FleetDone::Joined(Box::new(join.run().await))
            }));
        }
        fleet.membership.entry.leases = leases;
        fleet.membership.entry.limits = fleet.limits;
        // While there is nobody else, a worker that is not well is better than none.
        if fleet.placing.is_sick(now) && fleet.has_others() {
            let most = fleet.limits.leases.unwrap_or(u64::MAX);
            fleet.membership.entry.limits.leases = Some(most.min(leases));
        }
        fleet.membership.entry.load = fleet.placing.load();
        fleet.membership.entry.cpu = fleet.placing.cpu();
        let keep_gave = self.settings.lease_duration.max(Duration::from_secs(2) * fleet.neighbours.rows());
        if let Some(beat) = fleet.membership.beat(now, keep_gave) {
            self.send_beat(beat);
        }
        self.send_looks(now);
        self.send_evictions(now);
        self.leave_step(now);
    }

    fn unfinished_held(&self) -> u64 {
        self.keeper.held().filter(|lease| !lease.is_ended()).count() as u64
    }

    fn send_beat(&mut self, Beat { id, row, entry, time_out }: Beat) {
        let Some(fleet) = &mut self.fleet else { return };
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        fleet.calls.push(Box::pin(async move {
            // R1: the moment before *this* attempt is sent; whatever repeats it has a number of its own.
            let sent = Readings::now(&*clock);
            let change = FleetChange::Beat { worker: id.clone(), entry };
            let result = in_time(&*store, "heartbeat", time_out, store.change_fleet(row, &change)).await;
            FleetDone::Beat { id, row, sent, result }
        }));
    }

    fn send_evictions(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let Fleet { evictions, neighbours, .. } = &mut **fleet;
        // The others may have been faster, or it beats again.
        evictions.retain(|worker, eviction| neighbours.still_stands_at(worker, eviction.heartbeat));
        let mut due = Vec::new();
        for (worker, eviction) in evictions {
            if !eviction.under_way && eviction.at <= now {
                eviction.under_way = true;
                due.push((worker.clone(), eviction.row, eviction.heartbeat));
            }
        }
        for (worker, row, heartbeat) in due {
            debug!(%worker, heartbeat, "its heartbeat stood still for its lease duration: removing it");
            let change = FleetChange::Remove { worker: worker.clone(), heartbeat };
            self.change_row(row, change, Changed::Removed(worker));
        }
    }

    fn change_row(&mut self, row: FleetRowKey, change: FleetChange, what: Changed) {
        let Some(fleet) = &mut self.fleet else { return };
        let (store, time_out) = (Arc::clone(&self.store), self.settings.lease_duration / 6);
        fleet.calls.push(Box::pin(async move {
            let sent = Instant::now();
            let result = in_time(&*store, "fleet row", time_out, store.change_fleet(row, &change)).await;
            FleetDone::Changed { row, sent, what, result }
        }));
    }

    /// Takes the answer of a call about fleet rows.
    pub(super) fn fleet_done(&mut self, done: FleetDone) {
        let now = Instant::now();
        match done {
            FleetDone::Joined(result) => self.joined(*result, now),
            FleetDone::Beat { id, row, sent, result } => self.beat_answered((id, row), sent, result, now),
            FleetDone::Looked { row, sent, result } => self.looked(row, sent, result, now),
            FleetDone::Changed { row, sent, what, result } => self.row_changed(row, sent, what, result, now),
            FleetDone::Fetched { shard, result } => match *result {
                Ok(Some(row)) => {
                    self.saw(row.clone(), now);
                    self.adopt_named(&row, now);
                }
                Ok(None) => self.gone(&shard),
                // The listing that the change of `mv` caused shows it as well.
                Err(error) => debug!(%shard, error = %Chain(&error), "a given lease could not be read"),
            },
        }
    }

    fn joined(&mut self, result: Result<Joined, StoreError>, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        match result {
            Ok(Joined { id, row, views }) => {
                fleet.join_backoff.reset();
                fleet.membership.joined(id.clone(), row, now);
                info!(member = %id, "joined the fleet");
                self.me = id.clone();
                self.keeper.rename(id.clone());
                self.events.send(Event::FleetJoined { member: id });
                let mut count = 0;
                for (key, (row, sent, arrived)) in views {
                    count = count.max(key.0 + 1);
                    self.absorb(key, row, Some(sent), arrived);
                }
                self.raise_rows(count);
                if let Some(fleet) = &mut self.fleet {
                    // R11: a member first joins and then looks for others.
                    fleet.joined_at = Some(now);
                    fleet.listing_wanted = true;
                }
                if let Some(page) = self.page.take() {
                    drop(page);
                    self.scan = None;
                }
                self.next_scan = now;
            }
            Err(error) if !error.is_retryable() && fleet.joined_at.is_none() => {
                fleet.membership.out(now + self.settings.lease_duration);
                match self.first_compare.take() {
                    // Whoever asked has gone if this fails.
                    Some((_, answer)) => drop(answer.send(Err(error))),
                    None => self.fatal = Some(error.into()),
                }
            }
            Err(error) => {
                let delay = fleet.join_backoff.next_delay();
                warn!(error = %Chain(&error), "could not join the fleet, trying again");
                if fleet.leaving.is_none() {
                    fleet.membership.out(now + delay);
                } else {
                    fleet.membership.place = Place::Left;
                }
                self.trouble.note(error);
            }
        }
    }

    /// R8: any member in a row beyond those that row 0 tells of raises their number.
    fn raise_rows(&mut self, count: u32) {
        if count > 1 {
            self.change_row(FleetRowKey::FIRST, FleetChange::Rows(count), Changed::Rows);
        }
    }

    fn beat_answered(
        &mut self,
        (id, row): (WorkerId, FleetRowKey),
        sent: Readings,
        result: Result<FleetWrite, StoreError>,
        now: Instant,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        if fleet.membership.id() != Some(&id) {
            // An attempt of an earlier life.
            return;
        }
        self.metrics.record(&MetricEvent::Heartbeat {
            took: now.saturating_duration_since(sent.monotonic),
            ok: matches!(result, Ok(FleetWrite::Applied(_))),
        });
        match result {
            Ok(FleetWrite::Applied(view)) => {
                let was_proven = fleet.proof.holds();
                let sent_at = sent.monotonic;
                let proven =
                    if planted(Plant::HeartbeatFromAnswer) { Readings::now(&*self.clock) } else { sent };
                fleet.proof.confirm(proven, self.settings.lease_duration);
                let state = fleet.membership.id().and_then(|id| Some(view.as_ref()?.workers.get(id)?.state));
                let first = fleet.membership.confirmed(sent_at);
                if !was_proven {
                    self.keeper.wake_all();
                }
                self.absorb(row, view, Some(sent_at), now);
                if first {
                    self.plan_soon(now);
                }
                if let Some(state) = state {
                    self.leave_confirmed(state, now);
                    if state == MemberState::Active
                        && self.fleet.as_mut().is_some_and(|fleet| fleet.activated(now))
                    {
                        self.next_scan = now;
                    }
                }
            }
            Ok(FleetWrite::Conflict(view)) => {
                match rules::refused_beat(&id, view.as_ref()) {
                    RefusedBeat::Superseded => fleet.membership.superseded(now),
                    RefusedBeat::Evicted => self.evicted(now),
                }
                self.absorb(row, view, Some(sent.monotonic), now);
            }
            Err(error) => {
                debug!(error = %Chain(&error), "a heartbeat failed");
                fleet.membership.failed(sent.monotonic, now);
            }
        }
    }

    /// R1: the others hold this worker for dead. Everything is dropped; it joins again under a new id.
    fn evicted(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.membership.id().cloned() else { return };
        warn!(%member, "removed from the fleet by others; joining again under a new id");
        fleet.proof.withdraw();
        if fleet.leaving.is_some() {
            fleet.membership.place = Place::Left;
        } else {
            fleet.membership.out(now);
        }
        self.keeper.abandon_all(&LossReason::Evicted);
        self.events.send(Event::FleetEvicted { member });
    }

    fn row_changed(
        &mut self,
        row: FleetRowKey,
        sent: Instant,
        what: Changed,
        result: Result<FleetWrite, StoreError>,
        now: Instant,
    ) {
        let applied = matches!(result, Ok(FleetWrite::Applied(_)));
        let Some(fleet) = &mut self.fleet else { return };
        if let Changed::Removed(worker) = &what {
            fleet.evictions.remove(worker);
            if applied {
                info!(%worker, "removed a member that is dead or has left");
            }
        }
        match result {
            Ok(FleetWrite::Applied(view) | FleetWrite::Conflict(view)) => {
                if matches!(what, Changed::Rows) && !applied && view.is_none() {
                    // Row 0 was deleted when it became empty; it is made again.
                    self.change_row(row, FleetChange::Create, Changed::Rows);
                    return;
                }
                self.absorb(row, view, Some(sent), now);
                self.leave_answered(&what, applied, now);
            }
            Err(error) => {
                debug!(row = %row, ?what, error = %Chain(&error), "a fleet row could not be changed");
                self.leave_failed(&what, now);
            }
        }
    }

    /// Learns from a view of a row, and does what follows.
    fn absorb(&mut self, key: FleetRowKey, row: Option<FleetRow>, sent: Option<Instant>, arrived: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let rows_told = row.as_ref().and_then(|row| row.rows);
        let strong = sent.map(|sent| fleet.moment(sent));
        let beating = fleet.membership.is_beating();
        let view = View { key, row, strong, arrived: fleet.moment(arrived), beating };
        let me = fleet.membership.id().cloned();
        let news = fleet.neighbours.see(me.as_ref(), view);
        if news.look_again {
            fleet.look_now(key, true, arrived);
        }
        if let Some(me) = &me {
            for (worker, heartbeat, first) in fleet.neighbours.dead(me, key) {
                let delay = Duration::from_millis(if first { 0 } else { 200 + self.entropy.below(800) });
                let eviction = Eviction { row: key, heartbeat, at: arrived + delay, under_way: false };
                fleet.evictions.entry(worker).or_insert(eviction);
            }
        }
        if news.changed {
            debug!(departed = ?news.departed, "the fleet changed");
            fleet.listing_wanted = true;
            let spaced = fleet.listing_begun + LISTING_SPACING;
            self.next_scan = self.next_scan.min(spaced.max(arrived));
            self.plan_soon(arrived);
        }
        for worker in news.departed {
            self.events.send(Event::FleetMemberGone { member: worker });
        }
        if news.given_many {
            let Some(fleet) = &mut self.fleet else { return };
            fleet.listing_wanted = true;
            let spaced = fleet.listing_begun + LISTING_SPACING / 4;
            self.next_scan = self.next_scan.min(spaced.max(arrived));
        }
        for (shard, for_balance) in news.given {
            if let Some(fleet) = &mut self.fleet {
                fleet.placing.came(shard.clone(), for_balance, arrived);
            }
            self.fetch(shard);
        }
        self.heal_row_count(key, rows_told);
    }

    fn heal_row_count(&mut self, key: FleetRowKey, told: Option<u32>) {
        let Some(fleet) = &self.fleet else { return };
        let Some(own) = fleet.membership.row() else { return };
        if key == FleetRowKey::FIRST && own.0 > 0 && told.unwrap_or(1) <= own.0 {
            self.raise_rows(own.0 + 1);
        }
    }

    /// Reads a lease that somebody says was given to this worker.
    fn fetch(&mut self, shard: ShardId) {
        if self.keeper.writes_on(&shard) {
            return;
        }
        let Some(fleet) = &mut self.fleet else { return };
        let (store, time_out) = (Arc::clone(&self.store), self.settings.lease_duration / 6);
        fleet.calls.push(Box::pin(async move {
            let read = store.get(&shard, Consistency::Strong);
            let result = in_time(&*store, "read", time_out, read).await;
            FleetDone::Fetched { shard, result: Box::new(result) }
        }));
    }

    /// R5: a row that names this worker, which does not hold the lease, is adopted by a fencing write before anything
    /// else; one that arrives while this worker leaves is passed on instead.
    pub(super) fn adopt_named(&mut self, row: &Lease, now: Instant) {
        let Some(fleet) = &self.fleet else { return };
        let mine = fleet.membership.confirmed_id().is_some_and(|me| row.is_owned_by(me));
        if !mine || row.is_ended() || fleet.leaving.is_some() || self.keeper.writes_on(&row.shard) {
            return;
        }
        if self.keeper.ending().any(|shard| *shard == row.shard) || self.side_busy.contains(&row.shard) {
            self.plan_soon(now + self.settings.lease_duration / 20);
            return;
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.placing.told_moves(row, now);
        }
        self.keeper.acquire(row, Acquisition::Adopt, "given to this worker".to_owned(), now);
    }
}
