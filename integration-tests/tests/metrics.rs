//! Which metrics whole workers tell, in order and when things go wrong; in virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::{Client, Config};
use kcl_core::metrics::{Datum, Ending, Metric, MetricEvent, MetricsSink, Origin};
use kcl_core::source::kinesis::{
    FallbackConfig, FanOutConfig, FanOutConsumer, HttpClientFactory, KinesisStream, PollingConfig, Retrieval,
};
use kcl_core::testing::{Action, Mishap, Part, Recorder, Rule as Script, World};
use kcl_core::{
    Callback, CheckpointPolicy, Coordination, ErrorPolicy, OnError, ProcessorFailure, SchedulerBuilder,
    Settings, TokioClock,
};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::client::InProcessClient;
use kcl_local::clock::TokioClock as LocalClock;
use kcl_local::faults::{Fault, Faults, Rule, Seen, StreamFault, When, errors};
use kcl_local::kinesis::{Kinesis, NewRecord};
use kcl_local::services::Services;
use kcl_local::wire::Service;
use kpl_aggregation::Aggregator;
use md5::{Digest as _, Md5};
use tokio::time::{Instant, sleep};

const STREAM: &str = "orders";
const SECOND: Duration = Duration::from_secs(1);

/// How often and how much, by metric and by the value of its label.
type Sums = BTreeMap<(Metric, Option<&'static str>), (u64, f64)>;

/// Sums up what it is told.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<Mutex<Sums>>);

impl MetricsSink for Tally {
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>) {
        assert_eq!(origin.application, "app");
        let mut all = self.0.lock().unwrap();
        event.data(|Datum { metric, value, label, .. }| {
            for label in [None, label].into_iter().take(1 + usize::from(label.is_some())) {
                let (count, sum) = all.entry((metric, label)).or_default();
                (*count, *sum) = (*count + 1, *sum + value);
            }
        });
    }
}

impl Tally {
    fn sum(&self, metric: Metric) -> f64 {
        self.0.lock().unwrap().get(&(metric, None)).map_or(0.0, |(_, sum)| *sum)
    }

    fn of(&self, metric: Metric, label: &'static str) -> f64 {
        self.0.lock().unwrap().get(&(metric, Some(label))).map_or(0.0, |(_, sum)| *sum)
    }

    fn missing(&self, metrics: &[Metric]) -> Vec<Metric> {
        let all = self.0.lock().unwrap();
        metrics.iter().copied().filter(|metric| !all.contains_key(&(*metric, None))).collect()
    }
}

/// A stream over the real SDK, a fleet on it, and what is measured.
struct Stage {
    world: World,
    kinesis: Kinesis,
    faults: Faults,
    tally: Tally,
    processors: Recorder,
}

impl Stage {
    fn new(shards: u32, retrieval: Retrieval, change: fn(SchedulerBuilder) -> SchedulerBuilder) -> Self {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let kinesis = Kinesis::new(Arc::new(LocalClock::new(epoch)));
        kinesis.create_stream(STREAM, shards).unwrap();
        let faults = Faults::seeded(1);
        let local = SharedHttpClient::new(InProcessClient::new(Services::new(kinesis.clone())));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .http_client(faults.wrap(local.clone()));
        let client = Client::from_conf(config.build());
        let (tally, processors) = (Tally::default(), Recorder::new());
        let clock = TokioClock::new(epoch);
        let http = faults.wrap(local);
        let source = move || {
            let http = http.clone();
            KinesisStream::new(client.clone(), STREAM)
                .with_retrieval(retrieval.clone())
                .with_subscription_clients(HttpClientFactory::new(move || http.clone()))
                .with_clock(Arc::new(clock))
        };
        let (sink, app) = (tally.clone(), processors.clone());
        let world = World::over(7, source, MemoryLeaseStore::new(), move |_, builder| {
            let builder = builder.processor(app.clone()).metrics(sink.clone()).clock(clock);
            change(builder.checkpoint_policy(CheckpointPolicy::AfterBatch))
        });
        Self { world, kinesis, faults, tally, processors }
    }

    fn put(&self, records: usize) {
        for number in 0..records {
            self.kinesis.put_record(STREAM, NewRecord::new(format!("key {number}"), "payload")).unwrap();
        }
    }
}

/// What a polling worker tells however it coordinates.
const ALWAYS: &[Metric] = &[
    Metric::InitializeSuccess,
    Metric::InitializeTime,
    Metric::RecordsProcessed,
    Metric::DataBytesProcessed,
    Metric::MillisBehindLatest,
    Metric::ProcessSuccess,
    Metric::ProcessTime,
    Metric::ProcessRecordsTime,
    Metric::GetRecordsSuccess,
    Metric::GetRecordsTime,
    Metric::GetShardIteratorSuccess,
    Metric::GetShardIteratorTime,
    Metric::UpdateLeaseSuccess,
    Metric::UpdateLeaseTime,
    Metric::ApplicationMillisBehindLatest,
    Metric::ShutdownTime,
    Metric::ChildLeaseSuccess,
    Metric::ChildLeaseTime,
    Metric::SyncShardsSuccess,
    Metric::SyncCreateLeaseSuccess,
    Metric::ShardSyncSuccess,
    Metric::ShardSyncTime,
    Metric::IsLeader,
    Metric::CurrentLeases,
    Metric::RenewSuccess,
    Metric::RenewTime,
    Metric::ListLeasesSuccess,
    Metric::ListLeasesTime,
    Metric::TakeLeaseSuccess,
    Metric::TakeLeaseTime,
    Metric::TakenLeases,
    Metric::TakeLeasesSuccess,
    Metric::TakeLeasesTime,
    Metric::LeasesReassigned,
    Metric::CheckpointAge,
    Metric::ApplicationCheckpointAge,
    Metric::ShardBufferBytes,
    Metric::WorkerBufferBytes,
    Metric::TimeSinceRenewal,
    Metric::FencedShards,
    Metric::LeaseMoves,
    Metric::LeasesLost,
    Metric::HandOverTime,
    Metric::TableRequests,
    Metric::TableReadUnits,
    Metric::TableWriteUnits,
];

/// Two workers, records, a reshard, a hand-over and a deployment.
async fn a_day(stage: &mut Stage) {
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 15).await;
    stage.put(100);
    stage.world.start("beta").unwrap();
    sleep(SECOND * 60).await;
    stage.kinesis.update_shard_count(STREAM, 8).unwrap();
    sleep(SECOND * 60).await;
    stage.put(100);
    sleep(SECOND * 10).await;
    let report = stage.world.stop("beta", SECOND * 20).await.unwrap();
    assert!(report.is_clean());
    sleep(SECOND * 15).await;
    let report = stage.world.stop("alpha", SECOND * 20).await.unwrap();
    assert!(report.is_clean());
    let tally = &stage.tally;
    assert_eq!(tally.sum(Metric::InitializeSuccess), 2.0);
    assert_eq!(tally.sum(Metric::RecordsProcessed), 200.0);
    assert_eq!(tally.sum(Metric::DataBytesProcessed), 1_400.0);
    assert_eq!(tally.sum(Metric::CallbackFailures), 0.0);
    assert_eq!(tally.sum(Metric::LostLeases), 0.0, "hand-overs lose nothing");
    assert_eq!(tally.of(Metric::LeasesLost, "ended"), 4.0);
    assert_eq!(tally.sum(Metric::ChildLeaseSuccess), 8.0);
}

#[tokio::test(start_paused = true)]
async fn a_per_lease_fleet_tells_the_kcls_metrics() {
    let mut stage =
        Stage::new(4, Retrieval::default(), |builder| builder.coordination(Coordination::PerLease));
    a_day(&mut stage).await;
    assert_eq!(stage.tally.missing(ALWAYS), []);
    let own = [
        Metric::RenewLeaseSuccess,
        Metric::RenewLeaseTime,
        Metric::ExpiredLeases,
        Metric::LeaseSpillover,
        Metric::NumWorkers,
        Metric::LeasesToTake,
        Metric::NeededLeases,
        Metric::TotalLeases,
    ];
    assert_eq!(stage.tally.missing(&own), []);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_tells_the_kcls_metrics() {
    let mut stage = Stage::new(4, Retrieval::default(), |builder| builder);
    a_day(&mut stage).await;
    assert_eq!(stage.tally.missing(ALWAYS), []);
    let own = [Metric::FleetTotalLeases, Metric::FleetNumWorkers, Metric::FleetExpiredLeases];
    assert_eq!(stage.tally.missing(&own), []);
    assert_eq!(stage.tally.missing(&[Metric::RenewLeaseSuccess]), [Metric::RenewLeaseSuccess]);
}

/// Skips what failed twice.
#[derive(Debug)]
struct Skipping;

#[async_trait::async_trait]
impl ErrorPolicy for Skipping {
    fn on_error(&self, failure: &ProcessorFailure<'_>) -> OnError {
        if failure.failures > 1 { OnError::Skip } else { OnError::Retry }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_callbacks_are_counted_with_what_comes_of_them() {
    let mut stage = Stage::new(1, Retrieval::default(), |builder| builder.error_policy(Skipping));
    stage.processors.add(Script::on(Callback::ProcessRecords, Action::Fail).times(2));
    stage.processors.add(Script::on(Callback::Initialize, Action::Panic).times(1));
    stage.put(5);
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 30).await;
    let tally = &stage.tally;
    assert_eq!(tally.of(Metric::CallbackFailures, "process_records"), 2.0);
    assert_eq!(tally.of(Metric::CallbackRetries, "process_records"), 1.0);
    assert_eq!(tally.of(Metric::CallbackFailures, "initialize"), 1.0);
    assert_eq!(tally.sum(Metric::RecordsSkipped), 5.0);
    assert_eq!(tally.sum(Metric::RecordsProcessed), 0.0);
    assert_eq!(tally.sum(Metric::ProcessSuccess), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_aggregates_lose_is_counted() {
    let mut stage = Stage::new(2, Retrieval::default(), |builder| builder);
    let mut aggregator = Aggregator::new();
    for (index, hash_key) in [0, 0, u128::MAX].into_iter().enumerate() {
        assert!(aggregator.add("key", Some(hash_key), format!("{index}")).unwrap().is_none());
    }
    let mut record = NewRecord::new("key", aggregator.finish().unwrap().data);
    record.explicit_hash_key = Some(0);
    stage.kinesis.put_record(STREAM, record.clone()).unwrap();
    // A digest that is right over a message that is none.
    let mut damaged = record.data[..4].to_vec();
    damaged.extend([0xff; 20]);
    damaged.extend(Md5::digest([0xff; 20]));
    record.data = damaged.into();
    stage.kinesis.put_record(STREAM, record).unwrap();
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 20).await;
    assert_eq!(stage.tally.sum(Metric::RecordsOutOfRange), 1.0);
    assert_eq!(stage.tally.sum(Metric::DamagedAggregates), 1.0);
    assert_eq!(stage.tally.sum(Metric::RecordsProcessed), 3.0);
}

#[tokio::test(start_paused = true)]
async fn throttles_failures_and_expired_iterators_are_counted_by_call() {
    let mut stage = Stage::new(1, Retrieval::default(), |builder| builder);
    let on = |fault, calls: std::ops::Range<u64>| {
        stage.faults.add(Rule::on(Service::Kinesis, "GetRecords", fault).calls(calls));
    };
    let error = |error| Fault::Fail(Seen::Error(error));
    on(error(errors::provisioned_throughput_exceeded()), 2..4);
    on(error(errors::expired_iterator()), 6..7);
    on(error(errors::internal_failure()), 9..10);
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 20).await;
    stage.world.befall("alpha", Mishap::ThrottledLeases, 0.3).unwrap();
    sleep(SECOND * 60).await;
    let tally = &stage.tally;
    assert_eq!(tally.of(Metric::Throttles, "GetRecords"), 2.0);
    assert_eq!(tally.of(Metric::CallFailures, "GetRecords"), 1.0);
    assert_eq!(tally.sum(Metric::ExpiredIterator), 1.0);
    assert!(tally.sum(Metric::Throttles) > 4.0, "of the lease store, too");
}

#[tokio::test(start_paused = true)]
async fn a_lost_table_shows_in_renewals_and_in_leases_lost() {
    for (coordination, change) in [
        (Coordination::Fleet, (|builder| builder) as fn(SchedulerBuilder) -> SchedulerBuilder),
        (Coordination::PerLease, |builder| builder.coordination(Coordination::PerLease)),
    ] {
        let mut stage = Stage::new(2, Retrieval::default(), change);
        stage.world.start("alpha").unwrap();
        sleep(SECOND * 20).await;
        stage.world.befall("alpha", Mishap::NoLeases, 1.0).unwrap();
        stage.world.start("beta").unwrap();
        sleep(SECOND * 120).await;
        let tally = &stage.tally;
        assert!(tally.sum(Metric::FencedShards) > 0.0, "{coordination:?}");
        assert!(tally.sum(Metric::TimeSinceRenewal) > 10_000.0, "{coordination:?}");
        stage.world.calm("alpha").unwrap();
        sleep(SECOND * 60).await;
        assert!(tally.sum(Metric::LostLeases) >= 2.0, "{coordination:?}");
        assert!(tally.of(Metric::LeaseMoves, "taken") >= 2.0, "{coordination:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_waits_has_an_age() {
    let mut stage =
        Stage::new(1, Retrieval::default(), |builder| builder.checkpoint_policy(CheckpointPolicy::Manual));
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 20).await;
    stage.put(3);
    sleep(SECOND * 41).await;
    // Samples 10, 20, 30 and 40 s after the delivery, about.
    let age = stage.tally.sum(Metric::ApplicationCheckpointAge);
    assert!((60_000.0..=140_000.0).contains(&age), "{age}");
}

fn watchful(builder: SchedulerBuilder) -> SchedulerBuilder {
    let mut settings = Settings::default();
    settings.stall_timeout = SECOND * 15;
    builder.settings(settings)
}

#[tokio::test(start_paused = true)]
async fn a_source_and_a_consumer_without_a_sign_of_life_are_stalls() {
    let mut polling = PollingConfig::default();
    polling.call_timeout = SECOND * 120;
    let mut stage = Stage::new(1, Retrieval::Polling(polling), watchful);
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 20).await;
    assert_eq!(stage.tally.sum(Metric::Stalls), 0.0);
    let hang = stage.faults.add(Rule::on(Service::Kinesis, "GetRecords", Fault::Fail(Seen::Hang)).once());
    sleep(SECOND * 20).await;
    assert_eq!((hang.hits(), stage.tally.of(Metric::Stalls, "source")), (1, 1.0));
    stage.world.freeze("alpha", Part::Consumer("shardId-000000000000".into())).unwrap();
    sleep(SECOND * 120).await;
    assert_eq!(stage.tally.of(Metric::Stalls, "consumer"), 1.0);
    assert_eq!(stage.tally.of(Metric::Stalls, "source"), 1.0);
}

fn fan_out(fallback: Option<FallbackConfig>) -> Retrieval {
    let mut config = FanOutConfig::new(FanOutConsumer::Named("app".into()));
    config.fallback = fallback;
    Retrieval::FanOut(config)
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_counted_by_how_they_end_and_so_are_fallbacks() {
    let mut fallback = FallbackConfig::default();
    fallback.after = SECOND * 10;
    let mut stage = Stage::new(1, fan_out(Some(fallback)), |builder| builder);
    stage.world.start("alpha").unwrap();
    sleep(SECOND * 400).await;
    assert!(stage.tally.of(Metric::SubscriptionsEnded, "in_order") >= 1.0);
    let silence = Fault::Stream(When::AfterFrames(2), StreamFault::BlackHole);
    stage.faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", silence).once());
    sleep(SECOND * 700).await;
    assert!(stage.tally.of(Metric::SubscriptionsEnded, "silent") >= 1.0);
    let throttled = Fault::Fail(Seen::Error(errors::limit_exceeded()));
    let rule = stage.faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", throttled));
    sleep(SECOND * 500).await;
    assert!(stage.tally.of(Metric::SubscriptionsEnded, "throttled") >= 1.0);
    assert!(stage.tally.of(Metric::Throttles, "SubscribeToShard") >= 1.0);
    assert!(stage.tally.sum(Metric::FallbacksStarted) >= 1.0);
    rule.switch_off();
    sleep(SECOND * 200).await;
    assert!(stage.tally.sum(Metric::FallbacksEnded) >= 1.0);
}

/// Needs so long to publish what it has.
#[derive(Clone, Debug)]
struct Slow(Duration, Arc<Mutex<bool>>);

#[async_trait::async_trait]
impl MetricsSink for Slow {
    fn record(&self, _: &Origin, _: &MetricEvent<'_>) {}

    async fn run(&self, ending: Ending) {
        ending.await;
        sleep(self.0).await;
        *self.1.lock().unwrap() = true;
    }
}

#[tokio::test(start_paused = true)]
async fn sinks_end_before_a_shutdown_returns_and_no_later_than_its_deadline() {
    for (needs, published) in [(SECOND * 3, true), (SECOND * 3_600, false)] {
        let done = Arc::new(Mutex::new(false));
        let (slow, app) = (Slow(needs, Arc::clone(&done)), Recorder::new());
        let mut world = World::new(7, 1, MemoryLeaseStore::new(), move |_, builder| {
            builder.processor(app.clone()).metrics(slow.clone())
        })
        .unwrap();
        world.start("alpha").unwrap();
        sleep(SECOND * 20).await;
        let begun = Instant::now();
        let report = world.stop("alpha", SECOND * 10).await.unwrap();
        assert!(report.is_clean());
        assert!(begun.elapsed() <= SECOND * 10 && report.took <= SECOND * 10, "X-1");
        assert_eq!(*done.lock().unwrap(), published);
    }
}
