//! In process, in virtual time.

use std::time::Duration;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardError;
use aws_sdk_kinesis::types::ConsumerStatus;
use kcl_local::LocalAws;
use kcl_local::kinesis::{IteratorStart, NewRecord, ShardFilter};
use tokio::time::Instant;

use super::support::{SECOND, SHARD, STREAM, World, after, horizon, latest, next, texts};

async fn world() -> World {
    World::new(LocalAws::in_process().unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_record_is_pushed_at_the_moment_it_is_put() {
    let world = world().await;
    let mut events = world.subscribe(latest()).await.unwrap();
    let start = Instant::now();
    let (event, ()) = tokio::join!(next(&mut events), async {
        tokio::time::sleep(Duration::from_millis(1_234)).await;
        world.put("a");
    });
    assert_eq!(start.elapsed(), Duration::from_millis(1_234));
    let event = event.unwrap();
    assert_eq!((texts(&event), event.millis_behind_latest()), (vec!["a".to_owned()], 0));
    let record = &event.records()[0];
    assert_eq!(record.partition_key(), Some("key"));
    assert!(event.continuation_sequence_number() > record.sequence_number());
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_sessions_loses_no_record_and_doubles_none() {
    let world = world().await;
    let begin = Instant::now();
    let end = begin + 3_600 * SECOND;
    let (mut sessions, mut beats, mut seen) = (0, 0, Vec::new());
    let read = async {
        let mut start = horizon();
        while Instant::now() < end {
            sessions += 1;
            let opened = Instant::now();
            let mut events = world.subscribe(start).await.unwrap();
            let mut number = String::new();
            while let Some(event) = next(&mut events).await {
                seen.extend(texts(&event));
                beats += u32::from(event.records().is_empty());
                number = event.continuation_sequence_number().to_owned();
            }
            assert_eq!(opened.elapsed(), 300 * SECOND);
            start = after(&number);
        }
    };
    let write = async {
        let mut put = Vec::new();
        while Instant::now() + 7 * SECOND < end {
            // Every third step is long enough for heartbeats.
            let pause =
                if put.len() % 3 == 0 { Duration::from_millis(12_500) } else { Duration::from_millis(37) };
            tokio::time::sleep(pause).await;
            put.push(format!("record-{}", put.len()));
            world.put(put.last().unwrap());
        }
        put
    };
    let ((), put) = tokio::join!(read, write);
    assert_eq!(sessions, 12);
    assert!(put.len() > 800 && beats > 500, "{} records, {beats} heartbeats", put.len());
    assert_eq!(seen, put);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_names_its_children_and_ends_the_stream() {
    let world = world().await;
    let mut events = world.subscribe(horizon()).await.unwrap();
    world.put("a");
    assert_eq!(texts(&next(&mut events).await.unwrap()), ["a"]);
    world.aws.kinesis().split_shard(STREAM, SHARD, 1 << 127).unwrap();
    let end = next(&mut events).await.unwrap();
    assert_eq!((end.records().len(), end.continuation_sequence_number()), (0, ""));
    let children: Vec<_> = end.child_shards().iter().map(|child| child.shard_id()).collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert_eq!(end.child_shards()[0].parent_shards(), [SHARD]);
    assert!(next(&mut events).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn refusals_and_ends_are_the_errors_of_the_sdk() {
    let world = world().await;
    let mut events = world.subscribe(latest()).await.unwrap();
    let refused = world.subscribe(latest()).await.unwrap_err();
    assert!(matches!(refused.as_service_error(), Some(SubscribeToShardError::ResourceInUseException(_))));
    assert!(refused.message().unwrap().contains("Another active subscription"), "{refused:?}");
    let junk = world.subscribe(after("1")).await.unwrap_err();
    assert!(matches!(junk.as_service_error(), Some(SubscribeToShardError::ResourceInUseException(_))));

    tokio::time::sleep(5 * SECOND).await;
    let junk = world.subscribe(after("1")).await.unwrap_err();
    assert!(matches!(junk.as_service_error(), Some(SubscribeToShardError::InvalidArgumentException(_))));
    let mut second = world.subscribe(latest()).await.unwrap();
    let taken = events.recv().await.unwrap_err();
    assert!(taken.as_service_error().unwrap().is_resource_in_use_exception(), "{taken:?}");
    assert!(events.recv().await.unwrap().is_none());

    let deregister = world.client.deregister_stream_consumer().consumer_arn(&world.consumer);
    let (gone, _) = tokio::join!(second.recv(), deregister.send());
    let gone = gone.unwrap_err();
    assert!(gone.as_service_error().unwrap().is_resource_not_found_exception(), "{gone:?}");
    let missing = world.subscribe(latest()).await.unwrap_err();
    assert!(matches!(missing.as_service_error(), Some(SubscribeToShardError::ResourceNotFoundException(_))));
}

#[tokio::test(start_paused = true)]
async fn consumers_are_registered_described_listed_and_deregistered() {
    let world = world().await;
    world.aws.kinesis().configure(|options| {
        options.consumer_create_delay = 10 * SECOND;
        options.consumer_delete_delay = 10 * SECOND;
    });
    let client = &world.client;
    let stream = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let stream = stream.stream_description_summary().unwrap();
    assert_eq!(stream.consumer_count(), Some(1));
    let arn = stream.stream_arn();
    let register = || client.register_stream_consumer().stream_arn(arn).consumer_name("billing");
    let answer = register().tags("team", "orders").send().await.unwrap();
    let registered = answer.consumer().unwrap();
    assert_eq!(registered.consumer_status(), &ConsumerStatus::Creating);
    assert!(register().send().await.unwrap_err().into_service_error().is_resource_in_use_exception());

    let describe = async || {
        let describe = client.describe_stream_consumer().stream_arn(arn).consumer_name("billing");
        Some(describe.send().await.ok()?.consumer_description().unwrap().clone())
    };
    assert_eq!(describe().await.unwrap().consumer_status(), &ConsumerStatus::Creating);
    tokio::time::sleep(10 * SECOND).await;
    let active = describe().await.unwrap();
    assert_eq!(active.consumer_status(), &ConsumerStatus::Active);
    assert_eq!((active.consumer_arn(), active.stream_arn()), (registered.consumer_arn(), arn));
    let second = active.consumer_creation_timestamp().secs();
    assert!(active.consumer_arn().ends_with(&format!("/consumer/billing:{second}")));

    let mut names = Vec::new();
    let mut pages = client.list_stream_consumers().stream_arn(arn).max_results(1).into_paginator().send();
    while let Some(page) = pages.next().await {
        names.extend(page.unwrap().consumers().iter().map(|consumer| consumer.consumer_name().to_owned()));
    }
    assert_eq!(names, ["audit", "billing"]);

    client.deregister_stream_consumer().consumer_arn(active.consumer_arn()).send().await.unwrap();
    assert_eq!(describe().await.unwrap().consumer_status(), &ConsumerStatus::Deleting);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(describe().await, None);
    let delete = client.delete_stream().stream_name(STREAM);
    let refused = delete.clone().send().await.unwrap_err();
    assert!(refused.into_service_error().is_resource_in_use_exception(), "one consumer is left");
    delete.enforce_consumer_deletion(true).send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_and_holds_nothing() {
    let world = world().await;
    let dry = || {
        let call = world.client.subscribe_to_shard().consumer_arn(&world.consumer).shard_id(SHARD);
        call.starting_position(latest()).dry_run(true).send()
    };
    assert_eq!(dry().await.unwrap_err().code(), Some("DryRunOperationException"));
    let _held = world.subscribe(latest()).await.unwrap();
    assert_eq!(dry().await.unwrap_err().code(), Some("ResourceInUseException"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_subscriptions_sleep_until_something_concerns_them() {
    let world = world().await;
    world.aws.kinesis().configure(|options| options.subscriptions.heartbeat = 3_600 * SECOND);
    world.aws.kinesis().create_stream("many", 1_000).unwrap();
    let consumer = world.aws.kinesis().register_stream_consumer("many", "audit").unwrap().arn;
    let mut waiting = tokio::task::JoinSet::new();
    for shard in world.aws.kinesis().shards("many", ShardFilter::AtLatest).unwrap() {
        let subscription =
            world.aws.kinesis().subscribe_to_shard(&consumer, &shard.shard_id, &IteratorStart::Latest);
        let mut subscription = subscription.unwrap();
        waiting.spawn(async move {
            // Each poll but the first follows a wake.
            let mut polls = 0;
            let ended = std::future::poll_fn(|cx| {
                polls += 1;
                subscription.poll_next(cx)
            });
            let ended = ended.await;
            (polls, ended.is_some())
        });
    }
    tokio::time::sleep(SECOND).await;
    let sent = world.aws.kinesis().put_record("many", NewRecord::new("k", "x")).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), (2, true), "{sent:?}");
    world.put("elsewhere");
    tokio::time::sleep(SECOND).await;
    assert!(waiting.try_join_next().is_none());
    while let Some(ended) = waiting.join_next().await {
        // The first poll and the end of the session.
        assert_eq!(ended.unwrap(), (2, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_put_of_another_thread_is_slept_through() {
    let world = world().await;
    let kinesis = world.aws.kinesis().clone();
    // Without heartbeats a wake that is lost is lost for good.
    kinesis.configure(|options| options.subscriptions.heartbeat = 3_600 * SECOND);
    let mut subscription =
        kinesis.subscribe_to_shard(&world.consumer, SHARD, &IteratorStart::TrimHorizon).unwrap();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(async move {
        for number in 0..20_000_u32 {
            kinesis.put_record(STREAM, NewRecord::new("k", number.to_be_bytes().to_vec())).unwrap();
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let read = async {
        let mut seen = 0;
        while seen < 20_000 {
            seen += subscription.next().await.unwrap().unwrap().records.len();
        }
    };
    tokio::time::timeout(60 * SECOND, read).await.expect("every put wakes the reader");
    writer.join_all().await;
}
