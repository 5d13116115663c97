//! Tools for tests. Outside semver.

mod recorder;

pub use recorder::{Action, Call, CallOutcome, Recorder, Rule};
