use std::time::Duration;

use kcl_local::kinesis::{IteratorStart, KinesisOptions, Limits, ListShards, NewRecord, ShardFilter};

use crate::support::{HALF, STREAM, World, code, id};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// A service with AWS's limits whose allowances are all full.
fn limited(shards: u32) -> World {
    let mut options = KinesisOptions::default();
    options.limits = Limits::aws();
    let world = World::new(options);
    world.create_stream(STREAM, shards).expect("the name is free");
    world.advance(Duration::from_mins(1));
    world
}

#[test]
fn nothing_is_limited_by_default() {
    let world = World::with_shards(1);
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    for _ in 0..5_000 {
        world.put_record(STREAM, NewRecord::new("key", vec![0; 1_000])).unwrap();
        world.describe_stream_summary(STREAM).unwrap();
        world.get_records(&iterator, Some(1)).unwrap();
    }
}

#[test]
fn a_shard_answers_five_reads_per_second() {
    let world = limited(2);
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    for _ in 0..5 {
        world.read(&iterator);
    }
    assert_eq!(code(world.get_records(&iterator, None)), THROTTLED);
    let other = world.iterator(1, IteratorStart::TrimHorizon);
    world.read(&other);
    world.advance(Duration::from_millis(200));
    world.read(&iterator);
    assert_eq!(code(world.get_records(&iterator, None)), THROTTLED);
}

#[test]
fn an_answer_of_ten_mebibytes_blocks_its_shard_for_five_seconds() {
    let world = limited(1);
    world.configure(|options| options.limits.write_bytes = None);
    for _ in 0..30 {
        world.put_record(STREAM, NewRecord::new("key", vec![0; (1 << 20) - 3])).unwrap();
    }
    let page = world.read(&world.iterator(0, IteratorStart::TrimHorizon));
    assert_eq!(page.records.len(), 10);
    let next = page.next_iterator.unwrap();
    world.advance(Duration::from_millis(4_999));
    assert_eq!(code(world.get_records(&next, None)), THROTTLED);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.read(&next).records.len(), 10);
}

#[test]
fn reads_within_two_mebibytes_per_second_are_not_blocked() {
    let world = limited(1);
    world.configure(|options| options.limits.write_bytes = None);
    for _ in 0..40 {
        world.put_record(STREAM, NewRecord::new("key", vec![0; (1 << 18) - 3])).unwrap();
    }
    let mut iterator = world.iterator(0, IteratorStart::TrimHorizon);
    for _ in 0..20 {
        let page = world.get_records(&iterator, Some(2)).unwrap();
        assert_eq!(page.records.len(), 2);
        iterator = page.next_iterator.unwrap();
        world.advance(Duration::from_millis(250));
    }
}

#[test]
fn a_shard_takes_a_thousand_records_per_second_and_a_batch_fails_in_part() {
    let world = limited(2);
    let record = NewRecord::new("key", "x").with_explicit_hash_key(0);
    let elsewhere = NewRecord::new("key", "x").with_explicit_hash_key(u128::MAX);
    for _ in 0..999 {
        world.put_record(STREAM, record.clone()).unwrap();
    }
    let batch = vec![record.clone(), record.clone(), elsewhere, record.clone()];
    let answers = world.put_records(STREAM, batch).unwrap();
    let placed: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(placed, [true, false, true, false]);
    assert_eq!(answers[1].as_ref().unwrap_err().code, THROTTLED);
    assert_eq!(code(world.put_record(STREAM, record.clone())), THROTTLED);
    assert_eq!(world.total_records(STREAM), Ok(1_001));
    world.advance(Duration::from_millis(1));
    world.put_record(STREAM, record).unwrap();
}

#[test]
fn a_shard_takes_a_mebibyte_per_second() {
    let world = limited(1);
    let half = NewRecord::new("key", vec![0; (1 << 19) - 3]);
    world.put_record(STREAM, half.clone()).unwrap();
    world.put_record(STREAM, half.clone()).unwrap();
    assert_eq!(code(world.put_record(STREAM, half.clone())), THROTTLED);
    world.advance(Duration::from_millis(500));
    world.put_record(STREAM, half.clone()).unwrap();
    assert_eq!(code(world.put_record(STREAM, half)), THROTTLED);
}

#[test]
fn a_record_larger_than_a_second_of_writes_passes_when_the_shard_was_idle() {
    let world = limited(1);
    world.update_max_record_size(STREAM, 10_240).unwrap();
    let large = NewRecord::new("key", vec![0; 3 << 20]);
    world.put_record(STREAM, large.clone()).unwrap();
    assert_eq!(code(world.put_record(STREAM, NewRecord::new("key", "x"))), THROTTLED);
    world.advance(Duration::from_secs(4));
    world.put_record(STREAM, large).unwrap();
}

#[test]
fn descriptions_lists_and_iterators_are_limited() {
    let world = limited(1);
    for _ in 0..20 {
        world.describe_stream_summary(STREAM).unwrap();
    }
    assert_eq!(code(world.describe_stream_summary(STREAM)), "LimitExceededException");
    for _ in 0..10 {
        world.describe_stream(STREAM, None, None).unwrap();
    }
    assert_eq!(code(world.describe_stream(STREAM, None, None)), "LimitExceededException");
    let mut call = ListShards::default();
    call.stream = STREAM.into();
    for _ in 0..1_000 {
        world.list_shards(&call).unwrap();
    }
    assert_eq!(code(world.list_shards(&call)), "LimitExceededException");
    for _ in 0..5 {
        world.iterator(0, IteratorStart::Latest);
    }
    assert_eq!(code(world.get_shard_iterator(STREAM, &id(0), &IteratorStart::Latest)), THROTTLED);
    world.advance(Duration::from_secs(1));
    world.describe_stream_summary(STREAM).unwrap();
    world.describe_stream(STREAM, None, None).unwrap();
    world.shards(STREAM, ShardFilter::AtLatest).unwrap();
    world.iterator(0, IteratorStart::Latest);
}

#[test]
fn open_shards_are_limited_per_account() {
    let mut options = KinesisOptions::default();
    options.limits.open_shards = Some(4);
    let world = World::new(options);
    world.create_stream(STREAM, 3).unwrap();
    assert_eq!(code(world.create_stream("other", 2)), "LimitExceededException");
    world.split(0, 1 << 100);
    assert_eq!(code(world.split_shard(STREAM, &id(1), HALF)), "LimitExceededException");
    assert_eq!(code(world.update_shard_count(STREAM, 5)), "LimitExceededException");
    world.merge(3, 4);
    world.create_stream("other", 1).unwrap();
    let limits = world.describe_limits();
    assert_eq!((limits.open_shards, limits.shard_limit), (4, 4));
}

#[test]
fn limits_can_be_lifted_while_the_service_runs() {
    let world = limited(1);
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    while world.get_records(&iterator, None).is_ok() {}
    world.configure(|options| options.limits = Limits::default());
    world.read(&iterator);
}
