//! Balance by what leases process.
//!
//! The weights of single leases are known to their owners alone; everybody knows what each member processes in all. So
//! the donors and their receivers follow from what all know, and each donor chooses among its own leases.

use std::cmp::Reverse;

use super::{Item, PlacementAction, PlacementInput, PlacementReason, Plan};
use crate::fleet::MemberState;
use crate::model::WorkerId;

/// Below this mean, in bytes a second, there is nothing to balance but numbers.
const BUSY: u64 = 1_000;
/// A member that uses more of its CPU limit than this, in thousandths, gets nothing more.
const MOST_CPU: u16 = 800;

fn active<'a>(input: &PlacementInput<'a>) -> impl Iterator<Item = (&'a WorkerId, u64)> {
    let members = input.members.iter().filter(|(_, member)| member.state == MemberState::Active);
    members.map(|(id, member)| (id, member.load))
}

fn mean(input: &PlacementInput<'_>) -> u64 {
    let (count, sum) = active(input).fold((0, 0), |(count, sum), (_, load)| (count + 1, sum + load));
    sum / std::cmp::max(count, 1)
}

/// Whether enough is processed for loads to mean anything.
pub(super) fn is_busy(input: &PlacementInput<'_>) -> bool {
    mean(input) >= BUSY
}

impl<'a> Plan<'a> {
    pub(super) fn balance_load(&mut self, dead_band: u8, damping: u8) {
        let input = self.input;
        let mean = mean(input);
        let band = mean.saturating_mul(u64::from(dead_band)) / 100;
        let mut donors: Vec<(Reverse<u64>, &'a WorkerId)> = active(input)
            .filter(|(_, load)| *load > mean + band)
            .map(|(id, load)| (Reverse(load), id))
            .collect();
        donors.sort_unstable();
        let mut receivers: Vec<(u64, &'a WorkerId)> = active(input)
            .filter(|(id, load)| *load < mean && self.takes_more(id))
            .map(|(id, load)| (load, id))
            .collect();
        receivers.sort_unstable();
        // The busiest gives to the idlest, and so on: no two give to one, so nobody is given too much at once.
        for ((Reverse(has), donor), (theirs, receiver)) in donors.into_iter().zip(receivers) {
            if donor == input.me {
                let most = (has - mean).min(mean - theirs).saturating_mul(u64::from(damping.min(100))) / 100;
                self.give_load(has, receiver, theirs, most);
            } else if receiver == input.me {
                *self.placement.expected.entry(donor.clone()).or_default() += 1;
            }
        }
    }

    fn takes_more(&self, id: &WorkerId) -> bool {
        let has_room = self.seats.get(id).is_some_and(|seat| seat.lively && seat.room() > 0);
        let member = self.input.members.get(id);
        has_room && member.is_some_and(|member| member.cpu.is_none_or(|cpu| cpu < MOST_CPU))
    }

    /// Gives the fewest leases that come close to `most` bytes a second, and no more than that.
    fn give_load(&mut self, has: u64, receiver: &'a WorkerId, theirs: u64, most: u64) {
        let limit = self.input.members.get(receiver).and_then(|member| member.limits.load);
        let mut left = most.min(limit.map_or(u64::MAX, |limit| limit.saturating_sub(theirs)));
        let mut room = self.seats.get(receiver).map_or(0, super::Seat::room);
        // What was decided to be given already weighs on the receiver as well.
        let pending: u64 = self
            .input
            .leases
            .iter()
            .filter(|view| view.giving_to == Some(receiver))
            .filter_map(|view| view.weight)
            .sum();
        left = left.saturating_sub(pending);
        let mut leases: Vec<Item<'a>> = self.movable();
        leases.sort_by_key(|item| Reverse(item.view.weight));
        let mut moves = self.moves_left();
        // However strong the damping, one lease moves if that brings the two closer to each other.
        let lightest = leases.iter().filter_map(|item| item.view.weight).filter(|weight| *weight > 0).min();
        if let Some(lightest) = lightest
            && pending == 0
            && lightest <= (has - theirs) / 2
        {
            left = left.max(lightest);
        }
        for item in leases {
            let weight = item.view.weight.unwrap_or(0);
            if moves == 0 || room == 0 {
                return;
            }
            if weight == 0 || weight > left {
                continue;
            }
            left -= weight;
            room -= 1;
            moves -= 1;
            let reason = PlacementReason::Load { has, theirs };
            self.decide(&item, PlacementAction::Give(receiver.clone()), reason);
        }
    }
}
