//! One worker of a fleet in a process of its own: what `tests/processes` kills, stops and cuts off.
//!
//! It runs a scheduler as any program would and writes a line for each record it is given, before it checkpoints
//! the record. SIGTERM drains it; the exit code is 0 if that went in order.

#![allow(clippy::print_stderr, reason = "a program's own output")]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use clap::Parser;
use integration_tests::aws::{STREAM, TABLE};
use integration_tests::line::Line;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{
    BoxError, CheckpointError, Checkpointer, Event, RecordBatch, RecordProcessor, Scheduler, SchedulerHandle,
    Settings, ShardContext, ShardId,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::client::PlainHttpClient;
use kcl_local::local_aws::REGION;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout};

/// How long a processor waits for a checkpoint. Delivery goes on without it while the lease lasts.
const PATIENCE: Duration = Duration::from_millis(200);

/// Works on the stream of the tests until it is told to stop.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the worker's ids begin with.
    #[arg(long)]
    name: String,
    /// Where Kinesis is.
    #[arg(long)]
    kinesis: String,
    /// Where DynamoDB is.
    #[arg(long)]
    dynamodb: String,
    /// The lease duration in milliseconds.
    #[arg(long)]
    lease_duration: u64,
    /// How often a processor checkpoints, in milliseconds.
    #[arg(long)]
    checkpoint_interval: u64,
}

/// Writes lines in one go. Without a reader nothing that this process does is of use.
fn write(lines: impl IntoIterator<Item = Line>) {
    let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(3);
    }
}

fn now() -> Duration {
    #[allow(clippy::disallowed_methods, reason = "the clock that all processes of the machine share")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Tells of each record, and then checkpoints now and then.
struct Clerk {
    shard: ShardId,
    interval: Duration,
    due: Instant,
}

impl Clerk {
    async fn checkpoint(&mut self, checkpointer: &Checkpointer) {
        let before = checkpointer.stored();
        match timeout(PATIENCE, checkpointer.checkpoint()).await {
            Ok(Ok(())) => {
                self.due = Instant::now() + self.interval;
                let stored = checkpointer.stored();
                if stored > before
                    && let Some(position) = stored.position()
                {
                    write([Line::Stored { shard: self.shard.clone(), sequence: position.sequence }]);
                }
            }
            // The next one covers it; `lease_lost` follows if there will be none.
            Ok(Err(CheckpointError::LeaseLost)) => {}
            Ok(Err(error)) => eprintln!("{}: {error}", self.shard),
            Err(_) => self.due = Instant::now() + self.interval,
        }
    }
}

#[async_trait]
impl RecordProcessor for Clerk {
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), BoxError> {
        write([Line::Held { at: now(), shard: shard.shard.clone(), from: shard.checkpoint }]);
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        let at = now();
        write(batch.records().iter().map(|record| Line::Delivered {
            at,
            shard: self.shard.clone(),
            sequence: record.sequence_number(),
            payload: String::from_utf8_lossy(record.data()).into_owned(),
        }));
        // A batch without records is a tick.
        if Instant::now() >= self.due {
            self.checkpoint(checkpointer).await;
        }
        Ok(())
    }

    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        write([Line::Lost { shard: self.shard.clone() }]);
        Ok(())
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        checkpointer.checkpoint().await?;
        let stored = checkpointer.stored().position().map(|position| position.sequence);
        let shard = self.shard.clone();
        write(stored.map(|sequence| Line::Stored { shard: shard.clone(), sequence }));
        write([Line::HandedOver { shard }]);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    integration_tests::log::init_on_stderr();
    match work(&Arguments::parse()).await {
        Ok(clean) => ExitCode::from(u8::from(!clean)),
        Err(error) => {
            eprintln!("{error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::from(2)
        }
    }
}

/// Works; says whether every shard was released in order.
async fn work(arguments: &Arguments) -> Result<bool, kcl_core::Error> {
    let credentials = || Credentials::new("local", "local", None, None, "worker");
    let kinesis = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(credentials())
        .http_client(PlainHttpClient::new())
        .endpoint_url(&arguments.kinesis);
    let dynamodb = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(credentials())
        .http_client(PlainHttpClient::new())
        .endpoint_url(&arguments.dynamodb);
    let (kinesis, dynamodb) = (
        aws_sdk_kinesis::Client::from_conf(kinesis.build()),
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
    );
    let mut settings = Settings::default();
    settings.lease_duration = Duration::from_millis(arguments.lease_duration);
    settings.lease_safety_margin = settings.lease_duration / 4;
    settings.lease_scan_interval = settings.lease_duration / 4;
    settings.deliver_empty_batches = true;
    let interval = Duration::from_millis(arguments.checkpoint_interval);
    let clerk = move |shard: &ShardContext| Clerk {
        shard: shard.shard.clone(),
        interval,
        due: Instant::now() + interval,
    };
    let scheduler = Scheduler::builder(TABLE)
        .worker_id(arguments.name.as_str())
        .stream(KinesisStream::new(kinesis, STREAM))
        .lease_store(DynamoLeaseStore::new(dynamodb, TABLE))
        .settings(settings)
        .processor(clerk)
        .build()?;
    let handle = scheduler.handle();
    let running = scheduler.run_until(asked_to_stop());
    tokio::select! {
        biased;
        report = running => {
            let report = report?;
            if !report.is_clean() {
                eprintln!("{}: {report}: {:?}", arguments.name, report.shards);
            }
            Ok(report.is_clean())
        }
        never = tell_membership(handle) => match never {},
        never = die_with_parent() => match never {},
    }
}

/// Tells when the worker becomes a member and when it is removed.
async fn tell_membership(handle: SchedulerHandle) -> std::convert::Infallible {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(Event::FleetJoined { member }) => write([Line::Joined { member }]),
            Ok(Event::FleetEvicted { member }) => write([Line::Evicted { member }]),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Ends this process soon after the one that started it: a test that is killed leaves nothing behind.
async fn die_with_parent() -> std::convert::Infallible {
    #[cfg(unix)]
    {
        let parent = std::os::unix::process::parent_id();
        while std::os::unix::process::parent_id() == parent {
            sleep(Duration::from_secs(1)).await;
        }
        std::process::exit(3)
    }
    #[cfg(not(unix))]
    std::future::pending().await
}

/// Waits for SIGTERM, where there is such a thing.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            terminate.recv().await;
            return;
        }
    }
    // Without a handler the signal itself ends the process.
    std::future::pending().await
}
