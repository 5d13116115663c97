//! How long records and starts take over loopback sockets, in real time.
//!
//! `cargo bench -p integration-tests --bench latency [-- --shards N] [--seconds N]`, about a minute.
//!
//! Local services with the limits of AWS, SDK clients, one worker with the DynamoDB lease store. Records carry
//! the moment before they were put, so that the figures include the put. The ideal beside them is what five
//! calls per second and shard permit: a record waits for the next poll, uniformly between nothing and 200 ms.

#![allow(clippy::print_stdout, reason = "it reports to a terminal")]

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, RecordBatch, RecordProcessor, Scheduler, SchedulerHandle,
    ShardContext, ShutdownReport,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::kinesis::{KinesisOptions, Limits};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const STREAM: &str = "orders";
/// Records put per second, on average.
const RATE: f64 = 40.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// When records were put and processed, after `base`. Clones share it.
#[derive(Clone, Debug)]
struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: Instant,
    seen: Mutex<Vec<(Duration, Duration)>>,
    arrived: Notify,
}

impl Log {
    fn new() -> Self {
        let base = Instant::now();
        Self(Arc::new(Shared { base, seen: Mutex::default(), arrived: Notify::new() }))
    }

    fn now(&self) -> Duration {
        self.0.base.elapsed()
    }

    /// The payload of a record that is put now.
    fn payload(&self) -> Blob {
        Blob::new(u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX).to_be_bytes())
    }

    fn seen(&self) -> Vec<(Duration, Duration)> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` records were processed.
    async fn wait(&self, count: usize) -> Result<()> {
        let arrived = async {
            while self.seen().len() < count {
                self.0.arrived.notified().await;
            }
        };
        timeout(PATIENCE, arrived).await.map_err(|_| format!("{count} records did not come in time").into())
    }
}

#[async_trait]
impl RecordProcessor for Log {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        _: &Checkpointer,
    ) -> std::result::Result<(), BoxError> {
        let processed = self.now();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for record in batch.records() {
            let nanos = u64::from_be_bytes(record.data().as_ref().try_into()?);
            seen.push((Duration::from_nanos(nanos), processed));
        }
        self.0.arrived.notify_one();
        Ok(())
    }
}

/// A worker and when its `run()` was called.
struct Worker {
    handle: SchedulerHandle,
    begun: Instant,
    run: JoinSet<std::result::Result<ShutdownReport, kcl_core::Error>>,
}

impl Worker {
    /// Starts a worker under a new id, with clients of its own.
    fn start(aws: &LocalAws, log: &Log) -> Result<Self> {
        let processor = log.clone();
        let scheduler = Scheduler::builder("app")
            .stream(KinesisStream::new(Client::new(&aws.sdk_config()), STREAM))
            .lease_store(DynamoLeaseStore::new(aws_sdk_dynamodb::Client::new(&aws.sdk_config()), "app"))
            .checkpoint_policy(CheckpointPolicy::Every(Duration::from_secs(1)))
            .processor(move |_: &ShardContext| processor.clone())
            .build()?;
        let handle = scheduler.handle();
        let mut run = JoinSet::new();
        let begun = Instant::now();
        run.spawn(scheduler.run());
        Ok(Self { handle, begun, run })
    }

    async fn stop(mut self) -> Result<()> {
        let report = self.handle.shutdown(Duration::from_secs(20)).await;
        while self.run.join_next().await.is_some() {}
        if report.is_clean() { Ok(()) } else { Err(format!("the stop was not clean: {report}").into()) }
    }

    async fn kill(mut self) {
        self.run.shutdown().await;
    }
}

async fn put(kinesis: &Client, log: &Log, key: u32) -> Result<()> {
    let request = kinesis.put_record().stream_name(STREAM).partition_key(format!("key-{key}"));
    request.data(log.payload()).send().await?;
    Ok(())
}

/// Puts a record into every shard and has a worker started that finds them; returns the times from `run()` to
/// the first and to the last of them.
async fn first_records(
    aws: &LocalAws,
    kinesis: &Client,
    log: &Log,
    shards: u32,
) -> Result<(Duration, Duration, Worker)> {
    let before = log.seen().len();
    for shard in 0..shards {
        let hash_key = u128::MAX / u128::from(shards) * u128::from(shard) + 1;
        let request = kinesis.put_record().stream_name(STREAM).partition_key("key");
        request.explicit_hash_key(hash_key.to_string()).data(log.payload()).send().await?;
    }
    let worker = Worker::start(aws, log)?;
    log.wait(before + shards as usize).await?;
    let after_run = |(_, processed): (Duration, Duration)| log.0.base + processed - worker.begun;
    let seen = log.seen();
    let (first, last) = (after_run(seen[before]), after_run(seen[before + shards as usize - 1]));
    Ok((first, last, worker))
}

/// Puts records at random moments for `time`; returns how long each put took.
async fn put_at_random(kinesis: &Client, log: &Log, time: Duration) -> Result<Vec<Duration>> {
    let mut random = fastrand::Rng::with_seed(1);
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        put(kinesis, log, random.u32(..)).await?;
        took.push(begun.elapsed());
        let gap = -(1.0 - random.f64()).ln() / RATE;
        sleep(Duration::from_secs_f64(gap).saturating_sub(begun.elapsed())).await;
    }
    Ok(took)
}

/// How long a `GetRecords` at the tip takes, as a floor of what one poll adds.
async fn get_records(kinesis: &Client) -> Result<Vec<Duration>> {
    let shard = "shardId-000000000000";
    let mut took = Vec::new();
    for _ in 0..20 {
        let kind = aws_sdk_kinesis::types::ShardIteratorType::Latest;
        let request = kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
        let iterator = request.shard_iterator_type(kind).send().await?.shard_iterator;
        let begun = Instant::now();
        kinesis.get_records().set_shard_iterator(iterator).send().await?;
        took.push(begun.elapsed());
        sleep(Duration::from_millis(250)).await;
    }
    Ok(took)
}

fn quantile(of: &[Duration], share: f64) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len().max(1) - 1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn row(what: &str, of: &[Duration], target: &str) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(of, share).as_secs_f64() * 1e3);
    println!("{what:<52} {:>6} {p50:>9.1} {p99:>9.1} {max:>9.1}   {target}", of.len());
}

fn time_row(what: &str, took: Duration, target: &str) {
    println!("{what:<52} {:>6} {:>9.1} {:>9} {:>9}   {target}", 1, took.as_secs_f64() * 1e3, "", "");
}

async fn report(shards: u32, time: Duration) -> Result<()> {
    let mut options = KinesisOptions::default();
    options.limits = Limits::aws();
    let aws = LocalAws::builder().kinesis_options(options).start().await?;
    aws.kinesis().create_stream(STREAM, shards)?;
    let kinesis = Client::new(&aws.sdk_config());
    let log = Log::new();
    println!("{shards} shards, one worker, {time:?} of records; milliseconds");
    println!("{:<52} {:>6} {:>9} {:>9} {:>9}   target", "", "n", "p50", "p99", "max");

    let alone = get_records(&kinesis).await?;
    row("GetRecords at the tip, nothing else running", &alone, "");
    let (first, last, worker) = first_records(&aws, &kinesis, &log, shards).await?;
    time_row("run() to first record, no table", first, "5,000");
    time_row("run() to a record of every shard, no table", last, "");

    let before = log.seen().len();
    let puts = put_at_random(&kinesis, &log, time).await?;
    log.wait(before + puts.len()).await?;
    row("PutRecord", &puts, "");
    let waits: Vec<Duration> =
        log.seen()[before..].iter().map(|(put, processed)| *processed - *put).collect();
    row("put to process_records", &waits, "p50 150, p99 350");
    let ideal = quantile(&puts, 0.5) + quantile(&alone, 0.5) + Duration::from_millis(100);
    let ratio = quantile(&waits, 0.5).as_secs_f64() / ideal.as_secs_f64();
    time_row("ideal p50: half of 200 ms, a put, a GetRecords", ideal, &format!("reached {ratio:.2} of it"));

    worker.stop().await?;
    let (first, last, worker) = first_records(&aws, &kinesis, &log, shards).await?;
    time_row("run() to first record, after a clean stop", first, "3,000");
    time_row("run() to a record of every shard, after it", last, "");
    worker.kill().await;
    let (first, last, worker) = first_records(&aws, &kinesis, &log, shards).await?;
    time_row("run() to first record, after a crash of the fleet", first, "12,000");
    time_row("run() to a record of every shard, after it", last, "");
    worker.stop().await
}

/// The number after `--name`, if there is one.
fn argument(name: &str) -> Result<Option<u32>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments
        .next()
        .map(|number| number.parse().map_err(|_| format!("not a number: {name} {number}").into()))
        .transpose()
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    // `cargo test --benches` only wants to know that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let seconds = argument("--seconds")?.unwrap_or(if is_bench { 25 } else { 1 });
    report(argument("--shards")?.unwrap_or(4).max(1), Duration::from_secs(seconds.into())).await
}
