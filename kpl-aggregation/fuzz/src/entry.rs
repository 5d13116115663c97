//! Entry points of the fuzz targets, each a law that holds for any bytes. Also run by the crate's own tests.

use bytes::Bytes;
use kpl_aggregation::{
    Aggregator, DamagePolicy, Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy, PlainReason,
};
use md5::{Digest, Md5};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// De-aggregates the bytes as they are, and as the message of a sound frame.
pub fn deaggregate(bytes: &[u8]) {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    for data in [bytes.to_vec(), [&MAGIC[..], bytes, &digest].concat()] {
        let data = Bytes::from(data);
        for range in [HashKeyRange::FULL, low_half()] {
            check(&data, range);
        }
    }
}

fn low_half() -> HashKeyRange {
    HashKeyRange::new(0, u128::MAX / 2).expect("0 is the least")
}

fn check(data: &Bytes, range: HashKeyRange) {
    let mut kept = Vec::new();
    for policy in [OutOfRangePolicy::DropAggregate, OutOfRangePolicy::DropRecord, OutOfRangePolicy::Keep] {
        let settings = Deaggregator::new().range(range).out_of_range(policy);
        let all = settings.deaggregate(data);
        let prefix = settings.damage(DamagePolicy::KeepPrefix).deaggregate(data);
        match (&all, &prefix) {
            (Deaggregated::Plain(PlainReason::DamagedRecord(_)), Deaggregated::Aggregate(_)) => {}
            (Deaggregated::Plain(all), Deaggregated::Plain(prefix)) => assert_eq!(all, prefix),
            (Deaggregated::Aggregate(all), Deaggregated::Aggregate(prefix)) => {
                assert!(all.clone().eq(prefix.clone()));
                assert_eq!((all.damage(), prefix.damage()), (None, None));
            }
            (all, prefix) => unreachable!("{all:?} but with the prefix rule {prefix:?}"),
        }
        kept.push(read(data, all));
        read(data, prefix);
    }
    assert!(
        kept[0] <= kept[1] && kept[1] <= kept[2],
        "{kept:?}: each policy keeps what a stricter one keeps"
    );
}

/// Reads an outcome to its end and returns how many records it held.
fn read(data: &Bytes, outcome: Deaggregated) -> usize {
    let Deaggregated::Aggregate(records) = outcome else { return 0 };
    let (len, total) = (records.len(), records.total());
    assert_eq!(len as u64 + records.dropped_out_of_range() + records.dropped_damaged(), total);
    let mut next = 0;
    let mut read = 0;
    for record in records {
        assert!(record.sub_sequence_number >= next && record.sub_sequence_number < total);
        next = record.sub_sequence_number + 1;
        read += 1;
        let (outer, inner) = (data.as_ptr_range(), record.data.as_ptr_range());
        assert!(outer.start <= inner.start && inner.end <= outer.end, "payloads are not copied");
    }
    assert_eq!(read, len);
    read
}

/// Takes the bytes for a list of records, puts them through an aggregator and reads them back.
///
/// The first byte sets the maximum size. Each record is three bytes, for its key, its explicit hash key and the length
/// of its data, and then the data.
pub fn round_trip(bytes: &[u8]) {
    let Some((size, mut rest)) = bytes.split_first() else { return };
    let max_size = 64 + usize::from(*size) * 16;
    let mut aggregator = Aggregator::with_max_size(max_size).expect("64 or more");
    let mut taken = Vec::new();
    let mut sent = Vec::new();
    while let [key, hash_key, len, tail @ ..] = rest {
        let (data, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let key = char::from(*key).to_string().repeat(1 + usize::from(*key) % 300);
        let hash_key = (hash_key % 3 == 0).then(|| u128::MAX >> (hash_key / 3));
        let predicted = aggregator.size_after(&key, hash_key, data);
        match aggregator.add(key.clone(), hash_key, Bytes::copy_from_slice(data)) {
            Ok(finished) => {
                if finished.is_none() {
                    assert_eq!(aggregator.size(), predicted);
                }
                sent.extend(finished);
                taken.push((key, hash_key.map(|value| value.to_string()), data.to_vec()));
            }
            Err(error) => {
                let rejected = error.into_rejected().expect("a record was refused");
                assert!(rejected.data == data && rejected.partition_key == key.as_str());
            }
        }
    }
    let size = aggregator.size();
    let last = aggregator.finish();
    assert_eq!(last.as_ref().map_or(0, |record| record.data.len()), size);
    sent.extend(last);

    let mut read = Vec::new();
    for record in sent {
        assert!(record.data.len() + record.partition_key.len() <= max_size);
        match Deaggregator::new().deaggregate(&record.data) {
            Deaggregated::Plain(_) => {
                let hash_key = record.explicit_hash_key.map(|value| value.to_string());
                read.push((record.partition_key.to_string(), hash_key, record.data.to_vec()));
            }
            Deaggregated::Aggregate(records) => read.extend(records.map(|record| {
                let hash_key = record.explicit_hash_key.map(|text| text.to_string());
                (record.partition_key.to_string(), hash_key, record.data.to_vec())
            })),
        }
    }
    assert_eq!(read, taken);
}
