//! What shards cost that have nothing to say: memory, CPU, and the time until they are owned and read.
//!
//! `cargo bench -p integration-tests --bench idle [-- --shards N] [--seconds N]`, about half a minute. Linux.
//!
//! One worker over the memory store and a source that answers each shard five times a second with nothing, as
//! polling at the tip does; so the figures are the library's own, without HTTP and the SDK. Beside the CPU
//! stands that of the same readers without a scheduler, in the same run.

#![allow(clippy::print_stdout, reason = "it reports to a terminal")]

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kcl_core::model::{HashKeyRange, SequenceNumber, Shard, StreamIdentity};
use kcl_core::source::{ShardReader, SourceBatch, SourceError, StartFrom, StreamSource};
use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor, Scheduler, ShardContext, ShardId};
use kcl_lease_memory::MemoryLeaseStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);
/// After the start, until caches and buffers have their size.
const SETTLING: Duration = Duration::from_secs(3);

/// A stream without records.
#[derive(Clone, Debug)]
struct Silence {
    shards: u32,
    /// How many shards were read from.
    read: Arc<AtomicU32>,
}

impl Silence {
    fn new(shards: u32) -> Self {
        Self { shards, read: Arc::default() }
    }

    fn shard(&self, i: u32) -> Shard {
        let width = u128::MAX / u128::from(self.shards);
        let start = width * u128::from(i);
        let end = if i + 1 == self.shards { u128::MAX } else { start + width - 1 };
        Shard {
            id: format!("shardId-{i:012}").into(),
            parent: None,
            adjacent_parent: None,
            hash_key_range: HashKeyRange::new(start, end).expect("the start is not beyond the end"),
            starting_sequence_number: SequenceNumber::ZERO,
            ending_sequence_number: None,
        }
    }
}

#[async_trait]
impl StreamSource for Silence {
    async fn identity(&self) -> std::result::Result<StreamIdentity, SourceError> {
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/silence".to_owned();
        Ok(StreamIdentity { arn, created_millis: 0 })
    }

    async fn list_shards(&self) -> std::result::Result<Vec<Shard>, SourceError> {
        Ok((0..self.shards).map(|i| self.shard(i)).collect())
    }

    async fn open(
        &self,
        _: &ShardId,
        _: StartFrom,
    ) -> std::result::Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(Quiet::new(Arc::clone(&self.read))))
    }

    fn name(&self) -> &str {
        "silence"
    }
}

#[derive(Debug)]
struct Quiet {
    next: Instant,
    is_read: bool,
    read: Arc<AtomicU32>,
}

impl Quiet {
    fn new(read: Arc<AtomicU32>) -> Self {
        Self { next: Instant::now(), is_read: false, read }
    }
}

#[async_trait]
impl ShardReader for Quiet {
    async fn next(&mut self) -> std::result::Result<SourceBatch, SourceError> {
        sleep_until(self.next).await;
        self.next = Instant::now() + POLL_INTERVAL;
        if !std::mem::replace(&mut self.is_read, true) {
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(SourceBatch::new(Vec::new(), Some(Duration::ZERO), None))
    }
}

struct Nothing;

#[async_trait]
impl RecordProcessor for Nothing {
    async fn process_records(
        &mut self,
        _: RecordBatch,
        _: &Checkpointer,
    ) -> std::result::Result<(), BoxError> {
        Ok(())
    }
}

/// The process's memory that is in RAM, in KiB.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The CPU time this process has used, to 10 ms: Linux tells it in hundredths of a second.
fn cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
    let mut hundredths = 0;
    // Fields 14 and 15 of the whole: user and system time.
    for field in fields.split_whitespace().skip(11).take(2) {
        hundredths += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(hundredths * 10))
}

/// The share of one core used during `time`.
async fn load(time: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), cpu()?);
    sleep(time).await;
    Ok((cpu()? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
}

#[derive(Debug)]
struct Cost {
    /// From `run()` until every shard was read.
    start: Duration,
    /// In KiB.
    resident: f64,
    /// The share of one core.
    load: f64,
}

async fn worker(shards: u32, time: Duration) -> Result<Cost> {
    let source = Silence::new(shards);
    let read = Arc::clone(&source.read);
    let scheduler = Scheduler::builder("app")
        .stream(source)
        .lease_store(MemoryLeaseStore::new())
        .processor(|_: &ShardContext| Nothing)
        .build()?;
    let handle = scheduler.handle();
    let mut run = JoinSet::new();
    let begun = Instant::now();
    run.spawn(scheduler.run());
    let reading = async {
        while read.load(Ordering::Relaxed) < shards {
            sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    };
    let start = timeout(PATIENCE, reading).await?;
    sleep(SETTLING).await;
    let cost = Cost { start, load: load(time).await?, resident: resident()? };
    let report = handle.shutdown(Duration::from_secs(20)).await;
    if report.is_clean() { Ok(cost) } else { Err(format!("the stop was not clean: {report}").into()) }
}

/// The readers alone.
async fn readers(shards: u32, time: Duration) -> Result<f64> {
    let mut tasks = JoinSet::new();
    for i in 0..shards {
        tasks.spawn(async move {
            // Spread, as those of a scheduler are, which start one after the other.
            sleep(POLL_INTERVAL.mul_f64(f64::from(i) / f64::from(shards))).await;
            let mut reader = Quiet::new(Arc::default());
            while reader.next().await.is_ok() {}
        });
    }
    load(time).await
}

/// The number after `--name`, if there is one.
fn argument(name: &str) -> Result<Option<u32>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    let number = |text: String| text.parse().map_err(|_| format!("not a number: {name} {text}").into());
    arguments.next().map(number).transpose()
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    // `cargo test --benches` only wants to know that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let time = Duration::from_secs(argument("--seconds")?.unwrap_or(if is_bench { 10 } else { 1 }).into());
    let shards = argument("--shards")?.unwrap_or(1_000).max(2);
    // The least first, since an allocator does not give everything back.
    let one = worker(1, time).await?;
    let many = worker(shards, time).await?;
    let alone = readers(shards, time).await?;
    println!("{:<46} {:>12} {:>12}   target", "idle shards, one worker", 1, shards);
    println!(
        "{:<46} {:>12.3} {:>12.3}   10 for 1,000",
        "run() until all are owned and read, s",
        one.start.as_secs_f64(),
        many.start.as_secs_f64()
    );
    println!("{:<46} {:>12.0} {:>12.0}", "resident, KiB", one.resident, many.resident);
    let each = (many.resident - one.resident) / f64::from(shards - 1);
    println!("{:<46} {:>12} {each:>12.1}   60", "per shard, KiB", "");
    let [one_load, many_load] = [one.load, many.load].map(|load| load * 100.0);
    println!("{:<46} {one_load:>12.2} {many_load:>12.2}   5", "CPU, % of a core");
    println!("{:<46} {:>12} {:>12.2}", "CPU of the readers alone, % of a core", "", alone * 100.0);
    Ok(())
}
