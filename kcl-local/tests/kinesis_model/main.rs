//! The Kinesis model against the documented behaviour of the service.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

mod consumers;
mod limits;
mod lineage;
mod read;
mod retention;
mod sessions;
mod shards;
mod streams;
mod stress;
mod subscriptions;
mod support;
