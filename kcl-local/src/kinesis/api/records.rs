//! Requests that carry records, written by hand since they carry nearly all the bytes.

use std::io::Write;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinesis::errors::{constraint, identifier, invalid, within};
use crate::kinesis::{
    ChildShard, GetRecordsOutput, IteratorStart, Kinesis, NewRecord, Placement, SequenceNumber, StoredRecord,
    StreamRef, SubscriptionEvent,
};

use super::request::{NamesStream, Text, count, hash_key, names_stream, required, timestamp, unless_dry_run};
use super::shards::render_range;
use super::{malformed, or_empty, parse};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecord<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    explicit_hash_key: Option<String>,
    sequence_number_for_ordering: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(borrow)]
    records: Option<Vec<Entry<'a>>>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    explicit_hash_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetShardIterator {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    starting_sequence_number: Option<String>,
    timestamp: Option<f64>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetRecords {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_iterator: Option<String>,
    limit: Option<i64>,
    dry_run: Option<bool>,
}

names_stream!(PutRecord<'_>, PutRecords<'_>, GetShardIterator);

pub(super) fn put_record(service: &Kinesis, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: PutRecord<'_> = serde_json::from_slice(or_empty(body)).map_err(malformed)?;
    if let Some(number) = &request.sequence_number_for_ordering {
        // Numbers grow in the order of the puts whatever the caller has seen, so only its form counts.
        let parsed: Result<SequenceNumber, _> = number.parse();
        parsed.map_err(|_| invalid(format!("SequenceNumberForOrdering {number} is invalid.")))?;
    }
    let entry = Entry {
        data: required(request.data.as_ref(), "data").map(|text| Some(Text(text.0.as_ref().into())))?,
        partition_key: request.partition_key.as_ref().map(|text| Text(text.0.as_ref().into())),
        explicit_hash_key: request.explicit_hash_key.clone(),
    };
    let record = decode(&[entry], "")?.pop().ok_or_else(|| ApiError::server("one entry makes one record"))?;
    check_dry_run(service, request.dry_run, &request.stream())?;
    let placement = service.put_record(request.stream(), record)?;
    let mut answer = Vec::with_capacity(160);
    write_placement(&mut answer, &placement);
    answer.pop();
    answer.extend_from_slice(br#","EncryptionType":"NONE"}"#);
    Ok(answer.into())
}

pub(super) fn put_records(service: &Kinesis, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: PutRecords<'_> = serde_json::from_slice(or_empty(body)).map_err(malformed)?;
    let records = decode(required(request.records.as_deref(), "records")?, "records.")?;
    check_dry_run(service, request.dry_run, &request.stream())?;
    let results = service.put_records(request.stream(), records)?;
    let failed = results.iter().filter(|result| result.is_err()).count();
    let mut answer = Vec::with_capacity(64 + results.len() * 128);
    write(&mut answer, format_args!(r#"{{"FailedRecordCount":{failed},"EncryptionType":"NONE","Records":["#));
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            answer.push(b',');
        }
        match result {
            Ok(placement) => write_placement(&mut answer, placement),
            Err(error) => {
                let entry = json!({ "ErrorCode": error.code, "ErrorMessage": error.message });
                write(&mut answer, format_args!("{entry}"));
            }
        }
    }
    answer.extend_from_slice(b"]}");
    Ok(answer.into())
}

/// Decodes the entries of a put; their payloads share one buffer.
fn decode(entries: &[Entry<'_>], path: &str) -> Result<Vec<NewRecord>, ApiError> {
    let text = |entry: &Entry<'_>| entry.data.as_ref().map_or(0, |data| data.0.len());
    let mut buffer = Vec::with_capacity(entries.iter().map(|entry| text(entry) / 4 * 3).sum());
    let mut ends = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let data = required(entry.data.as_ref(), &member(path, index, "data"))?;
        STANDARD.decode_vec(data.0.as_bytes(), &mut buffer).map_err(malformed)?;
        ends.push(buffer.len());
    }
    let buffer = Bytes::from(buffer);
    let mut start = 0;
    let records = entries.iter().zip(ends).enumerate().map(|(index, (entry, end))| {
        let key = required(entry.partition_key.as_ref(), &member(path, index, "partitionKey"))?;
        let record = NewRecord::new(key.0.as_ref(), buffer.slice(start..end));
        start = end;
        Ok(match &entry.explicit_hash_key {
            Some(text) => record.with_explicit_hash_key(hash_key(text, "explicitHashKey")?),
            None => record,
        })
    });
    records.collect()
}

fn member(path: &str, index: usize, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}{}.member.{name}", index + 1) }
}

fn write_placement(out: &mut Vec<u8>, placement: &Placement) {
    write(out, format_args!(r#"{{"ShardId":"{}","SequenceNumber":""#, placement.shard_id));
    placement.sequence_number.write_decimal(out);
    out.extend_from_slice(br#""}"#);
}

pub(super) fn get_shard_iterator(service: &Kinesis, request: &GetShardIterator) -> Result<Value, ApiError> {
    let shard = required(request.shard_id.as_deref(), "shardId")?;
    identifier(shard, "shardId")?;
    let start = StartText {
        member: "shardIteratorType",
        operation: "GetShardIterator",
        kind: request.shard_iterator_type.as_deref(),
        sequence_number: request.starting_sequence_number.as_deref(),
        timestamp: request.timestamp,
    };
    let start = iterator_start(&start, shard)?;
    check_dry_run(service, request.dry_run, &request.stream())?;
    let iterator = service.get_shard_iterator(request.stream(), shard, &start)?;
    Ok(json!({ "ShardIterator": iterator }))
}

/// Where to start, as requests say it.
pub(super) struct StartText<'a> {
    /// The member that holds the kind.
    pub(super) member: &'static str,
    pub(super) operation: &'static str,
    pub(super) kind: Option<&'a str>,
    pub(super) sequence_number: Option<&'a str>,
    pub(super) timestamp: Option<f64>,
}

pub(super) fn iterator_start(start: &StartText<'_>, shard: &str) -> Result<IteratorStart, ApiError> {
    let kind = required(start.kind, start.member)?;
    let number = || -> Result<SequenceNumber, ApiError> {
        let text = start.sequence_number.ok_or_else(|| {
            invalid(format!("Must specify startingSequenceNumber parameter for iterator of type {kind}."))
        })?;
        let used = format!("StartingSequenceNumber {text} used in {} on shard {shard}", start.operation);
        text.parse().map_err(|_| invalid(format!("{used} is invalid.")))
    };
    let at = || -> Result<SystemTime, ApiError> {
        let seconds = start.timestamp.ok_or_else(|| {
            invalid(format!("Must specify timestampInMillis parameter for iterator of type {kind}."))
        })?;
        timestamp(seconds, "Timestamp")
    };
    Ok(match kind {
        "TRIM_HORIZON" => IteratorStart::TrimHorizon,
        "LATEST" => IteratorStart::Latest,
        "AT_SEQUENCE_NUMBER" => IteratorStart::AtSequenceNumber(number()?),
        "AFTER_SEQUENCE_NUMBER" => IteratorStart::AfterSequenceNumber(number()?),
        "AT_TIMESTAMP" => IteratorStart::AtTimestamp(at()?),
        _ => {
            let rule = "satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, \
                        TRIM_HORIZON]";
            return Err(constraint(kind, start.member, rule));
        }
    })
}

pub(super) fn get_records(service: &Kinesis, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: GetRecords = parse(body)?;
    let iterator = required(request.shard_iterator.as_deref(), "shardIterator")?;
    within(iterator.len(), (1, 512), "shardIterator")?;
    let limit = request.limit.map(|limit| count(limit, "limit")).transpose()?;
    unless_dry_run(request.dry_run, "GetRecords")?;
    let stream = StreamRef::new(None, request.stream_arn.as_deref());
    let output = service.get_records_of(&stream, iterator, limit)?;
    Ok(render_output(&output).into())
}

fn render_output(output: &GetRecordsOutput) -> Vec<u8> {
    let mut answer = Vec::with_capacity(512 + rendered_size(&output.records));
    write(&mut answer, format_args!(r#"{{"MillisBehindLatest":{}"#, output.millis_behind_latest));
    if let Some(iterator) = &output.next_iterator {
        write(&mut answer, format_args!(r#","NextShardIterator":"{iterator}""#));
    }
    write_rest(&mut answer, &output.child_shards, &output.records);
    answer
}

fn rendered_size(records: &[StoredRecord]) -> usize {
    let size = |record: &StoredRecord| 200 + record.partition_key.len() + record.data.len() / 3 * 4;
    records.iter().map(size).sum()
}

pub(super) fn render_event(event: &SubscriptionEvent) -> Vec<u8> {
    let mut json = Vec::with_capacity(512 + rendered_size(&event.records));
    write(&mut json, format_args!(r#"{{"MillisBehindLatest":{}"#, event.millis_behind_latest));
    if let Some(number) = event.continuation {
        write(&mut json, format_args!(r#","ContinuationSequenceNumber":"{number}""#));
    }
    write_rest(&mut json, &event.child_shards, &event.records);
    json
}

/// What the answers that carry records end in.
fn write_rest(out: &mut Vec<u8>, children: &[ChildShard], records: &[StoredRecord]) {
    if !children.is_empty() {
        let children: Value = children.iter().map(render_child).collect();
        write(out, format_args!(r#","ChildShards":{children}"#));
    }
    out.extend_from_slice(br#","Records":["#);
    let mut stamp = Stamp::default();
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_record(out, record, &mut stamp);
    }
    out.extend_from_slice(b"]}");
}

/// The text of the last arrival time: many records share one.
#[derive(Default)]
struct Stamp {
    millis: Option<u64>,
    text: Vec<u8>,
}

impl Stamp {
    fn of(&mut self, millis: u64) -> &[u8] {
        if self.millis != Some(millis) {
            self.text.clear();
            write(&mut self.text, format_args!("{}.{:03}", millis / 1_000, millis % 1_000));
            self.millis = Some(millis);
        }
        &self.text
    }
}

fn write_record(out: &mut Vec<u8>, record: &StoredRecord, stamp: &mut Stamp) {
    out.extend_from_slice(br#"{"SequenceNumber":""#);
    record.sequence_number.write_decimal(out);
    out.extend_from_slice(br#"","ApproximateArrivalTimestamp":"#);
    out.extend_from_slice(stamp.of(crate::kinesis::millis(record.arrival)));
    out.extend_from_slice(br#","Data":""#);
    write_base64(out, &record.data);
    out.extend_from_slice(br#"","PartitionKey":"#);
    serde_json::to_writer(&mut *out, &*record.partition_key).expect("text can be written to a vector");
    out.push(b'}');
}

fn write_base64(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    out.resize(start + data.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(data, &mut out[start..]).expect("the room is what base64 takes");
    out.truncate(start + written);
}

fn render_child(child: &ChildShard) -> Value {
    json!({
        "ShardId": &*child.shard_id,
        "ParentShards": child.parent_shards.iter().map(|parent| &**parent).collect::<Vec<_>>(),
        "HashKeyRange": render_range(child.hash_key_range),
    })
}

/// A trial run fails where the stream is missing, and otherwise says that it would have succeeded.
fn check_dry_run(service: &Kinesis, dry_run: Option<bool>, stream: &StreamRef<'_>) -> Result<(), ApiError> {
    if dry_run == Some(true) {
        service.with(|state| state.live(stream).map(|_| ()))?;
    }
    unless_dry_run(dry_run, "nothing was done")
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes what is written");
}
