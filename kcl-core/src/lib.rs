//! A consumer framework for Amazon Kinesis Data Streams, in the terms of the Kinesis Client Library (KCL).
//!
//! A service implements one trait, [`RecordProcessor`]. A [`Scheduler`] lists the stream's shards, competes for
//! their leases with the other workers of the application, runs one processor for each shard it holds, takes KPL
//! aggregates apart, stores checkpoints, and follows splits and merges, parents before children.
//!
//! ```no_run
//! use kcl_core::lease::LeaseStore;
//! use kcl_core::source::StreamSource;
//! use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor, Scheduler, ShardContext};
//!
//! struct Orders;
//!
//! #[async_trait::async_trait]
//! impl RecordProcessor for Orders {
//!     async fn process_records(&mut self, batch: RecordBatch, checkpointer: &Checkpointer) -> Result<(), BoxError> {
//!         for record in batch.records() {
//!             let payload: &bytes::Bytes = record.data();
//!             assert!(!payload.is_empty());
//!         }
//!         checkpointer.checkpoint().await?; // everything delivered so far
//!         Ok(())
//!     }
//! }
//!
//! // In production `KinesisStream::new(client, "orders")` and `DynamoLeaseStore::new(client, "orders-app")`.
//! async fn consume(stream: impl StreamSource, store: impl LeaseStore) -> Result<(), kcl_core::Error> {
//!     let scheduler = Scheduler::builder("orders-app")
//!         .stream(stream)
//!         .lease_store(store)
//!         .processor(|_: &ShardContext| Orders)
//!         .build()?;
//!     scheduler.run().await?;
//!     Ok(())
//! }
//! ```
//!
//! # What it promises
//!
//! | id | promise |
//! |---|---|
//! | D-1 | Every record is delivered at least once, in order per shard; nothing is skipped because user code failed. |
//! | D-2 | The stored checkpoint never passes a record that was not acknowledged; it never moves back. |
//! | L-1 | No delivery starts under a lease its holder cannot prove unexpired by its own monotonic clock. |
//! | L-2 | Only the holder's writes land; a write without an answer is repeated until answered, or fenced. |
//! | L-3 | A lease is renewed only while its consumer makes progress: an owned shard is never silent. |
//! | S-1 | No record of a child before every parent's end is stored; children have leases before that. |
//! | S-2 | Unfinished leases and pending children always cover the hash keys the start position promised. |
//! | P-1 | Callbacks of one processor are serial and in legal order. |
//! | B-1 | With faults over, every lease has a live owner, the fleet is balanced, and then nothing moves. |
//! | X-1 | `shutdown(deadline)` returns by its deadline with a report per shard; nothing is called afterwards. |
//! | M-1 | Memory stays within the byte budgets whatever the processors do. |
//!
//! # Where things are
//!
//! [`Scheduler`], [`SchedulerHandle`], [`Settings`]: to run it. [`RecordProcessor`], [`Checkpointer`],
//! [`ErrorPolicy`]: to implement. [`source`]: where records come from. [`lease`]: the lease protocol and the
//! [`LeaseStore`](lease::LeaseStore) trait. [`fleet`]: what workers tell each other. [`plan`]: the pure decisions. `testing` (feature `test-util`): whole
//! fleets in virtual time, a stream in memory, a store with faults, a recording processor, the conformance suite for
//! lease stores.
//!
//! # Features
//!
//! `kinesis` (default): the Kinesis source over the AWS SDK; without it no AWS crate is built. `fan-out`: enhanced
//! fan-out, with HTTP/2 and the TLS of the SDK; `fan-out-without-tls`: the same without TLS. `config`: the `config`
//! module, the configuration from files and the environment. `ec2`: the notices of EC2 and Auto Scaling for this instance.
//! `cloudwatch`, `emf`, `metrics-facade`: adapters of [`metrics`]. `http`: an endpoint for probes, scrapers and people,
//! `Endpoint`. `test-util`: the `testing` module, outside semver.

mod checkpointer;
#[cfg(feature = "config")]
pub mod config;
mod consumer;
#[cfg(feature = "ec2")]
pub mod ec2;
mod entropy;
mod error;
mod event;
pub mod fleet;
mod gate;
#[cfg(feature = "http")]
mod http;
pub mod lease;
pub mod load;
pub mod metrics;
pub mod model;
pub mod plan;
mod plant;
mod processor;
mod retry;
mod scheduler;
mod settings;
pub mod source;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod time;

pub use checkpointer::{CheckpointError, CheckpointPolicy, Checkpointer, PreparedCheckpoint};
pub use consumer::{Budget, CallbackReport, ReaderActivity, ReaderReport, RetryReport, ShardReport, Stage};
pub use entropy::Entropy;
pub use error::{BoxError, Error, ErrorKind};
pub use event::Event;
#[cfg(feature = "http")]
pub use http::Endpoint;
pub use model::{InitialPosition, Position, Record, SequenceNumber, ShardId, WorkerId};
pub use processor::{
    AlwaysRetry, Callback, ErrorPolicy, OnError, ProcessorFailure, RecordBatch, RecordProcessor,
    RecordProcessorFactory, ShardContext,
};
pub use scheduler::{
    Activity, Bill, Cause, Coordination, EndpointSnapshot, Explanation, Failing, FleetSnapshot,
    ForeignLeases, Health, LeaseRuntime, ListingFailure, MemberSnapshot, Note, OwnerSeen, ParentWait,
    PerMinute, Problem, ProblemKind, Scheduler, SchedulerBuilder, SchedulerHandle, SchedulerPhase,
    ShardOutcome, ShardSnapshot, ShutdownReport, Snapshot, StartMode, TakeOutlook, Takeover,
};
pub use settings::{OutOfRange, Settings};
pub use time::{Clock, SystemClock, TokioClock};
