//! Whatever is logged inside a worker can be told apart by application, worker, shard and operation.

use std::time::Duration;

use async_trait::async_trait;
use kcl_core::testing::World;
use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor, SchedulerBuilder, ShardContext};
use kcl_lease_memory::MemoryLeaseStore;
use tracing::level_filters::LevelFilter;

use super::capture::{Line, Log};

struct Talker;

#[async_trait]
impl RecordProcessor for Talker {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), BoxError> {
        tracing::info!("made ready");
        Ok(())
    }

    async fn process_records(&mut self, _: RecordBatch, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        tracing::info!("a batch");
        checkpointer.checkpoint().await?;
        Ok(())
    }

    async fn shutdown_requested(&mut self, _: &Checkpointer) -> Result<(), BoxError> {
        tracing::info!("the end");
        Ok(())
    }
}

async fn run(level: LevelFilter) -> Vec<Line> {
    let (log, _guard) = Log::keep(level);
    let mut world = World::new(3, 2, MemoryLeaseStore::new(), |_, worker: SchedulerBuilder| {
        worker.processor(|_: &ShardContext| Talker)
    })
    .unwrap();
    world.start("alpha").unwrap();
    world.run_for(Duration::from_secs(5)).await.unwrap();
    world.put("key", "data").await.unwrap();
    world.run_for(Duration::from_secs(30)).await.unwrap();
    world.stop("alpha", Duration::from_secs(10)).await.unwrap();
    log.lines()
}

fn find<'a>(lines: &'a [Line], message: &str) -> &'a Line {
    lines
        .iter()
        .find(|line| line.message == message)
        .unwrap_or_else(|| panic!("no line {message:?}: {lines:#?}"))
}

#[tokio::test(start_paused = true)]
async fn what_a_processor_logs_names_worker_shard_and_callback() {
    let lines = run(LevelFilter::INFO).await;
    for (message, callback) in
        [("made ready", "initialize"), ("a batch", "process_records"), ("the end", "shutdown_requested")]
    {
        let line = find(&lines, message);
        assert_eq!(line.path(), ["scheduler", "shard", callback]);
        let (scheduler, shard) = (&line.spans[0].1, &line.spans[1].1);
        assert!(scheduler["worker"].starts_with("alpha"), "{scheduler:?}");
        assert!(scheduler.contains_key("application") && scheduler.contains_key("stream"), "{scheduler:?}");
        assert!(shard["shard"].starts_with("shardId-") && shard.contains_key("lease_counter"), "{shard:?}");
    }
    assert_eq!(find(&lines, "a batch").spans[2].1["records"], "1");
}

#[tokio::test(start_paused = true)]
async fn every_line_of_a_worker_is_inside_its_span() {
    let lines = run(LevelFilter::TRACE).await;
    let ours =
        lines.iter().filter(|line| line.target.starts_with("kcl_core") && !line.target.contains("testing"));
    let mut count = 0;
    for line in ours {
        assert_eq!(line.path().first(), Some(&"scheduler"), "{line:?}");
        count += 1;
    }
    assert!(count > 10, "{lines:#?}");
}
