//! The program itself, as systemd runs it: over loopback sockets, in real time.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl_local::LocalAws;
use kcl_local::ec2::{AutoScaling, Imds, Server};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(90);
const TARGET: &str = "autoscaling/target-lifecycle-state";
const INSTANCE: &str = "i-0123456789abcdef0";

/// An instance of a group, with systemd, a stream and a lease table.
struct Host {
    aws: LocalAws,
    metadata: Imds,
    group: AutoScaling,
    metadata_server: Server,
    group_server: Server,
    path: PathBuf,
    /// What systemd was told so far, and up to where it was looked at.
    log: watch::Receiver<Vec<String>>,
    looked_at: AtomicUsize,
    _reader: JoinSet<()>,
}

impl Host {
    async fn new(name: &str) -> Self {
        let aws = LocalAws::start().await.unwrap();
        aws.kinesis().create_stream("orders", 2).unwrap();
        let (metadata, group) = (Imds::default(), AutoScaling::default());
        metadata.set(TARGET, "InService");
        let path = std::env::temp_dir().join(format!("kcl-worker-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        let (told, log) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        // Always read, as systemd does: a full socket would block who writes to it.
        reader.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                told.send_modify(|log| log.push(text));
            }
        });
        Self {
            aws,
            metadata_server: Server::start(metadata.clone()).await.unwrap(),
            group_server: Server::start(group.clone()).await.unwrap(),
            metadata,
            group,
            path,
            log,
            looked_at: AtomicUsize::new(0),
            _reader: reader,
        }
    }

    fn start(&self, changes: &[(&str, &str)]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kcl-worker"));
        command
            .env_clear()
            .env("KCL_STREAM", "orders")
            .env("KCL_APPLICATION", "orders-app")
            .env("KCL_AUTO_SCALING_GROUP", "orders-workers")
            .env("KCL_LIFECYCLE_HOOK", "drain")
            .env("KCL_DRAIN_SECONDS", "20")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_ENDPOINT_URL", self.aws.endpoint_url())
            .env("AWS_ENDPOINT_URL_AUTO_SCALING", self.group_server.endpoint())
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.metadata_server.endpoint())
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "3000000")
            .envs(changes.iter().copied())
            .stdout(Stdio::inherit())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// Waits until systemd is told something that contains `text`, after what was waited for before.
    async fn told(&self, text: &str) {
        let mut log = self.log.clone();
        let find = |log: &Vec<String>| {
            let from = self.looked_at.load(Ordering::Relaxed);
            log.iter().skip(from).position(|told| told.contains(text)).map(|index| from + index + 1)
        };
        let found = timeout(LIMIT, log.wait_for(|log| find(log).is_some())).await;
        let log =
            found.unwrap_or_else(|_| panic!("{text} is not told, but {:?}", *self.log.borrow())).unwrap();
        self.looked_at.store(find(&log).unwrap(), Ordering::Relaxed);
    }

    /// The rows of the lease table that name a shard, with their owners.
    async fn owners(&self) -> Vec<Option<String>> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.aws.sdk_config());
        let rows = dynamodb.scan().table_name("orders-app").send().await.unwrap();
        let shards = rows.items().iter().filter(|item| {
            item.get("leaseKey")
                .and_then(|key| key.as_s().ok())
                .is_some_and(|key| key.starts_with("shardId-"))
        });
        shards
            .map(|item| item.get("leaseOwner").map(AttributeValue::as_s).transpose().unwrap().cloned())
            .collect()
    }

    /// Waits until the worker owns both shards under the id of the instance.
    async fn works(&self) {
        let works = async {
            let is_ours =
                |owner: &Option<String>| owner.as_ref().is_some_and(|owner| owner.starts_with(INSTANCE));
            loop {
                let owners = self.owners().await;
                if owners.len() == 2 && owners.iter().all(is_ours) {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LIMIT, works).await.unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn exit(mut child: Child) -> ExitStatus {
    timeout(LIMIT, child.wait()).await.unwrap().unwrap()
}

fn terminate(child: &Child) {
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminating_instance_drains_is_let_go_and_the_worker_ends_with_0() {
    let host = Host::new("terminated").await;
    let child = host.start(&[]);
    host.told("READY=1").await;
    host.works().await;
    host.told("WATCHDOG=1").await;
    host.told("WATCHDOG=1").await;
    host.group.begin_wait(Duration::from_secs(60));
    host.metadata.set(TARGET, "Terminated");
    assert_eq!(exit(child).await.code(), Some(0));
    assert_eq!(host.owners().await, [None, None], "the leases are released");
    assert_eq!(host.group.carried_out("CompleteLifecycleAction"), 1);
    assert!(host.group.carried_out("RecordLifecycleActionHeartbeat") >= 1);
    let call = host.group.calls().pop().unwrap();
    assert_eq!(call.parameters["AutoScalingGroupName"], "orders-workers");
    assert_eq!(
        (&*call.parameters["LifecycleHookName"], &*call.parameters["InstanceId"]),
        ("drain", INSTANCE)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_and_leaves_the_lifecycle_action_alone() {
    let host = Host::new("sigterm").await;
    let child = host.start(&[("KCL_COORDINATION", "per-lease")]);
    host.told("READY=1").await;
    host.works().await;
    terminate(&child);
    assert_eq!(exit(child).await.code(), Some(0));
    assert_eq!(host.owners().await, [None, None]);
    assert!(host.group.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_goes_to_the_warm_pool_has_its_worker_started_again() {
    let host = Host::new("warm").await;
    host.metadata.set(TARGET, "Warmed:Running");
    let child = host.start(&[]);
    host.told("READY=1").await;
    host.told("working on 0 shards").await;
    host.metadata.set(TARGET, "InService");
    host.works().await;
    host.metadata.set(TARGET, "Warmed:Running");
    assert_eq!(exit(child).await.code(), Some(75));
    assert_eq!(host.owners().await, [None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_ec2_it_works_all_the_same() {
    let host = Host::new("elsewhere").await;
    let child = host.start(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    host.told("READY=1").await;
    host.told("working on 2 shards").await;
    terminate(&child);
    assert_eq!(exit(child).await.code(), Some(0));
    assert!(host.metadata.calls().is_empty());
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_ends_it_with_2() {
    let host = Host::new("wrong").await;
    for wrong in [
        ("KCL_COORDINATION", "anyhow"),
        ("KCL_LIFECYCLE_HOOK", ""),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://nowhere"),
    ] {
        assert_eq!(exit(host.start(&[wrong])).await.code(), Some(2), "{wrong:?}");
    }
}
