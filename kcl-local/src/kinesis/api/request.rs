//! What the requests have in common.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::error::ApiError;
use crate::kinesis::StreamRef;
use crate::kinesis::errors::{constraint, invalid, validation, within};

/// Text that is borrowed from the request where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The members that name a stream, flattened into each request.
pub(super) trait NamesStream {
    fn stream_name(&self) -> Option<&str>;
    fn stream_arn(&self) -> Option<&str>;

    fn stream(&self) -> StreamRef<'_> {
        StreamRef::new(self.stream_name(), self.stream_arn())
    }
}

macro_rules! names_stream {
    ($($request:ty),+ $(,)?) => {$(
        impl $crate::kinesis::api::request::NamesStream for $request {
            fn stream_name(&self) -> Option<&str> {
                self.stream_name.as_deref()
            }

            fn stream_arn(&self) -> Option<&str> {
                self.stream_arn.as_deref()
            }
        }
    )+};
}
pub(super) use names_stream;

/// The value of a member that must be there.
pub(super) fn required<T>(value: Option<T>, member: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| {
        validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

/// A count that the schema demands to be at least 1.
pub(super) fn count(value: i64, member: &str) -> Result<u32, ApiError> {
    let value = within(value, (1, i64::from(i32::MAX)), member)?;
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Reads a hash key: a decimal number below 2^128.
pub(super) fn hash_key(text: &str, member: &str) -> Result<u128, ApiError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=39).contains(&text.len());
    if !digits || (text != "0" && text.starts_with('0')) {
        return Err(constraint(text, member, r"satisfy regular expression pattern: 0|([1-9]\d{0,38})"));
    }
    text.parse().map_err(|_| {
        invalid(format!(
            "Invalid {member}. {member} must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

/// Reads a timestamp: seconds since the epoch, to the millisecond.
pub(super) fn timestamp(seconds: f64, member: &str) -> Result<SystemTime, ApiError> {
    // Year 10000 and beyond is no timestamp of the protocol.
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return Err(invalid(format!("{member} {seconds} is out of range.")));
    }
    Ok(UNIX_EPOCH + Duration::from_millis((seconds * 1_000.0).round() as u64))
}

/// Renders a timestamp: seconds since the epoch, to the millisecond.
pub(super) fn seconds(time: SystemTime) -> f64 {
    crate::kinesis::millis(time) as f64 / 1_000.0
}

/// Refuses a trial run that would have succeeded, as the service does.
pub(super) fn unless_dry_run(dry_run: Option<bool>, subject: impl Display) -> Result<(), ApiError> {
    if dry_run == Some(true) {
        let message = format!("Request would have succeeded, but DryRun is set: {subject}.");
        return Err(ApiError::client("DryRunOperationException", message));
    }
    Ok(())
}
