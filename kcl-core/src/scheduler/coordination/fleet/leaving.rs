//! Leaves the fleet: gives everything away, and says so (R7).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info};

use super::super::{Coordination, SideDone, in_time};
use super::membership::Place;
use super::{Changed, Eviction, FleetRowKey};
use crate::error::Chain;
use crate::fleet::MemberState;
use crate::lease::verb::Verb;
use crate::lease::{AttemptToken, FleetChange, Lease, StoreError, Write};
use crate::model::ShardId;
use crate::plan::PlacementAction;

/// How long before the first lease is given the others are told, so that they wait for it: a look at the own row, and
/// a little.
const ANNOUNCEMENT: Duration = Duration::from_millis(1_200);
/// How long a listing is waited for that shows what moved meanwhile, before successors are named.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How long the rows of others are waited for that show whether somebody is left.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// For how long the last member tries to remove the entries of those that left before it.
const LAST_SWEEP: Duration = Duration::from_secs(3);
/// What is done again after a failure is done after this.
const PAUSE: Duration = Duration::from_millis(100);

/// How far leaving has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The others are told; consumers still run.
    Announcing,
    /// Consumers end and leases go.
    Draining,
    /// One last listing, for leases that were given to this worker meanwhile.
    Listing,
    /// Those are passed on.
    PassingOn,
    /// The entry says `gone`, or is removed by the last member.
    Going,
    /// The entry says `gone` and so do all in its row: others that left at the same moment may each have taken another
    /// for the last member.
    Parting,
    /// The last member deletes the rows.
    Clearing(u32),
}

/// A departure under way.
#[derive(Debug)]
pub(super) struct Leaving {
    stage: Stage,
    since: Instant,
    announce_until: Instant,
    /// Told when consumers are to end.
    drain: Option<oneshot::Sender<()>>,
    retry_at: Option<Instant>,
    under_way: bool,
}

impl Leaving {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        match self.stage {
            Stage::Announcing if self.under_way => Some(self.announce_until + LOOK_AROUND),
            Stage::Announcing => Some(self.announce_until),
            _ => self.retry_at,
        }
    }

    /// Whether there is anybody to tell.
    fn announces(&self) -> bool {
        self.announce_until > self.since
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        debug!(?stage, "leaving");
        self.stage = stage;
        self.since = now;
        self.under_way = false;
        self.retry_at = None;
    }
}

impl Coordination {
    /// Begins to leave. `drain` is told when consumers are to end, which is at once if nobody is there to wait for
    /// their leases or the deadline is near.
    pub(in super::super) fn leave_fleet(
        &mut self,
        deadline: Instant,
        drain: oneshot::Sender<()>,
        now: Instant,
    ) {
        let Some(fleet) = &mut self.fleet else {
            // Whoever asked has gone if this fails.
            let _ = drain.send(());
            return;
        };
        if fleet.leaving.is_some() {
            let _ = drain.send(());
            return;
        }
        let others = fleet
            .neighbours
            .live()
            .any(|(id, entry, _)| fleet.membership.id() != Some(id) && entry.state == MemberState::Active);
        let time = deadline.saturating_duration_since(now);
        let announcement =
            if others && !self.keeper.is_idle() { ANNOUNCEMENT.min(time / 4) } else { Duration::ZERO };
        fleet.membership.set_state(MemberState::Draining);
        fleet.leaving = Some(Leaving {
            stage: Stage::Announcing,
            since: now,
            announce_until: now + announcement,
            drain: Some(drain),
            retry_at: None,
            under_way: false,
        });
        if matches!(fleet.membership.place, Place::Out { .. }) {
            fleet.membership.place = Place::Left;
        }
    }

    /// Does what comes next.
    pub(super) fn leave_step(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let Some(leaving) = &mut fleet.leaving else { return };
        if leaving.retry_at.is_some_and(|at| at > now) {
            return;
        }
        leaving.retry_at = None;
        let has_left = fleet.membership.place == Place::Left;
        match leaving.stage {
            // Others may be moving leases for balance. Successors named by what was known before that would have too much.
            Stage::Announcing
                if leaving.announces()
                    && now >= leaving.announce_until
                    && now < leaving.announce_until + LOOK_AROUND
                    && !has_left
                    && self.listing_shown_begun.is_none_or(|begun| begun < leaving.announce_until) =>
            {
                if !leaving.under_way {
                    leaving.under_way = true;
                    fleet.listing_wanted = true;
                    self.next_scan = now;
                }
            }
            Stage::Announcing if now >= leaving.announce_until || has_left => {
                leaving.enter(Stage::Draining, now);
                self.name_successors(now);
                let drain = self.fleet.as_mut().and_then(|fleet| fleet.leaving.as_mut()?.drain.take());
                if let Some(drain) = drain {
                    // Whoever asked has gone if this fails.
                    let _ = drain.send(());
                }
            }
            Stage::Announcing => {}
            Stage::Draining if self.keeper.is_idle() && !has_left => {
                leaving.enter(Stage::Listing, now);
                self.next_scan = now;
            }
            Stage::Draining => {
                if self.keeper.without_successor() {
                    self.name_successors(now);
                }
            }
            Stage::Listing => {
                if self.listing_shown_begun.is_some_and(|begun| begun >= leaving.since) {
                    leaving.enter(Stage::PassingOn, now);
                    self.pass_on(now);
                }
            }
            Stage::PassingOn if self.side_calls.is_empty() => {
                leaving.enter(Stage::Going, now);
                self.go(now);
            }
            Stage::Going if !leaving.under_way => self.go(now),
            Stage::Parting => self.part(now),
            Stage::PassingOn | Stage::Going | Stage::Clearing(_) => {}
        }
    }

    /// Says for every lease held who gets it.
    fn name_successors(&mut self, now: Instant) {
        let Some(placement) = self.place(now) else { return };
        for decision in placement.decisions {
            if let PlacementAction::Give(to) = decision.action {
                info!(shard = %decision.shard, %to, reason = %decision.reason, "naming a successor");
                let switches = self.switches_with_next(&decision.shard);
                self.keeper.hand_over(&decision.shard, Some((to, switches)));
            }
        }
    }

    /// Leases that came to be in this worker's name and were never adopted go on to others (A16).
    fn pass_on(&mut self, now: Instant) {
        let Some(me) = self.fleet.as_ref().and_then(|fleet| fleet.membership.id()).cloned() else { return };
        let rows: Vec<Lease> = self
            .table
            .values()
            .filter(|row| row.is_owned_by(&me) && !row.is_ended())
            .map(|row| Lease::clone(row))
            .collect();
        if rows.is_empty() {
            return;
        }
        let decisions = self.place(now).map(|placement| placement.decisions).unwrap_or_default();
        for row in rows {
            let successor = decisions.iter().find_map(|decision| match &decision.action {
                PlacementAction::Give(to) if decision.shard == row.shard => Some(to.clone()),
                _ => None,
            });
            let token = AttemptToken(self.entropy.uuid());
            let verb = Verb::release(&row, None, successor, token);
            let (store, time_out) = (Arc::clone(&self.store), self.settings.lease_duration / 6);
            self.side_calls.push(Box::pin(async move {
                let write = store.update(&verb.shard, &verb.expect, &verb.patch);
                let result = in_time(&*store, "pass on", time_out, write).await;
                SideDone::PassedOn(verb.shard, Box::new(result))
            }));
        }
    }

    /// The answer of a lease that was passed on. One that fails belongs to a member that has left, and is taken from it.
    pub(in super::super) fn passed_on(
        &mut self,
        shard: ShardId,
        result: Result<Write, StoreError>,
        now: Instant,
    ) {
        match result {
            Ok(Write::Applied(row)) => {
                if let Some(fleet) = &mut self.fleet {
                    match row.owner.clone() {
                        Some(to) => fleet.membership.gave(shard, to, now),
                        None => fleet.membership.moved(),
                    }
                }
                self.saw(row, now);
            }
            Ok(Write::Conflict(Some(row))) => self.saw(row, now),
            Ok(Write::Conflict(None)) => self.gone(&shard),
            Err(error) => debug!(%shard, error = %Chain(&error), "a lease could not be passed on"),
        }
    }

    fn go(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let (Some(me), Some(row)) = (fleet.membership.id().cloned(), fleet.membership.row()) else { return };
        let Some(leaving) = &mut fleet.leaving else { return };
        leaving.under_way = true;
        if fleet.neighbours.live().any(|(id, ..)| *id != me) {
            if fleet.membership.entry.state == MemberState::Gone {
                fleet.membership.place = Place::Left;
            }
            fleet.membership.set_state(MemberState::Gone);
            return;
        }
        // The last member takes everything along, so that nothing in the table bothers other kinds of workers.
        let left = fleet.neighbours.left().filter(|(id, ..)| **id != me);
        let left: Vec<_> = left.map(|(id, row, heartbeat)| (id.clone(), row, heartbeat)).collect();
        if !left.is_empty() && leaving.since + LAST_SWEEP > now {
            leaving.under_way = false;
            leaving.retry_at = Some(now + PAUSE);
            for (id, row, heartbeat) in left {
                let eviction = Eviction { row, heartbeat, at: now, under_way: false };
                fleet.evictions.entry(id).or_insert(eviction);
            }
            return;
        }
        fleet.membership.hush();
        let heartbeat = fleet.neighbours.heartbeat_of(&me).unwrap_or_default();
        self.change_row(row, FleetChange::Remove { worker: me, heartbeat }, Changed::Left);
    }

    /// A heartbeat was confirmed; if it said `gone`, this worker has left, and looks whether it was the last.
    pub(super) fn leave_confirmed(&mut self, state: MemberState, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let (Some(row), Some(leaving)) = (fleet.membership.row(), &mut fleet.leaving) else { return };
        if state != MemberState::Gone || leaving.stage != Stage::Going {
            return;
        }
        info!("left the fleet");
        fleet.proof.withdraw();
        // Of those that leave at the same moment, the one whose write comes last sees all the others in its answer.
        if fleet.neighbours.lives_in(row) {
            fleet.membership.place = Place::Left;
            return;
        }
        fleet.membership.hush();
        leaving.enter(Stage::Parting, now);
        leaving.retry_at = Some(now + LAST_LOOK);
        for row in (0..fleet.neighbours.rows()).map(FleetRowKey).filter(|other| *other != row) {
            fleet.look_now(row, true, now);
        }
        self.part(now);
    }

    /// Removes what is left of the fleet, if a view of every row shows that nobody is.
    fn part(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let (Some(row), Some(leaving)) = (fleet.membership.row(), &fleet.leaving) else { return };
        let since = now.saturating_duration_since(leaving.since);
        let began = fleet.moment(now).saturating_sub(since);
        let mut others = (0..fleet.neighbours.rows()).map(FleetRowKey).filter(|other| *other != row);
        if others.all(|row| fleet.neighbours.viewed_since(row, began)) {
            if let Some(leaving) = &mut fleet.leaving {
                leaving.enter(Stage::Going, now);
            }
            self.go(now);
        } else if since >= LAST_LOOK {
            fleet.membership.place = Place::Left;
        }
    }

    pub(super) fn leave_answered(&mut self, what: &Changed, applied: bool, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let rows = fleet.neighbours.rows();
        let is_there = fleet.membership.id().is_some_and(|me| fleet.neighbours.heartbeat_of(me).is_some());
        let Some(leaving) = &mut fleet.leaving else { return };
        match (what, leaving.stage) {
            // Otherwise an attempt whose answer was lost has removed it.
            (Changed::Left, _) if !applied && is_there => {
                // A late heartbeat of this worker's own has landed; the answer shows its number.
                leaving.under_way = false;
                leaving.retry_at = Some(now);
            }
            (Changed::Left, _) => {
                fleet.proof.withdraw();
                leaving.enter(Stage::Clearing(rows), now);
                self.clear_row(rows);
            }
            (Changed::Deleted, Stage::Clearing(left)) => {
                leaving.stage = Stage::Clearing(left - 1);
                self.clear_row(left - 1);
            }
            _ => {}
        }
    }

    /// Deletes the highest of so many rows, if it is empty; after the last this worker has left.
    fn clear_row(&mut self, left: u32) {
        match left.checked_sub(1) {
            Some(row) => self.change_row(FleetRowKey(row), FleetChange::DeleteEmpty, Changed::Deleted),
            None => {
                info!("left the fleet as its last member");
                if let Some(fleet) = &mut self.fleet {
                    fleet.membership.place = Place::Left;
                }
            }
        }
    }

    pub(super) fn leave_failed(&mut self, what: &Changed, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let Some(leaving) = &mut fleet.leaving else { return };
        match what {
            Changed::Left => {
                leaving.under_way = false;
                leaving.retry_at = Some(now + PAUSE);
            }
            // An empty row that stays is no harm: the next fleet uses it.
            Changed::Deleted => fleet.membership.place = Place::Left,
            Changed::Removed(_) | Changed::Rows => {}
        }
    }
}
