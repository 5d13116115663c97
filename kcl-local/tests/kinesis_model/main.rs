//! The Kinesis model against the documented behaviour of the service.

mod limits;
mod lineage;
mod read;
mod retention;
mod shards;
mod streams;
mod stress;
mod support;
