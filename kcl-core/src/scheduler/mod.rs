//! The worker: builder, loops, supervision, shutdown, snapshot.

mod builder;
pub(crate) mod coordination;
mod handle;
mod lineage;
mod report;
mod run;
mod start;
mod supervisor;
mod trouble;

pub use builder::{ForeignLeases, LeaseRuntime, SchedulerBuilder};
pub use handle::SchedulerHandle;
pub use report::{Health, SchedulerPhase, ShardOutcome, ShardSnapshot, ShutdownReport, Snapshot};
pub use run::Scheduler;
