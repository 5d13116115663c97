//! All processors of subscribed shards blocked, in virtual time. In a process of its own, whose memory is looked at.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a broken expectation ends the test; figures are shown; the processor is shared with other tests"
)]

#[path = "fan_out/support.rs"]
mod support;

use std::sync::Arc;
use std::time::SystemTime;

use kcl_core::testing::MemoryStream;
use kcl_core::{LeaseRuntime, Settings};
use kcl_local::kinesis::Kinesis;
use tokio::runtime::Handle;

use support::{Book, SECOND, STREAM, Worker, trickle};

const SHARDS: usize = 256;

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_six_blocked_shards_cost_no_task_no_memory_and_no_lease() {
    let clock = kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + SECOND * 1_700_000_000);
    let kinesis = Kinesis::new(Arc::new(clock));
    kinesis.create_stream(STREAM, SHARDS as u32).unwrap();
    let book = Book::new();
    let mut settings = Settings::default();
    settings.worker_buffer_bytes = 16 << 20;
    settings.shard_buffer_bytes = 1 << 20;
    let budget = settings.worker_buffer_bytes;
    let source = MemoryStream::new(kinesis.clone(), STREAM).with_consumer("app");
    let worker = Worker::start(source, settings, LeaseRuntime::Shared, &book);
    let first = trickle(&kinesis, &book, (SHARDS, 100), (0, SECOND, SECOND * 60)).await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(book.delivered(), SHARDS * first as usize, "all shards are read");

    // A burst fills every buffer, and a trickle goes on behind it.
    book.hold(SHARDS);
    let mut number = first;
    for _ in 0..16 {
        for shard in 0..SHARDS {
            kinesis.put_record(STREAM, book.record(SHARDS, shard, number, 32 << 10)).unwrap();
        }
        number += 1;
    }
    number = trickle(&kinesis, &book, (SHARDS, 100), (number, SECOND * 10, SECOND * 60)).await;
    let (tasks, memory) = (Handle::current().metrics().num_alive_tasks(), resident());
    let leases = worker.handle.snapshot().leases;
    for minute in 1..10 {
        number = trickle(&kinesis, &book, (SHARDS, 100), (number, SECOND * 10, SECOND * 60)).await;
        let buffered = worker.handle.snapshot().buffered_bytes();
        let (now, grown) =
            (Handle::current().metrics().num_alive_tasks(), resident().saturating_sub(memory) >> 20);
        println!("minute {minute}: {now} tasks, {} KiB read ahead, {grown} MiB more", buffered >> 10);
        assert_eq!(now, tasks, "tasks come or go while nothing moves");
        assert!(buffered <= budget + (SHARDS << 10), "{buffered} bytes are read ahead");
        assert!(grown < 32, "{grown} MiB more than at first");
    }
    assert_eq!(book.delivered(), SHARDS * first as usize, "nobody delivers");
    let after = worker.handle.snapshot().leases;
    let owners = |leases: &kcl_core::lease::LeaseTable| {
        leases.values().map(|lease| (lease.shard.clone(), lease.owner.clone())).collect::<Vec<_>>()
    };
    assert_eq!(owners(&leases), owners(&after), "no lease is lost");

    book.hold(0);
    let begun = tokio::time::Instant::now();
    while book.delivered() < SHARDS * number as usize {
        assert!(begun.elapsed() < SECOND * 120, "{} of {}", book.delivered(), SHARDS * number as usize);
        tokio::time::sleep(SECOND).await;
    }
    println!("caught up after {:?}", begun.elapsed());
    for shard in 0..SHARDS {
        book.assert_exactly(shard, number);
    }
    worker.stop().await;
}
