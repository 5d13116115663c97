//! The SDK's types, turned into the model's without copying payloads or keys.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types;
use bytes::Bytes;
use bytestring::ByteString;

use crate::model::{ChildShard, HashKeyRange, SequenceNumber, Shard, ShardId, SourceRecord};

/// Turns a record over. A stream whose service distributes records may leave the partition key out; an empty key,
/// which the service refuses on writing, is taken for the same.
///
/// # Errors
/// What is wrong with the record, in words.
pub(super) fn record(record: types::Record) -> Result<SourceRecord, String> {
    let sequence_number = sequence(&record.sequence_number)?;
    let arrival = record.approximate_arrival_timestamp.and_then(|time| millis(&time));
    // How far a SystemTime reaches depends on the system.
    let arrival =
        arrival.and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
    let partition_key = record.partition_key.filter(|key| !key.is_empty()).map(ByteString::from);
    Ok(SourceRecord::new(sequence_number, arrival, partition_key, Bytes::from(record.data.into_inner())))
}

/// Turns a shard over.
///
/// # Errors
/// What is wrong with the shard, in words.
pub(super) fn shard(shard: types::Shard) -> Result<Shard, String> {
    let id = shard.shard_id;
    let numbers =
        shard.sequence_number_range.ok_or_else(|| format!("shard {id} has no sequence number range"))?;
    let hash_key_range =
        hash_keys(shard.hash_key_range.as_ref()).map_err(|problem| format!("shard {id}: {problem}"))?;
    let number = |text: &str| sequence(text).map_err(|problem| format!("shard {id}: {problem}"));
    Ok(Shard {
        starting_sequence_number: number(&numbers.starting_sequence_number)?,
        ending_sequence_number: numbers.ending_sequence_number.as_deref().map(number).transpose()?,
        id: ShardId::from(id),
        parent: shard.parent_shard_id.map(ShardId::from),
        adjacent_parent: shard.adjacent_parent_shard_id.map(ShardId::from),
        hash_key_range,
    })
}

/// Turns the children over, or names none if one of them cannot be understood: they are a hint, and whoever
/// finds none looks them up by listing.
pub(super) fn children(children: Option<Vec<types::ChildShard>>) -> Vec<ChildShard> {
    let turned = children.into_iter().flatten().map(|child| {
        Some(ChildShard {
            id: ShardId::from(child.shard_id),
            parents: child.parent_shards.into_iter().map(ShardId::from).collect(),
            hash_key_range: hash_keys(child.hash_key_range.as_ref()).ok()?,
        })
    });
    turned.collect::<Option<_>>().unwrap_or_default()
}

/// The milliseconds since the Unix epoch. The wire has seconds as a floating-point number, which misses the exact
/// millisecond by some nanoseconds either way, so cutting them off would be one short now and then.
pub(super) fn millis(time: &DateTime) -> Option<u64> {
    let seconds = u64::try_from(time.secs()).ok()?;
    seconds
        .checked_mul(1_000)?
        .checked_add(u64::from(time.subsec_nanos().saturating_add(500_000) / 1_000_000))
}

/// Cuts a time to milliseconds, as arrival times have them, so that no record is missed by a finer one.
pub(super) fn cut_to_millis(time: DateTime) -> DateTime {
    time.to_millis().map_or(time, DateTime::from_millis)
}

fn sequence(text: &str) -> Result<SequenceNumber, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn hash_keys(range: Option<&types::HashKeyRange>) -> Result<HashKeyRange, String> {
    let range = range.ok_or("the hash key range is missing")?;
    HashKeyRange::parse(&range.starting_hash_key, &range.ending_hash_key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::primitives::Blob;

    use super::*;

    fn sdk_record(sequence: &str) -> types::builders::RecordBuilder {
        types::Record::builder().sequence_number(sequence).data(Blob::new([1u8, 2, 3]))
    }

    #[test]
    fn payload_and_key_are_moved_not_copied() {
        let payload = vec![7u8; 1000];
        let key = "a key that is longer than any inline string could be".to_owned();
        let (payload_at, key_at) = (payload.as_ptr(), key.as_ptr());
        let from = types::Record::builder()
            .sequence_number("5")
            .data(Blob::new(payload))
            .partition_key(key)
            .approximate_arrival_timestamp(DateTime::from_millis(1_234))
            .build()
            .unwrap();
        let to = record(from).unwrap();
        assert_eq!(to.data.as_ptr(), payload_at);
        assert_eq!(to.partition_key.unwrap().as_ptr(), key_at);
        assert_eq!(to.arrival, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_234)));
    }

    #[test]
    fn a_record_without_partition_key_or_arrival_is_accepted() {
        for builder in [sdk_record("5"), sdk_record("5").partition_key("")] {
            let to = record(builder.build().unwrap()).unwrap();
            assert_eq!((to.partition_key, to.arrival), (None, None));
        }
    }

    #[test]
    fn times_are_rounded_to_the_millisecond_that_was_meant() {
        for millis_meant in (1_800_000_000_000..1_800_000_001_000u64).chain([0, 1_234]) {
            let wire = DateTime::from_secs_f64(millis_meant as f64 / 1_000.0);
            assert_eq!(millis(&wire), Some(millis_meant));
        }
        assert_eq!(millis(&DateTime::from_secs(-1)), None);
    }

    #[test]
    fn a_sequence_number_that_is_none_is_named() {
        let error = record(sdk_record("12x").build().unwrap()).unwrap_err();
        assert!(error.contains("12x"), "{error}");
    }

    #[test]
    fn children_that_cannot_be_understood_are_not_named() {
        let range = |start: &str| {
            types::HashKeyRange::builder().starting_hash_key(start).ending_hash_key("9").build().unwrap()
        };
        let child = |start| {
            types::ChildShard::builder()
                .shard_id("shardId-000000000001")
                .parent_shards("shardId-000000000000")
                .hash_key_range(range(start))
                .build()
                .unwrap()
        };
        assert_eq!(children(Some(vec![child("0"), child("5")])).len(), 2);
        assert_eq!(children(Some(vec![child("0"), child("x")])), []);
        assert_eq!(children(None), []);
    }
}
