//! Workers that coordinate as a fleet, in virtual time: what users were promised, in numbers.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the test; figures are shown"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kcl_core::lease::{Consistency, LeaseStore as _, StoreOperation};
use kcl_core::testing::{Fault, FaultRule, FaultyStore, MemoryStream, Recorder, World};
use kcl_core::{Callback, CheckpointPolicy, Coordination, Entropy, Position, SchedulerBuilder, ShardId};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{Kinesis, NewRecord};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// The default lease duration.
const D: Duration = Duration::from_secs(10);
const STREAM: &str = "stream";

struct Bench {
    world: World,
    rows: MemoryLeaseStore,
    store: FaultyStore<MemoryLeaseStore>,
    processors: Recorder,
    kinesis: Kinesis,
}

impl Bench {
    /// A stream, and a lease table whose calls take 4 to 20 ms.
    fn new(seed: u64, shards: u32) -> Self {
        let clock =
            kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let kinesis = Kinesis::new(Arc::new(clock));
        kinesis.create_stream(STREAM, shards).unwrap();
        let rows = MemoryLeaseStore::new();
        let slow = FaultyStore::new(rows.clone(), Entropy::seeded(seed));
        slow.add(FaultRule::new(Fault::Delay { before: MS * 2..MS * 10, after: MS * 2..MS * 10 }));
        let processors = Recorder::new();
        let app = processors.clone();
        let stream = MemoryStream::new(kinesis.clone(), STREAM).skipping_idle_polls();
        stream.set_latency(MS * 10);
        let world = World::over(
            seed,
            move || stream.clone(),
            slow.clone(),
            move |_, worker: SchedulerBuilder| {
                worker
                    .processor(app.clone())
                    .checkpoint_policy(CheckpointPolicy::AfterBatch)
                    .coordination(Coordination::Fleet)
            },
        );
        Self { world, rows, store: slow, processors, kinesis }
    }

    fn start(&mut self, names: impl IntoIterator<Item = impl AsRef<str>>) {
        for name in names {
            self.world.start(name.as_ref()).unwrap();
        }
    }

    /// Runs until `done`, looked at every half second, which takes much less than the world's own looks.
    async fn until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&World) -> bool) -> Duration {
        let begun = Instant::now();
        while !done(&self.world) {
            assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
            self.world.run_for(MS * 500).await.unwrap();
        }
        begun.elapsed()
    }

    /// Puts a record to every shard every 50 ms from now on.
    fn traffic(&self, shards: u32) -> tokio::task::JoinHandle<()> {
        let kinesis = self.kinesis.clone();
        #[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            let width = u128::MAX / u128::from(shards);
            loop {
                for shard in 0..shards {
                    let mut record = NewRecord::new("key", "payload");
                    record.explicit_hash_key = Some(width * u128::from(shard) + width / 2);
                    kinesis.put_record(STREAM, record).unwrap();
                }
                tokio::time::sleep(MS * 50).await;
            }
        })
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("w{n:02}")).collect()
}

fn spread(world: &World) -> usize {
    let owned: Vec<usize> = world.workers().iter().map(|name| world.owned(name)).collect();
    owned.iter().max().unwrap() - owned.iter().min().unwrap()
}

/// What became of the shards: pauses between batches where the processor changed, duplicates, and moves of each.
fn outcome(processors: &Recorder) -> (Vec<Duration>, usize, BTreeMap<ShardId, usize>) {
    let (mut pauses, mut duplicates, mut moves) = (Vec::new(), 0, BTreeMap::new());
    let mut last: BTreeMap<ShardId, (u64, Instant)> = BTreeMap::new();
    let mut seen: BTreeMap<ShardId, BTreeSet<Position>> = BTreeMap::new();
    for call in processors.calls() {
        if call.callback != Callback::ProcessRecords {
            continue;
        }
        for position in &call.positions {
            duplicates += usize::from(!seen.entry(call.shard.clone()).or_default().insert(*position));
        }
        if let Some((instance, at)) = last.get(&call.shard)
            && *instance != call.instance
        {
            pauses.push(call.began - *at);
            *moves.entry(call.shard.clone()).or_default() += 1;
        }
        last.insert(call.shard.clone(), (call.instance, call.ended.unwrap_or(call.began)));
    }
    pauses.sort_unstable();
    (pauses, duplicates, moves)
}

async fn deployment(surge: bool, seed: u64) {
    let mut bench = Bench::new(seed, 64);
    bench.start(names(4));
    bench.until(SECOND * 30, "balanced", |world| world.owned_in_all() == 64 && spread(world) <= 1).await;
    // A fleet that has been at rest for a while, as those are that something new is deployed to.
    bench.world.run_for(SECOND * 960).await.unwrap();
    let _traffic = bench.traffic(64);
    bench.world.run_for(SECOND * 10).await.unwrap();
    let before = bench.processors.calls().len();
    for name in names(4) {
        let new = format!("new-{name}");
        if surge {
            bench.start([&new]);
            bench.world.handle(&new).unwrap().ready().await;
            bench.world.run_for(SECOND * 3).await.unwrap();
        }
        let report = bench.world.stop(&name, SECOND * 30).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        if !surge {
            bench.start([&new]);
            bench.world.handle(&new).unwrap().ready().await;
        }
        let settled = |world: &World| world.owned_in_all() == 64 && spread(world) <= 1;
        bench.until(SECOND * 30, "balanced again", settled).await;
        bench.world.run_for(SECOND * 5).await.unwrap();
    }
    assert!(bench.processors.calls().len() > before);
    let (pauses, duplicates, moves) = outcome(&bench.processors);
    let p99 = pauses[pauses.len() * 99 / 100];
    let most = moves.values().max().copied().unwrap_or(0);
    println!(
        "surge {surge}: {} moves, at most {most} of a lease, pause p50 {:?}, p99 {p99:?}, max {:?}, {duplicates} duplicates",
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses.last().unwrap()
    );
    assert_eq!(duplicates, 0);
    assert!(p99 <= SECOND && *pauses.last().unwrap() <= SECOND * 2);
    assert!(most <= 2, "no lease moves more than twice: {moves:?}");
    assert_eq!(bench.processors.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_starts_new_workers_first_pauses_no_shard_for_long() {
    for seed in 10..13 {
        deployment(true, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_stops_old_workers_first_pauses_no_shard_for_long() {
    for seed in 10..13 {
        deployment(false, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_killed_worker_deliver_again_within_one_and_a_half_lease_durations() {
    let mut bench = Bench::new(12, 64);
    bench.start(names(4));
    bench.until(SECOND * 30, "balanced", |world| world.owned_in_all() == 64 && spread(world) <= 1).await;
    let _traffic = bench.traffic(64);
    bench.world.run_for(SECOND * 10).await.unwrap();
    let killed = Instant::now();
    bench.world.crash("w02").unwrap();
    bench.world.run_for(D * 3 / 2).await.unwrap();
    let mut first: BTreeMap<ShardId, Duration> = BTreeMap::new();
    for call in bench.processors.calls() {
        // What the others process goes on all the time; what the dead one left comes after its lease duration.
        if call.callback == Callback::ProcessRecords && call.began > killed + D / 2 {
            first.entry(call.shard).or_insert(call.began - killed);
        }
    }
    let last = first.values().max().copied().unwrap_or_default();
    println!("all {} shards deliver again {last:?} after the kill", first.len());
    assert_eq!(first.len(), 64, "within {:?}", D * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn fifty_workers_that_join_one_with_two_thousand_leases_are_balanced_in_three_lease_durations() {
    let mut bench = Bench::new(13, 2_000);
    bench.start(["w00"]);
    bench.until(SECOND * 30, "one has all", |world| world.owned("w00") == 2_000).await;
    bench.start(names(50).into_iter().skip(1));
    let took =
        bench.until(D * 3, "balanced", |world| world.owned_in_all() == 2_000 && spread(world) <= 1).await;
    let initialized = bench.processors.count(Callback::Initialize);
    let moves = initialized - 2_000;
    println!("balanced after {took:?} with {moves} moves");
    assert!(moves <= 1_960 * 11 / 10, "{moves} moves, 1,960 are needed");
    let before = bench.rows.leases();
    bench.world.run_for(SECOND * 600).await.unwrap();
    let owners =
        |rows: Vec<kcl_core::lease::Lease>| -> Vec<_> { rows.into_iter().map(|row| row.owner).collect() };
    assert_eq!(owners(before), owners(bench.rows.leases()), "nothing moves at balance");
    assert_eq!(bench.processors.count(Callback::Initialize), initialized, "and nothing starts again");
}

#[tokio::test(start_paused = true)]
async fn fifty_workers_that_start_together_own_five_thousand_shards_within_thirty_seconds() {
    let mut bench = Bench::new(14, 5_000);
    bench.start(names(50));
    let took = bench.until(SECOND * 30, "all are owned", |world| world.owned_in_all() == 5_000).await;
    println!("5,000 shards on 50 workers after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_worker_owns_a_thousand_shards_within_ten_seconds() {
    let mut bench = Bench::new(15, 1_000);
    bench.start(["alone"]);
    let took = bench.until(SECOND * 10, "all are owned", |world| world.owned("alone") == 1_000).await;
    println!("1,000 shards on one worker after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_worker_that_leaves_takes_the_fleet_rows_along() {
    let mut bench = Bench::new(16, 12);
    bench.start(names(3));
    bench.until(SECOND * 30, "balanced", |world| world.owned_in_all() == 12 && spread(world) <= 1).await;
    for name in names(3) {
        let report = bench.world.stop(&name, SECOND * 30).await.unwrap();
        assert!(report.is_clean() && report.shards.len() >= 4, "{report:?}");
        bench
            .until(SECOND * 2, "the others have all", |world| {
                world.workers().is_empty() || world.owned_in_all() == 12
            })
            .await;
    }
    let page = bench.rows.list(None, Consistency::Strong).await.unwrap();
    assert!(page.foreign.is_empty(), "{:?}", page.foreign);
    assert!(page.leases.iter().all(|lease| lease.owner.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_steady_fleet_costs_by_worker_and_not_by_lease() {
    let mut bench = Bench::new(17, 100);
    bench.start(names(4));
    bench.until(SECOND * 30, "balanced", |world| world.owned_in_all() == 100 && spread(world) <= 1).await;
    bench.world.run_for(SECOND * 120).await.unwrap();
    let before = bench.rows.usage();
    bench.world.run_for(SECOND * 600).await.unwrap();
    let used = bench.rows.usage().since(&before);
    println!("{used:?}");
    let per_worker_minute = |units: f64| units / 4.0 / 10.0;
    assert!(per_worker_minute(used.total().write_units) <= 36.0, "{used:?}");
    assert!(per_worker_minute(used.total().read_units) <= 60.0, "{used:?}");
    assert_eq!(used.of(StoreOperation::Update).requests, 0, "no lease is written at rest");
    let bill = bench.world.handle("w00").unwrap().snapshot().bill.unwrap();
    assert!(bill.last_minute.is_some() && bill.to_string().contains("change fleet"), "{bill}");
}

/// The keys of the fleet rows that are in the table.
fn fleet_rows(bench: &Bench) -> Vec<ShardId> {
    let keys = bench.rows.row_sizes().into_keys();
    keys.filter(|key| key.as_str().starts_with("kcl:fleet:")).collect()
}

/// Has every worker leave at the same moment.
async fn leave_together(bench: &mut Bench) {
    let mut leaving = JoinSet::new();
    for name in bench.world.workers() {
        leaving.spawn(bench.world.leave(&name, D * 3).unwrap());
    }
    let (count, begun) = (leaving.len(), Instant::now());
    for report in leaving.join_all().await {
        assert!(report.is_clean(), "{report}");
    }
    println!("{count} workers have left after {:?}", begun.elapsed());
    assert!(begun.elapsed() < D, "they do not wait for the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_leaves_at_one_moment_takes_its_rows_along() {
    for (seed, workers) in [(21, 2), (22, 3), (23, 3), (24, 5), (25, 12), (26, 12), (27, 25)] {
        let mut bench = Bench::new(seed, 24);
        bench.start(names(workers));
        bench.until(D * 3, "all are owned", |world| world.owned_in_all() == 24).await;
        bench.world.run_for(SECOND * 5).await.unwrap();
        leave_together(&mut bench).await;
        assert_eq!(fleet_rows(&bench), [], "{workers} workers, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_member_leaves_though_the_answer_to_its_removal_is_lost() {
    let mut bench = Bench::new(28, 4);
    bench.start(["alone"]);
    bench.until(D, "all are owned", |world| world.owned("alone") == 4).await;
    let lost = FaultRule::new(Fault::LoseAnswer).on([StoreOperation::ChangeFleet]).probability(0.7);
    bench.store.add(lost);
    let before = bench.store.calls(StoreOperation::ChangeFleet);
    leave_together(&mut bench).await;
    println!("{} changes of fleet rows", bench.store.calls(StoreOperation::ChangeFleet) - before);
}
