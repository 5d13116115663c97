//! The Kinesis source through the real SDK client, against the local model, in virtual time.

#![cfg(feature = "kinesis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::{Client, Config};
use kcl_core::model::{SequenceNumber, ShardId};
use kcl_core::source::kinesis::{KinesisStream, PollingConfig};
use kcl_core::source::{ShardReader, SourceErrorKind, StartFrom, StreamSource};
use kcl_core::{Entropy, TokioClock};
use kcl_local::client::InProcessClient;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::kinesis::{Kinesis, Limits, NewRecord};
use kcl_local::services::Services;
use kcl_local::wire::Service;
use tokio::time::{Instant, sleep, timeout};

const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";

/// A model with one stream, and what stands between it and the source.
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
        Self { kinesis, faults: Faults::seeded(7), base, began: Instant::now() }
    }

    fn client(&self) -> Client {
        let local = SharedHttpClient::new(InProcessClient::new(Services::new(self.kinesis.clone())));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .endpoint_url("http://in-process.invalid")
            .http_client(self.faults.wrap(local));
        Client::from_conf(config.build())
    }

    fn source_of(&self, name_or_arn: &str, seed: u64) -> KinesisStream {
        KinesisStream::new(self.client(), name_or_arn)
            .with_clock(Arc::new(TokioClock::new(self.base + self.began.elapsed())))
            .with_entropy(Entropy::seeded(seed))
    }

    fn source(&self) -> KinesisStream {
        self.source_of(STREAM, 1)
    }

    /// A source that fetches few records at a time.
    fn slow_source(&self, records: u32) -> KinesisStream {
        let mut polling = PollingConfig::default();
        polling.fetch_records = records;
        self.source().with_polling(polling)
    }

    fn put(&self, count: usize) -> Vec<SequenceNumber> {
        let one = |at: usize| self.kinesis.put_record(STREAM, NewRecord::new("key", at.to_string())).unwrap();
        (0..count).map(|at| SequenceNumber::from_limbs(one(at).sequence_number.limbs())).collect()
    }

    fn calls(&self, operation: &str) -> u64 {
        self.faults.calls(Service::Kinesis, operation)
    }
}

fn failing(operation: &str, error: ApiError) -> Rule {
    Rule::on(Service::Kinesis, operation, Fault::Fail(Seen::Error(error)))
}

fn internal_failure() -> ApiError {
    ApiError::server("try again")
}

async fn open(source: &KinesisStream, from: StartFrom) -> Box<dyn ShardReader> {
    source.open(&ShardId::from(SHARD), from).await.unwrap()
}

/// Reads until `count` records have come.
async fn read(reader: &mut dyn ShardReader, count: usize) -> Vec<SequenceNumber> {
    let (start, mut read) = (Instant::now(), Vec::new());
    while read.len() < count {
        assert!(start.elapsed() < Duration::from_secs(600), "{count} records do not come: {read:?}");
        read.extend(reader.next().await.unwrap().records.iter().map(|record| record.sequence_number));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn shards_are_listed_to_the_last_page() {
    let world = World::new(2_500);
    world.faults.record_last(10);
    let shards = world.source().list_shards().await.unwrap();
    assert_eq!(shards.len(), 2_500);
    assert!(shards.windows(2).all(|pair| pair[0].hash_key_range.end() + 1 == pair[1].hash_key_range.start()));
    let pages = world.faults.recorded();
    assert_eq!(pages.len(), 3);
    for page in &pages[1..] {
        let body = str::from_utf8(&page.body).unwrap();
        assert!(body.contains("NextToken") && !body.contains("Stream"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_whose_token_expires_starts_over_and_gives_up_at_last() {
    let world = World::new(1_500);
    let expired = || {
        let error = ApiError::client("ExpiredNextTokenException", "too old");
        failing("ListShards", error).when_body_contains("NextToken")
    };
    let once = world.faults.add(expired().once());
    assert_eq!(world.source().list_shards().await.unwrap().len(), 1_500);
    assert_eq!(once.hits(), 1);
    let always = world.faults.add(expired());
    let error = world.source().list_shards().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(always.hits(), 4);
}

#[tokio::test(start_paused = true)]
async fn failed_listings_are_told_by_their_kind() {
    let world = World::new(1);
    for (error, kind) in [
        (errors::limit_exceeded(), SourceErrorKind::Throttled),
        (internal_failure(), SourceErrorKind::Unavailable),
        (errors::access_denied(), SourceErrorKind::Denied),
        (errors::resource_not_found(), SourceErrorKind::StreamMissing),
    ] {
        world.faults.add(failing("ListShards", error).once());
        let error = world.source().list_shards().await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, "ListShards"), "{error}");
        assert!(error.resource().contains(STREAM), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_carries_the_arn() {
    let world = World::new(1);
    let arn = world.kinesis.describe_stream_summary(STREAM).unwrap().arn;
    let expected = world.put(1);
    for name_or_arn in [STREAM, &arn] {
        let source = world.source_of(name_or_arn, 1);
        assert_eq!(source.name(), STREAM);
        assert_eq!(source.identity().await.unwrap().arn, arn);
        world.faults.record_last(10);
        source.identity().await.unwrap();
        source.list_shards().await.unwrap();
        let mut reader = open(&source, StartFrom::TrimHorizon).await;
        assert_eq!(read(reader.as_mut(), 1).await, expected);
        let recorded = world.faults.recorded();
        assert_eq!(recorded.len(), 4);
        for call in recorded {
            let body = str::from_utf8(&call.body).unwrap();
            assert!(body.contains(&format!("\"StreamARN\":\"{arn}\"")), "{:?} {body}", call.target);
            assert!(!body.contains("StreamName"), "{:?} {body}", call.target);
        }
        world.faults.record_last(0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_read_by_name_before_its_arn_is_known() {
    let world = World::new(1);
    let expected = world.put(3);
    let mut reader = open(&world.source(), StartFrom::TrimHorizon).await;
    assert_eq!(read(reader.as_mut(), 3).await, expected);
    assert_eq!(world.calls("DescribeStreamSummary"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_refused_without_a_call() {
    let world = World::new(1);
    let source = world.source_of("arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:1", 1);
    for error in [
        source.identity().await.unwrap_err(),
        source.list_shards().await.unwrap_err(),
        source.open(&SHARD.into(), StartFrom::Latest).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), SourceErrorKind::Misconfigured);
        assert!(error.to_string().contains("a part of a stream"), "{error}");
    }
    assert!(world.faults.all_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_start_is_where_it_says() {
    let world = World::new(1);
    let source = world.source();
    let old = world.put(2);
    sleep(Duration::from_secs(10)).await;
    let since = world.kinesis.clock().now();
    let new = world.put(2);
    let all = [old.clone(), new.clone()].concat();
    for (from, expected) in [
        (StartFrom::TrimHorizon, &all[..]),
        (StartFrom::AtTimestamp(since), &all[2..]),
        (StartFrom::AtSequence(all[1]), &all[1..]),
        (StartFrom::AfterSequence(all[1]), &all[2..]),
    ] {
        let mut reader = open(&source, from).await;
        assert_eq!(read(reader.as_mut(), expected.len()).await, expected, "{from:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_22_expired_iterators_leave_neither_gap_nor_duplicate() {
    let world = World::new(1);
    let expected = world.put(100);
    let mut reader = open(&world.slow_source(10), StartFrom::TrimHorizon).await;
    let mut records = Vec::new();
    while records.len() < expected.len() {
        records.extend(read(reader.as_mut(), 10).await);
        world.kinesis.expire_iterators(STREAM).unwrap();
    }
    assert_eq!(records, expected);
    assert_eq!(world.calls("GetShardIterator"), 10);
}

#[tokio::test(start_paused = true)]
async fn incident_20_a_pause_longer_than_an_iterator_lives_costs_one_new_iterator_and_no_failure() {
    let world = World::new(1);
    let expected = world.put(20);
    let mut reader = open(&world.slow_source(10), StartFrom::TrimHorizon).await;
    let mut records = read(reader.as_mut(), 10).await;
    sleep(Duration::from_secs(600)).await;
    let (before, batch) = (world.calls("GetRecords"), reader.next().await.unwrap());
    records.extend(batch.records.iter().map(|record| record.sequence_number));
    assert_eq!(records, expected);
    assert_eq!((world.calls("GetRecords") - before, world.calls("GetShardIterator")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn incident_22_failures_that_pass_are_absorbed_in_order() {
    let world = World::new(1);
    let expected = world.put(200);
    let mut hits = Vec::new();
    for operation in ["GetRecords", "GetShardIterator"] {
        for seen in [
            Seen::Error(errors::provisioned_throughput_exceeded()),
            Seen::Error(internal_failure()),
            Seen::Error(errors::kms_throttling()),
            Seen::Error(errors::expired_iterator()),
            Seen::Refused,
            Seen::Reset,
        ] {
            let fault = Fault::Fail(seen);
            hits.push(world.faults.add(Rule::on(Service::Kinesis, operation, fault).with_probability(0.07)));
        }
    }
    let mut reader = open(&world.slow_source(2), StartFrom::TrimHorizon).await;
    assert_eq!(read(reader.as_mut(), 200).await, expected);
    assert!(hits.iter().map(|rule| rule.hits()).sum::<u64>() > 30);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shows_life_and_its_failures_and_ends_without_a_gap() {
    let world = World::new(1);
    let mut reader = open(&world.source(), StartFrom::TrimHorizon).await;
    reader.next().await.unwrap();
    assert!(reader.absorbed_failures().is_none());
    let outage = world.faults.add(failing("GetRecords", internal_failure()));
    let expected = world.put(5);
    let (start, mut counts) = (Instant::now(), vec![0]);
    while start.elapsed() < Duration::from_secs(120) {
        let called = Instant::now();
        assert_eq!(reader.next().await.unwrap().records, []);
        assert!(called.elapsed() <= Duration::from_secs(5), "{:?}", called.elapsed());
        let (count, latest) = reader.absorbed_failures().unwrap();
        assert_eq!((latest.kind(), latest.operation()), (SourceErrorKind::Unavailable, "GetRecords"));
        counts.push(count);
    }
    assert!(counts.is_sorted() && counts.last() > Some(&20), "{counts:?}");
    assert!(outage.hits() < 80, "calls are spaced out: {}", outage.hits());
    outage.switch_off();
    assert_eq!(read(reader.as_mut(), 5).await, expected);
    assert!(reader.absorbed_failures().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_given_up() {
    let world = World::new(1);
    let expected = world.put(1);
    let hang = Rule::on(Service::Kinesis, "GetRecords", Fault::Fail(Seen::Hang));
    let hang = world.faults.add(hang.calls(1..=2));
    let (start, mut reader) = (Instant::now(), open(&world.source(), StartFrom::TrimHorizon).await);
    assert_eq!(read(reader.as_mut(), 1).await, expected);
    assert_eq!(hang.hits(), 2);
    assert!(start.elapsed() < Duration::from_secs(33), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_last_page_of_a_closed_shard_names_the_children() {
    let world = World::new(2);
    let expected = world.put(5).len();
    world.kinesis.merge_shards(STREAM, SHARD, "shardId-000000000001").unwrap();
    let source = world.source();
    let mut records = 0;
    for shard in ["shardId-000000000000", "shardId-000000000001"] {
        let mut reader = source.open(&shard.into(), StartFrom::TrimHorizon).await.unwrap();
        let end = loop {
            let batch = reader.next().await.unwrap();
            records += batch.records.len();
            if let Some(end) = batch.end {
                break end;
            }
        };
        let [child] = &end.children[..] else { panic!("one child: {end:?}") };
        assert_eq!(child.id.as_str(), "shardId-000000000002");
        assert_eq!(child.parents, [SHARD.into(), "shardId-000000000001".into()]);
        let again = reader.next().await.unwrap();
        assert_eq!((again.records, again.end), (Vec::new(), Some(end)));
    }
    assert_eq!(records, expected);
}

#[tokio::test(start_paused = true)]
async fn not_found_is_no_end_until_the_listing_agrees() {
    let world = World::new(1);
    let expected = world.put(20);
    for operation in ["GetRecords", "GetShardIterator"] {
        let listings = world.calls("ListShards");
        let rule = world.faults.add(failing(operation, errors::resource_not_found()).calls(1..=3));
        let mut reader = open(&world.slow_source(10), StartFrom::TrimHorizon).await;
        assert_eq!(read(reader.as_mut(), 20).await, expected);
        assert_eq!((rule.hits(), world.calls("ListShards") - listings), (3, 3));
    }
    let source = world.source();
    let mut nowhere = source.open(&"shardId-000000000009".into(), StartFrom::TrimHorizon).await.unwrap();
    let error = nowhere.next().await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::ShardMissing, "{error}");
    assert!(error.to_string().contains("shardId-000000000009"), "{error}");
    let mut reader = open(&source, StartFrom::TrimHorizon).await;
    reader.next().await.unwrap();
    world.kinesis.delete_stream(STREAM).unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::StreamMissing, "{error}");
    assert_eq!(source.identity().await.unwrap_err().kind(), SourceErrorKind::StreamMissing);
}

#[tokio::test(start_paused = true)]
async fn what_waiting_cannot_cure_is_returned_at_a_measured_pace() {
    let world = World::new(1);
    let source = world.source();
    let kms = ApiError::client("KMSAccessDeniedException", "the key is not yours");
    for (operation, error) in [
        ("GetShardIterator", errors::access_denied()),
        ("GetRecords", errors::access_denied()),
        ("GetRecords", kms),
    ] {
        let rule = world.faults.add(failing(operation, error));
        let (start, mut reader) = (Instant::now(), open(&source, StartFrom::TrimHorizon).await);
        for _ in 0..10 {
            let error = loop {
                if let Err(error) = reader.next().await {
                    break error;
                }
            };
            assert_eq!((error.kind(), error.operation()), (SourceErrorKind::Denied, operation));
            assert!(error.resource().contains(SHARD), "{error}");
        }
        assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
        rule.switch_off();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequence_number_of_another_shard_is_an_unknown_position() {
    let world = World::new(1);
    for from in [StartFrom::AtSequence(77.into()), StartFrom::AfterSequence(77.into())] {
        let error = open(&world.source(), from).await.next().await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::PositionUnknown, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_iterator_refused_once_is_replaced_and_refused_again_is_an_error() {
    let world = World::new(1);
    let expected = world.put(1);
    let refuse = || failing("GetRecords", ApiError::client("InvalidArgumentException", "mangled"));
    world.faults.add(refuse().once());
    let mut reader = open(&world.source(), StartFrom::TrimHorizon).await;
    assert_eq!(read(reader.as_mut(), 1).await, expected);
    world.faults.add(refuse());
    assert_eq!(reader.next().await.unwrap_err().kind(), SourceErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn latest_does_not_jump_over_what_was_put_since_the_opening() {
    let world = World::new(1);
    let source = world.source();
    world.put(3);
    sleep(Duration::from_secs(10)).await;

    let mut late = open(&source, StartFrom::Latest).await;
    sleep(Duration::from_secs(10)).await;
    let mut expected = world.put(2);
    assert_eq!(read(late.as_mut(), 2).await, expected, "the first call comes late");

    sleep(Duration::from_secs(10)).await;
    let outage = world.faults.add(failing("GetShardIterator", internal_failure()));
    let mut hindered = open(&source, StartFrom::Latest).await;
    assert_eq!(hindered.next().await.unwrap().records, []);
    expected = world.put(2);
    outage.switch_off();
    assert_eq!(read(hindered.as_mut(), 2).await, expected, "the first calls fail");

    sleep(Duration::from_secs(10)).await;
    let mut expiring = open(&source, StartFrom::Latest).await;
    assert_eq!(expiring.next().await.unwrap().records, []);
    expected = world.put(2);
    world.kinesis.expire_iterators(STREAM).unwrap();
    assert_eq!(read(expiring.as_mut(), 2).await, expected, "the iterator expires");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_anywhere_loses_and_repeats_nothing() {
    for seed in 0..20 {
        let world = World::new(1);
        let expected = world.put(60);
        for operation in ["GetRecords", "GetShardIterator"] {
            let slow = Fault::DelayAnswer(Duration::from_millis(40));
            world.faults.add(Rule::on(Service::Kinesis, operation, slow));
        }
        world.faults.add(failing("GetRecords", internal_failure()).with_probability(0.1));
        world.faults.add(failing("GetRecords", errors::expired_iterator()).with_probability(0.1));
        let mut reader = open(&world.slow_source(3), StartFrom::TrimHorizon).await;
        let (entropy, start, mut records) = (Entropy::seeded(seed), Instant::now(), Vec::new());
        while records.len() < expected.len() {
            assert!(start.elapsed() < Duration::from_secs(600), "seed {seed}: the records do not come");
            let patience = Duration::from_millis(entropy.below(500));
            if let Ok(batch) = timeout(patience, reader.next()).await {
                records.extend(batch.unwrap().records.iter().map(|record| record.sequence_number));
            }
        }
        assert_eq!(records, expected, "seed {seed}");
        let most = start.elapsed().as_secs() * 5 + 5;
        assert!(world.calls("GetRecords") <= most, "seed {seed}: {} calls", world.calls("GetRecords"));
    }
}

#[tokio::test(start_paused = true)]
async fn large_answers_are_paid_for_before_the_next_call() {
    let world = World::new(1);
    world.kinesis.configure(|options| options.limits.read_bytes = Limits::aws().read_bytes);
    let payload = vec![0u8; (1 << 20) - 10];
    for _ in 0..40 {
        world.kinesis.put_record(STREAM, NewRecord::new("key", payload.clone())).unwrap();
    }
    let (start, mut reader) = (Instant::now(), open(&world.source(), StartFrom::TrimHorizon).await);
    assert_eq!(read(reader.as_mut(), 40).await.len(), 40);
    let seconds = start.elapsed().as_secs();
    assert!((15..=25).contains(&seconds), "{seconds}");
    assert!(world.calls("GetRecords") <= 6, "no call was refused: {}", world.calls("GetRecords"));
}

#[tokio::test(start_paused = true)]
async fn alone_at_the_tip_a_record_waits_a_tenth_of_a_second() {
    let world = World::new(1);
    world.kinesis.configure(|options| options.limits = Limits::aws());
    let mut reader = open(&world.source(), StartFrom::Latest).await;
    let (start, mut waits) = (Instant::now(), Vec::new());
    let producer = async {
        let entropy = Entropy::seeded(3);
        for _ in 0..300 {
            sleep(entropy.jitter(Duration::from_millis(217))).await;
            world.put(1);
        }
    };
    let consumer = async {
        while waits.len() < 300 {
            assert!(start.elapsed() < Duration::from_secs(600), "the records do not come");
            let batch = reader.next().await.unwrap();
            assert!(reader.absorbed_failures().is_none(), "the service's limit is kept");
            let now = world.kinesis.clock().now();
            let wait = |arrival: SystemTime| now.duration_since(arrival).unwrap_or_default();
            waits.extend(batch.records.iter().filter_map(|record| record.arrival).map(wait));
        }
    };
    tokio::join!(producer, consumer);
    let rate = world.calls("GetRecords") as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let (median, last) = (waits[150], waits[299]);
    assert!((4.5..=5.0).contains(&rate), "{rate} calls/s");
    assert!(
        median <= Duration::from_millis(120) && last <= Duration::from_millis(230),
        "{median:?} {last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn incident_22_three_applications_share_a_shard() {
    let world = World::new(1);
    world.kinesis.configure(|options| options.limits = Limits::aws());
    let window = Duration::from_secs(180);
    let poll = async |seed| {
        let source = world.source_of(STREAM, seed);
        let (start, mut answers) = (Instant::now(), 0u32);
        let mut reader = open(&source, StartFrom::TrimHorizon).await;
        while start.elapsed() < window {
            // An answer, unlike a sign of life, says how far behind it is.
            answers += u32::from(reader.next().await.unwrap().behind.is_some());
        }
        answers
    };
    let shares: [u32; 3] = tokio::join!(poll(1), poll(2), poll(3)).into();
    let all: u32 = shares.iter().sum();
    assert!(shares.iter().all(|share| share * 4 > all), "{shares:?}");
    assert!(all > 180 * 3, "the shard is used: {shares:?}");
    let refused = world.calls("GetRecords") - u64::from(all);
    assert!(refused * 5 < u64::from(all), "no storm: {refused} refused, {shares:?} answered");
}
