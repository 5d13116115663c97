//! Writing records.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ApiError;

use super::errors::{constraint, invalid, shard_rate};
use super::hash_key::hash_key;
use super::options::Limits;
use super::sequence::SequenceNumber;
use super::stream::Stream;
use super::{Kinesis, StreamRef};

/// The most records and bytes (data and partition keys) of one `PutRecords` call.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 10 << 20;
/// The largest payload of any stream.
const DATA_BYTES: usize = 10 << 20;
const PARTITION_KEY_CHARS: usize = 256;

/// A record to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewRecord {
    /// The partition key, 1 to 256 characters.
    pub partition_key: Arc<str>,
    /// Decides on the shard in place of the partition key's hash.
    pub explicit_hash_key: Option<u128>,
    /// The payload.
    pub data: Bytes,
}

impl NewRecord {
    /// A record that its partition key places.
    #[must_use]
    pub fn new(partition_key: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Self {
        Self { partition_key: partition_key.into(), explicit_hash_key: None, data: data.into() }
    }

    /// Places the record by `hash_key`.
    #[must_use]
    pub fn with_explicit_hash_key(mut self, hash_key: u128) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    fn size(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }

    fn hash_key(&self) -> u128 {
        self.explicit_hash_key.unwrap_or_else(|| hash_key(&self.partition_key))
    }
}

/// Where a record was put.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The shard.
    pub shard_id: Arc<str>,
    /// The place in the shard.
    pub sequence_number: SequenceNumber,
}

impl Kinesis {
    /// Puts one record. When this returns, every reader at the tip can see it.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ValidationException`, `InvalidArgumentException` (too large),
    /// `ProvisionedThroughputExceededException`.
    pub fn put_record<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        record: NewRecord,
    ) -> Result<Placement, ApiError> {
        let stream = stream.into();
        check(&record, "")?;
        let hash_key = record.hash_key();
        self.telling(|state| {
            let (now, limits) = (state.now, state.options.limits);
            let stream = state.live(&stream)?;
            check_size(stream, &record)?;
            let (id, placed) = (stream.id, place(stream, record, hash_key, &limits, now));
            if let Ok((shard, _)) = &placed {
                state.sleepers.rouse(id, *shard);
            }
            placed.map(|(_, placement)| placement)
        })
    }

    /// Puts up to 500 records of together up to 10 MiB, in order; each succeeds or fails by itself.
    ///
    /// The answers stand in the order of the records. As in the service, a failed record may be
    /// followed by ones that succeed.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ValidationException` or `InvalidArgumentException` if any
    /// record or the whole is out of bounds, and then none is put.
    pub fn put_records<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Result<Placement, ApiError>>, ApiError> {
        let stream = stream.into();
        if !(1..=BATCH_RECORDS).contains(&records.len()) {
            let rule = format!("have length between 1 and {BATCH_RECORDS}");
            return Err(constraint(format_args!("{} records", records.len()), "records", &rule));
        }
        for (index, record) in records.iter().enumerate() {
            check(record, &format!("records.{}.member.", index + 1))?;
        }
        if records.iter().map(NewRecord::size).sum::<usize>() > BATCH_BYTES {
            return Err(invalid("Records size exceeds 10 MB limit"));
        }
        let hash_keys: Vec<_> = records.iter().map(NewRecord::hash_key).collect();
        self.telling(|state| {
            let (now, limits) = (state.now, state.options.limits);
            let stream = state.live(&stream)?;
            let id = stream.id;
            for record in &records {
                check_size(stream, record)?;
            }
            let records = records.into_iter().zip(hash_keys);
            let mut touched = BTreeSet::new();
            let placed = records.map(|(record, hash_key)| {
                let (shard, placement) = place(stream, record, hash_key, &limits, now)?;
                touched.insert(shard);
                Ok(placement)
            });
            let placed = placed.collect();
            for shard in touched {
                state.sleepers.rouse(id, shard);
            }
            Ok(placed)
        })
    }
}

fn place(
    stream: &mut Stream,
    record: NewRecord,
    hash_key: u128,
    limits: &Limits,
    now: u64,
) -> Result<(u32, Placement), ApiError> {
    let shard = stream.route(hash_key, now);
    let (size, buckets) = (record.size() as u64, &mut shard.buckets);
    let fits = buckets.write_records.fits(limits.write_records, 1, now)
        && buckets.write_bytes.fits(limits.write_bytes, size, now);
    if !fits {
        let shard = Arc::clone(&shard.id);
        return Err(shard_rate(&shard, &stream.name, &stream.account));
    }
    buckets.write_records.charge(limits.write_records, 1);
    buckets.write_bytes.charge(limits.write_bytes, size);
    let sequence_number = shard.put(record.partition_key, record.data, now);
    Ok((shard.index, Placement { shard_id: Arc::clone(&shard.id), sequence_number }))
}

/// Checks what the API's schema demands of every record.
fn check(record: &NewRecord, path: &str) -> Result<(), ApiError> {
    let key = &record.partition_key;
    if key.is_empty() {
        let member = format!("{path}partitionKey");
        return Err(constraint("", &member, "have length greater than or equal to 1"));
    }
    if key.len() > PARTITION_KEY_CHARS && key.chars().count() > PARTITION_KEY_CHARS {
        let rule = format!("have length less than or equal to {PARTITION_KEY_CHARS}");
        return Err(constraint(key, &format!("{path}partitionKey"), &rule));
    }
    if record.data.len() > DATA_BYTES {
        let value = format_args!("{} bytes", record.data.len());
        let rule = format!("have length less than or equal to {DATA_BYTES}");
        return Err(constraint(value, &format!("{path}data"), &rule));
    }
    Ok(())
}

fn check_size(stream: &Stream, record: &NewRecord) -> Result<(), ApiError> {
    let most = stream.max_record_kib as usize * 1_024;
    if record.size() <= most {
        return Ok(());
    }
    Err(invalid(format!(
        "Record size of {} bytes (data and partition key) exceeds the maximum of {most} bytes of stream {} under \
         account {}.",
        record.size(),
        stream.name,
        stream.account
    )))
}
