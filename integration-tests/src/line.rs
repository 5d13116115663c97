//! What a worker in a process of its own tells of its work, one line at a time.
//!
//! A line counts once its end is written; a process that is killed may leave half a line behind.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use kcl_core::model::{Checkpoint, InvalidCheckpoint, InvalidSequenceNumber};
use kcl_core::{SequenceNumber, ShardId, WorkerId};

/// Something that happened in a worker. Times are those of the wall clock, since 1970 and in whole microseconds:
/// processes of one machine share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A processor was made for a hold of a lease.
    Held {
        /// When.
        at: Duration,
        /// The shard.
        shard: ShardId,
        /// Where it goes on.
        from: Checkpoint,
    },
    /// A record was delivered. The records of a batch have one time.
    Delivered {
        /// When the callback began.
        at: Duration,
        /// The shard.
        shard: ShardId,
        /// The place of the record.
        sequence: SequenceNumber,
        /// The payload, which has no spaces.
        payload: String,
    },
    /// A checkpoint is stored.
    Stored {
        /// The shard.
        shard: ShardId,
        /// Up to where.
        sequence: SequenceNumber,
    },
    /// The lease is about to be handed over or released, after everything delivered was checkpointed.
    HandedOver {
        /// The shard.
        shard: ShardId,
    },
    /// The lease was lost.
    Lost {
        /// The shard.
        shard: ShardId,
    },
    /// The worker became a member of its fleet.
    Joined {
        /// The id under which it is one.
        member: WorkerId,
    },
    /// The others hold the worker for dead.
    Evicted {
        /// The id under which it was a member.
        member: WorkerId,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { at, shard, from } => {
                write!(f, "held {} {shard} {}", at.as_micros(), from.sequence_text())
            }
            Self::Delivered { at, shard, sequence, payload } => {
                write!(f, "delivered {} {shard} {sequence} {payload}", at.as_micros())
            }
            Self::Stored { shard, sequence } => write!(f, "stored {shard} {sequence}"),
            Self::HandedOver { shard } => write!(f, "handed-over {shard}"),
            Self::Lost { shard } => write!(f, "lost {shard}"),
            Self::Joined { member } => write!(f, "joined {member}"),
            Self::Evicted { member } => write!(f, "evicted {member}"),
        }
    }
}

/// The text is not a line of a worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLine {
    /// The words are not those of any line.
    #[error("not a line of a worker: {0:?}")]
    Unknown(String),
    /// A time is damaged.
    #[error("not a time")]
    Time(#[from] ParseIntError),
    /// A place is damaged.
    #[error("not a sequence number")]
    Sequence(#[from] InvalidSequenceNumber),
    /// A checkpoint is damaged.
    #[error("not a checkpoint")]
    Checkpoint(#[from] InvalidCheckpoint),
}

impl FromStr for Line {
    type Err = InvalidLine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split(' ').collect();
        let time = |micros: &str| micros.parse().map(Duration::from_micros);
        Ok(match *words.as_slice() {
            ["held", at, shard, from] => {
                Self::Held { at: time(at)?, shard: shard.into(), from: from.parse()? }
            }
            ["delivered", at, shard, sequence, payload] => Self::Delivered {
                at: time(at)?,
                shard: shard.into(),
                sequence: sequence.parse()?,
                payload: payload.to_owned(),
            },
            ["stored", shard, sequence] => Self::Stored { shard: shard.into(), sequence: sequence.parse()? },
            ["handed-over", shard] => Self::HandedOver { shard: shard.into() },
            ["lost", shard] => Self::Lost { shard: shard.into() },
            ["joined", member] => Self::Joined { member: member.into() },
            ["evicted", member] => Self::Evicted { member: member.into() },
            _ => return Err(InvalidLine::Unknown(text.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        let (at, shard) = (Duration::from_micros(1_700_000_000_123_456), ShardId::from("shardId-0"));
        let sequence = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
        let from = Checkpoint::At(kcl_core::Position::new(sequence, 0));
        for line in [
            Line::Held { at, shard: shard.clone(), from },
            Line::Held { at, shard: shard.clone(), from: Checkpoint::TrimHorizon },
            Line::Delivered { at, shard: shard.clone(), sequence, payload: "key:7".to_owned() },
            Line::Stored { shard: shard.clone(), sequence },
            Line::HandedOver { shard: shard.clone() },
            Line::Lost { shard },
            Line::Joined { member: "a:1:f0".into() },
            Line::Evicted { member: "a:1:f0".into() },
        ] {
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }
        assert!("delivered 17".parse::<Line>().is_err());
    }
}
