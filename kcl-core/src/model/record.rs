use std::time::SystemTime;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Position, SequenceNumber};

/// A record as the stream holds it, before de-aggregation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceRecord {
    /// The record's sequence number.
    pub sequence_number: SequenceNumber,
    /// When the service took the record, to the millisecond, if it said so.
    pub arrival: Option<SystemTime>,
    /// The partition key; streams with service-managed distribution may have none.
    pub partition_key: Option<ByteString>,
    /// The payload, shared and not copied.
    pub data: Bytes,
}

impl SourceRecord {
    /// Creates a record.
    #[must_use]
    pub const fn new(
        sequence_number: SequenceNumber,
        arrival: Option<SystemTime>,
        partition_key: Option<ByteString>,
        data: Bytes,
    ) -> Self {
        Self { sequence_number, arrival, partition_key, data }
    }
}

/// A user record as processors see it: a plain Kinesis record, or one of the records of a KPL aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) position: Position,
    pub(crate) arrival: Option<SystemTime>,
    pub(crate) partition_key: Option<ByteString>,
    pub(crate) explicit_hash_key: Option<ByteString>,
    pub(crate) data: Bytes,
    pub(crate) aggregated: bool,
}

impl Record {
    /// The payload: a slice of the buffer it arrived in.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The partition key; absent on streams with service-managed distribution.
    #[must_use]
    pub fn partition_key(&self) -> Option<&str> {
        self.partition_key.as_deref()
    }

    /// The explicit hash key as the producer wrote it; known for aggregated records only.
    #[must_use]
    pub fn explicit_hash_key(&self) -> Option<&str> {
        self.explicit_hash_key.as_deref()
    }

    /// The place of the record in its shard: what [`Checkpointer::checkpoint_at`] takes.
    ///
    /// [`Checkpointer::checkpoint_at`]: crate::Checkpointer::checkpoint_at
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The sequence number of the Kinesis record that carried this record.
    #[must_use]
    pub const fn sequence_number(&self) -> SequenceNumber {
        self.position.sequence
    }

    /// When the service took the record, to the millisecond, if it said so.
    #[must_use]
    pub const fn approximate_arrival(&self) -> Option<SystemTime> {
        self.arrival
    }

    /// Whether the record came out of a KPL aggregate.
    #[must_use]
    pub const fn is_aggregated(&self) -> bool {
        self.aggregated
    }
}
