//! Enhanced fan-out through the real SDK client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

mod faults;
mod http2;
mod in_process;
mod sockets;
mod support;
