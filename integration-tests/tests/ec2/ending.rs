//! How a worker's end begins and what becomes of the lifecycle action.

use std::time::SystemTime;

use kcl_core::ec2::{LifecycleAnswer, LifecycleErrorKind, Notice, Reason};
use kcl_core::fleet::worker_of;
use kcl_core::testing::{Action, Rule};
use kcl_core::{Callback, WorkerId};
use kcl_local::ec2::{Mood, Refusal};
use tokio::time::{Instant, sleep};

use super::stage::{HOOK_TIME_OUT, INSTANCE, SECOND, SPOT, Stage, TARGET};

const HEARTBEAT: &str = "RecordLifecycleActionHeartbeat";
const COMPLETE: &str = "CompleteLifecycleAction";

/// What a Spot notice says, this long before the interruption.
fn spot(stage: &Stage, left: std::time::Duration) -> String {
    let at = stage.aws.local.kinesis().clock().now() + left;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let time = aws_sdk_dynamodb::primitives::DateTime::from_secs(seconds.try_into().unwrap());
    let time = time.fmt(aws_sdk_dynamodb::primitives::DateTimeFormat::DateTime).unwrap();
    format!(r#"{{"action":"terminate","time":"{time}"}}"#)
}

#[tokio::test(start_paused = true)]
async fn termination_drains_a_slow_shard_past_the_hooks_time_out_and_then_completes_once() {
    let stage = Stage::new();
    stage.aws.recorder.add(Rule::on(Callback::ProcessRecords, Action::Delay(SECOND * 200)).times(1));
    let worker = stage.start().await;
    worker.holds(4).await;
    let owners = stage.owners().await;
    assert_eq!(
        owners.iter().map(|owner| worker_of(&WorkerId::from(owner.as_str())).to_owned()).collect::<Vec<_>>(),
        [INSTANCE]
    );
    stage.put();
    sleep(SECOND * 5).await;

    stage.group.begin_wait(HOOK_TIME_OUT);
    stage.metadata.set(TARGET, "Terminated");
    let begun = Instant::now();
    let (report, instance) = worker.ended().await;
    let report = report.unwrap();
    assert!(report.is_clean() && report.shards.len() == 4, "{report:?}");
    assert!(begun.elapsed() > SECOND * 180, "the callback was let end: {:?}", begun.elapsed());
    assert_eq!(stage.owners().await, [""; 0], "every lease is released");

    assert_eq!(instance.reason, Some(Reason::Terminating));
    assert_eq!(instance.lifecycle.unwrap().unwrap(), LifecycleAnswer::Done);
    assert_eq!(stage.carried_out(COMPLETE), 1);
    let heartbeats = stage.carried_out(HEARTBEAT);
    assert!((6..=8).contains(&heartbeats), "one each 30 s, or the hook would have given up: {heartbeats}");
    assert_eq!(instance.heartbeats as usize, heartbeats);
    let calls = stage.group.calls();
    assert_eq!(calls.last().unwrap().action, COMPLETE, "nothing after it");
}

#[tokio::test(start_paused = true)]
async fn a_spot_interruption_drops_what_cannot_be_drained_before_it() {
    let stage = Stage::new();
    stage.aws.recorder.add(Rule::on(Callback::ProcessRecords, Action::Hang).times(1));
    let mut worker = stage.start().await;
    worker.holds(4).await;
    stage.put();
    sleep(SECOND * 5).await;
    stage.metadata.set(SPOT, &spot(&stage, SECOND * 120));
    let begun = Instant::now();
    worker.handle.ended().await;
    let took = begun.elapsed();
    assert!(
        SECOND * 100 < took && took <= SECOND * 111,
        "gone ten seconds before the interruption: {took:?}"
    );
    sleep(SECOND).await;
    assert_eq!(worker.told(|notice| matches!(notice, Notice::Drained { is_clean: false, .. })), 1);
    let (report, instance) = worker.ended().await;
    assert_eq!(
        report.unwrap().shards.values().filter(|o| format!("{o:?}").starts_with("Deadline")).count(),
        1
    );
    assert!(matches!(instance.reason, Some(Reason::Spot(_))));
    assert!(instance.lifecycle.is_none() && stage.group.calls().is_empty(), "Auto Scaling does not wait");
}

#[tokio::test(start_paused = true)]
async fn an_unclean_drain_completes_the_action_all_the_same() {
    let mut stage = Stage::new();
    stage.settings.drain_deadline = SECOND * 20;
    stage.aws.recorder.add(Rule::on(Callback::ProcessRecords, Action::Hang).times(1));
    let worker = stage.start().await;
    worker.holds(4).await;
    stage.put();
    sleep(SECOND * 5).await;
    stage.group.begin_wait(HOOK_TIME_OUT);
    stage.metadata.set(TARGET, "Terminating:Wait");
    let (report, instance) = worker.ended().await;
    assert!(!report.unwrap().is_clean());
    assert_eq!(instance.lifecycle.unwrap().unwrap(), LifecycleAnswer::Done);
    assert!(!stage.group.is_waiting());
}

#[tokio::test(start_paused = true)]
async fn throttles_outages_and_lost_answers_are_retried_until_the_action_is_completed() {
    let stage = Stage::new();
    let mut worker = stage.start().await;
    worker.holds(4).await;
    stage.group.begin_wait(HOOK_TIME_OUT);
    stage.group.refuse_next(HEARTBEAT, [Refusal::Throttled]);
    stage.group.refuse_next(COMPLETE, [Refusal::Throttled, Refusal::Unavailable, Refusal::Lost]);
    stage.metadata.set(TARGET, "Terminated");
    worker.handle.ended().await;
    sleep(SECOND * 30).await;
    assert_eq!(worker.told(|notice| matches!(notice, Notice::CompletionFailed(_))), 0);
    let (_, instance) = worker.ended().await;
    assert_eq!(instance.lifecycle.unwrap().unwrap(), LifecycleAnswer::Done);
    assert!(!stage.group.is_waiting());
    let completions = stage.group.calls().iter().filter(|call| call.action == COMPLETE).count();
    assert_eq!(completions, 4, "the answer was lost, so it was asked again");
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_told_once_and_not_tried_for_long() {
    let stage = Stage::new();
    stage.aws.recorder.add(Rule::on(Callback::ProcessRecords, Action::Delay(SECOND * 100)).times(1));
    let mut worker = stage.start().await;
    worker.holds(4).await;
    stage.put();
    sleep(SECOND * 5).await;
    stage.group.begin_wait(HOOK_TIME_OUT);
    stage.group.refuse(Some(Refusal::Denied));
    stage.metadata.set(TARGET, "Terminated");
    worker.handle.ended().await;
    let begun = Instant::now();
    sleep(SECOND).await;
    let told = worker.told(|notice| match notice {
        Notice::HeartbeatFailed(error) | Notice::CompletionFailed(error) => {
            assert!(error.to_string().contains("allow autoscaling:"), "{error}");
            true
        }
        _ => false,
    });
    assert_eq!(told, 2, "one for the heartbeats, one for the completion");
    let (report, instance) = worker.ended().await;
    assert!(report.unwrap().is_clean(), "the shards are none the worse for it");
    assert_eq!(instance.lifecycle.unwrap().unwrap_err().kind(), LifecycleErrorKind::Denied);
    assert!(begun.elapsed() <= SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_never_works_is_given_up() {
    let stage = Stage::new();
    let worker = stage.start().await;
    worker.holds(4).await;
    stage.group.refuse(Some(Refusal::Unavailable));
    stage.metadata.set(TARGET, "Terminated");
    worker.handle.ended().await;
    let begun = Instant::now();
    let (_, instance) = worker.ended().await;
    assert_eq!(instance.lifecycle.unwrap().unwrap_err().kind(), LifecycleErrorKind::Unavailable);
    assert!(begun.elapsed() <= SECOND * 66, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_on_its_own_lets_a_terminating_instance_go_and_no_other() {
    for (target, completed) in [("InService", 0), ("Terminated", 1)] {
        let stage = Stage::new();
        let worker = stage.start().await;
        worker.holds(4).await;
        // Between two looks, as when the system goes down with the instance.
        stage.metadata.set(TARGET, target);
        stage.group.begin_wait(HOOK_TIME_OUT);
        assert!(worker.handle.shutdown(SECOND * 30).await.is_clean());
        let (_, instance) = worker.ended().await;
        assert_eq!(stage.carried_out(COMPLETE), completed, "{target}");
        if completed == 0 {
            assert_eq!(instance.reason, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_with_the_metadata_costs_a_worker_nothing_and_is_told_once() {
    let stage = Stage::new();
    let mut worker = stage.start().await;
    worker.holds(4).await;
    let trouble = |notice: &Notice| matches!(notice, Notice::MetadataTrouble { .. });
    assert_eq!(worker.told(trouble), 0);
    for mood in [Mood::Silent, Mood::Disabled, Mood::Failing(500), Mood::Garbled, Mood::Unauthorized] {
        stage.metadata.set_mood(mood);
        sleep(SECOND * 90).await;
        assert_eq!(worker.told(trouble), 1, "{mood:?}");
        stage.metadata.set_mood(Mood::Well);
        sleep(SECOND * 10).await;
        assert_eq!(worker.told(|notice| matches!(notice, Notice::MetadataAnswers)), 1, "{mood:?}");
    }
    stage.cut(true);
    sleep(SECOND * 90).await;
    assert_eq!(worker.told(trouble), 1);
    assert_eq!(worker.handle.snapshot().shards.len(), 4);
    stage.cut(false);
    stage.metadata.forget_tokens();
    stage.metadata.set(TARGET, "Terminated");
    let (report, _) = worker.ended().await;
    assert!(report.unwrap().is_clean());
}
