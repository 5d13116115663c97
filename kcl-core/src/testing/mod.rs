//! Tools for tests. Outside semver.

pub mod conformance;
mod faulty_store;

pub use crate::lease_store_conformance;
pub use faulty_store::{Fault, FaultId, FaultRule, FaultyStore, StoreOperation};
