use std::time::Duration;

use kcl_local::kinesis::{HashKeyRange, ListShards, NewRecord, ShardFilter, hash_key};

use crate::support::{HALF, STREAM, World, code, id, index};

const SECOND: Duration = Duration::from_secs(1);

/// A stream whose shard 0 is split into 1 and 2 after ten seconds, and these merged into 3 after twenty.
fn with_history() -> World {
    let world = World::with_shards(1);
    world.advance(10 * SECOND);
    world.split(0, HALF);
    world.advance(10 * SECOND);
    world.merge(1, 2);
    world.advance(10 * SECOND);
    world
}

#[test]
fn each_filter_takes_the_documented_shards() {
    let world = with_history();
    let created = world.now() - 30 * SECOND;
    assert_eq!(world.list(ShardFilter::FromTrimHorizon), [0, 1, 2, 3]);
    assert_eq!(world.list(ShardFilter::AtTrimHorizon), [0]);
    assert_eq!(world.list(ShardFilter::AtLatest), [3]);
    assert_eq!(world.list(ShardFilter::AfterShardId(id(1))), [2, 3]);
    for (seconds, at, from) in [
        (0, vec![0], vec![0, 1, 2, 3]),
        (5, vec![0], vec![0, 1, 2, 3]),
        (10, vec![0, 1, 2], vec![0, 1, 2, 3]),
        (15, vec![1, 2], vec![1, 2, 3]),
        (20, vec![1, 2, 3], vec![1, 2, 3]),
        (25, vec![3], vec![3]),
        (30, vec![3], vec![3]),
    ] {
        let time = created + seconds * SECOND;
        assert_eq!(world.list(ShardFilter::AtTimestamp(time)), at, "at {seconds} s");
        assert_eq!(world.list(ShardFilter::FromTimestamp(time)), from, "from {seconds} s");
    }
}

#[test]
fn a_time_before_the_trim_horizon_means_the_trim_horizon() {
    let world = with_history();
    let long_ago = world.now() - Duration::from_hours(1_000);
    assert_eq!(world.list(ShardFilter::AtTimestamp(long_ago)), [0]);
    assert_eq!(world.list(ShardFilter::FromTimestamp(long_ago)), [0, 1, 2, 3]);
    world.advance(Duration::from_hours(24) - 15 * SECOND);
    assert_eq!(world.list(ShardFilter::AtTimestamp(long_ago)), [1, 2], "shard 0 has run out of retention");
    assert_eq!(world.list(ShardFilter::AtTrimHorizon), [1, 2]);
}

#[test]
fn the_oldest_shards_are_told_even_when_all_happens_in_one_millisecond() {
    let world = World::with_shards(1);
    world.split(0, HALF);
    world.split(1, 1 << 100);
    assert_eq!(world.list(ShardFilter::AtTrimHorizon), [0]);
}

#[test]
fn pages_cover_the_list_and_keep_the_filter() {
    let world = World::with_shards(4);
    world.split(1, HALF / 2 + 7);
    let mut first = ListShards::default();
    first.stream = STREAM.into();
    first.filter = Some(ShardFilter::AtLatest);
    first.max_results = Some(2);
    let mut page = world.list_shards(&first).unwrap();
    let mut listed: Vec<_> = page.shards.iter().map(index).collect();
    while let Some(token) = page.next_token {
        let mut next = ListShards::default();
        next.next_token = Some(&token);
        next.max_results = Some(2);
        page = world.list_shards(&next).unwrap();
        assert!(page.shards.len() <= 2);
        listed.extend(page.shards.iter().map(index));
    }
    assert_eq!(listed, [0, 2, 3, 4, 5]);
}

#[test]
fn a_page_holds_a_thousand_shards_at_most() {
    let world = World::with_shards(1_001);
    let mut call = ListShards::default();
    call.stream = STREAM.into();
    call.max_results = Some(10_000);
    assert_eq!(world.list_shards(&call).unwrap().shards.len(), 1_000);
    let after = id(999);
    call.exclusive_start_shard_id = Some(&after);
    let last = world.list_shards(&call).unwrap();
    assert_eq!((last.shards.len(), last.next_token), (1, None));
    call.max_results = Some(10_001);
    assert_eq!(code(world.list_shards(&call)), "ValidationException");
}

#[test]
fn a_token_stands_for_the_stream_and_expires_after_300_seconds() {
    let world = World::with_shards(2);
    let mut call = ListShards::default();
    call.stream = STREAM.into();
    call.max_results = Some(1);
    let token = world.list_shards(&call).unwrap().next_token.unwrap();
    let with_token = || {
        let mut call = ListShards::default();
        call.next_token = Some(&token);
        call
    };
    let mut named = with_token();
    named.stream = STREAM.into();
    assert_eq!(code(world.list_shards(&named)), "InvalidArgumentException");
    let mut started = with_token();
    started.exclusive_start_shard_id = Some("shardId-000000000000");
    assert_eq!(code(world.list_shards(&started)), "InvalidArgumentException");
    let mut created = with_token();
    created.stream_creation = Some(world.now());
    assert_eq!(code(world.list_shards(&created)), "InvalidArgumentException");
    let mut by_arn = with_token();
    by_arn.stream = "arn:aws:kinesis:us-east-1:000000000000:stream/orders".into();
    world.list_shards(&by_arn).unwrap();

    world.advance(Duration::from_secs(300));
    world.list_shards(&with_token()).unwrap();
    world.advance(Duration::from_millis(1));
    assert_eq!(code(world.list_shards(&with_token())), "ExpiredNextTokenException");
    let mut junk = ListShards::default();
    junk.next_token = Some("junk");
    assert_eq!(code(world.list_shards(&junk)), "InvalidArgumentException");
}

#[test]
fn the_creation_time_tells_streams_of_the_same_name_apart() {
    let world = World::with_shards(1);
    let mut call = ListShards::default();
    call.stream = STREAM.into();
    call.stream_creation = Some(world.now());
    world.list_shards(&call).unwrap();
    world.delete_stream(STREAM).unwrap();
    world.advance(SECOND);
    world.create_stream(STREAM, 1).unwrap();
    assert_eq!(code(world.list_shards(&call)), "ResourceNotFoundException");
}

#[test]
fn a_split_divides_the_range_and_names_the_parent() {
    let world = World::with_shards(1);
    let at = HALF + 12_345;
    world.split(0, at);
    let (parent, left, right) = (world.describe(0), world.describe(1), world.describe(2));
    assert_eq!(left.hash_key_range, HashKeyRange { start: 0, end: at - 1 });
    assert_eq!(right.hash_key_range, HashKeyRange { start: at, end: u128::MAX });
    for child in [left, right] {
        assert_eq!(child.parent_shard_id, Some(id(0).as_str().into()));
        assert_eq!(child.adjacent_parent_shard_id, None);
        assert!(child.starting_sequence_number > parent.ending_sequence_number.unwrap());
    }
}

#[test]
fn a_merge_joins_the_ranges_and_names_both_parents() {
    let world = World::with_shards(3);
    world.merge(1, 2);
    let child = world.describe(3);
    assert_eq!(child.parent_shard_id, Some(id(1).as_str().into()));
    assert_eq!(child.adjacent_parent_shard_id, Some(id(2).as_str().into()));
    assert_eq!(child.hash_key_range.start, world.describe(1).hash_key_range.start);
    assert_eq!(child.hash_key_range.end, u128::MAX);
    for parent in [1, 2] {
        assert!(world.describe(parent).ending_sequence_number.unwrap() < child.starting_sequence_number);
    }
}

#[test]
fn reshards_that_make_no_sense_are_refused() {
    let world = World::with_shards(4);
    let split = |shard: &str, at| code(world.split_shard(STREAM, shard, at));
    let merge = |shard: u32, adjacent: u32| code(world.merge_shards(STREAM, &id(shard), &id(adjacent)));
    let HashKeyRange { start, end } = world.describe(1).hash_key_range;
    for at in [0, start, start + 1, end, end + 1] {
        assert_eq!(split(&id(1), at), "InvalidArgumentException", "{at}");
    }
    assert_eq!(split("shardId-000000000009", start + 2), "ResourceNotFoundException");
    assert_eq!(merge(0, 0), "InvalidArgumentException");
    assert_eq!(merge(0, 2), "InvalidArgumentException");
    assert_eq!(merge(1, 0), "InvalidArgumentException", "adjacency is from below");
    assert_eq!(merge(0, 3), "InvalidArgumentException");
    assert_eq!(merge(0, 9), "ResourceNotFoundException");
    world.split(1, start + 2);
    assert_eq!(split(&id(1), start + 2), "InvalidArgumentException");
    assert_eq!(merge(0, 1), "InvalidArgumentException");
    assert_eq!(code(world.update_shard_count(STREAM, 11)), "InvalidArgumentException");
    assert_eq!(code(world.update_shard_count(STREAM, 2)), "InvalidArgumentException");
    assert_eq!(code(world.update_shard_count(STREAM, 0)), "ValidationException");
}

#[test]
fn doubling_the_count_splits_every_shard_in_half() {
    let world = World::with_shards(3);
    let update = world.update_shard_count(STREAM, 6).unwrap();
    assert_eq!((update.current, update.target), (3, 6));
    assert_eq!(world.list(ShardFilter::AtLatest), [3, 4, 5, 6, 7, 8]);
    for child in 3..9 {
        let child = world.describe(child);
        assert_eq!(child.parent_shard_id, Some(id((index(&child) - 3) / 2).as_str().into()));
        assert_eq!(child.adjacent_parent_shard_id, None);
    }
}

#[test]
fn halving_the_count_merges_neighbours() {
    let world = World::with_shards(4);
    world.update_shard_count(STREAM, 2).unwrap();
    assert_eq!(world.list(ShardFilter::AtLatest), [4, 5]);
    assert_eq!(world.describe(4).adjacent_parent_shard_id, Some(id(1).as_str().into()));
    assert_eq!(world.describe(5).parent_shard_id, Some(id(2).as_str().into()));
}

#[test]
fn any_count_is_reached_with_a_whole_lineage() {
    let world = World::with_shards(5);
    for target in [7, 4, 8, 15, 9, 9] {
        world.update_shard_count(STREAM, target).unwrap();
        assert_eq!(world.list(ShardFilter::AtLatest).len(), target as usize);
        for shard in world.shards(STREAM, ShardFilter::AfterShardId(id(4))).unwrap() {
            assert!(shard.parent_shard_id.is_some(), "only the first shards have no parents");
        }
    }
}

/// The numbers are those of moto's tests, which were verified against AWS.
#[test]
fn a_change_of_the_count_makes_as_many_shards_as_the_service_does() {
    for (before, target, total) in [(2, 4, 6), (4, 5, 15), (10, 13, 37), (4, 2, 6), (5, 3, 7)] {
        let world = World::with_shards(before);
        world.update_shard_count(STREAM, target).unwrap();
        assert_eq!(world.list(ShardFilter::FromTrimHorizon).len(), total, "{before} to {target}");
    }
}

#[test]
fn doubling_and_halving_keep_shards_of_equal_size() {
    let world = World::with_shards(3);
    for target in [6, 12, 6, 3] {
        world.update_shard_count(STREAM, target).unwrap();
        let open = world.shards(STREAM, ShardFilter::AtLatest).unwrap();
        let sizes = open.iter().map(|shard| shard.hash_key_range.end - shard.hash_key_range.start);
        let sizes: Vec<_> = sizes.collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 3, "{sizes:?}");
    }
}

#[test]
fn a_record_goes_to_the_shard_that_holds_its_hash_key() {
    let world = World::with_shards(7);
    for number in 0..200 {
        let key = format!("key-{number}");
        let shard = world.put_record(STREAM, NewRecord::new(key.as_str(), "")).unwrap().shard_id;
        let shards = world.shards(STREAM, ShardFilter::AtLatest).unwrap();
        let found = shards.iter().find(|found| found.shard_id == shard).unwrap();
        assert!(found.hash_key_range.contains(hash_key(&key)));
    }
    for explicit in [0, HALF, u128::MAX] {
        let record = NewRecord::new("key", "").with_explicit_hash_key(explicit);
        let shard = world.put_record(STREAM, record).unwrap().shard_id;
        let shards = world.shards(STREAM, ShardFilter::AtLatest).unwrap();
        let found = shards.iter().find(|found| found.shard_id == shard).unwrap();
        assert!(found.hash_key_range.contains(explicit));
    }
}
