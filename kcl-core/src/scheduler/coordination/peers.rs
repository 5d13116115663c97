//! Fleets, seen by a worker that is no member of one: it must not take leases beside their members (R11).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::fleet::neighbours::{Neighbours, View};
use super::{Coordination, SideDone, in_time};
use crate::error::{Chain, Error, ErrorKind};
use crate::fleet::{FleetRow, FleetRowKey, MemberState};
use crate::lease::{Consistency, StoreError};
use crate::scheduler::builder::Takeover;

/// What is known of members of fleets.
#[derive(Debug)]
pub(super) struct Peers {
    seen: Neighbours,
    origin: Instant,
    /// When the rows were last read.
    read_at: Option<Instant>,
    under_way: bool,
    /// Whether members may be alive.
    blocked: bool,
    /// Whether a lease was taken and the rows were read after that.
    confirmed: bool,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            seen: Neighbours::default(),
            origin: Instant::now(),
            read_at: None,
            under_way: false,
            blocked: false,
            confirmed: false,
        }
    }
}

impl Coordination {
    /// Whether this worker may take, adopt or ask for leases now. If that is not known freshly enough, the rows are
    /// read and a plan follows.
    pub(super) fn may_take_beside_fleets(&mut self, now: Instant) -> bool {
        let fresh = self.peers.read_at.is_some_and(|at| now < at + self.settings.lease_duration / 10);
        if !fresh {
            self.look_for_fleets();
        }
        fresh && !self.peers.blocked
    }

    /// After the first lease is taken the rows are read once more: either this worker sees the members that joined
    /// meanwhile, or they see its lease.
    pub(super) fn confirm_no_fleet(&mut self) {
        if !std::mem::replace(&mut self.peers.confirmed, true) {
            self.look_for_fleets();
        }
    }

    fn look_for_fleets(&mut self) {
        if self.peers.under_way {
            return;
        }
        self.peers.under_way = true;
        let (store, time_out) = (Arc::clone(&self.store), self.settings.lease_duration / 6);
        let look = async move {
            let mut rows = Vec::new();
            let (mut next, mut count) = (0, 1);
            while next < count {
                let key = FleetRowKey(next);
                let read = store.fleet_row(key, Consistency::Strong);
                match in_time(&*store, "fleet row", time_out, read).await {
                    Ok(row) => {
                        count = count.max(row.as_ref().and_then(|row| row.rows).unwrap_or(1));
                        rows.push((key, row));
                    }
                    Err(error) => return SideDone::Peers(rows, Err(error)),
                }
                next += 1;
            }
            SideDone::Peers(rows, Ok(()))
        };
        self.side_calls.push(look.boxed());
    }

    pub(super) fn saw_peers(
        &mut self,
        rows: Vec<(FleetRowKey, Option<FleetRow>)>,
        result: Result<(), StoreError>,
        now: Instant,
    ) {
        self.peers.under_way = false;
        if let Err(error) = result {
            debug!(error = %Chain(&error), "the fleet rows could not be read");
            self.plan_soon(now + self.settings.lease_duration / 20);
            return;
        }
        self.peers.read_at = Some(now);
        let arrived = now.saturating_duration_since(self.peers.origin);
        let known = self.peers.seen.live().filter(|(_, entry, _)| takes(entry.state)).count();
        let mut beats = 0;
        let mut dead = BTreeSet::new();
        for (key, row) in rows {
            let moved = row.iter().flat_map(|row| &row.workers).filter(|(id, entry)| {
                let before = self.peers.seen.heartbeat_of(id);
                takes(entry.state) && before.is_some_and(|before| before < entry.heartbeat)
            });
            beats += moved.count();
            let _ =
                self.peers.seen.see(None, View { key, row, strong: Some(arrived), arrived, beating: true });
            let dead_here = self.peers.seen.dead(&self.me, key);
            dead.extend(dead_here.into_iter().map(|(id, ..)| id));
        }
        let taking =
            self.peers.seen.live().filter(|(id, entry, _)| takes(entry.state) && !dead.contains(*id));
        let live = taking.count();
        let was_blocked = std::mem::replace(&mut self.peers.blocked, live > 0);
        if beats > 0 || (live > known && known > 0) {
            let holds = self.keeper.held().next().is_some();
            if self.way.takeover != Takeover::Wait || holds {
                self.fatal.get_or_insert_with(|| beside_a_fleet(&self.store.to_string()));
                return;
            }
        }
        if self.peers.blocked {
            if !was_blocked {
                warn!("members of a fleet may be alive; taking nothing until they are known to be gone");
            }
            // Each look credits a third of their lease duration at most.
            self.plan_soon(now + self.settings.lease_duration / 4);
        } else {
            if was_blocked {
                info!("no member of a fleet is alive any more");
            }
            self.plan_soon(now);
        }
    }
}

/// Whether a member of this state has leases, or takes them. One that observes looks for others before it does.
const fn takes(state: MemberState) -> bool {
    matches!(state, MemberState::Active | MemberState::Draining)
}

fn beside_a_fleet(table: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "lease table {table} has live members of a fleet: use Coordination::Fleet, or stop them first, which this \
             worker waits for with Takeover::Wait"
        ),
    )
}
