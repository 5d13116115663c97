//! The fuzz targets' entry points over their seeds and mutations of them.

#![cfg(feature = "kinesis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken law ends the test")]

#[path = "../fuzz/src/entry/mod.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports them")]
mod entry;
#[path = "../../kpl-aggregation/tests/it/seeds.rs"]
mod seeds;

use seeds::run;

#[test]
fn sequence_numbers_are_read_exactly_and_in_order() {
    run("sequence_number", 1000, entry::sequence_number);
}

#[test]
fn checkpoints_are_read_exactly_and_in_the_order_of_java() {
    run("checkpoint", 1000, entry::checkpoint);
}

#[test]
fn settings_of_any_numbers_are_checked_and_written_back() {
    run("settings", 1000, entry::settings);
}

#[test]
fn stream_names_and_arns_are_told_from_other_text() {
    run("stream_name", 400, entry::stream_name);
}

#[test]
fn whatever_the_service_answers_is_understood_or_an_error() {
    run("answers", 25, entry::answers);
}
