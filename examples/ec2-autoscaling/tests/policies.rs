//! The policies: the template has the same, and they are enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use kcl_core::model::Checkpoint;
use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{BoxError, Checkpointer, Coordination, RecordBatch, RecordProcessor, Scheduler, ShardContext};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::faults::Faults;
use kcl_local::kinesis::NewRecord;
use kcl_local::wire::Service;
use serde_json::Value;
use tokio::time::sleep;

const DYNAMODB: [&str; 16] = [
    "BatchGetItem",
    "BatchWriteItem",
    "CreateTable",
    "DeleteItem",
    "DeleteTable",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "ListTables",
    "PutItem",
    "Query",
    "Scan",
    "TransactGetItems",
    "TransactWriteItems",
    "UpdateItem",
    "UpdateTable",
];
const KINESIS: [&str; 14] = [
    "DeregisterStreamConsumer",
    "DescribeLimits",
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "ListStreamConsumers",
    "ListStreams",
    "PutRecord",
    "PutRecords",
    "RegisterStreamConsumer",
    "SubscribeToShard",
];

fn here(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The actions that a policy allows.
fn actions(policy: &str) -> BTreeSet<String> {
    let policy: Value = serde_json::from_str(&here(&format!("policies/{policy}.json"))).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements.iter().flat_map(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        statement["Action"].as_array().unwrap()
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_template_allows_what_the_policies_allow() {
    let policies = ["fleet", "per-lease", "polling", "fan-out", "lifecycle", "cloudwatch", "bundle"];
    let in_policies: BTreeSet<String> = policies.iter().flat_map(|policy| actions(policy)).collect();
    let template = here("template.yaml");
    let words = template.split(|letter: char| letter.is_whitespace());
    let in_template: BTreeSet<String> = words
        .filter(|word| {
            let Some((service, name)) = word.split_once(':') else { return false };
            ["autoscaling", "cloudwatch", "dynamodb", "kinesis", "s3"].contains(&service)
                && name.starts_with(|letter: char| letter.is_ascii_uppercase())
                && name.chars().all(|letter| letter.is_ascii_alphanumeric())
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(in_template, in_policies);
    assert_eq!(actions("fleet"), actions("per-lease"), "the template has one policy for both");
}

struct Idle;

#[async_trait]
impl RecordProcessor for Idle {
    async fn process_records(&mut self, _: RecordBatch, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

/// Runs a worker until it has stored a checkpoint of each shard, and ends it.
async fn work(coordination: Coordination, is_fan_out: bool) -> Faults {
    let faults = Faults::seeded(1);
    let aws = LocalAws::builder().faults(&faults).start().await.unwrap();
    aws.kinesis().create_stream("orders", 2).unwrap();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        aws.kinesis().put_record("orders", NewRecord::new(key, key)).unwrap();
    }
    let config = aws.sdk_config();
    let mut stream = KinesisStream::new(aws_sdk_kinesis::Client::new(&config), "orders");
    if is_fan_out {
        let consumer = FanOutConsumer::Named("orders-app".to_owned());
        stream = stream.with_retrieval(Retrieval::FanOut(FanOutConfig::new(consumer)));
    }
    let scheduler = Scheduler::builder("orders-app")
        .stream(stream)
        .lease_store(DynamoLeaseStore::new(aws_sdk_dynamodb::Client::new(&config), "orders-app"))
        .coordination(coordination)
        .processor(|_: &ShardContext| Idle)
        .build()
        .unwrap();
    let handle = scheduler.handle();
    let processed = async {
        loop {
            let leases = handle.snapshot().leases;
            let stored = leases.values().filter(|lease| matches!(lease.checkpoint, Checkpoint::At(_)));
            if stored.count() == 2 {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = Duration::from_secs(60);
    let report = tokio::time::timeout(limit, scheduler.run_until(processed)).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report:?}");
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_calls_nothing_that_its_policies_do_not_allow() {
    for (coordination, leases, is_fan_out, reading) in [
        (Coordination::Fleet, "fleet", false, "polling"),
        (Coordination::PerLease, "per-lease", false, "polling"),
        (Coordination::Fleet, "fleet", true, "fan-out"),
    ] {
        let faults = work(coordination, is_fan_out).await;
        let (leases, reading) = (actions(leases), actions(reading));
        let mut made = BTreeSet::new();
        made.extend(
            DYNAMODB
                .iter()
                .filter(|op| faults.calls(Service::DynamoDb, op) > 0)
                .map(|op| format!("dynamodb:{op}")),
        );
        made.extend(
            KINESIS
                .iter()
                .filter(|op| faults.calls(Service::Kinesis, op) > 0)
                .map(|op| format!("kinesis:{op}")),
        );
        let allowed: BTreeSet<String> = leases.union(&reading).cloned().collect();
        let others: Vec<&String> = made.difference(&allowed).collect();
        assert!(others.is_empty(), "{others:?}");
        assert!(made.len() >= 7, "the calls are counted: {made:?}");
    }
}
