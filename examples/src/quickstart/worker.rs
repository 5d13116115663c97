use std::time::Duration;

use async_trait::async_trait;
use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, Coordination, Entropy, Error, RecordBatch, RecordProcessor,
    Scheduler, SchedulerHandle, Settings, ShardContext, ShutdownReport, WorkerId,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;

use super::ledger::{Ledger, Numbered};
use super::options::Reading;

/// How often a worker checkpoints. What it processed since is delivered again after it was killed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Enters into the ledger what it is given.
struct Bookkeeper {
    ledger: Ledger,
    worker: WorkerId,
}

#[async_trait]
impl RecordProcessor for Bookkeeper {
    async fn process_records(&mut self, batch: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        let shard = &batch.shard().shard;
        for record in batch.records() {
            self.ledger.note_delivery(&self.worker, shard, record.position(), Numbered::read(record));
        }
        Ok(())
    }
}

/// A worker that runs: a scheduler with clients of its own, as in a process of its own.
pub(super) struct Worker {
    pub(super) name: &'static str,
    pub(super) handle: SchedulerHandle,
    pub(super) events: Receiver<kcl_core::Event>,
    run: JoinSet<Result<ShutdownReport, Error>>,
}

impl Worker {
    pub(super) fn start(
        name: &'static str,
        aws: &LocalAws,
        (stream, application): (&str, &str),
        (settings, entropy, coordination, reading): (Settings, Entropy, Coordination, Reading),
        ledger: &Ledger,
    ) -> Result<Self, Error> {
        let kinesis = aws_sdk_kinesis::Client::new(&aws.sdk_config());
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
        let (ledger, worker) = (ledger.clone(), WorkerId::from(name));
        let mut stream = KinesisStream::new(kinesis, stream);
        if reading == Reading::FanOut {
            let consumer = FanOutConsumer::Named(application.to_owned());
            stream = stream.with_retrieval(Retrieval::FanOut(FanOutConfig::new(consumer)));
        }
        let scheduler = Scheduler::builder(application)
            .stream(stream)
            .lease_store(DynamoLeaseStore::new(dynamodb, application))
            .worker_id(name)
            .settings(settings)
            .coordination(coordination)
            .checkpoint_policy(CheckpointPolicy::Every(CHECKPOINT_INTERVAL))
            .entropy(entropy)
            .processor(move |_: &ShardContext| Bookkeeper { ledger: ledger.clone(), worker: worker.clone() })
            .build()?;
        let (handle, events) = (scheduler.handle(), scheduler.handle().events());
        let mut run = JoinSet::new();
        run.spawn(scheduler.run());
        Ok(Self { name, handle, events, run })
    }

    /// The error the worker stopped with, if it did.
    pub(super) fn failure(&mut self) -> Option<BoxError> {
        match self.run.try_join_next()? {
            Ok(Ok(report)) => Some(format!("worker {} stopped by itself: {report}", self.name).into()),
            Ok(Err(error)) => Some(error.into()),
            Err(panicked) => Some(panicked.into()),
        }
    }

    /// Drops the worker where it stands, as a crash would: nothing is stored, nothing released.
    pub(super) async fn kill(mut self) {
        self.run.shutdown().await;
    }
}
