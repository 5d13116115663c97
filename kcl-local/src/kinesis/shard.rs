//! One shard: its records, its place in the lineage, its life from creation to expiry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::bucket::Bucket;
use super::hash_key::HashKeyRange;
use super::instant;
use super::sequence::SequenceNumber;

/// The most bytes (data and partition keys) one answer of `GetRecords` carries.
pub(crate) const READ_BYTES: usize = 10 << 20;

/// A record as the service keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// The place in the shard.
    pub sequence_number: SequenceNumber,
    /// When the service took the record, in whole milliseconds.
    pub arrival: SystemTime,
    /// The partition key it was put with.
    pub partition_key: Arc<str>,
    /// The payload.
    pub data: Bytes,
}

/// A shard as `ListShards` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardDescription {
    /// The id, `shardId-` and twelve digits.
    pub shard_id: Arc<str>,
    /// The shard this one was split from, or the first of the two it was merged from.
    pub parent_shard_id: Option<Arc<str>>,
    /// The second shard this one was merged from.
    pub adjacent_parent_shard_id: Option<Arc<str>>,
    /// The hash keys the shard takes.
    pub hash_key_range: HashKeyRange,
    /// A number below that of every record of the shard.
    pub starting_sequence_number: SequenceNumber,
    /// A number above that of every record of the shard; `None` while it is open.
    pub ending_sequence_number: Option<SequenceNumber>,
}

/// A child of a shard, as told at the end of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildShard {
    /// The id of the child.
    pub shard_id: Arc<str>,
    /// The ids of all its parents, one or two.
    pub parent_shards: Vec<Arc<str>>,
    /// The hash keys the child takes.
    pub hash_key_range: HashKeyRange,
}

#[derive(Debug)]
struct Stored {
    /// Milliseconds since the Unix epoch.
    arrival: u64,
    partition_key: Arc<str>,
    data: Bytes,
}

impl Stored {
    fn size(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }
}

/// What closed a shard.
#[derive(Clone, Copy, Debug)]
struct Closed {
    at: u64,
    ending: SequenceNumber,
}

/// The allowances of one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardBuckets {
    pub(crate) reads: Bucket,
    pub(crate) read_bytes: Bucket,
    pub(crate) iterators: Bucket,
    pub(crate) write_records: Bucket,
    pub(crate) write_bytes: Bucket,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) id: Arc<str>,
    pub(crate) range: HashKeyRange,
    /// The indexes of the parents, the first being the one split or named first in the merge.
    pub(crate) parents: Vec<u32>,
    pub(crate) children: Vec<u32>,
    pub(crate) created: u64,
    /// The creation second in sequence numbers: later than the wall clock where a parent's demands it.
    pub(crate) epoch: u64,
    pub(crate) buckets: ShardBuckets,
    pub(crate) index: u32,
    closed: Option<Closed>,
    records: VecDeque<Stored>,
    /// The record index of the first record kept. Indexes start at 1 and have no gaps.
    first: u64,
}

/// What of the records a page takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The most records.
    pub(crate) records: usize,
    /// The most bytes; a single record is taken whatever its size.
    pub(crate) bytes: usize,
    /// What happened later than this is not seen.
    pub(crate) arrived_by: u64,
}

/// One page of records.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) bytes: u64,
    /// Where to go on, or `None` at the end of a closed shard.
    pub(crate) next: Option<u64>,
    pub(crate) millis_behind_latest: u64,
}

impl Shard {
    pub(crate) fn new(index: u32, range: HashKeyRange, parents: Vec<u32>, epoch: u64, now: u64) -> Self {
        Self {
            id: shard_id(index),
            range,
            parents,
            children: Vec::new(),
            created: now,
            epoch,
            buckets: ShardBuckets::default(),
            index,
            closed: None,
            records: VecDeque::new(),
            first: 1,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    pub(crate) fn closed_at(&self) -> Option<u64> {
        self.closed.map(|closed| closed.at)
    }

    fn was_closed_by(&self, at: u64) -> bool {
        self.closed_at().is_some_and(|closed| closed <= at)
    }

    pub(crate) fn starting(&self) -> SequenceNumber {
        SequenceNumber::compose(self.epoch, self.index, 0, self.epoch)
    }

    pub(crate) fn ending(&self) -> Option<SequenceNumber> {
        self.closed.map(|closed| closed.ending)
    }

    pub(crate) fn close(&mut self, children: Vec<u32>, now: u64) {
        let ending = SequenceNumber::compose(self.epoch, self.index, u64::MAX >> 1, now / 1_000);
        self.closed = Some(Closed { at: now, ending });
        self.children = children;
    }

    /// The record index one past the last record.
    pub(crate) fn next_index(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// The number that tells a subscriber where to go on: above the last record before `position`,
    /// below the one at it, and no record's.
    pub(crate) fn continuation(&self, position: u64, now: u64) -> SequenceNumber {
        // A start after the end of a closed shard lies beyond all indexes.
        let before = position.min(self.next_index()).saturating_sub(1);
        SequenceNumber::compose_between(self.epoch, self.index, before, now / 1_000)
    }

    /// When what follows `position` happens for a reader, the arrival of its record or the closing;
    /// `None` if nothing follows yet.
    pub(crate) fn follows_at(&self, position: u64) -> Option<u64> {
        let skip = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.records.get(skip).map(|record| record.arrival).or(self.closed_at())
    }

    /// The number of records ever put.
    pub(crate) fn total(&self) -> u64 {
        self.next_index() - 1
    }

    pub(crate) fn put(&mut self, partition_key: Arc<str>, data: Bytes, now: u64) -> SequenceNumber {
        let index = self.next_index();
        self.records.push_back(Stored { arrival: now, partition_key, data });
        self.number(index, now)
    }

    /// Drops the records that arrived `retention` milliseconds ago or earlier.
    pub(crate) fn trim(&mut self, retention: u64, now: u64) {
        while self.records.front().is_some_and(|record| record.arrival.saturating_add(retention) <= now) {
            self.records.pop_front();
            self.first += 1;
        }
        if self.records.is_empty() && self.records.capacity() > 1_024 {
            self.records.shrink_to_fit();
        }
    }

    /// The record index of the first record that arrived at `at` or later.
    pub(crate) fn index_at(&self, at: u64) -> u64 {
        self.first + self.records.partition_point(|record| record.arrival < at) as u64
    }

    /// Says whether `number` is one this shard has given out: its start, a record's, or its end.
    pub(crate) fn knows(&self, number: SequenceNumber) -> bool {
        let [high, ..] = number.limbs();
        let [own, ..] = self.starting().limbs();
        // The upper 48 bits hold version, creation second and the low digit of the index.
        let same_shard = high >> 16 == own >> 16 && number.shard_index() == Some(self.index);
        same_shard && (number.record_index() < self.next_index() || Some(number) == self.ending())
    }

    /// Reads a page from the record index `from` on.
    pub(crate) fn read(&self, from: u64, window: Window, now: u64) -> Page {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut records = Vec::with_capacity(window.records.min(self.records.len().saturating_sub(skip)));
        let start = self.first + skip.min(self.records.len()) as u64;
        for (index, record) in (start..).zip(self.records.iter().skip(skip)).take(window.records) {
            let size = record.size();
            let is_full = bytes + size > window.bytes && !records.is_empty();
            if is_full || record.arrival > window.arrived_by {
                break;
            }
            bytes += size;
            records.push(self.stored(index, record));
        }
        let next = start + records.len() as u64;
        let at_tip = next == self.next_index();
        let last = records.len().checked_sub(1).and_then(|last| self.records.get(skip + last));
        let behind = last.map_or(0, |record| now.saturating_sub(record.arrival));
        Page {
            bytes: bytes as u64,
            next: (!at_tip || !self.was_closed_by(window.arrived_by)).then(|| next.max(from)),
            // Zero is kept for a reader that has everything.
            millis_behind_latest: if at_tip { 0 } else { behind.max(1) },
            records,
        }
    }

    pub(crate) fn stored_records(&self) -> impl Iterator<Item = StoredRecord> {
        (self.first..).zip(&self.records).map(|(index, record)| self.stored(index, record))
    }

    fn stored(&self, index: u64, record: &Stored) -> StoredRecord {
        StoredRecord {
            sequence_number: self.number(index, record.arrival),
            arrival: instant(record.arrival),
            partition_key: Arc::clone(&record.partition_key),
            data: record.data.clone(),
        }
    }

    fn number(&self, index: u64, arrival: u64) -> SequenceNumber {
        SequenceNumber::compose(self.epoch, self.index, index, arrival / 1_000)
    }
}

/// Renders the id of the shard with this index.
pub(crate) fn shard_id(index: u32) -> Arc<str> {
    format!("shardId-{index:012}").into()
}

/// Reads the index from a shard id, or `None` if no shard can have that id.
pub(crate) fn shard_index(id: &str) -> Option<u32> {
    let digits = id.strip_prefix("shardId-")?;
    (digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}
