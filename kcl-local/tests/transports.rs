//! Kinesis through the real SDK client, in process under a paused clock and over a socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use kcl_local::LocalAws;
use kcl_local::kinesis::{KinesisOptions, Limits};

const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";

fn client_of(aws: &LocalAws) -> Client {
    let config = aws_sdk_kinesis::config::Builder::from(&aws.sdk_config());
    Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
}

async fn open(client: &Client, kind: ShardIteratorType) -> String {
    let open = client.get_shard_iterator().stream_name(STREAM).shard_id(SHARD).shard_iterator_type(kind);
    open.send().await.unwrap().shard_iterator().unwrap().to_owned()
}

async fn records_are_read_as_they_were_put(aws: &LocalAws) {
    let client = client_of(aws);
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let put = client.put_record().stream_name(STREAM).partition_key("customer-1");
    let first = put.data(Blob::new([0, 159, 146, 150])).send().await.unwrap();
    let entry = |number: u32| {
        let entry = PutRecordsRequestEntry::builder().partition_key(format!("customer-{number}"));
        entry.data(Blob::new(number.to_string())).build().unwrap()
    };
    let batch = client.put_records().stream_name(STREAM).set_records(Some((2..=4).map(entry).collect()));
    assert_eq!(batch.send().await.unwrap().failed_record_count(), Some(0));

    let iterator = open(&client, ShardIteratorType::TrimHorizon).await;
    let page = client.get_records().shard_iterator(iterator).send().await.unwrap();
    let read: Vec<_> = page
        .records()
        .iter()
        .map(|record| (record.partition_key(), record.data().as_ref().to_vec()))
        .collect();
    let expected = [
        (Some("customer-1"), vec![0, 159, 146, 150]),
        (Some("customer-2"), b"2".to_vec()),
        (Some("customer-3"), b"3".to_vec()),
        (Some("customer-4"), b"4".to_vec()),
    ];
    assert_eq!(read, expected);
    assert_eq!(page.records()[0].sequence_number(), first.sequence_number());
    assert!(page.next_shard_iterator().is_some());
    assert_eq!(page.millis_behind_latest(), Some(0));
}

async fn ten_mebibytes_of_records_pass(aws: &LocalAws) {
    let client = client_of(aws);
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let entry = |number: u8| {
        let data = vec![number; (1 << 20) - 1];
        PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new(data)).build().unwrap()
    };
    let batch = client.put_records().stream_name(STREAM).set_records(Some((0..10).map(entry).collect()));
    assert_eq!(batch.send().await.unwrap().failed_record_count(), Some(0));
    let iterator = open(&client, ShardIteratorType::TrimHorizon).await;
    let page = client.get_records().shard_iterator(iterator).send().await.unwrap();
    assert_eq!(
        page.records().iter().map(|record| record.data().as_ref()[0]).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    );
}

async fn refusals_parse_to_the_errors_of_the_sdk(aws: &LocalAws) {
    let client = client_of(aws);
    let missing = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap_err();
    assert!(missing.as_service_error().unwrap().is_resource_not_found_exception());
    assert!(missing.message().unwrap().contains(STREAM), "{missing:?}");

    let create = || client.create_stream().stream_name(STREAM).shard_count(1).send();
    create().await.unwrap();
    let twice = create().await.unwrap_err();
    assert!(twice.as_service_error().unwrap().is_resource_in_use_exception());

    let junk = client.get_records().shard_iterator("junk").send().await.unwrap_err();
    assert!(junk.as_service_error().unwrap().is_invalid_argument_exception());

    aws.kinesis().configure(|options| options.limits = Limits::aws());
    let latest = open(&client, ShardIteratorType::Latest).await;
    let mut throttled = None;
    for _ in 0..1_000 {
        throttled = client.get_records().shard_iterator(&latest).send().await.err();
        if throttled.is_some() {
            break;
        }
    }
    let throttled = throttled.expect("more than five reads a second are refused");
    assert!(throttled.as_service_error().unwrap().is_provisioned_throughput_exceeded_exception());
}

macro_rules! over_both_transports {
    ($($name:ident),* $(,)?) => {
        mod in_process_under_a_paused_clock {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                let aws = kcl_local::LocalAws::in_process().unwrap();
                Box::pin(super::$name(&aws)).await;
            })*
        }
        mod over_a_socket {
            $(#[tokio::test]
            async fn $name() {
                let aws = kcl_local::LocalAws::start().await.unwrap();
                Box::pin(super::$name(&aws)).await;
            })*
        }
    };
}

over_both_transports!(
    records_are_read_as_they_were_put,
    ten_mebibytes_of_records_pass,
    refusals_parse_to_the_errors_of_the_sdk,
);

#[tokio::test(start_paused = true)]
async fn an_hour_of_polling_passes_in_no_time_and_iterators_expire_on_the_paused_clock() {
    let aws = LocalAws::in_process().unwrap();
    let client = client_of(&aws);
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let expired = open(&client, ShardIteratorType::Latest).await;
    let mut iterator = expired.clone();
    let (mut put, mut read) = (0, 0);
    for second in (0..3_600).step_by(5) {
        if second % 60 == 0 {
            let record = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
            record.send().await.unwrap();
            put += 1;
        }
        let page = client.get_records().shard_iterator(iterator).send().await.unwrap();
        read += page.records().len();
        iterator = page.next_shard_iterator().unwrap().to_owned();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(read, put);
    let error = client.get_records().shard_iterator(expired).send().await.unwrap_err();
    assert!(error.as_service_error().unwrap().is_expired_iterator_exception());
}

#[tokio::test(start_paused = true)]
async fn the_options_given_are_in_force() {
    let mut options = KinesisOptions::default();
    options.create_delay = Duration::from_secs(20);
    let aws = LocalAws::builder().kinesis_options(options).in_process().unwrap();
    let client = client_of(&aws);
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let status = async || {
        let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        summary.stream_description_summary().unwrap().stream_status().as_str().to_owned()
    };
    assert_eq!(status().await, "CREATING");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(status().await, "ACTIVE");
}

#[tokio::test]
async fn concurrent_clients_over_sockets_lose_nothing() {
    let aws = LocalAws::start().await.unwrap();
    let client = client_of(&aws);
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let client = client.clone();
        writers.spawn(async move {
            for number in 0..25 {
                let put = client.put_record().stream_name(STREAM).partition_key(writer.to_string());
                put.data(Blob::new(number.to_string())).send().await.unwrap();
            }
        });
    }
    let mut iterator = open(&client, ShardIteratorType::TrimHorizon).await;
    let mut seen: Vec<(String, u32)> = Vec::new();
    while seen.len() < 200 {
        let page = client.get_records().shard_iterator(iterator).send().await.unwrap();
        seen.extend(page.records().iter().map(|record| {
            let number = std::str::from_utf8(record.data().as_ref()).unwrap().parse().unwrap();
            (record.partition_key().unwrap().to_owned(), number)
        }));
        iterator = page.next_shard_iterator().unwrap().to_owned();
        tokio::task::yield_now().await;
    }
    writers.join_all().await;
    for writer in 0..8 {
        let numbers: Vec<_> =
            seen.iter().filter(|(key, _)| *key == writer.to_string()).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..25).collect::<Vec<_>>());
    }
}
