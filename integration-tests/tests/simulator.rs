//! The simulator itself: it is deterministic, it notices, it cuts off what hangs, and it says what it was not given right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::process::{Command, Output};
use std::time::Duration;

use integration_tests::sim::judge::Promise;
use integration_tests::sim::plan::{Plan, Wire, Wishes};
use integration_tests::sim::plants::PLANTINGS;
use integration_tests::sim::run::{run, run_within};
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use kcl_core::testing::Plant;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The digests of histories, by seed, as a process of its own sees them.
fn digests(arguments: &[&str]) -> Vec<String> {
    let output = sim(&[&["--digests"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stdout));
    let mut lines: Vec<String> =
        text(&output.stdout).lines().filter(|line| line.contains("seed")).map(str::to_owned).collect();
    // The line of totals has the time it took.
    lines.pop();
    lines.sort();
    lines
}

fn same_in_two_processes(arguments: &[&str], seeds: usize) {
    let first = digests(&[arguments, &["--jobs", "1"]].concat());
    let second = digests(&[arguments, &["--jobs", "2"]].concat());
    assert_eq!(first.len(), seeds);
    assert_eq!(first, second, "the same seed must give the same history, whatever runs beside it");
}

#[test]
fn the_same_seed_gives_the_same_history_in_every_process() {
    same_in_two_processes(&["--seeds", "8", "--wire", "model"], 8);
}

#[test]
fn the_same_seed_gives_the_same_history_over_the_sdk() {
    same_in_two_processes(&["--seeds", "3", "--wire", "sdk"], 3);
}

#[test]
fn the_same_seed_gives_the_same_history_in_the_wildest_scenarios() {
    for scenario in ["resharding", "cut-off", "frozen-tasks"] {
        same_in_two_processes(&["--seeds", "2", "--wire", "model", "--scenario", scenario], 2);
    }
}

#[test]
fn some_seeds_of_every_scenario_keep_every_promise() {
    for scenario in Scenario::ALL.iter().filter(|scenario| **scenario != Scenario::Idle) {
        for seed in 100..102 {
            let wishes = Wishes { wire: Some(Wire::Model), ..Wishes::default() };
            let verdict = run(Plan::draw(Seed(seed), *scenario, wishes).unwrap(), None);
            assert_eq!(verdict.breach, None, "{scenario} seed {seed}: {}", verdict.state);
        }
    }
}

#[test]
fn a_broken_promise_ends_with_code_1_the_story_and_the_command_that_tells_it_again() {
    let output =
        sim(&["--seeds", "1", "--from", "0x7", "--scenario", "calm", "--plant", "skip-owner-condition"]);
    let story = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{story}");
    assert!(story.contains("seed 7: L-2 broken at"), "{story}");
    assert!(story.contains("create landed: shardId-000000000000"), "a history: {story}");
    assert!(story.contains("1 seeds, 1 broken"), "{story}");
    let replay = story.lines().find_map(|line| line.strip_prefix("replay: ")).unwrap();
    let again = replay.split(" -- ").nth(1).unwrap();
    let output = sim(&again.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1));
    let breach = |text: &str| text.lines().find(|line| line.starts_with("seed 7: ")).unwrap().to_owned();
    assert_eq!(breach(&text(&output.stdout)), breach(&story));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason_and_code_2() {
    for (arguments, reason) in [
        (&["--seed", "one"][..], "is no seed: give a number"),
        (&["--from", "-3"], "3"),
        (&["--scenario", "war"], "no scenario is called \"war\"; there are: any, failing-code"),
        (&["--shards", "0"], "a world needs at least one shard"),
        (&["--workers", "0"], "a world needs at least one worker"),
        (&["--scenario", "cut-off", "--workers", "1"], "scenario cut-off needs at least 2 workers"),
        (&["--shards", "99999999"], "more than a run takes"),
        (&["--jobs", "0"], "--jobs must be at least 1"),
        (&["--wire", "string"], "neither \"model\" nor \"sdk\""),
        (&["--plant", "roses"], "no bug is called \"roses\"; there are: skip-failed-batch"),
        (&["plants", "--only", "roses"], "no bug is called \"roses\""),
        (&["--seed", "1", "--seeds", "2"], "cannot be used with"),
    ] {
        let output = sim(arguments);
        let problem = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {problem}");
        assert!(problem.contains(reason), "{arguments:?}: {problem}");
    }
}

/// A plan in which a processor never returns and never lets the runtime be idle.
fn spinning() -> Plan {
    let wishes = Wishes { shards: Some(1), workers: Some(1), wire: Some(Wire::Model), ..Wishes::default() };
    let mut plan = Plan::draw(Seed(1), Scenario::Calm, wishes).unwrap();
    plan.conduct.spin = 1.0;
    plan
}

#[test]
fn a_run_that_makes_no_headway_is_cut_off_by_real_time_and_says_what_every_shard_was_doing() {
    let verdict = run_within(spinning(), None, Duration::from_millis(300));
    let breach = verdict.breach.unwrap();
    assert_eq!(breach.promise, Promise::L3);
    assert!(breach.seen.contains("of real time"), "{breach}");
    assert!(verdict.state.contains("shardId-000000000000: Initializing for"), "{}", verdict.state);
}

#[test]
fn a_run_that_does_not_come_to_rest_is_cut_off_by_virtual_time_and_says_what_every_shard_was_doing() {
    let wishes = Wishes { shards: Some(1), workers: Some(1), wire: Some(Wire::Model), ..Wishes::default() };
    let mut plan = Plan::draw(Seed(1), Scenario::Calm, wishes).unwrap();
    plan.rest = Duration::from_secs(48 * 3600);
    plan.rest_traffic = false;
    let verdict = run(plan, None);
    let breach = verdict.breach.unwrap();
    assert_eq!(breach.promise, Promise::L3);
    assert!(breach.seen.contains("cut off after 14400s"), "{breach}");
    assert!(verdict.state.contains("shardId-000000000000: Fetching for"), "{}", verdict.state);
}

#[test]
fn every_plant_is_planted_once() {
    let planted: Vec<Plant> = PLANTINGS.iter().map(|planting| planting.plant).collect();
    for plant in Plant::ALL {
        assert_eq!(planted.iter().filter(|known| *known == plant).count(), 1, "{}", plant.name());
    }
    assert_eq!(planted.len(), Plant::ALL.len());
    assert!(planted.len() >= 10);
}
