//! Sequence numbers: 192-bit integers in the layout the service uses today.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// One group of decimal digits, the largest power of ten below 2^64.
const GROUP: u64 = 10_000_000_000_000_000_000;
const GROUP_DIGITS: usize = 19;
/// A 192-bit number has at most 58 digits, so four groups hold it.
const GROUPS: usize = 4;
const VERSION: u64 = 2;
const FIELD_36: u64 = (1 << 36) - 1;
/// Marks a number between records.
const BETWEEN: u128 = 1 << 72;

/// The place of a record in its shard.
///
/// Numbers made here have 56 decimal digits and follow the service's version 2 layout, from the
/// top: version (bits 184–187), second in which the shard was created (148–183), low digit of the
/// shard's index (144–147), record index (80–143), a mark of numbers between records (72), second of arrival (36–71), shard index (4–35),
/// version again (0–3). So they grow strictly within a shard, and a child's numbers are above its
/// parents'. Any other number below 2^192 can be represented too.
///
/// [`Display`](fmt::Display) and [`FromStr`] are exact inverses over canonical decimal text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    high: u64,
    low: u128,
}

impl SequenceNumber {
    /// Makes a number from its three 64-bit limbs, most significant first.
    #[must_use]
    pub const fn from_limbs(limbs: [u64; 3]) -> Self {
        Self { high: limbs[0], low: ((limbs[1] as u128) << 64) | limbs[2] as u128 }
    }

    /// Returns the three 64-bit limbs, most significant first.
    #[must_use]
    pub const fn limbs(self) -> [u64; 3] {
        [self.high, (self.low >> 64) as u64, self.low as u64]
    }

    /// Makes the number of record `index` in the shard numbered `shard`.
    ///
    /// `epoch` is the shard's creation second and orders children after parents; `second` is when
    /// the record arrived.
    pub(crate) fn compose(epoch: u64, shard: u32, index: u64, second: u64) -> Self {
        Self {
            high: (VERSION << 56)
                | ((epoch & FIELD_36) << 20)
                | (u64::from(shard & 0xf) << 16)
                | (index >> 48),
            low: (u128::from(index) << 80)
                | (u128::from(second & FIELD_36) << 36)
                | (u128::from(shard) << 4)
                | u128::from(VERSION),
        }
    }

    /// Makes a number between those of record `index` and of the next one, as events of a
    /// subscription give out.
    ///
    /// It has a bit set (72) that is clear in all numbers of records and lies between record index
    /// and second.
    pub(crate) fn compose_between(epoch: u64, shard: u32, index: u64, second: u64) -> Self {
        let mut number = Self::compose(epoch, shard, index, second);
        number.low |= BETWEEN;
        number
    }

    pub(crate) fn is_between_records(self) -> bool {
        self.low & BETWEEN != 0
    }

    /// The index of the shard, or `None` if the number is not of the version 2 layout.
    pub(crate) fn shard_index(self) -> Option<u32> {
        (self.high >> 56 == VERSION).then_some((self.low >> 4) as u32)
    }

    /// The index of the record in its shard.
    pub(crate) fn record_index(self) -> u64 {
        (self.high << 48) | (self.low >> 80) as u64
    }

    /// Appends the decimal digits to `out`.
    #[cfg(feature = "wire")]
    pub(crate) fn write_decimal(self, out: &mut Vec<u8>) {
        let (digits, start) = self.digits();
        out.extend_from_slice(&digits[start..]);
    }

    /// The digits with leading zeros, and where the first digit that counts stands.
    fn digits(self) -> ([u8; GROUPS * GROUP_DIGITS], usize) {
        let mut digits = [b'0'; GROUPS * GROUP_DIGITS];
        let mut limbs = self.limbs();
        for group in digits.rchunks_exact_mut(GROUP_DIGITS) {
            let mut rest = divide(&mut limbs);
            for digit in group.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            if limbs == [0; 3] {
                break;
            }
        }
        let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len() - 1);
        (digits, start)
    }
}

/// Divides the number in `limbs` by [`GROUP`] and returns the remainder.
fn divide(limbs: &mut [u64; 3]) -> u64 {
    let mut rest = 0_u64;
    for limb in limbs {
        let part = (u128::from(rest) << 64) | u128::from(*limb);
        *limb = (part / u128::from(GROUP)) as u64;
        // The remainder is below 2^64, so the lower halves tell it without a second division.
        rest = (part as u64).wrapping_sub(limb.wrapping_mul(GROUP));
    }
    rest
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, start) = self.digits();
        f.pad_integral(true, "", str::from_utf8(&digits[start..]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceNumber({self})")
    }
}

/// The text is not a canonical decimal number below 2^192.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSequenceNumberError;

impl fmt::Display for ParseSequenceNumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a canonical decimal number below 2^192")
    }
}

impl Error for ParseSequenceNumberError {}

impl FromStr for SequenceNumber {
    type Err = ParseSequenceNumberError;

    fn from_str(text: &str) -> Result<Self, ParseSequenceNumberError> {
        let canonical = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        if !canonical {
            return Err(ParseSequenceNumberError);
        }
        let mut limbs = [0_u64; 3];
        for chunk in text.as_bytes().chunks(GROUP_DIGITS) {
            let scale = 10_u64.pow(chunk.len() as u32);
            let mut carry = chunk.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
            for limb in limbs.iter_mut().rev() {
                let part = u128::from(*limb) * u128::from(scale) + u128::from(carry);
                *limb = part as u64;
                carry = (part >> 64) as u64;
            }
            if carry != 0 {
                return Err(ParseSequenceNumberError);
            }
        }
        Ok(Self::from_limbs(limbs))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::SequenceNumber;

    /// A number of the real service: second shard of a stream made in late 2014.
    const REAL: &str = "49544985256907370027570885864065577703022652638596431874";

    #[test]
    fn a_real_number_is_taken_apart_and_put_together_again() {
        let number: SequenceNumber = REAL.parse().unwrap();
        assert_eq!(number.to_string(), REAL);
        let shard = number.shard_index().unwrap();
        let [high, ..] = number.limbs();
        let second = (number.limbs()[1] << 28) | (number.limbs()[2] >> 36);
        let again =
            SequenceNumber::compose((high >> 20) & 0xf_ffff_ffff, shard, number.record_index(), second);
        assert_eq!(again, number);
    }

    #[test]
    fn composed_numbers_have_56_digits() {
        for (epoch, second) in [(0, 0), (1_700_000_000, 1_700_000_100), ((1 << 36) - 1, (1 << 36) - 1)] {
            for index in [0, 1, u64::MAX] {
                let number = SequenceNumber::compose(epoch, u32::MAX, index, second);
                assert_eq!(number.to_string().len(), 56);
                assert_eq!(number.record_index(), index);
                assert_eq!(number.shard_index(), Some(u32::MAX));
            }
        }
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let too_large = "6277101735386680763835789423207666416102355444464034512896"; // 2^192
        for text in ["", "01", "-1", "+1", "1x", "٣", " 1", too_large] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text}");
        }
        let largest = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(largest.parse::<SequenceNumber>().unwrap().limbs(), [u64::MAX; 3]);
        assert_eq!("0".parse::<SequenceNumber>().unwrap().to_string(), "0");
    }

    proptest! {
        #[test]
        fn every_number_survives_its_text(limbs in any::<[u64; 3]>()) {
            let number = SequenceNumber::from_limbs(limbs);
            let again: SequenceNumber = number.to_string().parse().unwrap();
            proptest::prop_assert_eq!(again, number);
        }

        #[test]
        fn order_is_the_order_of_the_integers(a in any::<[u64; 3]>(), b in any::<[u64; 3]>()) {
            proptest::prop_assert_eq!(
                SequenceNumber::from_limbs(a).cmp(&SequenceNumber::from_limbs(b)), a.cmp(&b));
        }
    }
}
