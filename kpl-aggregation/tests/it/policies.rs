//! What the policies drop, keep and count.

use kpl_aggregation::{
    DamagePolicy, Deaggregator, HashKeyRange, OutOfRangePolicy, PlainReason, RecordFault, UserRecords,
    deaggregate, partition_key_hash,
};

use crate::support::{Message, aggregate, message, plain};

const LOW_HALF: (u128, u128) = (0, u128::MAX / 2);

fn low_half() -> HashKeyRange {
    HashKeyRange::new(LOW_HALF.0, LOW_HALF.1).unwrap()
}

/// Four records with explicit hash keys: inside, outside, inside, outside.
fn mixed() -> Message {
    let outside = (LOW_HALF.1 + 1).to_string();
    let tables = message().key("a").hash_key("0").hash_key(outside);
    (0..4).fold(tables, |message, i| message.record(0, Some(i % 2), format!("r{i}")))
}

fn left(records: UserRecords) -> Vec<u64> {
    records.map(|record| record.sub_sequence_number).collect()
}

fn drops(records: &UserRecords) -> (u64, u64, u64) {
    (records.total(), records.dropped_out_of_range(), records.dropped_damaged())
}

#[test]
fn out_of_range_policies_drop_and_count() {
    let data = mixed().framed();
    for (policy, dropped, kept) in [
        (OutOfRangePolicy::DropAggregate, 4, vec![]),
        (OutOfRangePolicy::DropRecord, 2, vec![0, 2]),
        (OutOfRangePolicy::Keep, 0, vec![0, 1, 2, 3]),
    ] {
        let records = aggregate(deaggregate(&data, Some(&low_half()), policy));
        assert_eq!(drops(&records), (4, dropped, 0), "{policy:?}");
        assert_eq!(left(records), kept, "{policy:?}: sub-sequence numbers stay those of the aggregate");
    }
    for policy in [OutOfRangePolicy::DropAggregate, OutOfRangePolicy::DropRecord] {
        let records = aggregate(deaggregate(&data, None, policy));
        assert_eq!(drops(&records), (4, 0, 0), "no range: the full one");
    }
}

#[test]
fn records_without_explicit_hash_key_are_judged_by_the_digest_of_their_key() {
    let keys: Vec<String> = (0..64).map(|i| format!("key-{i}")).collect();
    let tables = keys.iter().fold(message(), |message, key| message.key(key));
    let data = (0..128).fold(tables, |message, i| message.record(i % 64, None, "r")).framed();
    let records = aggregate(deaggregate(&data, Some(&low_half()), OutOfRangePolicy::DropRecord));
    let expected: Vec<u64> = (0..128)
        .filter(|i| low_half().contains(partition_key_hash(keys[*i as usize % 64].as_bytes())))
        .collect();
    assert!((10..118).contains(&expected.len()), "both halves are present");
    assert_eq!(drops(&records), (128, 128 - expected.len() as u64, 0));
    assert_eq!(left(records), expected);
}

#[test]
fn hash_keys_beyond_the_space_lie_in_no_range_not_even_the_full_one() {
    for text in ["-1", "340282366920938463463374607431768211456"] {
        let data = message().key("a").hash_key(text).record(0, None, "r0").record(0, Some(0), "r1").framed();
        let records = aggregate(deaggregate(&data, None, OutOfRangePolicy::DropRecord));
        assert_eq!((drops(&records), left(records)), ((2, 1, 0), vec![0]), "{text}");
        let records = aggregate(deaggregate(&data, None, OutOfRangePolicy::DropAggregate));
        assert_eq!((drops(&records), left(records)), ((2, 2, 0), vec![]), "{text}");
        let records = aggregate(deaggregate(&data, Some(&low_half()), OutOfRangePolicy::Keep));
        assert_eq!((drops(&records), left(records)), ((2, 0, 0), vec![0, 1]), "{text}");
    }
}

#[test]
fn damage_passes_the_whole_record_through_or_keeps_what_came_before() {
    let data = mixed().record(9, None, "r4").record(0, None, "r5").framed();
    for policy in [OutOfRangePolicy::DropAggregate, OutOfRangePolicy::DropRecord, OutOfRangePolicy::Keep] {
        let reason = plain(deaggregate(&data, Some(&low_half()), policy));
        let PlainReason::DamagedRecord(damage) = reason else { panic!("{reason}") };
        assert_eq!(damage.sub_sequence_number, 4, "{policy:?}");
        assert_eq!(damage.fault, RecordFault::PartitionKeyIndex { index: 9, entries: 1 });
    }
    let prefix = Deaggregator::new().range(low_half()).damage(DamagePolicy::KeepPrefix);
    let records = aggregate(prefix.out_of_range(OutOfRangePolicy::DropRecord).deaggregate(&data));
    assert_eq!((drops(&records), left(records)), ((6, 2, 2), vec![0, 2]));
    let records = aggregate(prefix.out_of_range(OutOfRangePolicy::Keep).deaggregate(&data));
    assert_eq!((drops(&records), left(records)), ((6, 0, 2), vec![0, 1, 2, 3]));
    let records = aggregate(prefix.out_of_range(OutOfRangePolicy::DropAggregate).deaggregate(&data));
    assert_eq!(records.damage(), None, "dropped before the damage was reached, as in the Java KCL");
    assert_eq!((drops(&records), left(records)), ((6, 6, 0), vec![]));
}

#[test]
fn damage_before_the_first_record_outside_comes_first() {
    let data = message().key("a").hash_key("-1").record(0, None, "r0").record(1, None, "r1").record(
        0,
        Some(0),
        "r2",
    );
    let prefix = Deaggregator::new().damage(DamagePolicy::KeepPrefix);
    let records = aggregate(prefix.out_of_range(OutOfRangePolicy::DropAggregate).deaggregate(&data.framed()));
    assert_eq!(records.damage().map(|damage| damage.sub_sequence_number), Some(1));
    assert_eq!((drops(&records), left(records)), ((3, 0, 2), vec![0]));
}

#[test]
fn a_table_entry_that_no_record_uses_harms_nothing() {
    let data = message().key("a").hash_key("abc").hash_key("-1").record(0, None, "r").framed();
    let records = aggregate(deaggregate(&data, None, OutOfRangePolicy::DropAggregate));
    assert_eq!((drops(&records), left(records)), ((1, 0, 0), vec![0]));
}

#[test]
fn reading_resumes_after_any_sub_sequence_number() {
    let data = mixed().framed();
    for (policy, all) in
        [(OutOfRangePolicy::Keep, vec![0, 1, 2, 3]), (OutOfRangePolicy::DropRecord, vec![0, 2])]
    {
        for after in [0, 1, 2, 3, 4, u64::MAX] {
            let mut records = aggregate(deaggregate(&data, Some(&low_half()), policy));
            let skipped = records.skip_through(after);
            let expected: Vec<u64> = all.iter().copied().filter(|sub| *sub > after).collect();
            assert_eq!(skipped, all.len() - expected.len());
            assert_eq!(records.len(), expected.len());
            assert_eq!(left(records), expected, "{policy:?} after {after}");
        }
    }
}
