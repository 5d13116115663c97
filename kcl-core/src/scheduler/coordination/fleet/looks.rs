//! A member's looks at the fleet rows: when each is due, how it is made, and what a failed one leads to (R6).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::super::{Coordination, in_time};
use super::{Fleet, FleetDone};
use crate::error::Chain;
use crate::fleet::{FleetRow, FleetRowKey, rules};
use crate::lease::{Consistency, StoreError};

/// How often a row is looked at from which leases are expected.
const EXPECTING_INTERVAL: Duration = Duration::from_millis(200);
/// For how long after a change every row is looked at each second.
const LIVELY_TIME: Duration = Duration::from_secs(10);

/// When a row is looked at next.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    strong: bool,
    pub(super) under_way: bool,
    /// Whether another was wanted while one was under way, which may have been asked for too early.
    again: bool,
    failures: u32,
}

impl Fleet {
    pub(super) fn look_now(&mut self, row: FleetRowKey, strong: bool, now: Instant) {
        let look = self.look(row, now);
        look.at = look.at.min(now);
        look.strong |= strong;
        look.again |= look.under_way;
    }

    fn look(&mut self, row: FleetRowKey, now: Instant) -> &mut Look {
        self.looks.entry(row).or_insert(Look {
            at: now,
            strong: false,
            under_way: false,
            again: false,
            failures: 0,
        })
    }

    /// How long until the next look at a row (R6).
    fn look_interval(&self, row: FleetRowKey, now: Instant) -> Duration {
        if self.placing.expects_from(row, now) {
            return EXPECTING_INTERVAL;
        }
        let lively = self.moment(now).saturating_sub(self.neighbours.changed_at) < LIVELY_TIME;
        let own = self.membership.row() == Some(row);
        rules::look_interval(own || lively, self.neighbours.rows())
    }
}

impl Coordination {
    pub(super) fn send_looks(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        if fleet.membership.id().is_none() {
            return;
        }
        for row in (0..fleet.neighbours.rows()).map(FleetRowKey) {
            fleet.look(row, now);
        }
        for row in fleet.neighbours.doubtful_rows() {
            fleet.look(row, now).strong = true;
        }
        let time_out = self.settings.lease_duration / 6;
        for (row, look) in &mut fleet.looks {
            if look.under_way || look.at > now {
                continue;
            }
            look.under_way = true;
            let strong = std::mem::take(&mut look.strong);
            let consistency = if strong { Consistency::Strong } else { Consistency::Eventual };
            let (row, store) = (*row, Arc::clone(&self.store));
            fleet.calls.push(Box::pin(async move {
                let sent = strong.then(Instant::now);
                let read = store.fleet_row(row, consistency);
                let result = in_time(&*store, "fleet row", time_out, read).await;
                FleetDone::Looked { row, sent, result }
            }));
        }
    }

    pub(super) fn looked(
        &mut self,
        row: FleetRowKey,
        sent: Option<Instant>,
        result: Result<Option<FleetRow>, StoreError>,
        now: Instant,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        let interval = fleet.look_interval(row, now);
        let most = self.settings.lease_duration / 3;
        let look = fleet.look(row, now);
        look.under_way = false;
        match result {
            Ok(view) => {
                look.failures = 0;
                look.at = if std::mem::take(&mut look.again) { now } else { now + interval };
                self.absorb(row, view, sent, now);
            }
            Err(error) => {
                // Looks are the first to slow down when the table throttles (A12).
                look.failures += 1;
                look.again = false;
                look.strong |= sent.is_some();
                look.at = now + (interval * (1 << look.failures.min(4))).min(most.max(interval));
                debug!(row = %row, error = %Chain(&error), "a fleet row could not be read");
            }
        }
    }
}
