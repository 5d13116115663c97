//! Blocked shards beside others, over HTTP/2 sockets and in real time.

use std::time::Duration;

use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{LeaseRuntime, Settings};
use kcl_local::LocalAws;
use tokio::time::{Instant, sleep};

use crate::support::{Book, Delivery, SECOND, STREAM, Worker, quantiles, trickle};

const SHARDS: usize = 64;
const BLOCKED: usize = 16;
const INTERVAL: Duration = Duration::from_millis(100);

/// Which part of the records of free shards, put within a time, was delivered within a second, and how fast.
fn flow(book: &Book, from: Instant, to: Instant, put: u64) -> (f64, Duration, Duration) {
    let within = |delivery: &Delivery| (from..to).contains(&delivery.put);
    let taken: Vec<Duration> = (BLOCKED..SHARDS)
        .flat_map(|shard| book.page(shard))
        .filter(within)
        .map(|delivery| delivery.at - delivery.put)
        .collect();
    let prompt = taken.iter().filter(|time| **time <= SECOND).count();
    let (p50, p99) = quantiles(taken);
    (prompt as f64 / (put * (SHARDS - BLOCKED) as u64) as f64, p50, p99)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_blocked_shards_do_not_slow_the_other_forty_eight() {
    let aws = LocalAws::builder().start().await.unwrap();
    let kinesis = aws.kinesis().clone();
    kinesis.create_stream(STREAM, SHARDS as u32).unwrap();
    let book = Book::new();
    let mut settings = Settings::default();
    settings.shard_buffer_bytes = 1 << 20;
    settings.worker_buffer_bytes = 128 << 20;
    let budget = settings.worker_buffer_bytes;
    let client = aws_sdk_kinesis::Client::new(&aws.sdk_config());
    let fan_out = FanOutConfig::new(FanOutConsumer::Named("app".into()));
    let source = KinesisStream::new(client, STREAM).with_retrieval(Retrieval::FanOut(fan_out));
    let worker = Worker::start(source, settings, LeaseRuntime::OwnThread, &book);
    // Until all have subscribed.
    let mut number = trickle(&kinesis, &book, (SHARDS, 1_000), (0, INTERVAL, SECOND * 5)).await;
    sleep(SECOND * 2).await;
    assert_eq!(book.delivered(), SHARDS * number as usize, "all shards are read");

    let (before, first) = (Instant::now(), number);
    number = trickle(&kinesis, &book, (SHARDS, 1_000), (number, INTERVAL, SECOND * 10)).await;
    let undisturbed = flow(&book, before, Instant::now() - SECOND, (number - first) * 9 / 10);

    book.hold(BLOCKED);
    // More than buffers and windows hold: unread, it would stop every subscription on a shared connection.
    for _ in 0..16 {
        for shard in 0..BLOCKED {
            kinesis.put_record(STREAM, book.record(SHARDS, shard, number, 256 << 10)).unwrap();
        }
        for shard in BLOCKED..SHARDS {
            kinesis.put_record(STREAM, book.record(SHARDS, shard, number, 1_000)).unwrap();
        }
        number += 1;
    }
    sleep(SECOND * 3).await;
    let mut worst = f64::MAX;
    let blocked_from = Instant::now();
    for _ in 0..10 {
        let (from, first) = (Instant::now(), number);
        number = trickle(&kinesis, &book, (SHARDS, 1_000), (number, INTERVAL, SECOND * 6)).await;
        let to = Instant::now();
        sleep(SECOND).await;
        let (share, p50, p99) = flow(&book, from, to, number - first);
        println!("beside blocked shards: {:.1} % within a second, p50 {p50:?}, p99 {p99:?}", share * 100.0);
        worst = worst.min(share);
        let buffered = worker.handle.snapshot().buffered_bytes();
        assert!(buffered <= budget, "{buffered} bytes are read ahead");
    }
    let (share, p50, p99) = undisturbed;
    println!("before: {:.1} % within a second, p50 {p50:?}, p99 {p99:?}", share * 100.0);
    println!("blocked for {:?}", blocked_from.elapsed());
    assert!(worst >= 0.95, "{:.1} % of the rate are left", worst * 100.0);

    book.hold(0);
    let begun = Instant::now();
    while book.delivered() < SHARDS * number as usize {
        assert!(begun.elapsed() < SECOND * 30, "{} of {}", book.delivered(), SHARDS * number as usize);
        sleep(SECOND / 10).await;
    }
    println!("the blocked ones caught up after {:?}", begun.elapsed());
    for shard in 0..SHARDS {
        book.assert_exactly(shard, number);
    }
    worker.stop().await;
}
