//! The calls about the lifecycle action, through the SDK, in virtual time.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::{BehaviorVersion, Credentials, Region};
use kcl_local::ec2::{AutoScaling, InProcess, Refusal};
use tokio::time::Instant;

use super::super::auto_scaling::AutoScalingHook;
use super::super::instance::Instance;
use super::super::lifecycle::{LifecycleAnswer, LifecycleErrorKind, LifecycleHook as _};
use super::*;

fn hook(group: &AutoScaling) -> AutoScalingHook {
    let config = aws_sdk_autoscaling::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .http_client(InProcess::new(group.clone()))
        .build();
    let instance = Instance::new("i-0123456789abcdef0", "us-east-1").unwrap();
    AutoScalingHook::new(&Client::from_conf(config), "orders/workers", "drain", &instance)
}

fn group() -> AutoScaling {
    AutoScaling::new(Arc::new(TokioClock::new(epoch())))
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_and_a_completion_name_group_hook_and_instance() {
    let group = group();
    let hook = hook(&group);
    assert_eq!(hook.heartbeat().await.unwrap(), LifecycleAnswer::NotWaiting);
    assert_eq!(hook.complete().await.unwrap(), LifecycleAnswer::NotWaiting);
    group.begin_wait(SECOND * 60);
    assert_eq!(hook.heartbeat().await.unwrap(), LifecycleAnswer::Done);
    assert_eq!(hook.complete().await.unwrap(), LifecycleAnswer::Done);
    assert!(!group.is_waiting());
    let call = group.calls().pop().unwrap();
    let expected = [
        ("AutoScalingGroupName", "orders/workers"),
        ("InstanceId", "i-0123456789abcdef0"),
        ("LifecycleActionResult", "CONTINUE"),
        ("LifecycleHookName", "drain"),
    ];
    assert_eq!(call.action, "CompleteLifecycleAction");
    assert_eq!(call.parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_made_once_and_says_what_to_do() {
    for (refusal, kind, advice) in [
        (Refusal::Throttled, LifecycleErrorKind::Throttled, "Throttling: Rate exceeded"),
        (
            Refusal::Denied,
            LifecycleErrorKind::Denied,
            "allow autoscaling:CompleteLifecycleAction on the group",
        ),
        (Refusal::Unavailable, LifecycleErrorKind::Unavailable, "ServiceUnavailable"),
        (Refusal::Lost, LifecycleErrorKind::Unavailable, "timeout"),
    ] {
        let group = group();
        group.refuse(Some(refusal));
        let begun = Instant::now();
        let error = hook(&group).complete().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert!(error.to_string().contains("hook drain of group orders/workers"), "{error}");
        assert_eq!(group.calls().len(), 1, "the retries are the watch's");
        assert!(begun.elapsed() <= SECOND * 5);
    }
}
