//! Requests about registered consumers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinesis::{ConsumerDescription, ConsumerRef, Kinesis, StreamRef};

use super::empty;
use super::request::{count, required, seconds, timestamp};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Register {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneConsumer {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

impl OneConsumer {
    fn consumer(&self) -> ConsumerRef<'_> {
        ConsumerRef::new(
            self.stream_arn.as_deref(),
            self.consumer_name.as_deref(),
            self.consumer_arn.as_deref(),
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct List {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<f64>,
}

pub(super) fn register(service: &Kinesis, request: Register) -> Result<Value, ApiError> {
    let stream = required(request.stream_arn.as_deref(), "streamARN")?;
    let name = required(request.consumer_name.as_deref(), "consumerName")?;
    let tags = request.tags.unwrap_or_default();
    let consumer = service.register_tagged(&StreamRef::new(None, Some(stream)), name, &tags)?;
    Ok(json!({ "Consumer": render_consumer(&consumer) }))
}

pub(super) fn deregister(service: &Kinesis, request: &OneConsumer) -> Result<Value, ApiError> {
    service.deregister_stream_consumer(request.consumer())?;
    Ok(empty())
}

pub(super) fn describe(service: &Kinesis, request: &OneConsumer) -> Result<Value, ApiError> {
    let consumer = service.describe_stream_consumer(request.consumer())?;
    let mut description = render_consumer(&consumer);
    description["StreamARN"] = consumer.stream_arn.into();
    Ok(json!({ "ConsumerDescription": description }))
}

pub(super) fn list(service: &Kinesis, request: &List) -> Result<Value, ApiError> {
    let stream = StreamRef::new(None, Some(required(request.stream_arn.as_deref(), "streamARN")?));
    let most = request.max_results.map(|most| count(most, "maxResults")).transpose()?;
    let created = request.stream_creation_timestamp;
    let created = created.map(|seconds| timestamp(seconds, "StreamCreationTimestamp")).transpose()?;
    let page = service.list_stream_consumers(stream, most, request.next_token.as_deref(), created)?;
    let mut answer = json!({ "Consumers": page.consumers.iter().map(render_consumer).collect::<Vec<_>>() });
    if let Some(token) = page.next_token {
        answer["NextToken"] = token.into();
    }
    Ok(answer)
}

fn render_consumer(consumer: &ConsumerDescription) -> Value {
    json!({
        "ConsumerName": consumer.name,
        "ConsumerARN": consumer.arn,
        "ConsumerStatus": consumer.status.to_string(),
        "ConsumerCreationTimestamp": seconds(consumer.created),
    })
}
