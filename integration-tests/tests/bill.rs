//! What a fleet asks of its lease table, in requests.

use std::time::Duration;

use bytes::Bytes;
use integration_tests::bill::{Beginning, Question};
use integration_tests::fleet::{Fleet, STREAM};
use kcl_core::lease::{LeaseStore as _, StoreOperation, StoreUsage};
use kcl_core::{CheckpointPolicy, Coordination};
use kcl_local::kinesis::{NewRecord, ShardFilter};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Java's, at a lease duration of 10 s.
const WRITES_PER_LEASE_MINUTE: f64 = 18.1;

/// The requests of `minutes` minutes, in which `each_second` is called every second.
async fn bill(fleet: &mut Fleet, minutes: u32, mut each_second: impl FnMut(&mut Fleet, u32)) -> [f64; 3] {
    let before = fleet.store.usage();
    for second in 0..minutes * 60 {
        each_second(fleet, second);
        fleet.run_for(SECOND).await;
    }
    let after = fleet.store.usage();
    let usage = after.since(&before);
    let writes = |usage: &StoreUsage| StoreOperation::WRITES.map(|kind| usage.of(kind).requests).iter().sum();
    let requests: [u64; 3] =
        [writes(&usage), usage.of(StoreOperation::List).requests, usage.total().requests];
    requests.map(|requests| requests as f64 / f64::from(minutes))
}

#[tokio::test(start_paused = true)]
async fn one_idle_shard_costs_one_worker_at_most_thirty_requests_a_minute() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start("alpha");
    fleet.run_for(MINUTE).await;
    let [writes, lists, total] = bill(&mut fleet, 10, |_, _| {}).await;
    println!("writes {writes}, lists {lists}, all {total} per minute");
    assert!(writes <= WRITES_PER_LEASE_MINUTE, "{writes} writes a minute");
    assert!(writes >= 6.0, "a lease of 10 s must be written at least that often: {writes}");
    assert!(total <= 30.0, "{total} requests a minute");
}

#[tokio::test(start_paused = true)]
async fn leases_at_rest_are_written_no_more_often_than_the_java_library_does() {
    let (leases, workers) = (12, ["alpha", "beta", "gamma"]);
    let mut fleet = Fleet::new(2, leases);
    for worker in workers {
        fleet.start(worker);
    }
    fleet.run_for(MINUTE * 2).await;
    assert_eq!(fleet.owners().len(), workers.len(), "the leases are shared");
    let [writes, lists, total] = bill(&mut fleet, 10, |_, _| {}).await;
    println!("writes {writes}, lists {lists}, all {total} per minute, {leases} leases");
    let each = writes / f64::from(leases);
    assert!(each <= WRITES_PER_LEASE_MINUTE, "{each} writes per lease and minute");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_renew_the_lease_and_nothing_else_does() {
    let shards = 4;
    let mut fleet = Fleet::new(3, shards);
    fleet.behaviour.checkpoints = false;
    fleet.policy = CheckpointPolicy::AfterBatch;
    fleet.start("alpha");
    fleet.run_for(MINUTE).await;
    let ranges = fleet.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
    let starts: Vec<u128> = ranges.iter().map(|shard| shard.hash_key_range.start).collect();
    assert_eq!(starts.len(), shards as usize);
    // Every two seconds each shard gets a record, and so a batch, and so a checkpoint.
    let [writes, ..] = bill(&mut fleet, 10, |fleet, second| {
        for (i, start) in starts.iter().enumerate().filter(|_| second % 2 == 0) {
            let key = format!("key-{i}");
            let data = Bytes::from(fleet.ledger.payload(&key));
            let record = NewRecord::new(key, data).with_explicit_hash_key(*start);
            fleet.kinesis.put_record(STREAM, record).expect("no limits are set");
        }
    })
    .await;
    let batches = fleet.ledger.delivered() as f64 / 10.0;
    println!("writes {writes}, batches {batches} per minute");
    fleet.ledger.assert_complete();
    assert!((batches - 30.0 * f64::from(shards)).abs() <= f64::from(shards), "{batches} batches a minute");
    assert!(writes <= batches, "{writes} writes a minute for {batches} checkpoints");
}

/// A row of the table in `docs/cost.md`: a simulated hour and the formula agree within a tenth.
fn agrees(workers: usize, shards: u32, coordination: Coordination, minutes: u32) {
    let question =
        Question { workers, shards, coordination, beginning: Beginning::Together, time: MINUTE * minutes };
    let answer = question.answer().expect("the fleet comes to rest");
    assert!(answer.difference() <= 0.1, "off by {:.1} %\n{answer}", answer.difference() * 100.0);
    assert!(coordination != Coordination::Fleet || answer.lease_writes() == 0, "leases are written at rest");
}

#[test]
fn ten_leases_on_two_workers_cost_what_the_formulas_say() {
    agrees(2, 10, Coordination::Fleet, 60);
    agrees(2, 10, Coordination::PerLease, 60);
}

#[test]
fn a_hundred_leases_on_four_workers_cost_what_the_formulas_say() {
    agrees(4, 100, Coordination::Fleet, 60);
    agrees(4, 100, Coordination::PerLease, 60);
}

#[test]
fn whoever_joins_late_costs_the_same() {
    let (coordination, time) = (Coordination::Fleet, MINUTE * 60);
    let answer =
        Question { workers: 5, shards: 50, coordination, beginning: Beginning::Joining, time }.answer();
    let answer = answer.expect("the fleet comes to rest");
    assert!(answer.difference() <= 0.1, "off by {:.1} %\n{answer}", answer.difference() * 100.0);
    assert_eq!(answer.lease_writes(), 0, "leases move at balance");
}

#[test]
fn a_bill_of_nothing_is_refused() {
    let ask = |workers, shards, minutes| {
        let (coordination, time) = (Coordination::Fleet, MINUTE * minutes);
        let question = Question { workers, shards, coordination, beginning: Beginning::Together, time };
        question.answer().unwrap_err().to_string()
    };
    for refused in [ask(0, 1, 1), ask(1, 0, 1), ask(1, 1, 0)] {
        assert!(refused.contains("at least one worker"), "{refused}");
    }
}
