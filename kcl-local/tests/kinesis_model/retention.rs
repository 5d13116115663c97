use std::time::Duration;

use kcl_local::kinesis::{IteratorStart, ShardFilter};

use crate::support::{HALF, STREAM, World, code, id, texts};

const DAY: Duration = Duration::from_hours(24);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn records_are_gone_when_their_retention_has_passed() {
    let world = World::with_shards(1);
    world.put("old");
    world.advance(Duration::from_hours(1));
    world.put("new");
    world.advance(Duration::from_hours(23) - Duration::from_millis(3));
    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), ["old", "new"]);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), ["new"]);
    assert_eq!(world.total_records(STREAM), Ok(2), "the count is of all records ever put");
}

#[test]
fn an_iterator_at_a_trimmed_record_starts_at_the_trim_horizon() {
    let world = World::with_shards(1);
    let old = world.put("old").sequence_number;
    world.put("older than the next");
    world.advance(Duration::from_hours(1));
    world.put("new");
    let taken_before = world.iterator(0, IteratorStart::TrimHorizon);
    world.set_retention(STREAM, Duration::from_mins(30)).unwrap();
    assert_eq!(world.texts_from(0, IteratorStart::AtSequenceNumber(old)), ["new"]);
    assert_eq!(world.texts_from(0, IteratorStart::AfterSequenceNumber(old)), ["new"]);
    assert_eq!(texts(&world.read(&taken_before)), ["new"]);
}

#[test]
fn numbers_go_on_after_everything_was_trimmed() {
    let world = World::with_shards(1);
    let old = world.put("old").sequence_number;
    world.advance(2 * DAY);
    let new = world.put("new").sequence_number;
    assert!(new > old);
    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), ["new"]);
}

#[test]
fn a_closed_shard_stays_readable_until_retention_has_passed_since_it_closed() {
    let world = World::with_shards(1);
    world.put("in the parent");
    world.advance(12 * Duration::from_hours(1));
    world.split(0, HALF);
    world.advance(DAY - SECOND);
    assert_eq!(world.list(ShardFilter::FromTrimHorizon), [0, 1, 2]);
    let iterator = world.iterator(0, IteratorStart::TrimHorizon);
    let page = world.read(&iterator);
    assert!(page.records.is_empty(), "its record has run out before it");
    assert_eq!(page.child_shards.len(), 2);

    world.advance(SECOND);
    assert_eq!(world.list(ShardFilter::FromTrimHorizon), [1, 2]);
    assert_eq!(world.list(ShardFilter::AtTrimHorizon), [1, 2]);
    assert_eq!(code(world.get_records(&iterator, None)), "ResourceNotFoundException");
    let answer = world.get_shard_iterator(STREAM, &id(0), &IteratorStart::TrimHorizon);
    assert_eq!(code(answer), "ResourceNotFoundException");
    assert_eq!(code(world.split_shard(STREAM, &id(0), HALF)), "ResourceNotFoundException");
    assert_eq!(world.describe_stream(STREAM, None, None).unwrap().shards.len(), 2);
    assert_eq!(world.total_records(STREAM), Ok(1));
    let child = world.describe(1);
    assert_eq!(child.parent_shard_id, Some(id(0).as_str().into()), "a child names its parent for ever");
}

#[test]
fn longer_retention_does_not_bring_back_what_is_gone() {
    let world = World::with_shards(1);
    world.put("gone");
    world.advance(DAY);
    world.increase_stream_retention_period(STREAM, 48).unwrap();
    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), [""; 0]);
    world.set_retention(STREAM, Duration::ZERO).unwrap();
    world.set_retention(STREAM, DAY).unwrap();
    world.put("kept");
    world.advance(DAY - SECOND);
    assert_eq!(world.texts_from(0, IteratorStart::TrimHorizon), ["kept"]);
}

#[test]
fn retention_is_changed_only_in_the_direction_asked_and_within_bounds() {
    let world = World::with_shards(1);
    let hours = || world.describe_stream_summary(STREAM).unwrap().retention_hours;
    world.increase_stream_retention_period(STREAM, 8_760).unwrap();
    assert_eq!(hours(), 8_760);
    assert_eq!(code(world.increase_stream_retention_period(STREAM, 8_761)), "InvalidArgumentException");
    assert_eq!(code(world.increase_stream_retention_period(STREAM, 100)), "InvalidArgumentException");
    world.decrease_stream_retention_period(STREAM, 24).unwrap();
    assert_eq!(hours(), 24);
    assert_eq!(code(world.decrease_stream_retention_period(STREAM, 25)), "InvalidArgumentException");
    assert_eq!(code(world.decrease_stream_retention_period(STREAM, 23)), "InvalidArgumentException");
}
