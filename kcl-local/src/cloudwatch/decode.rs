//! `PutMetricData` from CBOR.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciborium::Value;
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::{Datum, Statistics};
use crate::error::ApiError;
use crate::wire::AwsRequest;

/// The longest request that CloudWatch takes, unpacked.
const MAX_UNPACKED: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    namespace: String,
    #[serde(default)]
    metric_data: Vec<MetricDatum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDatum {
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    timestamp: Option<Value>,
    value: Option<f64>,
    statistic_values: Option<StatisticSet>,
    #[serde(default)]
    values: Vec<f64>,
    #[serde(default)]
    counts: Vec<f64>,
    unit: Option<String>,
    storage_resolution: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatisticSet {
    sample_count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
}

pub(super) fn put_metric_data(request: &AwsRequest) -> Result<Vec<Datum>, ApiError> {
    let unpacked;
    let body = match request.content_encoding.as_deref() {
        None => request.body.as_ref(),
        Some("gzip") => {
            unpacked = unpack(&request.body)?;
            unpacked.as_slice()
        }
        Some(other) => return Err(unreadable(&format!("the content encoding {other} is not known here"))),
    };
    let request: Request = ciborium::from_reader(body).map_err(|error| unreadable(&error.to_string()))?;
    let Request { namespace, metric_data } = request;
    metric_data.into_iter().map(|datum| datum.into_datum(&namespace)).collect()
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut unpacked = Vec::new();
    let mut reader = GzDecoder::new(packed).take(MAX_UNPACKED + 1);
    reader.read_to_end(&mut unpacked).map_err(|error| unreadable(&error.to_string()))?;
    if unpacked.len() as u64 > MAX_UNPACKED {
        return Err(unreadable("the request is longer than 1 MiB"));
    }
    Ok(unpacked)
}

impl MetricDatum {
    fn into_datum(self, namespace: &str) -> Result<Datum, ApiError> {
        let timestamp = self.timestamp.as_ref().map(timestamp).transpose()?;
        let statistics = self.statistic_values.map(|set| Statistics {
            sample_count: set.sample_count,
            sum: set.sum,
            minimum: set.minimum,
            maximum: set.maximum,
        });
        Ok(Datum {
            namespace: namespace.to_owned(),
            name: self.metric_name,
            dimensions: self.dimensions.into_iter().map(|one| (one.name, one.value)).collect(),
            timestamp,
            value: self.value,
            statistics,
            values: self.values,
            counts: self.counts,
            unit: self.unit,
            storage_resolution: self.storage_resolution,
        })
    }
}

/// Reads tag 1: seconds since the epoch, whole or not.
fn timestamp(value: &Value) -> Result<SystemTime, ApiError> {
    let seconds = match value {
        Value::Tag(1, inner) => match inner.as_ref() {
            Value::Float(seconds) => Some(*seconds),
            Value::Integer(seconds) => Some(i128::from(*seconds) as f64),
            _ => None,
        },
        _ => None,
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| unreadable("a timestamp is not a time since 1970"))
}

fn unreadable(why: &str) -> ApiError {
    ApiError::client("SerializationException", why)
}
