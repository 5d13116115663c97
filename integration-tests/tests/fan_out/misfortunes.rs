//! Each thing that can go wrong with a subscription at each moment of it, over HTTP/2 sockets and in real time: a shard
//! for each.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_kinesis::config::SharedHttpClient;
use kcl_core::source::kinesis::{
    FanOutConfig, FanOutConsumer, HttpClientFactory, KinesisStream, Retrieval, SubscriptionHttpClient,
};
use kcl_core::{LeaseRuntime, Settings};
use kcl_local::LocalAws;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Faults, Rule, RuleHandle, Seen, StreamFault, When, errors};
use kcl_local::kinesis::KinesisOptions;
use kcl_local::wire::Service;
use tokio::time::{Instant, sleep};

use crate::support::{Book, SECOND, STREAM, Worker, trickle};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Within this much more than the time-out a shard is delivered again.
const GRACE: Duration = Duration::from_secs(6);
/// How long the worker takes to start.
const START: Duration = Duration::from_secs(2);
const SESSION: Duration = Duration::from_secs(4);

fn answers() -> Vec<ApiError> {
    vec![
        errors::resource_in_use(),
        errors::resource_not_found(),
        errors::limit_exceeded(),
        errors::internal_failure(),
        errors::kms_throttling(),
        errors::kms_disabled(),
        errors::kms_invalid_state(),
        errors::kms_access_denied(),
        errors::kms_not_found(),
        errors::kms_opt_in_required(),
    ]
}

/// What happens to the first subscription of a shard, by name.
fn misfortunes() -> Vec<(String, Fault)> {
    let mut all = Vec::new();
    let opening = answers().into_iter().chain([
        errors::throttling(),
        errors::access_denied(),
        errors::internal_server_error(),
        errors::service_unavailable(),
    ]);
    for error in opening {
        all.push((format!("{} when opened", error.code), Fault::Fail(Seen::Error(error))));
    }
    for (name, seen) in [("refused", Seen::Refused), ("reset", Seen::Reset), ("hangs", Seen::Hang)] {
        all.push((format!("{name} when opened"), Fault::Fail(seen.clone())));
        all.push((format!("{name} when answered"), Fault::DropAnswer(seen)));
    }
    all.push(("late when opened".into(), Fault::DelayAnswer(TIMEOUT * 3 / 4)));
    let moments = [
        ("before the first frame", When::AfterFrames(0)),
        ("before the first event", When::AfterFrames(1)),
        ("in mid-stream", When::AfterFrames(8)),
        ("at the end", When::AtEnd),
    ];
    for (moment, when) in moments {
        let exceptions =
            answers().into_iter().map(|error| (error.code.to_string(), StreamFault::Exception(error)));
        let mut faults: Vec<(String, StreamFault)> = exceptions.collect();
        faults.push(("black hole".into(), StreamFault::BlackHole));
        faults.push(("reset".into(), StreamFault::Reset));
        faults.push(("early end".into(), StreamFault::End));
        // Less than the time between two records, or a stream that was once late would be so for as long as it lasts.
        let late = if when == When::AtEnd { TIMEOUT / 3 } else { Duration::from_millis(60) };
        faults.push(("late".into(), StreamFault::Delay(late)));
        if when != When::AtEnd {
            faults.push(("truncated".into(), StreamFault::Truncate));
            faults.push(("corrupt".into(), StreamFault::Corrupt));
        }
        let named = |(name, fault)| (format!("{name} {moment}"), Fault::Stream(when, fault));
        all.extend(faults.into_iter().map(named));
    }
    all
}

/// A worker over sockets whose subscriptions suffer what `faults` says.
fn worker(aws: &LocalAws, faults: &Faults, book: &Book) -> Worker {
    let mut fan_out = FanOutConfig::new(FanOutConsumer::Named("app".into()));
    fan_out.timeouts.open = TIMEOUT;
    fan_out.timeouts.first_event = TIMEOUT;
    fan_out.timeouts.inactivity = TIMEOUT;
    let faults = faults.clone();
    let clients =
        HttpClientFactory::new(move || faults.wrap(SharedHttpClient::new(SubscriptionHttpClient::new(16))));
    let source = KinesisStream::new(aws_sdk_kinesis::Client::new(&aws.sdk_config()), STREAM)
        .with_retrieval(Retrieval::FanOut(fan_out))
        .with_subscription_clients(clients);
    Worker::start(source, Settings::default(), LeaseRuntime::OwnThread, book)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_a_subscription_its_shard_is_delivered_again_soon_and_once() {
    let misfortunes = misfortunes();
    let shards = misfortunes.len();
    let mut options = KinesisOptions::default();
    options.subscriptions.session = SESSION;
    options.subscriptions.heartbeat = SECOND / 2;
    let aws = LocalAws::builder().kinesis_options(options).start().await.unwrap();
    let kinesis = aws.kinesis().clone();
    kinesis.create_stream(STREAM, shards as u32).unwrap();
    let (faults, book) = (Faults::seeded(1), Book::new());
    let mut rules: BTreeMap<usize, RuleHandle> = BTreeMap::new();
    for (shard, (_, fault)) in misfortunes.iter().enumerate() {
        let rule = Rule::on(Service::Kinesis, "SubscribeToShard", fault.clone());
        let rule = rule.when_body_contains(format!("shardId-{shard:012}")).once();
        rules.insert(shard, faults.add(rule));
    }
    let worker = worker(&aws, &faults, &book);
    let begun = Instant::now();
    let count = trickle(&kinesis, &book, (shards, 100), (0, SECOND / 10, SECOND * 16)).await;
    let ended = Instant::now();
    while book.delivered() < shards * count as usize && ended.elapsed() < TIMEOUT + GRACE {
        sleep(SECOND / 10).await;
    }
    let mut longest = Vec::new();
    for (shard, (name, _)) in misfortunes.iter().enumerate() {
        assert_eq!(rules[&shard].hits(), 1, "{name} did not happen");
        let times: Vec<Instant> = std::iter::once(begun + START)
            .chain(book.page(shard).iter().map(|delivery| delivery.at))
            .collect();
        let pause = times
            .windows(2)
            .map(|pair| pair[1].saturating_duration_since(pair[0]))
            .max()
            .unwrap_or(Duration::MAX);
        longest.push((pause, name, shard));
    }
    longest.sort();
    for (pause, name, _) in longest.iter().rev().take(12) {
        println!("{pause:?}: {name}");
    }
    for (pause, name, shard) in longest {
        assert!(pause <= TIMEOUT + GRACE, "{name}: nothing for {pause:?}");
        println!("{name}");
        book.assert_exactly(shard, count);
    }
    worker.stop().await;
    assert_eq!(faults.streams(Service::Kinesis, "SubscribeToShard").open, 0, "every subscription is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_its_clients_away_costs_nothing() {
    let aws = LocalAws::builder().start().await.unwrap();
    let kinesis = aws.kinesis().clone();
    kinesis.create_stream(STREAM, 8).unwrap();
    let book = Book::new();
    let worker = worker(&aws, &Faults::seeded(1), &book);
    let mut count = trickle(&kinesis, &book, (8, 100), (0, SECOND / 10, SECOND * 2)).await;
    for _ in 0..2 {
        aws.server().unwrap().send_away();
        count = trickle(&kinesis, &book, (8, 100), (count, SECOND / 10, SECOND * 6)).await;
    }
    let ended = Instant::now();
    while book.delivered() < 8 * count as usize && ended.elapsed() < TIMEOUT + GRACE {
        sleep(SECOND / 10).await;
    }
    for shard in 0..8 {
        book.assert_exactly(shard, count);
    }
    worker.stop().await;
}
