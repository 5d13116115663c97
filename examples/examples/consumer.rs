//! The smallest useful consumer of a real stream.
//!
//! ```text
//! cargo run -p examples --features aws --example consumer -- --stream orders --application orders-app
//! ```
//!
//! prints shard, partition key and size of each record, and checkpoints after each batch. `--stream` takes a name or
//! an ARN; `--application` names the lease table, which is created if it is missing. `--retrieval fan-out` subscribes to
//! the shards instead of polling them, with a consumer of the application's name, which is registered if it is missing.
//!
//! ```text
//! cargo run -p examples --features aws --example consumer -- --config docs/consumer.toml
//! ```
//!
//! takes everything from a file (docs/configuration.md); variables `KCL_…` go over it, and the options over both.
//!
//! `--http 127.0.0.1:8080` serves `/status`, a page about this worker, and `/health/live` and `/health/ready` for probes; an
//! address that other machines can reach is taken at your word: there is no authentication.
//!
//! Region and credentials come from the environment and the usual files, unless the configuration names a region;
//! `AWS_ENDPOINT_URL` and its kin lead elsewhere, for example to `cargo run -p kcl-local --example serve`. Ctrl-C and
//! SIGTERM drain: what was processed is checkpointed, leases are released, a summary is printed. What keeps it from
//! starting (a wrong configuration, no region, no credentials, no such stream) is printed with a remedy within 30 seconds;
//! the exit code is then 1. Start it twice and the two share the shards.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::net::SocketAddr;
use std::process::ExitCode;

use async_trait::async_trait;
use kcl_core::config::{Configuration, ConfigurationError, ConfigurationLoader};
use kcl_core::metrics::cloudwatch::CloudWatchSink;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{BoxError, Checkpointer, Endpoint, RecordBatch, RecordProcessor, ShardContext};
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
            "usage: consumer [--config FILE] [--stream NAME_OR_ARN] [--application NAME] \
             [--retrieval polling|fan-out] [--http ADDRESS]\nstream and application must be in the file, the environment or the options"
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
    let http = arguments.http;
    let configuration = arguments.load()?;
    let (kinesis, dynamodb, cloudwatch) = clients(&configuration).await;
    let mut builder = configuration
        .scheduler()
        .stream(KinesisStream::configured(kinesis, &configuration)?)
        .lease_store(DynamoLeaseStore::configured(dynamodb, &configuration))
        .processor(|_: &ShardContext| Print);
    if let Some(sink) = CloudWatchSink::configured(cloudwatch, &configuration)? {
        builder = builder.metrics(sink);
    }
    if let Some(address) = http {
        builder = builder.endpoint(Endpoint::at(address).beyond_this_machine());
    }
    let scheduler = builder.build()?;
    println!("worker {} starts; Ctrl-C ends it", scheduler.handle().worker());
    let report = scheduler.run_until(asked_to_stop()).await?;
    println!("{report}");
    Ok(())
}

/// Makes the clients: of the configuration's region and endpoints, or of what the environment says.
async fn clients(
    configuration: &Configuration,
) -> (aws_sdk_kinesis::Client, aws_sdk_dynamodb::Client, aws_sdk_cloudwatch::Client) {
    let mut loader = aws_config::from_env();
    if let Some(region) = &configuration.region {
        loader = loader.region(aws_config::Region::new(region.clone()));
    }
    let config = loader.load().await;
    let mut kinesis = aws_sdk_kinesis::config::Builder::from(&config);
    if let Some(url) = &configuration.endpoints.kinesis {
        kinesis = kinesis.endpoint_url(url);
    }
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&config);
    if let Some(url) = &configuration.endpoints.dynamodb {
        dynamodb = dynamodb.endpoint_url(url);
    }
    (
        aws_sdk_kinesis::Client::from_conf(kinesis.build()),
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        aws_sdk_cloudwatch::Client::new(&config),
    )
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

/// The command line: a file, and values that go over the file and the environment.
#[derive(Default)]
struct Arguments {
    files: Vec<String>,
    values: Vec<(&'static str, String)>,
    http: Option<SocketAddr>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            let key = match argument.as_str() {
                "--config" => {
                    parsed.files.push(arguments.next()?);
                    continue;
                }
                "--http" => {
                    parsed.http = Some(arguments.next()?.parse().ok()?);
                    continue;
                }
                "--stream" => "stream",
                "--application" => "application",
                "--retrieval" => "retrieval.mode",
                _ => return None,
            };
            parsed.values.push((key, arguments.next()?));
        }
        Some(parsed)
    }

    fn load(self) -> Result<Configuration, ConfigurationError> {
        let files = self.files.into_iter();
        let loader = files.fold(ConfigurationLoader::new(), ConfigurationLoader::file).environment();
        self.values.into_iter().fold(loader, |loader, (key, value)| loader.set(key, value)).load()
    }
}
