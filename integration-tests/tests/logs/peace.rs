//! OB-2: a fleet at rest has little to say, and nothing to warn of.

use std::time::Duration;

use kcl_core::testing::{Action, Recorder, Rule, World};
use kcl_core::{Callback, CheckpointPolicy, Coordination, SchedulerBuilder};
use kcl_lease_memory::MemoryLeaseStore;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::capture::Log;

const SHARDS: u32 = 100;
const HOUR: Duration = Duration::from_secs(3_600);
const BREATH: Duration = Duration::from_secs(5);

/// An hour of a fleet that all workers have joined long ago, with records coming in.
async fn hour(coordination: Coordination) {
    let (log, _guard) = Log::keep(LevelFilter::INFO);
    let processors = Recorder::new();
    let app = processors.clone();
    let mut world = World::new(7, SHARDS, MemoryLeaseStore::new(), move |_, worker: SchedulerBuilder| {
        worker
            .processor(app.clone())
            .checkpoint_policy(CheckpointPolicy::AfterBatch)
            .coordination(coordination)
    })
    .unwrap();
    for worker in ["a", "b", "c", "d"] {
        world.start(worker).unwrap();
    }
    world.run_for(Duration::from_secs(120)).await.unwrap();
    assert_eq!(world.owned_in_all(), 100);
    assert!(!log.lines().is_empty(), "a start has something to say");
    log.clear();
    let before = processors.count(Callback::ProcessRecords);
    for second in 0..HOUR.as_secs() / BREATH.as_secs() {
        for key in 0..4 {
            world.put(&format!("{second}-{key}"), "data").await.unwrap();
        }
        world.run_for(BREATH).await.unwrap();
    }
    let delivered = processors.count(Callback::ProcessRecords) - before;
    assert!(delivered > 2_000, "{delivered} batches");
    let lines = log.lines();
    println!("{coordination:?}: {} lines of the whole fleet in an hour, {delivered} batches", lines.len());
    let warnings: Vec<_> = lines.iter().filter(|line| line.level <= Level::WARN).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    // The bound is for one worker; a fleet at rest keeps it together.
    assert!(lines.len() <= 60, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_a_fleet_at_rest() {
    hour(Coordination::Fleet).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_workers_by_the_lease() {
    hour(Coordination::PerLease).await;
}

/// A batch that fails for ever is told of, but not without end.
#[tokio::test(start_paused = true)]
async fn an_hour_of_a_failing_shard_is_a_few_lines_a_minute() {
    let (log, _guard) = Log::keep(LevelFilter::INFO);
    let processors = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Fail));
    let app = processors.clone();
    let mut world = World::new(7, 1, MemoryLeaseStore::new(), move |_, worker: SchedulerBuilder| {
        worker.processor(app.clone())
    })
    .unwrap();
    world.start("a").unwrap();
    world.put("key", "data").await.unwrap();
    world.run_for(Duration::from_secs(120)).await.unwrap();
    log.clear();
    world.run_for(HOUR).await.unwrap();
    let lines = log.lines().len();
    assert!((60..300).contains(&lines), "{lines} lines");
}
