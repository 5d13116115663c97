//! What the fuzz targets run.

pub mod cloudwatch;
pub mod kinesis;
