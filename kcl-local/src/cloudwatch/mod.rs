//! CloudWatch that captures what is put.
//!
//! `PutMetricData` is understood in the protocol that the Rust SDK speaks, Smithy RPC v2 CBOR, with
//! the gzip that it applies from about 10 KiB on. Nothing is aggregated and no other operation served.

mod decode;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use crate::error::ApiError;
use crate::wire::{AwsRequest, AwsResponse, CBOR};

/// The most datums kept; beyond them the oldest go.
pub const CAPACITY: usize = 100_000;

/// A datum as it was put.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Datum {
    /// The namespace of the metric.
    pub namespace: String,
    /// The name of the metric.
    pub name: String,
    /// Names and values of the dimensions, in the order given.
    pub dimensions: Vec<(String, String)>,
    /// When it was measured, if given.
    pub timestamp: Option<SystemTime>,
    /// A single value.
    pub value: Option<f64>,
    /// A set of statistics in place of values.
    pub statistics: Option<Statistics>,
    /// Distinct values.
    pub values: Vec<f64>,
    /// How often each of `values` occurred; once if empty.
    pub counts: Vec<f64>,
    /// The unit, for example `Milliseconds`.
    pub unit: Option<String>,
    /// The storage resolution in seconds, 1 or 60.
    pub storage_resolution: Option<i64>,
}

/// A set of statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// How many values there were.
    pub sample_count: f64,
    /// Their sum.
    pub sum: f64,
    /// The smallest of them.
    pub minimum: f64,
    /// The largest of them.
    pub maximum: f64,
}

/// The capture. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct CloudWatch {
    datums: Arc<Mutex<VecDeque<Datum>>>,
}

impl CloudWatch {
    /// Creates an empty capture.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The datums captured so far, oldest first.
    #[must_use]
    pub fn datums(&self) -> Vec<Datum> {
        self.lock().iter().cloned().collect()
    }

    /// Takes the datums out, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Datum> {
        self.lock().drain(..).collect()
    }

    pub(crate) fn handle(&self, operation: &str, request: &AwsRequest) -> AwsResponse {
        if operation != "PutMetricData" {
            let message = format!("not served here: {operation}");
            return AwsResponse::cbor_error(&ApiError::client("UnknownOperationException", message));
        }
        match decode::put_metric_data(request) {
            Ok(datums) => {
                let mut kept = self.lock();
                kept.extend(datums);
                let excess = kept.len().saturating_sub(CAPACITY);
                kept.drain(..excess);
                // An empty map: PutMetricData answers nothing.
                let mut response = AwsResponse::new(200, CBOR, Bytes::from_static(&[0xA0]));
                response.headers.push(("smithy-protocol", "rpc-v2-cbor".to_owned()));
                response
            }
            Err(error) => AwsResponse::cbor_error(&error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Datum>> {
        self.datums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
