use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::world::*;
use crate::checkpointer::CheckpointPolicy;
use crate::consumer::{Exit, Order};
use crate::lease::Phase;
use crate::model::{Checkpoint, Position};
use crate::processor::Callback;
use crate::source::SourceErrorKind;
use crate::testing::{Action, CallOutcome, Recorder, Rule};

/// Fills the shard with plain records and aggregates; returns the positions of all user records.
fn fill(world: &World, rng: &mut fastrand::Rng) -> Vec<Position> {
    let mut positions = Vec::new();
    for sequence in 1..rng.u64(1..60) {
        let size = rng.usize(1..200);
        let count = if rng.bool() { 1 } else { rng.u64(2..12) };
        world.script.put([if count == 1 { plain(sequence, size) } else { aggregate(sequence, count, size) }]);
        positions.extend((0..count).map(|sub| at(sequence, sub)));
    }
    positions
}

/// Makes callbacks fail, panic and take their time, each a few times, and checkpoint where they do not.
fn troubled(rng: &mut fastrand::Rng) -> Recorder {
    let recorder = Recorder::new();
    for callback in [
        Callback::Initialize,
        Callback::ProcessRecords,
        Callback::ProcessRecords,
        Callback::ProcessRecords,
        Callback::ShardEnded,
        Callback::ShutdownRequested,
        Callback::LeaseLost,
    ] {
        let action = match rng.u8(..5) {
            0 => Action::Fail,
            1 => Action::Panic,
            2 => Action::Delay(Duration::from_millis(rng.u64(..20_000))),
            _ => continue,
        };
        recorder.add(Rule::on(callback, action).after(rng.u32(..3)).times(rng.u32(1..4)));
    }
    for callback in [Callback::ProcessRecords, Callback::ShardEnded, Callback::ShutdownRequested] {
        if rng.bool() {
            recorder.add(Rule::on(callback, Action::Checkpoint).after(rng.u32(..3)));
        }
    }
    recorder
}

/// Lets something happen to a running consumer.
fn disturb(world: &World, running: &Running, rng: &mut fastrand::Rng) {
    match rng.u8(..12) {
        0 => running.order(Order::Drain),
        1 => running.order(Order::Pause),
        2 | 3 => running.order(Order::Run),
        4 => running.set_phase(Phase::HandOver("next".into())),
        5 => running.lose(),
        6 => world.row().failing = rng.bool(),
        7 => world.row().renews = rng.bool(),
        8 => world.script.set(Mood::Failing(SourceErrorKind::Unavailable)),
        9 => world.script.set(Mood::Silent),
        _ => world.script.set(Mood::Well),
    }
}

/// D-1, D-2 and P-1 for one seed: several workers one after the other, each in trouble of every kind, the last
/// in peace.
async fn whatever_happens(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    world.settings.batch_records = rng.usize(1..20);
    world.settings.batch_bytes = rng.usize(1..2000);
    world.settings.shard_buffer_bytes = rng.usize(100..20_000);
    world.settings.deliver_empty_batches = rng.u8(..4) == 0;
    world.script.state().answer_records = rng.usize(1..20);
    world.checkpoint_policy = match rng.u8(..3) {
        0 => CheckpointPolicy::Manual,
        1 => CheckpointPolicy::AfterBatch,
        _ => CheckpointPolicy::Every(Duration::from_millis(rng.u64(..10_000))),
    };
    let all = fill(&world, &mut rng);
    world.script.close(vec![child("a")]);
    let mut acknowledged: BTreeSet<Position> = BTreeSet::new();
    let (mut workers, mut ended) = (0, false);
    while !ended {
        assert!(workers < 10, "seed {seed}: no end");
        let in_peace = workers == 6;
        workers += 1;
        world.recorder = if in_peace { Recorder::new() } else { troubled(&mut rng) };
        world.script.set(Mood::Well);
        world.row().failing = false;
        world.row().renews = true;
        world.row().released = None;
        world.resume();
        let resumed = world.lease.checkpoint;
        let mut running = world.start();
        for _ in 0..if in_peace { 0 } else { rng.u32(..8) } {
            sleep(Duration::from_millis(rng.u64(..10_000))).await;
            disturb(&world, &running, &mut rng);
        }
        if in_peace || rng.bool() {
            // Trouble is over, or it would be a matter of luck whether this worker ever ends.
            world.script.set(Mood::Well);
            world.row().failing = false;
            world.row().renews = true;
            running.order(Order::Run);
            let exit = running.exit().await;
            ended = matches!(exit, Exit::Ended);
            assert!(!in_peace || ended, "seed {seed}: {exit:?}");
        } else {
            running.consumer.shutdown().await;
        }
        assert_eq!(world.recorder.violations(), Vec::<String>::new(), "seed {seed}");
        for call in world.recorder.calls() {
            for position in &call.positions {
                assert!(resumed < Checkpoint::At(*position), "seed {seed}: {position} again after {resumed}");
            }
            if call.outcome == CallOutcome::Done {
                acknowledged.extend(&call.positions);
            }
        }
        // D-2, and D-1 for whoever goes on from here. Only a worker that died between the store's answer and the
        // end of the callback knew more than its calls show.
        let stored = world.row().checkpoint;
        for call in world.recorder.calls().iter().filter(|call| call.outcome == CallOutcome::Running) {
            let passed = call.positions.iter().filter(|position| Checkpoint::At(**position) <= stored);
            acknowledged.extend(passed);
        }
        for position in all.iter().filter(|position| Checkpoint::At(**position) <= stored) {
            let is_processed = acknowledged.contains(position);
            assert!(is_processed, "seed {seed}: {position} is behind {stored} and was not processed");
        }
    }
    assert_eq!(acknowledged, all.into_iter().collect::<BTreeSet<_>>(), "seed {seed}");
    assert_eq!(world.row().ended.as_ref().map(Vec::len), Some(1), "seed {seed}");
    assert_eq!(world.budget.used_bytes(), 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn no_record_is_lost_or_passed_unacknowledged_whatever_happens() {
    for seed in 0..400 {
        whatever_happens(seed).await;
    }
}
