//! A second opinion: the same calls to kcl-local and to the npm package kinesis-local 0.6.2.
//!
//! Every answer, stripped of what must differ (sequence numbers, times, tokens), is compared step
//! by step. A difference that the table in `known.rs` does not explain fails the test, and so does
//! an entry of the table that no longer differs. The package is started by Node from the directory
//! that `KINESIS_LOCAL_DIR` names, where `npm install kinesis-local@0.6.2` was run; without it the
//! test says so and ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]
#![allow(clippy::print_stdout, reason = "the differences are the result")]

mod calls;
mod known;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{Builder, SharedHttpClient};
use kcl_local::LocalAws;
use kcl_local::client::PlainHttpClient;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// The other server; it is killed when dropped.
struct KinesisLocal {
    _process: Child,
    endpoint_url: String,
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

impl KinesisLocal {
    async fn start(directory: PathBuf) -> Self {
        let package = directory.join("node_modules/kinesis-local");
        let (plain, tls) = (free_port().await, free_port().await);
        let mut command = Command::new("node");
        command.arg("main.js").current_dir(&package).kill_on_drop(true);
        command
            .env("KINESIS_MOCK_PLAIN_PORT", plain.to_string())
            .env("KINESIS_MOCK_TLS_PORT", tls.to_string());
        command.env("LOG_LEVEL", "ERROR").stdout(Stdio::null()).stderr(Stdio::null());
        for operation in
            ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT"]
        {
            command.env(format!("{operation}_DURATION"), "1ms");
        }
        let mut process = command.spawn().unwrap();
        let started = async {
            while TcpStream::connect(("127.0.0.1", plain)).await.is_err() {
                assert!(process.try_wait().unwrap().is_none(), "kinesis-local ended at once");
                // Another process can only be asked again and again whether it is ready.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), started).await.unwrap();
        Self { _process: process, endpoint_url: format!("http://127.0.0.1:{plain}") }
    }
}

#[tokio::test]
async fn every_difference_to_kinesis_local_is_explained() {
    let Some(directory) = std::env::var_os("KINESIS_LOCAL_DIR").map(PathBuf::from) else {
        println!("SKIPPED: KINESIS_LOCAL_DIR does not name a directory with the npm package kinesis-local");
        return;
    };
    let ours = LocalAws::start().await.unwrap();
    let theirs = KinesisLocal::start(directory).await;
    let config = Builder::from(&ours.sdk_config()).retry_config(RetryConfig::disabled());
    let our_client = Client::from_conf(config.clone().build());
    let their_client = Client::from_conf(
        config
            .endpoint_url(&theirs.endpoint_url)
            .http_client(SharedHttpClient::new(PlainHttpClient::new()))
            .build(),
    );

    let our_answers = Box::pin(calls::observe(our_client)).await;
    let their_answers = Box::pin(calls::observe(their_client)).await;
    let steps =
        |answers: &[(String, String)]| answers.iter().map(|(step, _)| step.clone()).collect::<Vec<_>>();
    assert_eq!(steps(&our_answers), steps(&their_answers), "both ran the same steps");

    let mut known: BTreeMap<_, _> = known::DIFFERENCES.iter().copied().collect();
    let mut unexplained = Vec::new();
    for ((step, ours), (_, theirs)) in our_answers.iter().zip(&their_answers) {
        if ours == theirs {
            continue;
        }
        let reason = known.remove(step.as_str());
        println!("{step}\n   kcl-local:     {ours}\n   kinesis-local: {theirs}");
        println!("   because:       {}\n", reason.unwrap_or("UNEXPLAINED"));
        if reason.is_none() {
            unexplained.push(step);
        }
    }
    println!("{} steps compared", our_answers.len());
    assert!(unexplained.is_empty(), "differences that known.rs does not explain: {unexplained:#?}");
    assert!(known.is_empty(), "explained, but no longer different: {known:#?}");
}
