//! Splits and merges: parents before children, nothing lost, nothing stuck.

use std::time::Duration;

use integration_tests::fleet::{Behaviour, Fleet, STREAM};
use kcl_core::lease::StoreErrorKind;
use kcl_core::testing::{Fault, FaultRule, StoreOperation};
use kcl_core::{CheckpointPolicy, InitialPosition};
use kcl_local::kinesis::ShardFilter;

const SECOND: Duration = Duration::from_secs(1);
const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Splits a random open shard, or merges a random pair of neighbours.
fn reshard(fleet: &Fleet, random: &mut fastrand::Rng) {
    let mut open = fleet.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
    open.sort_by_key(|shard| shard.hash_key_range.start);
    if random.bool() && open.len() > 1 {
        let left = random.usize(..open.len() - 1);
        fleet
            .kinesis
            .merge_shards(STREAM, &open[left].shard_id, &open[left + 1].shard_id)
            .expect("neighbours can be merged");
    } else {
        let shard = &open[random.usize(..open.len())];
        let range = &shard.hash_key_range;
        if range.end - range.start > 2 {
            let middle = range.start + (range.end - range.start) / 2 + 1;
            fleet.kinesis.split_shard(STREAM, &shard.shard_id, middle).expect("the middle lies inside");
        }
    }
}

/// Names the seed if its run fails.
struct NameSeed(u64);

impl Drop for NameSeed {
    #[allow(clippy::print_stdout, reason = "the test's own output")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with seed {}", self.0);
        }
    }
}

/// Makes a worker's store slow, and its answers unreliable.
fn break_store(fleet: &Fleet, worker: &str) {
    let ms = Duration::from_millis;
    let store = &fleet.worker(worker).store;
    store.add(FaultRule::new(Fault::Delay { before: ms(0)..ms(60), after: ms(0)..ms(60) }));
    let writes = StoreOperation::WRITES;
    store.add(FaultRule::new(Fault::LoseAnswer).on(writes).probability(0.03));
    store.add(FaultRule::new(Fault::LandLate { delay: ms(10)..ms(5000) }).on(writes).probability(0.03));
    store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Throttled)).probability(0.03));
    store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable)).probability(0.02));
    store.add(FaultRule::new(Fault::Hang(ms(3000))).on(writes).probability(0.01));
    store.add(FaultRule::new(Fault::Stale(ms(3000))).on([StoreOperation::List]).probability(0.2));
}

/// A random tree of splits and merges, with puts, crashes, joins and failing processors in between.
async fn random_tree(seed: u64) {
    let _named = NameSeed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fleet = Fleet::new(seed, random.u32(1..4));
    fleet.behaviour = Behaviour {
        fail: random.f64() * 0.1,
        panic: random.f64() * 0.02,
        slowness: Duration::from_millis(random.u64(0..200)),
        checkpoints: true,
    };
    fleet.stream.hide_children(random.bool());
    fleet.stream.disturb(random.f64() * 0.05);
    let faults = random.bool();
    fleet.start("w0");
    if faults {
        break_store(&fleet, "w0");
    }
    let mut started = 1;
    for _ in 0..random.usize(5..15) {
        match random.u8(0..10) {
            0..4 => reshard(&fleet, &mut random),
            4 => {
                let worker = format!("w{started}");
                fleet.start(&worker);
                if faults {
                    break_store(&fleet, &worker);
                }
                started += 1;
            }
            5 if fleet.workers().len() > 1 => {
                let workers = fleet.workers();
                let worker = workers[random.usize(..workers.len())].clone();
                if random.bool() {
                    fleet.kill(&worker);
                } else {
                    let _ = fleet.stop(&worker).await;
                }
            }
            _ => {}
        }
        fleet.put(&KEYS);
        if random.bool() {
            fleet.put_aggregate(KEYS[random.usize(..KEYS.len())], random.usize(1..20));
        }
        fleet.run_for(Duration::from_millis(random.u64(0..4000))).await;
    }
    for worker in fleet.workers() {
        fleet.worker(&worker).store.clear();
    }
    fleet.run_until_delivered(SECOND * 300).await;
    fleet
        .run_until(SECOND * 300, "every open shard is owned", |fleet| {
            let leases = fleet.leases();
            fleet
                .kinesis
                .shards(STREAM, ShardFilter::AtLatest)
                .expect("the stream exists")
                .iter()
                .all(|shard| leases.get(&*shard.shard_id).is_some_and(|lease| lease.owner.is_some()))
        })
        .await;
    fleet.ledger.assert_complete();
}

/// Runs the seeds of a part, or those `KCL_SEEDS` names: one (`7`) or a range (`0..5000`).
async fn random_trees(seeds: std::ops::Range<u64>) {
    let asked = std::env::var("KCL_SEEDS").ok().map(|text| {
        let (from, to) = text.split_once("..").unwrap_or((&text, ""));
        let from: u64 = from.parse().expect("KCL_SEEDS is a number or a range");
        from..to.parse().unwrap_or(from + 1)
    });
    for seed in asked.unwrap_or(seeds) {
        random_tree(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_03_random_trees_deliver_everything_keep_order_and_start_no_child_before_its_parents_1() {
    random_trees(0..150).await;
}

#[tokio::test(start_paused = true)]
async fn incident_03_random_trees_deliver_everything_keep_order_and_start_no_child_before_its_parents_2() {
    random_trees(150..300).await;
}

#[tokio::test(start_paused = true)]
async fn incident_04_an_empty_shard_that_ends_at_once_lets_its_children_start() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start("alpha");
    fleet.run_for(SECOND * 3).await;
    let shards = fleet.kinesis.update_shard_count(STREAM, 2);
    assert!(shards.is_ok());
    // The children end before anybody has read them.
    fleet.kinesis.merge_shards(STREAM, "shardId-000000000001", "shardId-000000000002").expect("neighbours");
    fleet.put(&KEYS);
    let took = fleet.run_until_delivered(SECOND * 10).await;
    assert!(took <= SECOND * 4, "{took:?}");
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn incident_04_a_checkpoint_of_the_last_record_just_before_the_end_does_not_keep_the_end_from_being_stored()
 {
    let mut fleet = Fleet::new(2, 1);
    fleet.policy = CheckpointPolicy::AfterBatch;
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.run_for(SECOND * 2).await;
    fleet.kinesis.update_shard_count(STREAM, 2).expect("doubling is allowed");
    fleet.put(&KEYS);
    let took = fleet.run_until_delivered(SECOND * 10).await;
    assert!(took <= SECOND * 2, "parent end to first child record within 2 s: {took:?}");
    assert!(fleet.leases()["shardId-000000000000"].is_ended());
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn incident_04_a_processor_that_never_checkpoints_blocks_no_children() {
    let mut fleet = Fleet::new(3, 2);
    fleet.behaviour.checkpoints = false;
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 10).await;
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_merge_whose_parents_have_two_owners_starts_when_both_have_ended() {
    let mut fleet = Fleet::new(4, 2);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "one shard each", |fleet| fleet.owners().len() == 2).await;
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.kinesis.merge_shards(STREAM, "shardId-000000000000", "shardId-000000000001").expect("neighbours");
    fleet.put(&KEYS);
    let took = fleet.run_until_delivered(SECOND * 10).await;
    assert!(took <= SECOND * 3, "{took:?}");
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_a_parent_that_has_no_lease_yet() {
    let mut fleet = Fleet::new(7, 2);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "one shard each", |fleet| fleet.owners().len() == 2).await;
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    // Nobody reads the shard that is split until its lease has run out; one of its children is merged with the
    // shard that is read on.
    let beta = if fleet.leases()["shardId-000000000000"].owner == Some("beta".into()) { 0 } else { 1 };
    fleet.kill("beta");
    fleet.put(&KEYS);
    let dead = if beta == 0 { "shardId-000000000000" } else { "shardId-000000000001" };
    let middle = if beta == 0 { 1 << 126 } else { 3 << 126 };
    fleet.kinesis.split_shard(STREAM, dead, middle).expect("the middle lies inside");
    fleet.put(&KEYS);
    let neighbours = if beta == 0 {
        ("shardId-000000000003", "shardId-000000000001")
    } else {
        ("shardId-000000000000", "shardId-000000000002")
    };
    fleet.kinesis.merge_shards(STREAM, neighbours.0, neighbours.1).expect("neighbours");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn incident_03_resharding_while_everything_is_stopped_loses_nothing() {
    for hide in [false, true] {
        let mut fleet = Fleet::new(5, 2);
        fleet.stream.hide_children(hide);
        fleet.start("alpha");
        fleet.put(&KEYS);
        fleet.run_until_delivered(SECOND * 5).await;
        let _ = fleet.stop("alpha").await;
        fleet.put(&KEYS);
        fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
        fleet.put(&KEYS);
        fleet.kinesis.update_shard_count(STREAM, 2).expect("halving is allowed");
        fleet.put(&KEYS);
        fleet.start("beta");
        fleet.run_until_delivered(SECOND * 20).await;
        fleet.ledger.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn latest_starts_with_what_is_put_after_the_lease_was_made_and_then_misses_nothing() {
    let mut fleet = Fleet::new(6, 2);
    fleet.initial = InitialPosition::Latest;
    fleet.behaviour.checkpoints = false;
    fleet.run_for(SECOND).await;
    fleet.start("alpha");
    fleet.run_until(SECOND * 5, "all owned", |fleet| fleet.owners().values().sum::<usize>() == 2).await;
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    // Nothing was checkpointed; records put while nobody runs must still come.
    fleet.kill("alpha");
    fleet.put(&KEYS);
    fleet.run_for(SECOND * 30).await;
    fleet.put(&KEYS);
    fleet.start("beta");
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn shards_that_were_closed_before_the_first_start_are_read_to_their_end() {
    let mut fleet = Fleet::new(8, 2);
    fleet.put(&KEYS);
    fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
    fleet.put(&KEYS);
    fleet.kinesis.update_shard_count(STREAM, 2).expect("halving is allowed");
    fleet.put(&KEYS);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_start_at_a_timestamp_delivers_what_arrived_since_across_a_reshard_and_nothing_older() {
    let mut fleet = Fleet::new(9, 2);
    let old = |fleet: &Fleet| {
        for key in ["x", "y", "z"] {
            let record = kcl_local::kinesis::NewRecord::new(key, "nobody should see this");
            fleet.kinesis.put_record(STREAM, record).expect("no limits are set");
        }
    };
    old(&fleet);
    tokio::time::sleep(SECOND * 60).await;
    fleet.initial = InitialPosition::AtTimestamp(fleet.kinesis.clock().now() - SECOND * 10);
    // The parents close with records from both sides of the timestamp.
    fleet.put(&KEYS);
    fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
    fleet.put(&KEYS);
    fleet.start("alpha");
    fleet.run_until_delivered(SECOND * 30).await;
    // The ledger knows no record of the old ones and would name it.
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn ended_leases_go_once_their_children_have_checkpoints_and_never_come_back() {
    let mut fleet = Fleet::new(10, 2);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.kinesis.update_shard_count(STREAM, 4).expect("doubling is allowed");
    fleet.run_for(SECOND * 60).await;
    let parents = ["shardId-000000000000", "shardId-000000000001"];
    let kept = |fleet: &Fleet| parents.iter().filter(|parent| fleet.leases().contains_key(**parent)).count();
    tokio::time::sleep(SECOND * 60 * 20).await;
    assert_eq!(kept(&fleet), 2, "no child has processed anything yet");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 10).await;
    fleet.run_until(SECOND * 180, "the rows of the parents are deleted", |fleet| kept(fleet) == 0).await;
    // Not by the housekeeper, nor by a worker that starts while the parents are still listed.
    fleet.start("gamma");
    fleet.put(&KEYS);
    tokio::time::sleep(SECOND * 60 * 10).await;
    assert_eq!(kept(&fleet), 0);
    fleet.run_until_delivered(SECOND * 10).await;
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0, "no ancestor is read again");
}
