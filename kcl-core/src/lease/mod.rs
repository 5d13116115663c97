//! Leases: the value, the store that keeps them, the protocol over it, and the keeper of held ones.

mod error;
mod handle;
mod lease;
mod observer;
mod store;
pub mod verb;

pub use error::{StoreError, StoreErrorKind};
pub use handle::{CheckpointUpdate, EndShard, LeaseHandle, LossReason, Phase, ReleaseTo, Standing};
#[cfg(test)]
pub(crate) use handle::{Command, Liveness};
pub use lease::{AttemptToken, Lease, PendingCheckpoint};
pub use observer::LeaseObserver;
pub use store::{
    Change, Consistency, Expectation, ForeignRow, LeasePage, LeaseStore, OwnerExpectation, OwnerSwitches,
    PageToken, Patch, Prepared, UnreadableRow, Write,
};
