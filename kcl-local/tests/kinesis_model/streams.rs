use std::time::Duration;

use kcl_local::kinesis::{
    IteratorStart, KinesisOptions, ListShards, NewRecord, NewStream, ShardFilter, StreamMode, StreamRef,
    StreamStatus,
};

use crate::support::{STREAM, World, code, id};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

fn status(world: &World) -> StreamStatus {
    world.describe_stream_summary(STREAM).expect("the stream is there").status
}

#[test]
fn a_stream_is_active_at_once_and_described_as_it_was_made() {
    let world = World::with_shards(3);
    let summary = world.describe_stream_summary(STREAM).unwrap();
    assert_eq!(summary.status, StreamStatus::Active);
    assert_eq!(summary.mode, StreamMode::Provisioned);
    assert_eq!((summary.arn.as_str(), summary.open_shards, summary.retention_hours), (ARN, 3, 24));
    assert_eq!(summary.created, world.now());
}

#[test]
fn an_on_demand_stream_starts_with_four_shards_and_cannot_be_resharded_by_hand() {
    let world = World::new(KinesisOptions::default());
    world.create_stream_with(NewStream::on_demand(STREAM)).unwrap();
    assert_eq!(world.list(ShardFilter::AtLatest), [0, 1, 2, 3]);
    assert_eq!(code(world.split_shard(STREAM, &id(0), 7)), "ValidationException");
    assert_eq!(code(world.merge_shards(STREAM, &id(0), &id(1))), "ValidationException");
    assert_eq!(code(world.update_shard_count(STREAM, 8)), "ValidationException");
}

#[test]
fn every_operation_takes_the_arn_in_place_of_the_name() {
    let world = World::with_shards(2);
    world.describe_stream_summary(ARN).unwrap();
    world.describe_stream(ARN, None, None).unwrap();
    world.shards(ARN, ShardFilter::AtLatest).unwrap();
    world.put_record(ARN, NewRecord::new("key", "data")).unwrap();
    world.put_records(ARN, vec![NewRecord::new("key", "data")]).unwrap();
    world.get_shard_iterator(ARN, &id(0), &IteratorStart::Latest).unwrap();
    world.split_shard(ARN, &id(0), 1 << 100).unwrap();
    world.merge_shards(ARN, &id(2), &id(3)).unwrap();
    world.update_shard_count(ARN, 4).unwrap();
    world.increase_stream_retention_period(ARN, 25).unwrap();
    world.decrease_stream_retention_period(ARN, 24).unwrap();
    world.update_max_record_size(ARN, 2_048).unwrap();
    world.list_tags_for_stream(ARN, None, None).unwrap();
    assert_eq!(world.total_records(ARN), Ok(2));
    world.delete_stream(ARN).unwrap();
}

#[test]
fn name_and_arn_together_must_mean_the_same_stream() {
    let world = World::with_shards(1);
    world.create_stream("other", 1).unwrap();
    world.describe_stream_summary(StreamRef::new(Some(STREAM), Some(ARN))).unwrap();
    let mixed = StreamRef::new(Some("other"), Some(ARN));
    assert_eq!(code(world.describe_stream_summary(mixed)), "InvalidArgumentException");
    assert_eq!(code(world.describe_stream_summary(StreamRef::new(None, None))), "InvalidArgumentException");
}

#[test]
fn an_arn_of_another_account_or_region_names_no_stream() {
    let world = World::with_shards(1);
    for arn in [
        "arn:aws:kinesis:us-east-1:000000000001:stream/orders",
        "arn:aws:kinesis:eu-west-1:000000000000:stream/orders",
        "arn:aws:kinesis:us-east-1:000000000000:stream/order",
    ] {
        assert_eq!(code(world.describe_stream_summary(arn)), "ResourceNotFoundException", "{arn}");
    }
    for arn in
        ["arn:", "arn:aws:kinesis:us-east-1:0:stream/orders", "arn:aws:sqs:us-east-1:000000000000:orders"]
    {
        assert_eq!(code(world.describe_stream_summary(arn)), "ValidationException", "{arn}");
    }
}

#[test]
fn a_name_is_taken_until_its_stream_is_deleted() {
    let world = World::with_shards(1);
    assert_eq!(code(world.create_stream(STREAM, 1)), "ResourceInUseException");
    world.delete_stream(STREAM).unwrap();
    assert_eq!(code(world.delete_stream(STREAM)), "ResourceNotFoundException");
    world.create_stream(STREAM, 1).unwrap();
}

#[test]
fn iterators_tokens_and_numbers_of_a_deleted_stream_do_not_fit_its_successor() {
    let world = World::with_shards(3);
    let number = world.put("before").sequence_number;
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    let mut call = ListShards::default();
    call.stream = STREAM.into();
    call.max_results = Some(1);
    let token = world.list_shards(&call).unwrap().next_token.unwrap();
    world.delete_stream(STREAM).unwrap();
    world.create_stream(STREAM, 3).unwrap();

    assert_eq!(code(world.get_records(&iterator, None)), "ResourceNotFoundException");
    let mut next = ListShards::default();
    next.next_token = Some(&token);
    assert_eq!(code(world.list_shards(&next)), "ResourceNotFoundException");
    for _ in 0..3 {
        world.put("after");
    }
    for shard in 0..3 {
        let start = IteratorStart::AtSequenceNumber(number);
        let answer = world.get_shard_iterator(STREAM, &id(shard), &start);
        assert_eq!(code(answer), "InvalidArgumentException");
    }
}

#[test]
fn a_stream_takes_no_calls_while_it_is_made() {
    let mut options = KinesisOptions::default();
    options.create_delay = Duration::from_secs(10);
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    assert_eq!(status(&world), StreamStatus::Creating);
    assert!(world.describe_stream(STREAM, None, None).unwrap().shards.is_empty());
    assert_eq!(code(world.put_record(STREAM, NewRecord::new("a", ""))), "ResourceNotFoundException");
    assert_eq!(code(world.shards(STREAM, ShardFilter::AtLatest)), "ResourceInUseException");
    assert_eq!(code(world.update_shard_count(STREAM, 2)), "ResourceInUseException");
    assert_eq!(code(world.delete_stream(STREAM)), "ResourceInUseException");
    assert_eq!(code(world.create_stream(STREAM, 1)), "ResourceInUseException");
    world.advance(Duration::from_secs(10));
    assert_eq!(status(&world), StreamStatus::Active);
    world.put("first");
}

#[test]
fn a_second_change_is_refused_while_the_first_is_under_way() {
    let mut options = KinesisOptions::default();
    options.reshard_delay = Duration::from_secs(30);
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    world.split(0, 1 << 127);
    assert_eq!(status(&world), StreamStatus::Updating);
    assert_eq!(
        world.list(ShardFilter::FromTrimHorizon),
        [0],
        "the old shard stays open until the change is done"
    );
    assert_eq!(code(world.split_shard(STREAM, &id(0), 1 << 126)), "ResourceInUseException");
    assert_eq!(code(world.update_shard_count(STREAM, 2)), "ResourceInUseException");
    assert_eq!(code(world.increase_stream_retention_period(STREAM, 48)), "ResourceInUseException");
    assert_eq!(&*world.put("still to the parent").shard_id, id(0));
    world.advance(Duration::from_secs(30));
    assert_eq!(status(&world), StreamStatus::Active);
    assert_eq!(world.list(ShardFilter::AtLatest), [1, 2]);
    assert_ne!(&*world.put("to a child").shard_id, id(0));
}

#[test]
fn a_change_takes_effect_when_it_is_due_and_not_when_it_is_first_noticed() {
    let mut options = KinesisOptions::default();
    options.reshard_delay = Duration::from_secs(30);
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    world.split(0, 1 << 127);
    world.advance(Duration::from_secs(60));
    let due = world.now() - Duration::from_secs(30);
    assert_eq!(world.list(ShardFilter::AtTimestamp(due - Duration::from_millis(1))), [0]);
    assert_eq!(world.list(ShardFilter::AtTimestamp(due + Duration::from_millis(1))), [1, 2]);
}

#[test]
fn a_stream_that_is_being_deleted_is_described_but_gone_for_readers_and_writers() {
    let mut options = KinesisOptions::default();
    options.delete_delay = Duration::from_secs(5);
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    world.delete_stream(STREAM).unwrap();
    assert_eq!(status(&world), StreamStatus::Deleting);
    assert_eq!(code(world.put_record(STREAM, NewRecord::new("a", ""))), "ResourceNotFoundException");
    assert_eq!(code(world.get_records(&iterator, None)), "ResourceNotFoundException");
    assert_eq!(code(world.create_stream(STREAM, 1)), "ResourceInUseException");
    world.advance(Duration::from_secs(5));
    assert_eq!(code(world.describe_stream_summary(STREAM)), "ResourceNotFoundException");
    world.create_stream(STREAM, 1).unwrap();
}

#[test]
fn descriptions_and_stream_lists_come_in_pages_of_a_hundred() {
    let world = World::with_shards(230);
    let first = world.describe_stream(STREAM, Some(10_000), None).unwrap();
    assert_eq!((first.shards.len(), first.has_more_shards), (100, true));
    let last = world.describe_stream(STREAM, None, Some(&id(199))).unwrap();
    assert_eq!((last.shards.len(), last.has_more_shards), (30, false));
    assert_eq!(&*last.shards[0].shard_id, id(200));

    for number in 0..120 {
        world.create_stream(&format!("stream-{number:03}"), 1).unwrap();
    }
    let first = world.list_streams(None, None, None).unwrap();
    assert_eq!((first.streams.len(), first.streams[0].name.as_str()), (100, STREAM));
    let rest = world.list_streams(None, None, first.next_token.as_deref()).unwrap();
    assert_eq!((rest.streams.len(), rest.next_token), (21, None));
    let after = world.list_streams(None, Some("stream-117"), None).unwrap();
    assert_eq!(
        after.streams.iter().map(|stream| &*stream.name).collect::<Vec<_>>(),
        ["stream-118", "stream-119"]
    );
    world.advance(Duration::from_millis(300_001));
    assert_eq!(
        code(world.list_streams(None, None, first.next_token.as_deref())),
        "ExpiredNextTokenException"
    );
    assert_eq!(code(world.list_streams(None, None, Some("junk"))), "InvalidArgumentException");
}

#[test]
fn records_up_to_the_streams_maximum_are_taken_and_larger_ones_refused() {
    let world = World::with_shards(1);
    let sized = |bytes: usize| NewRecord::new("key", vec![b'x'; bytes - 3]);
    world.put_record(STREAM, sized(1 << 20)).unwrap();
    assert_eq!(code(world.put_record(STREAM, sized((1 << 20) + 1))), "InvalidArgumentException");
    world.update_max_record_size(STREAM, 10_240).unwrap();
    world.put_record(STREAM, sized(10 << 20)).unwrap();
    assert_eq!(code(world.put_record(STREAM, sized((10 << 20) + 1))), "InvalidArgumentException");
    assert_eq!(code(world.put_record(STREAM, sized((10 << 20) + 4))), "ValidationException");
    assert_eq!(code(world.update_max_record_size(STREAM, 1_023)), "ValidationException");
    assert_eq!(code(world.update_max_record_size(STREAM, 10_241)), "ValidationException");
}

#[test]
fn a_batch_out_of_bounds_puts_nothing() {
    let world = World::with_shards(1);
    let sized = |bytes: usize| NewRecord::new("key", vec![b'x'; bytes - 3]);
    assert_eq!(code(world.put_records(STREAM, vec![])), "ValidationException");
    assert_eq!(code(world.put_records(STREAM, vec![sized(3); 501])), "ValidationException");
    assert_eq!(
        code(world.put_records(STREAM, vec![sized(3), NewRecord::new("", "")])),
        "ValidationException"
    );
    assert_eq!(code(world.put_records(STREAM, vec![sized(3), sized(1 << 21)])), "InvalidArgumentException");
    let mut over = vec![sized(1 << 20); 10];
    over.push(sized(3));
    assert_eq!(code(world.put_records(STREAM, over)), "InvalidArgumentException");
    assert_eq!(world.total_records(STREAM), Ok(0));
    assert!(world.put_records(STREAM, vec![sized(1 << 20); 10]).unwrap().iter().all(Result::is_ok));
    assert_eq!(world.total_records(STREAM), Ok(10));
}
