//! The number a run is made from.

use std::fmt;
use std::str::FromStr;

/// The number a run is made from. In text: decimal, or hexadecimal with `0x` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no seed: give a number from 0 to 18446744073709551615, or a hexadecimal one such as 0x1f")]
pub struct InvalidSeed(String);

impl FromStr for Seed {
    type Err = InvalidSeed;

    fn from_str(text: &str) -> Result<Self, InvalidSeed> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
            _ if text.starts_with('+') => return Err(InvalidSeed(text.to_owned())),
            _ => text.parse(),
        };
        parsed.map(Self).map_err(|_| InvalidSeed(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_decimal_or_hexadecimal_and_nothing_else() {
        assert_eq!("7".parse(), Ok(Seed(7)));
        assert_eq!("0xfF".parse(), Ok(Seed(255)));
        for text in ["", "-1", "+1", "0x+1", "0x", "1.5", "ff", "18446744073709551616", "one"] {
            let error = text.parse::<Seed>().unwrap_err().to_string();
            assert!(error.contains("0x1f"), "{error}");
        }
    }
}
