//! The worker: builder, loops, supervision, shutdown, snapshot.

mod bill;
mod builder;
pub(crate) mod coordination;
mod explain;
mod handle;
mod health;
mod length;
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
pub use coordination::{FleetSnapshot, MemberSnapshot, OwnerSeen};
pub use explain::{Activity, Cause, Explanation, Failing, ParentWait, TakeOutlook};
pub use handle::SchedulerHandle;
#[cfg(feature = "http")]
pub(crate) use handle::SchedulerView;
pub use health::{Health, Note, Problem, ProblemKind};
#[cfg(feature = "http")]
pub(crate) use length::Length;
pub use report::{
    EndpointSnapshot, ListingFailure, SchedulerPhase, ShardOutcome, ShardSnapshot, ShutdownReport, Snapshot,
};
pub use run::Scheduler;
