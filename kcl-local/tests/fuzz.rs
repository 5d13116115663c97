//! The fuzz targets' entry points over their seeds and mutations of them. That of CloudWatch is in `cloudwatch.rs`.

#![cfg(feature = "wire")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken law ends the test")]

#[path = "../fuzz/src/kinesis.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod kinesis;
#[path = "../../kpl-aggregation/tests/it/seeds.rs"]
mod seeds;

#[test]
fn any_requests_get_answers_of_the_protocol_and_the_same_again() {
    seeds::run("kinesis", 100, kinesis::requests);
}
