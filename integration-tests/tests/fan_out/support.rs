//! A processor that notes what it is given and can be held, and the worker around it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kcl_core::source::StreamSource;
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, Error, LeaseRuntime, RecordBatch, RecordProcessor, Scheduler,
    SchedulerHandle, Settings, ShardContext, ShutdownReport,
};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{Kinesis, NewRecord};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) const STREAM: &str = "orders";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A record that was delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    /// Its number among those of its shard.
    pub(crate) number: u64,
    /// When it was put, and when delivered.
    pub(crate) put: Instant,
    pub(crate) at: Instant,
}

/// What all processors are given. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    begun: Instant,
    pages: Arc<Mutex<BTreeMap<usize, Vec<Delivery>>>>,
    /// The shards below this number are held.
    held: watch::Sender<usize>,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), pages: Arc::default(), held: watch::Sender::new(0) }
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Delivery>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was delivered of a shard, in order.
    pub(crate) fn page(&self, shard: usize) -> Vec<Delivery> {
        self.pages().get(&shard).cloned().unwrap_or_default()
    }

    pub(crate) fn delivered(&self) -> usize {
        self.pages().values().map(Vec::len).sum()
    }

    /// Has the callbacks of the shards below this number wait.
    pub(crate) fn hold(&self, shards: usize) {
        self.held.send_replace(shards);
    }

    /// A record of this number, put now, with so many bytes.
    pub(crate) fn record(&self, shards: usize, shard: usize, number: u64, bytes: usize) -> NewRecord {
        let put = u64::try_from(self.begun.elapsed().as_nanos()).unwrap();
        let mut data = vec![0; bytes.max(16)];
        data[..8].copy_from_slice(&number.to_be_bytes());
        data[8..16].copy_from_slice(&put.to_be_bytes());
        let width = u128::MAX / shards as u128;
        let mut record = NewRecord::new("key", Bytes::from(data));
        record.explicit_hash_key = Some(width * shard as u128 + width / 2);
        record
    }

    /// Whether exactly the records 0 to `count` of a shard were delivered, once each and in order.
    pub(crate) fn assert_exactly(&self, shard: usize, count: u64) {
        let numbers: Vec<u64> = self.page(shard).iter().map(|delivery| delivery.number).collect();
        let doubled = numbers.windows(2).filter(|pair| pair[1] <= pair[0]).count();
        let lost = (0..count).filter(|number| !numbers.contains(number)).count();
        let got = numbers.len();
        assert!(doubled == 0 && lost == 0, "shard {shard}: {got} of {count}, {doubled} doubled, {lost} lost");
    }
}

struct Clerk {
    book: Book,
    shard: usize,
}

#[async_trait]
impl RecordProcessor for Clerk {
    async fn process_records(&mut self, batch: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        let mut held = self.book.held.subscribe();
        held.wait_for(|&held| self.shard >= held).await?;
        let at = Instant::now();
        let delivery = |record: &kcl_core::Record| -> Result<Delivery, BoxError> {
            let data = record.data();
            let number = u64::from_be_bytes(data[..8].try_into()?);
            let put = Duration::from_nanos(u64::from_be_bytes(data[8..16].try_into()?));
            Ok(Delivery { number, put: self.book.begun + put, at })
        };
        let deliveries = batch.records().iter().map(delivery).collect::<Result<Vec<_>, _>>()?;
        self.book.pages().entry(self.shard).or_default().extend(deliveries);
        Ok(())
    }
}

/// A worker that runs.
pub(crate) struct Worker {
    pub(crate) handle: SchedulerHandle,
    run: JoinSet<Result<ShutdownReport, Error>>,
}

impl Worker {
    pub(crate) fn start(
        source: impl StreamSource,
        settings: Settings,
        runtime: LeaseRuntime,
        book: &Book,
    ) -> Self {
        integration_tests::log::init();
        let book = book.clone();
        let scheduler = Scheduler::builder("app")
            .worker_id("alpha")
            .stream(source)
            .lease_store(MemoryLeaseStore::new())
            .lease_runtime(runtime)
            .checkpoint_policy(CheckpointPolicy::AfterBatch)
            .settings(settings)
            .processor(move |context: &ShardContext| {
                let number = context.shard.as_str().trim_start_matches("shardId-");
                Clerk { book: book.clone(), shard: number.parse().unwrap() }
            })
            .build()
            .unwrap();
        let handle = scheduler.handle();
        let mut run = JoinSet::new();
        run.spawn(scheduler.run());
        Self { handle, run }
    }

    pub(crate) async fn stop(mut self) {
        let report = self.handle.shutdown(SECOND * 20).await;
        while self.run.join_next().await.is_some() {}
        assert!(report.is_clean(), "{report}");
    }
}

/// Puts records of this size to every shard at this interval, for so long; returns how many to each.
pub(crate) async fn trickle(
    kinesis: &Kinesis,
    book: &Book,
    (shards, bytes): (usize, usize),
    (first, interval, time): (u64, Duration, Duration),
) -> u64 {
    let (begun, mut number) = (Instant::now(), first);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while begun.elapsed() < time {
        ticks.tick().await;
        for shard in 0..shards {
            kinesis.put_record(STREAM, book.record(shards, shard, number, bytes)).unwrap();
        }
        number += 1;
    }
    number
}

/// The quantiles of what is sorted here.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    (at(50).copied().unwrap_or_default(), at(99).copied().unwrap_or_default())
}
