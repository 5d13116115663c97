use std::fmt;
use std::time::Duration;

/// A length of time as people say it: its two largest units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length(pub(crate) Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |f: &mut fmt::Formatter<'_>, whole: u64, unit: &str, rest: u64, small: &str| {
            write!(f, "{whole} {unit}")?;
            if rest > 0 { write!(f, " {rest} {small}") } else { Ok(()) }
        };
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{seconds} s"),
            60..3600 => pair(f, seconds / 60, "min", seconds % 60, "s"),
            3600..86_400 => pair(f, seconds / 3600, "h", seconds % 3600 / 60, "min"),
            _ => pair(f, seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_their_two_largest_units() {
        for (millis, told) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_000, "59 min 59 s"),
            (3_660_000, "1 h 1 min"),
            (86_400_000, "1 d"),
            (97_300_000, "1 d 3 h"),
        ] {
            assert_eq!(Length(Duration::from_millis(millis)).to_string(), told);
        }
    }
}
