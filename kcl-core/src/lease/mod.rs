//! Leases: the value, the store that keeps them, the protocol over it, and the keeper of held ones.

mod error;
mod handle;
pub(crate) mod keeper;
mod observer;
mod proof;
mod row;
mod store;
mod usage;
pub mod verb;

pub use error::{StoreError, StoreErrorKind};
pub(crate) use handle::Command;
#[cfg(test)]
pub(crate) use handle::Liveness;
pub(crate) use handle::Proof;
pub use handle::{CheckpointUpdate, EndShard, LeaseHandle, LossReason, Phase, ReleaseTo, Standing};
pub use observer::LeaseObserver;
pub(crate) use proof::{MemberProof, Readings};
pub use row::{AttemptToken, Lease, LeaseTable, PendingCheckpoint};
pub use store::{
    Change, Consistency, Expectation, FleetChange, FleetRefused, FleetWrite, ForeignRow, LeasePage,
    LeaseStore, OwnerExpectation, OwnerSwitches, PageToken, Patch, Prepared, ProvisionedUnits, UnreadableRow,
    Write,
};
pub use usage::{OperationUsage, StoreOperation, StoreUsage};
