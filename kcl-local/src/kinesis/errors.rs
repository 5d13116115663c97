//! The errors of the service, worded as AWS words them where its wording is known.

use std::fmt::Display;

use crate::error::ApiError;

pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidArgumentException", message)
}

pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceNotFoundException", message)
}

pub(crate) fn in_use(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceInUseException", message)
}

pub(crate) fn limit(message: impl Into<String>) -> ApiError {
    ApiError::client("LimitExceededException", message)
}

pub(crate) fn validation(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationException", message)
}

/// A member that breaks a constraint of the API's own schema.
pub(crate) fn constraint(value: impl Display, member: &str, rule: &str) -> ApiError {
    validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must {rule}"
    ))
}

pub(crate) fn stream_not_found(name: &str, account: &str) -> ApiError {
    not_found(format!("Stream {name} under account {account} not found."))
}

pub(crate) fn shard_not_found(shard: &str, stream: &str, account: &str) -> ApiError {
    not_found(format!("Shard {shard} in stream {stream} under account {account} does not exist"))
}

pub(crate) fn shard_rate(shard: &str, stream: &str, account: &str) -> ApiError {
    ApiError::client(
        "ProvisionedThroughputExceededException",
        format!("Rate exceeded for shard {shard} in stream {stream} under account {account}."),
    )
}

pub(crate) fn call_rate(operation: &str) -> ApiError {
    limit(format!("Rate exceeded for {operation}."))
}

/// Checks that `value` lies in `low..=high`, as a schema constraint.
pub(crate) fn within<T: PartialOrd + Display>(
    value: T,
    (low, high): (T, T),
    member: &str,
) -> Result<T, ApiError> {
    if value < low {
        return Err(constraint(value, member, &format!("have value greater than or equal to {low}")));
    }
    if value > high {
        return Err(constraint(value, member, &format!("have value less than or equal to {high}")));
    }
    Ok(value)
}

/// Checks a stream name, shard id or the like: 1 to 128 characters of `[a-zA-Z0-9_.-]`.
pub(crate) fn identifier(value: &str, member: &str) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if value.is_empty() {
        return Err(constraint(value, member, "have length greater than or equal to 1"));
    }
    if value.len() > 128 {
        return Err(constraint(value, member, "have length less than or equal to 128"));
    }
    if !value.bytes().all(allowed) {
        return Err(constraint(value, member, "satisfy regular expression pattern: [a-zA-Z0-9_.-]+"));
    }
    Ok(())
}
