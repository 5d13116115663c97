//! The JSON 1.1 protocol over the model.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinesis::Kinesis;

mod consumers;
mod control;
mod records;
mod request;
mod shards;
mod subscribe;
#[cfg(test)]
mod tests;

pub use subscribe::{SUBSCRIBE, subscribe};

/// Serves one request: `operation` is the part of `X-Amz-Target` after the dot, `body` its JSON.
///
/// Operations with an empty answer return `{}`. `SubscribeToShard`, which is answered by a stream, is [`subscribe`]'s.
///
/// # Errors
/// The service's error, to be rendered by the transport. `UnknownOperationException` for an
/// operation that is not served, `SerializationException` for a body that is not its JSON.
pub fn handle(service: &Kinesis, operation: &str, body: &[u8]) -> Result<Bytes, ApiError> {
    match operation {
        "PutRecord" => records::put_record(service, body),
        "PutRecords" => records::put_records(service, body),
        "GetRecords" => records::get_records(service, body),
        "GetShardIterator" => render(&records::get_shard_iterator(service, &parse(body)?)?),
        "ListShards" => render(&shards::list_shards(service, &parse(body)?)?),
        "SplitShard" => render(&shards::split_shard(service, &parse(body)?)?),
        "MergeShards" => render(&shards::merge_shards(service, &parse(body)?)?),
        "UpdateShardCount" => render(&shards::update_shard_count(service, &parse(body)?)?),
        "CreateStream" => render(&control::create_stream(service, parse(body)?)?),
        "DeleteStream" => render(&control::delete_stream(service, &parse(body)?)?),
        "DescribeStream" => render(&control::describe_stream(service, &parse(body)?)?),
        "DescribeStreamSummary" => render(&control::describe_stream_summary(service, &parse(body)?)?),
        "ListStreams" => render(&control::list_streams(service, &parse(body)?)?),
        "DescribeLimits" => render(&control::describe_limits(service)),
        "IncreaseStreamRetentionPeriod" => render(&control::increase_retention(service, &parse(body)?)?),
        "DecreaseStreamRetentionPeriod" => render(&control::decrease_retention(service, &parse(body)?)?),
        "UpdateMaxRecordSize" => render(&control::update_max_record_size(service, &parse(body)?)?),
        "AddTagsToStream" => render(&control::add_tags(service, parse(body)?)?),
        "RemoveTagsFromStream" => render(&control::remove_tags(service, &parse(body)?)?),
        "RegisterStreamConsumer" => render(&consumers::register(service, parse(body)?)?),
        "DeregisterStreamConsumer" => render(&consumers::deregister(service, &parse(body)?)?),
        "DescribeStreamConsumer" => render(&consumers::describe(service, &parse(body)?)?),
        "ListStreamConsumers" => render(&consumers::list(service, &parse(body)?)?),
        "ListTagsForStream" => render(&control::list_tags(service, &parse(body)?)?),
        _ => Err(ApiError::client(
            "UnknownOperationException",
            format!("Operation {operation} is not served."),
        )),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(or_empty(body)).map_err(malformed)
}

/// A request without a body is one without members.
fn or_empty(body: &[u8]) -> &[u8] {
    if body.is_empty() { b"{}" } else { body }
}

fn malformed(error: impl std::fmt::Display) -> ApiError {
    ApiError::client("SerializationException", error.to_string())
}

fn render(answer: &Value) -> Result<Bytes, ApiError> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(|error| ApiError::server(error.to_string()))
}

fn empty() -> Value {
    json!({})
}
