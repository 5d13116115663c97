//! The incidents that users of other libraries report, by their numbers among the acceptance criteria: for each at least
//! one test whose name begins with `incident_` and the number. The others among them are where their nouns are:
//! `cargo test incident_` runs all.
//!
//! Scenarios are those of the fleet simulator. Here a few seeds of each run; the binary `sim` runs thousands.
//!
//! | no. | incident | promises | scenario, and where else | not covered, and why |
//! |---|---|---|---|---|
//! | 1 | records skipped because code failed | D-1, D-2 | `failing-code`; `delivery.rs` | |
//! | 2 | owned and silent | L-3 | `frozen-tasks`; `leases.rs` | a consumer that is never polled again is silent for twice its stall timeout, five seconds and one and a half lease durations, not for one and two cycles; a lone worker whose lease side is never polled again only says so by its health |
//! | 3 | resharding | D-1, S-1, S-2 | `resharding`; `resharding.rs` | the 10,000 seeds, which are `sim`'s |
//! | 4 | stuck at the end of a shard | S-1, S-2 | `shard-ends`; `resharding.rs` | |
//! | 8 | a partitioned worker goes on | L-1, L-2 | `cut-off`; `leases.rs` | the 1,000 partitions, which are `sim`'s |
//! | 9 | leases lost by ambiguous answers | L-2 | `ambiguous-answers`; `leases.rs`, the keeper's tests | 500 leases: 24 |
//! | 10 | slow fail-over | B-1 | `crashes` | |
//! | 11 | memory and leases under back-pressure | M-1, L-3 | `back-pressure`; `blocking.rs` | fan-out; the size of the process, for which bytes and tasks stand in |
//! | 12 | leases that thrash | B-1 | `balance`; `leases.rs`, the balance planner's tests | three cycles and 10 % of moves above the least for workers that own nothing at first; 2,000 leases with 50 workers: 400 |
//! | 13 | wrong checkpoints | D-2 | `checkpoints`; the consumer's tests | acknowledgements of single records, which come with processing in parallel: the application keeps the prefix |
//! | 17 | shutdowns that hang or go on | X-1 | `shutdowns`; `leases.rs`, `steering.rs` | |
//! | 19 | aggregates read wrongly | D-1 | `checkpoints`; `kpl-aggregation`, the consumer's tests | 100,000 aggregates: 20,000, against the rules of the Java library and its vectors, not the library itself |
//! | 20 | limits, pauses | D-1, M-1 | `pauses`; `steering.rs`, the consumer's and the source's tests | fan-out; there is no rate limit yet |
//! | 21 | the wrong stream | D-1 | `bad_input.rs` | several streams in one table, which one scheduler cannot read yet |
//! | 22 | unfair polling | D-1, L-3 | the source's tests | the time from put to processing, which `benches/latency.rs` measures and nothing limits yet |
//!
//! The criteria 5 to 7, 14 to 16, 18 and 23 to 25 need fan-out, the fleet protocol, a Java fleet or real AWS, or are
//! tested under their own nouns.

mod aggregates;
mod batches;
mod checkpoints;
mod failing_code;
mod leases;
mod memory;
mod polling;
mod shards;
mod shutdowns;
mod silence;

use std::ops::Range;

use integration_tests::sim::plan::{Plan, Wishes};
use integration_tests::sim::run::run;
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use integration_tests::sim::world::Verdict;
use kcl_core::Event;
use tokio::sync::broadcast::Receiver;

/// Runs a plan, which must break no promise.
#[track_caller]
fn is_kept(plan: Plan) -> Verdict {
    let verdict = run(plan, None);
    let broken = verdict.breach.as_ref().map(ToString::to_string);
    assert_eq!(broken, None, "seed {} of {}", verdict.plan.seed, verdict.plan.scenario);
    verdict
}

/// Runs these seeds of a scenario, which must break no promise.
#[track_caller]
fn kept_over(scenario: Scenario, seeds: Range<u64>) -> Vec<Verdict> {
    let plans = seeds.map(|seed| Plan::draw(Seed(seed), scenario, Wishes::default()));
    plans.map(|plan| is_kept(plan.expect("without wishes there is nothing to refuse"))).collect()
}

/// Every event reported and not looked at yet.
fn drain(events: &mut Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

/// The files with tests that are named after incidents.
const SOURCES: &[&str] = &[
    include_str!("aggregates.rs"),
    include_str!("batches.rs"),
    include_str!("checkpoints.rs"),
    include_str!("failing_code.rs"),
    include_str!("leases.rs"),
    include_str!("memory.rs"),
    include_str!("polling.rs"),
    include_str!("shards.rs"),
    include_str!("shutdowns.rs"),
    include_str!("silence.rs"),
    include_str!("../bad_input.rs"),
    include_str!("../blocking.rs"),
    include_str!("../delivery.rs"),
    include_str!("../leases.rs"),
    include_str!("../resharding.rs"),
    include_str!("../steering.rs"),
];

/// The numbers of the incidents some test of a source is named after.
fn tested(source: &str) -> impl Iterator<Item = u32> + '_ {
    let lines: Vec<&str> = source.lines().collect();
    let tests = (1..lines.len()).filter_map(move |line| {
        let name = lines[line].trim_start_matches("async ").strip_prefix("fn incident_")?;
        let is_test = lines[line - 1].starts_with("#[test]") || lines[line - 1].starts_with("#[tokio::test");
        is_test.then(|| name.get(..2)?.parse().ok())?
    });
    tests.collect::<Vec<_>>().into_iter()
}

#[test]
fn every_incident_of_the_table_has_a_test_of_its_name_and_every_such_test_a_row() {
    let table = include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let listed: Vec<u32> = table.filter_map(|row| row.split(' ').next()?.parse().ok()).collect();
    assert_eq!(listed, [1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 17, 19, 20, 21, 22]);
    let mut tested: Vec<u32> = SOURCES.iter().flat_map(|source| tested(source)).collect();
    tested.sort_unstable();
    tested.dedup();
    assert_eq!(tested, listed);
}

#[test]
fn every_scenario_the_table_names_exists() {
    let rows = include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut scenarios = 0;
    for cell in rows.filter_map(|row| row.split('|').nth(3)) {
        // What has a dot is a file.
        let named = cell.split('`').nth(1).filter(|name| !name.contains('.'));
        assert!(named.is_none_or(|name| name.parse::<Scenario>().is_ok()), "{cell}");
        scenarios += usize::from(named.is_some());
    }
    assert!(scenarios >= 12, "{scenarios}");
}
