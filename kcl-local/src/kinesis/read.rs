//! Reading records.

use std::time::SystemTime;

use crate::error::ApiError;

use super::errors::{invalid, shard_not_found, shard_rate, stream_not_found, within};
use super::sequence::SequenceNumber;
use super::shard::{ChildShard, READ_BYTES, Shard, StoredRecord, Window};
use super::stream::StreamStatus;
use super::token::{self, Kind};
use super::{Kinesis, StreamRef, instant, millis, millis_of};

/// The most records of one answer.
const RECORDS: u32 = 10_000;

/// Where in a shard to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IteratorStart {
    /// At the oldest record kept.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At this record, or the oldest one kept if it has been trimmed.
    AtSequenceNumber(SequenceNumber),
    /// After this record.
    AfterSequenceNumber(SequenceNumber),
    /// At the first record that arrived at this time (to the millisecond) or later.
    AtTimestamp(SystemTime),
}

/// The answer of `GetRecords`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetRecordsOutput {
    /// The records, in order.
    pub records: Vec<StoredRecord>,
    /// Where to go on; `None` at the end of a closed shard, together with the last records.
    pub next_iterator: Option<String>,
    /// How long ago the last record returned arrived if more follow it, and zero if none do.
    pub millis_behind_latest: u64,
    /// The children of the shard at its end, otherwise empty.
    pub child_shards: Vec<ChildShard>,
}

/// What a shard iterator says.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    stream: u64,
    shard: u32,
    /// The record index to go on from.
    position: u64,
    created: u64,
    /// The number of the iterator among all issued.
    serial: u64,
}

impl Cursor {
    fn seal(self) -> String {
        let fields = [self.stream, self.shard.into(), self.position, self.created, self.serial];
        token::seal(Kind::Iterator, &fields, "")
    }

    fn open(text: &str) -> Option<Self> {
        let ([stream, shard, position, created, serial], _) = token::open(Kind::Iterator, text)?;
        Some(Self { stream, shard: u32::try_from(shard).ok()?, position, created, serial })
    }
}

impl Kinesis {
    /// Makes an iterator over a shard.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidArgumentException` for a sequence number the shard did
    /// not give out or a time in the future; `ProvisionedThroughputExceededException`.
    pub fn get_shard_iterator<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        shard: &str,
        start: &IteratorStart,
    ) -> Result<String, ApiError> {
        let stream = stream.into();
        self.with(|state| {
            let (now, rate) = (state.now, state.options.limits.iterators);
            let serial = state.issued + 1;
            let found = state.live(&stream)?;
            let (id, name, account) = (found.id, found.name.clone(), found.account.clone());
            let shard = found.shard(shard, now)?;
            if !shard.buckets.iterators.take(rate, 1, now) {
                return Err(shard_rate(&shard.id, &name, &account));
            }
            let position = position(shard, start, now, "GetShardIterator", (&name, &account))?;
            let cursor = Cursor { stream: id, shard: shard.index, position, created: now, serial };
            state.issued = serial;
            Ok(cursor.seal())
        })
    }

    /// Reads up to `limit` (1 to 10,000, default 10,000) records and up to 10 MiB.
    ///
    /// # Errors
    /// `ExpiredIteratorException`; `InvalidArgumentException` for a junk iterator or a limit above
    /// 10,000; `ResourceNotFoundException`; `ProvisionedThroughputExceededException`.
    pub fn get_records(&self, iterator: &str, limit: Option<u32>) -> Result<GetRecordsOutput, ApiError> {
        self.get_records_of(&StreamRef::default(), iterator, limit)
    }

    /// As [`get_records`](Self::get_records), checking that the iterator is of `stream` if one is named.
    pub(crate) fn get_records_of(
        &self,
        stream: &StreamRef<'_>,
        iterator: &str,
        limit: Option<u32>,
    ) -> Result<GetRecordsOutput, ApiError> {
        let limit = limit.unwrap_or(RECORDS);
        within(limit, (1, u32::MAX), "limit")?;
        if limit > RECORDS {
            return Err(invalid(format!("Limit {limit} exceeds the maximum of {RECORDS} records.")));
        }
        let cursor = Cursor::open(iterator).ok_or_else(|| invalid("Invalid ShardIterator."))?;
        self.with(|state| {
            let (now, limits) = (state.now, state.options.limits);
            if !stream.is_empty() && state.resolve(stream)?.id != cursor.stream {
                return Err(invalid("The ShardIterator is not of the stream that StreamARN names."));
            }
            let (lifetime, account) = (millis_of(state.options.iterator_lifetime), state.options.account.clone());
            let serial = state.issued + 1;
            let gone = || stream_not_found("of the ShardIterator", &account);
            let found = state.by_id(cursor.stream).ok_or_else(gone)?;
            if !matches!(found.status, StreamStatus::Active | StreamStatus::Updating) {
                return Err(stream_not_found(&found.name, &found.account));
            }
            let expired = cursor.created.saturating_add(lifetime) < now || cursor.serial < found.oldest_iterator;
            if expired {
                return Err(ApiError::client(
                    "ExpiredIteratorException",
                    format!(
                        "Iterator expired. The iterator was created at time {} while right now it is {now} which is \
                         further in the future than the tolerated delay of {lifetime} milliseconds.",
                        cursor.created
                    ),
                ));
            }
            found.expire_shards(now);
            let retention = found.retention;
            let Some(shard) = found.shards.get_mut(&cursor.shard) else {
                let id = super::shard::shard_id(cursor.shard);
                return Err(shard_not_found(&id, &found.name, &found.account));
            };
            shard.trim(retention, now);
            let buckets = &mut shard.buckets;
            let allowed =
                buckets.read_bytes.is_open(limits.read_bytes, now) && buckets.reads.take(limits.reads, 1, now);
            if !allowed {
                return Err(shard_rate(&shard.id, &found.name, &found.account));
            }
            let window = Window { records: limit as usize, bytes: READ_BYTES, arrived_by: now };
            let page = shard.read(cursor.position, window, now);
            shard.buckets.read_bytes.charge(limits.read_bytes, page.bytes);
            let next_iterator =
                page.next.map(|position| Cursor { position, created: now, serial, ..cursor }.seal());
            let child_shards = match next_iterator {
                Some(_) => Vec::new(),
                None => found.children_of(cursor.shard),
            };
            state.issued = serial;
            Ok(GetRecordsOutput {
                records: page.records,
                next_iterator,
                millis_behind_latest: page.millis_behind_latest,
                child_shards,
            })
        })
    }
}

/// The record index that `start` means now.
pub(crate) fn position(
    shard: &Shard,
    start: &IteratorStart,
    now: u64,
    operation: &str,
    (stream, account): (&str, &str),
) -> Result<u64, ApiError> {
    let known = |number: SequenceNumber| {
        if shard.knows(number) {
            return Ok(number.record_index());
        }
        let message = match number.shard_index() {
            Some(index) if index != shard.index => format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
                super::shard::shard_id(index),
                shard.id
            ),
            _ => format!(
                "StartingSequenceNumber {number} used in {operation} on shard {} in stream {stream} under account \
                 {account} is invalid.",
                shard.id
            ),
        };
        Err(invalid(message))
    };
    match start {
        IteratorStart::TrimHorizon => Ok(0),
        IteratorStart::Latest => Ok(shard.next_index()),
        // No record has a number between records: the first above it is the one that follows.
        IteratorStart::AtSequenceNumber(number) => {
            Ok(known(*number)? + u64::from(number.is_between_records()))
        }
        IteratorStart::AfterSequenceNumber(number) => Ok(known(*number)? + 1),
        IteratorStart::AtTimestamp(time) => {
            let at = millis(*time);
            if *time > instant(now + 1) {
                return Err(invalid(format!(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                     timestampInMillis: {at}, currentTimestampInMillis: {now}"
                )));
            }
            Ok(shard.index_at(at))
        }
    }
}
