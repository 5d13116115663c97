//! Requests and answers as the AWS protocols frame them, free of any HTTP library.

#[cfg(any(feature = "client", feature = "server"))]
use std::pin::Pin;
#[cfg(any(feature = "client", feature = "server"))]
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::ApiError;
use crate::event_stream::EventStream;

/// A service that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Service {
    /// Amazon Kinesis Data Streams (`Kinesis_20131202`).
    Kinesis,
    /// Amazon DynamoDB (`DynamoDB_20120810`).
    DynamoDb,
    /// Amazon CloudWatch metrics (`GraniteServiceVersion20100801`).
    CloudWatch,
}

/// What a request asks for: a service and one of its operations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The service.
    pub service: Service,
    /// The operation, for example `GetRecords`.
    pub operation: String,
}

impl Target {
    /// Reads the target from the `X-Amz-Target` header or, for Smithy RPC v2, from the path.
    ///
    /// `None` is a request for a service that is not known here.
    #[must_use]
    pub fn parse(amz_target: Option<&str>, path: &str) -> Option<Self> {
        if let Some(target) = amz_target {
            let (prefix, operation) = target.split_once('.')?;
            let service = match prefix {
                "Kinesis_20131202" => Service::Kinesis,
                "DynamoDB_20120810" => Service::DynamoDb,
                "GraniteServiceVersion20100801" => Service::CloudWatch,
                _ => return None,
            };
            return Some(Self { service, operation: operation.to_owned() });
        }
        let (service, operation) = path.strip_prefix("/service/")?.split_once("/operation/")?;
        (service == "GraniteServiceVersion20100801")
            .then(|| Self { service: Service::CloudWatch, operation: operation.to_owned() })
    }
}

/// A request, reduced to what the services look at.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AwsRequest {
    /// The path of the URI, `/` for the JSON protocols.
    pub path: String,
    /// The `X-Amz-Target` header.
    pub amz_target: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Content-Encoding` header.
    pub content_encoding: Option<String>,
    /// The body as sent.
    pub body: Bytes,
}

impl AwsRequest {
    /// Takes a request apart; `header` looks up a header by its lower-case name.
    pub fn new<'h>(path: &str, header: impl Fn(&'static str) -> Option<&'h str>, body: Bytes) -> Self {
        let owned = |name| header(name).map(str::to_owned);
        Self {
            path: path.to_owned(),
            amz_target: owned("x-amz-target"),
            content_type: owned("content-type"),
            content_encoding: owned("content-encoding"),
            body,
        }
    }

    /// What the request asks for, if it is for a service known here.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        Target::parse(self.amz_target.as_deref(), &self.path)
    }
}

/// An answer: status, headers and body.
#[derive(Debug)]
#[non_exhaustive]
pub struct AwsResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: AwsBody,
}

/// The body of an answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum AwsBody {
    /// All of it.
    Whole(Bytes),
    /// Frames that come as things happen.
    Events(Box<EventStream>),
}

impl AwsBody {
    /// The bytes of a body that is whole, or `None` for a stream.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Events(_) => None,
        }
    }
}

/// What the body sends next, pulled by whoever writes it: a reader that does not read stops it.
#[cfg(any(feature = "client", feature = "server"))]
impl hyper::body::Body for AwsBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let data = match &mut *self {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Events(events) => std::task::ready!(events.poll_frame(cx)),
        };
        Poll::Ready(data.map(|data| Ok(hyper::body::Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// The media type of the AWS JSON protocol of Kinesis.
pub(crate) const JSON_1_1: &str = "application/x-amz-json-1.1";
/// The media type of event streams.
pub(crate) const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
/// The media type of Smithy RPC v2 CBOR.
pub(crate) const CBOR: &str = "application/cbor";
/// The media type of the AWS JSON protocol of DynamoDB.
#[cfg(feature = "dynamodb")]
pub(crate) const JSON_1_0: &str = "application/x-amz-json-1.0";

impl AwsResponse {
    /// An answer with one header, its content type.
    pub(crate) fn new(status: u16, content_type: &str, body: Bytes) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: AwsBody::Whole(body) }
    }

    /// An answer that goes on for as long as there are events.
    pub(crate) fn events(events: EventStream) -> Self {
        let headers = vec![("content-type", EVENT_STREAM.to_owned())];
        Self { status: 200, headers, body: AwsBody::Events(Box::new(events)) }
    }

    /// Renders an error as the JSON protocols do: `__type` and `message`, and the code once more in
    /// the `x-amzn-errortype` header.
    #[must_use]
    pub fn error(error: &ApiError) -> Self {
        let body = serde_json::json!({ "__type": error.code, "message": error.message });
        let mut response = Self::new(error.status, JSON_1_1, Bytes::from(body.to_string()));
        response.headers.push(("x-amzn-errortype", error.code.clone()));
        response
    }

    /// Renders an error as Smithy RPC v2 CBOR does: a map of two texts.
    #[must_use]
    pub fn cbor_error(error: &ApiError) -> Self {
        let mut body = vec![0xA2];
        for text in ["__type", &error.code, "message", &error.message] {
            // A text of a length below 2^32, in the form that is valid for any of them.
            body.push(0x7A);
            body.extend_from_slice(&(text.len() as u32).to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        let mut response = Self::new(error.status, CBOR, Bytes::from(body));
        response.headers.push(("smithy-protocol", "rpc-v2-cbor".to_owned()));
        response.headers.push(("x-amzn-errortype", error.code.clone()));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_read_from_the_header_or_from_the_path() {
        let kinesis = Target::parse(Some("Kinesis_20131202.GetRecords"), "/").unwrap();
        assert_eq!((kinesis.service, kinesis.operation.as_str()), (Service::Kinesis, "GetRecords"));
        let dynamodb = Target::parse(Some("DynamoDB_20120810.Scan"), "/").unwrap();
        assert_eq!((dynamodb.service, dynamodb.operation.as_str()), (Service::DynamoDb, "Scan"));
        let path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
        let cloudwatch = Target::parse(None, path).unwrap();
        assert_eq!(
            (cloudwatch.service, cloudwatch.operation.as_str()),
            (Service::CloudWatch, "PutMetricData")
        );
    }

    #[test]
    fn a_foreign_target_is_none() {
        assert_eq!(Target::parse(Some("AmazonSSM.GetParameter"), "/"), None);
        assert_eq!(Target::parse(Some("Kinesis_20131202"), "/"), None);
        assert_eq!(Target::parse(None, "/"), None);
        assert_eq!(Target::parse(None, "/service/Other/operation/PutMetricData"), None);
    }
}
