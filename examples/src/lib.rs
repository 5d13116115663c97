//! What the examples are made of.
//!
//! | example | command |
//! |---|---|
//! | `quickstart`: a fleet on local services through a reshard and a crash | `cargo run -p examples --example quickstart` |
//! | `consumer`: the smallest useful program against a real stream | `cargo run -p examples --features aws --example consumer -- --stream orders --application orders-app` |
//! | `ec2-autoscaling`, a package of its own: a worker on an EC2 Auto Scaling group | its `README.md` |
//! | `status`: the status page of a worker with shards in all kinds of states | `cargo run -p examples --example status` |
//!
//! How to test a processor is in `tests/testing`, explained by `docs/testing.md`.

pub mod quickstart;

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
