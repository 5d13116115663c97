//! The tool against local services: in process and in virtual time beside real workers, and as a binary over sockets.

#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

mod backup;
mod binary;
mod config;
mod looking;
mod refusals;
mod support;
mod writing;
