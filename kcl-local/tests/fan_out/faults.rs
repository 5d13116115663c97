//! Faults of event streams, as the real SDK client sees them.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError as StreamError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use kcl_local::LocalAws;
use kcl_local::faults::{Fault, Faults, Rule, RuleHandle, StreamFault, When, errors};
use kcl_local::wire::Service;
use tokio::time::{Instant, timeout};

use super::http2::Http2Client;
use super::support::{Events, SECOND, World, after, horizon, latest, next, texts};

const HALF: Duration = Duration::from_millis(500);
const HOUR: Duration = Duration::from_secs(3_600);

/// A world behind a fault layer, with an event for each second.
async fn world() -> (World, Faults) {
    let faults = Faults::seeded(1);
    let aws = LocalAws::builder().faults(&faults).in_process().unwrap();
    let world = World::new(aws).await;
    world.aws.kinesis().configure(|options| options.subscriptions.heartbeat = SECOND);
    (world, faults)
}

fn strike(faults: &Faults, when: When, fault: StreamFault) -> RuleHandle {
    faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", Fault::Stream(when, fault)).once())
}

/// Reads to the end or the error: when each event came, and what came last.
async fn read(events: &mut Events) -> (Vec<Duration>, Result<(), String>) {
    let (start, mut times) = (Instant::now(), Vec::new());
    loop {
        match events.recv().await {
            Ok(Some(_)) => times.push(start.elapsed()),
            Ok(None) => return (times, Ok(())),
            Err(error) => {
                let kind = match &error {
                    SdkError::DispatchFailure(failure) if failure.is_io() => "io",
                    SdkError::ResponseError(_) => "response",
                    SdkError::ServiceError(_) => "service",
                    _ => "other",
                };
                return (times, Err(kind.to_owned()));
            }
        }
    }
}

fn seconds(range: std::ops::RangeInclusive<u64>) -> Vec<Duration> {
    range.map(Duration::from_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_breaks_off_after_so_many_frames_or_so_long() {
    let response = || Err("response".to_owned());
    // The initial response is the first frame; the events come at full seconds.
    let cases = [
        (When::AfterFrames(3), StreamFault::Reset, seconds(1..=2), Err("io".to_owned())),
        (When::AfterFrames(3), StreamFault::End, seconds(1..=2), Ok(())),
        (When::AfterFrames(3), StreamFault::Truncate, seconds(1..=2), response()),
        (When::AfterFrames(3), StreamFault::Corrupt, seconds(1..=2), response()),
        (When::After(3 * SECOND + HALF), StreamFault::End, seconds(1..=3), Ok(())),
        (When::After(3 * SECOND + HALF), StreamFault::Reset, seconds(1..=3), Err("io".to_owned())),
        (When::AtEnd, StreamFault::Reset, seconds(1..=299), Err("io".to_owned())),
        (When::AtEnd, StreamFault::End, seconds(1..=299), Ok(())),
        (When::AtEnd, StreamFault::Corrupt, seconds(1..=299), Ok(())),
    ];
    for (when, fault, times, end) in cases {
        let (world, faults) = world().await;
        let rule = strike(&faults, when, fault.clone());
        let mut events = world.subscribe(latest()).await.unwrap();
        assert_eq!(read(&mut events).await, (times, end), "{when:?} {fault:?}");
        assert_eq!(rule.hits(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_moment_at_which_a_timed_fault_strikes_is_its_own() {
    let (world, faults) = world().await;
    strike(&faults, When::After(3 * SECOND + HALF), StreamFault::End);
    let start = Instant::now();
    let mut events = world.subscribe(latest()).await.unwrap();
    read(&mut events).await.1.unwrap();
    assert_eq!(start.elapsed(), 3 * SECOND + HALF);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_swallows_all_that_would_come() {
    let cases = [(When::AfterFrames(1), 0), (When::After(10 * SECOND + HALF), 10), (When::AtEnd, 299)];
    for (when, events_before) in cases {
        let (world, faults) = world().await;
        strike(&faults, when, StreamFault::BlackHole);
        let mut events = world.subscribe(latest()).await.unwrap();
        for _ in 0..events_before {
            next(&mut events).await.unwrap();
        }
        assert!(timeout(HOUR, events.recv()).await.is_err(), "{when:?}");
        let count = faults.streams(Service::Kinesis, "SubscribeToShard");
        assert_eq!((count.opened, count.open), (1, 1), "the connection stays");
        drop(events);
        assert_eq!(faults.streams(Service::Kinesis, "SubscribeToShard").open, 0);
        assert!(world.aws.kinesis().subscribed_shards(&world.consumer).unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_opening_suffers_too() {
    let (world, faults) = world().await;
    strike(&faults, When::AfterFrames(0), StreamFault::BlackHole);
    assert!(timeout(HOUR, world.subscribe(latest())).await.is_err(), "the SDK waits for the first frame");
    strike(&faults, When::AfterFrames(0), StreamFault::Reset);
    assert!(matches!(world.subscribe(latest()).await.unwrap_err(), SdkError::ResponseError(_)));
    tokio::time::sleep(5 * SECOND).await;
    faults.add(Rule::on(Service::Kinesis, "SubscribeToShard", Fault::DelayAnswer(7 * SECOND)).once());
    let start = Instant::now();
    world.subscribe(latest()).await.unwrap();
    assert_eq!(start.elapsed(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn frames_come_late_one_by_one() {
    let (world, faults) = world().await;
    strike(&faults, When::AfterFrames(2), StreamFault::Delay(3 * SECOND));
    let mut events = world.subscribe(latest()).await.unwrap();
    let (times, end) = read(&mut events).await;
    // The second event is held back; the service's clock goes on from when the next is asked for.
    assert_eq!(times[..3], [SECOND, 5 * SECOND, 8 * SECOND]);
    end.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_after_a_damaged_frame_are_not_lost_for_who_resubscribes() {
    for fault in [StreamFault::Truncate, StreamFault::Corrupt] {
        let (world, faults) = world().await;
        strike(&faults, When::AfterFrames(2), fault);
        let mut events = world.subscribe(horizon()).await.unwrap();
        world.put("a");
        let first = next(&mut events).await.unwrap();
        assert_eq!(texts(&first), ["a"]);
        world.put("b");
        assert!(matches!(events.recv().await.unwrap_err(), SdkError::ResponseError(_)));
        tokio::time::sleep(5 * SECOND).await;
        let start = after(first.continuation_sequence_number());
        let mut events = world.subscribe(start).await.unwrap();
        assert_eq!(texts(&next(&mut events).await.unwrap()), ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_exception_of_the_service_is_that_of_the_sdk() {
    type Check = fn(&StreamError) -> bool;
    let cases: [(_, Check); 9] = [
        (errors::resource_in_use(), StreamError::is_resource_in_use_exception),
        (errors::resource_not_found(), StreamError::is_resource_not_found_exception),
        (errors::internal_failure(), StreamError::is_internal_failure_exception),
        (errors::kms_disabled(), StreamError::is_kms_disabled_exception),
        (errors::kms_invalid_state(), StreamError::is_kms_invalid_state_exception),
        (errors::kms_access_denied(), StreamError::is_kms_access_denied_exception),
        (errors::kms_not_found(), StreamError::is_kms_not_found_exception),
        (errors::kms_opt_in_required(), StreamError::is_kms_opt_in_required),
        (errors::kms_throttling(), StreamError::is_kms_throttling_exception),
    ];
    let (world, faults) = world().await;
    for (error, is_expected) in cases {
        strike(&faults, When::AfterFrames(2), StreamFault::Exception(error.clone()));
        let mut events = world.subscribe(latest()).await.unwrap();
        next(&mut events).await.unwrap();
        let seen = events.recv().await.unwrap_err();
        assert!(is_expected(seen.as_service_error().unwrap()), "{error}: {seen:?}");
        assert_eq!(events.recv().await.unwrap(), None);
        tokio::time::sleep(5 * SECOND).await;
    }
    assert_eq!(faults.streams(Service::Kinesis, "SubscribeToShard").opened, 9);
}

#[tokio::test]
async fn the_layer_works_in_front_of_any_client() {
    let world = World::new(LocalAws::start().await.unwrap()).await;
    world.aws.kinesis().configure(|options| options.subscriptions.heartbeat = Duration::from_millis(20));
    let faults = Faults::seeded(1);
    strike(&faults, When::AfterFrames(3), StreamFault::Corrupt);
    let http2 = faults.wrap(SharedHttpClient::new(Http2Client::default()));
    let client = Client::from_conf(world.client.config().to_builder().http_client(http2).build());
    let mut events = world.subscribe_with(&client, latest()).await.unwrap();
    let (times, end) = read(&mut events).await;
    assert_eq!((times.len(), end), (2, Err("response".to_owned())));
}
