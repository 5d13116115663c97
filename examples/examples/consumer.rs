//! The smallest useful consumer of a real stream.
//!
//! ```text
//! cargo run -p examples --features aws --example consumer -- --stream orders --application orders-app
//! ```
//!
//! prints shard, partition key and size of each record, and checkpoints after each batch. `--stream` takes a name or
//! an ARN; `--application` names the lease table, which is created if it is missing. `--retrieval fan-out` subscribes to
//! the shards instead of polling them, with a consumer of the application's name, which is registered if it is missing.
//! `--http 127.0.0.1:8080` serves `/status`, a page about this worker, and `/health/live` and `/health/ready` for probes; an address
//! that other machines can reach is taken at your word: there is no authentication. Region and credentials come from
//! the environment and the usual files; `AWS_ENDPOINT_URL` and its kin lead elsewhere, for example to
//! `cargo run -p kcl-local --example serve`. Ctrl-C and SIGTERM drain: what was processed is checkpointed, leases are
//! released, a summary is printed. What keeps it from starting (no region, no credentials, no such stream) is printed
//! with a remedy within 30 seconds; the exit code is then 1. Start it twice and the two share the shards.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::net::SocketAddr;
use std::process::ExitCode;

use async_trait::async_trait;
use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{BoxError, Checkpointer, Endpoint, RecordBatch, RecordProcessor, Scheduler, ShardContext};
use kcl_lease_dynamo::DynamoLeaseStore;

struct Print;

#[async_trait]
impl RecordProcessor for Print {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        for record in batch.records() {
            let key = record.partition_key().unwrap_or("-");
            println!("{} {key} {} bytes", batch.shard().shard, record.data().len());
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1)) else {
        eprintln!(
            "usage: consumer --stream NAME_OR_ARN --application NAME [--retrieval polling|fan-out] [--http ADDRESS]"
        );
        return ExitCode::from(2);
    };
    match consume(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn consume(arguments: Arguments) -> Result<(), kcl_core::Error> {
    let Arguments { stream, application, fan_out, http } = arguments;
    let config = aws_config::load_from_env().await;
    let kinesis = aws_sdk_kinesis::Client::new(&config);
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let mut stream = KinesisStream::new(kinesis, stream);
    if fan_out {
        let consumer = FanOutConsumer::Named(application.clone());
        stream = stream.with_retrieval(Retrieval::FanOut(FanOutConfig::new(consumer)));
    }
    let mut builder = Scheduler::builder(&application)
        .stream(stream)
        .lease_store(DynamoLeaseStore::new(dynamodb, &application))
        .processor(|_: &ShardContext| Print);
    if let Some(address) = http {
        builder = builder.endpoint(Endpoint::at(address).beyond_this_machine());
    }
    let scheduler = builder.build()?;
    println!("worker {} starts; Ctrl-C ends it", scheduler.handle().worker());
    let report = scheduler.run_until(asked_to_stop()).await?;
    println!("{report}");
    Ok(())
}

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without a handler the signal itself ends the process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Arguments {
    stream: String,
    application: String,
    fan_out: bool,
    http: Option<SocketAddr>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut stream, mut application, mut fan_out) = (None, None, false);
        let mut http = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--stream" => stream = Some(arguments.next()?),
                "--application" => application = Some(arguments.next()?),
                "--retrieval" => {
                    fan_out = match arguments.next()?.as_str() {
                        "fan-out" => true,
                        "polling" => false,
                        _ => return None,
                    };
                }
                "--http" => http = Some(arguments.next()?.parse().ok()?),
                _ => return None,
            }
        }
        Some(Self { stream: stream?, application: application?, fan_out, http })
    }
}
