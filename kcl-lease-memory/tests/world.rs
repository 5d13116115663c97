//! The world of kcl-core's test tools: what it does to a fleet, and what it says when it is asked for nonsense.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use kcl_core::testing::{
    Action, CallOutcome, MemoryStream, Mishap, Part, Recorder, Rule, STREAM, World, WorldError,
};
use kcl_core::{Callback, SchedulerBuilder, ShardId};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::Kinesis;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(120);

/// A world of recording processors that checkpoint after each batch.
fn recorded(seed: u64, shards: u32) -> (World, Recorder) {
    let recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Checkpoint));
    let app = recorder.clone();
    let application = move |_: &str, worker: SchedulerBuilder| {
        worker // These tests name owners by their worker ids.
            .coordination(kcl_core::Coordination::PerLease)
            .processor(app.clone())
    };
    (World::new(seed, shards, MemoryLeaseStore::new(), application).unwrap(), recorder)
}

/// A world over a stream of the test's own.
fn over_another_stream() -> World {
    let kinesis = Kinesis::new(std::sync::Arc::new(kcl_local::clock::SystemClock));
    kinesis.create_stream("orders", 1).unwrap();
    let source = move || MemoryStream::new(kinesis.clone(), "orders");
    World::over(1, source, MemoryLeaseStore::new(), |_, worker: SchedulerBuilder| {
        worker.processor(Recorder::new())
    })
}

async fn put(world: &World, numbers: std::ops::Range<u32>) {
    for number in numbers {
        world.put(&format!("key-{number}"), number.to_string()).await.unwrap();
    }
}

/// The payloads that were acknowledged, each once.
fn acknowledged(recorder: &Recorder) -> BTreeSet<String> {
    let calls = recorder.calls().into_iter().filter(|call| call.outcome == CallOutcome::Done);
    calls.flat_map(|call| call.payloads).map(|data| String::from_utf8_lossy(&data).into_owned()).collect()
}

fn assert_no_violations(recorder: &Recorder) {
    assert_eq!(recorder.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stream_needs_a_shard() {
    let application = |_: &str, worker: SchedulerBuilder| worker.processor(Recorder::new());
    let error = World::new(1, 0, MemoryLeaseStore::new(), application).unwrap_err();
    assert!(matches!(error, WorldError::NoShards), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_run_is_named_with_those_that_do() {
    let (mut world, _) = recorded(1, 1);
    world.start("alpha").unwrap();
    let errors = [
        world.crash("omega").unwrap_err(),
        world.stop("omega", SECOND).await.unwrap_err(),
        world.stall("omega").unwrap_err(),
        world.freeze("omega", Part::LeaseSide).unwrap_err(),
        world.wake("omega").unwrap_err(),
        world.befall("omega", Mishap::LostAnswers, 0.5).unwrap_err(),
        world.calm("omega").unwrap_err(),
        world.handle("omega").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.to_string(), r#"no worker "omega" runs; running: ["alpha"]"#);
    }
    assert_eq!(world.owned("omega"), 0);
    assert!(!world.trace().lines().iter().any(|line| line.contains("omega")), "nothing happened to it");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_used_by_one_worker_at_a_time() {
    let (mut world, _) = recorded(1, 1);
    world.start("alpha").unwrap();
    let error = world.start("alpha").unwrap_err();
    assert!(matches!(&error, WorldError::AlreadyRuns(name) if name == "alpha"), "{error}");
    assert_eq!(world.workers(), ["alpha"]);
    world.crash("alpha").unwrap();
    world.start("alpha").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_application_that_cannot_be_built_starts_no_worker() {
    let unfinished = |_: &str, worker: SchedulerBuilder| worker;
    let mut world = World::new(1, 1, MemoryLeaseStore::new(), unfinished).unwrap();
    let error = world.start("alpha").unwrap_err();
    assert!(matches!(error, WorldError::Application(_)), "{error}");
    assert!(format!("{error:?}").contains("processor"), "the cause is shown: {error:?}");
    assert!(world.workers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_is_told_with_leases_workers_and_stages() {
    let (mut world, recorder) = recorded(1, 2);
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail));
    world.start("alpha").unwrap();
    put(&world, 0..1).await;
    let error = world.run_until(10 * SECOND, "rain", |_| false).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(format!("{error:?}"), text, "what a test that returns the error prints");
    for part in [
        "not within 10s: rain",
        "shardId-000000000000: owner alpha, counter",
        "alpha: Running",
        "shardId-000000000001: Retrying for",
        "failed as told",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_time_is_told_with_how_long_it_took() {
    let (mut world, _) = recorded(1, 2);
    assert_eq!(world.run_until(LIMIT, "nothing", |_| true).await.unwrap(), Duration::ZERO);
    world.start("alpha").unwrap();
    let took = world.run_until(LIMIT, "alpha has both", |world| world.owned("alpha") == 2).await.unwrap();
    assert!(took > Duration::ZERO && took < 10 * SECOND, "{took:?}");
    assert_eq!(world.owned_in_all(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashed_goes_on_under_its_name() {
    let (mut world, recorder) = recorded(1, 2);
    world.start("alpha").unwrap();
    put(&world, 0..10).await;
    world.run_until(LIMIT, "ten are processed", |_| acknowledged(&recorder).len() == 10).await.unwrap();
    world.crash("alpha").unwrap();
    put(&world, 10..20).await;
    world.run_for(SECOND).await.unwrap();
    assert_eq!(acknowledged(&recorder).len(), 10, "nobody runs");
    assert_eq!(world.leases().await.unwrap().len(), 2, "a crash releases nothing");

    world.start("alpha").unwrap();
    let took =
        world.run_until(LIMIT, "all are processed", |_| acknowledged(&recorder).len() == 20).await.unwrap();
    assert!(took < 10 * SECOND, "its own leases are not waited for: {took:?}");
    let deliveries: usize = recorder.calls().iter().map(|call| call.payloads.len()).sum();
    assert_eq!(deliveries, 20, "it went on at its checkpoints");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_leaves_its_leases_to_others_at_once() {
    let (mut world, recorder) = recorded(1, 4);
    world.start("alpha").unwrap();
    world.run_until(LIMIT, "alpha has all", |world| world.owned("alpha") == 4).await.unwrap();
    world.start("beta").unwrap();
    world.run_until(LIMIT, "beta has half", |world| world.owned("beta") == 2).await.unwrap();
    let report = world.stop("alpha", 5 * SECOND).await.unwrap();
    assert_eq!(report.shards.len(), 2, "{report}");
    let took = world.run_until(LIMIT, "beta has all", |world| world.owned("beta") == 4).await.unwrap();
    assert!(took < 10 * SECOND, "they were released: {took:?}");
    assert_eq!(world.workers(), ["beta"]);
    assert_no_violations(&recorder);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_replaces_every_worker() {
    let (mut world, recorder) = recorded(1, 4);
    for name in ["alpha", "beta"] {
        world.start(name).unwrap();
    }
    put(&world, 0..20).await;
    world.run_until(LIMIT, "all is owned", |world| world.owned_in_all() == 4).await.unwrap();
    world.deploy().await.unwrap();
    let second: Vec<_> = world.workers();
    assert_eq!(second, ["alpha#3", "beta#4"]);
    world.deploy().await.unwrap();
    assert_eq!(world.workers(), ["alpha#5", "beta#6"], "names do not grow");
    put(&world, 20..40).await;
    world.run_until(LIMIT, "all is processed", |_| acknowledged(&recorder).len() == 40).await.unwrap();
    let owners = world.owners().await.unwrap();
    assert!(owners.keys().all(|owner| world.workers().contains(&owner.to_string())), "{owners:?}");
    assert_no_violations(&recorder);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_kills_a_worker_that_is_stalled() {
    let (mut world, _) = recorded(1, 2);
    world.start("alpha").unwrap();
    world.run_until(LIMIT, "alpha has both", |world| world.owned("alpha") == 2).await.unwrap();
    world.stall("alpha").unwrap();
    world.deploy().await.unwrap();
    assert_eq!(world.workers(), ["alpha#2"]);
    world.run_until(LIMIT, "its leases are taken", |world| world.owned("alpha#2") == 2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_worker_does_not_stop_and_is_killed() {
    let (mut world, _) = recorded(1, 1);
    world.start("alpha").unwrap();
    world.run_for(SECOND).await.unwrap();
    world.stall("alpha").unwrap();
    let error = world.stop("alpha", 5 * SECOND).await.unwrap_err();
    assert!(matches!(error, WorldError::DidNotStop { held: true, .. }), "{error}");
    assert!(world.workers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_worker_loses_its_leases_and_finds_out_when_it_wakes() {
    let (mut world, recorder) = recorded(1, 4);
    for name in ["alpha", "beta"] {
        world.start(name).unwrap();
    }
    let even = |world: &World| world.owned("alpha") == 2 && world.owned("beta") == 2;
    world.run_until(LIMIT, "each has two", even).await.unwrap();
    put(&world, 0..20).await;
    world.run_for(SECOND).await.unwrap();

    world.stall("alpha").unwrap();
    assert!(world.is_held("alpha"));
    put(&world, 20..40).await;
    world.run_until(LIMIT, "beta has all", |world| world.owned("beta") == 4).await.unwrap();
    world.run_until(LIMIT, "beta has read all", |_| acknowledged(&recorder).len() == 40).await.unwrap();

    let calls = recorder.calls().len();
    world.wake("alpha").unwrap();
    assert!(!world.is_held("alpha"));
    world.run_for(SECOND).await.unwrap();
    let delivered: Vec<_> = recorder.calls().split_off(calls);
    let processed = delivered.iter().filter(|call| call.callback == Callback::ProcessRecords).count();
    assert_eq!(processed, 0, "L-1: what it had read ahead is not delivered: {delivered:?}");
    world.run_until(LIMIT, "each has two again", even).await.unwrap();
    assert_no_violations(&recorder);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_consumer_loses_its_shard_and_no_other() {
    let (mut world, recorder) = recorded(1, 2);
    world.start("alpha").unwrap();
    world.run_until(LIMIT, "alpha has both", |world| world.owned("alpha") == 2).await.unwrap();
    let shard = world.open_shards().unwrap().remove(0);
    world.freeze("alpha", Part::Consumer(shard.clone())).unwrap();
    world.start("beta").unwrap();
    let taken = |world: &World| {
        let owns = |name, shard: &ShardId| world.handle(name).unwrap().snapshot().shards.contains_key(shard);
        owns("beta", &shard) && world.owned("alpha") >= 1
    };
    world.run_until(10 * LIMIT, "beta has the frozen shard", taken).await.unwrap();
    world.wake("alpha").unwrap();
    put(&world, 0..20).await;
    world.run_until(LIMIT, "all is processed", |_| acknowledged(&recorder).len() == 20).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mishap_befalls_one_worker_until_it_is_over() {
    let (mut world, _) = recorded(1, 2);
    world.start("alpha").unwrap();
    world.run_until(LIMIT, "alpha has both", |world| world.owned("alpha") == 2).await.unwrap();
    world.befall("alpha", Mishap::NoLeases, 1.0).unwrap();
    world.start("beta").unwrap();
    world.run_until(LIMIT, "beta has both", |world| world.owned("beta") == 2).await.unwrap();
    world.calm("alpha").unwrap();
    let even = |world: &World| world.owned("alpha") == 1 && world.owned("beta") == 1;
    world.run_until(LIMIT, "each has one", even).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_ones_own_says_what_it_cannot_do() {
    let mut world = over_another_stream();
    world.start("alpha").unwrap();
    for (error, remedy) in [
        (world.put("key", "data").await.unwrap_err(), "put needs World::with_upstream"),
        (world.reshard(2).await.unwrap_err(), "reshard needs World::with_upstream"),
        (world.open_shards().unwrap_err(), "open_shards needs World::new"),
        (world.befall("alpha", Mishap::DisturbedReads, 0.5).unwrap_err(), "disturbed-reads needs World::new"),
    ] {
        assert!(error.to_string().contains(remedy), "{error}");
    }
    world.befall("alpha", Mishap::LostAnswers, 0.5).unwrap();
    assert!(world.kinesis().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reshard_the_stream_refuses_is_an_error_and_no_event() {
    let (world, _) = recorded(1, 2);
    let error = world.reshard(5).await.unwrap_err();
    assert!(matches!(error, WorldError::Stream(_)), "{error}");
    assert!(world.trace().lines().is_empty());
    world.reshard(4).await.unwrap();
    assert_eq!(world.open_shards().unwrap().len(), 4);
    assert_eq!(world.kinesis().unwrap().describe_stream_summary(STREAM).unwrap().open_shards, 4);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_by_itself_is_told_once_and_runs_no_more() {
    let (mut world, _) = recorded(1, 1);
    world.kinesis().unwrap().delete_stream(STREAM).unwrap();
    world.start("alpha").unwrap();
    let error = world.run_for(60 * SECOND).await.unwrap_err();
    assert!(matches!(&error, WorldError::WorkerEnded { name, .. } if name == "alpha"), "{error}");
    assert!(world.workers().is_empty());
    world.run_for(SECOND).await.unwrap();
}
