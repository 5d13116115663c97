//! Over sockets, by HTTP/1.1 and by HTTP/2, in real time.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use kcl_local::LocalAws;
use kcl_local::kinesis::NewRecord;
use tokio::time::{sleep, timeout};

use super::http2::Http2Client;
use super::support::{Events, SECOND, SHARD, STREAM, World, after, horizon, latest, next, texts};

const MILLI: Duration = Duration::from_millis(1);

/// How a client speaks to the server.
enum Protocol {
    Http1,
    Http2(Http2Client),
}

impl Protocol {
    fn client(&self, world: &World) -> Client {
        match self {
            Self::Http1 => world.client.clone(),
            Self::Http2(client) => {
                Client::from_conf(world.client.config().to_builder().http_client(client.clone()).build())
            }
        }
    }
}

/// A world whose subscriptions can be renewed at once and are never silent for long.
async fn world() -> World {
    let world = World::new(LocalAws::start().await.unwrap()).await;
    world.aws.kinesis().configure(|options| {
        options.subscriptions.exclusive = Duration::ZERO;
        options.subscriptions.heartbeat = 50 * MILLI;
    });
    world
}

async fn next_with_records(events: &mut Events) -> Vec<String> {
    let wait = async {
        loop {
            let event = next(events).await.expect("the stream goes on");
            if !event.records().is_empty() {
                return texts(&event);
            }
        }
    };
    timeout(20 * SECOND, wait).await.expect("records come")
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(5 * MILLI).await;
        }
    };
    timeout(20 * SECOND, wait).await.expect(what);
}

async fn records_are_pushed_and_sessions_follow_each_other(protocol: Protocol) {
    let world = world().await;
    world.aws.kinesis().configure(|options| options.subscriptions.session = 150 * MILLI);
    let client = protocol.client(&world);
    let (mut seen, mut start, mut sessions) = (Vec::new(), horizon(), 0);
    let mut put = Vec::new();
    while sessions < 5 {
        sessions += 1;
        let mut events = world.subscribe_with(&client, start).await.unwrap();
        let mut number = String::new();
        while let Some(event) = timeout(20 * SECOND, next(&mut events)).await.unwrap() {
            seen.extend(texts(&event));
            event.continuation_sequence_number().clone_into(&mut number);
            put.push(format!("record-{}", put.len()));
            world.put(put.last().unwrap());
            sleep(20 * MILLI).await;
        }
        start = after(&number);
    }
    let mut events = world.subscribe_with(&client, start).await.unwrap();
    while seen.len() < put.len() {
        seen.extend(next_with_records(&mut events).await);
    }
    assert_eq!(seen, put);
}

async fn the_end_of_a_shard_ends_the_stream(protocol: Protocol) {
    let world = world().await;
    let mut events = world.subscribe_with(&protocol.client(&world), latest()).await.unwrap();
    world.put("a");
    assert_eq!(next_with_records(&mut events).await, ["a"]);
    world.aws.kinesis().split_shard(STREAM, SHARD, 1 << 127).unwrap();
    let mut children = 0;
    while let Some(event) = timeout(20 * SECOND, next(&mut events)).await.unwrap() {
        children += event.child_shards().len();
    }
    assert_eq!(children, 2);
}

async fn the_service_notices_that_a_reader_has_gone(protocol: Protocol) {
    let world = world().await;
    let client = protocol.client(&world);
    let mut events = world.subscribe_with(&client, latest()).await.unwrap();
    next(&mut events).await.unwrap();
    assert_eq!(world.aws.kinesis().subscribed_shards(&world.consumer).unwrap().len(), 1);
    drop(events);
    eventually("the subscription is closed", || {
        world.aws.kinesis().subscribed_shards(&world.consumer).unwrap().is_empty()
    })
    .await;
    // And the client can go on.
    client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
}

async fn a_reader_that_does_not_read_holds_the_service_back(protocol: Protocol) {
    let world = world().await;
    for _ in 0..96 {
        let record = NewRecord::new("k", vec![0; (1 << 20) - 1]);
        world.aws.kinesis().put_record(STREAM, record).unwrap();
    }
    let mut events = world.subscribe_with(&protocol.client(&world), horizon()).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap().records().len(), 1);
    sleep(SECOND).await;
    // Whatever has not left the stream of records by now never will.
    world.aws.kinesis().set_retention(STREAM, Duration::ZERO).unwrap();
    let mut buffered = 0;
    while let event = next(&mut events).await.unwrap()
        && !event.records().is_empty()
    {
        buffered += event.records().len();
    }
    assert!(buffered < 24, "{buffered} MiB of 96 were sent to a reader that reads none");
}

async fn dropping_the_server_ends_its_streams(protocol: Protocol) {
    let world = world().await;
    let mut events = world.subscribe_with(&protocol.client(&world), latest()).await.unwrap();
    next(&mut events).await.unwrap();
    let begin = tokio::time::Instant::now();
    drop(world);
    assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
    let ended = timeout(20 * SECOND, async { while let Ok(Some(_)) = events.recv().await {} }).await;
    ended.expect("the stream ends with the server");
}

macro_rules! over_both_protocols {
    ($($name:ident),* $(,)?) => {
        mod by_http1 {
            $(#[tokio::test]
            async fn $name() {
                Box::pin(super::$name(super::Protocol::Http1)).await;
            })*
        }
        mod by_http2 {
            $(#[tokio::test]
            async fn $name() {
                let client = super::Http2Client::default();
                Box::pin(super::$name(super::Protocol::Http2(client.clone()))).await;
                assert_eq!(client.connected(), 1);
            })*
        }
    };
}

over_both_protocols!(
    records_are_pushed_and_sessions_follow_each_other,
    the_end_of_a_shard_ends_the_stream,
    the_service_notices_that_a_reader_has_gone,
    a_reader_that_does_not_read_holds_the_service_back,
    dropping_the_server_ends_its_streams,
);

#[tokio::test]
async fn clients_that_are_sent_away_finish_their_streams_and_come_back_by_another_connection() {
    let world = world().await;
    let http2 = Http2Client::default();
    let client = Protocol::Http2(http2.clone()).client(&world);
    let mut events = world.subscribe_with(&client, latest()).await.unwrap();
    next(&mut events).await.unwrap();
    world.aws.server().unwrap().send_away();

    let call = || client.describe_stream_summary().stream_name(STREAM).send();
    let moved = async {
        while http2.connected() == 1 {
            // A request that crosses the notice on its way may fail.
            let _ = call().await;
        }
    };
    timeout(20 * SECOND, moved).await.expect("the connection takes no new requests");
    call().await.unwrap();
    assert_eq!(http2.connected(), 2, "the new connection stays");
    world.put("a");
    assert_eq!(next_with_records(&mut events).await, ["a"], "the stream outlives the notice");
}

#[tokio::test]
async fn a_connection_carries_as_many_streams_as_are_allowed() {
    let aws = LocalAws::builder().max_concurrent_streams(1).start().await.unwrap();
    let world = World::new(aws).await;
    let client = Protocol::Http2(Http2Client::default()).client(&world);
    let held = world.subscribe_with(&client, latest()).await.unwrap();
    let call = || client.describe_stream_summary().stream_name(STREAM).send();
    assert!(timeout(300 * MILLI, call()).await.is_err(), "the subscription takes the only place");
    drop(held);
    timeout(20 * SECOND, call()).await.unwrap().unwrap();
}
