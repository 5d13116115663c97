//! A fleet of workers consumes a stream through a reshard and a crash, and every record is accounted for.
//!
//! [`run`] starts local Kinesis and DynamoDB on loopback sockets and drives everything through the real AWS SDK
//! clients:
//!
//! | at | what happens |
//! |---|---|
//! | 0 % | a stream of 4 shards; a producer writes plain and KPL-aggregated records; worker A takes all shards |
//! | 20 % | worker B joins and A hands half of the shards over |
//! | 35 % | a shard is split |
//! | 50 % | two shards are merged |
//! | 65 % | worker A is killed: its future is dropped, nothing is released, its leases run out |
//! | 90 % | the producer stops; B reads on until every record put was delivered, then shuts down |
//!
//! Each partition key has a counter. The [`Ledger`] compares what the stream acknowledged with what processors
//! were given.

mod ledger;
mod options;
mod picture;
mod producer;
mod scenario;
mod screen;
mod shard_map;
mod worker;

pub use ledger::{Account, Ledger};
pub use options::{Command, HELP, Options, Reading, UsageError};
pub use scenario::run;
pub use screen::Screen;
