//! Steering and watching a worker through its handle, and what error policies do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::fleet::{Behaviour, Fleet};
use kcl_core::lease::{LossReason, StoreErrorKind};
use kcl_core::testing::{Action, Fault, FaultRule, Recorder, Rule, StoreOperation};
use kcl_core::{
    BoxError, Callback, CheckpointPolicy, Error, ErrorKind, ErrorPolicy, Event, Health, OnError, Position,
    ProcessorFailure, RecordBatch, SchedulerBuilder, SchedulerHandle, SchedulerPhase, ShardId, ShardOutcome,
    ShutdownReport, Stage, WorkerId,
};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const FIRST: &str = "shardId-000000000000";
const OTHER: &str = "shardId-000000000001";

fn drain(events: &mut Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn losses(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::LeaseLost { .. })).count()
}

type Task = JoinHandle<Result<ShutdownReport, Error>>;

fn start(builder: SchedulerBuilder) -> (SchedulerHandle, Task) {
    let scheduler = builder.build().unwrap();
    let handle = scheduler.handle();
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    (handle, task)
}

fn degraded(handle: &SchedulerHandle) -> String {
    match handle.health() {
        Health::Degraded(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        other => panic!("{other:?}"),
    }
}

// --- pausing -------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn incident_20_a_shard_paused_for_half_an_hour_delivers_nothing_keeps_its_lease_and_then_misses_nothing()
 {
    let mut fleet = Fleet::new(1, 2);
    // Small enough that reading ahead comes to a halt and iterators expire.
    fleet.settings.shard_buffer_bytes = 2_000;
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    let mut events = handle.events();
    let first = ShardId::from(FIRST);
    handle.pause(Some(first.clone())).await;
    fleet.run_for(SECOND).await;
    let paused_at = Instant::now();
    for _ in 0..30 {
        fleet.put(&KEYS);
        fleet.put_aggregate("a", 5);
        fleet.run_for(MINUTE).await;
        let snapshot = handle.snapshot();
        assert_eq!(snapshot.shards[FIRST].report.stage, Stage::Paused);
        assert!(!snapshot.shards[FIRST].valid_for.is_zero());
        assert_eq!(handle.health(), Health::Ready);
    }
    let since: BTreeSet<ShardId> =
        fleet.ledger.deliveries().into_iter().filter(|d| d.at > paused_at).map(|d| d.shard).collect();
    assert_eq!(since, BTreeSet::from([ShardId::from(OTHER)]), "the other shard goes on");
    assert_eq!(fleet.leases()[FIRST].owner, Some("alpha".into()));

    handle.resume(Some(first)).await;
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0);
    assert_eq!(losses(&drain(&mut events)), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_20_everything_paused_for_half_an_hour_with_a_peer_around_moves_nothing_and_misses_nothing()
{
    let mut fleet = Fleet::new(2, 4);
    fleet.start("alpha");
    fleet.start("beta");
    let each_has_two = |fleet: &Fleet| fleet.owners().into_values().eq([2, 2]);
    fleet.run_until(MINUTE, "two shards each", each_has_two).await;
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    let owners = fleet.leases();
    let handle = fleet.worker("alpha").handle.clone();
    handle.pause(None).await;
    fleet.run_for(SECOND).await;
    let paused_at = Instant::now();
    for _ in 0..30 {
        fleet.put(&KEYS);
        fleet.run_for(MINUTE).await;
    }
    let alpha = WorkerId::from("alpha");
    let deliveries = fleet.ledger.deliveries();
    assert!(deliveries.iter().all(|d| d.at < paused_at || d.worker != alpha));
    assert!(deliveries.iter().any(|d| d.at > paused_at), "the peer goes on");
    handle.resume(None).await;
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0);
    for (shard, lease) in fleet.leases() {
        assert_eq!(lease.owner, owners[&shard].owner, "{shard} changed hands");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_asked_for_before_the_start_holds() {
    let fleet = Fleet::new(3, 2);
    fleet.put(&KEYS);
    let recorder = Recorder::new();
    let scheduler = fleet.builder("alpha").0.processor(recorder.clone()).build().unwrap();
    let handle = scheduler.handle();
    handle.pause(None).await;
    handle.pause(Some(FIRST.into())).await;
    handle.resume(Some(FIRST.into())).await;
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    sleep(MINUTE).await;
    assert_eq!(recorder.count(Callback::ProcessRecords), 0);
    assert!(handle.snapshot().shards.values().all(|shard| shard.report.stage == Stage::Paused));
    assert_eq!(handle.snapshot().shards.len(), 2);
    handle.resume(None).await;
    sleep(SECOND * 2).await;
    assert_eq!(recorder.acknowledged(FIRST).len() + recorder.acknowledged(OTHER).len(), KEYS.len());
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
}

// --- watching ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_snapshot_shows_stages_leases_validity_and_the_housekeeper() {
    let mut fleet = Fleet::new(4, 3);
    let duration = fleet.settings.lease_duration;
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.run_for(SECOND * 15).await;
    let handle = fleet.worker("alpha").handle.clone();
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.worker.as_str(), snapshot.phase), ("alpha", SchedulerPhase::Running));
    assert!(snapshot.housekeeper);
    assert!(snapshot.listed_ago.unwrap() <= duration);
    assert_eq!(snapshot.leases_by_owner(), fleet.owners());
    assert_eq!(snapshot.shards.len(), 3);
    for (shard, state) in &snapshot.shards {
        let report = &state.report;
        assert_eq!(report.stage, Stage::Fetching);
        assert!(state.valid_for > duration / 3 && state.valid_for < duration, "{:?}", state.valid_for);
        assert_eq!(state.handing_over_to, None);
        assert_eq!(report.checkpoint, fleet.leases()[shard].checkpoint, "{shard}");
        assert_eq!((report.millis_behind, report.failures, report.buffered_bytes), (Some(0), 0, 0));
        assert!(report.last_fetch.unwrap().elapsed() < SECOND * 3);
        assert!(report.last_delivery.unwrap().elapsed() > SECOND * 10);
    }
    assert_eq!(snapshot.shards.values().map(|shard| shard.report.records).sum::<u64>(), KEYS.len() as u64);

    fleet.start("beta");
    fleet.run_until(MINUTE, "balance", |fleet| fleet.owners().len() == 2).await;
    fleet.run_for(duration * 2).await;
    let keepers: Vec<bool> =
        ["alpha", "beta"].iter().map(|name| fleet.worker(name).handle.snapshot().housekeeper).collect();
    assert_eq!(keepers.iter().filter(|keeps| **keeps).count(), 1, "one of them keeps house: {keepers:?}");
    fleet.kinesis.split_shard(integration_tests::fleet::STREAM, FIRST, 1 << 120).unwrap();
    let mut events = ["alpha", "beta"].map(|name| fleet.worker(name).handle.events());
    fleet.run_until(SECOND * 10, "the split followed", |fleet| fleet.leases().len() == 5).await;
    fleet.run_for(SECOND).await;
    let ended: Vec<Event> =
        events.iter_mut().flat_map(drain).filter(|event| matches!(event, Event::ShardEnded { .. })).collect();
    assert!(
        matches!(&ended[..], [Event::ShardEnded { shard, children }] if shard.as_str() == FIRST && children.len() == 2)
    );
}

#[tokio::test(start_paused = true)]
async fn health_tells_starting_ready_degraded_and_dead() {
    let mut fleet = Fleet::new(5, 2);
    let recorder = Recorder::new();
    let (builder, store) = fleet.builder("alpha");
    let hang = store.add(FaultRule::new(Fault::Hang(SECOND * 10)).on([StoreOperation::Prepare]));
    let scheduler = builder.processor(recorder.clone()).build().unwrap();
    let handle = scheduler.handle();
    assert_eq!((handle.health(), handle.snapshot().phase), (Health::Starting, SchedulerPhase::Created));
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    sleep(SECOND).await;
    assert_eq!((handle.health(), handle.snapshot().phase), (Health::Starting, SchedulerPhase::Starting));
    store.remove(hang);
    handle.ready().await;
    sleep(SECOND * 2).await;
    assert_eq!((handle.health(), handle.snapshot().phase), (Health::Ready, SchedulerPhase::Running));

    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail).shard(FIRST));
    fleet.put(&KEYS);
    sleep(SECOND * 10).await;
    assert!(degraded(&handle).contains(FIRST), "{}", degraded(&handle));
    assert!(degraded(&handle).contains("process_records"), "{}", degraded(&handle));
    recorder.clear_rules();
    sleep(SECOND * 40).await;
    assert_eq!(handle.health(), Health::Ready);

    store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable)));
    sleep(SECOND * 9).await;
    fleet.put(&KEYS);
    sleep(SECOND * 3).await;
    assert!(degraded(&handle).contains("cannot be renewed"), "{}", degraded(&handle));
    sleep(MINUTE).await;
    assert!(degraded(&handle).contains("cannot be listed"), "{}", degraded(&handle));
    store.clear();
    sleep(SECOND * 30).await;
    assert_eq!(handle.health(), Health::Ready);

    let report = handle.shutdown(SECOND * 10).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((handle.health(), handle.snapshot().phase), (Health::Dead, SchedulerPhase::Stopped));
    assert_eq!(task.await.unwrap().unwrap().shards, report.shards);
    handle.ready().await;

    // A worker whose future was dropped is as dead.
    fleet.start("beta");
    let handle = fleet.worker("beta").handle.clone();
    handle.ready().await;
    fleet.run_for(SECOND * 2).await;
    fleet.kill("beta");
    sleep(SECOND / 10).await;
    assert_eq!(handle.health(), Health::Dead);
    assert!(handle.snapshot().shards.is_empty());
    handle.ready().await;
    assert!(handle.shutdown(SECOND).await.shards.is_empty());
}

// --- stopping ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_shutdown_asked_for_before_the_start_comes_true_at_the_start() {
    let fleet = Fleet::new(6, 2);
    let scheduler = fleet.builder("alpha").0.build().unwrap();
    let handle = scheduler.handle();
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let asked = tokio::spawn(async move { handle.shutdown(SECOND * 30).await });
    sleep(MINUTE).await;
    let begun = Instant::now();
    let report = scheduler.run().await.unwrap();
    assert!(report.is_clean() && report.shards.is_empty());
    assert!(begun.elapsed() < SECOND);
    assert!(asked.await.unwrap().shards.is_empty());
    assert!(fleet.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn incident_17_a_shutdown_during_the_start_ends_it_at_once() {
    let fleet = Fleet::new(7, 2);
    for operation in [StoreOperation::Prepare, StoreOperation::List, StoreOperation::Create] {
        let (builder, store) = fleet.builder("alpha");
        store.add(FaultRule::new(Fault::Hang(SECOND * 3600)).on([operation]));
        let (handle, task) = start(builder);
        sleep(SECOND * 3).await;
        let begun = Instant::now();
        assert!(handle.shutdown(SECOND * 30).await.shards.is_empty());
        assert!(task.await.unwrap().unwrap().shards.is_empty());
        assert!(begun.elapsed() < SECOND, "{operation:?}");
        assert_eq!(handle.health(), Health::Dead);
    }
    assert!(fleet.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn incident_17_a_second_shutdown_with_a_shorter_deadline_shortens_the_first() {
    let mut fleet = Fleet::new(8, 4);
    fleet.behaviour = Behaviour { slowness: SECOND * 3600, ..Behaviour::default() };
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_for(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    let begun = Instant::now();
    let second = async {
        sleep(SECOND * 2).await;
        // A longer one changes nothing.
        tokio::join!(handle.shutdown(SECOND * 3), handle.shutdown(SECOND * 600))
    };
    let (first, (short, long)) = tokio::join!(handle.shutdown(SECOND * 60), second);
    assert!(begun.elapsed() <= SECOND * 5 && begun.elapsed() > SECOND * 4, "{:?}", begun.elapsed());
    assert!(first.shards == short.shards && first.shards == long.shards);
    assert!(!first.is_clean());
    let late = ShardOutcome::DeadlineExceeded(Stage::Delivering);
    assert!(first.shards.values().any(|outcome| *outcome == late), "{first:?}");
}

// --- error policies ------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_policy_that_stops_the_scheduler_makes_run_return_the_error() {
    let fleet = Fleet::new(9, 2);
    fleet.put(&KEYS);
    let recorder = Recorder::new()
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).shard(FIRST).after(2))
        .with(Rule::on(Callback::ShutdownRequested, Action::Checkpoint));
    let policy = |failure: &ProcessorFailure<'_>| match failure.failures {
        1 | 2 => OnError::RetryAfter(SECOND),
        _ => OnError::StopScheduler,
    };
    let builder = fleet.builder("alpha").0.processor(recorder.clone()).error_policy(policy);
    let (handle, task) = start(builder);
    sleep(SECOND * 2).await;
    fleet.put(&KEYS);
    sleep(SECOND / 2).await;
    fleet.put(&KEYS);
    let error = task.await.unwrap().unwrap_err();
    println!("{error}\n{error:?}");
    assert_eq!(error.kind(), ErrorKind::Processor);
    assert!(error.to_string().contains(FIRST), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(handle.health(), Health::Dead);
    assert_eq!(recorder.violations(), Vec::<String>::new());
    // Everything was let go in order, the failed batch is not counted as processed.
    assert!(fleet.leases().values().all(|lease| lease.owner.is_none()));
    assert_eq!(recorder.count(Callback::ShutdownRequested), 2);
    let last = recorder.acknowledged(FIRST).last().copied();
    assert_eq!(fleet.leases()[FIRST].checkpoint.position(), last);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_releases_the_lease_leaves_the_shard_to_a_peer_at_the_checkpoint() {
    let mut fleet = Fleet::new(10, 2);
    fleet.start("beta");
    fleet.run_until(SECOND * 5, "all owned", |fleet| fleet.owners().values().sum::<usize>() == 2).await;
    let recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Fail));
    let policy = |_: &ProcessorFailure<'_>| OnError::ReleaseLease;
    let (handle, task) = start(fleet.builder("alpha").0.processor(recorder.clone()).error_policy(policy));
    let mut events = handle.events();
    fleet.run_until(MINUTE, "one shard each", |fleet| fleet.owners().len() == 2).await;
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
    let events = drain(&mut events);
    let released = |event: &Event| matches!(event, Event::LeaseLost { reason: LossReason::Released, .. });
    assert!(events.iter().any(released), "{events:?}");
    assert_eq!(recorder.violations(), Vec::<String>::new());
    handle.shutdown(SECOND * 5).await;
    task.await.unwrap().unwrap();
}

/// Skips what fails twice, once the batch is put aside.
#[derive(Clone, Debug, Default)]
struct PutAside {
    batches: Arc<Mutex<Vec<Position>>>,
    refusals: Arc<Mutex<u32>>,
}

#[async_trait]
impl ErrorPolicy for PutAside {
    fn on_error(&self, failure: &ProcessorFailure<'_>) -> OnError {
        if failure.failures < 2 { OnError::Retry } else { OnError::Skip }
    }

    async fn dead_letter(&self, batch: &RecordBatch, error: &BoxError) -> Result<(), BoxError> {
        assert!(!error.to_string().is_empty());
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err("the place for dead letters is full".into());
        }
        self.batches.lock().unwrap().extend(batch.records().iter().map(kcl_core::Record::position));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_skips_passes_a_batch_only_once_its_dead_letter_is_taken() {
    let mut fleet = Fleet::new(11, 1);
    fleet.settings.batch_records = 3;
    let policy = PutAside::default();
    *policy.refusals.lock().unwrap() = 4;
    let recorder = Recorder::new();
    let builder = fleet.builder("alpha").0.processor(recorder.clone()).error_policy(policy.clone());
    let (handle, task) = start(builder.checkpoint_policy(CheckpointPolicy::AfterBatch));
    let mut events = handle.events();
    handle.ready().await;
    fleet.put(&KEYS);
    sleep(SECOND * 5).await;
    assert_eq!(recorder.acknowledged(FIRST).len(), 12);
    // Six calls fail: one that is retried, four whose dead letters are refused, one whose dead letter is taken.
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail).times(6));
    fleet.put(&KEYS);
    sleep(SECOND * 60).await;
    let skipped: Vec<_> = drain(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::BatchSkipped { first, last, records, .. } => Some((first, last, records)),
            _ => None,
        })
        .collect();
    let aside = policy.batches.lock().unwrap().clone();
    assert_eq!(skipped, [(aside[0], aside[2], 3)]);
    assert_eq!(aside.len(), 3);
    let delivered = recorder.acknowledged(FIRST);
    assert_eq!(delivered.len(), 24 - 3, "everything else is delivered");
    assert!(aside.iter().all(|position| !delivered.contains(position)));
    assert_eq!(recorder.violations().len(), 1, "the batch that was passed: {:?}", recorder.violations());
    assert_eq!(fleet.leases()[FIRST].checkpoint.position(), delivered.last().copied());
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_library_stores_checkpoints_at_the_interval_and_at_the_end() {
    let fleet = Fleet::new(12, 1);
    let recorder = Recorder::new();
    let builder = fleet.builder("alpha").0.processor(recorder.clone());
    let (handle, task) = start(builder.checkpoint_policy(CheckpointPolicy::Every(MINUTE)));
    handle.ready().await;
    let mut stored = BTreeSet::new();
    for _ in 0..300 {
        fleet.put(&["a"]);
        sleep(SECOND).await;
        let position = fleet.leases()[FIRST].checkpoint.position();
        stored.extend(position);
        assert!(position <= recorder.acknowledged(FIRST).last().copied(), "D-2");
    }
    assert!((4..=5).contains(&stored.len()), "{} in five minutes", stored.len());
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
    let last = recorder.acknowledged(FIRST).last().copied();
    assert_eq!(fleet.leases()[FIRST].checkpoint.position(), last);
}
