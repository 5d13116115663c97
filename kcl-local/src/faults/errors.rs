//! The errors that AWS sends in bad weather.

use crate::error::ApiError;

/// `ProvisionedThroughputExceededException`: the limit of a shard, a table or an index.
#[must_use]
pub fn provisioned_throughput_exceeded() -> ApiError {
    ApiError::client("ProvisionedThroughputExceededException", "Rate exceeded")
}

/// `ThrottlingException`: too many calls of a control-plane operation.
#[must_use]
pub fn throttling() -> ApiError {
    ApiError::client("ThrottlingException", "Rate exceeded")
}

/// `LimitExceededException`: too many calls or resources of one account.
#[must_use]
pub fn limit_exceeded() -> ApiError {
    ApiError::client("LimitExceededException", "Rate exceeded for the account")
}

/// `InternalServerError` with status 500, as DynamoDB sends it.
#[must_use]
pub fn internal_server_error() -> ApiError {
    ApiError {
        status: 500,
        code: "InternalServerError".into(),
        message: "The request processing has failed because of an unknown error".into(),
    }
}

/// `ServiceUnavailable` with status 503.
#[must_use]
pub fn service_unavailable() -> ApiError {
    ApiError {
        status: 503,
        code: "ServiceUnavailable".into(),
        message: "Service is temporarily unavailable".into(),
    }
}

/// `ExpiredIteratorException`: a shard iterator older than five minutes.
#[must_use]
pub fn expired_iterator() -> ApiError {
    ApiError::client("ExpiredIteratorException", "Iterator expired. Get a new one")
}

/// `ResourceNotFoundException`: no such stream, shard or table.
#[must_use]
pub fn resource_not_found() -> ApiError {
    ApiError::client("ResourceNotFoundException", "Requested resource not found")
}

/// `AccessDeniedException`: the policy of the caller does not allow the call.
#[must_use]
pub fn access_denied() -> ApiError {
    ApiError::client("AccessDeniedException", "User is not authorized to perform this action")
}

/// `KMSThrottlingException`: an encrypted stream whose key is asked for too often.
#[must_use]
pub fn kms_throttling() -> ApiError {
    ApiError::client("KMSThrottlingException", "The request was denied due to request throttling")
}
