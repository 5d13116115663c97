//! The status page, with shards in the states one wants to recognise.
//!
//! ```text
//! cargo run -p examples --example status
//! ```
//!
//! needs no AWS account. It starts local services, a worker that holds six shards, and a second one on standby, prints the
//! address of the page, and serves it until Ctrl-C. One shard is idle, one is processed, one has a callback that fails, one
//! a callback that takes long; two are merged, and the new shard waits for the one of them that is not done. `--port N`
//! takes another port than 8080; 0 takes a free one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, Endpoint, RecordBatch, RecordProcessor, Scheduler,
    SchedulerBuilder, ShardContext, StartMode,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::kinesis::{NewRecord, ShardFilter};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const STREAM: &str = "orders";
const APPLICATION: &str = "orders-app";
const SHARDS: u32 = 6;
/// How often each shard but the idle one gets a record.
const PACE: Duration = Duration::from_millis(500);
const FAILING: &str = "shardId-000000000000";
const SLOW: &str = "shardId-000000000003";
const IDLE: usize = 1;
/// The shards that are merged; the callback of the second takes long.
const MERGED: [&str; 2] = ["shardId-000000000004", "shardId-000000000005"];

/// Behaves as its shard is meant to.
struct Actor;

#[async_trait]
impl RecordProcessor for Actor {
    async fn process_records(&mut self, batch: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        match batch.shard().shard.as_str() {
            FAILING => Err("the orders database refuses connections: <b>too many clients</b>".into()),
            shard if shard == SLOW || shard == MERGED[1] => {
                sleep(Duration::from_secs(600)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn worker(name: &str, aws: &LocalAws) -> SchedulerBuilder {
    let kinesis = aws_sdk_kinesis::Client::new(&aws.sdk_config());
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
    Scheduler::builder(APPLICATION)
        .worker_id(name)
        .stream(KinesisStream::new(kinesis, STREAM))
        .lease_store(DynamoLeaseStore::new(dynamodb, APPLICATION))
        .checkpoint_policy(CheckpointPolicy::Every(Duration::from_secs(5)))
        .processor(|_: &ShardContext| Actor)
}

/// Puts a record on each open shard now and then, but for the idle one.
async fn produce(aws: &LocalAws) -> Result<(), BoxError> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0u64.. {
        pace.tick().await;
        let shards = aws.kinesis().shards(STREAM, ShardFilter::AtLatest)?;
        for (index, shard) in shards.iter().enumerate() {
            // A new shard is idle, too, until its parents have ended.
            if index != IDLE && index < SHARDS as usize {
                let record = NewRecord::new(format!("key-{round}"), format!("order {round}"));
                let record = record.with_explicit_hash_key(shard.hash_key_range.start);
                aws.kinesis().put_record(STREAM, record)?;
            }
        }
        if round == 4 {
            aws.kinesis().merge_shards(STREAM, MERGED[0], MERGED[1])?;
        }
    }
    Ok(())
}

async fn show(port: u16) -> Result<(), BoxError> {
    let aws = LocalAws::start().await?;
    aws.kinesis().create_stream(STREAM, SHARDS)?;
    let mut runs = JoinSet::new();
    let first = worker("alpha", &aws).endpoint(Endpoint::on_port(port)).build()?;
    let handle = first.handle();
    runs.spawn(first.run());
    handle.ready().await;
    runs.spawn(worker("beta", &aws).start_mode(StartMode::Standby).build()?.run());
    let mut told = false;
    let mut look = interval(Duration::from_millis(100));
    let mut produced = std::pin::pin!(produce(&aws));
    loop {
        tokio::select! {
            biased;
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
            Some(ended) = runs.join_next() => return Err(format!("a worker ended: {ended:?}").into()),
            produced = &mut produced => return produced,
            _ = look.tick() => {
                let endpoint = handle.snapshot().endpoint;
                match endpoint.and_then(|endpoint| endpoint.bound) {
                    Some(bound) if !told => {
                        told = true;
                        println!("http://{bound}/status; Ctrl-C ends it");
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Reads `--port N`; 8080 without it.
fn port() -> Option<u16> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => Some(8080),
        (Some("--port"), Some(port), None) => port.parse().ok(),
        _ => None,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(port) = port() else {
        eprintln!("usage: status [--port N]");
        return ExitCode::from(2);
    };
    match show(port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
