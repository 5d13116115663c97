//! The router: one request in, one answer out, whatever the transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ApiError;
use crate::kinesis::{self, Kinesis};
use crate::wire::{AwsRequest, AwsResponse, JSON_1_1, Service};

#[cfg(feature = "cloudwatch")]
use crate::cloudwatch::CloudWatch;
#[cfg(feature = "dynamodb")]
use crate::dynamodb::DynamoDb;

/// The local services behind one entry point. Clones share the same state.
///
/// A service that was not added answers `UnknownOperationException`, as AWS does for an operation
/// it does not know.
#[derive(Clone, Debug)]
pub struct Services {
    kinesis: Kinesis,
    #[cfg(feature = "dynamodb")]
    dynamodb: Option<DynamoDb>,
    #[cfg(feature = "cloudwatch")]
    cloudwatch: Option<CloudWatch>,
    answered: Arc<AtomicU64>,
}

impl Services {
    /// Serves `kinesis` alone.
    #[must_use]
    pub fn new(kinesis: Kinesis) -> Self {
        Self {
            kinesis,
            #[cfg(feature = "dynamodb")]
            dynamodb: None,
            #[cfg(feature = "cloudwatch")]
            cloudwatch: None,
            answered: Arc::default(),
        }
    }

    /// Serves `dynamodb` too.
    #[cfg(feature = "dynamodb")]
    #[must_use]
    pub fn with_dynamodb(mut self, dynamodb: DynamoDb) -> Self {
        self.dynamodb = Some(dynamodb);
        self
    }

    /// Serves `cloudwatch` too.
    #[cfg(feature = "cloudwatch")]
    #[must_use]
    pub fn with_cloudwatch(mut self, cloudwatch: CloudWatch) -> Self {
        self.cloudwatch = Some(cloudwatch);
        self
    }

    /// The Kinesis model.
    #[must_use]
    pub fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// DynamoDB, if it was added.
    #[cfg(feature = "dynamodb")]
    #[must_use]
    pub fn dynamodb(&self) -> Option<&DynamoDb> {
        self.dynamodb.as_ref()
    }

    /// CloudWatch, if it was added.
    #[cfg(feature = "cloudwatch")]
    #[must_use]
    pub fn cloudwatch(&self) -> Option<&CloudWatch> {
        self.cloudwatch.as_ref()
    }

    /// Answers one request. Never waits: the services run on the calling thread. The body of an event stream sends
    /// its frames when it is polled.
    ///
    /// Each answer carries an `x-amzn-requestid`, numbered in the order of the answers so that a
    /// run with one thread gives the same ids each time. Signatures are not checked.
    #[must_use]
    pub fn handle(&self, request: &AwsRequest) -> AwsResponse {
        let mut response = self.route(request);
        let number = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        response.headers.push(("x-amzn-requestid", format!("00000000-0000-4000-8000-{number:012x}")));
        response
    }

    fn route(&self, request: &AwsRequest) -> AwsResponse {
        if request.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/x-amz-cbor")) {
            // The Java SDK speaks CBOR to Kinesis unless told otherwise.
            let remedy = "CBOR is not spoken here; switch it off, in Java by aws.cborEnabled=false";
            return AwsResponse::error(&ApiError::client("SerializationException", remedy));
        }
        let Some(target) = request.target() else {
            return unknown_operation(request.amz_target.as_deref().unwrap_or(&request.path));
        };
        match target.service {
            Service::Kinesis if target.operation == kinesis::api::SUBSCRIBE => {
                match kinesis::api::subscribe(&self.kinesis, &request.body) {
                    Ok(events) => AwsResponse::events(events),
                    Err(error) => AwsResponse::error(&error),
                }
            }
            Service::Kinesis => match kinesis::api::handle(&self.kinesis, &target.operation, &request.body) {
                Ok(body) => AwsResponse::new(200, JSON_1_1, body),
                Err(error) => AwsResponse::error(&error),
            },
            #[cfg(feature = "dynamodb")]
            Service::DynamoDb => match &self.dynamodb {
                Some(dynamodb) => dynamodb.handle(&target.operation, &request.body),
                None => unknown_operation(&target.operation),
            },
            #[cfg(not(feature = "dynamodb"))]
            Service::DynamoDb => unknown_operation(&target.operation),
            #[cfg(feature = "cloudwatch")]
            Service::CloudWatch => match &self.cloudwatch {
                Some(cloudwatch) => cloudwatch.handle(&target.operation, request),
                None => AwsResponse::cbor_error(&unknown(&target.operation)),
            },
            #[cfg(not(feature = "cloudwatch"))]
            Service::CloudWatch => AwsResponse::cbor_error(&unknown(&target.operation)),
        }
    }
}

fn unknown_operation(what: &str) -> AwsResponse {
    AwsResponse::error(&unknown(what))
}

fn unknown(what: &str) -> ApiError {
    ApiError::client("UnknownOperationException", format!("not served here: {what}"))
}
