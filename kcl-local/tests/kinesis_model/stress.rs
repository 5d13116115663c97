//! Writers, readers and reshards at once, on real threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kcl_local::clock::SystemClock;
use kcl_local::kinesis::{
    HashKeyRange, IteratorStart, Kinesis, NewRecord, SequenceNumber, ShardDescription, ShardFilter,
};

use crate::support::STREAM;

const WRITERS: u64 = 4;
const READERS: usize = 4;
const KEYS: u64 = 8;
const RECORDS_PER_WRITER: u64 = 6_000;
const RESHARDS: usize = 60;

/// A small deterministic generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Puts numbered records, one at a time or in batches, and returns the numbers acknowledged.
fn write(kinesis: &Kinesis, writer: u64) -> Vec<SequenceNumber> {
    let mut random = Random(writer);
    let mut counters = [0_u64; KEYS as usize];
    let mut next = |random: &mut Random| {
        let key = random.below(KEYS) as usize;
        counters[key] += 1;
        NewRecord::new(format!("writer-{writer}-{key}"), counters[key].to_be_bytes().to_vec())
    };
    let mut acknowledged = Vec::new();
    while (acknowledged.len() as u64) < RECORDS_PER_WRITER {
        if random.below(2) == 0 {
            let placed = kinesis.put_record(STREAM, next(&mut random)).expect("the stream takes records");
            acknowledged.push(placed.sequence_number);
        } else {
            let size = 1 + random.below(50);
            let batch = (0..size).map(|_| next(&mut random)).collect();
            for placed in kinesis.put_records(STREAM, batch).expect("the stream takes records") {
                acknowledged.push(placed.expect("there are no limits").sequence_number);
            }
        }
    }
    acknowledged
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    numbers: BTreeSet<SequenceNumber>,
    /// The last counter of each key.
    counters: BTreeMap<Arc<str>, u64>,
}

impl Seen {
    /// Reads one page; the answer is the next iterator or the children.
    fn page(&mut self, kinesis: &Kinesis, iterator: &str) -> Result<(String, bool), Vec<Arc<str>>> {
        let page = kinesis.get_records(iterator, Some(100)).expect("the iterator is fresh");
        for record in &page.records {
            assert!(self.numbers.insert(record.sequence_number), "a record came twice");
            let counter = u64::from_be_bytes(*record.data.first_chunk().expect("the data is a counter"));
            let last = self.counters.insert(Arc::clone(&record.partition_key), counter).unwrap_or(0);
            assert_eq!(counter, last + 1, "key {} lost a record or its order", record.partition_key);
        }
        match page.next_iterator {
            Some(next) => Ok((next, page.records.is_empty())),
            None => Err(page.child_shards.into_iter().map(|child| child.shard_id).collect()),
        }
    }
}

/// Follows the stream from its first shards to the tip of the last, children after their parents.
fn read(kinesis: &Kinesis, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let first = kinesis.shards(STREAM, ShardFilter::AtTrimHorizon).expect("the stream is there");
    let begin = |shard: &str| {
        let start = IteratorStart::TrimHorizon;
        kinesis.get_shard_iterator(STREAM, shard, &start).expect("the shard is kept")
    };
    let mut ended = BTreeSet::new();
    let mut begun: BTreeSet<_> = first.iter().map(|shard| Arc::clone(&shard.shard_id)).collect();
    let mut tails: VecDeque<_> =
        first.iter().map(|shard| (Arc::clone(&shard.shard_id), begin(&shard.shard_id))).collect();
    loop {
        // Read before the round: what was written before it is set is seen in the round.
        let last_round = done.load(Ordering::Acquire);
        let mut idle = true;
        for _ in 0..tails.len() {
            let (shard, iterator) = tails.pop_front().expect("the round is as long as the queue");
            match seen.page(kinesis, &iterator) {
                Ok((next, empty)) => {
                    idle &= empty;
                    tails.push_back((shard, next));
                }
                Err(children) => {
                    idle = false;
                    ended.insert(shard);
                    let all =
                        kinesis.shards(STREAM, ShardFilter::FromTrimHorizon).expect("the stream is there");
                    for child in children {
                        let described = all.iter().find(|shard| shard.shard_id == child);
                        let described = described.expect("a child is listed");
                        if parents(described).all(|parent| ended.contains(parent))
                            && begun.insert(Arc::clone(&child))
                        {
                            tails.push_back((Arc::clone(&child), begin(&child)));
                        }
                    }
                }
            }
        }
        if idle && last_round {
            return seen;
        }
        thread::yield_now();
    }
}

fn parents(shard: &ShardDescription) -> impl Iterator<Item = &Arc<str>> {
    shard.parent_shard_id.iter().chain(&shard.adjacent_parent_shard_id)
}

fn reshard(kinesis: &Kinesis) {
    let mut random = Random(99);
    for _ in 0..RESHARDS {
        let mut open = kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream is there");
        open.sort_by_key(|shard| shard.hash_key_range);
        let at = random.below(open.len() as u64) as usize;
        if open.len() < 4 || (open.len() < 12 && random.below(2) == 0) {
            let HashKeyRange { start, end } = open[at].hash_key_range;
            let middle = start + (end - start) / 2;
            kinesis.split_shard(STREAM, &open[at].shard_id, middle).expect("the shard is open");
        } else {
            let left = at.min(open.len() - 2);
            let (first, second) = (&open[left].shard_id, &open[left + 1].shard_id);
            kinesis.merge_shards(STREAM, first, second).expect("the shards are open");
        }
        for _ in 0..20 {
            thread::yield_now();
        }
    }
}

#[test]
fn no_acknowledged_record_is_lost_or_reordered_under_writers_readers_and_reshards() {
    let kinesis = Kinesis::new(Arc::new(SystemClock));
    kinesis.create_stream(STREAM, 3).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| read(&kinesis, &done))).collect();
        let resharder = scope.spawn(|| reshard(&kinesis));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let kinesis = kinesis.clone();
                scope.spawn(move || write(&kinesis, writer))
            })
            .collect();
        let written = writers.into_iter().map(thread::ScopedJoinHandle::join);
        let written: Result<Vec<_>, _> = written.collect();
        let resharded = resharder.join();
        // Readers must be let go before anything is asserted, or a failure would hang the test.
        done.store(true, Ordering::Release);
        let acknowledged: Vec<_> = written.expect("no writer fails").into_iter().flatten().collect();
        resharded.expect("every reshard succeeds");
        let expected: BTreeSet<_> = acknowledged.iter().copied().collect();
        assert_eq!(expected.len(), acknowledged.len(), "numbers are unique");
        for reader in readers {
            let seen = reader.join().expect("no reader sees a gap");
            assert!(seen.numbers == expected, "{} seen of {}", seen.numbers.len(), expected.len());
        }
    });
}
