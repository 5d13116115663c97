//! Incident 11: processors that block, and what is read ahead of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use integration_tests::fleet::{Fleet, STREAM};
use integration_tests::sim::scenario::Scenario;
use kcl_core::{
    BoxError, Checkpointer, Event, RecordBatch, RecordProcessor, SchedulerHandle, ShardContext, ShardId,
};
use kcl_local::kinesis::{NewRecord, ShardFilter};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::{drain, kept_over};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const SHARDS: u32 = 256;
const RECORD: usize = 4 << 10;
/// This many records are put on each shard.
const RECORDS: usize = 128;
/// An answer holds this many.
const FETCH: u32 = 8;
const ANSWER: usize = RECORD * FETCH as usize;

/// What each shard's processor is given and has not acknowledged, and how many processors there were.
#[derive(Clone, Debug, Default)]
struct Desk(Arc<Mutex<BTreeMap<ShardId, (usize, u32)>>>);

impl Desk {
    fn change(&self, shard: &ShardId, change: impl FnOnce(&mut (usize, u32))) {
        change(self.0.lock().expect("nobody panics").entry(shard.clone()).or_default());
    }

    fn in_hand(&self) -> usize {
        self.0.lock().expect("nobody panics").values().map(|(bytes, _)| bytes).sum()
    }

    fn processors(&self) -> u32 {
        self.0.lock().expect("nobody panics").values().map(|(_, processors)| processors).sum()
    }
}

/// Blocks as long as it is told to.
struct Blocker {
    desk: Desk,
    shard: ShardId,
    blocked: watch::Receiver<bool>,
}

#[async_trait]
impl RecordProcessor for Blocker {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        let bytes: usize = batch.records().iter().map(|record| record.data().len()).sum();
        self.desk.change(&self.shard, |(in_hand, _)| *in_hand = bytes);
        self.blocked.wait_for(|blocked| !blocked).await?;
        self.desk.change(&self.shard, |(in_hand, _)| *in_hand = 0);
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn incident_11_processors_blocked_for_ten_minutes_cost_no_lease_no_task_and_no_memory_beyond_the_budget()
 {
    let mut fleet = Fleet::new(11, SHARDS);
    fleet.stream = fleet.stream.with_fetch_records(FETCH).with_poll_interval(SECOND * 5);
    fleet.settings.shard_buffer_bytes = ANSWER * 4;
    fleet.settings.worker_buffer_bytes = ANSWER * 128;
    let starts: Vec<u128> = {
        let open = fleet.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
        open.iter().map(|shard| shard.hash_key_range.start).collect()
    };
    let data = Bytes::from(vec![7; RECORD]);
    let put = |count: usize| {
        for start in &starts {
            for _ in 0..count {
                let record = NewRecord::new("key", data.clone()).with_explicit_hash_key(*start);
                fleet.kinesis.put_record(STREAM, record).expect("no limits are set");
            }
        }
    };
    let (desk, (block, blocked)) = (Desk::default(), watch::channel(true));
    let start = |name: &str| -> SchedulerHandle {
        let (desk, blocked) = (desk.clone(), blocked.clone());
        let builder = fleet.builder(name).0.processor(move |shard: &ShardContext| {
            desk.change(&shard.shard, |(_, processors)| *processors += 1);
            Blocker { desk: desk.clone(), shard: shard.shard.clone(), blocked: blocked.clone() }
        });
        let scheduler = builder.build().expect("the settings are sound");
        let handle = scheduler.handle();
        #[allow(clippy::disallowed_methods, reason = "the runtime of the test ends it")]
        drop(tokio::spawn(scheduler.run()));
        handle
    };
    let handles = ["alpha", "beta"].map(start);
    let mut events = handles.each_ref().map(SchedulerHandle::events);
    let shares = || handles.each_ref().map(|handle| handle.snapshot().shards.len());
    let begun = tokio::time::Instant::now();
    while shares() != [SHARDS as usize / 2; 2] {
        assert!(begun.elapsed() < MINUTE * 2, "{:?}", shares());
        tokio::time::sleep(SECOND).await;
    }
    tokio::time::sleep(SECOND * 10).await;
    for events in &mut events {
        drain(events);
    }
    let processors = desk.processors();

    // Four times as much as may be read ahead for each shard.
    put(RECORDS);
    tokio::time::sleep(MINUTE).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    let most = 2 * (fleet.settings.worker_buffer_bytes + SHARDS as usize / 2 * ANSWER);
    let (mut read, mut spread) = (0, (tasks, tasks));
    for _ in 0..100 {
        tokio::time::sleep(SECOND * 6 + SECOND / 10).await;
        let ahead: usize = handles.iter().map(|handle| handle.snapshot().buffered_bytes()).sum();
        read = read.max(ahead + desk.in_hand());
        let now = Handle::current().metrics().num_alive_tasks();
        spread = (spread.0.min(now), spread.1.max(now));
    }
    println!("{tasks} tasks, {spread:?}; {read} of {most} bytes");
    assert_eq!(spread, (tasks, tasks));
    assert!(read <= most && read > most / 4, "{read} of {most} bytes");
    assert_eq!(shares(), [SHARDS as usize / 2; 2]);
    assert_eq!(desk.processors(), processors, "one processor for each shard, all the time");
    for events in &mut events {
        let events = drain(events);
        assert!(!events.iter().any(|event| matches!(event, Event::LeaseLost { .. })), "{events:?}");
    }

    block.send_replace(false);
    tokio::time::sleep(MINUTE * 2).await;
    let records: u64 = handles
        .iter()
        .flat_map(|handle| handle.snapshot().shards.into_values())
        .map(|shard| shard.report.records)
        .sum();
    assert_eq!(records, RECORDS as u64 * u64::from(SHARDS), "everything goes on, once");
}

#[test]
fn incident_11_whatever_blocks_memory_stays_bounded_and_no_promise_is_broken() {
    kept_over(Scenario::BackPressure, 0..4);
}
