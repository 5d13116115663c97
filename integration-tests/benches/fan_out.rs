//! Subscribing beside polling, on the same stream over loopback sockets: how long records take, and what they cost.
//!
//! `cargo bench -p integration-tests --bench fan_out [-- --seconds N] [--records N]`, about a minute.
//!
//! The local services run on a thread of their own, whose CPU time is left out: what is counted is the worker with the
//! SDK under it. Figures are best read as ratios.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    reason = "it reports to a terminal, and shares its processor with the tests"
)]

#[path = "../tests/fan_out/support.rs"]
mod support;

use std::time::Duration;

use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{LeaseRuntime, Settings};
use kcl_local::LocalAws;
use kcl_local::kinesis::{KinesisOptions, Limits};
use tokio::time::{Instant, sleep};

use support::{Book, SECOND, STREAM, Worker, quantiles, trickle};

const SHARDS: usize = 8;
const BYTES: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Polling,
    FanOut,
}

fn source(aws: &LocalAws, way: Way) -> KinesisStream {
    let stream = KinesisStream::new(aws_sdk_kinesis::Client::new(&aws.sdk_config()), STREAM);
    match way {
        Way::Polling => stream,
        Way::FanOut => {
            let consumer = FanOutConsumer::Named("app".into());
            stream.with_retrieval(Retrieval::FanOut(FanOutConfig::new(consumer)))
        }
    }
}

/// The CPU time of all threads but that of the services.
fn cpu() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
        let (head, rest) = stat.rsplit_once(") ").unwrap();
        if !head.ends_with("(kcl-local") {
            let times = rest.split_whitespace().skip(11).take(2);
            ticks += times.map(|time| time.parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    // A hundred to the second, as everywhere on Linux.
    Duration::from_millis(ticks * 10)
}

async fn latency(way: Way, seconds: u32) -> (Duration, Duration) {
    let mut options = KinesisOptions::default();
    options.limits = Limits::aws();
    let aws = LocalAws::builder().kinesis_options(options).start().await.unwrap();
    let kinesis = aws.kinesis().clone();
    kinesis.create_stream(STREAM, SHARDS as u32).unwrap();
    let book = Book::new();
    let worker = Worker::start(source(&aws, way), Settings::default(), LeaseRuntime::OwnThread, &book);
    // Out of step with the polls.
    let interval = Duration::from_millis(53);
    let first = trickle(&kinesis, &book, (SHARDS, 100), (0, interval, SECOND * 7)).await;
    trickle(&kinesis, &book, (SHARDS, 100), (first, interval, SECOND * seconds)).await;
    sleep(SECOND).await;
    let late = (0..SHARDS).flat_map(|shard| book.page(shard)).filter(|delivery| delivery.number >= first);
    let times = late.map(|delivery| delivery.at - delivery.put).collect();
    worker.stop().await;
    quantiles(times)
}

/// Wall and CPU time for so many records per shard that lie there.
async fn throughput(way: Way, records: u64) -> (Duration, Duration) {
    let aws = LocalAws::builder().start().await.unwrap();
    let kinesis = aws.kinesis().clone();
    kinesis.create_stream(STREAM, SHARDS as u32).unwrap();
    let book = Book::new();
    for number in 0..records {
        for shard in 0..SHARDS {
            kinesis.put_record(STREAM, book.record(SHARDS, shard, number, BYTES)).unwrap();
        }
    }
    let (begun, before) = (Instant::now(), cpu());
    let worker = Worker::start(source(&aws, way), Settings::default(), LeaseRuntime::OwnThread, &book);
    while book.delivered() < SHARDS * records as usize {
        sleep(Duration::from_millis(5)).await;
    }
    let times = (begun.elapsed(), cpu() - before);
    worker.stop().await;
    times
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = argument("--seconds", 15) as u32;
    let records = argument("--records", 25_000);
    println!("put to process_records, {SHARDS} shards, limits of AWS, {seconds} s each");
    let mut polled = Duration::ZERO;
    for way in [Way::Polling, Way::FanOut] {
        let (p50, p99) = latency(way, seconds).await;
        println!("{:<10} p50 {p50:>10.1?}  p99 {p99:>10.1?}", format!("{way:?}"));
        match way {
            Way::Polling => polled = p50,
            Way::FanOut => {
                println!("fan-out takes {:.3} of polling's p50", p50.as_secs_f64() / polled.as_secs_f64())
            }
        }
    }
    let all = records * SHARDS as u64;
    println!("\n{all} records of {BYTES} bytes that lie there, {SHARDS} shards, no limits");
    let mut per_million = Vec::new();
    for round in 0..2 {
        for way in [Way::Polling, Way::FanOut] {
            let (wall, cpu) = throughput(way, records).await;
            let (million, megabytes) = (all as f64 / 1e6, (all * BYTES as u64) as f64 / 1e6);
            let (cpu, wall) = (cpu.as_secs_f64(), wall.as_secs_f64());
            println!(
                "{:<10} {:>6.2} s CPU per million records, {:>6.1} MB/s per core, {:>6.1} MB/s in all",
                format!("{way:?}"),
                cpu / million,
                megabytes / cpu,
                megabytes / wall
            );
            if round == 1 {
                per_million.push(cpu / million);
            }
        }
    }
    println!("fan-out takes {:.2} of polling's CPU", per_million[1] / per_million[0]);
}
