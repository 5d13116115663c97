//! Entry point of a fuzz target, a law that holds for any bytes. Also run by the crate's own tests.

use std::sync::Arc;
use std::time::SystemTime;

use kcl_local::clock::ManualClock;
use kcl_local::cloudwatch::CloudWatch;
use kcl_local::kinesis::Kinesis;
use kcl_local::services::Services;
use kcl_local::wire::AwsRequest;

const PATH: &str = "/service/GraniteServiceVersion20100801/operation/PutMetricData";

/// Takes the first byte for the encoding and the others for the body of a `PutMetricData` request in CBOR.
pub fn requests(bytes: &[u8]) {
    let Some((encoding, body)) = bytes.split_first() else { return };
    let encoding = match encoding {
        b'z' => Some("gzip"),
        b'?' => Some("zstd"),
        _ => None,
    };
    let header = |name| match name {
        "content-type" => Some("application/cbor"),
        "content-encoding" => encoding,
        _ => None,
    };
    let cloudwatch = CloudWatch::new();
    let kinesis = Kinesis::new(Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH)));
    let services = Services::new(kinesis).with_cloudwatch(cloudwatch.clone());
    let answer = services.handle(&AwsRequest::new(PATH, header, body.to_vec().into()));
    match answer.status {
        200 => {
            assert_eq!(answer.body.bytes().map(AsRef::as_ref), Some([0xA0].as_slice()));
            for datum in cloudwatch.datums() {
                assert!(datum.timestamp.is_none_or(|time| time >= SystemTime::UNIX_EPOCH));
            }
        }
        400 => {
            assert!(cloudwatch.datums().is_empty(), "what is refused leaves nothing");
            let kind = answer.headers.iter().find(|(name, _)| *name == "x-amzn-errortype");
            assert_eq!(kind.map(|(_, kind)| kind.as_str()), Some("SerializationException"));
        }
        status => unreachable!("{status}"),
    }
}
