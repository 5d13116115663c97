//! What can be wrong: with bytes read, with records offered, with settings.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

/// Why a record is to be taken as it is instead of as an aggregate.
///
/// Nothing is lost by it: the caller still has the record and passes it on whole. [`PlainReason::is_damaged`]
/// tells an ordinary record from one that looks like a broken aggregate and deserves to be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlainReason {
    /// The record does not begin with the magic bytes: an ordinary record.
    #[error("not an aggregate")]
    NoMagic,
    /// The record begins with the magic bytes but has nothing between them and a digest.
    #[error("aggregate frame without content, len={len}")]
    TooShort {
        /// Length of the record, in bytes.
        len: usize,
    },
    /// The digest does not fit the message.
    #[error("aggregate digest does not match")]
    DigestMismatch,
    /// The digest fits, but the message is not an `AggregatedRecord`.
    #[error("aggregate is malformed, fault={0}")]
    Malformed(Malformed),
    /// The message is sound, but one of its user records cannot be read, and
    /// [`DamagePolicy::PassThrough`](crate::DamagePolicy::PassThrough) is in force.
    #[error("aggregate holds a damaged user record, {0}")]
    DamagedRecord(Damage),
}

impl PlainReason {
    /// Tells whether the record has the marks of an aggregate without being a sound one.
    ///
    /// False only for [`PlainReason::NoMagic`].
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        !matches!(self, Self::NoMagic)
    }
}

/// What makes a message no `AggregatedRecord`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes are not protobuf: truncated, an invalid key or number, an unbalanced group.
    #[error("not protobuf")]
    Protobuf,
    /// A user record lacks the required index of its partition key.
    #[error("user record without partition key index")]
    NoPartitionKeyIndex,
    /// A user record lacks its required data.
    #[error("user record without data")]
    NoData,
    /// A tag of a user record lacks its required key.
    #[error("tag without key")]
    NoTagKey,
}

/// The first user record of an aggregate that cannot be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{fault}, sub_sequence_number={sub_sequence_number}")]
#[non_exhaustive]
pub struct Damage {
    /// Position of the user record in the aggregate, from 0.
    pub sub_sequence_number: u64,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What is wrong with a user record whose message is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// The table of partition keys has no such entry. Indexes count with all 64 bits.
    #[error("partition key index out of range, index={index} entries={entries}")]
    PartitionKeyIndex {
        /// The index as written.
        index: u64,
        /// Entries in the table.
        entries: usize,
    },
    /// The table of explicit hash keys has no such entry. Indexes count with all 64 bits.
    #[error("explicit hash key index out of range, index={index} entries={entries}")]
    ExplicitHashKeyIndex {
        /// The index as written.
        index: u64,
        /// Entries in the table.
        entries: usize,
    },
    /// The explicit hash key is not a whole decimal number.
    #[error("explicit hash key is not a number")]
    ExplicitHashKeyText,
}

/// Why a hash key or a range of them was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashKeyError {
    /// The range begins after its end.
    #[error("hash key range begins after its end, start={start} end={end}")]
    Inverted {
        /// First hash key given.
        start: u128,
        /// Last hash key given.
        end: u128,
    },
    /// The text has something else than decimal digits, or nothing.
    #[error("hash key is not a decimal number")]
    NotDecimal,
    /// The number is 2^128 or more.
    #[error("hash key is above 2^128 - 1")]
    TooLarge,
}

/// Why the aggregator refused a setting or a record.
///
/// A refused record is handed back by [`AggregationError::into_rejected`]; the aggregator is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AggregationError {
    /// The maximum size is outside of the bounds of
    /// [`Aggregator::with_max_size`](crate::Aggregator::with_max_size).
    #[error("maximum size is out of bounds, max_size={max_size} least={least} most={most}")]
    MaxSize {
        /// The size asked for, in bytes.
        max_size: usize,
        /// The least size allowed, in bytes.
        least: usize,
        /// The greatest size allowed, in bytes.
        most: usize,
    },
    /// The record is too large even when it is sent alone.
    #[error("record is too large to be sent, size={size} max_size={max_size}")]
    TooLarge {
        /// Size of the record sent alone, in bytes, with the outer key if that counts.
        size: usize,
        /// The greatest size allowed, in bytes.
        max_size: usize,
        /// The record.
        rejected: Box<RejectedRecord>,
    },
    /// The service takes partition keys of 1 to 256 characters.
    #[error("partition key must have 1 to 256 characters, characters={characters}")]
    PartitionKeyLength {
        /// Characters in the key.
        characters: usize,
        /// The record.
        rejected: Box<RejectedRecord>,
    },
}

impl AggregationError {
    /// Hands the refused record back; `None` where a setting was refused.
    #[must_use]
    pub fn into_rejected(self) -> Option<RejectedRecord> {
        match self {
            Self::MaxSize { .. } => None,
            Self::TooLarge { rejected, .. } | Self::PartitionKeyLength { rejected, .. } => Some(*rejected),
        }
    }
}

/// A record the aggregator did not take, as it was offered.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedRecord {
    /// The partition key.
    pub partition_key: ByteString,
    /// The explicit hash key, if one was given.
    pub explicit_hash_key: Option<u128>,
    /// The data, not copied.
    pub data: Bytes,
}

/// Errors end up in logs, where neither keys nor data belong: only lengths are shown.
impl fmt::Debug for RejectedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedRecord")
            .field("partition_key_len", &self.partition_key.len())
            .field("has_explicit_hash_key", &self.explicit_hash_key.is_some())
            .field("data_len", &self.data.len())
            .finish()
    }
}
