//! The JSON 1.1 protocol over the model.

use bytes::Bytes;

use crate::error::ApiError;
use crate::kinesis::Kinesis;

/// Serves one request: `operation` is the part of `X-Amz-Target` after the dot, `body` its JSON.
///
/// # Errors
/// The service's error, to be rendered by the transport.
pub fn handle(service: &Kinesis, operation: &str, body: &[u8]) -> Result<Bytes, ApiError> {
    let _ = (service, body);
    Err(ApiError::client("UnknownOperationException", operation))
}
