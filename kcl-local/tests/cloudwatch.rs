//! CloudWatch over requests that aws-sdk-cloudwatch 1.140.0 sent.
//!
//! The bodies are kept as files so that the tests need not build that large crate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

#[path = "../fuzz/src/cloudwatch.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod fuzz;
#[path = "../../kpl-aggregation/tests/it/seeds.rs"]
mod seeds;

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use kcl_local::LocalAws;
use kcl_local::wire::{AwsRequest, AwsResponse};

const PLAIN: &[u8] = include_bytes!("data/put_metric_data.cbor");
const GZIPPED: &[u8] = include_bytes!("data/put_metric_data_200.cbor.gz");

fn put(aws: &LocalAws, encoding: Option<&'static str>, body: &'static [u8]) -> AwsResponse {
    let header = move |name| match name {
        "content-type" => Some("application/cbor"),
        "content-encoding" => encoding,
        _ => None,
    };
    let path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
    aws.services().handle(&AwsRequest::new(path, header, Bytes::from_static(body)))
}

#[test]
fn every_form_of_a_datum_is_captured() {
    let aws = LocalAws::in_process().unwrap();
    let answer = put(&aws, None, PLAIN);
    assert_eq!((answer.status, answer.body.bytes().unwrap().as_ref()), (200, [0xA0].as_slice()));
    let [single, set, values] = aws.services().cloudwatch().unwrap().take().try_into().unwrap();

    assert_eq!((single.namespace.as_str(), single.name.as_str()), ("orders-app", "RecordsProcessed"));
    assert_eq!(single.dimensions, [("ShardId".to_owned(), "shardId-000000000007".to_owned())]);
    assert_eq!(single.timestamp, Some(UNIX_EPOCH + Duration::from_millis(1_790_000_000_250)));
    assert_eq!((single.value, single.unit.as_deref()), (Some(7.5), Some("Count")));
    assert_eq!(single.storage_resolution, Some(1));

    let statistics = set.statistics.unwrap();
    let all = (statistics.sample_count, statistics.sum, statistics.minimum, statistics.maximum);
    assert_eq!(all, (3.0, 6.0, 1.0, 3.0));
    assert_eq!((values.values, values.counts), (vec![1.0, 2.0], vec![4.0, 5.0]));
    assert!(aws.services().cloudwatch().unwrap().datums().is_empty());
}

#[test]
fn a_compressed_request_is_unpacked() {
    let aws = LocalAws::in_process().unwrap();
    assert_eq!(put(&aws, Some("gzip"), GZIPPED).status, 200);
    let datums = aws.services().cloudwatch().unwrap().datums();
    assert_eq!(datums.len(), 200);
    assert_eq!(datums[199].value, Some(199.5));
}

#[test]
fn a_damaged_request_is_refused_and_captures_nothing() {
    let aws = LocalAws::in_process().unwrap();
    for (encoding, body) in [
        (None, &PLAIN[..40]),
        (Some("gzip"), &GZIPPED[..200]),
        (Some("gzip"), PLAIN),
        (Some("zstd"), PLAIN),
        (None, b"\xA0".as_slice()),
    ] {
        let answer = put(&aws, encoding, body);
        assert_eq!(answer.status, 400);
        let kind = answer.headers.iter().find(|(name, _)| *name == "x-amzn-errortype").unwrap();
        assert_eq!(kind.1, "SerializationException");
    }
    assert!(aws.services().cloudwatch().unwrap().datums().is_empty());
}

#[test]
fn any_request_is_captured_whole_or_refused() {
    seeds::run("cloudwatch", 200, fuzz::requests);
}
