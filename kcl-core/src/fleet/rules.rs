//! The rules as functions. Each cites its own (`docs/fleet-protocol.md`).
//!
//! Times are [`Moment`]s: durations since any origin on *one* worker's monotonic clock. Rows hold none, and moments
//! of different workers are never compared.

use std::time::Duration;

use super::{FleetRow, MemberState, row_of};
use crate::lease::ProvisionedUnits;
use crate::model::WorkerId;

/// A time on one worker's monotonic clock, counted from any origin.
pub type Moment = Duration;

/// R1: until when a delivery may start, if the heartbeat sent at `sent` was confirmed.
///
/// `sent` is the moment before the attempt *that was confirmed* was sent, not that of an earlier or later one.
#[must_use]
pub const fn valid_until(sent: Moment, lease_duration: Duration, margin: Duration) -> Moment {
    sent.saturating_add(lease_duration.saturating_sub(margin))
}

/// R1: whether a suspension shows between `sent` and now: the wall clock ran ahead of the monotonic one by more than
/// the margin. Both arguments are what passed since `sent`. Can only shorten a validity.
#[must_use]
pub fn was_suspended(monotonic: Duration, wall: Duration, margin: Duration) -> bool {
    wall > monotonic.saturating_add(margin)
}

/// What a refused heartbeat means (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBeat {
    /// A later attempt of the same member has landed already: this one says nothing.
    Superseded,
    /// The entry is absent or `gone`: stop, drop everything, join again under a new id.
    Evicted,
}

/// R1: what a refused heartbeat means, by the row as the refusal shows it.
#[must_use]
pub fn refused_beat(me: &WorkerId, row: Option<&FleetRow>) -> RefusedBeat {
    match row.and_then(|row| row.live_entry(me)) {
        Some(_) => RefusedBeat::Superseded,
        None => RefusedBeat::Evicted,
    }
}

/// R2: what a worker has seen of one member: its highest heartbeat, and for how long that stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sighting {
    /// The highest number seen.
    pub heartbeat: u64,
    /// For how long it is proven to have stood still.
    pub still: Duration,
    /// When the answer of the last view that counts arrived.
    pub viewed: Moment,
}

impl Sighting {
    /// The first view of a member. `arrived` is when the answer came, never when the read was sent.
    #[must_use]
    pub const fn new(heartbeat: u64, arrived: Moment) -> Self {
        Self { heartbeat, still: Duration::ZERO, viewed: arrived }
    }

    /// Takes note of another view.
    ///
    /// A number below the highest is an old copy and says nothing. Of the time since the previous view no more than a
    /// third of the member's lease duration counts: an observer that saw nothing for a while learns nothing from that,
    /// so that an outage common to all costs nobody its leases.
    pub fn view(&mut self, heartbeat: u64, lease_duration: Duration, arrived: Moment) {
        if heartbeat < self.heartbeat {
            return;
        }
        if heartbeat > self.heartbeat {
            *self = Self::new(heartbeat, arrived);
            return;
        }
        let since = arrived.saturating_sub(self.viewed);
        self.still = self.still.saturating_add(since.min(lease_duration / 3));
        self.viewed = arrived;
    }

    /// Takes note of a view while the observer's own heartbeats do not arrive. What keeps them from it may keep others'
    /// from it, so standing still proves nothing.
    pub fn view_while_silent(&mut self, heartbeat: u64, arrived: Moment) {
        if heartbeat > self.heartbeat {
            *self = Self::new(heartbeat, arrived);
        } else if heartbeat == self.heartbeat {
            self.viewed = arrived;
        }
    }

    /// Whether the member may be evicted, on the strength of the view just noted.
    #[must_use]
    pub fn is_dead(&self, lease_duration: Duration) -> bool {
        self.still >= lease_duration
    }
}

/// R2: whether `me` is the first of a row to evict its dead: the smallest live member that is not dead itself.
///
/// Others wait 0.2 to 1 s, so that a death does not cost one refused write from each of them.
#[must_use]
pub fn evicts_first(me: &WorkerId, row: &FleetRow, is_dead: impl Fn(&WorkerId) -> bool) -> bool {
    row.live().map(|(worker, _)| worker).find(|worker| !is_dead(worker)) == Some(me)
}

/// What proves that the owner of a lease is gone, or that it may not be (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The row its id names has no live entry of it, in a view asked for after the lease was seen.
    Gone,
    /// It is there, or the view is too old to say.
    MayLive,
    /// It is not a member of a fleet: absence proves nothing.
    Foreign,
}

/// R3: whether the owner of a lease is gone.
///
/// `row` is a strongly consistent view of the row that the owner's id names, `view_sent` when it was asked for, and
/// `lease_seen` when the answer that showed the lease with this owner arrived.
#[must_use]
pub fn presence(owner: &WorkerId, row: Option<&FleetRow>, view_sent: Moment, lease_seen: Moment) -> Presence {
    if row_of(owner).is_none() {
        Presence::Foreign
    } else if view_sent >= lease_seen && row.is_none_or(|row| row.live_entry(owner).is_none()) {
        Presence::Gone
    } else {
        Presence::MayLive
    }
}

/// R4: whether a member may be given a lease: it is active, and its heartbeat was seen to move within half of its
/// lease duration.
#[must_use]
pub fn may_receive(state: MemberState, moved_ago: Duration, lease_duration: Duration) -> bool {
    state == MemberState::Active && moved_ago <= lease_duration / 2
}

/// R6: how long between two looks at a row: each second at the own one, the others at every `max(1, k)` seconds.
#[must_use]
pub fn look_interval(own: bool, rows: u32) -> Duration {
    Duration::from_secs(if own { 1 } else { u64::from(rows.max(1)) })
}

/// A12: the units a second that a table must serve for so many members at rest: a heartbeat every third of the lease
/// duration in a row of up to 2 KB, and looks at the fleet rows; checkpoints come on top.
#[must_use]
pub fn needed(members: usize, lease_duration: Duration) -> ProvisionedUnits {
    let members = u64::try_from(members).unwrap_or(u64::MAX);
    let duration = u64::try_from(lease_duration.as_millis()).unwrap_or(u64::MAX).max(1);
    let write = members.saturating_mul(6_000).div_ceil(duration);
    ProvisionedUnits::new(members, write)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FleetEntry, FleetRowKey, member_id};
    use super::*;

    const D: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Duration::from_millis(millis)
    }

    fn member(number: u128) -> WorkerId {
        member_id("w", uuid::Uuid::from_u128(number), FleetRowKey(0))
    }

    fn row(members: &[(&WorkerId, MemberState)]) -> FleetRow {
        let mut row = FleetRow::default();
        for (worker, state) in members {
            row.workers.insert((*worker).clone(), FleetEntry::new(D, *state));
        }
        row
    }

    #[test]
    fn validity_counts_from_the_confirmed_attempt() {
        assert_eq!(valid_until(at(500), D, at(1_000)), at(9_500));
    }

    #[test]
    fn a_wall_clock_that_ran_ahead_betrays_a_suspension() {
        assert!(was_suspended(at(1_000), at(2_001), at(1_000)));
        assert!(!was_suspended(at(1_000), at(2_000), at(1_000)));
        assert!(!was_suspended(at(5_000), at(0), at(1_000)), "a wall clock that was set back says nothing");
    }

    #[test]
    fn a_refused_beat_means_eviction_only_without_an_entry() {
        let me = member(1);
        assert_eq!(refused_beat(&me, Some(&row(&[(&me, MemberState::Active)]))), RefusedBeat::Superseded);
        assert_eq!(refused_beat(&me, Some(&row(&[(&me, MemberState::Gone)]))), RefusedBeat::Evicted);
        assert_eq!(refused_beat(&me, Some(&row(&[]))), RefusedBeat::Evicted);
        assert_eq!(refused_beat(&me, None), RefusedBeat::Evicted);
    }

    #[test]
    fn blind_time_counts_for_a_third_of_the_duration_at_most() {
        let mut sighting = Sighting::new(5, at(0));
        sighting.view(5, D, at(60_000));
        assert!(!sighting.is_dead(D));
        assert_eq!(sighting.still, D / 3);
        for second in 61..67 {
            sighting.view(5, D, at(second * 1_000));
            assert!(!sighting.is_dead(D), "{second}");
        }
        sighting.view(5, D, at(67_000));
        assert!(sighting.is_dead(D));
        sighting.view(6, D, at(68_000));
        assert!(!sighting.is_dead(D));
    }

    #[test]
    fn twenty_members_need_twelve_write_units_and_twenty_read_units_a_second() {
        assert_eq!(needed(20, D), ProvisionedUnits::new(20, 12));
        assert_eq!(needed(1, D), ProvisionedUnits::new(1, 1));
        assert_eq!(needed(20, D / 2), ProvisionedUnits::new(20, 24));
    }

    #[test]
    fn a_member_that_cannot_beat_itself_learns_nothing_from_others_that_stand_still() {
        let mut sighting = Sighting::new(5, at(0));
        sighting.view(5, D, at(3_000));
        for second in 4..60 {
            sighting.view_while_silent(5, at(second * 1_000));
            sighting.view_while_silent(4, at(second * 1_000));
        }
        assert_eq!(sighting.still, at(3_000));
        for second in 60..66 {
            sighting.view(5, D, at(second * 1_000));
            assert!(!sighting.is_dead(D), "{second}");
        }
        sighting.view(5, D, at(66_000));
        assert!(sighting.is_dead(D));
        sighting.view_while_silent(6, at(67_000));
        assert!(!sighting.is_dead(D));
    }

    proptest! {
        #[test]
        fn nobody_is_dead_before_its_duration_has_passed_since_its_highest_beat_was_seen(
            views in prop::collection::vec((0..4u64, 1..5_000u64), 1..60),
        ) {
            let mut now = at(0);
            let mut sighting = Sighting::new(0, now);
            let (mut highest, mut seen) = (0, now);
            for (heartbeat, gap) in views {
                now += at(gap);
                sighting.view(heartbeat, D, now);
                if heartbeat > highest {
                    (highest, seen) = (heartbeat, now);
                }
                prop_assert_eq!(sighting.heartbeat, highest);
                prop_assert!(sighting.still <= now - seen);
            }
        }
    }

    #[test]
    fn the_smallest_survivor_evicts_first() {
        let [a, b, c] = [member(1), member(2), member(3)];
        let row = row(&[(&a, MemberState::Active), (&b, MemberState::Active), (&c, MemberState::Active)]);
        let dead = |worker: &WorkerId| *worker == a;
        assert!(!evicts_first(&a, &row, dead));
        assert!(evicts_first(&b, &row, dead));
        assert!(!evicts_first(&c, &row, dead));
    }

    #[test]
    fn absence_needs_a_view_asked_for_after_the_lease_was_seen() {
        let [gone, other] = [member(1), member(2)];
        let without = row(&[(&other, MemberState::Active)]);
        assert_eq!(presence(&gone, Some(&without), at(5), at(5)), Presence::Gone);
        assert_eq!(presence(&gone, None, at(5), at(5)), Presence::Gone);
        assert_eq!(presence(&gone, Some(&without), at(4), at(5)), Presence::MayLive);
        assert_eq!(presence(&other, Some(&without), at(9), at(5)), Presence::MayLive);
        let left = row(&[(&gone, MemberState::Gone)]);
        assert_eq!(presence(&gone, Some(&left), at(5), at(5)), Presence::Gone);
        assert_eq!(presence(&"java".into(), None, at(9), at(5)), Presence::Foreign);
    }

    #[test]
    fn only_the_active_and_lively_receive() {
        assert!(may_receive(MemberState::Active, D / 2, D));
        assert!(!may_receive(MemberState::Active, D / 2 + at(1), D));
        for state in [MemberState::Draining, MemberState::Observer, MemberState::Gone] {
            assert!(!may_receive(state, at(0), D));
        }
    }
}
