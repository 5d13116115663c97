//! Incident 1: code that fails, panics and is killed.

use std::time::Duration;

use integration_tests::sim::plan::{Plan, Step, Wire, Wishes};
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use kcl_core::{CheckpointPolicy, Settings};

use crate::{is_kept, kept_over};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The criterion's numbers: that every record is acknowledged and no checkpoint passes what is not, is the judge's.
#[test]
fn incident_01_a_hundred_thousand_records_are_acknowledged_whatever_fails_panics_and_crashes() {
    let wishes = Wishes { shards: Some(8), workers: Some(4), wire: Some(Wire::Model), ..Wishes::default() };
    let mut plan = Plan::draw(Seed(1), Scenario::FailingCode, wishes).expect("the wishes make sense");
    (plan.settings, plan.policy) = (Settings::default(), CheckpointPolicy::Manual);
    (plan.conduct.fail, plan.conduct.panic, plan.conduct.slowness) = (0.01, 0.001, Duration::ZERO);
    (plan.stream_latency, plan.store_latency) = (MS * 10, MS * 10);
    // Small answers make many batches.
    plan.fetch_records = 5;
    plan.storm = SECOND * 70;
    plan.steps = (0..130).map(|i| (MS * 500 * i, Step::Put { keys: 16, most: 100, padding: 0 })).collect();
    for i in 1..=10 {
        plan.steps.push((SECOND * 6 * i, Step::Restart));
        plan.steps.push((SECOND * 6 * i + SECOND * 3, Step::Crash));
        plan.steps.push((SECOND * 6 * i + SECOND * 5, Step::Start));
    }
    let verdict = is_kept(plan);
    let count = |end: &str| verdict.history.lines().filter(|line| line.ends_with(end)).count();
    let (failed, panicked) = (count("process_records failed"), count("process_records panicked"));
    println!("{:?} records put and delivered, {failed} calls failed, {panicked} panicked", verdict.records);
    assert!(verdict.records.0 >= 100_000, "{:?}", verdict.records);
    assert_eq!(count(" crashes"), 20);
    assert!(failed >= 50 && panicked >= 5, "{failed} failed, {panicked} panicked");
}

#[test]
fn incident_01_no_configuration_skips_a_record_because_code_fails() {
    kept_over(Scenario::FailingCode, 0..10);
}
