//! N real schedulers on one runtime, over `kcl-local`'s model of Kinesis and the memory store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kcl_core::lease::Lease;
use kcl_core::testing::{FaultyStore, MemoryStream};
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, Entropy, Error, InitialPosition, LeaseRuntime, RecordBatch,
    RecordProcessor, Scheduler, SchedulerBuilder, SchedulerHandle, Settings, ShardContext, ShardId,
    ShutdownReport, TokioClock, WorkerId,
};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{Kinesis, NewRecord, ShardFilter};
use kpl_aggregation::Aggregator;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::ledger::{Delivery, Ledger};

/// The stream every fleet reads.
pub const STREAM: &str = "orders";

/// When virtual time begins.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// How processors behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// The share of calls that fail.
    pub fail: f64,
    /// The share of calls that panic.
    pub panic: f64,
    /// How long a call takes at most.
    pub slowness: Duration,
    /// Whether the processor checkpoints after each batch.
    pub checkpoints: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { fail: 0.0, panic: 0.0, slowness: Duration::ZERO, checkpoints: true }
    }
}

/// A processor that keeps the ledger.
struct Clerk {
    worker: WorkerId,
    ledger: Ledger,
    store: MemoryLeaseStore,
    behaviour: Behaviour,
    entropy: Entropy,
    shard: ShardId,
}

impl Clerk {
    fn misbehave(&self) -> Result<(), BoxError> {
        let draw = self.entropy.unit();
        if draw < self.behaviour.panic {
            // A panic like any other, but for the hook, which would fill the log.
            std::panic::resume_unwind(Box::new("a panic on request"));
        }
        if draw < self.behaviour.panic + self.behaviour.fail {
            Err("a failure on request".into())
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl RecordProcessor for Clerk {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), BoxError> {
        self.misbehave()
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        let leases = by_shard(self.store.leases());
        let at = Instant::now();
        for record in batch.records() {
            let delivery = Delivery { worker: self.worker.clone(), shard: self.shard.clone(), at };
            self.ledger.deliver(record.data(), delivery, &leases);
        }
        if !self.behaviour.slowness.is_zero() {
            tokio::time::sleep(self.behaviour.slowness.mul_f64(self.entropy.unit())).await;
        }
        self.misbehave()?;
        if let Some(last) = batch.records().last() {
            self.ledger.acknowledge(&self.shard, last.position());
        }
        if self.behaviour.checkpoints {
            checkpointer.checkpoint().await?;
        }
        Ok(())
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        self.misbehave()?;
        checkpointer.checkpoint().await?;
        self.ledger.finish(&self.shard);
        Ok(())
    }
}

/// A worker that runs.
#[derive(Debug)]
pub struct Worker {
    /// Steers it.
    pub handle: SchedulerHandle,
    /// The store as this worker sees it.
    pub store: Arc<FaultyStore<MemoryLeaseStore>>,
    abort: AbortHandle,
}

/// The fleet.
#[derive(Debug)]
pub struct Fleet {
    /// The service.
    pub kinesis: Kinesis,
    /// The stream as all workers see it.
    pub stream: MemoryStream,
    /// The lease table.
    pub store: MemoryLeaseStore,
    /// What happened.
    pub ledger: Ledger,
    /// How processors behave that are made from now on.
    pub behaviour: Behaviour,
    /// The numbers of workers that are started from now on.
    pub settings: Settings,
    /// Where workers that are started from now on begin.
    pub initial: InitialPosition,
    /// Who stores checkpoints for workers that are started from now on.
    pub policy: CheckpointPolicy,
    entropy: Entropy,
    workers: BTreeMap<String, Worker>,
    tasks: JoinSet<(String, Result<ShutdownReport, Error>)>,
}

impl Fleet {
    /// Creates a fleet without workers and a stream of `shards` shards.
    ///
    /// # Panics
    /// If the model refuses the stream.
    #[must_use]
    pub fn new(seed: u64, shards: u32) -> Self {
        crate::log::init();
        let clock = kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + EPOCH);
        let kinesis = Kinesis::new(Arc::new(clock));
        kinesis.create_stream(STREAM, shards).expect("the stream is new");
        let entropy = Entropy::seeded(seed);
        Self {
            stream: MemoryStream::new(kinesis.clone(), STREAM).with_entropy(entropy.fork()),
            kinesis,
            store: MemoryLeaseStore::new(),
            ledger: Ledger::default(),
            behaviour: Behaviour::default(),
            settings: Settings::default(),
            initial: InitialPosition::TrimHorizon,
            policy: CheckpointPolicy::Manual,
            entropy,
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// A scheduler's builder with everything this fleet gives to its workers.
    #[must_use]
    pub fn builder(&self, worker: &str) -> (SchedulerBuilder, Arc<FaultyStore<MemoryLeaseStore>>) {
        let store = Arc::new(FaultyStore::new(self.store.clone(), self.entropy.fork()));
        let (ledger, behaviour, entropy) = (self.ledger.clone(), self.behaviour.clone(), self.entropy.fork());
        let (id, rows) = (WorkerId::from(worker), self.store.clone());
        let builder = Scheduler::builder("app")
            .coordination(kcl_core::Coordination::PerLease)
            .worker_id(worker)
            .stream(self.stream.clone())
            .lease_store(Arc::clone(&store))
            .processor(move |shard: &ShardContext| Clerk {
                worker: id.clone(),
                ledger: ledger.clone(),
                store: rows.clone(),
                behaviour: behaviour.clone(),
                entropy: entropy.fork(),
                shard: shard.shard.clone(),
            })
            .initial_position(self.initial)
            .checkpoint_policy(self.policy)
            .lease_runtime(LeaseRuntime::Shared)
            .settings(self.settings.clone())
            .clock(TokioClock::new(
                SystemTime::UNIX_EPOCH + EPOCH + Instant::now().duration_since(self.begun()),
            ))
            .entropy(self.entropy.fork());
        (builder, store)
    }

    fn begun(&self) -> Instant {
        let elapsed = self.kinesis.clock().now().duration_since(SystemTime::UNIX_EPOCH + EPOCH);
        Instant::now() - elapsed.unwrap_or_default()
    }

    /// Starts a worker.
    ///
    /// # Panics
    /// If the settings make no sense.
    pub fn start(&mut self, name: &str) {
        let (builder, store) = self.builder(name);
        let scheduler = builder.build().expect("the fleet's settings are sound");
        let handle = scheduler.handle();
        let task_name = name.to_owned();
        let abort = self.tasks.spawn(async move { (task_name, scheduler.run().await) });
        self.workers.insert(name.to_owned(), Worker { handle, store, abort });
    }

    /// A running worker.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn worker(&self, name: &str) -> &Worker {
        self.workers.get(name).expect("the worker runs")
    }

    /// The names of the running workers.
    #[must_use]
    pub fn workers(&self) -> Vec<String> {
        self.workers.keys().cloned().collect()
    }

    /// Kills a worker without warning.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn kill(&mut self, name: &str) {
        self.workers.remove(name).expect("the worker runs").abort.abort();
    }

    /// Stops a worker in order.
    ///
    /// # Panics
    /// If there is none of this name.
    pub async fn stop(&mut self, name: &str) -> ShutdownReport {
        let worker = self.workers.remove(name).expect("the worker runs");
        worker.handle.shutdown(Duration::from_secs(30)).await
    }

    /// Puts one record of each of `keys`, plain or aggregated.
    ///
    /// # Panics
    /// If the model refuses a record.
    pub fn put(&self, keys: &[&str]) {
        for key in keys {
            let payload = self.ledger.payload(key);
            self.kinesis.put_record(STREAM, NewRecord::new(*key, payload)).expect("no limits are set");
        }
    }

    /// Puts one record on each open shard.
    ///
    /// # Panics
    /// If the model refuses a record.
    pub fn put_on_each_shard(&self) {
        let open = self.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
        for start in open.iter().map(|shard| shard.hash_key_range.start) {
            // One key for each place, so that keys stay in order across splits and merges.
            let key = format!("at-{start}");
            let payload = self.ledger.payload(&key);
            let record = NewRecord::new(key, payload).with_explicit_hash_key(start);
            self.kinesis.put_record(STREAM, record).expect("no limits are set");
        }
    }

    /// Puts `count` records of one key as one KPL aggregate.
    ///
    /// # Panics
    /// If the model refuses the record.
    pub fn put_aggregate(&self, key: &str, count: usize) {
        let mut aggregator = Aggregator::new();
        for _ in 0..count {
            let payload = Bytes::from(self.ledger.payload(key));
            assert!(aggregator.add(key, None, payload).expect("small records fit").is_none());
        }
        if let Some(record) = aggregator.finish() {
            let record = NewRecord::new(key, record.data);
            self.kinesis.put_record(STREAM, record).expect("no limits are set");
        }
    }

    /// The lease table.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<ShardId, Lease> {
        by_shard(self.store.leases())
    }

    /// How many unfinished leases each worker owns.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<WorkerId, usize> {
        let mut counts = BTreeMap::new();
        for lease in self.store.leases().into_iter().filter(|lease| !lease.is_ended()) {
            if let Some(owner) = lease.owner {
                *counts.entry(owner).or_default() += 1;
            }
        }
        counts
    }

    /// Whether so many workers own unfinished leases, about as many each.
    #[must_use]
    pub fn is_balanced(&self, workers: usize) -> bool {
        let owners = self.owners();
        let (least, most) = (owners.values().min(), owners.values().max());
        owners.len() == workers && least.zip(most).is_none_or(|(least, most)| most - least <= 1)
    }

    /// Lets virtual time pass, checking the stored checkpoints as it does.
    ///
    /// # Panics
    /// If a worker ended with an error.
    pub async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100).min(end - Instant::now())).await;
            self.check();
        }
    }

    /// Lets virtual time pass until `done`, for `limit` at the most; returns how long it took.
    ///
    /// # Panics
    /// If `done` does not come true in time, or a worker ended with an error.
    #[track_caller]
    pub fn run_until<'a>(
        &'a mut self,
        limit: Duration,
        what: &'a str,
        done: impl Fn(&Self) -> bool + 'a,
    ) -> impl Future<Output = Duration> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            while !done(self) {
                assert!(
                    begun.elapsed() < limit,
                    "{caller}: not within {limit:?}: {what}; broken: {:?}; lost: {}; leases: {:#?}",
                    self.ledger.broken(),
                    self.ledger.lost().len(),
                    self.summary()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.check();
            }
            begun.elapsed()
        }
    }

    /// Lets virtual time pass until everything put was delivered.
    ///
    /// # Panics
    /// As [`Fleet::run_until`].
    #[track_caller]
    pub fn run_until_delivered(&mut self, limit: Duration) -> impl Future<Output = Duration> + '_ {
        self.run_until(limit, "everything delivered", |fleet| fleet.ledger.lost().is_empty())
    }

    fn check(&mut self) {
        self.ledger.check_leases(&self.leases());
        while let Some(done) = self.tasks.try_join_next() {
            // A task that was killed does not join.
            if let Ok((name, Err(error))) = done {
                let running = self.workers.contains_key(&name);
                assert!(!running, "worker {name} ended: {error:?}");
            }
        }
    }

    fn summary(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .leases()
            .values()
            .map(|l| {
                format!("{} owner={:?} counter={} checkpoint={}", l.shard, l.owner, l.counter, l.checkpoint)
            })
            .collect();
        for (name, worker) in &self.workers {
            let snapshot = worker.handle.snapshot();
            lines.push(format!("{name}: {:?}", snapshot.phase));
            for (shard, state) in snapshot.shards {
                let report = &state.report;
                lines.push(format!(
                    "  {shard}: {:?} for {:?}, valid for {:?}, failures {}, error {:?}",
                    report.stage,
                    report.since.elapsed(),
                    state.valid_for,
                    report.failures,
                    report.last_error
                ));
            }
        }
        lines
    }
}

fn by_shard(leases: Vec<Lease>) -> BTreeMap<ShardId, Lease> {
    leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect()
}
