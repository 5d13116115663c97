//! Each explanation in a run that deserves it, and health that tells "no traffic" from "not processing".

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::time::Duration;

use integration_tests::fleet::{Behaviour, Fleet, STREAM};
use kcl_core::lease::StoreErrorKind;
use kcl_core::source::SourceErrorKind;
use kcl_core::testing::{Action, Fault, FaultRule, Recorder, Rule, StreamCall};
use kcl_core::{
    Activity, Budget, Callback, Cause, Explanation, Health, Note, ProblemKind, SchedulerBuilder,
    SchedulerHandle, StartMode, TakeOutlook,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const FIRST: &str = "shardId-000000000000";
const OTHER: &str = "shardId-000000000001";

fn explain(handle: &SchedulerHandle, shard: &str) -> Explanation {
    handle.explain(&shard.into())
}

fn kinds(handle: &SchedulerHandle) -> Vec<ProblemKind> {
    handle.health().problems().iter().map(|problem| problem.kind).collect()
}

/// A worker that runs until dropped.
struct Run {
    handle: SchedulerHandle,
    _tasks: JoinSet<()>,
}

fn run(builder: SchedulerBuilder) -> Run {
    let scheduler = builder.build().unwrap();
    let handle = scheduler.handle();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(scheduler.run().await) });
    Run { handle, _tasks: tasks }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_traffic_is_idle_and_its_worker_ready() {
    let mut fleet = Fleet::new(1, 2);
    fleet.start("alpha");
    fleet.put(&KEYS);
    fleet.run_until_delivered(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    for _ in 0..60 {
        fleet.run_for(MINUTE).await;
        assert_eq!(handle.health(), Health::Ready);
        assert!(handle.activity().values().all(|activity| *activity == Activity::Idle));
    }
    let idle = explain(&handle, FIRST);
    let Cause::Idle { quiet_for } = idle.cause else { panic!("{idle:?}") };
    assert!(quiet_for > MINUTE * 59 && quiet_for < MINUTE * 61, "{quiet_for:?}");
    fleet.put_on_each_shard();
    fleet.run_for(SECOND * 3).await;
    assert_eq!(explain(&handle, FIRST).activity, Activity::Delivering);
    fleet.run_for(SECOND * 5).await;
    let Cause::Idle { quiet_for } = explain(&handle, FIRST).cause else { panic!() };
    assert!(quiet_for < SECOND * 8, "it counts from the last record: {quiet_for:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_not_taken_for_a_stream_without_traffic() {
    let mut fleet = Fleet::new(2, 1);
    fleet.start("alpha");
    fleet.run_for(SECOND * 10).await;
    let handle = fleet.worker("alpha").handle.clone();
    assert_eq!(explain(&handle, FIRST).activity, Activity::Idle);
    fleet.stream.hang(1.0, SECOND * 3600);
    fleet.run_for(SECOND * 25).await;
    assert_eq!(handle.health(), Health::Ready, "not yet");
    fleet.run_for(SECOND * 20).await;
    assert_eq!(kinds(&handle), [ProblemKind::SourceSilent]);
    let silent = explain(&handle, FIRST);
    assert_eq!(silent.activity, Activity::NotProcessing);
    // Rebuilding the reader does not make it look alive.
    fleet.run_for(SECOND * 40).await;
    let Cause::SourceSilent { silent_for, .. } = explain(&handle, FIRST).cause else { panic!() };
    assert!(silent_for > SECOND * 70, "{silent_for:?}");
    fleet.stream.calm();
    fleet.run_for(MINUTE * 3).await;
    assert_eq!(handle.health(), Health::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_lag_that_grows_while_nothing_comes_is_no_idle_shard() {
    let mut fleet = Fleet::new(3, 1);
    fleet.start("alpha");
    fleet.run_for(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    for lag in 0..8 {
        fleet.stream.claim_behind(Some(MINUTE + SECOND * 10 * lag));
        fleet.run_for(SECOND * 10).await;
    }
    assert_eq!(kinds(&handle), [ProblemKind::LagGrows]);
    assert!(matches!(explain(&handle, FIRST).cause, Cause::LagGrows { .. }));
    // Catching up, however slowly, is fine.
    for lag in (0..8).rev() {
        fleet.stream.claim_behind(Some(SECOND * 5 + SECOND * lag));
        fleet.run_for(SECOND * 10).await;
        assert_eq!(handle.health(), Health::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn children_wait_for_their_parent_and_say_for_which_and_who_holds_it() {
    let fleet = Fleet::new(4, 1);
    let recorder = Recorder::new();
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail).shard(FIRST));
    let (builder, _) = fleet.builder("alpha");
    let run = run(builder.processor(recorder.clone()));
    fleet.put(&KEYS);
    sleep(SECOND * 5).await;
    fleet.kinesis.split_shard(STREAM, FIRST, 1 << 120).unwrap();
    sleep(SECOND * 70).await;
    let child = explain(&run.handle, OTHER);
    assert_eq!(
        child.to_string(),
        format!(
            "{OTHER} has no lease yet, and gets one at the end of {FIRST} (at TRIM_HORIZON, held by alpha)"
        )
    );
    recorder.clear_rules();
    sleep(SECOND * 40).await;
    let parent = explain(&run.handle, FIRST);
    assert!(matches!(&parent.cause, Cause::Ended { children } if children.len() == 2), "{parent}");
    let children = [OTHER, "shardId-000000000002"];
    // Nearly all keys go to the second child.
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail).shard(children[1]));
    fleet.put(&KEYS);
    sleep(SECOND * 5).await;
    fleet.kinesis.merge_shards(STREAM, children[0], children[1]).unwrap();
    sleep(SECOND * 20).await;
    let merged = explain(&run.handle, "shardId-000000000003");
    let Cause::WaitingForParents { parents, failing: None } = &merged.cause else { panic!("{merged:?}") };
    let [waits] = &parents[..] else { panic!("{parents:?}") };
    assert_eq!((waits.shard.as_str(), waits.owner.as_ref().unwrap().as_str()), (children[1], "alpha"));
    assert_eq!(merged.activity, Activity::Waiting);
    assert_eq!(kinds(&run.handle), [ProblemKind::CallbackFailing], "who waits is not to blame");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_is_retried_for_the_kth_time_since_then_and_again_in() {
    let fleet = Fleet::new(5, 1);
    let recorder = Recorder::new();
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail));
    let run = run(fleet.builder("alpha").0.processor(recorder.clone()));
    sleep(SECOND).await;
    fleet.put(&KEYS);
    sleep(MINUTE).await;
    let retrying = explain(&run.handle, FIRST);
    let Cause::Retrying { batch: Some((first, last)), failing } = &retrying.cause else {
        panic!("{retrying:?}")
    };
    assert!(first < last);
    assert_eq!(failing.failures as usize, recorder.count(Callback::ProcessRecords));
    assert!(failing.failing_for > SECOND * 58 && failing.failing_for <= MINUTE, "{failing:?}");
    assert!(failing.next_attempt_in.is_some_and(|wait| wait <= SECOND * 30), "{failing:?}");
    assert!(failing.error.starts_with("process_records: "), "{failing:?}");
    assert_eq!(kinds(&run.handle), [ProblemKind::CallbackFailing]);
    recorder.clear_rules();
    sleep(MINUTE).await;
    assert_eq!(explain(&run.handle, FIRST).activity, Activity::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_takes_long_is_shown_with_its_length_and_told_once_it_has_used_a_quarter_of_its_limit()
 {
    let mut fleet = Fleet::new(6, 1);
    fleet.behaviour = Behaviour { slowness: MINUTE * 3000, ..Behaviour::default() };
    fleet.settings.shard_buffer_bytes = 2_000;
    fleet.start("alpha");
    fleet.put(&["a"]);
    fleet.run_for(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    for _ in 0..200 {
        fleet.put(&KEYS);
    }
    fleet.run_for(SECOND * 10).await;
    let busy = explain(&handle, FIRST);
    let Cause::InCallback { name: "process_records", batch: Some(_), running_for, .. } = busy.cause else {
        panic!("{busy:?}")
    };
    assert!(running_for > SECOND * 13 && running_for <= SECOND * 15, "{running_for:?}");
    assert_eq!((busy.activity, busy.held_up_by), (Activity::Delivering, Some(Budget::Shard)));
    assert_eq!(handle.health(), Health::Ready);
    fleet.run_for(MINUTE * 4).await;
    assert_eq!(kinds(&handle), [ProblemKind::CallbackSlow]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_waits_for_the_buffer_of_its_worker_says_so() {
    let mut fleet = Fleet::new(7, 2);
    fleet.settings.worker_buffer_bytes = 20_000;
    fleet.settings.shard_buffer_bytes = 20_000;
    let recorder = Recorder::new();
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Delay(MINUTE * 3)).shard(FIRST));
    let run = run(fleet.builder("alpha").0.processor(recorder.clone()));
    sleep(SECOND).await;
    for _ in 0..400 {
        fleet.put(&KEYS);
    }
    sleep(SECOND * 30).await;
    let first = explain(&run.handle, FIRST);
    assert!(matches!(first.cause, Cause::InCallback { .. }), "{first}");
    assert_eq!(first.held_up_by, Some(Budget::Worker), "{first}");
    // The other shard gets what it needs, if a little late.
    let mut waits = 0;
    for _ in 0..40 {
        sleep(SECOND / 10).await;
        let other = run.handle.explain(&OTHER.into());
        if matches!(other.cause, Cause::BackPressured { budget: Budget::Worker, .. }) {
            assert_eq!((other.activity, other.problem), (Activity::Waiting, None));
            waits += 1;
        }
    }
    assert!(waits > 0);
    assert_eq!(run.handle.health(), Health::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_pause_a_throttle_and_a_fence_are_told_apart() {
    let mut fleet = Fleet::new(8, 2);
    fleet.start("alpha");
    fleet.run_for(SECOND * 5).await;
    let worker = fleet.worker("alpha");
    let (handle, store) = (worker.handle.clone(), std::sync::Arc::clone(&worker.store));

    handle.pause(Some(FIRST.into())).await;
    fleet.run_for(SECOND * 30).await;
    let paused = explain(&handle, FIRST);
    assert!(matches!(paused.cause, Cause::Paused { paused_for } if paused_for > SECOND * 29), "{paused}");
    assert_eq!((paused.activity, handle.health()), (Activity::Waiting, Health::Ready));
    assert_eq!(Health::notes(&handle.snapshot()), [Note::Paused { shards: 1 }]);
    handle.resume(Some(FIRST.into())).await;

    fleet.stream.fail_shard(StreamCall::Read, &OTHER.into(), SourceErrorKind::Throttled, 200);
    fleet.run_for(SECOND * 20).await;
    let throttled = explain(&handle, OTHER);
    let Cause::Throttled(failing) = &throttled.cause else { panic!("{throttled:?}") };
    assert!(failing.failures >= 3, "{failing:?}");
    assert_eq!(kinds(&handle), [ProblemKind::Throttled]);
    fleet.run_for(MINUTE * 2).await;
    assert_eq!(handle.health(), Health::Ready);

    store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable)));
    fleet.run_for(SECOND * 9).await;
    fleet.put_on_each_shard();
    fleet.run_for(SECOND * 3).await;
    let fenced = explain(&handle, FIRST);
    assert!(matches!(fenced.cause, Cause::Fenced { .. }), "{fenced}");
    assert!(kinds(&handle).contains(&ProblemKind::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_another_worker_is_leased_by_it_since_this_worker_saw_that() {
    let mut fleet = Fleet::new(9, 2);
    fleet.settings.max_leases = 1;
    fleet.start("alpha");
    fleet.run_for(SECOND * 10).await;
    fleet.start("beta");
    fleet.run_until(MINUTE, "one shard each", |fleet| fleet.owners().into_values().eq([1, 1])).await;
    fleet.run_for(SECOND * 30).await;
    let (alpha, beta) = (fleet.worker("alpha").handle.clone(), fleet.worker("beta").handle.clone());
    let of_alpha = alpha.snapshot().shards.into_keys().next().unwrap();
    let seen = explain(&beta, of_alpha.as_str());
    let Cause::LeasedBy { worker, seen_for: Some(seen_for), .. } = &seen.cause else { panic!("{seen:?}") };
    assert!(worker.as_str() == "alpha" && *seen_for >= SECOND * 30, "{seen}");
    assert_eq!(seen.activity, Activity::NotHeld);
    fleet.kill("alpha");
    fleet.run_for(SECOND * 30).await;
    let dead = explain(&beta, of_alpha.as_str());
    let Cause::Expired { worker, expired_for, outlook: TakeOutlook::Full(1) } = &dead.cause else {
        panic!("{dead:?}")
    };
    assert!(worker.as_str() == "alpha" && *expired_for > SECOND * 10, "{dead}");
    assert!(matches!(explain(&beta, "shardId-9").cause, Cause::Unknown { listed_ago: Some(_) }));
}

#[tokio::test(start_paused = true)]
async fn a_worker_on_standby_is_ready_holds_nothing_and_says_why() {
    let fleet = Fleet::new(10, 1);
    let run = run(fleet.builder("alpha").0.start_mode(StartMode::Standby));
    sleep(MINUTE).await;
    assert_eq!(run.handle.health(), Health::Ready);
    assert_eq!(Health::notes(&run.handle.snapshot()), [Note::HoldsNothing { leases: 1 }, Note::Standby]);
    let free = explain(&run.handle, FIRST);
    let Cause::Free { seen_for: Some(seen_for), outlook: TakeOutlook::Standby } = free.cause else {
        panic!("{free:?}")
    };
    assert!(seen_for > SECOND * 50);
    run.handle.activate().await;
    sleep(SECOND * 10).await;
    assert_eq!(explain(&run.handle, FIRST).activity, Activity::Idle);
    assert_eq!(Health::notes(&run.handle.snapshot()), []);
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_names_the_next_owner_and_the_callback_it_waits_for() {
    let mut fleet = Fleet::new(11, 2);
    let recorder = Recorder::new();
    recorder.add(Rule::on(Callback::ProcessRecords, Action::Delay(SECOND * 20)));
    let alpha = run(fleet.builder("alpha").0.processor(recorder.clone()));
    sleep(SECOND * 5).await;
    fleet.put_on_each_shard();
    sleep(SECOND).await;
    fleet.start("beta");
    let mut told = Vec::new();
    for _ in 0..120 {
        sleep(SECOND / 10).await;
        told.extend([FIRST, OTHER].map(|shard| alpha.handle.explain(&shard.into())));
    }
    let handing = told.iter().find(|told| matches!(told.cause, Cause::HandingOver { .. })).unwrap();
    let Cause::HandingOver { to, waits_for: Some((name, _)) } = &handing.cause else { panic!("{handing:?}") };
    assert_eq!((to.as_str(), *name), ("beta", "process_records"));
}

#[tokio::test(start_paused = true)]
async fn shards_that_cannot_be_listed_again_and_again_degrade_whoever_keeps_house() {
    let mut fleet = Fleet::new(12, 1);
    fleet.start("alpha");
    fleet.run_for(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    fleet.stream.fail(StreamCall::List, SourceErrorKind::Denied, 20);
    fleet.run_for(SECOND * 70).await;
    assert_eq!(kinds(&handle), [ProblemKind::ShardsNotListed]);
    let failure = handle.snapshot().listing_failure.unwrap();
    assert!(failure.failures >= 3, "{failure:?}");
    fleet.run_for(MINUTE).await;
    assert_eq!((handle.health(), handle.snapshot().listing_failure), (Health::Ready, None));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_does_not_move_while_records_come_is_told_and_is_no_problem() {
    let mut fleet = Fleet::new(13, 1);
    fleet.behaviour = Behaviour { checkpoints: false, ..Behaviour::default() };
    fleet.start("alpha");
    let handle = {
        fleet.run_for(SECOND).await;
        fleet.worker("alpha").handle.clone()
    };
    for _ in 0..6 {
        fleet.put(&KEYS);
        fleet.run_for(MINUTE).await;
    }
    assert_eq!(handle.health(), Health::Ready);
    let notes = Health::notes(&handle.snapshot());
    assert!(matches!(&notes[..], [Note::OldCheckpoint { age, .. }] if *age >= MINUTE * 5), "{notes:?}");
}
