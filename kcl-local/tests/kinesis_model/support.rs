//! A service on a clock that the test moves.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kcl_local::clock::{Clock, ManualClock};
use kcl_local::error::ApiError;
use kcl_local::kinesis::{
    GetRecordsOutput, IteratorStart, Kinesis, KinesisOptions, NewRecord, Placement, SequenceNumber,
    ShardDescription, ShardFilter,
};

/// The stream all tests use.
pub(crate) const STREAM: &str = "orders";
/// Half of the hash-key space.
pub(crate) const HALF: u128 = 1 << 127;

pub(crate) struct World {
    pub(crate) kinesis: Kinesis,
    clock: Arc<ManualClock>,
}

impl Deref for World {
    type Target = Kinesis;

    fn deref(&self) -> &Kinesis {
        &self.kinesis
    }
}

impl World {
    /// A service without streams.
    pub(crate) fn new(options: KinesisOptions) -> Self {
        let clock = Arc::new(ManualClock::new(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        Self { kinesis: Kinesis::with_options(Arc::clone(&clock) as _, options), clock }
    }

    /// A service with one stream.
    pub(crate) fn with_shards(shards: u32) -> Self {
        let world = Self::new(KinesisOptions::default());
        world.create_stream(STREAM, shards).expect("the name is free");
        world
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Puts a record with this text as its data and moves the clock by a millisecond.
    pub(crate) fn put(&self, text: &str) -> Placement {
        let placed = self.put_record(STREAM, NewRecord::new("key", text.to_owned()));
        self.advance(Duration::from_millis(1));
        placed.expect("the stream takes records")
    }

    pub(crate) fn iterator(&self, shard: u32, start: IteratorStart) -> String {
        self.get_shard_iterator(STREAM, &id(shard), &start).expect("the shard and the start are there")
    }

    pub(crate) fn read(&self, iterator: &str) -> GetRecordsOutput {
        self.get_records(iterator, None).expect("the iterator is valid")
    }

    /// The texts of the records from `start` on.
    pub(crate) fn texts_from(&self, shard: u32, start: IteratorStart) -> Vec<String> {
        texts(&self.read(&self.iterator(shard, start)))
    }

    /// The indexes of the shards that `filter` takes.
    pub(crate) fn list(&self, filter: ShardFilter) -> Vec<u32> {
        let shards = self.shards(STREAM, filter).expect("the stream is there");
        shards.iter().map(index).collect()
    }

    pub(crate) fn describe(&self, shard: u32) -> ShardDescription {
        let shards = self.shards(STREAM, ShardFilter::FromTrimHorizon).expect("the stream is there");
        shards.into_iter().find(|found| index(found) == shard).expect("the shard is there")
    }

    pub(crate) fn split(&self, shard: u32, at: u128) {
        self.split_shard(STREAM, &id(shard), at).expect("the shard can be split");
    }

    pub(crate) fn merge(&self, shard: u32, adjacent: u32) {
        self.merge_shards(STREAM, &id(shard), &id(adjacent)).expect("the shards can be merged");
    }
}

pub(crate) fn id(shard: u32) -> String {
    format!("shardId-{shard:012}")
}

pub(crate) fn index(shard: &ShardDescription) -> u32 {
    let digits = shard.shard_id.strip_prefix("shardId-").expect("ids have a prefix");
    digits.parse().expect("ids end in digits")
}

pub(crate) fn texts(page: &GetRecordsOutput) -> Vec<String> {
    page.records.iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()).collect()
}

/// The code of an error that must have come.
pub(crate) fn code<T>(answer: Result<T, ApiError>) -> String {
    answer.err().expect("the call is refused").code
}

/// The number that many records after `number`.
pub(crate) fn records_after(number: SequenceNumber, records: u64) -> SequenceNumber {
    let [high, middle, low] = number.limbs();
    SequenceNumber::from_limbs([high, middle + (records << 16), low])
}
