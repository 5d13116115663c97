//! Builds aggregates byte by byte, sound and otherwise.

use bytes::Bytes;
use kpl_aggregation::{Deaggregated, PlainReason, UserRecord, UserRecords};
use md5::{Digest, Md5};

pub(crate) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Puts magic and digest around a message.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let digest: [u8; 16] = Md5::digest(message).into();
    [&MAGIC[..], message, &digest].concat().into()
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A message under construction.
#[derive(Default, Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn number(self, field: u32, value: u64) -> Self {
        self.raw(&varint(u64::from(field) << 3)).raw(&varint(value))
    }

    pub(crate) fn bytes(self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.raw(&varint(u64::from(field) << 3 | 2)).raw(&varint(value.len() as u64)).raw(value)
    }

    pub(crate) fn key(self, key: impl AsRef<[u8]>) -> Self {
        self.bytes(1, key)
    }

    pub(crate) fn hash_key(self, key: impl AsRef<[u8]>) -> Self {
        self.bytes(2, key)
    }

    /// Adds a user record.
    pub(crate) fn record(self, key: u64, hash_key: Option<u64>, data: impl AsRef<[u8]>) -> Self {
        let mut record = Self::default().number(1, key);
        if let Some(index) = hash_key {
            record = record.number(2, index);
        }
        self.bytes(3, record.bytes(3, data).0)
    }

    pub(crate) fn framed(self) -> Bytes {
        framed(&self.0)
    }
}

pub(crate) fn message() -> Message {
    Message::default()
}

pub(crate) fn aggregate(outcome: Deaggregated) -> UserRecords {
    match outcome {
        Deaggregated::Aggregate(records) => records,
        Deaggregated::Plain(reason) => panic!("not an aggregate: {reason}"),
    }
}

pub(crate) fn plain(outcome: Deaggregated) -> PlainReason {
    match outcome {
        Deaggregated::Plain(reason) => reason,
        Deaggregated::Aggregate(records) => panic!("an aggregate of {}", records.total()),
    }
}

/// A user record as key, explicit hash key and data.
pub(crate) fn parts(record: &UserRecord) -> (u64, &str, Option<&str>, &[u8]) {
    let hash_key = record.explicit_hash_key.as_deref();
    (record.sub_sequence_number, &record.partition_key, hash_key, &record.data)
}

/// Tells whether `part` lies inside the memory of `whole`.
pub(crate) fn shares(whole: &[u8], part: &[u8]) -> bool {
    let (outer, inner) = (whole.as_ptr_range(), part.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}
