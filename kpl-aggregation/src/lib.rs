//! Reads and writes the aggregated records of the Kinesis Producer Library.
//!
//! A producer packs many small *user records* into one record of a Kinesis stream; a consumer takes them out again.
//! This crate does both on [`bytes::Bytes`]: keys and payloads taken out of an aggregate share its buffer. It knows
//! neither a runtime nor the AWS SDK.
//!
//! # The format
//! ```text
//!  0        4                                              len-16        len
//!  ├────────┼──────────────────────────────────────────────┼─────────────┤
//!  │ magic  │ AggregatedRecord (protobuf)                  │ MD5 of the  │
//!  │F3899AC2│                                              │ protobuf    │
//!  └────────┴──────────────────────────────────────────────┴─────────────┘
//!
//!  message AggregatedRecord {                  message Record {
//!    repeated string partition_key_table = 1;    required uint64 partition_key_index     = 1;
//!    repeated string explicit_hash_key_table = 2; optional uint64 explicit_hash_key_index = 2;
//!    repeated Record records = 3;                required bytes  data                    = 3;
//!  }                                             repeated Tag    tags                    = 4;
//!                                              }
//!  message Tag { required string key = 1; optional string value = 2; }   // read by nobody
//! ```
//! The place of a user record in its aggregate is its *sub-sequence number*, from 0; together with the sequence number
//! of the record of the stream it tells where a consumer stands.
//!
//! # Reading
//! [`deaggregate`] tells an aggregate from a plain record. Whatever is not a sound aggregate is [`Deaggregated::Plain`]
//! with its [reason](PlainReason), and the caller passes the record on whole: **no input is lost, none panics**. Two
//! policies rule over sound aggregates:
//!
//! - [`OutOfRangePolicy`]: user records that belong to another shard. What it drops is counted.
//! - [`DamagePolicy`]: user records with an impossible index or hash key.
//!
//! The outcome is that of the Java KCL 3.5.1 with [`OutOfRangePolicy::DropAggregate`] and [`DamagePolicy::KeepPrefix`],
//! with these exceptions, each of which keeps something from being lost or mistaken:
//!
//! | input | Java KCL | here |
//! |---|---|---|
//! | key index of 2^32 or more | low 32 bits count, so another record's key | out of the table: damaged |
//! | number beyond 64 bits, or length beyond 32 | high bits cut off | not protobuf: plain |
//! | digits of other scripts in an explicit hash key | accepted | not a number: damaged |
//!
//! # Writing
//! [`Aggregator`] collects user records up to an exact size and gives each back in a record to put, or in an error.
//!
//! # Examples
//! ```
//! use kpl_aggregation::{Aggregator, Deaggregated, OutOfRangePolicy, deaggregate};
//!
//! let mut aggregator = Aggregator::new();
//! for temperature in ["20.1", "20.3", "20.2"] {
//!     let full = aggregator.add("sensor-7", None, temperature)?;
//!     assert!(full.is_none(), "a megabyte holds more than that");
//! }
//! let put = aggregator.finish().expect("three records are waiting");
//!
//! match deaggregate(&put.data, None, OutOfRangePolicy::default()) {
//!     Deaggregated::Plain(reason) => unreachable!("{reason}"),
//!     Deaggregated::Aggregate(records) => {
//!         let read: Vec<_> = records.map(|r| (r.sub_sequence_number, r.data)).collect();
//!         assert_eq!(read, [(0, "20.1".into()), (1, "20.3".into()), (2, "20.2".into())]);
//!     }
//! }
//! # Ok::<(), kpl_aggregation::AggregationError>(())
//! ```

mod decode;
mod encode;
mod error;
mod hash_key;
mod user_records;
mod wire;

pub use decode::{DamagePolicy, Deaggregated, Deaggregator, OutOfRangePolicy, deaggregate};
pub use encode::{AggregatedRecord, Aggregator};
pub use error::{
    AggregationError, Damage, HashKeyError, Malformed, PlainReason, RecordFault, RejectedRecord,
};
pub use hash_key::{HashKeyRange, parse_hash_key, partition_key_hash};
pub use user_records::{UserRecord, UserRecords};
