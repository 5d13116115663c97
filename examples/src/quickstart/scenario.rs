use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use kcl_core::lease::{Consistency, LeaseStore as _, LossReason};
use kcl_core::model::Checkpoint;
use kcl_core::{BoxError, Coordination, Entropy, Event, Settings, ShardId, Snapshot};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::kinesis::Limits;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::ledger::{Account, Ledger};
use super::options::{Options, Reading};
use super::picture::{Picture, short};
use super::producer::Producer;
use super::screen::Screen;
use super::shard_map::ShardMap;
use super::worker::Worker;

const STREAM: &str = "measurements";
const APPLICATION: &str = "quickstart";
const SHARDS: i32 = 4;
/// Shorter than the default of 10 s, so that the end of a killed worker's leases is not most of the show.
const LEASE_DURATION: Duration = Duration::from_secs(4);
/// How often the screen is drawn and the workers are looked after.
const TICK: Duration = Duration::from_millis(250);
/// How long the last worker may take to deliver what was put, beyond the duration.
const REST: Duration = Duration::from_secs(30);
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the scenario to its end and returns the closed books.
///
/// # Errors
/// A call that failed for good, or a worker that stopped by itself. Records that are lost or out of order are not
/// errors but entries of the account: see [`Account::problems`].
pub async fn run(options: &Options, screen: &mut Screen) -> Result<Account, BoxError> {
    let mut scenario = Scenario::start(options, screen).await?;
    let at = |fraction: f64| options.duration.mul_f64(fraction);
    scenario.start_worker("A").await?;
    scenario.until(at(0.20)).await?;
    scenario.start_worker("B").await?;
    scenario.until(at(0.35)).await?;
    scenario.split().await?;
    scenario.until(at(0.50)).await?;
    scenario.merge().await?;
    scenario.until(at(0.65)).await?;
    scenario.kill_first_worker().await?;
    scenario.until(at(0.90)).await?;
    scenario.finish().await
}

struct Scenario<'a> {
    aws: LocalAws,
    kinesis: Client,
    ledger: Ledger,
    settings: Settings,
    entropy: Entropy,
    coordination: Coordination,
    reading: Reading,
    producer: JoinSet<Result<(), BoxError>>,
    stop_producer: CancellationToken,
    workers: Vec<Worker>,
    screen: &'a mut Screen,
    started: Instant,
}

impl<'a> Scenario<'a> {
    async fn start(options: &Options, screen: &'a mut Screen) -> Result<Self, BoxError> {
        let aws = LocalAws::start().await?;
        aws.kinesis().configure(|kinesis| {
            kinesis.limits = Limits::aws();
            kinesis.reshard_delay = Duration::from_millis(500);
        });
        let kinesis = Client::new(&aws.sdk_config());
        kinesis.create_stream().stream_name(STREAM).shard_count(SHARDS).send().await?;

        let mut settings = Settings::default();
        settings.lease_duration = LEASE_DURATION;
        settings.lease_safety_margin = Duration::from_millis(500);
        settings.lease_scan_interval = Duration::from_secs(1);

        let ledger = Ledger::default();
        let stop_producer = CancellationToken::new();
        let mut producer = JoinSet::new();
        let writing = Producer::new(kinesis.clone(), STREAM, ledger.clone(), options.seed).await?;
        producer.spawn(writing.run(stop_producer.clone()));

        let entropy = Entropy::seeded(options.seed);
        let (workers, started) = (Vec::new(), Instant::now());
        let mut scenario = Self {
            aws,
            kinesis,
            ledger,
            settings,
            entropy,
            coordination: options.coordination,
            reading: options.reading,
            producer,
            stop_producer,
            workers,
            screen,
            started,
        };
        let url = scenario.aws.endpoint_url().to_owned();
        scenario.say(format_args!("local Kinesis and DynamoDB at {url}, with AWS's limits"))?;
        scenario.say(format_args!(
            "stream {STREAM:?} with {SHARDS} shards; leases last {LEASE_DURATION:?} here, by default 10s"
        ))?;
        Ok(scenario)
    }

    fn say(&mut self, message: impl fmt::Display) -> io::Result<()> {
        self.screen.say(self.started.elapsed(), message)
    }

    /// Lets the fleet work until this long after the start.
    async fn until(&mut self, elapsed: Duration) -> Result<(), BoxError> {
        self.watch(elapsed, |_| false).await.map(drop)
    }

    /// Shows the fleet until this long after the start, or until `done`; says whether it was done.
    async fn watch(&mut self, until: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, BoxError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look_after()?;
            if done(self) {
                return Ok(true);
            }
            if self.started.elapsed() >= until {
                return Ok(false);
            }
        }
    }

    /// Passes on what happened since the last time and shows how things stand.
    fn look_after(&mut self) -> Result<(), BoxError> {
        let elapsed = self.started.elapsed();
        for worker in &mut self.workers {
            if let Some(failure) = worker.failure() {
                return Err(failure);
            }
            loop {
                match worker.events.try_recv() {
                    Ok(event) => {
                        if let Some(text) = told(&event) {
                            self.screen.say(elapsed, format_args!("  {}: {text}", worker.name))?;
                        }
                    }
                    Err(TryRecvError::Lagged(_)) => {}
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        if let Some(ended) = self.producer.try_join_next() {
            ended??;
        }
        let snapshots: Vec<Snapshot> = self.workers.iter().map(|worker| worker.handle.snapshot()).collect();
        self.screen.show(&Picture::of(elapsed, &snapshots, &self.ledger))?;
        Ok(())
    }

    async fn start_worker(&mut self, name: &'static str) -> Result<(), BoxError> {
        self.say(format_args!("worker {name} joins"))?;
        let worker = Worker::start(
            name,
            &self.aws,
            (STREAM, APPLICATION),
            (self.settings.clone(), self.entropy.fork(), self.coordination, self.reading),
            &self.ledger,
        )?;
        self.workers.push(worker);
        Ok(())
    }

    /// Splits the lowest shard in the middle.
    async fn split(&mut self) -> Result<(), BoxError> {
        let shards = ShardMap::load(&self.kinesis, STREAM).await?;
        let (shard, range) = *shards.open().first().ok_or("no shard is open")?;
        let middle = range.start() + (range.end() - range.start()) / 2 + 1;
        self.say(format_args!("{} is split", short(&shard.into())))?;
        self.kinesis
            .split_shard()
            .stream_name(STREAM)
            .shard_to_split(shard)
            .new_starting_hash_key(middle.to_string())
            .send()
            .await?;
        Ok(())
    }

    /// Merges the two highest shards.
    async fn merge(&mut self) -> Result<(), BoxError> {
        let shards = ShardMap::load(&self.kinesis, STREAM).await?;
        let open = shards.open();
        let [.., (one, _), (other, _)] = *open else { return Err("fewer than two shards are open".into()) };
        self.say(format_args!("{} and {} are merged", short(&one.into()), short(&other.into())))?;
        self.kinesis
            .merge_shards()
            .stream_name(STREAM)
            .shard_to_merge(one)
            .adjacent_shard_to_merge(other)
            .send()
            .await?;
        Ok(())
    }

    async fn kill_first_worker(&mut self) -> Result<(), BoxError> {
        let worker = self.workers.remove(0);
        let (name, held) = (worker.name, worker.handle.snapshot().shards.len());
        worker.kill().await;
        self.say(format_args!(
            "worker {name} is killed; the leases it held ({held}) run out within {LEASE_DURATION:?}"
        ))?;
        Ok(())
    }

    /// Lets the last worker deliver the rest, shuts it down and closes the books.
    async fn finish(mut self) -> Result<Account, BoxError> {
        self.stop_producer.cancel();
        while let Some(ended) = self.producer.join_next().await {
            ended??;
        }
        self.say("the producer stops")?;
        let until = self.started.elapsed() + REST;
        if !self.watch(until, |scenario| scenario.ledger.totals().awaited == 0).await? {
            self.say(format_args!("not everything was delivered {REST:?} after the producer stopped"))?;
        }
        let mut clean = true;
        let mut snapshots = Vec::new();
        let bills = self.workers.iter().filter_map(|worker| worker.handle.snapshot().bill);
        let bills: Vec<String> = bills.map(|bill| bill.to_string()).collect();
        for worker in std::mem::take(&mut self.workers) {
            let report = worker.handle.shutdown(SHUTDOWN_DEADLINE).await;
            clean &= report.is_clean();
            snapshots.push(worker.handle.snapshot());
            self.say(format_args!("worker {} is shut down: {report}", worker.name))?;
        }
        let checkpoints = self.stored_checkpoints().await?;
        self.say(format_args!("done; {} leases in the table", checkpoints.len()))?;
        self.screen.show(&Picture::of(self.started.elapsed(), &snapshots, &self.ledger))?;
        for bill in bills {
            self.say("what a worker asked of the lease table")?;
            for line in bill.lines() {
                self.say(format_args!("  {line}"))?;
            }
        }
        Ok(self.ledger.close(&checkpoints, clean))
    }

    /// What the table says, read with a client that no worker used.
    async fn stored_checkpoints(&self) -> Result<BTreeMap<ShardId, Checkpoint>, BoxError> {
        let client = aws_sdk_dynamodb::Client::new(&self.aws.sdk_config());
        let store = DynamoLeaseStore::new(client, APPLICATION).with_consistent_lists(true);
        let mut checkpoints = BTreeMap::new();
        let mut page = None;
        loop {
            let listed = store.list(page, Consistency::Strong).await?;
            checkpoints.extend(listed.leases.iter().map(|lease| (lease.shard.clone(), lease.checkpoint)));
            page = listed.next;
            if page.is_none() {
                return Ok(checkpoints);
            }
        }
    }
}

/// What an event has to tell to somebody who watches.
fn told(event: &Event) -> Option<String> {
    Some(match event {
        Event::LeaseAcquired { shard, reason } => format!("got {} ({reason})", short(shard)),
        // The end of a shard has its own event.
        Event::LeaseLost { reason: LossReason::Ended, .. } => return None,
        Event::LeaseLost { shard, reason: LossReason::Released } => format!("handed {} over", short(shard)),
        Event::LeaseLost { shard, reason } => format!("lost {} ({reason:?})", short(shard)),
        Event::ShardEnded { shard, children } => {
            let children: Vec<_> = children.iter().map(short).collect();
            format!("finished {}; children: {}", short(shard), children.join(", "))
        }
        Event::CallbackFailed { shard, callback, error, .. } => {
            format!("{callback} on {} failed: {error}", short(shard))
        }
        Event::DataLoss { shard, reason, .. } => format!("DATA LOSS on {}: {reason}", short(shard)),
        Event::RecordsOutOfRange { shard, records } => {
            format!("dropped {records} records of other shards in {}; put again", short(shard))
        }
        Event::ReaderFailing { shard, error, .. } => format!("cannot read {}: {error}", short(shard)),
        Event::ConsumerRepaired { shard, reason } => format!("repaired {}: {reason}", short(shard)),
        Event::Stalled { shard, stage, .. } => format!("{} stalled in {stage}", short(shard)),
        _ => return None,
    })
}
