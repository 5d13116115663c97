//! Workers that subscribe to shards: what breaks, who is blocked, and what it costs the others.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the test; figures are shown"
)]

mod connections;
mod isolation;
mod lost;
mod misfortunes;
mod support;
