//! Tools for tests. Outside semver.

pub mod conformance;
mod faulty_store;
mod recorder;
mod stream;

pub use crate::lease_store_conformance;
pub use faulty_store::{Fault, FaultId, FaultRule, FaultyStore, StoreOperation};
pub use recorder::{Action, Call, CallOutcome, Recorder, Rule};
pub use stream::{MemoryStream, StreamCall};
