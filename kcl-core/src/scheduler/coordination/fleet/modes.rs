//! Owners that are not members of the fleet: Java workers, workers that coordinate per lease (R11).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::Coordination;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::fleet::row_of;
use crate::lease::Lease;
use crate::model::WorkerId;

/// What is seen of owners that are not members.
#[derive(Debug)]
pub(super) struct ForeignOwners {
    /// For how long their counters must stand still before they count as gone.
    patience: Duration,
    /// Whether to wait for them to go instead of refusing to start.
    patient: bool,
    /// When each was last seen to move, or first seen at all.
    moved: BTreeMap<WorkerId, Instant>,
    /// Whether one was seen to renew, take or checkpoint since this worker started.
    alive: Option<WorkerId>,
    /// Whether this worker has ever taken part: from then on foreign owners are an alarm.
    settled: bool,
}

impl ForeignOwners {
    pub(super) const fn new(patience: Duration, patient: bool) -> Self {
        Self { patience, patient, moved: BTreeMap::new(), alive: None, settled: false }
    }

    /// Whether foreign owners are about, whose counters have to be watched.
    pub(super) fn is_watching(&self) -> bool {
        !self.moved.is_empty()
    }

    /// The foreign owners that keep this worker from taking anything, for now.
    pub(super) fn alarm(&self, now: Instant) -> Option<&WorkerId> {
        self.moved.iter().find(|(_, moved)| now < **moved + self.patience).map(|(owner, _)| owner)
    }

    /// When that may change.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.moved.values().map(|moved| *moved + self.patience).filter(|at| *at > now).min()
    }

    /// Whether a foreign owner's counters have stood still long enough for its leases to be taken (R3).
    pub(super) fn is_gone(&self, owner: &WorkerId, now: Instant) -> bool {
        self.moved.get(owner).is_some_and(|moved| now >= *moved + self.patience)
    }

    /// Whether this worker waits for them to go.
    pub(super) const fn is_patient(&self) -> bool {
        self.patient
    }

    pub(super) fn settle(&mut self) {
        self.settled = true;
    }
}

impl Coordination {
    /// Compares a row as it is listed now with how it was: foreign owners betray themselves by counters that move.
    pub(in super::super) fn watch_foreign(&mut self, row: &Lease, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let Some(owner) = row.owner.as_ref().filter(|owner| row_of(owner).is_none()) else { return };
        if row.is_ended() {
            return;
        }
        let before = self.table.get(&row.shard);
        let same_owner = before.is_some_and(|before| before.is_owned_by(owner));
        let moved = before.is_some_and(|before| before.counter != row.counter);
        let foreign = &mut fleet.foreign;
        if !foreign.moved.contains_key(owner) {
            warn!(%owner, "a lease is owned by a worker that is not a member of the fleet");
            foreign.moved.insert(owner.clone(), now);
            self.events.send(Event::ForeignOwner { owner: owner.clone() });
        }
        if moved || (foreign.settled && !same_owner) {
            foreign.moved.insert(owner.clone(), now);
            foreign.alive = Some(owner.clone());
        }
    }

    /// After a listing: forgets foreign owners that own nothing any more, and refuses to work beside those that live.
    pub(in super::super) fn judge_foreign(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let unfinished = || self.table.values().filter(|lease| !lease.is_ended());
        let was_watching = fleet.foreign.is_watching();
        fleet.foreign.moved.retain(|owner, _| unfinished().any(|lease| lease.is_owned_by(owner)));
        if was_watching && !fleet.foreign.is_watching() {
            info!("no lease is owned by a worker outside the fleet any more");
        }
        if !fleet.foreign.is_watching() {
            fleet.foreign.alive = None;
        }
        if let Some(owner) = fleet.foreign.alive.take() {
            if fleet.foreign.settled || fleet.foreign.patient {
                warn!(%owner, "a worker outside the fleet works on this table; taking nothing while it does");
            } else {
                self.fatal.get_or_insert_with(|| beside(&owner, &self.store.to_string()));
            }
        }
        fleet.become_active();
        if let Some(at) = fleet.foreign.next_change(now) {
            self.plan_soon(at);
        }
    }

    /// Rows of Java's coordination, or others that nobody should touch.
    pub(in super::super) fn refuse_foreign_rows(&self) -> Result<(), Error> {
        let found = self.foreign_rows.iter().find(|(_, kind)| kind.as_str() != "FLEET");
        match found {
            Some((key, kind)) if self.fleet.is_some() => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "lease table {} has a row of the kind {kind} ({key}), which the Java KCL 3.x makes: stop the Java \
                     workers and delete the row, or choose Coordination::PerLease or another application name",
                    self.store
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn beside(owner: &WorkerId, table: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "worker {owner} works on lease table {table} and is not a member of a fleet: stop such workers first, let \
             this one wait for that with Takeover::Wait, or choose Coordination::PerLease"
        ),
    )
}
