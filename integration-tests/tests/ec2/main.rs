//! Workers on an EC2 instance: what its metadata say ends them, and the lifecycle action is settled.
//!
//! Real schedulers over the real SDK clients and `kcl-local`, in virtual time; once over sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

mod ending;
mod stage;
mod standing_by;
mod wire;
