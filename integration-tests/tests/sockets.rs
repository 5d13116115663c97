//! A whole worker over loopback sockets, in real time: the table it makes, what it stores there, and how it goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, BillingMode, KeyType, ScalarAttributeType};
use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use integration_tests::aws::{Aws, STREAM, TABLE, string};
use kcl_core::WorkerId;
use kcl_core::fleet::worker_of;
use kcl_core::{
    Error, LeaseRuntime, SchedulerBuilder, SchedulerHandle, SequenceNumber, Settings, ShardOutcome,
    ShutdownReport,
};
use kcl_lease_dynamo::TableMode;
use kpl_aggregation::Aggregator;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const SHARDS: [&str; 2] = ["shardId-000000000000", "shardId-000000000001"];

fn start(builder: SchedulerBuilder) -> (SchedulerHandle, JoinHandle<Result<ShutdownReport, Error>>) {
    let mut settings = Settings::default();
    settings.lease_duration = SECOND * 3;
    settings.lease_scan_interval = SECOND;
    let scheduler = builder.settings(settings).lease_runtime(LeaseRuntime::OwnThread).build().unwrap();
    let handle = scheduler.handle();
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    (handle, task)
}

/// Puts a plain record and an aggregate of three on each shard, through the SDK.
async fn put(aws: &Aws, round: u32) {
    let client = aws.kinesis();
    for (shard, hash_key) in [0, u128::MAX].into_iter().enumerate() {
        let put = |key: String, data: Vec<u8>| {
            client
                .put_record()
                .stream_name(STREAM)
                .partition_key(key)
                .explicit_hash_key(hash_key.to_string())
                .data(Blob::new(data))
                .send()
        };
        put("plain".into(), format!("{shard}.{round}.plain").into()).await.unwrap();
        let mut aggregator = Aggregator::new();
        for index in 0..3 {
            let data = Bytes::from(format!("{shard}.{round}.{index}"));
            assert!(aggregator.add("aggregated", Some(hash_key), data).unwrap().is_none());
        }
        put("aggregate".into(), aggregator.finish().unwrap().data.to_vec()).await.unwrap();
    }
}

/// What was delivered, by payload, and how often.
fn delivered(aws: &Aws) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for payload in aws.recorder.calls().iter().flat_map(|call| &call.payloads) {
        *counts.entry(String::from_utf8_lossy(payload).into_owned()).or_default() += 1;
    }
    counts
}

async fn wait_for(aws: &Aws, records: usize) {
    let begun = Instant::now();
    while delivered(aws).len() < records {
        assert!(begun.elapsed() < SECOND * 15, "{:?}", delivered(aws));
        sleep(SECOND / 50).await;
    }
}

/// What one round of [`put`] makes.
fn payloads(rounds: std::ops::Range<u32>) -> BTreeMap<String, u32> {
    let tails = ["plain", "0", "1", "2"];
    rounds
        .flat_map(|round| {
            (0..2).flat_map(move |shard| tails.map(move |tail| (format!("{shard}.{round}.{tail}"), 1)))
        })
        .collect()
}

/// The names and the types of a row's attributes.
fn shape(row: &integration_tests::aws::Item) -> BTreeMap<&str, &'static str> {
    let kind = |value: &AttributeValue| match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::Ss(_) => "SS",
        _ => "another",
    };
    row.iter().map(|(name, value)| (name.as_str(), kind(value))).collect()
}

async fn works_and_restarts(aws: Aws, mode: TableMode) {
    let builder = || aws.builder().lease_store(aws.store().with_table_mode(mode.clone()));
    put(&aws, 0).await;
    let (handle, task) = start(builder());
    wait_for(&aws, 8).await;
    put(&aws, 1).await;
    wait_for(&aws, 16).await;

    // While the worker runs, the rows are as the KCL knows them.
    let expected = BTreeMap::from([
        ("leaseKey", "S"),
        ("entityType", "S"),
        ("leaseOwner", "S"),
        ("leaseCounter", "N"),
        ("ownerSwitchesSinceCheckpoint", "N"),
        ("checkpoint", "S"),
        ("checkpointSubSequenceNumber", "N"),
        ("startingHashKey", "S"),
        ("endingHashKey", "S"),
        ("attemptToken", "S"),
        ("streamIdentity", "S"),
    ]);
    let mut rows = aws.rows().await;
    assert!(rows.remove("kcl:fleet:0").is_some(), "the fleet's row");
    assert_eq!(rows.keys().collect::<Vec<_>>(), SHARDS.iter().collect::<Vec<_>>());
    for (key, row) in &rows {
        assert_eq!(shape(row), expected, "{key}");
        let owner = WorkerId::from(string(row, "leaseOwner"));
        assert_eq!((worker_of(&owner), string(row, "entityType")), ("alpha", "LEASE"));
        assert!(string(row, "checkpoint").parse::<SequenceNumber>().is_ok(), "{row:?}");
        let last = |row: &integration_tests::aws::Item| match &row["checkpointSubSequenceNumber"] {
            AttributeValue::N(digits) => digits.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(last(row), "2", "the checkpoint is the last record of the aggregate");
    }

    let report = handle.shutdown(SECOND * 10).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.shards.len(), 2);
    assert!(report.shards.values().all(|outcome| *outcome == ShardOutcome::Released));
    assert!(report.took < SECOND * 5, "{report:?}");
    task.await.unwrap().unwrap();
    let rows = aws.rows().await;
    assert!(rows.values().all(|row| !row.contains_key("leaseOwner")), "every lease is released");

    // The next worker goes on where the first one stopped.
    put(&aws, 2).await;
    let (handle, task) = start(builder().worker_id("beta"));
    wait_for(&aws, 24).await;
    sleep(SECOND / 2).await;
    assert_eq!(delivered(&aws), payloads(0..3), "each record once");
    assert_eq!(aws.recorder.violations(), Vec::<String>::new());
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_creates_its_table_delivers_and_goes_on_after_a_restart() {
    let aws = Aws::over_sockets().await.with_stream(2);
    let client = aws.dynamodb();
    works_and_restarts(aws, TableMode::default()).await;
    // The services are gone with their owner.
    let gone = client.describe_table().table_name(TABLE).send().await;
    assert!(gone.is_err_and(|error| error.as_service_error().is_none()));
}

#[tokio::test]
async fn the_table_a_worker_creates_is_a_lease_table_on_demand() {
    let aws = Aws::over_sockets().await.with_stream(1);
    let (handle, task) = start(aws.builder());
    handle.ready().await;
    let table = aws.dynamodb().describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    assert_eq!(*table.billing_mode_summary().unwrap().billing_mode().unwrap(), BillingMode::PayPerRequest);
    let [key] = table.key_schema() else { panic!("{table:?}") };
    assert_eq!((key.attribute_name(), key.key_type()), ("leaseKey", &KeyType::Hash));
    let [attribute] = table.attribute_definitions() else { panic!("{table:?}") };
    assert_eq!(*attribute.attribute_type(), ScalarAttributeType::S);
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_works_with_a_table_that_is_expected() {
    let aws = Aws::over_sockets().await.with_stream(2);
    aws.create_table(TABLE, "leaseKey").await;
    works_and_restarts(aws, TableMode::MustExist).await;
}
