//! Fan-out over loopback sockets as it is used: HTTP/2 connections of its own, in real time.

use std::time::Duration;

use kcl_core::model::ShardId;
use kcl_core::source::kinesis::{
    FanOutConfig, FanOutConsumer, HttpClientFactory, KinesisStream, Retrieval, SubscriptionHttpClient,
};
use kcl_core::source::{ShardReader, StartFrom, StreamSource};
use kcl_local::LocalAws;
use kcl_local::kinesis::NewRecord;
use tokio::time::{sleep, timeout};

const STREAM: &str = "orders";
const SHARDS: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

async fn next_records(reader: &mut dyn ShardReader) -> usize {
    let some = timeout(SECOND * 20, async {
        loop {
            let batch = reader.next().await.unwrap();
            if !batch.records.is_empty() {
                return batch.records.len();
            }
        }
    });
    some.await.expect("records come")
}

#[tokio::test]
async fn shards_are_pushed_over_few_connections_and_still_when_those_are_sent_away() {
    let aws = LocalAws::builder().start().await.unwrap();
    aws.kinesis().create_stream(STREAM, SHARDS).unwrap();
    let http = SubscriptionHttpClient::new(8);
    let shared = http.clone();
    let source = KinesisStream::new(aws_sdk_kinesis::Client::new(&aws.sdk_config()), STREAM)
        .with_retrieval(Retrieval::FanOut(FanOutConfig::new(FanOutConsumer::Named("app".into()))))
        .with_subscription_clients(HttpClientFactory::new(move || {
            aws_sdk_kinesis::config::SharedHttpClient::new(shared.clone())
        }));
    let put = |round: u32| {
        for shard in 0..SHARDS {
            let width = u128::MAX / u128::from(SHARDS);
            let hash_key = width * u128::from(shard) + width / 2;
            let record = NewRecord::new("key", round.to_string()).with_explicit_hash_key(hash_key);
            aws.kinesis().put_record(STREAM, record).unwrap();
        }
    };
    let mut readers = Vec::new();
    for shard in 0..SHARDS {
        let shard = ShardId::from(format!("shardId-{shard:012}"));
        readers.push(source.open(&shard, StartFrom::TrimHorizon).await.unwrap());
    }
    for round in 0..3 {
        put(round);
        for reader in &mut readers {
            assert_eq!(next_records(reader.as_mut()).await, 1, "round {round}");
        }
        assert_eq!(http.connections(), 3, "eight subscriptions on each");
        if round == 1 {
            // More than five seconds after the subscriptions were opened, so that they may be opened again.
            sleep(SECOND * 5).await;
            aws.server().unwrap().send_away();
        }
    }
}

#[tokio::test]
async fn records_of_ten_mebibytes_and_empty_ones_are_pushed_whole() {
    let aws = LocalAws::builder().start().await.unwrap();
    aws.kinesis().create_stream(STREAM, 1).unwrap();
    aws.kinesis().update_max_record_size(STREAM, 10 << 10).unwrap();
    let source = KinesisStream::new(aws_sdk_kinesis::Client::new(&aws.sdk_config()), STREAM)
        .with_retrieval(Retrieval::FanOut(FanOutConfig::new(FanOutConsumer::Named("app".into()))));
    // The limit counts the partition key too.
    let sizes = [(10 << 20) - 3, 0, 1, (10 << 20) - 3, 100];
    for (number, size) in sizes.into_iter().enumerate() {
        aws.kinesis().put_record(STREAM, NewRecord::new("key", vec![number as u8; size])).unwrap();
    }
    let mut reader =
        source.open(&ShardId::from("shardId-000000000000"), StartFrom::TrimHorizon).await.unwrap();
    let mut got = Vec::new();
    while got.len() < sizes.len() {
        let batch = timeout(SECOND * 20, reader.next()).await.expect("records come").unwrap();
        got.extend(batch.records.into_iter().map(|record| record.data));
    }
    for (number, (data, size)) in got.iter().zip(sizes).enumerate() {
        assert_eq!(data.len(), size, "record {number}");
        assert!(data.iter().all(|byte| usize::from(*byte) == number), "record {number}");
    }
}
