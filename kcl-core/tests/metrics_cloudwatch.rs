//! The CloudWatch sink over the real SDK, against a capture that can be made to fail, in virtual time.

#![cfg(feature = "cloudwatch")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_cloudwatch::{Client, Config};
use kcl_core::metrics::cloudwatch::{CloudWatchBuilder, CloudWatchSink};
use kcl_core::metrics::{EnabledDimensions, FetchCall, MetricEvent, MetricsLevel, MetricsSink, Origin};
use kcl_core::{ErrorKind, TokioClock};
use kcl_local::client::InProcessClient;
use kcl_local::clock::TokioClock as LocalClock;
use kcl_local::cloudwatch::{CloudWatch, Datum};
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::kinesis::Kinesis;
use kcl_local::services::Services;
use kcl_local::wire::Service;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

const PUT: &str = "PutMetricData";

fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// A sink, what it publishes to, and what befalls its calls.
fn sink(change: impl FnOnce(CloudWatchBuilder) -> CloudWatchBuilder) -> (CloudWatchSink, CloudWatch, Faults) {
    let faults = Faults::seeded(0);
    let capture = CloudWatch::new();
    let services =
        Services::new(Kinesis::new(Arc::new(LocalClock::new(epoch())))).with_cloudwatch(capture.clone());
    let http = faults.wrap(SharedHttpClient::new(InProcessClient::new(services)));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .http_client(http);
    let builder = CloudWatchSink::builder(Client::from_conf(config.build()), "orders-app");
    (change(builder.clock(TokioClock::new(epoch()))).build().unwrap(), capture, faults)
}

/// Runs a sink beside `steps` and ends it after them; returns how long the end took.
async fn with<T>(sink: &CloudWatchSink, steps: impl Future<Output = T>) -> (T, Duration) {
    let (end, ended) = oneshot::channel::<()>();
    let steps = async {
        let value = steps.await;
        drop(end);
        (value, Instant::now())
    };
    let ending = async {
        let _ = ended.await;
    };
    let (_, (value, at)) = tokio::join!(sink.run(Box::pin(ending)), steps);
    (value, at.elapsed())
}

fn origin() -> Origin {
    Origin::new("orders-app", "worker-1")
}

fn total(data: &[Datum], name: &str) -> (f64, f64) {
    let of = data.iter().filter(|datum| datum.name == name);
    let values = of.flat_map(|datum| datum.values.iter().zip(&datum.counts));
    values.fold((0.0, 0.0), |(count, sum), (value, times)| (count + times, sum + value * times))
}

#[tokio::test(start_paused = true)]
async fn values_are_published_as_distributions_under_the_kcls_names() {
    let (sink, capture, faults) = sink(|builder| builder);
    let shard = "shardId-000000000000".into();
    let (first, _) = with(&sink, async {
        for millis in [5, 5, 7] {
            let took = Duration::from_millis(millis);
            sink.record(
                &origin(),
                &MetricEvent::Delivered { shard: &shard, records: 10, bytes: 500, took, ok: true },
            );
        }
        sink.record(&origin(), &MetricEvent::Heartbeat { took: Duration::from_millis(3), ok: true });
        sleep(Duration::from_millis(9_999)).await;
        assert!(capture.datums().is_empty(), "every ten seconds");
        sleep(Duration::from_millis(2)).await;
        capture.take()
    })
    .await;
    assert_eq!(faults.calls(Service::CloudWatch, PUT), 1, "and nothing when there is nothing");
    let of = |name: &str, operation: &str| {
        let found = first.iter().find(|d| d.name == name && d.dimensions[0].1 == operation).unwrap();
        (found.dimensions.clone(), found.values.clone(), found.counts.clone(), found.unit.clone().unwrap())
    };
    let operation = |operation: &str| ("Operation".to_owned(), operation.to_owned());
    let expected = vec![operation("ProcessTask"), ("ShardId".to_owned(), "shardId-000000000000".to_owned())];
    let found = of("RecordProcessor.processRecords.Time", "ProcessTask");
    assert_eq!(found, (expected.clone(), vec![5.0, 7.0], vec![2.0, 1.0], "Milliseconds".into()));
    assert_eq!(
        of("RecordsProcessed", "ProcessTask"),
        (expected.clone(), vec![10.0], vec![3.0], "Count".into())
    );
    assert_eq!(of("DataBytesProcessed", "ProcessTask"), (expected, vec![500.0], vec![3.0], "Bytes".into()));
    let expected = vec![operation("RenewAllLeases"), ("WorkerIdentifier".to_owned(), "worker-1".to_owned())];
    assert_eq!(of("Success", "RenewAllLeases"), (expected, vec![1.0], vec![1.0], "Count".into()));
    assert!(first.iter().all(|d| d.namespace == "orders-app"));
    assert!(first.iter().all(|d| d.timestamp == Some(epoch() + Duration::from_secs(10))));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_data_go_in_calls_within_the_limits_and_all_arrive() {
    let (sink, capture, faults) = sink(|builder| builder);
    let mut expected = (0.0, 0.0);
    let (_, took) = with(&sink, async {
        for shard in 0..300 {
            let shard = format!("shardId-{shard:012}").into();
            for call in 0..200_u32 {
                let took = Duration::from_millis(u64::from(call));
                expected = (expected.0 + 1.0, expected.1 + f64::from(call));
                let call = FetchCall::GetRecords;
                sink.record(&origin(), &MetricEvent::Fetched { shard: &shard, call, took, ok: true });
            }
        }
    })
    .await;
    let data = capture.take();
    // A counter series for each shard, and 200 distinct values in two pieces of which a call takes one.
    assert_eq!(data.len(), 900);
    assert!(data.iter().all(|datum| datum.values.len() <= 150 && datum.values.len() == datum.counts.len()));
    assert_eq!(total(&data, "KinesisDataFetcher.getRecords.Time"), expected);
    assert!(faults.calls(Service::CloudWatch, PUT) <= 3, "{}", faults.calls(Service::CloudWatch, PUT));
    assert_eq!(took, Duration::ZERO, "what is left is published at the end");
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_retried_once_and_loses_nothing() {
    for seen in [
        Seen::Error(errors::throttling()),
        Seen::Error(errors::internal_server_error()),
        Seen::Refused,
        Seen::Reset,
        Seen::Hang,
    ] {
        let (sink, capture, faults) = sink(|builder| builder);
        let rule = faults.add(Rule::on(Service::CloudWatch, PUT, Fault::Fail(seen)).once());
        with(&sink, async { sink.record(&origin(), &MetricEvent::Gave) }).await;
        assert_eq!((rule.hits(), faults.calls(Service::CloudWatch, PUT)), (1, 2));
        assert_eq!(total(&capture.take(), "NumOfLeasesReassignment"), (1.0, 1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_costs_the_values_of_its_calls_and_counts_them() {
    let log = Log::default();
    // With a single dispatcher in the process, a line that another test comes to first would be switched off for all.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(log.clone());
    let (sink, capture, faults) = sink(|builder| builder);
    let denied = Fault::Fail(Seen::Error(errors::access_denied()));
    let rule = faults.add(Rule::on(Service::CloudWatch, PUT, denied));
    with(&sink, async {
        for _ in 0..6 {
            for _ in 0..10 {
                sink.record(&origin(), &MetricEvent::Gave);
            }
            sleep(Duration::from_secs(10)).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(rule.hits(), 6, "what is refused is not tried again");
        rule.switch_off();
        sleep(Duration::from_secs(10)).await;
        sink.record(&origin(), &MetricEvent::Gave);
    })
    .await;
    let data = capture.take();
    assert_eq!(total(&data, "NumOfLeasesReassignment"), (1.0, 1.0));
    let (_, dropped) = total(&data, "DataDropped");
    assert_eq!(dropped, 60.0, "those of the outage, although the counts of them were lost on the way, too");
    assert_eq!(log.count("WARN"), 1, "{:?}", log.0.lock().unwrap());
    assert_eq!(log.count("INFO"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_cloudwatch_holds_up_neither_the_recorder_nor_the_memory() {
    let (sink, capture, faults) = sink(|builder| builder.max_queue(100));
    let rule = faults.add(Rule::on(Service::CloudWatch, PUT, Fault::Fail(Seen::Hang)));
    with(&sink, async {
        for shard in 0..2_000 {
            let shard = format!("shardId-{shard}").into();
            let begun = Instant::now();
            sink.record(&origin(), &MetricEvent::Behind { shard: &shard, behind: Duration::from_secs(1) });
            assert_eq!(begun.elapsed(), Duration::ZERO);
            sleep(Duration::from_millis(20)).await;
        }
        rule.switch_off();
        sleep(Duration::from_secs(30)).await;
    })
    .await;
    let data = capture.take();
    let (arrived, _) = total(&data, "MillisBehindLatest");
    let (_, dropped) = total(&data, "DataDropped");
    assert!(dropped > 0.0 && arrived + dropped == 4_000.0, "{arrived} {dropped}");
    assert!(faults.calls(Service::CloudWatch, PUT) < 40, "one attempt at a time while it fails");
}

#[tokio::test(start_paused = true)]
async fn level_and_dimensions_are_applied() {
    let (sink, capture, _) = sink(|builder| {
        builder.level(MetricsLevel::Summary).dimensions(EnabledDimensions::parse("Operation").unwrap())
    });
    with(&sink, async {
        for shard in ["a", "b"] {
            let shard = shard.into();
            let took = Duration::from_millis(1);
            sink.record(
                &origin(),
                &MetricEvent::Fetched { shard: &shard, call: FetchCall::GetRecords, took, ok: true },
            );
            sink.record(
                &origin(),
                &MetricEvent::Delivered { shard: &shard, records: 1, bytes: 1, took, ok: true },
            );
        }
    })
    .await;
    let mut names = BTreeMap::new();
    for datum in capture.take() {
        assert_eq!(datum.dimensions, [("Operation".to_owned(), "ProcessTask".to_owned())]);
        *names.entry(datum.name.clone()).or_insert(0.0) += datum.counts.iter().sum::<f64>();
    }
    assert!(!names.contains_key("KinesisDataFetcher.getRecords.Success"));
    assert_eq!(names["RecordsProcessed"], 2.0);
}

#[test]
fn settings_that_make_no_sense_are_refused_all_at_once() {
    let client = Client::from_conf(Config::builder().behavior_version(BehaviorVersion::latest()).build());
    let error = CloudWatchSink::builder(client, "AWS/orders")
        .max_queue(0)
        .flush_interval(Duration::ZERO)
        .call_timeout(Duration::ZERO)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for part in ["AWS/ is reserved", "flush interval", "time-out", "queue"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Keeps the levels and messages that are logged.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn count(&self, level: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.starts_with(level)).count()
    }
}

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("kcl_core")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
