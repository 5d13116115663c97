//! The format against the Java consumer's outcomes, the KPL's own bytes, a second decoder and random input.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its support code too")]

mod aggregator;
mod format;
mod fuzz;
mod oracle;
mod policies;
mod properties;
mod seeds;
mod support;
mod vectors;
