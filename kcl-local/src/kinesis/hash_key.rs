//! Hash keys: where a partition key falls, and which keys a shard takes.

use std::fmt;

use super::md5;

/// A closed range of the 128-bit hash-key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    /// The first key of the range.
    pub start: u128,
    /// The last key of the range.
    pub end: u128,
}

impl HashKeyRange {
    /// The whole space.
    pub const FULL: Self = Self { start: 0, end: u128::MAX };

    /// Says whether `key` lies in the range.
    #[must_use]
    pub const fn contains(self, key: u128) -> bool {
        self.start <= key && key <= self.end
    }

    /// Cuts the space into `count` ranges of equal size (± 1 key).
    pub(crate) fn uniform(count: u32) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self {
            start: boundary(index, count),
            end: if index + 1 == count { u128::MAX } else { boundary(index + 1, count) - 1 },
        })
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

/// Returns `index * 2^128 / count`, rounded down. `index` is below `count`.
fn boundary(index: u32, count: u32) -> u128 {
    let (index, count) = (u128::from(index), u128::from(count));
    let (quotient, rest) = (u128::MAX / count, u128::MAX % count + 1);
    index * quotient + index * rest / count
}

/// Returns the hash key of a partition key: its MD5, read as a number.
#[must_use]
pub fn hash_key(partition_key: &str) -> u128 {
    md5::digest(partition_key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{HashKeyRange, hash_key};

    #[test]
    fn uniform_ranges_tile_the_space_and_are_of_equal_size() {
        for count in 1..=257 {
            let mut next = Some(0_u128);
            let mut sizes = Vec::new();
            for range in HashKeyRange::uniform(count) {
                assert_eq!(Some(range.start), next);
                sizes.push(range.end - range.start);
                next = range.end.checked_add(1);
            }
            assert_eq!(next, None, "the last range ends at the last key");
            let (small, large) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(large - small <= 1);
        }
    }

    #[test]
    fn doubling_the_count_keeps_every_boundary() {
        for count in 1..=100 {
            let fine: Vec<_> = HashKeyRange::uniform(2 * count).map(|range| range.start).collect();
            assert!(HashKeyRange::uniform(count).all(|range| fine.contains(&range.start)));
        }
    }

    #[test]
    fn three_ranges_are_those_of_the_service() {
        let starts: Vec<_> = HashKeyRange::uniform(3).map(|range| range.start).collect();
        assert_eq!(
            starts,
            [
                0,
                113_427_455_640_312_821_154_458_202_477_256_070_485,
                226_854_911_280_625_642_308_916_404_954_512_140_970
            ]
        );
    }

    #[test]
    fn a_partition_key_hashes_to_its_md5() {
        assert_eq!(hash_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }
}
