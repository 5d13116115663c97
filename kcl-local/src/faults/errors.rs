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

/// `ResourceInUseException`: another subscription holds the shard, or the resource is not active.
#[must_use]
pub fn resource_in_use() -> ApiError {
    ApiError::client("ResourceInUseException", "Another active subscription exists for this consumer")
}

/// `InternalFailureException` with status 500, as an event stream of Kinesis carries it.
#[must_use]
pub fn internal_failure() -> ApiError {
    ApiError {
        status: 500,
        code: "InternalFailureException".into(),
        message: "Internal failure of the service".into(),
    }
}

/// `KMSDisabledException`: an encrypted stream whose key is switched off.
#[must_use]
pub fn kms_disabled() -> ApiError {
    ApiError::client("KMSDisabledException", "The key is disabled")
}

/// `KMSInvalidStateException`: an encrypted stream whose key is in no state to be used.
#[must_use]
pub fn kms_invalid_state() -> ApiError {
    ApiError::client("KMSInvalidStateException", "The state of the key does not allow the request")
}

/// `KMSAccessDeniedException`: the policy of the key does not allow the caller to use it.
#[must_use]
pub fn kms_access_denied() -> ApiError {
    ApiError::client("KMSAccessDeniedException", "The ciphertext refers to a key that may not be used")
}

/// `KMSNotFoundException`: an encrypted stream whose key does not exist.
#[must_use]
pub fn kms_not_found() -> ApiError {
    ApiError::client("KMSNotFoundException", "The key does not exist")
}

/// `KMSOptInRequired`: an account that has not subscribed to the key service.
#[must_use]
pub fn kms_opt_in_required() -> ApiError {
    ApiError::client("KMSOptInRequired", "The account needs a subscription for the service")
}
