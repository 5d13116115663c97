//! A lease that is lost, in virtual time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use kcl_core::testing::MemoryStream;
use kcl_core::{
    BoxError, Checkpointer, Coordination, LeaseRuntime, RecordBatch, RecordProcessor, Scheduler, ShardContext,
};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{ConsumerRef, Kinesis};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, STREAM};

/// How many subscriptions there are when the loss is told.
struct Witness {
    kinesis: Kinesis,
    told: Arc<Mutex<Option<usize>>>,
}

fn subscriptions(kinesis: &Kinesis) -> usize {
    let stream = kinesis.describe_stream_summary(STREAM).unwrap().arn;
    kinesis.subscribed_shards(ConsumerRef::named(&stream, "app")).unwrap().len()
}

#[async_trait]
impl RecordProcessor for Witness {
    async fn process_records(&mut self, _: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        Ok(())
    }

    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscriptions(&self.kinesis));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_subscription_of_a_lost_lease_is_closed_before_the_loss_is_told() {
    let clock = kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + SECOND * 1_700_000_000);
    let kinesis = Kinesis::new(Arc::new(clock));
    kinesis.create_stream(STREAM, 1).unwrap();
    let (rows, told) = (MemoryLeaseStore::new(), Arc::new(Mutex::new(None)));
    let (service, noted) = (kinesis.clone(), Arc::clone(&told));
    let scheduler = Scheduler::builder("app")
        .worker_id("alpha")
        .coordination(Coordination::PerLease)
        .stream(MemoryStream::new(kinesis.clone(), STREAM).with_consumer("app"))
        .lease_store(rows.clone())
        .lease_runtime(LeaseRuntime::Shared)
        .processor(move |_: &ShardContext| Witness { kinesis: service.clone(), told: Arc::clone(&noted) })
        .build()
        .unwrap();
    let mut run = JoinSet::new();
    run.spawn(scheduler.run());
    sleep(SECOND * 10).await;
    assert_eq!(subscriptions(&kinesis), 1);
    let mut lease = rows.leases().remove(0);
    lease.owner = Some("thief".into());
    lease.counter += 7;
    rows.insert(lease);
    let begun = Instant::now();
    loop {
        let told = *told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = told {
            assert_eq!(open, 0, "the loss is told while the subscription is open");
            break;
        }
        assert!(begun.elapsed() < SECOND * 30, "the loss is not told");
        sleep(SECOND / 10).await;
    }
}
