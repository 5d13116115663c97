//! The whole over loopback sockets, in real time.

use std::future::pending;
use std::time::Duration;

use aws_sdk_autoscaling::Client;
use integration_tests::aws::Aws;
use kcl_core::LeaseRuntime;
use kcl_core::ec2::{AutoScalingHook, Imds, InstanceSettings, InstanceWatch, LifecycleAnswer};
use kcl_local::ec2::{AutoScaling, Imds as Double, Server};

use super::stage::{INSTANCE, TARGET};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_on_a_terminating_instance_releases_its_leases_and_lets_the_instance_go() {
    let aws = Aws::over_sockets().await.with_stream(2);
    let (metadata, group) = (Double::default(), AutoScaling::default());
    let metadata_server = Server::start(metadata.clone()).await.unwrap();
    let service = Server::start(group.clone()).await.unwrap();
    let imds = Imds::at(metadata_server.endpoint()).unwrap().call_timeout(Duration::from_secs(10));
    let instance = imds.instance().await.unwrap();
    let config = aws_sdk_autoscaling::config::Builder::from(&aws.local.sdk_config())
        .http_client(kcl_local::client::PlainHttpClient::new())
        .endpoint_url(service.endpoint())
        .build();
    let mut settings = InstanceSettings::default();
    settings.poll_interval = Duration::from_millis(200);
    let hook = AutoScalingHook::new(&Client::from_conf(config), "orders-workers", "drain", &instance);
    let watch = InstanceWatch::new(imds).settings(settings).unwrap().lifecycle_hook(hook);
    let builder = aws.builder().worker_id(instance.worker_id_with(1)).lease_runtime(LeaseRuntime::OwnThread);
    let scheduler = builder.build().unwrap();
    let handle = scheduler.handle();
    let terminate = async {
        while handle.snapshot().shards.len() != 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(handle.worker().as_str(), format!("{INSTANCE}-1"));
        group.begin_wait(Duration::from_secs(60));
        metadata.set(TARGET, "Terminated");
    };
    let both = async { tokio::join!(watch.run_scheduler(scheduler, pending()), terminate) };
    let ((report, report_of_watch), ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert!(report.unwrap().is_clean());
    assert_eq!(report_of_watch.lifecycle.unwrap().unwrap(), LifecycleAnswer::Done);
    assert!(report_of_watch.heartbeats >= 1);
    assert_eq!(group.carried_out("CompleteLifecycleAction"), 1);
}
