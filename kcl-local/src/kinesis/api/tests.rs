//! The wire, request by request.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::handle;
use crate::clock::ManualClock;
use crate::error::ApiError;
use crate::kinesis::Kinesis;

const START_MILLIS: u64 = 1_700_000_000_123;

struct Service {
    kinesis: Kinesis,
    clock: Arc<ManualClock>,
}

impl Service {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(UNIX_EPOCH + Duration::from_millis(START_MILLIS)));
        Self { kinesis: Kinesis::new(Arc::clone(&clock) as _), clock }
    }

    fn with_stream(shards: u32) -> Self {
        let service = Self::new();
        service.ok("CreateStream", &json!({ "StreamName": "s", "ShardCount": shards }));
        service
    }

    fn call(&self, operation: &str, request: &Value) -> Result<Value, ApiError> {
        let answer = handle(&self.kinesis, operation, request.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&answer).expect("answers are JSON"))
    }

    fn ok(&self, operation: &str, request: &Value) -> Value {
        self.call(operation, request).unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    fn code(&self, operation: &str, request: &Value) -> String {
        match self.call(operation, request) {
            Ok(answer) => panic!("{operation} answered {answer}"),
            Err(error) => {
                assert_eq!(error.status, 400);
                error.code
            }
        }
    }

    fn iterator(&self, shard: u32) -> Value {
        let id = format!("shardId-{shard:012}");
        let request = json!({ "StreamName": "s", "ShardId": id, "ShardIteratorType": "TRIM_HORIZON" });
        self.ok("GetShardIterator", &request)["ShardIterator"].clone()
    }
}

#[test]
fn a_record_comes_back_as_it_was_put() {
    let service = Service::with_stream(1);
    let put = json!({ "StreamName": "s", "Data": "AAH+/w==", "PartitionKey": "k\"é\n" });
    let placed = service.ok("PutRecord", &put);
    assert_eq!(placed["ShardId"], "shardId-000000000000");
    assert_eq!(placed["EncryptionType"], "NONE");
    let page = service.ok("GetRecords", &json!({ "ShardIterator": service.iterator(0) }));
    assert_eq!(
        page["Records"],
        json!([{
            "SequenceNumber": placed["SequenceNumber"],
            "ApproximateArrivalTimestamp": 1_700_000_000.123,
            "Data": "AAH+/w==",
            "PartitionKey": "k\"é\n",
        }])
    );
    assert_eq!(page["MillisBehindLatest"], 0);
    assert!(page["NextShardIterator"].is_string());
    assert!(page.get("ChildShards").is_none());
}

#[test]
fn a_batch_is_answered_in_order_and_hash_keys_place_its_records() {
    let service = Service::with_stream(2);
    let top = u128::MAX.to_string();
    let records = json!([
        { "Data": "", "PartitionKey": "a", "ExplicitHashKey": top },
        { "Data": "YQ==", "PartitionKey": "a", "ExplicitHashKey": "0" },
    ]);
    let answer = service.ok("PutRecords", &json!({ "StreamName": "s", "Records": records }));
    assert_eq!(answer["FailedRecordCount"], 0);
    assert_eq!(answer["Records"][0]["ShardId"], "shardId-000000000001");
    assert_eq!(answer["Records"][1]["ShardId"], "shardId-000000000000");
    let page = service.ok("GetRecords", &json!({ "ShardIterator": service.iterator(1) }));
    assert_eq!(page["Records"][0]["Data"], "");
}

#[test]
fn a_batch_that_fails_in_part_tells_which_records_and_why() {
    let service = Service::with_stream(1);
    service.kinesis.configure(|options| options.limits.write_records = Some(1));
    let record = json!({ "Data": "YQ==", "PartitionKey": "a" });
    let request = json!({ "StreamName": "s", "Records": [record, record] });
    let answer = service.ok("PutRecords", &request);
    assert_eq!(answer["FailedRecordCount"], 1);
    assert!(answer["Records"][0]["SequenceNumber"].is_string());
    let failed = answer["Records"][1].as_object().expect("an object");
    assert_eq!(failed["ErrorCode"], "ProvisionedThroughputExceededException");
    assert_eq!(
        failed["ErrorMessage"],
        "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000."
    );
    assert!(!failed.contains_key("SequenceNumber") && !failed.contains_key("ShardId"));
}

#[test]
fn a_split_shard_ends_with_its_children_in_the_same_answer() {
    let service = Service::with_stream(1);
    let middle = (1_u128 << 127).to_string();
    service.ok("PutRecord", &json!({ "StreamName": "s", "Data": "YQ==", "PartitionKey": "a" }));
    let split =
        json!({ "StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": middle });
    assert_eq!(service.ok("SplitShard", &split), json!({}));
    let page = service.ok("GetRecords", &json!({ "ShardIterator": service.iterator(0) }));
    assert_eq!(page["Records"].as_array().expect("records").len(), 1);
    assert!(page.get("NextShardIterator").is_none());
    assert_eq!(
        page["ChildShards"],
        json!([
            {
                "ShardId": "shardId-000000000001",
                "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": ((1_u128 << 127) - 1).to_string() },
            },
            {
                "ShardId": "shardId-000000000002",
                "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": { "StartingHashKey": middle, "EndingHashKey": u128::MAX.to_string() },
            },
        ])
    );
}

#[test]
fn listed_shards_carry_lineage_only_where_they_have_it() {
    let service = Service::with_stream(2);
    let merge = json!({
        "StreamName": "s",
        "ShardToMerge": "shardId-000000000000",
        "AdjacentShardToMerge": "shardId-000000000001",
    });
    service.ok("MergeShards", &merge);
    let answer = service.ok("ListShards", &json!({ "StreamName": "s" }));
    let shards = answer["Shards"].as_array().expect("shards");
    assert_eq!(shards.len(), 3);
    assert!(answer.get("NextToken").is_none());
    assert!(shards[0].get("ParentShardId").is_none());
    assert!(shards[0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    assert_eq!(shards[2]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shards[2]["AdjacentParentShardId"], "shardId-000000000001");
    assert!(shards[2]["SequenceNumberRange"].get("EndingSequenceNumber").is_none());
    assert_eq!(shards[2]["HashKeyRange"]["EndingHashKey"], u128::MAX.to_string());
}

#[test]
fn shards_are_filtered_and_paged() {
    let service = Service::with_stream(3);
    let filter = json!({ "Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000" });
    let first =
        service.ok("ListShards", &json!({ "StreamName": "s", "ShardFilter": filter, "MaxResults": 1 }));
    assert_eq!(first["Shards"][0]["ShardId"], "shardId-000000000001");
    let second = service.ok("ListShards", &json!({ "NextToken": first["NextToken"] }));
    assert_eq!(second["Shards"][0]["ShardId"], "shardId-000000000002");
    assert!(second.get("NextToken").is_none());

    let with_name = json!({ "NextToken": first["NextToken"], "StreamName": "s" });
    assert_eq!(service.code("ListShards", &with_name), "InvalidArgumentException");
    service.clock.advance(Duration::from_millis(300_001));
    let late = json!({ "NextToken": first["NextToken"] });
    assert_eq!(service.code("ListShards", &late), "ExpiredNextTokenException");
    for (filter, code) in [
        (json!({}), "ValidationException"),
        (json!({ "Type": "NEWEST" }), "ValidationException"),
        (json!({ "Type": "AFTER_SHARD_ID" }), "InvalidArgumentException"),
        (json!({ "Type": "AT_TIMESTAMP" }), "InvalidArgumentException"),
        (json!({ "Type": "AT_LATEST", "Timestamp": 1.0 }), "InvalidArgumentException"),
    ] {
        assert_eq!(service.code("ListShards", &json!({ "StreamName": "s", "ShardFilter": filter })), code);
    }
}

#[test]
fn a_stream_is_described_in_both_ways() {
    let service = Service::with_stream(2);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let answer = service.ok("DescribeStreamSummary", &json!({ "StreamARN": arn }));
    assert_eq!(
        answer["StreamDescriptionSummary"],
        json!({
            "StreamName": "s",
            "StreamARN": arn,
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": { "StreamMode": "PROVISIONED" },
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1_700_000_000.123,
            "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
            "EncryptionType": "NONE",
            "OpenShardCount": 2,
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": 1024,
        })
    );
    let answer = service.ok("DescribeStream", &json!({ "StreamName": "s", "StreamARN": arn, "Limit": 1 }));
    assert_eq!(answer["StreamDescription"]["Shards"].as_array().expect("shards").len(), 1);
    assert_eq!(answer["StreamDescription"]["HasMoreShards"], true);
}

#[test]
fn streams_are_listed_in_pages() {
    let service = Service::new();
    for name in ["c", "a", "b"] {
        let mode = json!({ "StreamMode": "ON_DEMAND" });
        service.ok("CreateStream", &json!({ "StreamName": name, "StreamModeDetails": mode }));
    }
    let first = service.ok("ListStreams", &json!({ "Limit": 2 }));
    assert_eq!(first["StreamNames"], json!(["a", "b"]));
    assert_eq!(first["HasMoreStreams"], true);
    assert_eq!(first["StreamSummaries"][0]["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    let second = service.ok("ListStreams", &json!({ "NextToken": first["NextToken"] }));
    assert_eq!(second["StreamNames"], json!(["c"]));
    assert_eq!(second["HasMoreStreams"], false);
    let limits = service.ok("DescribeLimits", &json!({}));
    assert_eq!(limits["OnDemandStreamCount"], 3);
    assert_eq!(limits["OpenShardCount"], 0);
}

#[test]
fn the_shard_count_is_answered_under_the_name_it_was_asked_by() {
    let service = Service::with_stream(2);
    let request = json!({ "StreamName": "s", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING" });
    let answer = service.ok("UpdateShardCount", &request);
    assert_eq!(answer, json!({ "StreamName": "s", "CurrentShardCount": 2, "TargetShardCount": 3 }));
    let request = json!({ "StreamName": "s", "TargetShardCount": 3, "ScalingType": "RANDOM" });
    assert_eq!(service.code("UpdateShardCount", &request), "ValidationException");
}

#[test]
fn retention_record_size_and_tags_can_be_changed() {
    let service = Service::with_stream(1);
    service.ok("IncreaseStreamRetentionPeriod", &json!({ "StreamName": "s", "RetentionPeriodHours": 48 }));
    service.ok(
        "UpdateMaxRecordSize",
        &json!({ "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/s",
        "MaxRecordSizeInKiB": 2048 }),
    );
    let summary = service.ok("DescribeStreamSummary", &json!({ "StreamName": "s" }));
    assert_eq!(summary["StreamDescriptionSummary"]["RetentionPeriodHours"], 48);
    assert_eq!(summary["StreamDescriptionSummary"]["MaxRecordSizeInKiB"], 2048);
    let decrease = |hours: i64| json!({ "StreamName": "s", "RetentionPeriodHours": hours });
    for hours in [-1, 0, 23, 49] {
        let code = service.code("DecreaseStreamRetentionPeriod", &decrease(hours));
        assert_eq!(code, "InvalidArgumentException");
    }
    service.ok("DecreaseStreamRetentionPeriod", &decrease(24));

    service.ok("AddTagsToStream", &json!({ "StreamName": "s", "Tags": { "a": "1", "b": "2", "c": "3" } }));
    service.ok("RemoveTagsFromStream", &json!({ "StreamName": "s", "TagKeys": ["b"] }));
    let tags = service.ok("ListTagsForStream", &json!({ "StreamName": "s", "Limit": 1 }));
    assert_eq!(tags, json!({ "Tags": [{ "Key": "a", "Value": "1" }], "HasMoreTags": true }));
    let rest = service.ok("ListTagsForStream", &json!({ "StreamName": "s", "ExclusiveStartTagKey": "a" }));
    assert_eq!(rest, json!({ "Tags": [{ "Key": "c", "Value": "3" }], "HasMoreTags": false }));
}

#[test]
fn malformed_and_unknown_requests_are_told_apart() {
    let service = Service::with_stream(1);
    let bytes = |operation: &str, body: &[u8]| handle(&service.kinesis, operation, body).unwrap_err().code;
    assert_eq!(bytes("PutRecord", b"{"), "SerializationException");
    assert_eq!(bytes("PutRecord", b""), "ValidationException");
    assert_eq!(bytes("ListShards", b"[]"), "SerializationException");
    assert_eq!(bytes("ListShards", br#"{"StreamName":7}"#), "SerializationException");
    assert_eq!(bytes("SubscribeToMoon", b"{}"), "UnknownOperationException");
    let junk = json!({ "StreamName": "s", "Data": "?", "PartitionKey": "a" });
    assert_eq!(service.code("PutRecord", &junk), "SerializationException");
}

#[test]
fn values_out_of_bounds_are_refused_with_the_documented_code() {
    let service = Service::with_stream(1);
    let shard = "shardId-000000000000";
    let iterator = service.iterator(0);
    let put = |key: &str, explicit: &str| json!({ "StreamName": "s", "Data": "", "PartitionKey": key, "ExplicitHashKey": explicit });
    let start = |kind: &str| json!({ "StreamName": "s", "ShardId": shard, "ShardIteratorType": kind });
    let junk_number = json!({ "StreamName": "s", "ShardId": shard, "StartingSequenceNumber": "x",
        "ShardIteratorType": "AT_SEQUENCE_NUMBER" });
    for (operation, request, code) in [
        ("PutRecord", put("", "0"), "ValidationException"),
        ("PutRecord", put(&"é".repeat(257), "0"), "ValidationException"),
        ("PutRecord", put("a", "01"), "ValidationException"),
        ("PutRecord", put("a", &"9".repeat(39)), "InvalidArgumentException"),
        ("PutRecords", json!({ "StreamName": "s", "Records": [] }), "ValidationException"),
        ("GetRecords", json!({ "ShardIterator": iterator, "Limit": 0 }), "ValidationException"),
        ("GetRecords", json!({ "ShardIterator": iterator, "Limit": 10_001 }), "InvalidArgumentException"),
        ("GetRecords", json!({ "ShardIterator": "junk" }), "InvalidArgumentException"),
        ("GetShardIterator", start("OLDEST"), "ValidationException"),
        ("GetShardIterator", start("AT_SEQUENCE_NUMBER"), "InvalidArgumentException"),
        ("GetShardIterator", start("AT_TIMESTAMP"), "InvalidArgumentException"),
        ("GetShardIterator", junk_number, "InvalidArgumentException"),
        ("CreateStream", json!({ "StreamName": "t" }), "InvalidArgumentException"),
        ("CreateStream", json!({ "StreamName": "t", "ShardCount": 0 }), "ValidationException"),
        ("CreateStream", json!({ "StreamName": "a b", "ShardCount": 1 }), "ValidationException"),
        ("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }), "ResourceInUseException"),
        ("DescribeStream", json!({ "StreamName": "none" }), "ResourceNotFoundException"),
        ("DescribeStream", json!({ "StreamARN": "arn:aws:sqs:x" }), "ValidationException"),
        ("DescribeStream", json!({}), "InvalidArgumentException"),
        ("DeleteStream", json!({ "StreamName": "none" }), "ResourceNotFoundException"),
    ] {
        assert_eq!(service.code(operation, &request), code, "{operation} {request}");
    }
}

#[test]
fn a_dry_run_does_nothing_and_says_that_it_would_have_succeeded() {
    let service = Service::with_stream(1);
    let put = json!({ "StreamName": "s", "Data": "", "PartitionKey": "a", "DryRun": true });
    assert_eq!(service.code("PutRecord", &put), "DryRunOperationException");
    assert_eq!(service.kinesis.total_records("s"), Ok(0));
    let put = json!({ "StreamName": "none", "Data": "", "PartitionKey": "a", "DryRun": true });
    assert_eq!(service.code("PutRecord", &put), "ResourceNotFoundException");
}
