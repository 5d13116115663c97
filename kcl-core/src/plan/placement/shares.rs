//! How many leases each active member should have.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::PlacementMember;
use crate::model::WorkerId;

/// An active member, as leases are shared out.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) lively: bool,
    /// The leases that can do work: those it has, is being given, and is to get.
    pub(super) count: u64,
    /// The unfinished leases, those that wait included.
    all: u64,
    most: u64,
    pub(super) target: u64,
}

impl Seat {
    pub(super) fn new(member: &PlacementMember, is_me: bool) -> Self {
        let most = member.limits.leases.unwrap_or(u64::MAX);
        Self { lively: member.lively || is_me, count: 0, all: 0, most, target: 0 }
    }

    pub(super) fn has(&mut self, runnable: bool) {
        self.all += 1;
        self.count += u64::from(runnable);
    }

    pub(super) fn gets(&mut self, runnable: bool) {
        self.has(runnable);
    }

    /// How many more leases it takes.
    pub(super) const fn room(&self) -> u64 {
        self.most.saturating_sub(self.all)
    }

    pub(super) fn deficit(&self) -> u64 {
        self.target.saturating_sub(self.count).min(self.room())
    }

    pub(super) const fn excess(&self) -> u64 {
        self.count.saturating_sub(self.target)
    }

    /// The most leases that can do work it should have: what its limit allows beside those that wait, and for one that
    /// may be dead no more than it has.
    fn cap(&self) -> u64 {
        let limit = self.most.saturating_sub(self.all - self.count);
        if self.lively { limit } else { limit.min(self.count) }
    }
}

/// Sets the targets: as even as the caps allow, with the larger shares for those that have most.
pub(super) fn targets(seats: &mut BTreeMap<&WorkerId, Seat>, homeless: u64) {
    let total = homeless + seats.values().map(|seat| seat.count).sum::<u64>();
    let filled = |level: u64| seats.values().map(|seat| seat.cap().min(level)).sum::<u64>();
    // The highest level at which everybody filled up to it takes no more than there is.
    let (mut low, mut high) = (0, total);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if filled(middle) <= total { low = middle } else { high = middle - 1 }
    }
    let rest = total - filled(low);
    for seat in seats.values_mut() {
        seat.target = seat.cap().min(low);
    }
    let mut larger: Vec<&mut Seat> = seats.values_mut().filter(|seat| seat.cap() > low).collect();
    larger.sort_by_key(|seat| Reverse(seat.count));
    for seat in larger.into_iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
        seat.target += 1;
    }
}
