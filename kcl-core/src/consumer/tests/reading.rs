use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::world::*;
use crate::consumer::{Exit, Stage, WorkerBudget};
use crate::event::Event;
use crate::model::Checkpoint;
use crate::processor::Callback;
use crate::source::{SourceErrorKind, StartFrom};
use crate::testing::{Action, Recorder, Rule};

#[tokio::test(start_paused = true)]
async fn a_silent_source_is_opened_anew_and_then_its_lease_is_released() {
    let world = World::new();
    world.script.put([plain(1, 5)]);
    let mut running = world.start();
    sleep(seconds(10)).await;
    world.script.set(Mood::Silent);
    let silent = Instant::now();
    assert!(matches!(running.exit().await, Exit::Released { clean: false }));
    let after = silent.elapsed();
    assert!((seconds(119)..seconds(125)).contains(&after), "{after:?}");
    let stalls: Vec<Duration> = running
        .events()
        .iter()
        .filter_map(
            |event| if let Event::Stalled { silent_for, .. } = event { Some(*silent_for) } else { None },
        )
        .collect();
    assert_eq!(stalls, [seconds(60), seconds(120)]);
    let opens = world.script.state().opens.clone();
    assert_eq!(opens, [StartFrom::TrimHorizon, StartFrom::AfterSequence(1.into())]);
    assert_eq!(world.row().broken_promise, None, "the lease is held until it is released");
    assert_eq!(world.recorder.callbacks().last(), Some(&Callback::ShutdownRequested));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_answers_again_after_it_was_opened_anew_is_kept() {
    let world = World::new();
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    for _ in 0..3 {
        world.script.set(Mood::Silent);
        sleep(seconds(30)).await;
        world.script.set(Mood::Well);
        sleep(seconds(70)).await;
    }
    assert_eq!(running.stage(), Stage::Fetching);
    assert_eq!(world.row().broken_promise, None);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_refuses_is_visible_at_once_and_left_to_others_later() {
    for kind in [SourceErrorKind::Denied, SourceErrorKind::PositionUnknown, SourceErrorKind::Invalid] {
        let world = World::new();
        world.script.set(Mood::Failing(kind));
        let mut running = world.start();
        sleep(seconds(10)).await;
        {
            let report = running.report.borrow();
            assert_eq!(report.stage, Stage::Fetching);
            assert!(report.failures > 2, "{report:?}");
            assert!(report.last_error.as_ref().unwrap().contains("failing as told"), "{report:?}");
        }
        let events = running.events();
        assert!(events.iter().any(|event| matches!(event, Event::ReaderFailing { .. })), "{events:?}");
        let started = Instant::now();
        assert!(matches!(running.exit().await, Exit::Released { clean: false }));
        assert!(started.elapsed() < seconds(125), "{:?}", started.elapsed());
        assert_eq!(world.row().broken_promise, None);
        assert_eq!(world.recorder.count(Callback::ProcessRecords), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_source_is_waited_for() {
    let world = World::new();
    world.script.set(Mood::Failing(SourceErrorKind::Throttled));
    let running = world.start();
    sleep(seconds(1800)).await;
    assert_eq!((running.stage(), world.row().broken_promise), (Stage::Fetching, None));
    world.script.put([plain(1, 5)]);
    world.script.set(Mood::Well);
    sleep(seconds(60)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), [at(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_start_at_a_time_nobody_knows_is_an_error_and_no_jump() {
    let mut world = World::new();
    world.lease.checkpoint = Checkpoint::AtTimestamp;
    world.script.put([plain(1, 5)]);
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Released { clean: false }));
    assert_eq!(world.script.state().opens, []);
    assert_eq!(world.recorder.count(Callback::ProcessRecords), 0);
    let error = running.report.borrow().last_error.clone().unwrap();
    assert!(error.contains("AT_TIMESTAMP without a time"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn sentinels_start_where_the_lease_says() {
    let time = SystemTime::UNIX_EPOCH + seconds(77);
    for (checkpoint, stamped, start) in [
        (Checkpoint::TrimHorizon, false, StartFrom::TrimHorizon),
        (Checkpoint::Latest, false, StartFrom::Latest),
        (Checkpoint::Latest, true, StartFrom::AtTimestamp(time)),
        (Checkpoint::AtTimestamp, true, StartFrom::AtTimestamp(time)),
        (Checkpoint::At(at(9, 4)), true, StartFrom::AtSequence(9.into())),
    ] {
        let mut world = World::new();
        world.lease.checkpoint = checkpoint;
        world.lease.start_timestamp = stamped.then_some(time);
        let mut running = world.start();
        running.reaches(Stage::Fetching).await;
        sleep(seconds(1)).await;
        assert_eq!(world.script.state().opens, [start], "{checkpoint:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_latest_start_means_the_first_try_however_often_the_source_is_opened() {
    let mut world = World::new();
    world.lease.checkpoint = Checkpoint::Latest;
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    sleep(seconds(1)).await;
    world.script.set(Mood::Failing(SourceErrorKind::Unavailable));
    sleep(seconds(10)).await;
    world.script.put([plain(1, 5)]);
    world.script.set(Mood::Well);
    sleep(seconds(30)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), [at(1, 0)]);
    let opens = world.script.state().opens.clone();
    assert_eq!(opens[0], StartFrom::Latest);
    let first_try = SystemTime::UNIX_EPOCH + seconds(1_000_000);
    assert!(opens.len() > 1);
    for open in &opens[1..] {
        assert!(
            matches!(open, StartFrom::AtTimestamp(time) if *time <= first_try && *time > first_try - seconds(10)),
            "{open:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_the_processor_works_until_the_budget_is_used_up() {
    const ANSWER: usize = 10 * 1000;
    let mut world = World::new();
    world.settings.batch_records = 10;
    world.settings.shard_buffer_bytes = 60_000;
    world.script.state().answer_records = 10;
    world.recorder =
        Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Delay(seconds(600))).times(1));
    world.script.put((1..=1000).map(|sequence| plain(sequence, 1000)));
    world.script.close(Vec::new());
    let mut running = world.start();
    running.reaches(Stage::Delivering).await;
    sleep(seconds(590)).await;
    assert_eq!(world.recorder.count(Callback::ProcessRecords), 1);
    let read_ahead = world.budget.used_bytes();
    assert!(read_ahead > 3 * ANSWER, "prefetched while the callback runs: {read_ahead}");
    assert!(read_ahead <= 60_000 + 2 * (ANSWER + ANSWER / 4), "{read_ahead}");
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!(world.recorder.acknowledged(SHARD).len(), 1000);
    assert_eq!(world.budget.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn blocked_processors_hold_the_workers_budget_and_one_answer_each_at_most() {
    const ANSWER: usize = 20 * 1000;
    let budget = WorkerBudget::new(200_000);
    let mut worlds = Vec::new();
    for _ in 0..40 {
        let mut world = World::new();
        world.budget = budget.clone();
        world.settings.worker_buffer_bytes = 200_000;
        world.settings.shard_buffer_bytes = 100_000;
        world.script.state().answer_records = 20;
        world.recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Hang).times(1));
        world.script.put((1..=1000).map(|sequence| plain(sequence, 1000)));
        let running = world.start();
        worlds.push((world, running));
    }
    sleep(seconds(600)).await;
    let mut buffered = 0;
    for (world, running) in &worlds {
        assert_eq!(world.recorder.count(Callback::ProcessRecords), 1, "nobody is kept from its first batch");
        let in_hand: usize = world.recorder.calls()[1].payloads.iter().map(bytes::Bytes::len).sum();
        buffered += in_hand + running.report.borrow().buffered_bytes;
    }
    assert!(buffered <= 200_000 + 40 * (ANSWER + ANSWER / 4), "{buffered}");
    for (_, running) in &mut worlds {
        running.consumer.shutdown().await;
    }
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_was_blocked_is_not_read_as_a_dead_source() {
    let world = World::new();
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    for millis in 0..100 {
        // Also while the next answer is on its way and needs to be polled more than once.
        sleep(Duration::from_millis(millis % 45)).await;
        // Time passes in which nothing is polled.
        tokio::time::advance(seconds(70)).await;
    }
    let events = running.events();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(running.stage(), Stage::Fetching);
}

#[tokio::test(start_paused = true)]
async fn the_report_of_an_idle_shard_is_fresh_although_not_every_answer_wakes_its_consumer() {
    let world = World::new();
    world.script.state().quiet_interval = Duration::from_millis(180);
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    sleep(seconds(5)).await;
    running.report.mark_unchanged();
    let mut reports = 0;
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        let report = running.report.borrow_and_update();
        assert_eq!(report.stage, Stage::Fetching);
        reports += u32::from(report.has_changed());
        let age = report.last_fetch.expect("the source answers").elapsed();
        assert!(age <= Duration::from_millis(1_800), "{age:?}");
    }
    assert!((30..=60).contains(&reports), "{reports} reports in a minute");
    assert_eq!(world.row().broken_promise, None);
}
