//! Hash keys: the 128-bit space that shards divide among them.

use std::fmt;

use crate::{error::HashKeyError, wire};

/// Returns the hash key of a partition key: its MD5 digest as a big-endian number.
///
/// This is the key by which the service chooses the shard of a record that has no explicit hash key.
///
/// # Examples
/// ```
/// let hash = kpl_aggregation::partition_key_hash(b"");
/// assert_eq!(hash, 0xD41D8CD98F00B204E9800998ECF8427E);
/// ```
#[must_use]
pub fn partition_key_hash(partition_key: &[u8]) -> u128 {
    u128::from_be_bytes(wire::digest(partition_key))
}

/// Parses a hash key as the service writes it: decimal digits, 0 to 2^128 − 1.
///
/// # Errors
/// [`HashKeyError::NotDecimal`] for anything but digits (also a sign or a space), [`HashKeyError::TooLarge`] for
/// 2^128 and above.
pub fn parse_hash_key(text: &str) -> Result<u128, HashKeyError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HashKeyError::NotDecimal);
    }
    text.parse().map_err(|_| HashKeyError::TooLarge)
}

/// The hash keys from a first to a last one, both included.
///
/// Never empty. The service describes each shard by such a range.
///
/// # Examples
/// ```
/// use kpl_aggregation::HashKeyRange;
/// let low_half = HashKeyRange::parse("0", "170141183460469231731687303715884105727")?;
/// assert!(low_half.contains(5));
/// assert!(!low_half.contains(u128::MAX));
/// # Ok::<(), kpl_aggregation::HashKeyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    start: u128,
    end: u128,
}

impl HashKeyRange {
    /// All hash keys, 0 to 2^128 − 1.
    pub const FULL: Self = Self { start: 0, end: u128::MAX };

    /// Makes the range from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`HashKeyError::Inverted`] if `start` is above `end`.
    pub const fn new(start: u128, end: u128) -> Result<Self, HashKeyError> {
        if start > end { Err(HashKeyError::Inverted { start, end }) } else { Ok(Self { start, end }) }
    }

    /// Makes the range from two decimal texts, as `ListShards` returns them.
    ///
    /// # Errors
    /// As [`parse_hash_key`] and [`HashKeyRange::new`].
    pub fn parse(start: &str, end: &str) -> Result<Self, HashKeyError> {
        Self::new(parse_hash_key(start)?, parse_hash_key(end)?)
    }

    /// Returns the first hash key of the range.
    #[must_use]
    pub const fn start(self) -> u128 {
        self.start
    }

    /// Returns the last hash key of the range.
    #[must_use]
    pub const fn end(self) -> u128 {
        self.end
    }

    /// Tells whether the hash key lies in the range.
    #[must_use]
    pub const fn contains(self, hash_key: u128) -> bool {
        self.start <= hash_key && hash_key <= self.end
    }

    /// Tells whether the range holds every hash key.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.start == 0 && self.end == u128::MAX
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// What the text of an explicit hash key inside an aggregate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrittenHashKey {
    /// A hash key.
    Key(u128),
    /// A whole number below 0 or above 2^128 − 1, which lies in no shard.
    Beyond,
    /// No number.
    NotANumber,
}

impl WrittenHashKey {
    /// Reads the text as Java's `BigInteger` does: an optional sign, then digits, leading zeros allowed.
    ///
    /// Java takes the digits of every script; here only the ASCII ones count, which are all that the service
    /// accepts.
    pub(crate) fn read(text: &[u8]) -> Self {
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Self::NotANumber;
        }
        let magnitude = digits
            .iter()
            .try_fold(0_u128, |value, digit| value.checked_mul(10)?.checked_add(u128::from(digit - b'0')));
        match magnitude {
            Some(0) => Self::Key(0),
            Some(value) if !negative => Self::Key(value),
            _ => Self::Beyond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_hash_keys_are_read_as_java_reads_them() {
        let key = WrittenHashKey::Key;
        for (text, expected) in [
            ("0", key(0)),
            ("+5", key(5)),
            ("0005", key(5)),
            ("-0", key(0)),
            ("340282366920938463463374607431768211455", key(u128::MAX)),
            ("000340282366920938463463374607431768211455", key(u128::MAX)),
            ("340282366920938463463374607431768211456", WrittenHashKey::Beyond),
            ("99999999999999999999999999999999999999999999999", WrittenHashKey::Beyond),
            ("-1", WrittenHashKey::Beyond),
            ("", WrittenHashKey::NotANumber),
            ("-", WrittenHashKey::NotANumber),
            ("+", WrittenHashKey::NotANumber),
            ("+-5", WrittenHashKey::NotANumber),
            ("5-", WrittenHashKey::NotANumber),
            (" 5", WrittenHashKey::NotANumber),
            ("abc", WrittenHashKey::NotANumber),
        ] {
            assert_eq!(WrittenHashKey::read(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn range_bounds_are_included_and_checked() {
        let range = HashKeyRange::new(5, 7).unwrap();
        assert_eq!((4..=8).map(|k| range.contains(k)).collect::<Vec<_>>(), [false, true, true, true, false]);
        assert_eq!((range.start(), range.end(), range.is_full()), (5, 7, false));
        assert_eq!(range.to_string(), "5-7");
        assert_eq!(HashKeyRange::new(5, 5).map(HashKeyRange::start), Ok(5));
        assert_eq!(HashKeyRange::new(6, 5), Err(HashKeyError::Inverted { start: 6, end: 5 }));
        assert!(HashKeyRange::FULL.is_full() && HashKeyRange::FULL.contains(u128::MAX));
    }

    #[test]
    fn hash_keys_from_the_service_are_digits_only() {
        let full = HashKeyRange::parse("0", "340282366920938463463374607431768211455");
        assert_eq!(full, Ok(HashKeyRange::FULL));
        for text in ["", "+5", "-1", " 5", "5 ", "0x5", "٥"] {
            assert_eq!(parse_hash_key(text), Err(HashKeyError::NotDecimal), "{text:?}");
        }
        assert_eq!(parse_hash_key("340282366920938463463374607431768211456"), Err(HashKeyError::TooLarge));
        assert_eq!(HashKeyRange::parse("2", "1"), Err(HashKeyError::Inverted { start: 2, end: 1 }));
    }

    #[test]
    fn partition_keys_hash_to_their_digest_as_a_big_endian_number() {
        assert_eq!(partition_key_hash(b"a"), 0x0CC1_75B9_C0F1_B6A8_31C3_99E2_6977_2661);
    }
}
