use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep};

use super::world::*;
use crate::checkpointer::CheckpointPolicy;
use crate::consumer::{Exit, LineageError, Order, Stage};
use crate::event::Event;
use crate::lease::{LossReason, Phase, ReleaseTo, StoreError, StoreErrorKind};
use crate::model::Checkpoint;
use crate::processor::Callback;
use crate::source::{SourceError, SourceErrorKind, StartFrom};
use crate::testing::{Action, Recorder, Rule};

#[tokio::test(start_paused = true)]
async fn an_empty_shard_that_ends_at_once_is_ended_without_a_batch() {
    let world = World::new();
    world.script.close(vec![child("a"), child("b")]);
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!(world.recorder.callbacks(), [Callback::Initialize, Callback::ShardEnded]);
    assert_eq!(world.row().ended.as_ref().unwrap().len(), 2);
    assert_eq!(running.stage(), Stage::Done);
    assert!(matches!(&running.events()[..], [Event::ShardEnded { children, .. }] if children.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_the_last_record_does_not_keep_the_shard_from_ending() {
    for action in [Action::Checkpoint, Action::CheckpointAt(at(2, 2))] {
        let mut world = World::new();
        world.recorder = Recorder::new()
            .with(Rule::on(Callback::ProcessRecords, action.clone()))
            .with(Rule::on(Callback::ShardEnded, action));
        world.script.put([plain(1, 5), aggregate(2, 3, 5)]);
        world.script.close(vec![child("a")]);
        let mut running = world.start();
        assert!(matches!(running.exit().await, Exit::Ended));
        assert_eq!(world.row().stored, [at(2, 2).into()]);
        assert_eq!(world.row().checkpoint, Checkpoint::ShardEnd);
    }
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_never_checkpoints_still_ends_its_shard() {
    for policy in
        [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch, CheckpointPolicy::Every(seconds(3600))]
    {
        let mut world = World::new();
        world.checkpoint_policy = policy;
        world.script.put([plain(1, 5)]);
        world.script.close(Vec::new());
        let mut running = world.start();
        assert!(matches!(running.exit().await, Exit::Ended));
        assert_eq!(world.row().checkpoint, Checkpoint::ShardEnd);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_end_is_stored_is_done_without_a_callback() {
    let mut world = World::new();
    world.lease.checkpoint = Checkpoint::ShardEnd;
    let mut running = world.start();
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!((world.recorder.calls().len(), world.script.state().opens.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_listing_contradicts_is_not_believed() {
    let world = World::new();
    world.family.children.lock().unwrap().push_back(Err(LineageError::StillOpen(SHARD.into())));
    world.script.put([plain(1, 5), plain(2, 5)]);
    world.script.close(Vec::new());
    let mut running = world.start();
    running.reaches(Stage::Ending).await;
    world.script.state().end = None;
    world.script.put([plain(3, 5)]);
    sleep(seconds(60)).await;
    assert_eq!(world.recorder.acknowledged(SHARD), [at(1, 0), at(2, 0), at(3, 0)]);
    assert_eq!(running.stage(), Stage::Fetching);
    let opens = world.script.state().opens.clone();
    assert_eq!(opens, [StartFrom::TrimHorizon, StartFrom::AfterSequence(2.into())]);
    world.script.close(vec![child("a")]);
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!(world.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_stored_once_children_and_store_can_be_reached() {
    let world = World::new();
    for _ in 0..3 {
        let error = StoreError::new(StoreErrorKind::Unavailable, "Scan", "table", "down");
        world.family.children.lock().unwrap().push_back(Err(LineageError::Store(error)));
    }
    world.row().failing = true;
    world.script.close(vec![child("a")]);
    let mut running = world.start();
    running.reaches(Stage::Ending).await;
    sleep(seconds(300)).await;
    assert_eq!(world.recorder.callbacks(), [Callback::Initialize, Callback::ShardEnded]);
    assert_eq!(world.row().ended, None);
    assert_eq!(world.row().broken_promise, None);
    world.row().failing = false;
    assert!(matches!(running.exit().await, Exit::Ended));
    assert_eq!(world.recorder.callbacks(), [Callback::Initialize, Callback::ShardEnded]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_gone_counts_as_ended_and_is_reported_as_loss() {
    let missing = || SourceError::new(SourceErrorKind::ShardMissing, "ListShards", SHARD, "not listed");
    for listed in [true, false] {
        let world = World::new();
        let children = if listed { Ok(vec![child("a")]) } else { Err(LineageError::Source(missing())) };
        world.family.children.lock().unwrap().push_back(children);
        world.script.put([plain(1, 5)]);
        let mut running = world.start();
        sleep(seconds(5)).await;
        world.script.set(Mood::Failing(SourceErrorKind::ShardMissing));
        assert!(matches!(running.exit().await, Exit::Ended));
        assert_eq!(world.row().ended.as_ref().unwrap().len(), usize::from(listed));
        let loss = running.events().into_iter().find_map(|event| match event {
            Event::DataLoss { checkpoint, .. } => Some(checkpoint),
            _ => None,
        });
        assert_eq!(loss, Some(at(1, 0).into()));
        assert_eq!(
            world.recorder.callbacks(),
            [Callback::Initialize, Callback::ProcessRecords, Callback::ShardEnded]
        );
    }
}

/// Brings a fresh consumer into a stage.
async fn bring_into(stage: Stage) -> (World, Running) {
    let mut world = World::new();
    world.checkpoint_policy = CheckpointPolicy::Every(seconds(3600));
    world.settings.batch_records = 2;
    world.script.put([plain(1, 5), plain(2, 5)]);
    match stage {
        Stage::WaitingForParents => world.family.parents_done.store(false, Ordering::Relaxed),
        Stage::Initializing => world.recorder.add(Rule::on(Callback::Initialize, Action::Fail)),
        Stage::Delivering => {
            world.script.put([plain(3, 5)]);
            world.recorder.add(Rule::on(Callback::ProcessRecords, Action::Delay(seconds(20))).at(at(3, 0)));
        }
        Stage::Retrying => {
            world.script.put([plain(3, 5)]);
            world.recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail).at(at(3, 0)));
        }
        Stage::Ending => {
            world.script.close(vec![child("a")]);
            world.recorder.add(Rule::on(Callback::ShardEnded, Action::Fail));
        }
        _ => {}
    }
    let mut running = world.start();
    match stage {
        Stage::Paused => {
            sleep(seconds(3)).await;
            running.order(Order::Pause);
        }
        Stage::Fenced => {
            sleep(seconds(3)).await;
            world.row().renews = false;
            sleep(VALIDITY).await;
            world.script.put([plain(3, 5)]);
        }
        _ => {}
    }
    sleep(seconds(3)).await;
    running.reaches(stage).await;
    (world, running)
}

const STAGES: [Stage; 8] = [
    Stage::WaitingForParents,
    Stage::Initializing,
    Stage::Fetching,
    Stage::Delivering,
    Stage::Retrying,
    Stage::Fenced,
    Stage::Paused,
    Stage::Ending,
];

#[tokio::test(start_paused = true)]
async fn a_shard_can_be_drained_in_every_stage() {
    for stage in STAGES {
        for hand_over in [false, true] {
            let (world, mut running) = bring_into(stage).await;
            let asked = Instant::now();
            if hand_over {
                running.set_phase(Phase::HandOver("next".into()));
            } else {
                running.order(Order::Drain);
            }
            let exit = running.exit().await;
            assert!(matches!(exit, Exit::Released { clean: true }), "{stage:?}: {exit:?}");
            let in_callback = stage == Stage::Delivering;
            assert!(in_callback || asked.elapsed() < seconds(1), "{stage:?}: {:?}", asked.elapsed());

            let to = if hand_over { ReleaseTo::Worker("next".into()) } else { ReleaseTo::Anybody };
            let acknowledged = match stage {
                Stage::WaitingForParents | Stage::Initializing => None,
                Stage::Delivering => Some(at(3, 0).into()),
                _ => Some(at(2, 0).into()),
            };
            assert_eq!(world.row().released, Some((acknowledged, to)), "{stage:?}");
            let told = world.recorder.count(Callback::ShutdownRequested);
            let initialized = !matches!(stage, Stage::WaitingForParents | Stage::Initializing);
            assert_eq!(told, usize::from(initialized), "{stage:?}");
            assert_eq!(world.recorder.count(Callback::LeaseLost), 0, "{stage:?}");
            assert_eq!(world.recorder.violations(), Vec::<String>::new(), "{stage:?}");
            assert_eq!(world.script.readers.load(Ordering::Relaxed), 0, "{stage:?}");
            assert_eq!(world.budget.used_bytes(), 0, "{stage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_can_be_lost_in_every_stage() {
    for stage in STAGES {
        let (world, mut running) = bring_into(stage).await;
        running.lose();
        let exit = running.exit().await;
        assert!(matches!(exit, Exit::Lost(LossReason::Taken { .. })), "{stage:?}: {exit:?}");
        let initialized = !matches!(stage, Stage::WaitingForParents | Stage::Initializing);
        assert_eq!(world.recorder.count(Callback::LeaseLost), usize::from(initialized), "{stage:?}");
        assert_eq!(world.recorder.count(Callback::ShutdownRequested), 0, "{stage:?}");
        assert_eq!(world.recorder.violations(), Vec::<String>::new(), "{stage:?}");
        assert_eq!(world.row().stored, [], "{stage:?}");
        assert_eq!(world.row().released, None, "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_consumer_leaves_nothing_behind_in_any_stage() {
    for stage in STAGES {
        let (world, mut running) = bring_into(stage).await;
        running.consumer.shutdown().await;
        assert_eq!(world.script.readers.load(Ordering::Relaxed), 0, "{stage:?}");
        assert_eq!(world.budget.used_bytes(), 0, "{stage:?}");
        assert_eq!(world.row().released, None, "{stage:?}");
        assert_eq!(Arc::strong_count(&world.family), 1, "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_is_not_covered_by_the_checkpoint_of_a_shutdown() {
    let mut world = World::new();
    world.settings.batch_records = 2;
    world.recorder = Recorder::new()
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).at(at(3, 0)))
        .with(Rule::on(Callback::ShutdownRequested, Action::Checkpoint));
    world.script.put([plain(1, 5), plain(2, 5), plain(3, 5), plain(4, 5)]);
    let mut running = world.start();
    running.reaches(Stage::Retrying).await;
    running.order(Order::Drain);
    assert!(matches!(running.exit().await, Exit::Released { clean: true }));
    assert_eq!(world.row().stored, [at(2, 0).into()]);
    assert_eq!(world.row().released, Some((None, ReleaseTo::Anybody)));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_keeps_failing_is_not_waited_for() {
    let mut world = World::new();
    world.recorder = Recorder::new().with(Rule::on(Callback::ShutdownRequested, Action::Panic));
    let mut running = world.start();
    running.reaches(Stage::Fetching).await;
    let asked = Instant::now();
    running.order(Order::Drain);
    assert!(matches!(running.exit().await, Exit::Released { clean: false }));
    assert!(asked.elapsed() < seconds(2), "{:?}", asked.elapsed());
    assert_eq!(world.recorder.count(Callback::ShutdownRequested), 3);
    assert!(world.row().released.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_while_it_is_given_up_is_told_after_the_shutdown() {
    let mut world = World::new();
    world.recorder = Recorder::new()
        .with(Rule::on(Callback::ShutdownRequested, Action::Delay(seconds(10))))
        .with(Rule::on(Callback::ShutdownRequested, Action::Checkpoint));
    world.script.put([plain(1, 5)]);
    let mut running = world.start();
    sleep(seconds(3)).await;
    running.order(Order::Drain);
    running.reaches(Stage::Draining).await;
    sleep(seconds(1)).await;
    running.lose();
    assert!(matches!(running.exit().await, Exit::Lost(_)));
    assert_eq!(
        world.recorder.callbacks(),
        [Callback::Initialize, Callback::ProcessRecords, Callback::ShutdownRequested, Callback::LeaseLost]
    );
    assert_eq!(world.recorder.violations(), Vec::<String>::new());
}
