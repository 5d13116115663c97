//! Workers in processes of their own on one stream, and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use integration_tests::aws::{Aws, STREAM};
use integration_tests::ledger::Ledger;
use integration_tests::line::Line;
use kcl_core::fleet::worker_of;
use kcl_core::lease::{Consistency, Lease, LeaseStore as _};
use kcl_core::model::Checkpoint;
use kcl_core::{SequenceNumber, ShardId, WorkerId};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::kinesis::{Kinesis, NewRecord};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::account::{Account, Hold, holds};
use crate::worker::{Book, Worker};

/// The lease duration.
pub(crate) const D: Duration = Duration::from_secs(4);
/// How long before its end a lease counts as no longer valid for its holder.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);
/// How long anything may take on a machine that is busy with something else.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// What a machine that is busy with something else may add to a time that is promised.
pub(crate) const SLACK: Duration = Duration::from_secs(4);
/// The workers every fleet starts with.
pub(crate) const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];

const SHARDS: u32 = 8;
const KEYS: u32 = 4 * SHARDS;
/// A record for each key in this time.
const ROUND: Duration = Duration::from_millis(200);
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(800);
const LOOK: Duration = Duration::from_millis(50);

type Placed = Arc<Mutex<BTreeMap<ShardId, Vec<SequenceNumber>>>>;

pub(crate) struct Fleet {
    aws: Aws,
    store: DynamoLeaseStore,
    pub(crate) book: Book,
    workers: BTreeMap<&'static str, Worker>,
    ledger: Ledger,
    placed: Placed,
    producer: JoinSet<()>,
    stop: CancellationToken,
    begun: Instant,
}

impl Fleet {
    /// Starts the services, the producer and the workers, and waits until the leases are shared out.
    pub(crate) async fn start() -> Self {
        let aws = Aws::over_sockets().await.with_stream(SHARDS);
        let store = DynamoLeaseStore::new(aws.dynamodb(), integration_tests::aws::TABLE);
        let (ledger, placed, stop) = (Ledger::default(), Placed::default(), CancellationToken::new());
        let mut producer = JoinSet::new();
        let kinesis = aws.local.kinesis().clone();
        producer.spawn(produce(kinesis, ledger.clone(), Arc::clone(&placed), stop.clone()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, aws.local.port().unwrap()));
        let (book, mut workers) = (Book::default(), BTreeMap::new());
        for name in WORKERS {
            let worker = Worker::start(name, address, D, CHECKPOINT_INTERVAL, &book).await;
            workers.insert(name, worker);
        }
        let begun = Instant::now();
        let fleet = Self { aws, store, book, workers, ledger, placed, producer, stop, begun };
        fleet.settled().await;
        fleet
    }

    pub(crate) fn worker(&self, name: &str) -> &Worker {
        &self.workers[name]
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// No longer a worker of this fleet.
    pub(crate) fn take(&mut self, name: &str) -> Worker {
        self.workers.remove(name).unwrap()
    }

    /// Waits until `done`.
    pub(crate) async fn until(&self, limit: Duration, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self).await {
            if begun.elapsed() > limit {
                let (owners, lines) = (self.owners().await, self.book.lines());
                let is_rare = |line: &Line| !matches!(line, Line::Delivered { .. } | Line::Stored { .. });
                let rare: Vec<_> = lines.iter().filter(|(_, line)| is_rare(line)).collect();
                let last = &rare[rare.len().saturating_sub(20)..];
                panic!("not within {limit:?}: {what}; owners {owners:?}; last {last:#?}");
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until every worker has its share, to within one, and every shard is delivered by its owner.
    pub(crate) async fn settled(&self) {
        self.until(LIMIT, "every worker has its share", async |fleet| {
            let owners = fleet.owners().await;
            let share = |name: &str| owners.values().filter(|owner| worker_of(owner) == name).count();
            let shares: Vec<usize> = fleet.workers.keys().map(|name| share(name)).collect();
            let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
            let all = shares.iter().sum::<usize>() == SHARDS as usize;
            all && spread <= 1 && {
                let holds = fleet.holds();
                owners.iter().all(|(shard, owner)| {
                    let last = holds.get(shard).and_then(|holds| holds.last());
                    last.is_some_and(|hold| hold.worker == worker_of(owner) && !hold.records.is_empty())
                })
            }
        })
        .await;
    }

    /// Waits until this worker delivers from a shard of its own that it got after this time.
    pub(crate) async fn has_returned(&self, name: &str, after: Duration) {
        self.until(LIMIT, &format!("{name} has shards again"), async |fleet| {
            let owned = fleet.shards_of(name).await;
            let holds = fleet.holds();
            let is_new = |hold: &Hold| hold.worker == name && hold.at > after && !hold.records.is_empty();
            owned.iter().any(|shard| holds.get(shard).and_then(|holds| holds.last()).is_some_and(is_new))
        })
        .await;
    }

    pub(crate) fn holds(&self) -> BTreeMap<ShardId, Vec<Hold>> {
        holds(&self.book.lines())
    }

    /// Who owns what, by the table: full ids of members.
    pub(crate) async fn owners(&self) -> BTreeMap<ShardId, WorkerId> {
        let leases = self.leases().await;
        let owned = leases.into_values().filter_map(|lease| Some((lease.shard, lease.owner?)));
        owned.collect()
    }

    /// The shards of a worker, by the table.
    pub(crate) async fn shards_of(&self, name: &str) -> BTreeSet<ShardId> {
        let owned = self.owners().await.into_iter().filter(|(_, owner)| worker_of(owner) == name);
        owned.map(|(shard, _)| shard).collect()
    }

    async fn leases(&self) -> BTreeMap<ShardId, Lease> {
        // One page holds a thousand leases. The table is not there before a worker makes it.
        let Ok(page) = self.store.list(None, Consistency::Strong).await else { return BTreeMap::new() };
        page.leases.into_iter().map(|lease| (lease.shard.clone(), Arc::unwrap_or_clone(lease))).collect()
    }

    /// Waits until somebody else than `victim` delivers from each of these shards, after this time; when the first
    /// batch of the slowest began.
    pub(crate) async fn taken_over(
        &self,
        victim: &str,
        shards: &BTreeSet<ShardId>,
        after: Duration,
    ) -> Duration {
        let firsts = |fleet: &Self| -> Option<Vec<Duration>> {
            let holds = fleet.holds();
            let by_others = |shard: &ShardId| {
                let others = holds.get(shard)?.iter().filter(|hold| hold.worker != victim);
                others.filter_map(|hold| hold.records.first()).map(|(at, _)| *at).find(|at| *at > after)
            };
            shards.iter().map(by_others).collect()
        };
        let what = format!("others deliver the shards of {victim}");
        self.until(LIMIT, &what, async |fleet| firsts(fleet).is_some()).await;
        firsts(self).unwrap().into_iter().max().unwrap()
    }

    /// Stops the producer, waits until everything is delivered and checkpointed, stops the workers with SIGTERM and
    /// closes the books.
    pub(crate) async fn finish(mut self, title: &str, broken_off: &[&str]) -> Account {
        self.stop.cancel();
        while let Some(ended) = self.producer.join_next().await {
            ended.unwrap();
        }
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.until(LIMIT, "everything is checkpointed", async |fleet| {
            let leases = fleet.leases().await;
            placed.iter().all(|(shard, placed)| {
                let stored = leases.get(shard).map(|lease| lease.checkpoint);
                let position = stored.and_then(Checkpoint::position).map(|position| position.sequence);
                position == placed.last().copied()
            })
        })
        .await;
        let workers = std::mem::take(&mut self.workers);
        for worker in workers.values() {
            worker.signal(Signal::TERM);
        }
        for (name, worker) in workers {
            let status = worker.ended(LIMIT).await;
            assert!(status.success(), "{name}: {status}");
        }
        let leases = self.leases().await;
        assert!(leases.values().all(|lease| lease.owner.is_none()), "every lease is released: {leases:?}");
        let lines = self.book.lines().clone();
        let account = Account::close(&lines, &placed, (&self.ledger, &leases), broken_off);
        println!("{title}: {account}; {:.1} s", self.begun.elapsed().as_secs_f64());
        drop(self.aws);
        account
    }
}

/// Puts the next record of one key after the other until it is told to stop.
async fn produce(kinesis: Kinesis, ledger: Ledger, placed: Placed, stop: CancellationToken) {
    let mut tick = interval(ROUND / KEYS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for key in (0..KEYS).cycle() {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let width = u128::MAX / u128::from(SHARDS);
        let hash_key = width * u128::from(key % SHARDS) + width / 2;
        let name = format!("key-{key}");
        let record = NewRecord::new(name.as_str(), ledger.payload(&name)).with_explicit_hash_key(hash_key);
        let placement = kinesis.put_record(STREAM, record).unwrap();
        let sequence = placement.sequence_number.to_string().parse().unwrap();
        let mut placed = placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.entry(ShardId::from(&*placement.shard_id)).or_default().push(sequence);
    }
}
