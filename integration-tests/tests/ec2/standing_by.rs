//! Warm pools, and workers off EC2.

use kcl_core::StartMode;
use kcl_core::ec2::{ActivateWhen, InstanceWatch, Notice, Reason};
use tokio::time::sleep;

use super::stage::{HOOK_TIME_OUT, SECOND, Stage, TARGET};

#[tokio::test(start_paused = true)]
async fn a_worker_in_the_warm_pool_takes_nothing_until_its_instance_goes_into_service() {
    let mut stage = Stage::new();
    stage.settings.activate = ActivateWhen::InService;
    stage.metadata.set(TARGET, "Warmed:Running");
    let mut worker = stage.start_with(|builder| builder.start_mode(StartMode::Standby)).await;
    sleep(SECOND * 120).await;
    assert_eq!(worker.handle.snapshot().shards.len(), 0);
    stage.metadata.set(TARGET, "InService");
    worker.holds(4).await;
    assert_eq!(worker.told(|notice| matches!(notice, Notice::Activated { .. })), 1);

    stage.group.begin_wait(HOOK_TIME_OUT);
    stage.metadata.set(TARGET, "Warmed:Stopped");
    let (report, instance) = worker.ended().await;
    assert!(report.unwrap().is_clean());
    assert!(matches!(&instance.reason, Some(reason @ Reason::OutOfService(_)) if reason.may_come_back()));
    assert!(!stage.group.is_waiting(), "the way to the pool is free");
}

#[tokio::test(start_paused = true)]
async fn a_worker_off_ec2_works_and_asks_seldom() {
    let mut stage = Stage::new();
    stage.settings.activate = ActivateWhen::InService;
    stage.has_hook = false;
    let (builder, imds) = (stage.aws.builder().start_mode(StartMode::Standby), stage.imds());
    stage.cut(true);
    let scheduler = builder.build().unwrap();
    let (handle, watch) =
        (scheduler.handle(), InstanceWatch::new(imds).settings(stage.settings.clone()).unwrap());
    let mut notices = watch.notices();
    let work = async {
        sleep(SECOND * 120).await;
        assert_eq!(handle.snapshot().shards.len(), 4, "nobody would ever have told it to begin");
        handle.shutdown(SECOND * 30).await
    };
    let ((report, instance), _) = tokio::join!(watch.run_scheduler(scheduler, std::future::pending()), work);
    assert!(report.unwrap().is_clean());
    assert!(instance.reason.is_none() && instance.lifecycle.is_none());
    let told = std::iter::from_fn(|| notices.try_recv().ok()).count();
    assert_eq!(told, 2, "that there is no service, and that it was activated");
}
