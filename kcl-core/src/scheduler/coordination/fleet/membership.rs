//! This worker's own entry: its id, its heartbeats, what they tell the others.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::{FleetEntry, FleetRowKey, Gave, MemberLimits, MemberState};
use crate::model::{ShardId, WorkerId};

/// Where this worker stands in its fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not a member; joins at this time.
    Out { join_at: Instant },
    /// An attempt to join is under way.
    Joining,
    /// A member. Nothing is taken before its first heartbeat is confirmed (R1).
    Member { id: WorkerId, row: FleetRowKey, confirmed: bool },
    /// It has left, for good.
    Left,
}

/// Decides what this worker's heartbeats say, and when each is sent.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) place: Place,
    /// What the next heartbeat says; its number and its news are filled in when it is sent.
    pub(super) entry: FleetEntry,
    /// The state to be shown as a member.
    state: MemberState,
    /// The number of the last attempt. Attempts never share one, and numbers only grow (R10, H1, H2).
    number: u64,
    under_way: bool,
    next_beat: Instant,
    /// Whether something is to be told at once.
    dirty: bool,
    /// Whether no heartbeat is sent any more.
    quiet: bool,
    gave: VecDeque<(Instant, ShardId, WorkerId)>,
    failures: u32,
}

/// One attempt of a heartbeat.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) id: WorkerId,
    pub(super) row: FleetRowKey,
    pub(super) entry: FleetEntry,
    /// For how long its answer is waited for.
    pub(super) time_out: Duration,
}

impl Membership {
    pub(super) fn new(
        lease_duration: Duration,
        limits: MemberLimits,
        state: MemberState,
        now: Instant,
    ) -> Self {
        let mut entry = FleetEntry::new(lease_duration, MemberState::Observer);
        entry.limits = limits;
        Self {
            place: Place::Out { join_at: now },
            entry,
            state,
            number: 0,
            under_way: false,
            next_beat: now,
            dirty: false,
            quiet: false,
            gave: VecDeque::new(),
            failures: 0,
        }
    }

    /// The id under which this worker is a member, confirmed by a heartbeat.
    pub(super) fn confirmed_id(&self) -> Option<&WorkerId> {
        match &self.place {
            Place::Member { id, confirmed: true, .. } => Some(id),
            Place::Out { .. } | Place::Joining | Place::Member { .. } | Place::Left => None,
        }
    }

    /// The id under which this worker has an entry.
    pub(super) fn id(&self) -> Option<&WorkerId> {
        match &self.place {
            Place::Member { id, .. } => Some(id),
            Place::Out { .. } | Place::Joining | Place::Left => None,
        }
    }

    pub(super) fn row(&self) -> Option<FleetRowKey> {
        match &self.place {
            Place::Member { row, .. } => Some(*row),
            Place::Out { .. } | Place::Joining | Place::Left => None,
        }
    }

    /// The entry that an attempt to join writes. It takes nothing: only a heartbeat does, so that an attempt without an
    /// answer leaves nothing behind that others would give leases to.
    pub(super) fn first_entry(&self) -> FleetEntry {
        let mut entry = FleetEntry::new(self.entry.lease_duration, MemberState::Observer);
        entry.limits = self.entry.limits;
        entry
    }

    /// The entry is there. The first heartbeat follows at once, and makes the member count.
    pub(super) fn joined(&mut self, id: WorkerId, row: FleetRowKey, now: Instant) {
        self.place = Place::Member { id, row, confirmed: false };
        self.number = 0;
        self.entry.state = self.state;
        self.entry.moves = 0;
        self.entry.leases = 0;
        self.entry.housekeeping = 0;
        self.gave.clear();
        self.under_way = false;
        self.failures = 0;
        self.next_beat = now;
    }

    /// The entry is gone, or was never there: join again, under a new id.
    pub(super) fn out(&mut self, join_at: Instant) {
        self.place = Place::Out { join_at };
        self.under_way = false;
    }

    /// Counts an ownership change; the others are told at once (R4, R6).
    pub(super) fn moved(&mut self) {
        self.entry.moves += 1;
        self.dirty = true;
    }

    /// A lease was given away; its new owner is told at once.
    pub(super) fn gave(&mut self, shard: ShardId, to: WorkerId, now: Instant) {
        self.gave.push_back((now, shard, to));
        self.moved();
    }

    /// Sends no heartbeat any more: the entry is about to be removed.
    pub(super) fn hush(&mut self) {
        self.quiet = true;
    }

    /// Sets the state to be shown; others are told at once.
    pub(super) fn set_state(&mut self, state: MemberState) {
        self.state = state;
        if self.entry.state != state && self.id().is_some() {
            self.entry.state = state;
            self.dirty = true;
        }
    }

    /// When [`Membership::beat`] has something to send.
    pub(super) fn next_beat(&self, now: Instant) -> Option<Instant> {
        let Place::Member { .. } = self.place else { return None };
        if self.under_way || self.quiet {
            return None;
        }
        Some(if self.dirty { now } else { self.next_beat })
    }

    /// The heartbeat to be sent now, if one is due. `keep_gave` is how long a give stays news.
    pub(super) fn beat(&mut self, now: Instant, keep_gave: Duration) -> Option<Beat> {
        if self.next_beat(now).is_none_or(|at| at > now) {
            return None;
        }
        let Place::Member { id, row, .. } = &self.place else { return None };
        let (id, row) = (id.clone(), *row);
        while self.gave.front().is_some_and(|(at, ..)| *at + keep_gave < now) {
            self.gave.pop_front();
        }
        self.number += 1;
        self.entry.heartbeat = self.number;
        self.entry.gave = Gave::of(self.gave.iter().map(|(_, shard, to)| (shard, to)));
        self.under_way = true;
        self.dirty = false;
        let time_out = self.entry.lease_duration / 6;
        Some(Beat { id, row, entry: self.entry.clone(), time_out })
    }

    /// A heartbeat sent at `sent` was confirmed. Returns whether it is the first.
    pub(super) fn confirmed(&mut self, sent: Instant) -> bool {
        self.under_way = false;
        self.failures = 0;
        self.next_beat = sent + self.entry.lease_duration / 3;
        match &mut self.place {
            Place::Member { confirmed, .. } => !std::mem::replace(confirmed, true),
            Place::Out { .. } | Place::Joining | Place::Left => false,
        }
    }

    /// A heartbeat sent at `sent` failed or went without an answer. After a time-out the next is sent at once, so that
    /// four fit before the validity ends (A13); what fails at once waits a little.
    pub(super) fn failed(&mut self, sent: Instant, now: Instant) {
        self.under_way = false;
        self.failures += 1;
        let pause = (self.entry.lease_duration / 100) * (1 << self.failures.min(4));
        self.next_beat = now.max(sent + pause.min(self.entry.lease_duration / 6));
    }

    /// Whether the last attempt that is over was answered.
    pub(super) const fn is_beating(&self) -> bool {
        self.failures == 0
    }

    /// A heartbeat was refused because a later attempt had landed: it proves nothing, and another is due.
    pub(super) fn superseded(&mut self, now: Instant) {
        self.under_way = false;
        self.next_beat = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::member_id;

    const D: Duration = Duration::from_secs(12);

    fn member(now: Instant) -> Membership {
        let mut membership = Membership::new(D, MemberLimits::default(), MemberState::Active, now);
        assert_eq!(
            membership.first_entry().state,
            MemberState::Observer,
            "a ghost of an attempt takes nothing"
        );
        membership.joined(member_id("w", uuid::Uuid::from_u128(1), FleetRowKey(3)), FleetRowKey(3), now);
        membership
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_come_every_third_of_the_lease_duration_with_a_number_each() {
        let start = Instant::now();
        let mut membership = member(start);
        assert!(membership.confirmed_id().is_none());
        let first = membership.beat(start, D).unwrap();
        assert_eq!((first.entry.heartbeat, first.row), (1, FleetRowKey(3)));
        assert_eq!(first.entry.state, MemberState::Active);
        assert!(membership.beat(start, D).is_none(), "one is under way");
        assert!(membership.confirmed(start));
        assert!(membership.confirmed_id().is_some());
        assert!(membership.beat(start + D / 3 - Duration::from_millis(1), D).is_none());
        let second = membership.beat(start + D / 3, D).unwrap();
        assert_eq!(second.entry.heartbeat, 2);
        membership.failed(start + D / 3, start + D / 3 + second.time_out);
        let third = membership.beat(start + D / 2, D).unwrap();
        assert_eq!(third.entry.heartbeat, 3, "an attempt without an answer is not repeated under its number");
        assert!(!membership.confirmed(start + D / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn four_attempts_fit_before_the_validity_ends() {
        let start = Instant::now();
        let mut membership = member(start);
        membership.beat(start, D).unwrap();
        membership.confirmed(start);
        let mut attempts = Vec::new();
        let mut now = start;
        while now < start + D - D / 10 {
            if let Some(beat) = membership.beat(now, D) {
                attempts.push(now - start);
                membership.failed(now, now + beat.time_out);
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(attempts, [D / 3, D / 2, D * 2 / 3, D * 5 / 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_are_told_at_once_and_for_a_while() {
        let start = Instant::now();
        let mut membership = member(start);
        membership.beat(start, D).unwrap();
        membership.gave("shard".into(), "heir".into(), start);
        assert!(membership.next_beat(start).is_none());
        membership.confirmed(start);
        let now = start + Duration::from_millis(10);
        let beat = membership.beat(now, D).unwrap();
        assert_eq!(beat.entry.moves, 1);
        assert_eq!(beat.entry.gave.to(&"heir".into()).count(), 1);
        membership.confirmed(now);
        assert!(membership.beat(now, D).is_none());
        let later = membership.beat(start + D + Duration::from_millis(1), D).unwrap();
        assert!(later.entry.gave.is_empty());
        assert_eq!(later.entry.moves, 1);
    }
}
