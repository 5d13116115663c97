//! Models of the fleet protocol (`docs/fleet-protocol.md`), explored state by state.
//!
//! - [`fleet`]: members, heartbeats, evictions, takes and moves (R1–R5, R7, R10).
//! - [`split`]: the end of a shard and the start of its children (R5b, R9).
//! - [`rows`]: where the absence of a member is looked up while fleet rows come and go (R3).
//!
//! Each has variants with one rule removed ([`broken`]), all of which must be refuted. What is modelled and what is
//! not is told in `docs/fleet-model.md`.

pub mod broken;
pub mod checks;
pub mod fleet;
pub mod rows;
pub mod run;
pub mod split;
