//! Values as people write and read them: durations, times, sizes, positions.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use kcl_core::model::{Checkpoint, InitialPosition};

/// A place in a shard as an operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// With the oldest record.
    TrimHorizon,
    /// With what is put from now on.
    Latest,
    /// With the first record that arrived at or after this time.
    Timestamp(SystemTime),
    /// After this record.
    After(kcl_core::Position),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "TRIM_HORIZON, LATEST, a time as 2026-01-31T12:00:00Z, or a sequence number, with \
                             /SUB for a place inside an aggregate";
        match text {
            "TRIM_HORIZON" => return Ok(Self::TrimHorizon),
            "LATEST" => return Ok(Self::Latest),
            "SHARD_END" => {
                return Err(
                    "SHARD_END is for workers to write: they create the leases of the children first".into(),
                );
            }
            "AT_TIMESTAMP" => return Err("give the time itself, as 2026-01-31T12:00:00Z".into()),
            _ => {}
        }
        if text.contains(['T', ':', '-']) {
            return parse_time(text)
                .map(Self::Timestamp)
                .map_err(|error| format!("{error}; positions are {FORMS}"));
        }
        let (sequence, sub) = text.split_once('/').unwrap_or((text, "0"));
        match (sequence.parse(), sub.parse()) {
            (Ok(sequence), Ok(sub)) => Ok(Self::After(kcl_core::Position::new(sequence, sub))),
            _ => Err(format!("not a position: {text:?}; positions are {FORMS}")),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::Timestamp(time) => f.write_str(&time_text(*time)),
            Self::After(position) => write!(f, "{position}"),
        }
    }
}

impl Target {
    /// What the row's checkpoint becomes.
    #[must_use]
    pub const fn checkpoint(self) -> Checkpoint {
        match self {
            Self::TrimHorizon => Checkpoint::TrimHorizon,
            Self::Latest => Checkpoint::Latest,
            Self::Timestamp(_) => Checkpoint::AtTimestamp,
            Self::After(position) => Checkpoint::At(position),
        }
    }

    /// The time the row's sentinel stands for, if it stands for one.
    #[must_use]
    pub const fn start_timestamp(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Latest => Some(now),
            Self::Timestamp(time) => Some(time),
            Self::TrimHorizon | Self::After(_) => None,
        }
    }

    pub(crate) fn as_initial_position(self) -> Result<InitialPosition, String> {
        match self {
            Self::TrimHorizon => Ok(InitialPosition::TrimHorizon),
            Self::Latest => Ok(InitialPosition::Latest),
            Self::Timestamp(time) => Ok(InitialPosition::AtTimestamp(time)),
            Self::After(_) => Err("an application starts at TRIM_HORIZON, LATEST or a time".into()),
        }
    }
}

/// Parses a time as RFC 3339 writes it.
///
/// # Errors
/// If it is none.
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    let time = DateTime::from_str(text, DateTimeFormat::DateTimeWithOffset)
        .map_err(|_| format!("not a time: {text:?}; write it as 2026-01-31T12:00:00Z"))?;
    SystemTime::try_from(time)
        .ok()
        .filter(|time| *time >= SystemTime::UNIX_EPOCH)
        .ok_or_else(|| format!("the time is out of range: {text:?}"))
}

/// A time as RFC 3339 writes it.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    DateTime::from(time).fmt(DateTimeFormat::DateTime).unwrap_or_else(|_| "out of range".to_owned())
}

/// Parses a duration: a number with `ms`, `s`, `m`, `h` or `d`; without a unit seconds.
///
/// # Errors
/// If it is none, or is zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("not a unit of time: {unit:?}; use ms, s, m, h or d")),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("not a duration: {text:?}; write it as 10s or 500ms"))?;
    match number.checked_mul(millis) {
        Some(0) => Err("the duration must not be zero".into()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(format!("the duration is out of range: {text:?}")),
    }
}

/// A duration for people: two units at most.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Parses a size in bytes: a number, whole or not, with `B`, `KB`, `MB` or `GB` of 1,024 each; without a unit bytes.
///
/// # Errors
/// If it is none.
pub fn parse_bytes(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "K" | "KB" | "KIB" => 1_024.0,
        "M" | "MB" | "MIB" => 1_048_576.0,
        "G" | "GB" | "GIB" => 1_073_741_824.0,
        unit => return Err(format!("not a unit of size: {unit:?}; use B, KB, MB or GB")),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number * factor),
        _ => Err(format!("not a size: {text:?}; write it as 2KB or 500")),
    }
}

/// Parses a number that is not negative.
///
/// # Errors
/// If it is none.
pub fn parse_amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("not a number of 0 or more: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_operators_write_them() {
        assert_eq!("TRIM_HORIZON".parse(), Ok(Target::TrimHorizon));
        assert_eq!("LATEST".parse(), Ok(Target::Latest));
        assert_eq!("77".parse(), Ok(Target::After(kcl_core::Position::new(77.into(), 0))));
        assert_eq!("77/3".parse(), Ok(Target::After(kcl_core::Position::new(77.into(), 3))));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(Target::Timestamp(time)));
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(Target::Timestamp(time)));
        assert_eq!(time_text(time), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn what_is_no_position_says_what_is() {
        for (text, part) in [
            ("", "sequence number"),
            ("latest", "LATEST"),
            ("007", "sequence number"),
            ("7/x", "/SUB"),
            ("SHARD_END", "for workers"),
            ("AT_TIMESTAMP", "the time itself"),
            ("2023-11-14", "2026-01-31T12:00:00Z"),
            ("1960-01-01T00:00:00Z", "out of range"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for bad in ["", "0", "x", "1.5s", "-1s", "1w", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_bytes("1.5KB"), Ok(1_536.0));
        assert_eq!(parse_bytes("200"), Ok(200.0));
        for bad in ["", "-1", "NaN", "1XB", "inf"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_text(Duration::from_millis(900)), "900 ms");
        assert_eq!(duration_text(Duration::from_secs(3_700)), "1 h 1 min");
    }
}
