//! Incident 20: limits of batches, pauses.

use std::time::Duration;

use integration_tests::aws::{Aws, STREAM};
use integration_tests::sim::scenario::Scenario;
use kcl_core::testing::CallOutcome;
use kcl_core::{Callback, Event, Settings};
use kcl_local::kinesis::NewRecord;
use kcl_local::wire::Service;
use kpl_aggregation::Aggregator;
use tokio::time::{Instant, sleep};

use crate::{drain, kept_over};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FIRST: &str = "shardId-000000000000";
const RECORDS: usize = 7;
const BYTES: usize = 1_000;

/// Puts an aggregate of twenty records, and one that is as large as all of them.
fn put(aws: &Aws) {
    let mut aggregator = Aggregator::new();
    for _ in 0..20 {
        assert!(aggregator.add("key", None, vec![1; 190]).expect("small records fit").is_none());
    }
    let aggregate = aggregator.finish().expect("twenty records wait").data;
    for data in [aggregate, vec![2; 3_800].into()] {
        aws.local.kinesis().put_record(STREAM, NewRecord::new("key", data)).expect("no limits are set");
    }
}

/// Over the SDK, with iterators that live for five minutes, as the service's do.
#[tokio::test(start_paused = true)]
async fn incident_20_batches_keep_their_limits_and_half_an_hour_of_pause_costs_no_lease_no_record_and_no_error()
 {
    let aws = Aws::in_process().with_stream(1);
    let mut settings = Settings::default();
    (settings.batch_records, settings.batch_bytes) = (RECORDS, BYTES);
    // So little that reading ahead comes to a halt at once.
    (settings.shard_buffer_bytes, settings.worker_buffer_bytes) = (4_000, 4_000);
    let scheduler = aws.builder().settings(settings).build().expect("the settings are sound");
    let (handle, mut events) = (scheduler.handle(), scheduler.handle().events());
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    handle.ready().await;
    put(&aws);
    sleep(SECOND * 10).await;
    let iterators = aws.faults.calls(Service::Kinesis, "GetShardIterator");
    handle.pause(None).await;
    let paused = Instant::now();
    while paused.elapsed() < MINUTE * 30 {
        put(&aws);
        sleep(MINUTE).await;
    }
    let since = |call: &&kcl_core::testing::Call| call.began > paused;
    assert_eq!(aws.recorder.calls().iter().filter(since).count(), 0);
    handle.resume(None).await;
    sleep(MINUTE * 2).await;
    assert_eq!(aws.recorder.acknowledged(FIRST).len(), 31 * 21, "no gap, and nothing twice");
    assert!(aws.faults.calls(Service::Kinesis, "GetShardIterator") > iterators, "iterators did expire");
    for call in aws.recorder.calls().iter().filter(|call| call.callback == Callback::ProcessRecords) {
        let bytes: usize = call.payloads.iter().map(bytes::Bytes::len).sum();
        assert!((1..=RECORDS).contains(&call.payloads.len()), "{call:?}");
        assert!(bytes <= BYTES || call.payloads.len() == 1, "a larger record comes alone: {call:?}");
        assert_eq!(call.outcome, CallOutcome::Done);
    }
    assert_eq!(aws.recorder.violations(), Vec::<String>::new());
    let events = drain(&mut events);
    assert!(
        events.iter().all(|event| matches!(event, Event::LeaseAcquired { .. } | Event::FleetJoined { .. })),
        "{events:?}"
    );
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.expect("run does not panic").expect("run ends in order");
}

#[test]
fn incident_20_pauses_and_expired_iterators_break_no_promise() {
    kept_over(Scenario::Pauses, 0..8);
}
