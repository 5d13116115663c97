//! Tools for tests. Outside semver. `docs/testing.md` in the repository shows how they are used.

pub mod conformance;
mod faulty_store;
mod mishap;
mod recorder;
mod stream;
mod world;

pub use crate::gate::{Gate, Part};
pub use crate::lease::StoreOperation;
pub use crate::lease_store_conformance;
#[cfg(feature = "plants")]
pub use crate::plant::{Plant, plant};
pub use faulty_store::{Fault, FaultId, FaultRule, FaultyStore};
pub use mishap::{Mishap, UnknownMishap};
pub use recorder::{Action, Call, CallOutcome, Recorder, Rule};
pub use stream::{MemoryStream, StreamCall};
pub use world::{STREAM, Trace, Upstream, World, WorldError, WorldStore};
