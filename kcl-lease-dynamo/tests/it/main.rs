//! The DynamoDB lease store over the real SDK client and the local DynamoDB.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod errors;
mod fleet_rows;
mod java;
mod rows;
mod support;
mod table;
mod units;
