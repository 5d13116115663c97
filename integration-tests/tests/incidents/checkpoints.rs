//! Incident 13: checkpoints that come late, out of order, again, and inside aggregates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::fleet::Fleet;
use integration_tests::sim::scenario::Scenario;
use kcl_core::model::Checkpoint;
use kcl_core::testing::StoreOperation;
use kcl_core::{
    BoxError, CheckpointError, Checkpointer, Entropy, Position, RecordBatch, RecordProcessor, ShardContext,
};
use tokio::time::sleep;

use crate::kept_over;

const SECOND: Duration = Duration::from_secs(1);
const SHARD: &str = "shardId-000000000000";

/// What processors were given, and the last of them's checkpointer.
#[derive(Clone, Debug, Default)]
struct Table(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    first: Option<Position>,
    given: Vec<Position>,
    checkpointer: Option<Checkpointer>,
}

impl Table {
    fn with<T>(&self, look: impl FnOnce(&mut Entries) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panics"))
    }
}

/// Hands over what it is given and acknowledges nothing itself; somebody else does, whenever they are done.
struct Dispatcher(Table);

#[async_trait]
impl RecordProcessor for Dispatcher {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        self.0.with(|entries| {
            let positions = batch.records().iter().map(kcl_core::Record::position);
            entries.given.extend(positions);
            entries.first = entries.first.or(entries.given.first().copied());
            entries.checkpointer = Some(checkpointer.clone());
        });
        Ok(())
    }
}

/// Starts a worker of this name over the fleet's stream whose processors put everything on the table.
fn start(fleet: &Fleet, name: &str, table: &Table) -> (tokio::task::JoinHandle<()>, Arc<Store>) {
    let (builder, store) = fleet.builder(name);
    let table = table.clone();
    let scheduler = builder.processor(move |_: &ShardContext| Dispatcher(table.clone()));
    let run = scheduler.build().expect("the settings are sound").run();
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(async move { drop(run.await) });
    (task, store)
}

type Store = kcl_core::testing::FaultyStore<kcl_lease_memory::MemoryLeaseStore>;

/// Many workers finish records in any order, and say so in any order; some say so twice, some never. What they
/// checkpoint is how far everything is done. The library has no acknowledgements of single records yet: that everything
/// up to there is done is the application's word, and this test's.
#[tokio::test(start_paused = true)]
async fn incident_13_the_stored_checkpoint_is_the_longest_prefix_said_to_be_done_to_the_sub_sequence() {
    for seed in 0..40 {
        let entropy = Entropy::seeded(seed);
        let mut fleet = Fleet::new(seed, 1);
        fleet.settings.batch_records = 1 + usize::try_from(entropy.below(20)).unwrap_or(0);
        for count in 0..12 {
            match entropy.below(3) {
                0 => fleet.put(&["a", "b"]),
                _ => fleet.put_aggregate("c", 2 + count),
            }
        }
        let records = usize::try_from(fleet.ledger.put()).expect("a few");
        let table = Table::default();
        let (task, store) = start(&fleet, "alpha", &table);
        while table.with(|entries| entries.given.len()) < records {
            sleep(SECOND / 10).await;
        }
        let (given, checkpointer) =
            table.with(|entries| (entries.given.clone(), entries.checkpointer.clone().expect("one came")));
        assert!(given.is_sorted() && given.iter().any(|position| position.sub_sequence > 0));

        // Who is done when; a few are never done.
        let mut done: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for index in 0..records {
            let times = if entropy.below(40) == 0 { 0 } else { 1 + entropy.below(2) };
            (0..times).for_each(|_| done.entry(entropy.below(1_000)).or_default().push(index));
        }
        let (mut acknowledged, mut prefix) = (vec![false; records], 0);
        let stored = || fleet.leases()[SHARD].checkpoint;
        for index in done.into_values().flatten() {
            acknowledged[index] = true;
            prefix += acknowledged[prefix..].iter().take_while(|done| **done).count();
            let Some(last) = prefix.checked_sub(1).map(|last| given[last]) else { continue };
            // An older one, the same again, one that is not known yet: none of them changes anything.
            let writes = store.calls(StoreOperation::Update);
            let before = stored();
            if before >= Checkpoint::At(given[0]) {
                let older = entropy.below(u64::try_from(prefix).expect("a few"));
                let older = given[usize::try_from(older).expect("a few")];
                if Checkpoint::At(older) <= before {
                    checkpointer.checkpoint_at(older).await.expect("an old position is fine");
                    assert_eq!((stored(), store.calls(StoreOperation::Update)), (before, writes));
                }
            }
            let beyond = Position::new(given[records - 1].sequence, u64::MAX);
            let refused = checkpointer.checkpoint_at(beyond).await;
            assert!(matches!(refused, Err(CheckpointError::NotDelivered { .. })), "{refused:?}");
            checkpointer.checkpoint_at(last).await.expect("the lease is held");
            assert_eq!(stored(), Checkpoint::At(last), "seed {seed}");
        }

        // The next worker goes on with the first record that is not in the prefix.
        task.abort();
        table.with(|entries| *entries = Entries::default());
        let (task, _) = start(&fleet, "alpha", &table);
        sleep(SECOND * 5).await;
        assert_eq!(table.with(|entries| entries.first), given.get(prefix).copied(), "seed {seed}");
        if prefix < records {
            let late = checkpointer.checkpoint_at(given[records - 1]).await;
            assert!(matches!(late, Err(CheckpointError::LeaseLost)), "{late:?}");
        }
        task.abort();
    }
}

#[test]
fn incident_13_checkpoints_late_prepared_inside_aggregates_and_again_break_no_promise() {
    kept_over(Scenario::Checkpoints, 0..8);
}
