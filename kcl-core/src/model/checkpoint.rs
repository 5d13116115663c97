use std::fmt;
use std::str::FromStr;

use super::{InvalidSequenceNumber, SequenceNumber};

/// The place of one user record in a shard.
///
/// `sub_sequence` is its index inside a KPL aggregate, 0 for a plain record. Ordered as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The sequence number of the Kinesis record.
    pub sequence: SequenceNumber,
    /// The index of the user record inside the Kinesis record.
    pub sub_sequence: u64,
}

impl Position {
    /// Creates a position.
    #[must_use]
    pub const fn new(sequence: SequenceNumber, sub_sequence: u64) -> Self {
        Self { sequence, sub_sequence }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sequence, self.sub_sequence)
    }
}

/// What a lease row says about how far a shard was processed.
///
/// The order is the Java KCL's (`ExtendedSequenceNumber`): the three starting sentinels, then positions, then
/// the end of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoint {
    /// Nothing processed; start at the timestamp the application was configured with.
    AtTimestamp,
    /// Nothing processed; start with the oldest record.
    TrimHorizon,
    /// Nothing processed; start with records put after the lease was created.
    Latest,
    /// Every record up to and including this position is processed.
    At(Position),
    /// The shard is processed to its end.
    ShardEnd,
}

impl Checkpoint {
    /// The position, unless this is a sentinel.
    #[must_use]
    pub const fn position(self) -> Option<Position> {
        match self {
            Self::At(position) => Some(position),
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => None,
        }
    }

    /// Whether the shard is processed to its end.
    #[must_use]
    pub const fn is_shard_end(self) -> bool {
        matches!(self, Self::ShardEnd)
    }

    /// Whether some record was processed, that is: a position or the end of the shard.
    #[must_use]
    pub const fn is_real(self) -> bool {
        matches!(self, Self::At(_) | Self::ShardEnd)
    }

    /// The text of the `checkpoint` attribute of a lease row: a decimal sequence number or a sentinel.
    #[must_use]
    pub fn sequence_text(self) -> String {
        match self {
            Self::AtTimestamp => "AT_TIMESTAMP".into(),
            Self::TrimHorizon => "TRIM_HORIZON".into(),
            Self::Latest => "LATEST".into(),
            Self::At(position) => position.sequence.to_string(),
            Self::ShardEnd => "SHARD_END".into(),
        }
    }

    /// The `checkpointSubSequenceNumber` attribute of a lease row; 0 with a sentinel.
    #[must_use]
    pub const fn sub_sequence(self) -> u64 {
        match self {
            Self::At(position) => position.sub_sequence,
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => 0,
        }
    }

    /// Reads the two attributes of a lease row.
    ///
    /// # Errors
    /// If `sequence` is neither a sentinel nor a canonical decimal sequence number.
    pub fn from_parts(sequence: &str, sub_sequence: u64) -> Result<Self, InvalidCheckpoint> {
        match sequence.parse::<Self>()? {
            Self::At(position) => Ok(Self::At(Position::new(position.sequence, sub_sequence))),
            sentinel => Ok(sentinel),
        }
    }
}

impl From<Position> for Checkpoint {
    fn from(position: Position) -> Self {
        Self::At(position)
    }
}

impl FromStr for Checkpoint {
    type Err = InvalidCheckpoint;

    /// Parses the text of [`Checkpoint::sequence_text`]; the sub-sequence number is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "SHARD_END" => Self::ShardEnd,
            digits => Self::At(Position::new(digits.parse()?, 0)),
        })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(position) => fmt::Display::fmt(position, f),
            sentinel => f.write_str(&sentinel.sequence_text()),
        }
    }
}

/// The text is neither a sentinel nor a sequence number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint (a sequence number, TRIM_HORIZON, LATEST, AT_TIMESTAMP or SHARD_END)")]
pub struct InvalidCheckpoint {
    #[from]
    source: InvalidSequenceNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_the_java_kcl() {
        let at = |sequence: u64, sub| Checkpoint::At(Position::new(sequence.into(), sub));
        let ordered = [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            at(0, 0),
            at(5, 0),
            at(5, 2),
            at(10, 0),
            Checkpoint::ShardEnd,
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn attributes_round_trip() {
        for checkpoint in [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            Checkpoint::ShardEnd,
            Checkpoint::At(Position::new(77.into(), 3)),
        ] {
            let back = Checkpoint::from_parts(&checkpoint.sequence_text(), checkpoint.sub_sequence());
            assert_eq!(back.unwrap(), checkpoint);
        }
        assert!(Checkpoint::from_parts("", 0).is_err());
        assert_eq!(Checkpoint::from_parts("SHARD_END", 5).unwrap(), Checkpoint::ShardEnd);
    }
}
