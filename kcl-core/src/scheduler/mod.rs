//! The worker: builder, loops, supervision, shutdown, snapshot.

mod bill;
mod builder;
pub(crate) mod coordination;
mod handle;
mod lineage;
mod metered;
mod report;
mod reporting;
mod run;
mod sampler;
mod start;
mod supervisor;
mod trouble;

pub use bill::{Bill, PerMinute};
#[cfg(feature = "config")]
pub(crate) use builder::worker_id_problem;
pub use builder::{Coordination, ForeignLeases, LeaseRuntime, SchedulerBuilder, StartMode, Takeover};
pub use coordination::{FleetSnapshot, MemberSnapshot};
pub use handle::SchedulerHandle;
pub use report::{Health, SchedulerPhase, ShardOutcome, ShardSnapshot, ShutdownReport, Snapshot};
pub use run::Scheduler;
