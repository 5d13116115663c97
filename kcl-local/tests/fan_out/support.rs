//! A stream with a consumer, and a client that tries once.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardError;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use kcl_local::LocalAws;
use kcl_local::kinesis::NewRecord;

pub(crate) const STREAM: &str = "orders";
pub(crate) const SHARD: &str = "shardId-000000000000";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type Events = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;

pub(crate) struct World {
    pub(crate) aws: LocalAws,
    pub(crate) client: Client,
    pub(crate) consumer: String,
}

impl World {
    /// One stream with one shard, and one consumer of it.
    pub(crate) async fn new(aws: LocalAws) -> Self {
        let config = aws_sdk_kinesis::config::Builder::from(&aws.sdk_config());
        let client = Client::from_conf(config.retry_config(RetryConfig::disabled()).build());
        client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
        let stream = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let stream = stream.stream_description_summary().unwrap().stream_arn().to_owned();
        let register = client.register_stream_consumer().stream_arn(stream).consumer_name("audit");
        let consumer = register.send().await.unwrap().consumer().unwrap().consumer_arn().to_owned();
        Self { aws, client, consumer }
    }

    pub(crate) fn put(&self, text: &str) {
        self.aws.kinesis().put_record(STREAM, NewRecord::new("key", text.to_owned())).unwrap();
    }

    pub(crate) async fn subscribe(
        &self,
        start: StartingPosition,
    ) -> Result<Events, SdkError<SubscribeToShardError>> {
        self.subscribe_with(&self.client, start).await
    }

    pub(crate) async fn subscribe_with(
        &self,
        client: &Client,
        start: StartingPosition,
    ) -> Result<Events, SdkError<SubscribeToShardError>> {
        let subscribe = client.subscribe_to_shard().consumer_arn(&self.consumer).shard_id(SHARD);
        let answer = subscribe.starting_position(start).send().await;
        answer.map(|answer| answer.event_stream).map_err(|error| error.map_service_error(|error| error))
    }
}

pub(crate) fn horizon() -> StartingPosition {
    StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap()
}

pub(crate) fn latest() -> StartingPosition {
    StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap()
}

pub(crate) fn after(number: &str) -> StartingPosition {
    let start = StartingPosition::builder().r#type(ShardIteratorType::AfterSequenceNumber);
    start.sequence_number(number).build().unwrap()
}

pub(crate) async fn next(events: &mut Events) -> Option<SubscribeToShardEvent> {
    let event = events.recv().await.unwrap()?;
    Some(event.as_subscribe_to_shard_event().unwrap().clone())
}

pub(crate) fn texts(event: &SubscribeToShardEvent) -> Vec<String> {
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    event.records().iter().map(|record| text(record.data().as_ref())).collect()
}
