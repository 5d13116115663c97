//! Invariants of the shards over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kcl_local::kinesis::{
    HashKeyRange, IteratorStart, NewRecord, SequenceNumber, ShardDescription, ShardFilter,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::proptest;

use crate::support::{STREAM, World};

#[derive(Clone, Debug)]
enum Step {
    /// Splits the open shard of this index (modulo their number) at this part of its range.
    Split(u8, u8),
    /// Merges this open shard with its right neighbour.
    Merge(u8),
    Scale(u8),
    Put(u8),
    Advance(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u8>(), 1..255_u8).prop_map(|(shard, at)| Step::Split(shard, at)),
        3 => any::<u8>().prop_map(Step::Merge),
        1 => (1..12_u8).prop_map(Step::Scale),
        4 => any::<u8>().prop_map(Step::Put),
        2 => prop_oneof![Just(0), 1..1_500_u16].prop_map(Step::Advance),
    ]
}

fn open(world: &World) -> Vec<ShardDescription> {
    let mut open = world.shards(STREAM, ShardFilter::AtLatest).expect("the stream is there");
    open.sort_by_key(|shard| shard.hash_key_range);
    open
}

fn take(world: &World, step: &Step, put: &mut Vec<SequenceNumber>) {
    let open = open(world);
    match *step {
        Step::Split(shard, at) => {
            let shard = &open[usize::from(shard) % open.len()];
            let HashKeyRange { start, end } = shard.hash_key_range;
            let at = start + (end - start) / 256 * u128::from(at);
            // A range may have become too small to be split.
            let _ = world.split_shard(STREAM, &shard.shard_id, at);
        }
        Step::Merge(shard) => {
            let Some([left, right]) = open.windows(2).nth(usize::from(shard) % open.len()) else { return };
            world.merge_shards(STREAM, &left.shard_id, &right.shard_id).expect("neighbours can be merged");
        }
        Step::Scale(target) => {
            let within = open.len().div_ceil(2)..=open.len() * 2;
            let answer = world.update_shard_count(STREAM, target.into());
            assert_eq!(answer.is_ok(), within.contains(&usize::from(target)));
        }
        Step::Put(key) => {
            let record = NewRecord::new(format!("key-{key}"), "x");
            put.push(world.put_record(STREAM, record).expect("the stream takes records").sequence_number);
        }
        Step::Advance(millis) => world.advance(Duration::from_millis(millis.into())),
    }
}

fn assert_tiles(shards: &[ShardDescription], what: &str) {
    let mut ranges: Vec<_> = shards.iter().map(|shard| shard.hash_key_range).collect();
    ranges.sort();
    assert_eq!(ranges.first().map(|range| range.start), Some(0), "{what}");
    assert_eq!(ranges.last().map(|range| range.end), Some(u128::MAX), "{what}");
    for pair in ranges.windows(2) {
        assert_eq!(pair[0].end.checked_add(1), Some(pair[1].start), "{what}");
    }
}

fn parents(shard: &ShardDescription) -> impl Iterator<Item = &Arc<str>> {
    shard.parent_shard_id.iter().chain(&shard.adjacent_parent_shard_id)
}

fn check(world: &World, known: &mut BTreeMap<Arc<str>, ShardDescription>) {
    assert_tiles(&open(world), "open shards");
    let oldest = world.shards(STREAM, ShardFilter::AtTrimHorizon).expect("the stream is there");
    assert_tiles(&oldest, "shards open at the trim horizon");

    let all = world.shards(STREAM, ShardFilter::FromTrimHorizon).expect("the stream is there");
    for shard in all {
        for parent in parents(&shard) {
            // Every shard is listed at least once before it can run out of retention.
            let parent = &known[parent];
            assert!(parent.ending_sequence_number.is_some_and(|end| end < shard.starting_sequence_number));
            let (own, of_parent) = (shard.hash_key_range, parent.hash_key_range);
            assert!(own.start <= of_parent.end && of_parent.start <= own.end);
            assert!(parent.shard_id < shard.shard_id);
        }
        if let Some(before) = known.get(&shard.shard_id) {
            assert_eq!(before.starting_sequence_number, shard.starting_sequence_number);
            assert_eq!(before.hash_key_range, shard.hash_key_range);
            assert!(before.ending_sequence_number.is_none() || *before == shard);
        }
        known.insert(Arc::clone(&shard.shard_id), shard);
    }
}

/// Reads every shard that is kept to its end or tip.
fn read_all(world: &World) -> BTreeSet<SequenceNumber> {
    let mut read = BTreeSet::new();
    for shard in world.shards(STREAM, ShardFilter::FromTrimHorizon).expect("the stream is there") {
        let start = IteratorStart::TrimHorizon;
        let mut next = world.get_shard_iterator(STREAM, &shard.shard_id, &start).ok();
        let mut last = shard.starting_sequence_number;
        while let Some(iterator) = next {
            let page = world.get_records(&iterator, Some(3)).expect("the iterator is fresh");
            for record in &page.records {
                assert!(record.sequence_number > last);
                last = record.sequence_number;
                assert!(read.insert(last), "a record is in one shard only");
            }
            assert_eq!(page.next_iterator.is_none(), !page.child_shards.is_empty());
            assert!(page.child_shards.iter().all(|child| child.parent_shards.contains(&shard.shard_id)));
            next = page.next_iterator.filter(|_| page.millis_behind_latest > 0);
        }
        assert!(shard.ending_sequence_number.is_none_or(|end| last < end));
    }
    read
}

proptest! {
    #[test]
    fn any_history_keeps_the_space_covered_and_every_record_readable(
        shards in 1..5_u32,
        steps in vec(step(), 1..60),
    ) {
        let world = World::with_shards(shards);
        let (mut known, mut put) = (BTreeMap::new(), Vec::new());
        check(&world, &mut known);
        for step in &steps {
            take(&world, step, &mut put);
            check(&world, &mut known);
        }
        assert!(put.len() as u64 == world.total_records(STREAM).expect("the stream is there"));
        assert_eq!(read_all(&world), put.into_iter().collect());
    }

    #[test]
    fn short_retention_leaves_the_space_covered_and_loses_nothing_young(
        shards in 1..5_u32,
        retention in 1..3_000_u64,
        steps in vec(step(), 1..60),
    ) {
        let world = World::with_shards(shards);
        world.set_retention(STREAM, Duration::from_millis(retention)).expect("the stream is there");
        let (mut known, mut put) = (BTreeMap::new(), Vec::new());
        check(&world, &mut known);
        for step in &steps {
            take(&world, step, &mut put);
            check(&world, &mut known);
        }
        let total = world.total_records(STREAM).expect("the stream is there");
        assert_eq!(total, put.len() as u64, "the count includes what has been trimmed");
        let read = read_all(&world);
        assert!(read.is_subset(&put.iter().copied().collect()));
        let young = world.now() - Duration::from_millis(retention);
        let kept = world.shards(STREAM, ShardFilter::FromTrimHorizon).expect("the stream is there");
        for shard in kept {
            let records = world.records_of(STREAM, &shard.shard_id).expect("the shard is there");
            assert!(records.iter().all(|record| record.arrival > young));
        }
    }

    #[test]
    fn shards_open_at_a_time_between_two_changes_cover_the_space(
        shards in 1..5_u32,
        steps in vec(step(), 1..40),
    ) {
        let world = World::with_shards(shards);
        let (mut moments, mut put) = (Vec::new(), Vec::new());
        for step in &steps {
            world.advance(Duration::from_millis(1));
            moments.push((world.now(), open(&world)));
            world.advance(Duration::from_millis(1));
            take(&world, step, &mut put);
        }
        for (moment, expected) in moments {
            let mut listed = world.shards(STREAM, ShardFilter::AtTimestamp(moment)).expect("the stream is there");
            listed.sort_by_key(|shard| shard.hash_key_range);
            let ids = |shards: &[ShardDescription]| -> Vec<_> {
                shards.iter().map(|shard| Arc::clone(&shard.shard_id)).collect()
            };
            assert_eq!(ids(&listed), ids(&expected));
        }
    }
}
