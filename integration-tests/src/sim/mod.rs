//! The fleet simulator: whole fleets of real schedulers, in one process, in virtual time, made to fail, and judged.
//!
//! ```text
//! seed ──► plan (settings, workers, shards, latencies, traffic, faults: all drawn beforehand)
//!            │
//!          world ── steps: put, reshard, crash, stall, freeze, mishaps … ──► fleet of real schedulers
//!            │                                                               │ every call, landing, callback
//!            └────────── at rest? delivered, owned, balanced ──────►  judge ◄┘ (witness)
//!                                                                      │
//!                                             verdict: the first broken promise, and the history
//! ```
//!
//! A seed is a run: [`plan::Plan::draw`] makes everything of it, [`run::run`] runs it on a paused current-thread
//! runtime, so that the same seed gives the same history in every process.
//!
//! # To add a fault
//! If it befalls calls to the services, add a [`Mishap`](kcl_core::testing::Mishap) there (and, if the SDK's wire
//! can suffer it, to `over_the_sdk` in `seat.rs`); plans draw from all of them. If the world does it, add a
//! [`plan::Step`], draw it in `Plan::storm` or in a scenario, and do it in `World::step`. Faults end in
//! `World::calm_down`: add there what has to be undone.
//!
//! A draw that is added to a plan takes a generator of its own (as `page_size` does), or every seed changes its meaning,
//! those pinned in `tests/regressions.rs` among them.
//!
//! # To add a promise
//! Give it an id in [`judge::Promise`] and a file in `judge/` with its own small state. Tell it what it must know from
//! one of the `Judge`'s verbs, which the `witness` modules call, and return a finding where it is broken. What can only
//! be said at rest goes to `World::come_to_rest`. Then plant a bug that breaks it (`kcl-core/src/plant.rs`, `plants.rs`).
//!
//! # To add a scenario
//! Add it to [`scenario::Scenario`] and shape the plan there; what was drawn for "anything" is at hand.

pub mod history;
pub mod judge;
pub mod plan;
pub mod plants;
pub mod run;
pub mod scenario;
mod seat;
pub mod seed;
pub mod witness;
pub mod world;
