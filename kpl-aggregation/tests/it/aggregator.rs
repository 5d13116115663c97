//! The encoder: the KPL's own bytes, exact limits, nothing lost.

use std::num::NonZeroUsize;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kpl_aggregation::{
    AggregatedRecord, AggregationError, Aggregator, Deaggregated, Deaggregator, UserRecord,
};
use serde::Deserialize;

use crate::support::{MAGIC, aggregate, message};

/// An aggregate made by the KPL itself, and the user records in it.
#[derive(Deserialize)]
struct Golden {
    name: String,
    data_b64: String,
    records: Vec<GoldenRecord>,
}

#[derive(Deserialize)]
struct GoldenRecord {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data: String,
}

fn read(record: &AggregatedRecord) -> Vec<UserRecord> {
    aggregate(Deaggregator::new().deaggregate(&record.data)).collect()
}

#[test]
fn aggregates_made_by_the_kpl_are_read_and_written_byte_for_byte() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../vectors/kpl_golden.json")).unwrap();
    assert_eq!(goldens.iter().map(|golden| golden.records.len()).collect::<Vec<_>>(), [4, 8]);
    for golden in goldens {
        let data = Bytes::from(STANDARD.decode(golden.data_b64).unwrap());
        let mut aggregator = Aggregator::new();
        let mut read = aggregate(Deaggregator::new().deaggregate(&data));
        for record in &golden.records {
            let found = read.next().unwrap();
            assert_eq!(found.partition_key, record.partition_key.as_str());
            assert_eq!(found.explicit_hash_key.as_deref(), record.explicit_hash_key.as_deref());
            assert_eq!(found.data, record.data.as_bytes());
            let hash_key = record.explicit_hash_key.as_ref().map(|text| text.parse().unwrap());
            let full = aggregator.add(found.partition_key, hash_key, found.data).unwrap();
            assert_eq!(full, None);
        }
        assert_eq!(read.next(), None);
        let written = aggregator.finish().unwrap();
        assert_eq!(written.data, data, "{}", golden.name);
        assert_eq!(written.partition_key, golden.records[0].partition_key.as_str());
    }
}

#[test]
fn an_empty_aggregator_gives_nothing() {
    let mut aggregator = Aggregator::default();
    assert!(aggregator.is_empty());
    assert_eq!((aggregator.len(), aggregator.size()), (0, 0));
    assert_eq!(aggregator.finish(), None);
}

#[test]
fn a_single_record_is_sent_raw_and_not_copied() {
    let data = Bytes::from_static(b"alone");
    let mut aggregator = Aggregator::new();
    assert_eq!(aggregator.size_after("k", Some(5), &data), 5);
    assert_eq!(aggregator.add("k", Some(5), data.clone()).unwrap(), None);
    assert_eq!((aggregator.len(), aggregator.size()), (1, 5));
    let record = aggregator.finish().unwrap();
    assert_eq!((record.partition_key.as_ref(), record.explicit_hash_key), ("k", Some(5)));
    assert_eq!((record.count, record.is_aggregate), (1, false));
    assert_eq!(record.data.as_ptr(), data.as_ptr());
    assert!(aggregator.is_empty());
}

#[test]
fn a_single_record_that_looks_like_an_aggregate_is_framed() {
    let inner = message().key("x").record(0, None, "r0").record(0, None, "r1").framed();
    let mut aggregator = Aggregator::new();
    let predicted = aggregator.size_after("k", None, &inner);
    assert_eq!(aggregator.add("k", None, inner.clone()).unwrap(), None);
    assert_eq!(aggregator.size(), predicted);
    let record = aggregator.finish().unwrap();
    assert_eq!((record.data.len(), record.is_aggregate, record.count), (predicted, true, 1));
    let data: Vec<_> = read(&record).into_iter().map(|r| r.data).collect();
    assert_eq!(data, [inner], "readers get what was put");
}

#[test]
fn tables_are_in_order_of_first_appearance() {
    let build = || {
        let mut aggregator = Aggregator::new();
        for (key, hash_key) in [("10", Some(9)), ("2", Some(1)), ("b", None), ("10", Some(1)), ("a", Some(9))]
        {
            assert_eq!(aggregator.add(key, hash_key, "d").unwrap(), None);
        }
        aggregator.finish().unwrap().data
    };
    let expected = message()
        .key("10")
        .key("2")
        .key("b")
        .key("a")
        .hash_key("9")
        .hash_key("1")
        .record(0, Some(0), "d")
        .record(1, Some(1), "d")
        .record(2, None, "d")
        .record(0, Some(1), "d")
        .record(3, Some(0), "d")
        .framed();
    for _ in 0..20 {
        assert_eq!(build(), expected);
    }
}

#[test]
fn sizes_stay_exact_where_indexes_take_more_bytes() {
    let mut aggregator = Aggregator::with_max_size(10 * 1024 * 1024).unwrap();
    for i in 0..17_000_u32 {
        let (key, hash_key) = (format!("{i}"), Some(u128::from(i)));
        let predicted = aggregator.size_after(&key, hash_key, b"data");
        assert_eq!(aggregator.add(key, hash_key, "data").unwrap(), None);
        assert_eq!(aggregator.size(), predicted);
    }
    let size = aggregator.size();
    let record = aggregator.finish().unwrap();
    assert_eq!(record.data.len(), size);
    assert_eq!(read(&record).len(), 17_000);
}

#[test]
fn an_aggregate_may_fill_its_limit_to_the_byte() {
    for counts_outer_key in [true, false] {
        let outer = if counts_outer_key { "key".len() } else { 0 };
        let new = || Aggregator::with_max_size(1000).unwrap().counts_outer_key(counts_outer_key);
        let first = vec![1; 300];
        let mut fitting = None;
        for len in 0..=1000 {
            let mut aggregator = new();
            assert_eq!(aggregator.add("key", None, first.clone()).unwrap(), None);
            let predicted = aggregator.size_after("other", Some(7), &vec![2; len]) + outer;
            let finished = aggregator.add("other", Some(7), vec![2; len]);
            if predicted <= 1000 {
                assert_eq!(finished.unwrap(), None, "{len}");
                let record = aggregator.finish().unwrap();
                assert_eq!(record.data.len() + outer, predicted);
                fitting = Some(predicted);
            } else if len + if counts_outer_key { "other".len() } else { 0 } <= 1000 {
                let finished = finished.unwrap().unwrap();
                assert_eq!((finished.data.len(), finished.count, finished.is_aggregate), (300, 1, false));
                assert_eq!(aggregator.finish().unwrap().data.len(), len);
            } else {
                assert!(matches!(finished, Err(AggregationError::TooLarge { .. })), "{len}");
            }
        }
        assert_eq!(fitting, Some(1000), "some length fills the limit exactly");
    }
}

#[test]
fn a_record_alone_may_fill_the_limit_and_one_byte_more_is_handed_back() {
    let max_size = 1024 * 1024;
    let mut aggregator = Aggregator::new();
    assert_eq!(aggregator.add("waiting", None, "first").unwrap(), None);
    let before = aggregator.size();

    let too_large = Bytes::from(vec![7; max_size - 2]);
    let error = aggregator.add("key", Some(5), too_large.clone()).unwrap_err();
    assert!(
        matches!(error, AggregationError::TooLarge { size, max_size: max, .. } if (size, max) == (max_size + 1, max_size))
    );
    assert!(!format!("{error:?} {error}").contains("7, 7"), "no data in messages");
    let rejected = error.into_rejected().unwrap();
    assert_eq!((rejected.partition_key.as_ref(), rejected.explicit_hash_key), ("key", Some(5)));
    assert_eq!(rejected.data.as_ptr(), too_large.as_ptr());
    assert_eq!((aggregator.len(), aggregator.size()), (1, before), "the aggregator is as it was");

    let finished = aggregator.add("key", None, too_large.slice(1..)).unwrap().unwrap();
    assert_eq!((finished.partition_key.as_ref(), &finished.data[..]), ("waiting", &b"first"[..]));
    let record = aggregator.finish().unwrap();
    assert_eq!((record.data.len() + record.partition_key.len(), record.is_aggregate), (max_size, false));

    let mut data_only = Aggregator::new().counts_outer_key(false);
    assert_eq!(data_only.add("key", None, vec![7; max_size]).unwrap(), None);
    assert!(data_only.add("key", None, vec![7; max_size + 1]).is_err());
}

#[test]
fn a_framed_lone_record_must_fit_with_its_frame() {
    let mut aggregator = Aggregator::with_max_size(64).unwrap();
    // Frame 20, key table 3, record 1 + 1 + 2 + 2 + data, outer key 1.
    let fits = [&MAGIC[..], &[0; 30]].concat();
    let over = [&MAGIC[..], &[0; 31]].concat();
    assert!(matches!(aggregator.add("k", None, over), Err(AggregationError::TooLarge { size: 65, .. })));
    assert_eq!(aggregator.add("k", None, fits).unwrap(), None);
    assert_eq!(aggregator.finish().unwrap().data.len(), 63);
}

#[test]
fn partition_keys_have_1_to_256_characters() {
    let mut aggregator = Aggregator::new();
    for (key, characters) in [(String::new(), 0), ("ы".repeat(257), 257)] {
        let error = aggregator.add(key.clone(), None, "d").unwrap_err();
        assert!(
            matches!(error, AggregationError::PartitionKeyLength { characters: found, .. } if found == characters)
        );
        assert_eq!(error.into_rejected().unwrap().partition_key, key);
    }
    assert_eq!(aggregator.add("ы".repeat(256), None, "d").unwrap(), None);
    assert_eq!(aggregator.len(), 1);
}

#[test]
fn the_number_of_records_can_be_limited() {
    let mut aggregator = Aggregator::new().max_records(NonZeroUsize::new(3).unwrap());
    let mut counts = Vec::new();
    for i in 0..8 {
        counts.extend(aggregator.add("k", None, format!("{i}")).unwrap().map(|record| record.count));
    }
    counts.extend(aggregator.finish().map(|record| record.count));
    assert_eq!(counts, [3, 3, 2]);

    let mut single = Aggregator::new().max_records(NonZeroUsize::MIN);
    assert_eq!(single.add("k", None, "a").unwrap(), None);
    let record = single.add("k", None, "b").unwrap().unwrap();
    assert_eq!((&record.data[..], record.is_aggregate), (&b"a"[..], false));
}

#[test]
fn maximum_sizes_out_of_bounds_are_refused() {
    for max_size in [0, 63, 10 * 1024 * 1024 + 1, usize::MAX] {
        let error = Aggregator::with_max_size(max_size).unwrap_err();
        assert!(matches!(error, AggregationError::MaxSize { max_size: found, .. } if found == max_size));
        assert!(error.into_rejected().is_none());
    }
    for max_size in [64, 51_200, 10 * 1024 * 1024] {
        assert!(Aggregator::with_max_size(max_size).is_ok());
    }
}

#[test]
fn an_aggregator_starts_anew_after_each_finished_record() {
    let mut aggregator = Aggregator::new();
    for _ in 0..3 {
        assert_eq!(aggregator.add("k", Some(1), "a").unwrap(), None);
        assert_eq!(aggregator.add("l", Some(2), "b").unwrap(), None);
        let record = aggregator.finish().unwrap();
        assert_eq!((record.partition_key.as_ref(), record.explicit_hash_key), ("k", Some(1)));
        assert_eq!(record.data, {
            let tables = message().key("k").key("l").hash_key("1").hash_key("2");
            tables.record(0, Some(0), "a").record(1, Some(1), "b").framed()
        });
        assert!(matches!(Deaggregator::new().deaggregate(&record.data), Deaggregated::Aggregate(_)));
        assert_eq!((aggregator.len(), aggregator.size()), (0, 0));
    }
}
