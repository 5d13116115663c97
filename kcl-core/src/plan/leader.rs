//! The worker that Java KCL 2.x workers expect to compare shards with leases.
//!
//! They elect it without talking: everybody shuffles the owners in the table in the same way and takes the
//! first. A worker of ours that owns leases can be elected so, and then no Java worker does the work. Source:
//! `DeterministicShuffleShardSyncLeaderDecider` of the Java KCL.

use std::collections::BTreeSet;

use crate::lease::Lease;
use crate::model::WorkerId;

/// The seed every worker shuffles with.
const SEED: u64 = 1947;

/// The leader among the owners of the given leases, those of ended shards included; none if nobody owns one.
#[must_use]
pub fn elect_leader<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Option<WorkerId> {
    // There are far fewer owners than leases: sorting them all would take longer.
    let mut owners = BTreeSet::new();
    for owner in leases.into_iter().filter_map(|lease| lease.owner.as_ref()) {
        owners.insert(owner);
    }
    let mut owners: Vec<_> = owners.into_iter().collect();
    // The order of Java strings is that of their UTF-16 code units.
    owners.sort_by(|one, other| one.as_str().encode_utf16().cmp(other.as_str().encode_utf16()));
    shuffle(&mut owners);
    owners.first().copied().cloned()
}

/// Whether `me` is the leader. While nobody owns a lease, everybody is.
#[must_use]
pub fn is_leader<'a>(me: &WorkerId, leases: impl IntoIterator<Item = &'a Lease>) -> bool {
    elect_leader(leases).is_none_or(|leader| leader == *me)
}

/// `java.util.Collections.shuffle(items, new Random(1947))`.
fn shuffle<T>(items: &mut [T]) {
    let mut random = JavaRandom::new(SEED);
    for size in (2..=items.len()).rev() {
        // A lease table has far fewer owners than 2^31.
        let bound = u32::try_from(size).unwrap_or(u32::MAX >> 1);
        items.swap(size - 1, random.below(bound) as usize);
    }
}

/// `java.util.Random`.
struct JavaRandom {
    state: u64,
}

impl JavaRandom {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;

    const fn new(seed: u64) -> Self {
        Self { state: (seed ^ Self::MULTIPLIER) & Self::MASK }
    }

    /// `next(31)`.
    const fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(Self::MULTIPLIER).wrapping_add(0xB) & Self::MASK;
        (self.state >> 17) as u32
    }

    /// `nextInt(bound)`, for a bound from 1 to 2^31 - 1.
    const fn below(&mut self, bound: u32) -> u32 {
        if bound.is_power_of_two() {
            return ((bound as u64 * self.next() as u64) >> 31) as u32;
        }
        loop {
            let random = self.next();
            let value = random % bound;
            // Numbers from the last, incomplete run of `bound` would favour small values.
            if random - value + (bound - 1) < 1 << 31 {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Checkpoint;

    fn owned_by<'a>(owners: impl IntoIterator<Item = &'a str>) -> Vec<Lease> {
        owners
            .into_iter()
            .enumerate()
            .map(|(index, owner)| {
                let mut lease = Lease::new(format!("shardId-{index:012}").into(), Checkpoint::TrimHorizon);
                lease.owner = Some(owner.into());
                lease
            })
            .collect()
    }

    #[test]
    fn shuffles_as_java_does() {
        let vectors: &[&[usize]] = &[
            &[0],
            &[0, 1],
            &[2, 0, 1],
            &[3, 0, 1, 2],
            &[4, 0, 2, 1, 3],
            &[2, 4, 3, 5, 0, 6, 1],
            &[2, 3, 0, 6, 4, 7, 1, 5],
            &[8, 5, 1, 6, 9, 4, 2, 0, 7, 3],
            &[11, 3, 9, 2, 0, 6, 12, 5, 7, 1, 8, 14, 4, 13, 15, 10],
        ];
        for vector in vectors {
            let mut items: Vec<_> = (0..vector.len()).collect();
            shuffle(&mut items);
            assert_eq!(items, *vector);
        }
        for (size, first) in [(31, 22), (100, 95)] {
            let mut items: Vec<_> = (0..size).collect();
            shuffle(&mut items);
            assert_eq!(items[0], first);
        }
    }

    #[test]
    fn draws_the_numbers_java_draws() {
        let mut random = JavaRandom::new(SEED);
        let drawn: Vec<_> = (2..=10).rev().map(|bound| random.below(bound)).collect();
        assert_eq!(drawn, [3, 7, 0, 2, 4, 3, 2, 1, 1]);
    }

    #[test]
    fn elects_whom_java_elects() {
        let ids = ["a-worker", "Z-worker", "10.0.0.1:uuid-1", "10.0.0.2:uuid-2", "ip-10-0-0-3", "a-worker"];
        let leases = owned_by(ids);
        assert_eq!(elect_leader(&leases), Some("ip-10-0-0-3".into()));
        assert!(is_leader(&"ip-10-0-0-3".into(), &leases));
        assert!(!is_leader(&"a-worker".into(), &leases));
    }

    #[test]
    fn owners_are_sorted_by_utf16_code_units() {
        // U+FF5E sorts before U+1F600 by code point, after it by code unit.
        let [tilde, face] = ["\u{FF5E}", "\u{1F600}"];
        assert!(tilde < face);
        // With two owners the shuffle keeps the order.
        assert_eq!(elect_leader(&owned_by([tilde, face])), Some(face.into()));
    }

    #[test]
    fn everybody_leads_while_nobody_owns_a_lease() {
        let mut leases = owned_by(["x"]);
        leases[0].owner = None;
        assert_eq!(elect_leader(&leases), None);
        assert!(is_leader(&"me".into(), &leases));
    }
}
