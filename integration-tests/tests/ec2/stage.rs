use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;
use integration_tests::aws::{Aws, STREAM};
use kcl_core::ec2::{
    AutoScalingHook, Imds, InstanceReport, InstanceSettings, InstanceWatch, MetadataAnswer, MetadataRequest,
    MetadataTransport, Notice, TransportError,
};
use kcl_core::{Entropy, Error, SchedulerBuilder, SchedulerHandle, ShutdownReport, TokioClock};
use kcl_local::ec2::{AutoScaling, Imds as Double, InProcess, Message, Service as _};
use kcl_local::kinesis::NewRecord;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
pub(crate) const TARGET: &str = "autoscaling/target-lifecycle-state";
pub(crate) const SPOT: &str = "spot/instance-action";
/// How long the hook waits without a heartbeat.
pub(crate) const HOOK_TIME_OUT: Duration = Duration::from_secs(60);

pub(crate) type Outcome = (Result<ShutdownReport, Error>, InstanceReport);

/// Carries requests to the double without a socket.
#[derive(Clone, Debug)]
struct Wire {
    double: Double,
    is_cut: Arc<AtomicBool>,
}

#[async_trait]
impl MetadataTransport for Wire {
    async fn call(&self, request: MetadataRequest) -> Result<MetadataAnswer, TransportError> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(TransportError::NoConnection("refused".to_owned()));
        }
        let (name, value) = request.header;
        let message = Message {
            method: request.method.to_owned(),
            path: request.path,
            headers: [(name.to_owned(), value)].into(),
            ..Message::default()
        };
        match self.double.answer(&message) {
            Some(answer) => Ok(MetadataAnswer { status: answer.status, body: answer.body }),
            None => pending().await,
        }
    }
}

/// An instance in an Auto Scaling group, with a stream to work on, in virtual time.
pub(crate) struct Stage {
    pub(crate) aws: Aws,
    pub(crate) metadata: Double,
    pub(crate) group: AutoScaling,
    pub(crate) settings: InstanceSettings,
    pub(crate) has_hook: bool,
    wire: Wire,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let aws = Aws::in_process().with_stream(4);
        let clock = || Arc::clone(aws.local.kinesis().clock());
        let metadata = Double::new(clock());
        metadata.set(TARGET, "InService");
        let group = AutoScaling::new(clock());
        let wire = Wire { double: metadata.clone(), is_cut: Arc::default() };
        Self { aws, metadata, group, settings: InstanceSettings::default(), has_hook: true, wire }
    }

    /// Takes the metadata service away, or brings it back.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.wire.is_cut.store(is_cut, Ordering::Relaxed);
    }

    pub(crate) fn imds(&self) -> Imds {
        Imds::with_transport(self.wire.clone()).entropy(Entropy::seeded(1))
    }

    /// Puts one record on each shard.
    pub(crate) fn put(&self) {
        for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
            self.aws.local.kinesis().put_record(STREAM, NewRecord::new(key, key)).unwrap();
        }
    }

    /// Starts a worker with its watch.
    pub(crate) async fn start(&self) -> Worker {
        self.start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(
        &self,
        change: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder,
    ) -> Worker {
        let instance = self.imds().instance().await.unwrap();
        let builder = self.aws.builder().worker_id(instance.worker_id()).entropy(Entropy::seeded(2));
        let scheduler = change(builder).build().unwrap();
        let handle = scheduler.handle();
        let now = self.aws.local.kinesis().clock().now();
        let mut watch = InstanceWatch::new(self.imds())
            .settings(self.settings.clone())
            .unwrap()
            .clock(TokioClock::new(now))
            .entropy(Entropy::seeded(3));
        if self.has_hook {
            let config = aws_sdk_autoscaling::config::Builder::from(&self.aws.local.sdk_config())
                .http_client(InProcess::new(self.group.clone()))
                .build();
            watch = watch.lifecycle_hook(AutoScalingHook::new(
                &Client::from_conf(config),
                "orders-workers",
                "drain",
                &instance,
            ));
        }
        let notices = watch.notices();
        #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
        let task = tokio::spawn(watch.run_scheduler(scheduler, pending()));
        Worker { handle, notices, task }
    }

    /// What the group did for an operation.
    pub(crate) fn carried_out(&self, action: &str) -> usize {
        self.group.carried_out(action)
    }

    /// The owners of leases in the table, without repetition.
    pub(crate) async fn owners(&self) -> Vec<String> {
        let items =
            self.aws.dynamodb().scan().table_name(integration_tests::aws::TABLE).send().await.unwrap();
        let mut owners: Vec<String> = items
            .items()
            .iter()
            .filter_map(|item| Some(item.get("leaseOwner")?.as_s().ok()?.clone()))
            .collect();
        owners.sort();
        owners.dedup();
        owners
    }
}

/// A worker that runs with its watch.
pub(crate) struct Worker {
    pub(crate) handle: SchedulerHandle,
    pub(crate) notices: Receiver<Notice>,
    pub(crate) task: JoinHandle<Outcome>,
}

impl Worker {
    /// Waits until it holds this many leases.
    pub(crate) async fn holds(&self, leases: usize) {
        let limit = Instant::now() + SECOND * 120;
        while self.handle.snapshot().shards.len() != leases {
            assert!(Instant::now() < limit, "{:?}", self.handle.snapshot());
            sleep(SECOND / 10).await;
        }
    }

    pub(crate) async fn ended(self) -> Outcome {
        tokio::time::timeout(SECOND * 900, self.task).await.unwrap().unwrap()
    }

    /// The notices so far that are of this kind.
    pub(crate) fn told(&mut self, is: impl Fn(&Notice) -> bool) -> usize {
        std::iter::from_fn(|| self.notices.try_recv().ok()).filter(|notice| is(notice)).count()
    }
}
