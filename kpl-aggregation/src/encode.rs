//! Aggregation: from user records to records of the stream, with exact sizes.

#![allow(clippy::disallowed_types, reason = "keys are looked up and never iterated")]

use std::{collections::HashMap, hash::Hash, num::NonZeroUsize};

use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use prost::encoding::encoded_len_varint;

use crate::{
    error::{AggregationError, RejectedRecord},
    wire::{self, FRAMING_LEN, MAGIC, key},
};

/// Least maximum size, in bytes: the KPL's.
const LEAST_MAX_SIZE: usize = 64;
/// Greatest maximum size, in bytes: what the service can be set to take.
const MOST_MAX_SIZE: usize = 10 * 1024 * 1024;
/// The service's own limit on a record where nothing else is set, in bytes.
const DEFAULT_MAX_SIZE: usize = 1024 * 1024;
/// The service's limit on a partition key, in characters.
const MAX_KEY_CHARACTERS: usize = 256;

/// One record to be put to the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AggregatedRecord {
    /// The partition key to put it under: that of its first user record.
    pub partition_key: ByteString,
    /// The explicit hash key to put it under: that of its first user record, if it has one.
    pub explicit_hash_key: Option<u128>,
    /// The bytes to put.
    pub data: Bytes,
    /// Number of user records in it, at least 1.
    pub count: usize,
    /// Whether `data` is an aggregate, or else the data of its only user record as it was given.
    pub is_aggregate: bool,
}

/// Collects user records into aggregates of bounded size.
///
/// Every record given to [`add`](Self::add) comes out in exactly one [`AggregatedRecord`], in order, or is handed back
/// in the error. Nothing is sent by time: whoever owns the aggregator calls [`finish`](Self::finish) when its records
/// have waited long enough.
///
/// A lone record is sent raw, as the KPL does, unless its data begins with the magic bytes: then it gets a frame, for
/// a reader would take it for an aggregate and not return what was put.
///
/// # Contract
/// The service sees only the outer key, that of the first user record. So all records of one aggregator must belong to
/// one shard (the same partition key, or the same shard by a fresh shard map): readers that check the range, as the
/// Java KCL does, drop those of other shards.
///
/// # Examples
/// ```
/// use kpl_aggregation::Aggregator;
///
/// let mut aggregator = Aggregator::new();
/// aggregator.add("user-1", None, "first")?;
/// aggregator.add("user-1", None, "second")?;
/// let record = aggregator.finish().expect("two records were added");
/// assert_eq!((record.partition_key.as_ref(), record.count, record.is_aggregate), ("user-1", 2, true));
/// # Ok::<(), kpl_aggregation::AggregationError>(())
/// ```
#[derive(Debug)]
pub struct Aggregator {
    max_size: usize,
    max_records: NonZeroUsize,
    counts_outer_key: bool,
    partition_keys: KeyTable<ByteString>,
    explicit_hash_keys: KeyTable<u128>,
    entries: Vec<PendingEntry>,
    message_len: usize,
}

#[derive(Debug)]
struct PendingEntry {
    partition_key: usize,
    explicit_hash_key: Option<usize>,
    data: Bytes,
}

impl Default for Aggregator {
    fn default() -> Self {
        Self::new()
    }
}

impl Aggregator {
    /// Makes an aggregator with a maximum size of 1 MiB, outer key included, and no limit on the number of records.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_size: DEFAULT_MAX_SIZE,
            max_records: NonZeroUsize::MAX,
            counts_outer_key: true,
            partition_keys: KeyTable::default(),
            explicit_hash_keys: KeyTable::default(),
            entries: Vec::new(),
            message_len: 0,
        }
    }

    /// Makes an aggregator with a maximum size in bytes, from 64 to 10 MiB (10,485,760).
    ///
    /// The default of 1 MiB is what every stream takes; a stream can be set to take up to 10 MiB. The KPL's own default
    /// is 51,200, which lets a reader process an aggregate in small steps.
    ///
    /// # Errors
    /// [`AggregationError::MaxSize`] outside of these bounds.
    pub fn with_max_size(max_size: usize) -> Result<Self, AggregationError> {
        if (LEAST_MAX_SIZE..=MOST_MAX_SIZE).contains(&max_size) {
            Ok(Self { max_size, ..Self::new() })
        } else {
            Err(AggregationError::MaxSize { max_size, least: LEAST_MAX_SIZE, most: MOST_MAX_SIZE })
        }
    }

    /// Sets the greatest number of user records in one record of the stream. Default: no limit.
    #[must_use]
    pub fn max_records(mut self, max_records: NonZeroUsize) -> Self {
        self.max_records = max_records;
        self
    }

    /// Sets whether the outer partition key counts towards the maximum size. Default: it does.
    ///
    /// The service counts data and key together; the aggregators of other languages count the data only.
    #[must_use]
    pub fn counts_outer_key(mut self, counts: bool) -> Self {
        self.counts_outer_key = counts;
        self
    }

    /// Returns the number of user records waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether no user record is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the exact length in bytes of the data that [`finish`](Self::finish) would return now; 0 if empty.
    #[must_use]
    pub fn size(&self) -> usize {
        match self.entries.as_slice() {
            [] => 0,
            [only] => lone_len(&only.data, self.message_len),
            _ => FRAMING_LEN + self.message_len,
        }
    }

    /// Returns the exact length in bytes that the data would have with this record added, fitting or not.
    #[must_use]
    pub fn size_after(&self, partition_key: &str, explicit_hash_key: Option<u128>, data: &[u8]) -> usize {
        let message_len = self.message_len_after(partition_key, explicit_hash_key, data.len());
        if self.is_empty() { lone_len(data, message_len) } else { FRAMING_LEN + message_len }
    }

    /// Adds a user record.
    ///
    /// If it does not fit beside the records waiting, those are returned as a finished record of the stream and the new
    /// one waits alone. The data is held, not copied, until it is finished.
    ///
    /// # Errors
    /// [`AggregationError::TooLarge`] if the record could not even be sent alone, and
    /// [`AggregationError::PartitionKeyLength`]. Both hand the record back and leave the aggregator as it was.
    pub fn add(
        &mut self,
        partition_key: impl Into<ByteString>,
        explicit_hash_key: Option<u128>,
        data: impl Into<Bytes>,
    ) -> Result<Option<AggregatedRecord>, AggregationError> {
        let (partition_key, data) = (partition_key.into(), data.into());
        self.check(&partition_key, explicit_hash_key, &data)?;
        let fits = self.fits(&partition_key, explicit_hash_key, &data);
        let finished = if fits { None } else { self.finish() };
        self.push(partition_key, explicit_hash_key, data);
        Ok(finished)
    }

    /// Returns the records waiting as one record of the stream, and starts anew; `None` if there are none.
    pub fn finish(&mut self) -> Option<AggregatedRecord> {
        let entries = std::mem::take(&mut self.entries);
        let partition_keys = self.partition_keys.take();
        let explicit_hash_keys = self.explicit_hash_keys.take();
        let message_len = std::mem::take(&mut self.message_len);

        let first = entries.first()?;
        let is_aggregate = entries.len() > 1 || first.data.starts_with(&MAGIC);
        let data = if is_aggregate {
            wire::frame(message_len, |out| write_message(&partition_keys, &explicit_hash_keys, &entries, out))
        } else {
            first.data.clone()
        };
        Some(AggregatedRecord {
            partition_key: partition_keys.first()?.clone(),
            explicit_hash_key: first.explicit_hash_key.map(|index| explicit_hash_keys[index]),
            data,
            count: entries.len(),
            is_aggregate,
        })
    }

    /// Checks that the record can be sent alone.
    fn check(
        &self,
        partition_key: &ByteString,
        explicit_hash_key: Option<u128>,
        data: &Bytes,
    ) -> Result<(), AggregationError> {
        let reject = || {
            let (partition_key, data) = (partition_key.clone(), data.clone());
            Box::new(RejectedRecord { partition_key, explicit_hash_key, data })
        };
        let characters = partition_key.chars().count();
        if !(1..=MAX_KEY_CHARACTERS).contains(&characters) {
            return Err(AggregationError::PartitionKeyLength { characters, rejected: reject() });
        }
        let framed_alone = key_field_len(partition_key.len())
            + explicit_hash_key.map_or(0, |value| key_field_len(decimal_len(value)))
            + entry_len(0, explicit_hash_key.map(|_| 0), data.len());
        let size = lone_len(data, framed_alone) + self.outer_key_len(partition_key);
        if size > self.max_size {
            return Err(AggregationError::TooLarge { size, max_size: self.max_size, rejected: reject() });
        }
        Ok(())
    }

    /// Tells whether the record fits beside those waiting; a record that can be sent alone fits where none waits.
    fn fits(&self, partition_key: &str, explicit_hash_key: Option<u128>, data: &[u8]) -> bool {
        let Some(outer_key) = self.partition_keys.keys.first() else { return true };
        let size = self.size_after(partition_key, explicit_hash_key, data) + self.outer_key_len(outer_key);
        self.len() < self.max_records.get() && size <= self.max_size
    }

    fn outer_key_len(&self, outer_key: &str) -> usize {
        if self.counts_outer_key { outer_key.len() } else { 0 }
    }

    fn message_len_after(
        &self,
        partition_key: &str,
        explicit_hash_key: Option<u128>,
        data_len: usize,
    ) -> usize {
        let mut len = self.message_len;
        let key = self.partition_keys.index.get(partition_key).copied();
        if key.is_none() {
            len += key_field_len(partition_key.len());
        }
        let hash_key = explicit_hash_key.map(|value| {
            self.explicit_hash_keys.index.get(&value).copied().unwrap_or_else(|| {
                len += key_field_len(decimal_len(value));
                self.explicit_hash_keys.keys.len()
            })
        });
        len + entry_len(key.unwrap_or(self.partition_keys.keys.len()), hash_key, data_len)
    }

    fn push(&mut self, partition_key: ByteString, explicit_hash_key: Option<u128>, data: Bytes) {
        self.message_len = self.message_len_after(&partition_key, explicit_hash_key, data.len());
        self.entries.push(PendingEntry {
            partition_key: self.partition_keys.index_of(partition_key),
            explicit_hash_key: explicit_hash_key.map(|value| self.explicit_hash_keys.index_of(value)),
            data,
        });
    }
}

/// Keys in the order of their first appearance, which makes the encoding deterministic.
#[derive(Debug)]
struct KeyTable<K> {
    keys: Vec<K>,
    index: HashMap<K, usize>,
}

impl<K> Default for KeyTable<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), index: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> KeyTable<K> {
    fn index_of(&mut self, key: K) -> usize {
        *self.index.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            self.keys.len() - 1
        })
    }

    fn take(&mut self) -> Vec<K> {
        self.index.clear();
        std::mem::take(&mut self.keys)
    }
}

/// Writes the fields in the order of their numbers, as every protobuf library does.
fn write_message(
    partition_keys: &[ByteString],
    explicit_hash_keys: &[u128],
    entries: &[PendingEntry],
    out: &mut Vec<u8>,
) {
    for key in partition_keys {
        wire::put_delimiter(key::PARTITION_KEYS, key.len(), out);
        out.put_slice(key.as_bytes());
    }
    for key in explicit_hash_keys {
        let text = key.to_string();
        wire::put_delimiter(key::EXPLICIT_HASH_KEYS, text.len(), out);
        out.put_slice(text.as_bytes());
    }
    for entry in entries {
        let len = record_len(entry.partition_key, entry.explicit_hash_key, entry.data.len());
        wire::put_delimiter(key::RECORDS, len, out);
        wire::put_varint(key::PARTITION_KEY_INDEX, entry.partition_key as u64, out);
        if let Some(index) = entry.explicit_hash_key {
            wire::put_varint(key::EXPLICIT_HASH_KEY_INDEX, index as u64, out);
        }
        wire::put_delimiter(key::DATA, entry.data.len(), out);
        out.put_slice(&entry.data);
    }
}

/// Length of the data of a record of one user record.
fn lone_len(data: &[u8], message_len: usize) -> usize {
    if data.starts_with(&MAGIC) { FRAMING_LEN + message_len } else { data.len() }
}

/// Digits of a hash key in decimal.
fn decimal_len(value: u128) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn delimited_len(key: u64, len: usize) -> usize {
    encoded_len_varint(key) + encoded_len_varint(len as u64) + len
}

fn varint_field_len(key: u64, value: usize) -> usize {
    encoded_len_varint(key) + encoded_len_varint(value as u64)
}

/// Length of an entry of either key table; both have one-byte field keys.
fn key_field_len(len: usize) -> usize {
    delimited_len(key::PARTITION_KEYS, len)
}

/// Length of the content of a `Record`.
fn record_len(partition_key: usize, explicit_hash_key: Option<usize>, data_len: usize) -> usize {
    varint_field_len(key::PARTITION_KEY_INDEX, partition_key)
        + explicit_hash_key.map_or(0, |index| varint_field_len(key::EXPLICIT_HASH_KEY_INDEX, index))
        + delimited_len(key::DATA, data_len)
}

/// Length of a `Record` as a field of its aggregate.
fn entry_len(partition_key: usize, explicit_hash_key: Option<usize>, data_len: usize) -> usize {
    delimited_len(key::RECORDS, record_len(partition_key, explicit_hash_key, data_len))
}
