//! Incident 2: shards that fall silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::fleet::{Fleet, STREAM};
use integration_tests::sim::scenario::Scenario;
use kcl_core::lease::LossReason;
use kcl_core::model::{Shard, StreamIdentity};
use kcl_core::source::{ShardReader, SourceBatch, SourceError, SourceErrorKind, StartFrom, StreamSource};
use kcl_core::testing::{
    Action, Fault, FaultRule, MemoryStream, Part, Recorder, Rule, StoreOperation, StreamCall, World,
};
use kcl_core::{
    Callback, Event, Health, ProblemKind, RecordProcessorFactory, SchedulerBuilder, Settings, ShardContext,
    ShardId,
};
use kcl_lease_memory::MemoryLeaseStore;
use tokio::time::sleep;

use crate::{drain, kept_over};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The lease duration.
const D: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(20);
/// How often the lease table is listed.
const CYCLE: Duration = Duration::from_secs(4);
const FIRST: &str = "shardId-000000000000";
const OTHER: &str = "shardId-000000000001";
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.lease_duration, settings.lease_scan_interval, settings.stall_timeout) = (D, CYCLE, STALL);
    // A callback that runs promises to end by this.
    settings.callback_limit = STALL;
    settings.shard_sync_interval = SECOND * 10;
    settings.ended_lease_retention = SECOND * 10;
    settings
}

/// The reader is rebuilt after one stall timeout; what it is rebuilt from is at hand.
#[tokio::test(start_paused = true)]
async fn incident_02_a_stream_call_that_never_returns_silences_no_shard_beyond_the_stall_timeout() {
    for call in [StreamCall::Read, StreamCall::Open, StreamCall::List] {
        let mut fleet = Fleet::new(1, 2);
        fleet.settings = settings();
        fleet.start("alpha");
        fleet.put_on_each_shard();
        fleet.run_until_delivered(SECOND * 5).await;
        let worker = fleet.worker("alpha");
        let mut events = worker.handle.events();
        if call == StreamCall::Open {
            // Time between the creation of the children's leases and their start.
            let slow = Fault::Delay { before: SECOND..SECOND * 2, after: Duration::ZERO..SECOND / 10 };
            worker.store.add(FaultRule::new(slow).on([StoreOperation::Update]));
            fleet.kinesis.split_shard(STREAM, FIRST, 1 << 126).expect("the middle lies inside");
            fleet.run_until(SECOND * 10, "leases of the children", |fleet| fleet.leases().len() == 4).await;
        }
        // Every call hangs until one of the kind does; whatever hangs by then never returns.
        let before = fleet.stream.calls(call);
        fleet.stream.hang(1.0, HOUR);
        fleet.run_until(SECOND * 30, "a call that hangs", |fleet| fleet.stream.calls(call) > before).await;
        fleet.stream.hang(0.0, HOUR);
        fleet.put_on_each_shard();
        let took = fleet.run_until_delivered(STALL * 4).await;
        assert!(took <= STALL + CYCLE * 2, "{call:?}: {took:?}");
        let told = |event: &Event| matches!(event, Event::Stalled { silent_for, .. } if *silent_for == STALL);
        let events = drain(&mut events);
        assert!(call == StreamCall::List || events.iter().any(told), "{call:?}: {events:?}");
        assert!(
            !events.iter().any(|event| matches!(event, Event::LeaseLost { reason: LossReason::Stalled, .. }))
        );
        fleet.ledger.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn incident_02_a_lease_call_that_never_returns_silences_no_shard_beyond_the_stall_timeout() {
    for operation in [
        StoreOperation::List,
        StoreOperation::Get,
        StoreOperation::Create,
        StoreOperation::Update,
        StoreOperation::Delete,
    ] {
        let mut fleet = Fleet::new(2, 2);
        fleet.settings = settings();
        fleet.start("alpha");
        fleet.put_on_each_shard();
        fleet.run_until_delivered(SECOND * 5).await;
        let store = &fleet.worker("alpha").store;
        store.add(FaultRule::new(Fault::Hang(HOUR)).on([operation]).times(1));
        for second in 0..60 {
            // Leases are made and looked up when a shard ends, and deleted some time after that.
            if second == 10 {
                fleet.kinesis.split_shard(STREAM, FIRST, 1 << 126).expect("the middle lies inside");
            }
            fleet.put_on_each_shard();
            let took = fleet.run_until_delivered(STALL * 4).await;
            assert!(took <= STALL + CYCLE * 2, "{operation:?}: {took:?}");
            fleet.run_for(SECOND * 2).await;
        }
        assert_eq!(fleet.worker("alpha").store.strikes(operation), 1, "{operation:?} was called");
        fleet.ledger.assert_complete();
    }
}

/// Holds a task of one of `workers` for good, which have a stream of two shards, and says how long it then takes
/// until something put on each shard is processed.
async fn frozen(part: impl Fn(&ShardId) -> Part, workers: &[&str]) -> (Result<Duration, Health>, Vec<Event>) {
    let recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Checkpoint));
    let app = recorder.clone();
    let application =
        move |_: &str, worker: SchedulerBuilder| worker.settings(settings()).processor(app.clone());
    let mut world = World::new(1, 2, MemoryLeaseStore::new(), application).expect("two shards make a stream");
    for worker in workers {
        world.start(worker).expect("the settings are sound");
    }
    let share = 2 / workers.len();
    let balanced = |world: &World| workers.iter().all(|worker| world.owned(worker) == share);
    world.run_until(SECOND * 60, "balance", balanced).await.expect("balance comes soon");
    let handle = world.handle(workers[0]).expect("it runs");
    let shard = handle.snapshot().shards.into_keys().next().expect("it has a shard");
    let mut events = handle.events();
    world.freeze(workers[0], part(&shard)).expect("it runs");
    for key in KEYS {
        world.put(key, key).await.expect("no limits are set");
    }
    let done = recorder.clone();
    let all = move |_: &World| {
        [FIRST, OTHER].iter().map(|shard| done.acknowledged(shard).len()).sum::<usize>() >= KEYS.len()
    };
    let took = world.run_until(STALL * 10, "everything is processed", all).await.map_err(|_| handle.health());
    assert_eq!(recorder.violations(), Vec::<String>::new());
    (took, drain(&mut events))
}

/// A consumer may be silent for twice its stall timeout, so what it promised is that and five seconds. Its lease is
/// renewed until then and runs out after that, so the bound is not one stall timeout and two cycles, but two,
/// five seconds, and the time in which any dead owner's lease is found.
#[tokio::test(start_paused = true)]
async fn incident_02_a_consumer_that_is_never_woken_loses_its_lease_and_its_shard_flows_again() {
    for workers in [&["alpha"][..], &["alpha", "beta"]] {
        let (took, events) = frozen(|shard| Part::Consumer(shard.clone()), workers).await;
        assert!(took.as_ref().is_ok_and(|took| *took <= STALL * 2 + SECOND * 5 + D.mul_f64(1.5)), "{took:?}");
        let lost = |event: &Event| matches!(event, Event::LeaseLost { reason: LossReason::Stalled, .. });
        let repaired = |event: &Event| matches!(event, Event::ConsumerRepaired { .. });
        assert!(events.iter().any(lost) && events.iter().any(repaired), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_02_a_worker_whose_lease_side_or_supervisor_is_never_woken_is_replaced_by_its_peer() {
    for part in [Part::LeaseSide, Part::Supervisor] {
        let (took, _) = frozen(|_| part.clone(), &["alpha", "beta"]).await;
        assert!(took.as_ref().is_ok_and(|took| *took <= D.mul_f64(1.5)), "{part}: {took:?}");
    }
}

/// Nobody is there to help. What runs the worker can: its health says so.
#[tokio::test(start_paused = true)]
async fn incident_02_a_lone_worker_whose_lease_side_is_never_woken_is_not_healthy() {
    let (took, _) = frozen(|_| Part::LeaseSide, &["alpha"]).await;
    let Err(Health::Degraded(problems)) = took else { panic!("{took:?}") };
    assert!(problems.iter().any(|problem| problem.kind == ProblemKind::TableNotListed), "{problems:?}");
}

/// A stream that panics when it is read for the second time.
#[derive(Debug)]
struct Fragile {
    stream: MemoryStream,
    reads: Arc<AtomicU64>,
}

#[derive(Debug)]
struct FragileReader {
    reader: Box<dyn ShardReader>,
    reads: Arc<AtomicU64>,
}

#[async_trait]
impl StreamSource for Fragile {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        self.stream.identity().await
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.stream.list_shards().await
    }

    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        let reader = self.stream.open(shard, from).await?;
        Ok(Box::new(FragileReader { reader, reads: Arc::clone(&self.reads) }))
    }

    fn name(&self) -> &str {
        self.stream.name()
    }
}

#[async_trait]
impl ShardReader for FragileReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == 1 {
            std::panic::resume_unwind(Box::new("a panic on request"));
        }
        self.reader.next().await
    }
}

#[tokio::test(start_paused = true)]
async fn incident_02_a_panic_outside_of_callbacks_is_told_and_its_shard_flows_again() {
    let fleet = Fleet::new(3, 1);
    let recorder = Recorder::new();
    let made = Arc::new(AtomicU64::new(0));
    let (factory, shared) = (recorder.clone(), Arc::clone(&made));
    let source = Fragile { stream: fleet.stream.clone(), reads: Arc::default() };
    let builder = fleet.builder("alpha").0.settings(settings()).stream(source);
    let scheduler = builder.processor(move |shard: &ShardContext| {
        if shared.fetch_add(1, Ordering::Relaxed) == 0 {
            std::panic::resume_unwind(Box::new("a panic on request"));
        }
        factory.create(shard)
    });
    let scheduler = scheduler.build().expect("the settings are sound");
    let (handle, mut events) = (scheduler.handle(), scheduler.handle().events());
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    for _ in 0..20 {
        fleet.put_on_each_shard();
        sleep(SECOND).await;
    }
    assert_eq!(recorder.acknowledged(FIRST).len(), 20);
    let events = drain(&mut events);
    let first = |event: &Event| matches!(event, Event::CallbackFailed { callback: Callback::Initialize, .. });
    let second =
        |event: &Event| matches!(event, Event::ConsumerRepaired { shard, .. } if *shard == FIRST.into());
    assert!(events.iter().any(first) && events.iter().any(second), "{events:?}");
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.expect("run does not panic").expect("run ends in order");
}

#[tokio::test(start_paused = true)]
async fn incident_02_errors_that_waiting_does_not_cure_are_told_and_the_shard_flows_once_they_end() {
    for kind in [SourceErrorKind::Denied, SourceErrorKind::Invalid, SourceErrorKind::Misconfigured] {
        let mut fleet = Fleet::new(4, 2);
        fleet.settings = settings();
        fleet.start("alpha");
        fleet.put_on_each_shard();
        fleet.run_until_delivered(SECOND * 5).await;
        let mut events = fleet.worker("alpha").handle.events();
        fleet.stream.fail_shard(StreamCall::Read, &FIRST.into(), kind, 5);
        fleet.put_on_each_shard();
        let took = fleet.run_until_delivered(STALL * 4).await;
        assert!(took <= STALL, "{kind:?}: {took:?}");
        let told =
            |event: &Event| matches!(event, Event::ReaderFailing { shard, .. } if shard.as_str() == FIRST);
        assert!(drain(&mut events).iter().any(told), "{kind:?}");
        fleet.ledger.assert_complete();
    }
}

#[test]
fn incident_02_fleets_with_a_frozen_task_are_never_silent() {
    kept_over(Scenario::FrozenTasks, 0..4);
}
