use std::time::Duration;

use kcl_local::kinesis::{IteratorStart, KinesisOptions, NewRecord, SequenceNumber};

use crate::support::{HALF, STREAM, World, code, id, records_after, texts};

#[test]
fn each_kind_of_iterator_starts_where_it_says() {
    let world = World::with_shards(1);
    let started = world.now();
    let a = world.put("a");
    world.put("b");
    let b_at = started + Duration::from_millis(1);
    world.put("c");

    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), ["a", "b", "c"]);
    assert_eq!(world.texts_from(0, IteratorStart::AtSequenceNumber(a.sequence_number)), ["a", "b", "c"]);
    assert_eq!(world.texts_from(0, IteratorStart::AfterSequenceNumber(a.sequence_number)), ["b", "c"]);
    assert_eq!(
        world.texts_from(0, IteratorStart::AtTimestamp(started - Duration::from_secs(60))),
        ["a", "b", "c"]
    );
    assert_eq!(world.texts_from(0, IteratorStart::AtTimestamp(b_at)), ["b", "c"]);
    assert_eq!(world.texts_from(0, IteratorStart::AtTimestamp(world.now())), [""; 0]);

    let latest = world.iterator(0, IteratorStart::Latest);
    world.put("d");
    assert_eq!(texts(&world.read(&latest)), ["d"]);
}

#[test]
fn an_iterator_at_a_time_without_records_waits_for_the_next_record() {
    let world = World::with_shards(1);
    world.put("before");
    let iterator = world.iterator(0, IteratorStart::AtTimestamp(world.now()));
    world.put("after");
    assert_eq!(texts(&world.read(&iterator)), ["after"]);
}

#[test]
fn a_start_in_the_future_is_refused() {
    let world = World::with_shards(1);
    let future = IteratorStart::AtTimestamp(world.now() + Duration::from_millis(2));
    assert_eq!(code(world.get_shard_iterator(STREAM, &id(0), &future)), "InvalidArgumentException");
}

#[test]
fn only_numbers_the_shard_has_given_out_are_taken() {
    let world = World::with_shards(2);
    let placed = world.put("a");
    let (own, other) = if *placed.shard_id == *id(0) { (0, 1) } else { (1, 0) };
    let number = placed.sequence_number;
    let refused = |shard: u32, number: SequenceNumber| {
        for start in [IteratorStart::AtSequenceNumber(number), IteratorStart::AfterSequenceNumber(number)] {
            let answer = world.get_shard_iterator(STREAM, &id(shard), &start);
            assert_eq!(code(answer), "InvalidArgumentException", "{start:?}");
        }
    };
    refused(other, number);
    refused(own, records_after(number, 1));
    refused(own, SequenceNumber::from_limbs([0, 0, 7]));
    refused(own, "49544985256907370027570885864065577703022652638596431874".parse().unwrap());

    let start = world.describe(own).starting_sequence_number;
    assert_eq!(world.texts_from(own, IteratorStart::AtSequenceNumber(start)), ["a"]);
    assert_eq!(world.texts_from(own, IteratorStart::AfterSequenceNumber(start)), ["a"]);
    assert_eq!(
        code(world.get_shard_iterator(STREAM, &id(2), &IteratorStart::Latest)),
        "ResourceNotFoundException"
    );
    assert_eq!(
        code(world.get_shard_iterator(STREAM, "shard", &IteratorStart::Latest)),
        "ResourceNotFoundException"
    );
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    let world = World::with_shards(1);
    let put: Vec<_> = (0..25).map(|number| world.put(&number.to_string()).sequence_number).collect();
    let mut iterator = world.iterator(0, IteratorStart::TrimHorizon);
    let mut read = Vec::new();
    for _ in 0..4 {
        let page = world.get_records(&iterator, Some(7)).unwrap();
        read.extend(page.records.iter().map(|record| record.sequence_number));
        iterator = page.next_iterator.unwrap();
    }
    assert_eq!(read, put);
    assert!(read.is_sorted());
    let tip = world.read(&iterator);
    assert!(tip.records.is_empty());
    world.put("later");
    assert_eq!(texts(&world.read(&tip.next_iterator.unwrap())), ["later"]);
}

#[test]
fn an_iterator_can_be_read_twice() {
    let world = World::with_shards(1);
    world.put("a");
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    assert_eq!(world.read(&iterator).records, world.read(&iterator).records);
}

#[test]
fn an_iterator_expires_after_five_minutes_and_each_page_gives_a_fresh_one() {
    let world = World::with_shards(1);
    let first = world.iterator(0, IteratorStart::TrimHorizon);
    world.advance(Duration::from_mins(5));
    let second = world.read(&first).next_iterator.unwrap();
    world.advance(Duration::from_millis(1));
    assert_eq!(code(world.get_records(&first, None)), "ExpiredIteratorException");
    world.advance(Duration::from_millis(299_999));
    world.read(&second);
}

#[test]
fn iterators_can_be_made_to_expire_at_once() {
    let world = World::with_shards(1);
    world.create_stream("other", 1).unwrap();
    let elsewhere = world.get_shard_iterator("other", &id(0), &IteratorStart::Latest).unwrap();
    let old = world.iterator(0, IteratorStart::TrimHorizon);
    world.expire_iterators(STREAM).unwrap();
    assert_eq!(code(world.get_records(&old, None)), "ExpiredIteratorException");
    world.read(&world.iterator(0, IteratorStart::TrimHorizon));
    world.read(&elsewhere);
}

#[test]
fn junk_is_no_iterator() {
    let world = World::with_shards(1);
    let iterator = world.iterator(0, IteratorStart::Latest);
    for junk in ["", "AAAAAAAAAAF", &iterator[1..], &iterator.replace('0', "1")] {
        assert_eq!(code(world.get_records(junk, None)), "InvalidArgumentException");
    }
    assert_eq!(code(world.get_records(&iterator, Some(0))), "ValidationException");
    assert_eq!(code(world.get_records(&iterator, Some(10_001))), "InvalidArgumentException");
}

#[test]
fn an_answer_carries_at_most_ten_thousand_records() {
    let world = World::with_shards(1);
    for _ in 0..21 {
        world.put_records(STREAM, vec![NewRecord::new("key", "x"); 500]).unwrap();
    }
    let page = world.read(&world.iterator(0, IteratorStart::TrimHorizon));
    assert_eq!(page.records.len(), 10_000);
    assert_eq!(world.read(&page.next_iterator.unwrap()).records.len(), 500);
}

#[test]
fn an_answer_carries_at_most_ten_mebibytes_of_data_and_keys() {
    let world = World::with_shards(1);
    let mebibyte = NewRecord::new("key", vec![0; (1 << 20) - 3]);
    for _ in 0..25 {
        world.put_record(STREAM, mebibyte.clone()).unwrap();
    }
    let first = world.read(&world.iterator(0, IteratorStart::TrimHorizon));
    assert_eq!(first.records.len(), 10);
    let second = world.read(&first.next_iterator.unwrap());
    let third = world.read(&second.next_iterator.unwrap());
    assert_eq!((second.records.len(), third.records.len()), (10, 5));
}

#[test]
fn the_largest_record_is_read_alone() {
    let world = World::with_shards(1);
    world.update_max_record_size(STREAM, 10_240).unwrap();
    world.put("small");
    world.put_record(STREAM, NewRecord::new("key", vec![0; (10 << 20) - 3])).unwrap();
    let first = world.read(&world.iterator(0, IteratorStart::TrimHorizon));
    assert_eq!(texts(&first), ["small"]);
    assert_eq!(world.read(&first.next_iterator.unwrap()).records.len(), 1);
}

#[test]
fn lag_is_the_age_of_the_last_record_read_and_zero_at_the_tip() {
    let world = World::with_shards(1);
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    assert_eq!(world.read(&iterator).millis_behind_latest, 0);
    world.put("a");
    world.advance(Duration::from_secs(2));
    world.put("b");
    world.advance(Duration::from_secs(3));
    let first = world.get_records(&iterator, Some(1)).unwrap();
    assert_eq!(first.millis_behind_latest, 5_002);
    let second = world.get_records(&first.next_iterator.unwrap(), Some(1)).unwrap();
    assert_eq!((second.records.len(), second.millis_behind_latest), (1, 0));
}

#[test]
fn lag_is_not_zero_while_a_record_of_the_same_millisecond_is_left() {
    let world = World::with_shards(1);
    world.put_records(STREAM, vec![NewRecord::new("key", "x"); 2]).unwrap();
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    assert_eq!(world.get_records(&iterator, Some(1)).unwrap().millis_behind_latest, 1);
}

#[test]
fn arrival_times_are_kept_to_the_millisecond() {
    let world = World::with_shards(1);
    world.advance(Duration::from_micros(123_456));
    world.put("a");
    let arrival = world.records_of(STREAM, &id(0)).unwrap()[0].arrival;
    assert_eq!(arrival, world.now() - Duration::from_micros(1_456));
}

#[test]
fn the_last_page_of_a_closed_shard_names_the_children_and_no_iterator() {
    let world = World::with_shards(1);
    for text in ["a", "b", "c"] {
        world.put(text);
    }
    world.split(0, HALF);
    let first = world.get_records(&world.iterator(0, IteratorStart::TrimHorizon), Some(2)).unwrap();
    assert!(first.child_shards.is_empty());
    let last = world.get_records(&first.next_iterator.unwrap(), Some(2)).unwrap();
    assert_eq!(texts(&last), ["c"]);
    assert_eq!((&last.next_iterator, last.millis_behind_latest), (&None, 0));
    let children: Vec<_> = last.child_shards.iter().map(|child| child.shard_id.to_string()).collect();
    assert_eq!(children, [id(1), id(2)]);
    assert!(last.child_shards.iter().all(|child| child.parent_shards == [id(0).as_str().into()]));
    assert_eq!(last.child_shards[0].hash_key_range, world.describe(1).hash_key_range);
}

#[test]
fn an_empty_closed_shard_ends_with_its_first_answer_whatever_the_iterator() {
    let world = World::with_shards(2);
    let before = world.iterator(1, IteratorStart::Latest);
    world.merge(0, 1);
    let ending = world.describe(1).ending_sequence_number.unwrap();
    for iterator in [
        before,
        world.iterator(1, IteratorStart::TrimHorizon),
        world.iterator(1, IteratorStart::Latest),
        world.iterator(1, IteratorStart::AtTimestamp(world.now())),
        world.iterator(1, IteratorStart::AtSequenceNumber(ending)),
        world.iterator(1, IteratorStart::AfterSequenceNumber(ending)),
    ] {
        let page = world.read(&iterator);
        assert!(page.records.is_empty() && page.next_iterator.is_none());
        assert_eq!(page.child_shards.len(), 1);
        assert_eq!(page.child_shards[0].parent_shards, [id(0).as_str().into(), id(1).as_str().into()]);
    }
}

#[test]
fn a_reader_at_the_tip_sees_the_end_when_the_shard_is_closed() {
    let world = World::with_shards(1);
    let tip = world.read(&world.iterator(0, IteratorStart::Latest)).next_iterator.unwrap();
    world.put("last");
    world.split(0, HALF);
    let page = world.read(&tip);
    assert_eq!(texts(&page), ["last"]);
    assert!(page.next_iterator.is_none());
}

#[test]
fn time_that_runs_backwards_leaves_arrivals_in_order() {
    use std::sync::{Arc, Mutex};
    use std::time::{SystemTime, UNIX_EPOCH};

    #[derive(Debug)]
    struct Settable(Mutex<SystemTime>);
    impl kcl_local::clock::Clock for Settable {
        fn now(&self) -> SystemTime {
            *self.0.lock().expect("no holder panics")
        }
    }
    let start = UNIX_EPOCH + Duration::from_secs(1_000);
    let clock = Arc::new(Settable(Mutex::new(start)));
    let kinesis =
        kcl_local::kinesis::Kinesis::with_options(Arc::clone(&clock) as _, KinesisOptions::default());
    kinesis.create_stream(STREAM, 1).unwrap();
    let first = kinesis.put_record(STREAM, NewRecord::new("a", "")).unwrap();
    *clock.0.lock().unwrap() = start - Duration::from_secs(10);
    let second = kinesis.put_record(STREAM, NewRecord::new("a", "")).unwrap();
    assert!(second.sequence_number > first.sequence_number);
    let records = kinesis.records_of(STREAM, &id(0)).unwrap();
    assert_eq!(records[1].arrival, records[0].arrival);
}
