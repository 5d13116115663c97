//! Seeds that once broke a promise, and must not again. Run over the model; each was red before its fix.

#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use integration_tests::sim::plan::{Plan, Reading, Wire, Wishes};
use integration_tests::sim::run::run;
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use kcl_core::Coordination;

fn keeps_every_promise(scenario: Scenario, seed: u64) {
    keeps_every_promise_as(Coordination::PerLease, scenario, seed);
}

fn keeps_every_promise_as(coordination: Coordination, scenario: Scenario, seed: u64) {
    let (wire, reading) = (Some(Wire::Model), Some(Reading::Polling));
    let wishes = Wishes { wire, reading, coordination: Some(coordination), ..Wishes::default() };
    let verdict = run(Plan::draw(Seed(seed), scenario, wishes).unwrap(), None);
    assert_eq!(verdict.breach, None, "{scenario} seed {seed}:\n{}\n{}", verdict.plan, verdict.state);
}

#[test]
fn a_closed_shard_that_is_denied_in_passing_is_not_taken_for_gone_while_the_stream_lists_it() {
    keeps_every_promise(Scenario::Any, 34);
}

#[test]
fn a_shard_that_is_denied_in_passing_is_not_taken_for_gone_because_a_listing_is_older_than_it() {
    for seed in [21_686, 29_343] {
        keeps_every_promise(Scenario::Any, seed);
    }
}

#[test]
fn a_listing_older_than_a_shard_and_its_parents_is_no_proof_that_the_shard_expired() {
    keeps_every_promise(Scenario::Resharding, 75);
}

#[test]
fn a_consumer_that_hangs_is_replaced_by_the_same_worker_when_there_is_no_other() {
    for seed in [0, 3, 5, 26, 30] {
        keeps_every_promise(Scenario::FrozenTasks, seed);
    }
}

#[test]
fn a_view_of_the_fleet_that_arrives_late_makes_no_worker_forget_itself() {
    keeps_every_promise_as(Coordination::Fleet, Scenario::HandOvers, 276);
    for seed in [1_376, 4_198] {
        keeps_every_promise_as(Coordination::Fleet, Scenario::Any, seed);
    }
}
