//! Which hash keys nobody works on. Pure.

use kcl_core::model::HashKeyRange;
use serde::Serialize;

/// Hash keys without a lease, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Gap {
    /// The first, in decimal digits.
    pub first: String,
    /// The last, in decimal digits.
    pub last: String,
    /// Which share of all hash keys it is, from 0 to 1.
    pub share: f64,
}

/// The hash keys that none of the ranges has, in order.
#[must_use]
pub fn gaps(ranges: impl IntoIterator<Item = HashKeyRange>) -> Vec<Gap> {
    let mut ranges: Vec<(u128, u128)> =
        ranges.into_iter().map(|range| (range.start(), range.end())).collect();
    ranges.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = Some(0_u128);
    for (first, last) in ranges {
        let Some(expected) = next else { break };
        if first > expected {
            gaps.push(gap(expected, first - 1));
        }
        if last >= expected {
            next = last.checked_add(1);
        }
    }
    if let Some(first) = next {
        gaps.push(gap(first, u128::MAX));
    }
    gaps
}

#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn gap(first: u128, last: u128) -> Gap {
    let share = (last - first) as f64 / u128::MAX as f64;
    Gap { first: first.to_string(), last: last.to_string(), share }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u128, last: u128) -> HashKeyRange {
        HashKeyRange::new(first, last).unwrap()
    }

    fn bounds(ranges: &[HashKeyRange]) -> Vec<(u128, u128)> {
        gaps(ranges.iter().copied())
            .iter()
            .map(|gap| (gap.first.parse().unwrap(), gap.last.parse().unwrap()))
            .collect()
    }

    #[test]
    fn gaps_are_what_no_range_has() {
        assert_eq!(bounds(&[]), [(0, u128::MAX)]);
        assert_eq!(bounds(&[HashKeyRange::FULL]), []);
        assert_eq!(bounds(&[range(5, 9), range(0, 3)]), [(4, 4), (10, u128::MAX)]);
        assert_eq!(bounds(&[range(0, 9), range(2, 3), range(10, u128::MAX)]), []);
    }

    proptest! {
        #[test]
        fn a_key_is_in_a_gap_or_in_a_range(
            ends in prop::collection::vec((any::<u128>(), any::<u128>()), 0..8),
            key: u128,
        ) {
            let ranges: Vec<_> = ends.iter().map(|(a, b)| range(*a.min(b), *a.max(b))).collect();
            let in_range = ranges.iter().any(|range| range.contains(key));
            let in_gap = bounds(&ranges).iter().any(|(first, last)| (*first..=*last).contains(&key));
            prop_assert_eq!(in_range, !in_gap);
        }
    }
}
