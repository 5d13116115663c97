//! Requests about streams as a whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinesis::errors::invalid;
use crate::kinesis::{Kinesis, NewStream, StreamMode, StreamSummary};

use super::empty;
use super::request::{NamesStream, count, names_stream, required, seconds};
use super::shards::render_shard;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateStream {
    stream_name: Option<String>,
    shard_count: Option<i64>,
    stream_mode_details: Option<StreamModeDetails>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_kib: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamModeDetails {
    stream_mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    exclusive_start_shard_id: Option<String>,
    limit: Option<i64>,
    retention_period_hours: Option<i64>,
    enforce_consumer_deletion: Option<bool>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_kib: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListStreams {
    limit: Option<i64>,
    exclusive_start_stream_name: Option<String>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tags {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
    exclusive_start_tag_key: Option<String>,
    limit: Option<i64>,
}

names_stream!(OneStream, Tags);

pub(super) fn create_stream(service: &Kinesis, request: CreateStream) -> Result<Value, ApiError> {
    let name = required(request.stream_name, "streamName")?;
    let mode = request.stream_mode_details.map(|details| required(details.stream_mode, "streamMode"));
    let mut stream = match mode.transpose()?.as_deref() {
        None | Some("PROVISIONED") => NewStream { shards: None, ..NewStream::provisioned(name, 1) },
        Some("ON_DEMAND") => NewStream::on_demand(name),
        Some(other) => {
            return Err(invalid(format!("StreamMode {other} is neither PROVISIONED nor ON_DEMAND.")));
        }
    };
    if let Some(shards) = request.shard_count {
        stream.shards = Some(count(shards, "shardCount")?);
    }
    if let Some(kib) = request.max_record_kib {
        stream.max_record_kib = count(kib, "maxRecordSizeInKiB")?;
    }
    stream.tags = request.tags.unwrap_or_default();
    service.create_stream_with(stream)?;
    Ok(empty())
}

pub(super) fn delete_stream(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    service.delete(&request.stream(), request.enforce_consumer_deletion == Some(true))?;
    Ok(empty())
}

pub(super) fn describe_stream(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    let limit = request.limit.map(|limit| count(limit, "limit")).transpose()?;
    let start = request.exclusive_start_shard_id.as_deref();
    let description = service.describe_stream(request.stream(), limit, start)?;
    let mut answer = render_summary(&description.summary);
    answer["Shards"] = description.shards.iter().map(render_shard).collect();
    answer["HasMoreShards"] = description.has_more_shards.into();
    Ok(json!({ "StreamDescription": answer }))
}

pub(super) fn describe_stream_summary(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    let summary = service.describe_stream_summary(request.stream())?;
    let mut answer = render_summary(&summary);
    answer["OpenShardCount"] = summary.open_shards.into();
    answer["ConsumerCount"] = summary.consumers.into();
    answer["MaxRecordSizeInKiB"] = summary.max_record_kib.into();
    Ok(json!({ "StreamDescriptionSummary": answer }))
}

fn render_summary(summary: &StreamSummary) -> Value {
    json!({
        "StreamName": summary.name,
        "StreamARN": summary.arn,
        "StreamStatus": summary.status.to_string(),
        "StreamModeDetails": render_mode(summary.mode),
        "RetentionPeriodHours": summary.retention_hours,
        "StreamCreationTimestamp": seconds(summary.created),
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
    })
}

fn render_mode(mode: StreamMode) -> Value {
    json!({ "StreamMode": mode.to_string() })
}

pub(super) fn list_streams(service: &Kinesis, request: &ListStreams) -> Result<Value, ApiError> {
    let limit = request.limit.map(|limit| count(limit, "limit")).transpose()?;
    let start = request.exclusive_start_stream_name.as_deref();
    let page = service.list_streams(limit, start, request.next_token.as_deref())?;
    let summaries = page.streams.iter().map(|stream| {
        json!({
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "StreamStatus": stream.status.to_string(),
            "StreamModeDetails": render_mode(stream.mode),
            "StreamCreationTimestamp": seconds(stream.created),
        })
    });
    let mut answer = json!({
        "StreamNames": page.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(),
        "StreamSummaries": summaries.collect::<Vec<_>>(),
        "HasMoreStreams": page.next_token.is_some(),
    });
    if let Some(token) = page.next_token {
        answer["NextToken"] = token.into();
    }
    Ok(answer)
}

pub(super) fn describe_limits(service: &Kinesis) -> Value {
    let limits = service.describe_limits();
    json!({
        "ShardLimit": limits.shard_limit,
        "OpenShardCount": limits.open_shards,
        "OnDemandStreamCount": limits.on_demand_streams,
        "OnDemandStreamCountLimit": limits.on_demand_stream_limit,
    })
}

pub(super) fn increase_retention(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    service.increase_stream_retention_period(request.stream(), hours(request)?)?;
    Ok(empty())
}

pub(super) fn decrease_retention(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    service.decrease_stream_retention_period(request.stream(), hours(request)?)?;
    Ok(empty())
}

fn hours(request: &OneStream) -> Result<u32, ApiError> {
    let hours = required(request.retention_period_hours, "retentionPeriodHours")?;
    // Any number is well-formed; the model says which are allowed.
    Ok(u32::try_from(hours.max(0)).unwrap_or(u32::MAX))
}

pub(super) fn update_max_record_size(service: &Kinesis, request: &OneStream) -> Result<Value, ApiError> {
    let kib = count(required(request.max_record_kib, "maxRecordSizeInKiB")?, "maxRecordSizeInKiB")?;
    service.update_max_record_size(request.stream(), kib)?;
    Ok(empty())
}

pub(super) fn add_tags(service: &Kinesis, mut request: Tags) -> Result<Value, ApiError> {
    let tags = required(request.tags.take(), "tags")?;
    service.add_tags_to_stream(request.stream(), tags)?;
    Ok(empty())
}

pub(super) fn remove_tags(service: &Kinesis, request: &Tags) -> Result<Value, ApiError> {
    let keys = required(request.tag_keys.as_deref(), "tagKeys")?;
    service.remove_tags_from_stream(request.stream(), keys)?;
    Ok(empty())
}

pub(super) fn list_tags(service: &Kinesis, request: &Tags) -> Result<Value, ApiError> {
    let limit = request.limit.map(|limit| count(limit, "limit")).transpose()?;
    let page =
        service.list_tags_for_stream(request.stream(), request.exclusive_start_tag_key.as_deref(), limit)?;
    let tags = page.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value }));
    Ok(json!({ "Tags": tags.collect::<Vec<_>>(), "HasMoreTags": page.has_more_tags }))
}
