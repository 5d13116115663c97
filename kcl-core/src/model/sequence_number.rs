use std::fmt;
use std::str::FromStr;

/// A Kinesis sequence number: an unsigned decimal integer of up to 192 bits.
///
/// Numbers as the service makes them have 186 bits (56 digits). Parsing and printing are exact; text that
/// would not print back as it was (leading zeros, a sign, blanks) is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceNumber([u64; 3]);

/// The largest power of ten that fits a limb, and its exponent.
const CHUNK: u64 = 10_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 19;

/// The text is not a canonical decimal integer below 2^192.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number (canonical decimal below 2^192): text={text:?}")]
pub struct InvalidSequenceNumber {
    text: String,
}

impl SequenceNumber {
    /// The smallest sequence number.
    pub const ZERO: Self = Self([0; 3]);
    /// The largest sequence number that can be represented, 2^192 - 1.
    pub const MAX: Self = Self([u64::MAX; 3]);

    /// Creates a number from its 64-bit limbs, most significant first.
    #[must_use]
    pub const fn from_limbs(limbs: [u64; 3]) -> Self {
        Self(limbs)
    }

    /// The 64-bit limbs, most significant first.
    #[must_use]
    pub const fn limbs(self) -> [u64; 3] {
        self.0
    }

    /// `self * factor + summand`, or nothing on overflow.
    fn mul_add(self, factor: u64, summand: u64) -> Option<Self> {
        let mut limbs = self.0;
        let mut carry = u128::from(summand);
        for limb in limbs.iter_mut().rev() {
            let wide = u128::from(*limb) * u128::from(factor) + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
        (carry == 0).then_some(Self(limbs))
    }

    /// Divides in place and returns the remainder.
    fn div_rem(&mut self, divisor: u64) -> u64 {
        let mut remainder = 0u128;
        for limb in &mut self.0 {
            let wide = (remainder << 64) | u128::from(*limb);
            *limb = (wide / u128::from(divisor)) as u64;
            remainder = wide % u128::from(divisor);
        }
        remainder as u64
    }
}

impl From<u64> for SequenceNumber {
    fn from(value: u64) -> Self {
        Self([0, 0, value])
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSequenceNumber { text: text.chars().take(80).collect() };
        let canonical = text == "0" || (!text.is_empty() && !text.starts_with('0'));
        if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let mut number = Self::ZERO;
        for chunk in text.as_bytes().chunks(CHUNK_DIGITS) {
            let mut value = 0u64;
            let mut factor = 1u64;
            for digit in chunk {
                value = value * 10 + u64::from(digit - b'0');
                factor *= 10;
            }
            number = number.mul_add(factor, value).ok_or_else(invalid)?;
        }
        Ok(number)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let low = rest.div_rem(CHUNK);
        let mid = rest.div_rem(CHUNK);
        let high = rest.div_rem(CHUNK);
        let top = rest.0[2];
        if top > 0 {
            write!(f, "{top}{high:019}{mid:019}{low:019}")
        } else if high > 0 {
            write!(f, "{high}{mid:019}{low:019}")
        } else if mid > 0 {
            write!(f, "{mid}{low:019}")
        } else {
            write!(f, "{low}")
        }
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extremes_print_and_parse() {
        let max = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(SequenceNumber::MAX.to_string(), max);
        assert_eq!(max.parse::<SequenceNumber>().unwrap(), SequenceNumber::MAX);
        assert_eq!("0".parse::<SequenceNumber>().unwrap(), SequenceNumber::ZERO);
        assert!(
            "6277101735386680763835789423207666416102355444464034512896".parse::<SequenceNumber>().is_err()
        );
    }

    #[test]
    fn text_that_would_not_print_back_is_refused() {
        for text in ["", "05", "+5", "-1", " 5", "5 ", "1e3", "١", "TRIM_HORIZON", "1_000"] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(limbs: [u64; 3]) {
            let number = SequenceNumber::from_limbs(limbs);
            prop_assert_eq!(number.to_string().parse::<SequenceNumber>().unwrap(), number);
        }

        #[test]
        fn order_is_numeric(a in "[1-9][0-9]{0,56}", b in "[1-9][0-9]{0,56}") {
            let by_text = a.len().cmp(&b.len()).then_with(|| a.cmp(&b));
            let (a, b) = (a.parse::<SequenceNumber>().unwrap(), b.parse::<SequenceNumber>().unwrap());
            prop_assert_eq!(a.cmp(&b), by_text);
        }
    }
}
