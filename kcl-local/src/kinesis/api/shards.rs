//! Requests about shards.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::kinesis::errors::{constraint, identifier, invalid};
use crate::kinesis::{HashKeyRange, Kinesis, ListShards, ShardDescription, ShardFilter};

use super::empty;
use super::request::{NamesStream, count, hash_key, names_stream, required, timestamp};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListShardsRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<f64>,
    shard_filter: Option<FilterMember>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FilterMember {
    #[serde(rename = "Type")]
    kind: Option<String>,
    shard_id: Option<String>,
    timestamp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reshard {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_split: Option<String>,
    new_starting_hash_key: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
    target_shard_count: Option<i64>,
    scaling_type: Option<String>,
}

names_stream!(ListShardsRequest, Reshard);

pub(super) fn list_shards(service: &Kinesis, request: &ListShardsRequest) -> Result<Value, ApiError> {
    let stream_creation = request.stream_creation_timestamp;
    let call = ListShards {
        stream: request.stream(),
        next_token: request.next_token.as_deref(),
        exclusive_start_shard_id: request.exclusive_start_shard_id.as_deref(),
        max_results: request.max_results.map(|most| count(most, "maxResults")).transpose()?,
        filter: request.shard_filter.as_ref().map(filter).transpose()?,
        stream_creation: stream_creation.map(|at| timestamp(at, "StreamCreationTimestamp")).transpose()?,
    };
    let page = service.list_shards(&call)?;
    let mut answer = json!({ "Shards": page.shards.iter().map(render_shard).collect::<Vec<_>>() });
    if let Some(token) = page.next_token {
        answer["NextToken"] = token.into();
    }
    Ok(answer)
}

fn filter(member: &FilterMember) -> Result<ShardFilter, ApiError> {
    let kind = required(member.kind.as_deref(), "shardFilter.type")?;
    let given = (member.shard_id.as_deref(), member.timestamp);
    let at = |seconds| timestamp(seconds, "ShardFilter.Timestamp");
    Ok(match (kind, given) {
        ("AFTER_SHARD_ID", (Some(id), None)) => ShardFilter::AfterShardId(id.to_owned()),
        ("AT_TRIM_HORIZON", (None, None)) => ShardFilter::AtTrimHorizon,
        ("FROM_TRIM_HORIZON", (None, None)) => ShardFilter::FromTrimHorizon,
        ("AT_LATEST", (None, None)) => ShardFilter::AtLatest,
        ("AT_TIMESTAMP", (None, Some(seconds))) => ShardFilter::AtTimestamp(at(seconds)?),
        ("FROM_TIMESTAMP", (None, Some(seconds))) => ShardFilter::FromTimestamp(at(seconds)?),
        (
            "AFTER_SHARD_ID" | "AT_TRIM_HORIZON" | "FROM_TRIM_HORIZON" | "AT_LATEST" | "AT_TIMESTAMP"
            | "FROM_TIMESTAMP",
            _,
        ) => {
            return Err(invalid(format!(
                "A ShardFilter of type {kind} needs a ShardId exactly if it is AFTER_SHARD_ID, and a Timestamp exactly \
                 if it is AT_TIMESTAMP or FROM_TIMESTAMP."
            )));
        }
        _ => {
            let rule = "satisfy enum value set: [AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, \
                        AT_TIMESTAMP, FROM_TIMESTAMP]";
            return Err(constraint(kind, "shardFilter.type", rule));
        }
    })
}

pub(super) fn split_shard(service: &Kinesis, request: &Reshard) -> Result<Value, ApiError> {
    let shard = shard_id(request.shard_to_split.as_deref(), "shardToSplit")?;
    let at = required(request.new_starting_hash_key.as_deref(), "newStartingHashKey")?;
    service.split_shard(request.stream(), shard, hash_key(at, "newStartingHashKey")?)?;
    Ok(empty())
}

pub(super) fn merge_shards(service: &Kinesis, request: &Reshard) -> Result<Value, ApiError> {
    let shard = shard_id(request.shard_to_merge.as_deref(), "shardToMerge")?;
    let adjacent = shard_id(request.adjacent_shard_to_merge.as_deref(), "adjacentShardToMerge")?;
    service.merge_shards(request.stream(), shard, adjacent)?;
    Ok(empty())
}

pub(super) fn update_shard_count(service: &Kinesis, request: &Reshard) -> Result<Value, ApiError> {
    let target = count(required(request.target_shard_count, "targetShardCount")?, "targetShardCount")?;
    let scaling = required(request.scaling_type.as_deref(), "scalingType")?;
    if scaling != "UNIFORM_SCALING" {
        return Err(constraint(scaling, "scalingType", "satisfy enum value set: [UNIFORM_SCALING]"));
    }
    let update = service.update_shard_count(request.stream(), target)?;
    let mut answer = json!({ "CurrentShardCount": update.current, "TargetShardCount": update.target });
    // Whatever names the stream in the request names it in the answer.
    if let Some(name) = request.stream_name() {
        answer["StreamName"] = name.into();
    }
    if let Some(arn) = request.stream_arn() {
        answer["StreamARN"] = arn.into();
    }
    Ok(answer)
}

fn shard_id<'a>(value: Option<&'a str>, member: &str) -> Result<&'a str, ApiError> {
    let id = required(value, member)?;
    identifier(id, member)?;
    Ok(id)
}

pub(super) fn render_shard(shard: &ShardDescription) -> Value {
    let mut numbers = json!({ "StartingSequenceNumber": shard.starting_sequence_number.to_string() });
    if let Some(ending) = shard.ending_sequence_number {
        numbers["EndingSequenceNumber"] = ending.to_string().into();
    }
    let mut answer = Map::new();
    answer.insert("ShardId".into(), shard.shard_id.as_ref().into());
    let parents = [
        ("ParentShardId", &shard.parent_shard_id),
        ("AdjacentParentShardId", &shard.adjacent_parent_shard_id),
    ];
    for (member, parent) in parents {
        if let Some(parent) = parent {
            answer.insert(member.into(), parent.as_ref().into());
        }
    }
    answer.insert("HashKeyRange".into(), render_range(shard.hash_key_range));
    answer.insert("SequenceNumberRange".into(), numbers);
    Value::Object(answer)
}

pub(super) fn render_range(range: HashKeyRange) -> Value {
    json!({ "StartingHashKey": range.start.to_string(), "EndingHashKey": range.end.to_string() })
}
