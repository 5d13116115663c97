//! A Kinesis consumer framework: leases, lineage, delivery, checkpoints.

mod checkpointer;
mod consumer;
mod entropy;
mod error;
mod event;
pub mod lease;
pub mod model;
pub mod plan;
mod processor;
mod retry;
mod scheduler;
mod settings;
pub mod source;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod time;

pub use checkpointer::{CheckpointError, CheckpointPolicy, Checkpointer, PreparedCheckpoint};
pub use consumer::{ShardReport, Stage};
pub use entropy::Entropy;
pub use error::{BoxError, Error, ErrorKind};
pub use event::Event;
pub use model::{InitialPosition, Position, Record, SequenceNumber, ShardId, WorkerId};
pub use processor::{
    AlwaysRetry, Callback, ErrorPolicy, OnError, ProcessorFailure, RecordBatch, RecordProcessor,
    RecordProcessorFactory, ShardContext,
};
pub use scheduler::{
    ForeignLeases, Health, LeaseRuntime, Scheduler, SchedulerBuilder, SchedulerHandle, SchedulerPhase,
    ShardOutcome, ShardSnapshot, ShutdownReport, Snapshot,
};
pub use settings::{OutOfRange, Settings};
pub use time::{Clock, SystemClock, TokioClock};
