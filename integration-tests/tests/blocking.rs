//! A processor that blocks every thread of its runtime, in real time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]
#![allow(
    clippy::disallowed_methods,
    reason = "the test is about threads that sleep, and watches from a thread"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kcl_core::WorkerId;
use kcl_core::fleet::{FleetRowKey, worker_of};
use kcl_core::lease::{Consistency, LeaseStore as _};
use kcl_core::testing::MemoryStream;
use kcl_core::{
    BoxError, Checkpointer, Event, LeaseRuntime, RecordBatch, RecordProcessor, Scheduler, SchedulerBuilder,
    Settings, ShardContext, ShardOutcome,
};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::clock::SystemClock;
use kcl_local::kinesis::{Kinesis, NewRecord};
use tokio::runtime::{Builder, Handle, Runtime};

const LEASE: Duration = Duration::from_secs(1);
/// Two and a half lease durations.
const BLOCKED: Duration = Duration::from_millis(2500);
const THREADS: usize = 2;
const SHARD: &str = "shardId-000000000000";

/// Blocks, with its first batch, the thread it is called on and every other thread of the runtime.
struct Blocker {
    blocked: Arc<AtomicBool>,
    records: Arc<AtomicU64>,
}

#[async_trait]
impl RecordProcessor for Blocker {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        if !self.blocked.swap(true, Ordering::SeqCst) {
            let until = Instant::now() + BLOCKED;
            let block = move || thread::sleep(until.saturating_duration_since(Instant::now()));
            // More than there are threads: whichever is free takes the next.
            for _ in 0..THREADS * 2 {
                Handle::current().spawn(async move { block() });
            }
            block();
        }
        self.records.fetch_add(batch.records().len() as u64, Ordering::SeqCst);
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap()
}

fn builder(worker: &str, stream: &MemoryStream, store: &MemoryLeaseStore) -> SchedulerBuilder {
    let mut settings = Settings::default();
    settings.lease_duration = LEASE;
    settings.lease_safety_margin = LEASE / 10;
    settings.lease_scan_interval = LEASE * 2 / 5;
    Scheduler::builder("app")
        .worker_id(worker)
        .stream(stream.clone())
        .lease_store(store.clone())
        .lease_runtime(LeaseRuntime::OwnThread)
        .settings(settings)
}

fn wait_until(what: &str, limit: Duration, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn incident_11_a_processor_that_blocks_every_runtime_thread_for_two_lease_durations_keeps_its_leases() {
    let kinesis = Kinesis::new(Arc::new(SystemClock));
    kinesis.create_stream("orders", 1).unwrap();
    let stream = MemoryStream::new(kinesis.clone(), "orders");
    let store = MemoryLeaseStore::new();
    let put = || {
        kinesis.put_record("orders", NewRecord::new("key", "record")).unwrap();
    };

    let blocking = runtime();
    let (blocked, records) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let factory = {
        let (blocked, records) = (Arc::clone(&blocked), Arc::clone(&records));
        move |_: &ShardContext| Blocker { blocked: Arc::clone(&blocked), records: Arc::clone(&records) }
    };
    let alpha = builder("alpha", &stream, &store).processor(factory.clone()).build().unwrap();
    let (holder, mut holder_events) = (alpha.handle(), alpha.handle().events());
    let alpha = blocking.spawn(alpha.run());
    let owner = || {
        let owner = store.leases().first().and_then(|lease| lease.owner.clone());
        owner.map(|owner| WorkerId::from(worker_of(&owner)))
    };
    wait_until("alpha holds the shard", LEASE * 10, || owner() == Some("alpha".into()));

    let watching = runtime();
    let beta = builder("beta", &stream, &store).processor(factory).build().unwrap();
    let (observer, mut observer_events) = (beta.handle(), beta.handle().events());
    let beta = watching.spawn(beta.run());
    wait_until("beta watches", LEASE * 10, || observer.snapshot().leases.contains_key(SHARD));

    // Beats on the runtime that is blocked: the longest pause between two shows that it was.
    let beats = blocking.spawn(async {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while longest < BLOCKED / 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });

    put();
    wait_until("the processor blocks", LEASE * 10, || blocked.load(Ordering::SeqCst));
    let begun = Instant::now();
    // A member renews all its leases by one heartbeat.
    let heartbeat = || {
        let row =
            watching.block_on(store.fleet_row(FleetRowKey::FIRST, Consistency::Strong)).unwrap().unwrap();
        let alpha = row.workers.into_iter().find(|(member, _)| worker_of(member) == "alpha");
        alpha.unwrap().1.heartbeat
    };
    let before = heartbeat();
    while begun.elapsed() < BLOCKED - LEASE / 5 {
        assert_eq!(owner(), Some("alpha".into()), "after {:?}", begun.elapsed());
        assert_eq!(records.load(Ordering::SeqCst), 0, "the callback has not returned");
        thread::sleep(Duration::from_millis(20));
    }
    let renewals = heartbeat() - before;
    assert!(renewals >= 4, "renewed every third of the lease duration: {renewals} times");
    let longest = watching.block_on(beats).unwrap();
    assert!(longest >= LEASE * 2, "the runtime was blocked: {longest:?}");

    put();
    wait_until("delivery goes on", LEASE * 5, || records.load(Ordering::SeqCst) == 2);
    assert_eq!(owner(), Some("alpha".into()));
    while let Ok(event) = holder_events.try_recv() {
        assert!(!matches!(event, Event::LeaseLost { .. }), "{event:?}");
    }
    while let Ok(event) = observer_events.try_recv() {
        assert!(!matches!(event, Event::LeaseAcquired { .. }), "{event:?}");
    }
    assert!(observer.snapshot().shards.is_empty());

    // The observer leaves first, so that it does not take what the holder gives back.
    watching.block_on(observer.shutdown(LEASE * 5));
    watching.block_on(beta).unwrap().unwrap();
    let report = watching.block_on(holder.shutdown(LEASE * 5));
    assert_eq!(report.shards[SHARD], ShardOutcome::Released);
    watching.block_on(alpha).unwrap().unwrap();
    assert!(store.leases()[0].checkpoint.position().is_some());
}
