//! What this worker knows of the others: their rows, when each was last seen to live, who is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fleet::rules::{self, Moment, Presence, Sighting};
use crate::fleet::{FleetEntry, FleetRow, FleetRowKey, Gave, MemberState, row_of};
use crate::model::{ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// For how long an id that is gone is remembered, so that a late answer does not bring it back.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A view of a row: what an answer showed.
#[derive(Clone, Debug)]
pub(in super::super) struct View {
    pub(in super::super) key: FleetRowKey,
    pub(in super::super) row: Option<FleetRow>,
    /// When it was asked for, if the answer is strongly consistent.
    pub(in super::super) strong: Option<Moment>,
    pub(in super::super) arrived: Moment,
    /// Whether this worker's own heartbeats arrive, as far as it knows.
    pub(in super::super) beating: bool,
}

/// What a view changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct News {
    /// Members came, went or changed their state, or somebody's `mv` changed (R6).
    pub(in super::super) changed: bool,
    /// These are no longer live.
    pub(in super::super) departed: Vec<WorkerId>,
    /// Leases that were given to this worker, and whether for balance alone.
    pub(in super::super) given: BTreeMap<ShardId, bool>,
    /// Somebody gave away more than its entry can name.
    pub(in super::super) given_many: bool,
    /// The view is not good enough to act on: look again, strongly consistent.
    pub(in super::super) look_again: bool,
}

#[derive(Clone, Debug)]
struct Neighbour {
    row: FleetRowKey,
    entry: FleetEntry,
    sighting: Sighting,
    /// When an answer first showed it.
    first_seen: Moment,
    /// When its heartbeat was last seen to move.
    moved: Moment,
    /// When its `hk` was last seen to move.
    kept_house: Moment,
}

/// The others, and this worker's own entry as they see it.
#[derive(Debug, Default)]
pub(in super::super) struct Neighbours {
    known: BTreeMap<WorkerId, Neighbour>,
    /// The last strongly consistent view of each row: when it was asked for, and who was live.
    strong: BTreeMap<FleetRowKey, (Moment, BTreeSet<WorkerId>)>,
    /// Ids that were there and are not any more, since when.
    gone: BTreeMap<WorkerId, Moment>,
    /// When each owner of a lease was first seen to own one.
    owners: BTreeMap<WorkerId, Moment>,
    /// How many rows there are, as far as is known.
    rows: u32,
    /// When members or their moves last changed.
    pub(in super::super) changed_at: Moment,
}

impl Neighbours {
    /// The rows that are known.
    pub(in super::super) fn rows(&self) -> u32 {
        let highest = self.known.values().map(|neighbour| neighbour.row.0 + 1).max();
        self.rows.max(highest.unwrap_or(0)).max(1)
    }

    /// The live members, and since when each heartbeat has stood still as far as is seen.
    pub(in super::super) fn live(&self) -> impl Iterator<Item = (&WorkerId, &FleetEntry, Moment)> {
        self.known
            .iter()
            .filter(|(_, neighbour)| neighbour.entry.state != MemberState::Gone)
            .map(|(id, neighbour)| (id, &neighbour.entry, neighbour.moved))
    }

    /// When this member was first seen.
    pub(in super::super) fn first_seen(&self, worker: &WorkerId) -> Moment {
        self.known.get(worker).map_or(Moment::ZERO, |neighbour| neighbour.first_seen)
    }

    pub(in super::super) fn is_live(&self, worker: &WorkerId) -> bool {
        self.known.get(worker).is_some_and(|neighbour| neighbour.entry.state != MemberState::Gone)
    }

    /// Takes note of a view, and says what it changed for `me`.
    pub(in super::super) fn see(&mut self, me: Option<&WorkerId>, view: View) -> News {
        let View { key, row, strong, arrived, beating } = view;
        let mut news = News::default();
        let workers = row.as_ref().map(|row| &row.workers);
        // Numbers only grow, so one below what was seen betrays an old copy; it says nothing at all (A2).
        let is_old = workers.into_iter().flatten().any(|(id, entry)| {
            self.known.get(id).is_some_and(|known| entry.heartbeat < known.sighting.heartbeat)
        });
        if is_old {
            return news;
        }
        if let Some(rows) = row.as_ref().and_then(|row| row.rows) {
            self.rows = self.rows.max(rows);
        }
        for (id, entry) in workers.into_iter().flatten() {
            if !self.gone.contains_key(id) {
                self.see_entry(me, (key, id), entry, (arrived, beating), &mut news);
            }
        }
        let missing: Vec<WorkerId> = self
            .known
            .iter()
            .filter(|(id, known)| {
                known.row == key && workers.is_none_or(|workers| !workers.contains_key(*id))
            })
            .map(|(id, _)| id.clone())
            .collect();
        match strong {
            Some(sent) => {
                // A view asked for before a member was first seen may be older than its entry (H6).
                let known_then =
                    |id: &WorkerId| self.known.get(id).is_some_and(|known| known.first_seen <= sent);
                let departed: Vec<WorkerId> = missing.into_iter().filter(|id| known_then(id)).collect();
                for id in departed {
                    if self.known.remove(&id).is_some_and(|known| known.entry.state != MemberState::Gone) {
                        news.departed.push(id.clone());
                        news.changed = true;
                    }
                    self.gone.insert(id, arrived);
                }
                let live = row.iter().flat_map(FleetRow::live).map(|(id, _)| id.clone()).collect();
                if self.strong.get(&key).is_none_or(|(known, _)| *known <= sent) {
                    self.strong.insert(key, (sent, live));
                }
            }
            // The copy may be older than what is known.
            None => news.look_again = !missing.is_empty(),
        }
        self.gone.retain(|_, since| arrived.saturating_sub(*since) < REMEMBERED);
        if news.changed {
            self.changed_at = arrived;
        }
        news
    }

    fn see_entry(
        &mut self,
        me: Option<&WorkerId>,
        (key, id): (FleetRowKey, &WorkerId),
        entry: &FleetEntry,
        (arrived, beating): (Moment, bool),
        news: &mut News,
    ) {
        let is_me = me == Some(id);
        let Some(known) = self.known.get_mut(id) else {
            let neighbour = Neighbour {
                row: key,
                entry: entry.clone(),
                sighting: Sighting::new(entry.heartbeat, arrived),
                first_seen: arrived,
                moved: arrived,
                kept_house: arrived,
            };
            self.known.insert(id.clone(), neighbour);
            news.changed |= entry.state != MemberState::Gone;
            if !is_me {
                Self::hear(me, None, entry, news);
            }
            return;
        };
        if entry.heartbeat > known.sighting.heartbeat {
            known.moved = arrived;
        }
        if planted(Plant::CreditBlindTime) && entry.heartbeat == known.sighting.heartbeat {
            known.sighting.still += arrived.saturating_sub(known.sighting.viewed);
            known.sighting.viewed = arrived;
        } else if beating {
            known.sighting.view(entry.heartbeat, entry.lease_duration, arrived);
        } else {
            known.sighting.view_while_silent(entry.heartbeat, arrived);
        }
        if entry.housekeeping != known.entry.housekeeping {
            known.kept_house = arrived;
        }
        let before = std::mem::replace(&mut known.entry, entry.clone());
        if is_me {
            return;
        }
        if before.state != entry.state {
            news.changed = true;
            if entry.state == MemberState::Gone {
                news.departed.push(id.clone());
            }
        }
        news.changed |= before.moves != entry.moves;
        Self::hear(me, Some(&before.gave), entry, news);
    }

    /// What an entry tells of leases given to `me`, beyond what it told before.
    fn hear(me: Option<&WorkerId>, before: Option<&Gave>, entry: &FleetEntry, news: &mut News) {
        let Some(me) = me else { return };
        let told: BTreeSet<&ShardId> = before.into_iter().flat_map(|gave| gave.to(me)).collect();
        let for_balance = entry.state == MemberState::Active;
        let new = entry.gave.to(me).filter(|shard| !told.contains(shard));
        news.given.extend(new.map(|shard| (shard.clone(), for_balance)));
        news.given_many |= entry.gave == Gave::Many && before != Some(&Gave::Many);
    }

    /// R2: the entries that may be removed, on the strength of the view of `key` that was just noted, and for each
    /// whether `me` goes first.
    pub(in super::super) fn dead(&self, me: &WorkerId, key: FleetRowKey) -> Vec<(WorkerId, u64, bool)> {
        let is_dead = |neighbour: &Neighbour| {
            let duration = neighbour.entry.lease_duration;
            neighbour.sighting.is_dead(if planted(Plant::EvictEarly) { duration / 2 } else { duration })
        };
        let in_row = || self.known.iter().filter(|(_, neighbour)| neighbour.row == key);
        let mut row = FleetRow::default();
        for (id, neighbour) in in_row() {
            row.workers.insert(id.clone(), neighbour.entry.clone());
        }
        let first = rules::evicts_first(me, &row, |id| self.known.get(id).is_some_and(is_dead));
        in_row()
            .filter(|(id, neighbour)| *id != me && is_dead(neighbour))
            .map(|(id, neighbour)| (id.clone(), neighbour.sighting.heartbeat, first))
            .collect()
    }

    /// Whether a removal that was put off is still right.
    pub(in super::super) fn still_stands_at(&self, worker: &WorkerId, heartbeat: u64) -> bool {
        self.known.get(worker).is_some_and(|known| known.sighting.heartbeat == heartbeat)
    }

    /// Takes note of an owner that a row of a lease showed.
    pub(in super::super) fn see_owner(&mut self, owner: &WorkerId, arrived: Moment) {
        if !self.owners.contains_key(owner) {
            self.owners.insert(owner.clone(), arrived);
        }
    }

    /// Forgets owners that own nothing any more.
    pub(in super::super) fn retain_owners(&mut self, owns: impl Fn(&WorkerId) -> bool) {
        self.owners.retain(|owner, _| owns(owner));
    }

    /// R3: whether the owner of a lease is gone.
    ///
    /// An id is never used again. So once a view shows an owner absent that was asked for after it was first seen to
    /// own a lease, it is gone for ever and for all its leases.
    pub(in super::super) fn presence(&self, owner: &WorkerId) -> Presence {
        let Some(key) = row_of(owner) else { return Presence::Foreign };
        let Some((sent, live)) = self.strong.get(&key) else { return Presence::MayLive };
        if planted(Plant::StaleAbsence) {
            return if live.contains(owner) { Presence::MayLive } else { Presence::Gone };
        }
        match self.owners.get(owner) {
            Some(seen) if sent >= seen && !live.contains(owner) => Presence::Gone,
            _ => Presence::MayLive,
        }
    }

    /// The rows that have to be looked at, strongly consistent, to know whether owners of leases are gone.
    pub(in super::super) fn doubtful_rows(&self) -> BTreeSet<FleetRowKey> {
        self.owners
            .iter()
            .filter(|(owner, _)| !self.is_live(owner) && self.presence(owner) == Presence::MayLive)
            .filter_map(|(owner, _)| row_of(owner))
            .collect()
    }

    /// R8: who keeps house: the smallest active member whose count of passes moved within `patience`, or who came within
    /// it. If there is none, each in turn gets as much time to begin: those who never had to are as still as one that
    /// cannot.
    pub(in super::super) fn housekeeper(&self, patience: Duration, now: Moment) -> Option<&WorkerId> {
        let active: Vec<_> = self
            .known
            .iter()
            .filter(|(_, neighbour)| neighbour.entry.state == MemberState::Active)
            .map(|(id, neighbour)| (id, neighbour.kept_house))
            .collect();
        let still = |kept_house: Moment| now.saturating_sub(kept_house);
        if let Some((id, _)) = active.iter().find(|(_, kept_house)| still(*kept_house) < patience) {
            return Some(id);
        }
        let last = active.iter().map(|(_, kept_house)| *kept_house).max()?;
        let turns = still(last).as_nanos().checked_div(patience.as_nanos()).unwrap_or(0);
        let turn = usize::try_from(turns % active.len() as u128).unwrap_or(0);
        active.get(turn).map(|(id, _)| *id)
    }

    /// The highest heartbeat of a member that was seen.
    pub(in super::super) fn heartbeat_of(&self, worker: &WorkerId) -> Option<u64> {
        self.known.get(worker).map(|known| known.sighting.heartbeat)
    }

    /// The entries of members that have left and were not removed yet.
    pub(in super::super) fn left(&self) -> impl Iterator<Item = (&WorkerId, FleetRowKey, u64)> {
        self.known
            .iter()
            .filter(|(_, known)| known.entry.state == MemberState::Gone)
            .map(|(id, known)| (id, known.row, known.sighting.heartbeat))
    }

    /// Whether any member lives in this row.
    pub(in super::super) fn lives_in(&self, row: FleetRowKey) -> bool {
        let mut live = self.known.values().filter(|known| known.entry.state != MemberState::Gone);
        live.any(|known| known.row == row)
    }

    /// Whether a strongly consistent view of this row arrived that was asked for at this moment or later.
    pub(in super::super) fn viewed_since(&self, row: FleetRowKey, since: Moment) -> bool {
        self.strong.get(&row).is_some_and(|(sent, _)| *sent >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::member_id;

    const D: Duration = Duration::from_secs(10);
    const ROW: FleetRowKey = FleetRowKey(0);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn id(number: u128) -> WorkerId {
        member_id("w", uuid::Uuid::from_u128(number), ROW)
    }

    fn entry(heartbeat: u64) -> FleetEntry {
        let mut entry = FleetEntry::new(D, MemberState::Active);
        entry.heartbeat = heartbeat;
        entry
    }

    fn row(entries: &[(u128, FleetEntry)]) -> FleetRow {
        let workers = entries.iter().map(|(number, entry)| (id(*number), entry.clone())).collect();
        FleetRow { workers, rows: None }
    }

    fn eventual(row: FleetRow, arrived: u64) -> View {
        View { key: ROW, row: Some(row), strong: None, arrived: at(arrived), beating: true }
    }

    fn strong(row: FleetRow, sent: u64, arrived: u64) -> View {
        View { key: ROW, row: Some(row), strong: Some(at(sent)), arrived: at(arrived), beating: true }
    }

    #[test]
    fn an_old_copy_says_nothing() {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.see(None, strong(row(&[(1, entry(6)), (2, entry(1))]), 0, 1)).changed);
        let news = neighbours.see(None, eventual(row(&[(1, entry(5))]), 2));
        assert_eq!(news, News::default());
        assert!(neighbours.is_live(&id(2)));
    }

    #[test]
    fn only_a_consistent_view_shows_a_departure() {
        let mut neighbours = Neighbours::default();
        let _ = neighbours.see(None, strong(row(&[(1, entry(1)), (2, entry(1))]), 0, 1));
        let news = neighbours.see(None, eventual(row(&[(1, entry(2))]), 2));
        assert!(news.look_again && !news.changed);
        let news = neighbours.see(None, strong(row(&[(1, entry(2))]), 3, 4));
        assert_eq!(news.departed, [id(2)]);
        let news = neighbours.see(None, eventual(row(&[(1, entry(2)), (2, entry(9))]), 5));
        assert!(!news.changed && !neighbours.is_live(&id(2)), "an id that is gone does not come back");
    }

    #[test]
    fn a_view_asked_for_before_a_member_was_seen_does_not_show_that_it_left() {
        let mut neighbours = Neighbours::default();
        let me = id(2);
        let _ = neighbours.see(Some(&me), strong(row(&[(1, entry(1)), (2, entry(1))]), 3, 4));
        let news = neighbours.see(Some(&me), strong(row(&[(1, entry(1))]), 2, 5));
        assert!(news.departed.is_empty() && neighbours.is_live(&me));
    }

    #[test]
    fn an_owner_is_gone_once_a_view_asked_for_later_lacks_it() {
        let mut neighbours = Neighbours::default();
        let _ = neighbours.see(None, strong(row(&[(1, entry(1))]), 4, 6));
        neighbours.see_owner(&id(2), at(5));
        neighbours.see_owner(&id(2), at(9));
        assert_eq!(neighbours.presence(&id(2)), Presence::MayLive, "the view was asked for before");
        assert_eq!(neighbours.doubtful_rows(), BTreeSet::from([ROW]));
        let _ = neighbours.see(None, strong(row(&[(1, entry(1))]), 5, 7));
        assert_eq!(neighbours.presence(&id(2)), Presence::Gone);
        assert!(neighbours.doubtful_rows().is_empty());
        assert_eq!(neighbours.presence(&"java".into()), Presence::Foreign);
    }

    #[test]
    fn the_dead_are_found_by_views_alone() {
        let mut neighbours = Neighbours::default();
        let _ = neighbours.see(None, strong(row(&[(1, entry(1)), (2, entry(1))]), 0, 0));
        for second in 1..10 {
            let _ = neighbours.see(None, eventual(row(&[(1, entry(1 + second)), (2, entry(1))]), second));
            assert_eq!(neighbours.dead(&id(1), ROW), []);
        }
        let _ = neighbours.see(None, eventual(row(&[(1, entry(20)), (2, entry(1))]), 10));
        assert_eq!(neighbours.dead(&id(1), ROW), [(id(2), 1, true)]);
        assert_eq!(neighbours.dead(&id(3), ROW), [(id(2), 1, false)], "another lives in that row");
        assert!(neighbours.still_stands_at(&id(2), 1));
    }

    #[test]
    fn gives_are_heard_once() {
        let mut neighbours = Neighbours::default();
        let me = id(1);
        let mut giver = entry(1);
        giver.gave = Gave::of([(&ShardId::from("a"), &me), (&ShardId::from("b"), &id(3))]);
        giver.moves = 2;
        let news = neighbours.see(Some(&me), eventual(row(&[(1, entry(1)), (2, giver.clone())]), 1));
        assert_eq!(news.given, BTreeMap::from([("a".into(), true)]));
        giver.heartbeat = 2;
        let news = neighbours.see(Some(&me), eventual(row(&[(1, entry(1)), (2, giver.clone())]), 2));
        assert!(news.given.is_empty() && !news.changed);
        (giver.heartbeat, giver.moves, giver.gave) = (3, 9, Gave::Many);
        let news = neighbours.see(Some(&me), eventual(row(&[(1, entry(1)), (2, giver)]), 3));
        assert!(news.given_many && news.changed);
    }

    #[test]
    fn a_housekeeper_that_does_nothing_is_replaced_by_members_that_never_had_to() {
        let mut neighbours = Neighbours::default();
        for second in [0, 500, 1_000] {
            let mut first = entry(1 + second);
            first.housekeeping = second;
            let others = [(1, first), (2, entry(1 + second)), (3, entry(1 + second))];
            let _ = neighbours.see(None, eventual(row(&others), second));
        }
        for (now, keeper) in [(1_100, 1), (1_180, 2), (1_359, 2), (1_360, 3), (1_540, 1), (1_720, 2)] {
            assert_eq!(neighbours.housekeeper(at(180), at(now)), Some(&id(keeper)), "{now}");
        }
    }

    #[test]
    fn a_housekeeper_that_does_nothing_is_replaced() {
        let mut neighbours = Neighbours::default();
        let _ = neighbours.see(None, eventual(row(&[(1, entry(1)), (2, entry(1))]), 0));
        assert_eq!(neighbours.housekeeper(at(180), at(100)), Some(&id(1)));
        let mut worked = entry(2);
        worked.housekeeping = 1;
        let _ = neighbours.see(None, eventual(row(&[(1, entry(2)), (2, worked)]), 150));
        assert_eq!(neighbours.housekeeper(at(180), at(200)), Some(&id(2)));
        assert_eq!(
            neighbours.housekeeper(at(180), at(999)),
            Some(&id(1)),
            "better one that may be slow than none"
        );
    }
}
