//! Laws that hold for any input.

use bytes::Bytes;
use kpl_aggregation::{
    AggregatedRecord, Aggregator, DamagePolicy, Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy,
    PlainReason,
};
use proptest::{collection::vec, option, prelude::*, sample::Index};

use crate::{
    fuzz::entry,
    support::{MAGIC, aggregate, framed},
};

type Offered = (String, Option<u128>, Bytes);

fn offered() -> impl Strategy<Value = Offered> {
    let key = prop_oneof![3 => "[a-e]", 1 => "\\PC{1,60}"];
    let hash_key = option::of(prop_oneof![0..20_u128, any::<u128>()]);
    let data = prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        2 => vec(any::<u8>(), 0..400),
        1 => vec(any::<u8>(), 0..30).prop_map(|tail| [&MAGIC[..], &tail].concat()),
    ];
    (key, hash_key, data.prop_map(Bytes::from))
}

/// What a reader of the stream gets from one record.
fn read(record: &AggregatedRecord) -> Vec<Offered> {
    match Deaggregator::new().deaggregate(&record.data) {
        Deaggregated::Plain(reason) => {
            assert!(!record.is_aggregate, "{reason}");
            vec![(record.partition_key.to_string(), record.explicit_hash_key, record.data.clone())]
        }
        Deaggregated::Aggregate(records) => {
            assert!(record.is_aggregate);
            let hash_key = |text: bytestring::ByteString| text.parse().unwrap();
            records
                .map(|r| (r.partition_key.to_string(), r.explicit_hash_key.map(hash_key), r.data))
                .collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_put_is_read_and_sizes_are_exact(
        records in vec(offered(), 0..60),
        max_size in 64..6000_usize,
        counts_outer_key: bool,
        max_records in 1..40_usize,
    ) {
        let mut aggregator = Aggregator::with_max_size(max_size)
            .unwrap()
            .counts_outer_key(counts_outer_key)
            .max_records(max_records.try_into().unwrap());
        let mut sent = Vec::new();
        let mut taken = Vec::new();
        for (key, hash_key, data) in records {
            let before = (aggregator.len(), aggregator.size());
            let predicted = aggregator.size_after(&key, hash_key, &data);
            match aggregator.add(key.clone(), hash_key, data.clone()) {
                Ok(finished) => {
                    match &finished {
                        None => prop_assert_eq!(aggregator.size(), predicted),
                        Some(record) => prop_assert_eq!((record.count, record.data.len()), before),
                    }
                    sent.extend(finished);
                    taken.push((key, hash_key, data));
                }
                Err(error) => {
                    prop_assert_eq!((aggregator.len(), aggregator.size()), before);
                    let rejected = error.into_rejected().unwrap();
                    prop_assert_eq!(rejected.partition_key, key.as_str());
                    prop_assert_eq!((rejected.explicit_hash_key, rejected.data), (hash_key, data.clone()));
                    let outer = if counts_outer_key { key.len() } else { 0 };
                    prop_assert!(data.starts_with(&MAGIC) || data.len() + outer > max_size);
                }
            }
        }
        let last = (aggregator.len(), aggregator.size());
        let finished = aggregator.finish();
        prop_assert_eq!(finished.as_ref().map_or((0, 0), |r| (r.count, r.data.len())), last);
        sent.extend(finished);

        for record in &sent {
            let outer = if counts_outer_key { record.partition_key.len() } else { 0 };
            prop_assert!(record.data.len() + outer <= max_size);
            prop_assert!((1..=max_records).contains(&record.count));
            let first = read(record).swap_remove(0);
            prop_assert_eq!(&*record.partition_key, first.0.as_str());
            prop_assert_eq!(record.explicit_hash_key, first.1);
        }
        let read: Vec<Offered> = sent.iter().flat_map(read).collect();
        prop_assert_eq!(read, taken);
    }

    #[test]
    fn bytes_without_the_magic_are_plain(bytes in vec(any::<u8>(), 0..300)) {
        prop_assume!(!bytes.starts_with(&MAGIC));
        let outcome = Deaggregator::new().deaggregate(&bytes.into());
        prop_assert!(matches!(outcome, Deaggregated::Plain(PlainReason::NoMagic)));
    }

    #[test]
    fn any_bytes_and_any_message_are_read_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        entry::deaggregate(&bytes);
        entry::round_trip(&bytes);
    }

    #[test]
    fn damaged_aggregates_are_read_without_panic(
        records in vec(offered(), 2..10),
        changes in vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut aggregator = Aggregator::new();
        for (key, hash_key, data) in records {
            prop_assert_eq!(aggregator.add(key, hash_key, data).unwrap(), None);
        }
        let data = aggregator.finish().unwrap().data;
        let mut body = data[4..data.len() - 16].to_vec();
        for (place, byte, change) in changes {
            let place = place.index(body.len());
            match change {
                0 => body[place] = byte,
                1 => body.insert(place, byte),
                _ => drop(body.split_off(place.max(1))),
            }
        }
        // As it would arrive: with the digest of before. And as a producer at fault would send it: with its own.
        let arrived = [&MAGIC[..], &body, &data[data.len() - 16..]].concat();
        if arrived != data {
            let outcome = Deaggregator::new().deaggregate(&arrived.into());
            prop_assert!(matches!(outcome, Deaggregated::Plain(PlainReason::DigestMismatch)));
        }
        entry::deaggregate(&body);
    }

    #[test]
    fn every_record_of_an_aggregate_is_kept_or_counted(
        records in vec(offered(), 2..40),
        bounds: (u128, u128),
        drops_aggregate: bool,
    ) {
        let mut aggregator = Aggregator::new();
        for (key, hash_key, data) in &records {
            prop_assert_eq!(aggregator.add(key.clone(), *hash_key, data.clone()).unwrap(), None);
        }
        let data = aggregator.finish().unwrap().data;
        let range = HashKeyRange::new(bounds.0.min(bounds.1), bounds.0.max(bounds.1)).unwrap();
        let is_inside = |(key, hash_key, _): &Offered| {
            range.contains(hash_key.unwrap_or_else(|| kpl_aggregation::partition_key_hash(key.as_bytes())))
        };
        let inside: Vec<u64> = records.iter().zip(0..).filter(|(r, _)| is_inside(r)).map(|(_, sub)| sub).collect();
        let policy = if drops_aggregate { OutOfRangePolicy::DropAggregate } else { OutOfRangePolicy::DropRecord };
        let expected = if drops_aggregate && inside.len() < records.len() { Vec::new() } else { inside };
        for damage in [DamagePolicy::PassThrough, DamagePolicy::KeepPrefix] {
            let settings = Deaggregator::new().range(range).out_of_range(policy).damage(damage);
            let found = aggregate(settings.deaggregate(&data));
            prop_assert_eq!(found.total(), records.len() as u64);
            prop_assert_eq!(found.dropped_out_of_range(), (records.len() - expected.len()) as u64);
            prop_assert_eq!(found.dropped_damaged(), 0);
            prop_assert_eq!(&found.map(|r| r.sub_sequence_number).collect::<Vec<_>>(), &expected);
        }
    }

    #[test]
    fn a_frame_around_anything_is_never_taken_for_ordinary_data(body in vec(any::<u8>(), 0..60)) {
        let outcome = Deaggregator::new().deaggregate(&framed(&body));
        prop_assert!(!matches!(outcome, Deaggregated::Plain(PlainReason::NoMagic | PlainReason::DigestMismatch)));
    }
}
