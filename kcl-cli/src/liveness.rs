//! Whether the owner of a lease lives, judged as the workers judge it: by watching. Pure.
//!
//! Rows hold no time. An owner lives if something of its was seen to move: the counter of the lease, or, for a
//! member of a fleet, its heartbeat. It is gone if a member's entry is absent (R3 of `docs/fleet-protocol.md`), or if
//! the counter stood still for the lease duration. Before either was seen nothing is proven.

use std::collections::BTreeMap;
use std::time::Duration;

use kcl_core::fleet::rules::{Moment, Presence, Sighting, presence};
use kcl_core::fleet::{FleetEntry, FleetRow, FleetRowKey, MemberState, row_of};
use kcl_core::lease::{AttemptToken, Lease, LeaseTable};
use kcl_core::model::{ShardId, WorkerId};
use serde::Serialize;
use tokio::time::Instant;

use crate::table::TableView;
use crate::text::duration_text;

/// What is known of the owner of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standing {
    /// There is none.
    Free,
    /// It was seen to move.
    Live {
        /// What moved.
        evidence: String,
    },
    /// It is gone.
    Gone {
        /// What proves it.
        evidence: String,
    },
    /// Its entry is there and stood still for its lease duration. It may be removed, and then the owner is gone.
    Dead {
        /// What proves it.
        evidence: String,
        /// The owner.
        worker: String,
        /// The number of the fleet row its entry is in.
        row: u32,
        /// The heartbeat that stood still.
        heartbeat: u64,
    },
    /// Nothing is proven yet.
    Unproven {
        /// What was seen so far.
        evidence: String,
    },
}

impl Standing {
    /// Whether nobody can be working under the lease.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        matches!(self, Self::Free | Self::Gone { .. } | Self::Dead { .. })
    }

    /// One word for a table.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Live { .. } => "live",
            Self::Gone { .. } => "gone",
            Self::Dead { .. } => "dead",
            Self::Unproven { .. } => "unproven",
        }
    }

    /// What was seen.
    #[must_use]
    pub fn evidence(&self) -> &str {
        match self {
            Self::Free => "it has no owner",
            Self::Live { evidence }
            | Self::Gone { evidence }
            | Self::Dead { evidence, .. }
            | Self::Unproven { evidence } => evidence,
        }
    }
}

#[derive(Clone, Debug)]
struct LeaseSeen {
    counter: u64,
    owner: Option<WorkerId>,
    token: Option<AttemptToken>,
    /// When this counter and owner were first seen.
    since: Moment,
    /// When this owner was first seen.
    owner_since: Moment,
    moves: u32,
    moves_with_token: u32,
}

#[derive(Clone, Debug)]
struct MemberSeen {
    sighting: Sighting,
    entry: FleetEntry,
    moves: u32,
}

/// A member of a fleet as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub worker: String,
    /// Whether it takes leases.
    pub state: &'static str,
    /// The heartbeat seen last.
    pub heartbeat: u64,
    /// How often the heartbeat was seen to move.
    pub beats_seen: u32,
    /// For how long it is proven to have stood still, in milliseconds.
    pub still_millis: u64,
    /// Its lease duration, in milliseconds.
    pub lease_duration_millis: u64,
    /// How many unfinished leases it says it holds.
    pub leases: u64,
    /// Whether it stood still for its lease duration.
    pub dead: bool,
}

/// Remembers what was seen of a table, view after view.
#[derive(Clone, Debug)]
pub struct Watcher {
    lease_duration: Duration,
    origin: Instant,
    leases: BTreeMap<ShardId, LeaseSeen>,
    members: BTreeMap<WorkerId, MemberSeen>,
    rows: BTreeMap<FleetRowKey, FleetRow>,
    view_sent: Moment,
    now: Moment,
    views: u32,
}

impl Watcher {
    /// Creates a watcher that has seen nothing. `lease_duration` is that of workers that say nothing of theirs.
    #[must_use]
    pub fn new(lease_duration: Duration) -> Self {
        Self {
            lease_duration,
            origin: Instant::now(),
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
            rows: BTreeMap::new(),
            view_sent: Duration::ZERO,
            now: Duration::ZERO,
            views: 0,
        }
    }

    /// Takes note of a view.
    pub fn view(&mut self, view: &TableView) {
        let sent = view.sent.saturating_duration_since(self.origin);
        let arrived = view.arrived.saturating_duration_since(self.origin);
        self.note(
            &view.leases(),
            view.fleet_rows().map(|(key, row)| (key, row.clone())).collect(),
            sent,
            arrived,
        );
    }

    fn note(
        &mut self,
        leases: &LeaseTable,
        rows: BTreeMap<FleetRowKey, FleetRow>,
        sent: Moment,
        arrived: Moment,
    ) {
        self.leases.retain(|shard, _| leases.contains_key(shard));
        for lease in leases.values() {
            let fresh = LeaseSeen {
                counter: lease.counter,
                owner: lease.owner.clone(),
                token: lease.token,
                since: arrived,
                owner_since: arrived,
                moves: 0,
                moves_with_token: 0,
            };
            match self.leases.get_mut(&lease.shard) {
                Some(seen) if seen.owner == lease.owner => {
                    if seen.counter != lease.counter {
                        seen.moves += 1;
                        seen.moves_with_token += u32::from(seen.token != lease.token);
                        (seen.counter, seen.token, seen.since) = (lease.counter, lease.token, arrived);
                    }
                }
                _ => {
                    self.leases.insert(lease.shard.clone(), fresh);
                }
            }
        }
        let mut present = BTreeMap::new();
        for row in rows.values() {
            for (worker, entry) in row.live() {
                let duration = entry.lease_duration;
                let seen = match self.members.remove(worker) {
                    Some(mut seen) => {
                        seen.moves += u32::from(entry.heartbeat > seen.sighting.heartbeat);
                        seen.sighting.view(entry.heartbeat, duration, arrived);
                        seen.entry = entry.clone();
                        seen
                    }
                    None => MemberSeen {
                        sighting: Sighting::new(entry.heartbeat, arrived),
                        entry: entry.clone(),
                        moves: 0,
                    },
                };
                present.insert(worker.clone(), seen);
            }
        }
        (self.members, self.rows) = (present, rows);
        (self.view_sent, self.now) = (sent, arrived);
        self.views += 1;
    }

    /// Whether members of a fleet are there.
    #[must_use]
    pub fn sees_a_fleet(&self) -> bool {
        !self.members.is_empty()
    }

    /// How many views there were.
    #[must_use]
    pub const fn views(&self) -> u32 {
        self.views
    }

    /// The members of the fleet, in the order of ids.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.members
            .iter()
            .map(|(worker, seen)| Member {
                worker: worker.to_string(),
                state: seen.entry.state.as_str(),
                heartbeat: seen.sighting.heartbeat,
                beats_seen: seen.moves,
                still_millis: millis(seen.sighting.still),
                lease_duration_millis: millis(seen.entry.lease_duration),
                leases: seen.entry.leases,
                dead: seen.sighting.is_dead(seen.entry.lease_duration),
            })
            .collect()
    }

    /// Whether `worker` is an active member that was not seen to be dead.
    #[must_use]
    pub fn is_active_member(&self, worker: &WorkerId) -> bool {
        self.members.get(worker).is_some_and(|seen| {
            seen.entry.state == MemberState::Active && !seen.sighting.is_dead(seen.entry.lease_duration)
        })
    }

    /// Whether counters were seen to move without the token that our workers write with each move.
    #[must_use]
    pub fn sees_java_move(&self) -> bool {
        self.leases.values().any(|seen| seen.moves > seen.moves_with_token)
    }

    /// What is known of the owner of `lease`.
    #[must_use]
    pub fn standing(&self, lease: &Lease) -> Standing {
        let Some(owner) = &lease.owner else { return Standing::Free };
        let Some(seen) = self.leases.get(&lease.shard).filter(|seen| seen.owner.as_ref() == Some(owner))
        else {
            return Standing::Unproven { evidence: "the owner was not seen before".into() };
        };
        match row_of(owner) {
            Some(row) => self.standing_of_member(owner, row, seen),
            None => self.standing_by_counter(seen),
        }
    }

    fn standing_of_member(&self, owner: &WorkerId, row: FleetRowKey, seen: &LeaseSeen) -> Standing {
        if presence(owner, self.rows.get(&row), self.view_sent, seen.owner_since) == Presence::Gone {
            return Standing::Gone {
                evidence: format!("the fleet row {row} has no live entry of the owner"),
            };
        }
        let Some(member) = self.members.get(owner) else {
            return Standing::Unproven {
                evidence: "the owner's entry is absent; one more look proves it".into(),
            };
        };
        let duration = member.entry.lease_duration;
        let still = duration_text(member.sighting.still);
        if member.sighting.is_dead(duration) {
            Standing::Dead {
                evidence: format!(
                    "the owner's heartbeat {} stood still for {still}, its lease duration is {}",
                    member.sighting.heartbeat,
                    duration_text(duration)
                ),
                worker: owner.to_string(),
                row: row.0,
                heartbeat: member.sighting.heartbeat,
            }
        } else if member.moves > 0 {
            Standing::Live { evidence: format!("the owner's heartbeat moved {}", times(member.moves)) }
        } else {
            Standing::Unproven {
                evidence: format!(
                    "the owner is a member ({}), its heartbeat stood still for {still}",
                    member.entry.state
                ),
            }
        }
    }

    fn standing_by_counter(&self, seen: &LeaseSeen) -> Standing {
        let still = self.now.saturating_sub(seen.since);
        // A fleet waits twice as long for owners that are no members (R3).
        let needed = if self.sees_a_fleet() { self.lease_duration * 2 } else { self.lease_duration };
        if still >= needed {
            Standing::Gone {
                evidence: format!(
                    "leaseCounter {} stood still for {}, longer than the lease duration of {}",
                    seen.counter,
                    duration_text(still),
                    duration_text(self.lease_duration)
                ),
            }
        } else if seen.moves > 0 {
            Standing::Live { evidence: format!("leaseCounter moved {}", times(seen.moves)) }
        } else {
            Standing::Unproven {
                evidence: format!(
                    "leaseCounter {} stood still for {} so far",
                    seen.counter,
                    duration_text(still)
                ),
            }
        }
    }

    /// How long to watch at most until every owner is judged.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let members = self.members.values().map(|seen| seen.entry.lease_duration);
        let longest = members.chain([self.lease_duration]).max().unwrap_or(self.lease_duration);
        longest * 5 / 2 + Duration::from_secs(1)
    }

    /// How long to wait between two views: a blind time longer than a third of the lease duration counts for that.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let members = self.members.values().map(|seen| seen.entry.lease_duration);
        let shortest = members.chain([self.lease_duration]).min().unwrap_or(self.lease_duration);
        (shortest / 5).clamp(Duration::from_millis(50), Duration::from_secs(2))
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kcl_core::model::Checkpoint;

    use super::*;

    const D: Duration = Duration::from_secs(10);
    const MEMBER: &str = "w:00000000-0000-0000-0000-000000000007:f0";

    fn lease(owner: &str, counter: u64) -> Lease {
        let mut lease = Lease::new("shardId-0".into(), Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (Some(owner.into()), counter);
        lease
    }

    fn fleet(heartbeat: Option<u64>) -> BTreeMap<FleetRowKey, FleetRow> {
        let mut row = FleetRow::default();
        if let Some(heartbeat) = heartbeat {
            let mut entry = FleetEntry::new(D, MemberState::Active);
            entry.heartbeat = heartbeat;
            row.workers.insert(MEMBER.into(), entry);
        }
        [(FleetRowKey(0), row)].into()
    }

    fn seconds(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn watch(
        watcher: &mut Watcher,
        lease: &Lease,
        rows: &BTreeMap<FleetRowKey, FleetRow>,
        at: u64,
    ) -> Standing {
        let leases = [(lease.shard.clone(), Arc::new(lease.clone()))].into();
        watcher.note(&leases, rows.clone(), seconds(at), seconds(at));
        watcher.standing(lease)
    }

    #[tokio::test]
    async fn an_owner_whose_counter_stands_still_is_gone_after_the_lease_duration_and_not_before() {
        let (mut watcher, none) = (Watcher::new(D), BTreeMap::new());
        let row = lease("java", 5);
        for at in [0, 4, 9] {
            assert_eq!(watch(&mut watcher, &row, &none, at).word(), "unproven", "{at}");
        }
        assert!(watch(&mut watcher, &row, &none, 10).is_safe());
        let renewed = lease("java", 6);
        assert_eq!(watch(&mut watcher, &renewed, &none, 11).word(), "live");
        assert!(watcher.sees_java_move());
    }

    #[tokio::test]
    async fn beside_a_fleet_other_owners_are_watched_for_twice_as_long() {
        let mut watcher = Watcher::new(D);
        let row = lease("java", 5);
        for at in [0, 2, 4, 6, 8, 10, 12, 14, 16, 18] {
            assert!(!watch(&mut watcher, &row, &fleet(Some(at)), at).is_safe(), "{at}");
        }
        assert_eq!(watch(&mut watcher, &row, &fleet(Some(20)), 20).word(), "gone");
    }

    #[tokio::test]
    async fn absence_of_a_member_needs_a_second_look() {
        let mut watcher = Watcher::new(D);
        let row = lease(MEMBER, 5);
        let leases: LeaseTable = [(row.shard.clone(), Arc::new(row.clone()))].into();
        // The first view was asked for before the lease was seen.
        watcher.note(&leases, fleet(None), seconds(0), seconds(1));
        assert_eq!(watcher.standing(&row).word(), "unproven");
        watcher.note(&leases, fleet(None), seconds(1), seconds(2));
        assert_eq!(watcher.standing(&row).word(), "gone");
    }

    #[tokio::test]
    async fn a_member_is_judged_by_its_heartbeat_and_not_by_the_counter() {
        let mut watcher = Watcher::new(D);
        let row = lease(MEMBER, 5);
        assert_eq!(watch(&mut watcher, &row, &fleet(Some(1)), 0).word(), "unproven");
        for at in 1..30 {
            assert_eq!(watch(&mut watcher, &row, &fleet(Some(1 + at)), at).word(), "live");
        }
        for at in 30..39 {
            assert!(!watch(&mut watcher, &row, &fleet(Some(30)), at).is_safe(), "{at}");
        }
        let dead = watch(&mut watcher, &row, &fleet(Some(30)), 39);
        assert!(matches!(dead, Standing::Dead { heartbeat: 30, row: 0, .. }), "{dead:?}");
        assert!(watcher.members()[0].dead);
        assert!(!watcher.is_active_member(&MEMBER.into()));
    }

    #[tokio::test]
    async fn a_new_owner_is_watched_anew() {
        let (mut watcher, none) = (Watcher::new(D), BTreeMap::new());
        assert_eq!(watch(&mut watcher, &lease("a", 5), &none, 0).word(), "unproven");
        assert_eq!(watch(&mut watcher, &lease("b", 6), &none, 10).word(), "unproven");
        assert_eq!(watch(&mut watcher, &lease("b", 6), &none, 20).word(), "gone");
        let mut free = lease("b", 7);
        free.owner = None;
        assert_eq!(watch(&mut watcher, &free, &none, 21), Standing::Free);
    }
}
