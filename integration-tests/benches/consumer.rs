//! Records through a whole scheduler in memory, beside the same answers drained without one.
//!
//! `cargo bench -p integration-tests --bench consumer`. One iteration is one pass over about 10 MB of payload;
//! throughput is in user records and in bytes of payload. In each group
//! - `source` drains the answers without a consumer, which is what the other figures contain of the source;
//! - `source_md5` also takes the MD5 of each payload, the floor of what reads aggregates;
//! - `consumer` is a scheduler with the memory store and its lease thread; timed from the first read to the
//!   end of the last `process_records`.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kcl_core::model::{HashKeyRange, SequenceNumber, Shard, SourceRecord, StreamIdentity};
use kcl_core::source::{ShardReader, SourceBatch, SourceError, StartFrom, StreamSource};
use kcl_core::testing::MemoryStream;
use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor, Scheduler, ShardContext, ShardId};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::clock::SystemClock;
use kcl_local::kinesis::{IteratorStart, Kinesis, NewRecord};
use kpl_aggregation::Aggregator;
use md5::{Digest, Md5};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The payload of one pass, about.
const PASS_BYTES: usize = 10_000_000;
/// What one answer holds at most, of both, as `GetRecords`.
const ANSWER_RECORDS: usize = 10_000;
const ANSWER_BYTES: usize = 10 << 20;
const RECORDS_PER_AGGREGATE: usize = 100;
/// Partition keys in a cycle.
const KEYS: usize = 16;
const STREAM: &str = "orders";

/// Answers that are handed out again and again, with sequence numbers that go on.
#[derive(Clone, Debug)]
struct Canned {
    answers: Arc<[SourceBatch]>,
    passes: u64,
    begun: Arc<OnceLock<Instant>>,
}

impl Canned {
    fn new(payloads: Vec<Bytes>, answer_records: usize) -> Self {
        let mut answers: Vec<SourceBatch> = Vec::new();
        for (i, data) in payloads.into_iter().enumerate() {
            let fits = |batch: &SourceBatch| {
                batch.records.len() < answer_records && batch.payload_bytes() + data.len() <= ANSWER_BYTES
            };
            if !answers.last().is_some_and(fits) {
                answers.push(SourceBatch::default());
            }
            let record =
                SourceRecord::new(SequenceNumber::ZERO, Some(std::time::UNIX_EPOCH), Some(key(i)), data);
            answers.last_mut().expect("one was just pushed").records.push(record);
        }
        Self { answers: answers.into(), passes: 0, begun: Arc::default() }
    }

    fn for_passes(&self, passes: u64) -> Self {
        Self { answers: Arc::clone(&self.answers), passes, begun: Arc::default() }
    }

    fn reader(&self) -> CannedReader {
        CannedReader { source: self.clone(), passes: 0, at: 0, sequence: 0 }
    }
}

fn key(i: usize) -> ByteString {
    format!("partition-key-{:06}", i % KEYS).into()
}

/// All hash keys but the last, so that the keys of aggregated records must be looked at.
fn ranges() -> [HashKeyRange; 2] {
    [(0, u128::MAX - 1), (u128::MAX, u128::MAX)]
        .map(|(start, end)| HashKeyRange::new(start, end).expect("the start is not beyond the end"))
}

#[async_trait]
impl StreamSource for Canned {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/{STREAM}");
        Ok(StreamIdentity { arn, created_millis: 0 })
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        let shards = ranges().into_iter().zip(["shardId-000000000000", "shardId-000000000001"]);
        Ok(shards
            .map(|(hash_key_range, id)| Shard {
                id: id.into(),
                parent: None,
                adjacent_parent: None,
                hash_key_range,
                starting_sequence_number: SequenceNumber::ZERO,
                ending_sequence_number: None,
            })
            .collect())
    }

    async fn open(&self, shard: &ShardId, _: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        let mut reader = self.reader();
        if shard.as_str() != "shardId-000000000000" {
            reader.source.passes = 0;
        }
        Ok(Box::new(reader))
    }

    fn name(&self) -> &str {
        STREAM
    }
}

#[derive(Debug)]
struct CannedReader {
    source: Canned,
    passes: u64,
    at: usize,
    sequence: u64,
}

impl CannedReader {
    fn read(&mut self) -> Option<SourceBatch> {
        if self.at == self.source.answers.len() {
            (self.at, self.passes) = (0, self.passes + 1);
        }
        if self.passes >= self.source.passes {
            return None;
        }
        let mut batch = self.source.answers[self.at].clone();
        for record in &mut batch.records {
            self.sequence += 1;
            record.sequence_number = self.sequence.into();
        }
        self.at += 1;
        Some(batch)
    }
}

#[async_trait]
impl ShardReader for CannedReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        if self.source.passes > 0 {
            self.source.begun.get_or_init(Instant::now);
        }
        match self.read() {
            Some(batch) => Ok(batch),
            None => std::future::pending().await,
        }
    }
}

/// Counts what is delivered.
#[derive(Clone, Default)]
struct Tally(Arc<Counts>);

#[derive(Default)]
struct Counts {
    goal: u64,
    records: AtomicU64,
    ended: OnceLock<Instant>,
    reached: Notify,
}

impl Tally {
    fn new(goal: u64) -> Self {
        Self(Arc::new(Counts { goal, ..Counts::default() }))
    }
}

#[async_trait]
impl RecordProcessor for Tally {
    async fn process_records(&mut self, batch: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        let bytes: usize = batch.records().iter().map(|record| record.data().len()).sum();
        black_box(bytes);
        let records = batch.records().len() as u64;
        if self.0.records.fetch_add(records, Ordering::Relaxed) + records >= self.0.goal {
            self.0.ended.get_or_init(Instant::now);
            self.0.reached.notify_one();
        }
        Ok(())
    }
}

/// Runs a scheduler until `goal` records are delivered; returns when the last was.
async fn consume(source: impl StreamSource, goal: u64) -> Instant {
    let tally = Tally::new(goal);
    let processor = tally.clone();
    let scheduler = Scheduler::builder("app")
        .stream(source)
        .lease_store(MemoryLeaseStore::new())
        .processor(move |_: &ShardContext| processor.clone())
        .build()
        .expect("the settings are sound");
    let handle = scheduler.handle();
    let mut run = JoinSet::new();
    run.spawn(scheduler.run());
    tally.0.reached.notified().await;
    let ended = *tally.0.ended.get().expect("the goal is reached");
    handle.shutdown(Duration::from_secs(10)).await;
    assert_eq!(tally.0.records.load(Ordering::Relaxed), goal, "each record comes once");
    ended
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread has a runtime")
}

/// How many user records and payload bytes one pass has.
struct Pass {
    records: u64,
    bytes: u64,
}

fn measure(criterion: &mut Criterion, name: &str, pass: &Pass, source: &Canned) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group(name);
    set_up(&mut group, pass);
    let drained = |passes: u64, look: fn(&Bytes)| {
        let mut reader = source.for_passes(passes).reader();
        let begun = Instant::now();
        while let Some(batch) = reader.read() {
            black_box(&batch).records.iter().for_each(|record| look(&record.data));
        }
        begun.elapsed()
    };
    group.bench_function("source", |b| b.iter_custom(|passes| drained(passes, |_| {})));
    group.bench_function("source_md5", |b| {
        b.iter_custom(|passes| {
            drained(passes, |data| {
                black_box(Md5::digest(data));
            })
        });
    });
    group.bench_function("consumer", |b| {
        b.iter_custom(|passes| {
            let source = source.for_passes(passes);
            let begun = Arc::clone(&source.begun);
            let ended = runtime.block_on(consume(source, passes * pass.records));
            ended - *begun.get().expect("it was read")
        });
    });
    group.finish();
}

fn set_up(group: &mut BenchmarkGroup<'_, WallTime>, pass: &Pass) {
    group.throughput(Throughput::ElementsAndBytes { elements: pass.records, bytes: pass.bytes });
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
}

fn payload(size: usize) -> Bytes {
    // Not shared: each record of an answer has memory of its own.
    Bytes::from(vec![0x5A; size])
}

fn aggregate(size: usize) -> Bytes {
    let mut aggregator = Aggregator::new();
    for i in 0..RECORDS_PER_AGGREGATE {
        let full = aggregator.add(key(i), None, payload(size)).expect("it fits");
        assert!(full.is_none(), "the aggregate has room");
    }
    aggregator.finish().expect("it has records").data
}

fn plain(criterion: &mut Criterion) {
    for (name, size, answer_records) in [
        ("plain_100B", 100, ANSWER_RECORDS),
        ("plain_1KiB", 1024, ANSWER_RECORDS),
        ("plain_100B_in_answers_of_10", 100, 10),
    ] {
        let records = PASS_BYTES / size;
        let source = Canned::new((0..records).map(|_| payload(size)).collect(), answer_records);
        let pass = Pass { records: records as u64, bytes: (records * size) as u64 };
        measure(criterion, name, &pass, &source);
    }
}

fn aggregated(criterion: &mut Criterion) {
    for (name, size) in [("aggregated_100B", 100), ("aggregated_1KiB", 1024)] {
        let aggregates = PASS_BYTES / size / RECORDS_PER_AGGREGATE;
        let source = Canned::new((0..aggregates).map(|_| aggregate(size)).collect(), ANSWER_RECORDS);
        let records = aggregates * RECORDS_PER_AGGREGATE;
        let pass = Pass { records: records as u64, bytes: (records * size) as u64 };
        measure(criterion, name, &pass, &source);
    }
}

/// From `run()` on, over the model of Kinesis: `GetRecords` of the model alone, and a scheduler on top.
fn model(criterion: &mut Criterion) {
    let runtime = runtime();
    let kinesis = Kinesis::new(Arc::new(SystemClock));
    kinesis.create_stream(STREAM, 1).expect("the stream is new");
    let records = PASS_BYTES / 100;
    let all: Vec<_> = (0..records).map(|i| NewRecord::new(&*key(i), payload(100))).collect();
    for some in all.chunks(500) {
        kinesis.put_records(STREAM, some.to_vec()).expect("no limits are set");
    }
    let pass = Pass { records: records as u64, bytes: (records * 100) as u64 };
    let mut group = criterion.benchmark_group("model_100B");
    set_up(&mut group, &pass);
    group.bench_function("get_records", |b| {
        b.iter(|| {
            let mut iterator = kinesis
                .get_shard_iterator(STREAM, "shardId-000000000000", &IteratorStart::TrimHorizon)
                .expect("the shard exists");
            let mut seen = 0;
            while seen < records {
                let page = kinesis.get_records(&iterator, None).expect("no limits are set");
                seen += black_box(&page).records.len();
                iterator = page.next_iterator.expect("the shard is open");
            }
        });
    });
    group.bench_function("run_to_last_record", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let begun = Instant::now();
                let stream = MemoryStream::new(kinesis.clone(), STREAM);
                took += runtime.block_on(consume(stream, pass.records)) - begun;
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, plain, aggregated, model);
criterion_main!(benches);
