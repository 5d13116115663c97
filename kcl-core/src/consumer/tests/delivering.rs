use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::world::*;
use crate::checkpointer::{CheckpointError, CheckpointPolicy, Checkpointer};
use crate::consumer::{Exit, Order, Stage};
use crate::error::BoxError;
use crate::event::Event;
use crate::lease::LossReason;
use crate::model::{Checkpoint, Position};
use crate::processor::{Callback, ErrorPolicy, OnError, ProcessorFailure, RecordBatch};
use crate::settings::OutOfRange;
use crate::source::StartFrom;
use crate::testing::{Action, CallOutcome, Recorder, Rule};

fn positions(range: std::ops::Range<u64>) -> Vec<Position> {
    range.map(|sequence| at(sequence, 0)).collect()
}

fn plains(range: std::ops::Range<u64>) -> Vec<crate::model::SourceRecord> {
    range.map(|sequence| plain(sequence, 10)).collect()
}

#[tokio::test(start_paused = true)]
async fn batches_that_fail_and_panic_come_again_and_nothing_is_skipped() {
    let mut world = World::new();
    world.settings.batch_records = 10;
    world.recorder = Recorder::new()
        .with(Rule::on(Callback::Initialize, Action::Panic).times(1))
        .with(Rule::on(Callback::ProcessRecords, Action::Checkpoint))
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).at(at(15, 0)).times(3))
        .with(Rule::on(Callback::ProcessRecords, Action::Panic).at(at(42, 0)).times(2))
        .with(Rule::on(Callback::ShardEnded, Action::Panic).times(2));
    world.script.put(plains(1..100));
    world.script.close(vec![child("child")]);
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!(world.recorder.acknowledged(SHARD), positions(1..100));
    assert_eq!(world.recorder.violations(), Vec::<String>::new());
    let failed = running.events().iter().filter(|e| matches!(e, Event::CallbackFailed { .. })).count();
    assert_eq!(failed, 1 + 3 + 2 + 2);
    assert!(running.report.borrow().records == 99 && running.report.borrow().bytes == 990);
    assert_eq!(world.row().broken_promise, None);
}

#[tokio::test(start_paused = true)]
async fn incident_19_a_half_processed_aggregate_resumes_with_the_next_of_its_records_wherever_it_was_left() {
    let all = [at(1, 0), at(2, 0), at(2, 1), at(2, 2), at(3, 0), at(4, 0), at(4, 1), at(5, 0)];
    for (left, &crash) in all.iter().enumerate() {
        let mut world = World::new();
        world.settings.batch_records = 3;
        world.script.put([plain(1, 5), aggregate(2, 3, 5), plain(3, 5), aggregate(4, 2, 5), plain(5, 5)]);
        // The batch that holds the record is checkpointed up to it; then the worker dies inside the callback.
        world.recorder = Recorder::new()
            .with(Rule::on(Callback::ProcessRecords, Action::CheckpointAt(crash)).at(crash))
            .with(Rule::on(Callback::ProcessRecords, Action::Hang).at(crash));
        let mut running = world.start();
        running.reaches(Stage::Delivering).await;
        sleep(seconds(5)).await;
        drop(running);
        assert_eq!(world.row().checkpoint, Checkpoint::At(crash));

        world.recorder = Recorder::new();
        world.resume();
        world.script.close(Vec::new());
        let mut running = world.start();
        assert!(matches!(running.exit().await, Exit::Ended));
        assert_eq!(world.recorder.acknowledged(SHARD), &all[left + 1..], "after {crash}");
        assert!(world.script.state().opens.contains(&StartFrom::AtSequence(crash.sequence)));
        let events = running.events();
        assert!(!events.iter().any(|event| matches!(event, Event::DataLoss { .. })), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpointed_record_that_is_gone_is_reported_as_possible_loss() {
    let mut world = World::new();
    world.row().checkpoint = at(3, 0).into();
    world.resume();
    world.script.put(plains(7..9));
    let mut running = world.start();
    sleep(seconds(5)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), positions(7..9));
    let losses = running.events().iter().filter(|event| matches!(event, Event::DataLoss { .. })).count();
    assert_eq!(losses, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_while_the_lease_cannot_be_proven_valid() {
    let world = World::new();
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    world.row().renews = false;
    sleep(VALIDITY + seconds(1)).await;
    world.script.put(plains(1..5));
    running.reaches(Stage::Fenced).await;
    sleep(seconds(600)).await;
    assert_eq!(world.recorder.count(Callback::ProcessRecords), 0);
    world.row().renews = true;
    sleep(seconds(2)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), positions(1..5));
    assert_eq!(world.row().broken_promise, None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_is_not_retried_while_the_lease_cannot_be_proven_valid() {
    let mut world = World::new();
    world.recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Fail).times(1));
    world.row().renews = false;
    let fail_late = Rule::on(Callback::ProcessRecords, Action::Delay(VALIDITY));
    world.recorder = Recorder::new()
        .with(fail_late.times(1))
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).times(1));
    world.script.put(plains(1..5));
    let mut running = world.start();
    running.reaches(Stage::Fenced).await;
    sleep(seconds(60)).await;
    assert_eq!(world.recorder.count(Callback::ProcessRecords), 1);
    running.lose();
    assert!(matches!(running.exit().await, Exit::Lost(LossReason::Taken { .. })));
    assert_eq!(
        world.recorder.callbacks(),
        [Callback::Initialize, Callback::ProcessRecords, Callback::LeaseLost]
    );
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_outlives_its_lease_may_end_and_then_the_processor_is_told_once() {
    let mut world = World::new();
    world.recorder = Recorder::new()
        .with(Rule::on(Callback::ProcessRecords, Action::Delay(seconds(100))))
        .with(Rule::on(Callback::ProcessRecords, Action::Checkpoint))
        .with(Rule::on(Callback::LeaseLost, Action::Panic));
    world.settings.batch_records = 2;
    world.script.put(plains(1..9));
    let mut running = world.start();
    running.reaches(Stage::Delivering).await;
    sleep(seconds(10)).await;
    running.lose();
    let lost_at = Instant::now();
    assert!(matches!(running.exit().await, Exit::Lost(LossReason::Taken { .. })));
    let calls = world.recorder.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert_eq!(calls[1].outcome, CallOutcome::Failed, "the checkpoint cannot be stored any more");
    assert!(calls[1].ended.unwrap() > lost_at + seconds(80));
    assert_eq!(calls[2].callback, Callback::LeaseLost);
    assert_eq!(world.row().stored, []);
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_delivers_nothing_keeps_the_lease_and_loses_nothing() {
    let world = World::new();
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    running.order(Order::Pause);
    running.reaches(Stage::Paused).await;
    world.script.put(plains(1..50));
    sleep(seconds(1800)).await;
    assert_eq!(world.recorder.count(Callback::ProcessRecords), 0);
    assert_eq!((running.stage(), world.row().broken_promise), (Stage::Paused, None));
    running.order(Order::Run);
    sleep(seconds(2)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), positions(1..50));
}

#[tokio::test(start_paused = true)]
async fn incident_20_batches_keep_their_limits_after_deaggregation_and_a_larger_record_comes_alone() {
    let mut world = World::new();
    world.settings.batch_records = 7;
    world.settings.batch_bytes = 100;
    world.script.put([aggregate(1, 20, 10), plain(2, 99), plain(3, 1), plain(4, 1000), plain(5, 1)]);
    world.script.put([aggregate(6, 30, 30)]);
    world.script.close(Vec::new());
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Ended));
    let mut delivered = 0;
    for call in world.recorder.calls().iter().filter(|call| call.callback == Callback::ProcessRecords) {
        let bytes: usize = call.payloads.iter().map(bytes::Bytes::len).sum();
        assert!(!call.payloads.is_empty() && call.payloads.len() <= 7, "{call:?}");
        assert!(bytes <= 100 || call.payloads.len() == 1, "{call:?}");
        delivered += call.payloads.len();
    }
    assert_eq!(delivered, 20 + 4 + 30);
    assert_eq!(world.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn records_of_other_shards_are_dropped_counted_and_passed_by_checkpoints() {
    let mut world = World::new();
    // The aggregates' records carry hash key 5.
    world.lease.hash_key_range = Some(range(6, u128::MAX));
    world.checkpoint_policy = CheckpointPolicy::AfterBatch;
    world.script.put([plain(1, 5), aggregate(2, 4, 5), aggregate(3, 2, 5)]);
    let mut running = world.start();
    sleep(seconds(5)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), [at(1, 0)]);
    assert_eq!(world.row().checkpoint, at(3, 1).into());
    let dropped: u64 = running
        .events()
        .iter()
        .map(|event| if let Event::RecordsOutOfRange { records, .. } = event { *records } else { 0 })
        .sum();
    assert_eq!(dropped, 6);
    drop(running);

    world.settings.out_of_range = OutOfRange::Keep;
    world.recorder = Recorder::new();
    world.lease.checkpoint = Checkpoint::TrimHorizon;
    let _running = world.start();
    sleep(seconds(5)).await;
    assert_eq!(world.recorder.acknowledged(SHARD).len(), 1 + 4 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_aggregate_is_delivered_whole_and_reported() {
    let world = World::new();
    let mut record = aggregate(1, 3, 10);
    let mut bytes = record.data.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    record.data = bytes.clone().into();
    world.script.put([record]);
    let mut running = world.start();
    sleep(seconds(5)).await;
    let calls = world.recorder.calls();
    assert_eq!(calls[1].payloads, [bytes::Bytes::from(bytes)]);
    let events = running.events();
    assert!(
        matches!(&events[..], [Event::DamagedAggregate { position, .. }] if *position == at(1, 0)),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_library_stores_each_acknowledged_batch_and_no_failed_one() {
    let mut world = World::new();
    world.settings.batch_records = 10;
    world.checkpoint_policy = CheckpointPolicy::AfterBatch;
    world.recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Fail).at(at(25, 0)));
    world.script.put(plains(1..40));
    let mut running = world.start();
    running.reaches(Stage::Retrying).await;
    sleep(seconds(100)).await;
    let expected: Vec<Checkpoint> = [at(10, 0), at(20, 0)].map(Checkpoint::At).into();
    assert_eq!(world.row().stored, expected);
}

#[tokio::test(start_paused = true)]
async fn an_interval_policy_stores_on_an_idle_shard_and_when_the_shard_is_given_up() {
    let mut world = World::new();
    world.checkpoint_policy = CheckpointPolicy::Every(seconds(30));
    world.script.put(plains(1..5));
    let mut running = world.start();
    sleep(seconds(20)).await;
    assert_eq!(world.row().stored, []);
    sleep(seconds(20)).await;
    assert_eq!(world.row().stored, [at(4, 0).into()]);
    world.script.put(plains(5..7));
    sleep(seconds(2)).await;
    running.order(Order::Drain);
    assert!(matches!(running.exit().await, Exit::Released { clean: true }));
    assert_eq!(world.row().released.as_ref().unwrap().0, Some(at(6, 0).into()));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_does_not_stop_delivery_and_is_tried_again() {
    let mut world = World::new();
    world.checkpoint_policy = CheckpointPolicy::AfterBatch;
    world.row().failing = true;
    let mut running = world.start();
    for sequence in 1..50 {
        world.script.put([plain(sequence, 10)]);
        sleep(seconds(1)).await;
    }
    assert_eq!(world.recorder.acknowledged(SHARD), positions(1..50));
    assert!(running.report.borrow().last_error.as_ref().unwrap().contains("failing as told"));
    world.row().failing = false;
    sleep(seconds(60)).await;
    assert_eq!(world.row().checkpoint, at(49, 0).into());
    running.order(Order::Drain);
    assert!(matches!(running.exit().await, Exit::Released { clean: true }));
}

#[tokio::test(start_paused = true)]
async fn slow_processing_is_not_read_as_a_dead_source() {
    let mut world = World::new();
    world.settings.batch_records = 10;
    world.settings.shard_buffer_bytes = 2000;
    world.script.state().answer_records = 10;
    world.recorder =
        Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Delay(seconds(14 * 60))));
    world.script.put(plains(1..60));
    world.script.close(Vec::new());
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Ended));
    let events = running.events();
    assert!(matches!(&events[..], [Event::ShardEnded { .. }]), "{events:?}");
    assert_eq!((world.row().broken_promise, world.script.state().opens.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_callback_over_its_limit_is_dropped_and_its_lease_released() {
    let mut world = World::new();
    world.checkpoint_policy = CheckpointPolicy::AfterBatch;
    world.settings.batch_records = 2;
    world.settings.callback_limit = seconds(60);
    world.recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Hang).at(at(3, 0)));
    world.script.put(plains(1..9));
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Released { clean: false }));
    assert_eq!(world.recorder.callbacks().last(), Some(&Callback::ProcessRecords));
    assert_eq!(world.row().released.as_ref().unwrap().0, Some(at(2, 0).into()));
    assert!(matches!(
        &running.events()[..],
        [Event::CallbackFailed { callback: Callback::ProcessRecords, .. }]
    ));
    assert_eq!(world.row().broken_promise, None);
}

#[tokio::test(start_paused = true)]
async fn a_processor_whose_initialize_fails_is_initialised_again_and_told_nothing_else() {
    let mut world = World::new();
    world.recorder = Recorder::new().with(Rule::on(Callback::Initialize, Action::Fail));
    world.script.put(plains(1..9));
    let mut running = world.start();
    running.reaches(Stage::Initializing).await;
    sleep(seconds(100)).await;
    let calls = world.recorder.calls();
    assert!(calls.len() > 5, "{}", calls.len());
    assert!(calls.iter().all(|call| call.instance == 0 && call.callback == Callback::Initialize));
    running.lose();
    assert!(matches!(running.exit().await, Exit::Lost(_)));
    assert!(world.recorder.callbacks().iter().all(|callback| *callback == Callback::Initialize));
}

#[derive(Default)]
struct SkipsWithDeadLetters {
    letters: Mutex<Vec<Position>>,
}

#[async_trait]
impl ErrorPolicy for SkipsWithDeadLetters {
    fn on_error(&self, failure: &ProcessorFailure<'_>) -> OnError {
        assert_eq!(failure.panicked, failure.failures == 1, "the first attempt panics");
        OnError::Skip
    }

    async fn dead_letter(&self, batch: &RecordBatch, _: &BoxError) -> Result<(), BoxError> {
        if batch.attempt() == 0 {
            return Err("not now".into());
        }
        self.letters.lock().unwrap().extend(batch.records().iter().map(|record| record.position()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_skipped_on_request_only_once_its_dead_letter_is_taken() {
    let mut world = World::new();
    world.settings.batch_records = 2;
    world.checkpoint_policy = CheckpointPolicy::AfterBatch;
    let policy = Arc::new(SkipsWithDeadLetters::default());
    world.error_policy = Arc::clone(&policy) as Arc<dyn ErrorPolicy>;
    world.recorder = Recorder::new()
        .with(Rule::on(Callback::ProcessRecords, Action::Panic).at(at(3, 0)).times(1))
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).at(at(3, 0)));
    world.script.put(plains(1..7));
    let mut running = world.start();
    sleep(seconds(60)).await;
    assert_eq!(*policy.letters.lock().unwrap(), [at(3, 0), at(4, 0)]);
    assert_eq!(world.recorder.acknowledged(SHARD), [at(1, 0), at(2, 0), at(5, 0), at(6, 0)]);
    assert_eq!(world.row().checkpoint, at(6, 0).into());
    let skipped = running.events().into_iter().find_map(|event| match event {
        Event::BatchSkipped { first, last, records, .. } => Some((first, last, records)),
        _ => None,
    });
    assert_eq!(skipped, Some((at(3, 0), at(4, 0), 2)));
}

#[tokio::test(start_paused = true)]
async fn a_policy_can_give_up_the_lease_or_stop_the_scheduler() {
    for stop in [false, true] {
        let mut world = World::new();
        world.error_policy = Arc::new(
            move |_: &ProcessorFailure<'_>| {
                if stop { OnError::StopScheduler } else { OnError::ReleaseLease }
            },
        );
        world.recorder = Recorder::new()
            .with(Rule::on(Callback::ProcessRecords, Action::Fail))
            .with(Rule::on(Callback::ShutdownRequested, Action::Checkpoint));
        world.script.put(plains(1..7));
        let mut running = world.start();
        match running.exit().await {
            Exit::StopScheduler(error) if stop => assert_eq!(error.to_string(), "failed as told"),
            Exit::Released { clean: true } if !stop => {}
            exit => panic!("{exit:?}"),
        }
        assert!(world.row().released.is_some());
        assert_eq!(world.row().stored, [], "the failed batch is not covered");
        assert_eq!(world.recorder.violations(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_are_delivered_on_request() {
    let mut world = World::new();
    world.settings.deliver_empty_batches = true;
    world.script.put(plains(1..3));
    let _running = world.start();
    sleep(seconds(10)).await;
    let calls = world.recorder.calls();
    assert!(calls.len() > 5 && calls[1].positions.len() == 2, "{calls:?}");
    assert!(calls[2..].iter().all(|call| call.positions.is_empty()));
}

/// Hands its checkpointer out, to be used from elsewhere.
struct Lends(Arc<Mutex<Option<Checkpointer>>>);

#[async_trait]
impl crate::processor::RecordProcessor for Lends {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        *self.0.lock().unwrap() = Some(checkpointer.clone());
        let last = batch.records().last().ok_or("no records")?.position();
        assert_eq!(checkpointer.delivered(), Some(last), "the batch in hand counts");
        if last >= at(20, 0) { Err("too far".into()) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn incident_13_a_checkpointer_works_from_other_tasks_moves_forward_only_and_ends_with_the_lease() {
    let mut world = World::new();
    world.settings.batch_records = 10;
    let lent = Arc::new(Mutex::new(None));
    world.script.put(plains(1..31));
    let mut running = {
        let lent = Arc::clone(&lent);
        world.start_with(Arc::new(move |_: &crate::processor::ShardContext| Lends(Arc::clone(&lent))))
    };
    sleep(seconds(5)).await;
    let checkpointer: Checkpointer = lent.lock().unwrap().clone().unwrap();

    // The first batch is acknowledged; the second failed, so it was handed over but is not "delivered".
    assert_eq!(checkpointer.stored(), Checkpoint::TrimHorizon);
    assert_eq!(checkpointer.delivered(), Some(at(10, 0)));
    checkpointer.checkpoint_at(at(3, 0)).await.unwrap();
    checkpointer.checkpoint_at(at(2, 0)).await.unwrap();
    checkpointer.checkpoint().await.unwrap();
    checkpointer.checkpoint().await.unwrap();
    checkpointer.checkpoint_at(at(12, 0)).await.unwrap();
    assert_eq!(world.row().stored, [at(3, 0), at(10, 0), at(12, 0)].map(Checkpoint::At));
    assert_eq!(checkpointer.delivered(), Some(at(12, 0)));
    let beyond = checkpointer.checkpoint_at(at(21, 0)).await;
    assert!(
        matches!(beyond, Err(CheckpointError::NotDelivered { delivered: Some(p), .. }) if p == at(20, 0)),
        "{beyond:?}"
    );

    let prepared = checkpointer.prepare_at(at(15, 0), Some("state".into())).await.unwrap();
    assert_eq!(world.row().pending.as_ref().unwrap().position, at(15, 0));
    assert_eq!(world.row().checkpoint, at(12, 0).into());
    prepared.commit().await.unwrap();
    prepared.commit().await.unwrap();
    assert_eq!(world.row().checkpoint, at(15, 0).into());
    assert_eq!(world.row().pending, None);
    let state = checkpointer.prepare(None).await.unwrap();
    assert_eq!(state.position(), Some(at(15, 0)));

    world.row().failing = true;
    assert!(matches!(checkpointer.checkpoint_at(at(18, 0)).await, Err(CheckpointError::Store(_))));
    assert_eq!(checkpointer.stored(), at(15, 0).into());
    world.row().failing = false;
    running.lose();
    running.exit().await;
    for lost in [checkpointer.checkpoint().await, checkpointer.checkpoint_at(at(18, 0)).await] {
        assert!(matches!(lost, Err(CheckpointError::LeaseLost)), "{lost:?}");
    }
    assert!(matches!(prepared.commit().await, Err(CheckpointError::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_before_the_first_record_does_nothing() {
    let mut world = World::new();
    world.recorder = Recorder::new().with(Rule::on(Callback::ShutdownRequested, Action::Checkpoint));
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    running.order(Order::Drain);
    assert!(matches!(running.exit().await, Exit::Released { clean: true }));
    assert_eq!(world.row().stored, []);
    assert_eq!(world.row().checkpoint, Checkpoint::TrimHorizon);
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_until_its_parents_have_ended_and_starts_at_once_when_told() {
    let mut world = World::new();
    world.settings.parent_poll_interval = seconds(30);
    world.family.parents_done.store(false, Ordering::Relaxed);
    world.script.put(plains(1..3));
    let mut running = world.start();
    sleep(seconds(300)).await;
    assert_eq!(running.stage(), Stage::WaitingForParents);
    assert_eq!((world.recorder.calls().len(), world.script.state().opens.len()), (0, 0));
    assert_eq!(world.row().broken_promise, None);
    let looks = world.family.looks.load(Ordering::Relaxed);
    assert!((9..=13).contains(&looks), "{looks}");

    world.family.parents_done.store(true, Ordering::Relaxed);
    world.family.ended.notify_one();
    let told = Instant::now();
    running.reaches(Stage::Fetching).await;
    assert!(told.elapsed() < seconds(1), "{:?}", told.elapsed());
    drop(running);

    // Nobody tells: found by looking.
    world.recorder = Recorder::new();
    world.family.parents_done.store(false, Ordering::Relaxed);
    let mut running = world.start();
    sleep(seconds(5)).await;
    world.family.parents_done.store(true, Ordering::Relaxed);
    sleep(seconds(40)).await;
    running.reaches(Stage::Fetching).await;
    assert_eq!(world.recorder.acknowledged(SHARD), positions(1..3));
}
