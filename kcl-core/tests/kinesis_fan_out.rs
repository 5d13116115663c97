//! Enhanced fan-out through the real SDK client, against the local model, in virtual time.

#![cfg(feature = "fan-out-without-tls")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::{Client, Config};
use kcl_core::model::{SequenceNumber, ShardId};
use kcl_core::source::kinesis::{
    FallbackConfig, FanOutConfig, FanOutConsumer, HttpClientFactory, KinesisStream, Retrieval,
};
use kcl_core::source::{ShardReader, SourceError, SourceErrorKind, StartFrom, StreamSource};
use kcl_core::{Entropy, TokioClock};
use kcl_local::client::InProcessClient;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Faults, Rule, Seen, StreamFault, When, errors};
use kcl_local::kinesis::{ConsumerRef, ConsumerStatus, Kinesis, Limits, NewRecord};
use kcl_local::services::Services;
use kcl_local::wire::Service;
use tokio::time::{Instant, sleep, timeout};

const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";
const SECOND: Duration = Duration::from_secs(1);

struct World {
    kinesis: Kinesis,
    faults: Faults,
    base: SystemTime,
    began: Instant,
}

impl World {
    fn new(shards: u32) -> Self {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let kinesis = Kinesis::new(Arc::new(kcl_local::clock::TokioClock::new(base)));
        kinesis.create_stream(STREAM, shards).unwrap();
        kinesis.configure(|options| options.limits = Limits::aws());
        Self { kinesis, faults: Faults::seeded(7), base, began: Instant::now() }
    }

    fn source(&self, config: FanOutConfig, seed: u64) -> KinesisStream {
        let local = SharedHttpClient::new(InProcessClient::new(Services::new(self.kinesis.clone())));
        let http = self.faults.wrap(local);
        let client = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .endpoint_url("http://in-process.invalid")
            .http_client(http.clone());
        KinesisStream::new(Client::from_conf(client.build()), STREAM)
            .with_retrieval(Retrieval::FanOut(config))
            .with_subscription_clients(HttpClientFactory::new(move || http.clone()))
            .with_clock(Arc::new(TokioClock::new(self.base + self.began.elapsed())))
            .with_entropy(Entropy::seeded(seed))
    }

    fn put(&self, count: usize) -> Vec<SequenceNumber> {
        let one = |at: usize| self.kinesis.put_record(STREAM, NewRecord::new("key", at.to_string())).unwrap();
        (0..count).map(|at| SequenceNumber::from_limbs(one(at).sequence_number.limbs())).collect()
    }

    fn calls(&self, operation: &str) -> u64 {
        self.faults.calls(Service::Kinesis, operation)
    }

    fn stream_arn(&self) -> String {
        self.kinesis.describe_stream_summary(STREAM).unwrap().arn
    }

    fn consumer_is_there(&self) -> bool {
        let arn = self.stream_arn();
        self.kinesis.describe_stream_consumer(ConsumerRef::named(&arn, "app")).is_ok()
    }
}

fn named() -> FanOutConfig {
    FanOutConfig::new(FanOutConsumer::Named("app".into()))
}

fn failing(operation: &str, error: ApiError) -> Rule {
    Rule::on(Service::Kinesis, operation, Fault::Fail(Seen::Error(error)))
}

async fn open(source: &KinesisStream, from: StartFrom) -> Box<dyn ShardReader> {
    source.open(&ShardId::from(SHARD), from).await.unwrap()
}

/// Reads until `count` records have come.
async fn read(reader: &mut dyn ShardReader, count: usize) -> Vec<SequenceNumber> {
    let (start, mut read) = (Instant::now(), Vec::new());
    while read.len() < count {
        assert!(start.elapsed() < SECOND * 600, "{count} records do not come: {read:?}");
        read.extend(reader.next().await.unwrap().records.iter().map(|record| record.sequence_number));
    }
    read
}

/// Reads until something is reported.
async fn error(reader: &mut dyn ShardReader) -> SourceError {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < SECOND * 600, "no error comes");
        if let Err(error) = reader.next().await {
            return error;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_subscriptions_loses_nothing_and_doubles_nothing() {
    let world = World::new(1);
    let source = world.source(named(), 1);
    let mut reader = open(&source, StartFrom::TrimHorizon).await;
    let (start, mut expected, mut got) = (Instant::now(), Vec::new(), Vec::new());
    let mut longest = Duration::ZERO;
    while start.elapsed() < SECOND * 3_600 {
        expected.extend(world.put(1));
        let put = Instant::now();
        got.extend(read(reader.as_mut(), expected.len() - got.len()).await);
        longest = longest.max(put.elapsed());
        sleep(Duration::from_millis(1_700)).await;
    }
    assert_eq!(got, expected);
    assert!(longest < SECOND, "{longest:?}");
    assert!(reader.absorbed_failures().is_none());
    assert!((12..=14).contains(&world.calls("SubscribeToShard")), "{}", world.calls("SubscribeToShard"));
    assert_eq!((world.calls("RegisterStreamConsumer"), world.calls("GetRecords")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn twenty_workers_that_start_at_once_register_one_consumer_and_all_read() {
    let world = World::new(40);
    world.kinesis.configure(|options| options.consumer_create_delay = SECOND * 7);
    let sources: Vec<_> = (0..20).map(|seed| world.source(named(), seed)).collect();
    let mut readers = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        for shard in [2 * at, 2 * at + 1] {
            let shard = ShardId::from(format!("shardId-{shard:012}"));
            readers.push(source.open(&shard, StartFrom::TrimHorizon).await.unwrap());
        }
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mut reader in readers {
        tasks.spawn(async move {
            loop {
                // The service said something, and not the reader that it waits.
                if reader.next().await.unwrap().behind.is_some() {
                    return;
                }
            }
        });
    }
    timeout(SECOND * 60, tasks.join_all()).await.expect("all subscribe");
    let described = world.calls("DescribeStreamConsumer");
    assert!(described < 400, "{described} looks of twenty workers in some seconds");
    assert!(world.calls("RegisterStreamConsumer") <= 20);
    assert!(world.consumer_is_there());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_comes_with_its_children_or_without() {
    for hidden in [false, true] {
        let world = World::new(1);
        world.kinesis.configure(|options| options.subscriptions.hide_children = hidden);
        let expected = world.put(3);
        let source = world.source(named(), 1);
        let mut reader = open(&source, StartFrom::AtSequence(expected[1])).await;
        assert_eq!(read(reader.as_mut(), 2).await, expected[1..]);
        world.kinesis.split_shard(STREAM, SHARD, 1 << 127).unwrap();
        let end = loop {
            if let Some(end) = reader.next().await.unwrap().end {
                break end;
            }
        };
        assert_eq!(end.children.len(), if hidden { 0 } else { 2 });
        assert_eq!(reader.next().await.unwrap().end, Some(end));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_service_answers_is_absorbed_or_reported() {
    use SourceErrorKind::{Denied, Invalid};
    for (answer, reported) in [
        (errors::limit_exceeded(), None),
        (errors::internal_server_error(), None),
        (errors::service_unavailable(), None),
        (ApiError::client("ResourceInUseException", "taken"), None),
        (errors::resource_not_found(), None),
        (ApiError::client("KMSThrottlingException", "slow"), None),
        (ApiError::client("KMSDisabledException", "off"), Some(Denied)),
        (ApiError::client("KMSAccessDeniedException", "no"), Some(Denied)),
        (ApiError::client("KMSInvalidStateException", "no"), Some(Denied)),
        (ApiError::client("KMSNotFoundException", "no"), Some(Denied)),
        (ApiError::client("AccessDeniedException", "no"), Some(Denied)),
        (ApiError::client("ValidationException", "no"), Some(Invalid)),
    ] {
        let world = World::new(1);
        let code = answer.code.clone();
        world.faults.add(failing("SubscribeToShard", answer).once());
        let expected = world.put(3);
        let source = world.source(named(), 1);
        let mut reader = open(&source, StartFrom::TrimHorizon).await;
        if let Some(kind) = reported {
            let error = error(reader.as_mut()).await;
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            for part in ["SubscribeToShard", "stream orders, shard shardId-000000000000", &code] {
                assert!(text.contains(part), "{part} is missing in {text:?}");
            }
        }
        let start = Instant::now();
        assert_eq!(read(reader.as_mut(), 3).await, expected, "{code}");
        assert!(start.elapsed() < SECOND * 6, "{code}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_vanishes_is_registered_again_or_reported_by_how_it_was_named() {
    let world = World::new(1);
    let source = world.source(named(), 1);
    let mut by_name = open(&source, StartFrom::TrimHorizon).await;
    let mut expected = world.put(1);
    assert_eq!(read(by_name.as_mut(), 1).await, expected);
    let stream = world.stream_arn();
    let arn = world.kinesis.describe_stream_consumer(ConsumerRef::named(&stream, "app")).unwrap().arn;
    world.kinesis.deregister_stream_consumer(arn.as_str()).unwrap();
    expected = world.put(2);
    assert_eq!(read(by_name.as_mut(), 2).await, expected);
    assert!(world.consumer_is_there());
    drop(by_name);

    let by_arn = world.source(FanOutConfig::new(FanOutConsumer::Arn(arn)), 2);
    let mut reader = open(&by_arn, StartFrom::TrimHorizon).await;
    let error = error(reader.as_mut()).await;
    assert_eq!(error.kind(), SourceErrorKind::ConsumerMissing);
    assert!(error.to_string().contains("register it and give its new ARN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn stream_and_shard_that_are_gone_are_told_apart() {
    let world = World::new(1);
    let source = world.source(named(), 1);
    let unknown = ShardId::from("shardId-000000000009");
    let mut reader = source.open(&unknown, StartFrom::TrimHorizon).await.unwrap();
    assert_eq!(error(reader.as_mut()).await.kind(), SourceErrorKind::ShardMissing);
    let mut reader = open(&source, StartFrom::TrimHorizon).await;
    reader.next().await.unwrap();
    let stream = world.stream_arn();
    world.kinesis.deregister_stream_consumer(ConsumerRef::named(&stream, "app")).unwrap();
    world.kinesis.delete_stream(STREAM).unwrap();
    assert_eq!(error(reader.as_mut()).await.kind(), SourceErrorKind::StreamMissing);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_sequence_number_is_reported() {
    let world = World::new(1);
    let source = world.source(named(), 1);
    let mut reader = open(&source, StartFrom::AfterSequence(7.into())).await;
    let error = error(reader.as_mut()).await;
    assert_eq!(error.kind(), SourceErrorKind::PositionUnknown);
    assert!(error.to_string().contains("correct the checkpoint"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_registered_for_an_arn_and_nothing_deregistered_but_what_is_managed() {
    let world = World::new(1);
    let stream = world.stream_arn();
    let arn = world.kinesis.register_stream_consumer(stream.as_str(), "app").unwrap().arn;
    let expected = world.put(1);
    let by_arn = world.source(FanOutConfig::new(FanOutConsumer::Arn(arn)), 1);
    let mut reader = open(&by_arn, StartFrom::TrimHorizon).await;
    assert_eq!(read(reader.as_mut(), 1).await, expected);
    assert_eq!(world.calls("RegisterStreamConsumer") + world.calls("DescribeStreamConsumer"), 0);
    for source in [by_arn, world.source(named(), 2)] {
        assert_eq!(source.deregister_consumer().await.unwrap_err().kind(), SourceErrorKind::Misconfigured);
    }
    assert!(world.consumer_is_there());
    let managed = world.source(FanOutConfig::new(FanOutConsumer::Managed("app".into())), 3);
    managed.deregister_consumer().await.unwrap();
    managed.deregister_consumer().await.unwrap();
    assert!(!world.consumer_is_there());
    let polled = managed.with_retrieval(Retrieval::default());
    assert_eq!(polled.deregister_consumer().await.unwrap_err().kind(), SourceErrorKind::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn registration_that_fails_is_tried_again_ever_more_slowly_by_one_reader_at_a_time() {
    let world = World::new(10);
    world.faults.add(failing("RegisterStreamConsumer", errors::limit_exceeded()));
    let source = world.source(named(), 1);
    let mut tasks = tokio::task::JoinSet::new();
    for shard in 0..10 {
        let shard = ShardId::from(format!("shardId-{shard:012}"));
        let mut reader = source.open(&shard, StartFrom::TrimHorizon).await.unwrap();
        tasks.spawn(async move {
            loop {
                let batch = reader.next().await.unwrap();
                if batch.behind.is_some() {
                    return;
                }
            }
        });
    }
    sleep(SECOND * 300).await;
    let calls = world.calls("RegisterStreamConsumer");
    assert!((5..60).contains(&calls), "{calls} calls in five minutes");
    world.faults.clear();
    timeout(SECOND * 60, tasks.join_all()).await.expect("all subscribe");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_over_within_the_five_seconds_waits_for_them() {
    let world = World::new(1);
    let (old, new) = (world.source(named(), 1), world.source(named(), 2));
    let mut first = open(&old, StartFrom::TrimHorizon).await;
    let mut expected = world.put(1);
    assert_eq!(read(first.as_mut(), 1).await, expected);
    drop(first);
    let start = Instant::now();
    let mut second = open(&new, StartFrom::AfterSequence(expected[0])).await;
    expected = world.put(1);
    assert_eq!(read(second.as_mut(), 1).await, expected);
    assert!(start.elapsed() < SECOND * 8, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_subscribed_to_is_polled_if_so_told_and_subscribed_to_again() {
    let world = World::new(1);
    let mut config = named();
    config.fallback = Some(FallbackConfig::default());
    let source = world.source(config, 1);
    let mut reader = open(&source, StartFrom::TrimHorizon).await;
    let mut expected = world.put(2);
    assert_eq!(read(reader.as_mut(), 2).await, expected);
    assert!(reader.fallback().is_none());
    world.faults.add(failing("SubscribeToShard", ApiError::client("AccessDeniedException", "no")));
    let stream = world.stream_arn();
    let arn = world.kinesis.describe_stream_consumer(ConsumerRef::named(&stream, "app")).unwrap();
    assert_eq!(arn.status, ConsumerStatus::Active);
    // Another takes the subscription over, so that it must be opened again.
    sleep(SECOND * 6).await;
    let start = kcl_local::kinesis::IteratorStart::Latest;
    drop(world.kinesis.subscribe_to_shard(arn.arn.as_str(), SHARD, &start).unwrap());
    for _ in 0..50 {
        expected = world.put(3);
        assert_eq!(read(reader.as_mut(), 3).await, expected);
        sleep(SECOND * 4).await;
    }
    assert_eq!(reader.fallback().unwrap().kind(), SourceErrorKind::Denied);
    world.faults.clear();
    let start = Instant::now();
    while reader.fallback().is_some() {
        assert!(start.elapsed() < SECOND * 120);
        expected = world.put(1);
        assert_eq!(read(reader.as_mut(), 1).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_break_at_any_frame_lose_nothing_and_double_nothing() {
    let seconds = |seconds: u64| SECOND * u32::try_from(seconds).unwrap();
    for (fault, limit) in [
        (StreamFault::BlackHole, 15 + 6),
        (StreamFault::Reset, 8),
        (StreamFault::End, 8),
        (StreamFault::Truncate, 8),
        (StreamFault::Corrupt, 8),
        (StreamFault::Delay(SECOND), 8),
        (StreamFault::Exception(errors::resource_in_use()), 8),
        (StreamFault::Exception(errors::resource_not_found()), 8),
        (StreamFault::Exception(errors::internal_failure()), 8),
        (StreamFault::Exception(errors::kms_throttling()), 8),
    ] {
        // The initial answer, the first event, one after some, one of the idle shard.
        for frame in [0, 1, 3, 5] {
            let world = World::new(1);
            world.kinesis.configure(|options| options.subscriptions.event_records = 2);
            let fault = Fault::Stream(When::AfterFrames(frame), fault.clone());
            world.faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", fault.clone()).once());
            let mut expected = world.put(8);
            let source = world.source(named(), 1);
            let mut reader = open(&source, StartFrom::TrimHorizon).await;
            let start = Instant::now();
            let mut got = read(reader.as_mut(), 8).await;
            assert!(start.elapsed() <= seconds(limit), "{fault:?}: {:?}", start.elapsed());
            // Time for a heartbeat that is struck.
            let _ = timeout(SECOND * 7, async {
                loop {
                    got.extend(
                        reader.next().await.unwrap().records.iter().map(|record| record.sequence_number),
                    );
                }
            })
            .await;
            expected.extend(world.put(3));
            let start = Instant::now();
            got.extend(read(reader.as_mut(), 3).await);
            assert!(start.elapsed() <= seconds(limit), "{fault:?}: {:?}", start.elapsed());
            assert_eq!(got, expected, "{fault:?}");
            sleep(SECOND).await;
            assert_eq!(world.faults.streams(Service::Kinesis, "SubscribeToShard").open, 1, "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_that_is_struck_comes_all_the_same() {
    for fault in [StreamFault::BlackHole, StreamFault::Reset, StreamFault::Truncate, StreamFault::Corrupt] {
        let world = World::new(1);
        let expected = world.put(2);
        world.kinesis.split_shard(STREAM, SHARD, 1 << 127).unwrap();
        let rule = Fault::Stream(When::AfterFrames(1), fault.clone());
        world.faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", rule).once());
        let source = world.source(named(), 1);
        let mut reader = open(&source, StartFrom::TrimHorizon).await;
        let (mut got, start) = (Vec::new(), Instant::now());
        let end = loop {
            let batch = reader.next().await.unwrap();
            got.extend(batch.records.iter().map(|record| record.sequence_number));
            if let Some(end) = batch.end {
                break end;
            }
        };
        assert_eq!((got, end.children.len()), (expected, 2), "{fault:?}");
        assert!(start.elapsed() < SECOND * 21, "{fault:?}: {:?}", start.elapsed());
    }
}
