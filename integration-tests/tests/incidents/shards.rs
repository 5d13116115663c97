//! Incidents 3 and 4: splits, merges, and the ends of shards.

use std::time::Duration;

use integration_tests::fleet::{Fleet, STREAM};
use integration_tests::sim::scenario::Scenario;
use kcl_core::CheckpointPolicy;
use kcl_core::testing::{Fault, FaultRule};

use crate::kept_over;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PARENT: &str = "shardId-000000000000";
const CHILDREN: [&str; 2] = ["shardId-000000000001", "shardId-000000000002"];

#[test]
fn incident_03_no_tree_of_splits_and_merges_loses_disorders_or_repeats_more_than_it_must() {
    kept_over(Scenario::Resharding, 0..6);
}

#[tokio::test(start_paused = true)]
async fn incident_03_the_first_record_of_a_child_is_delivered_within_two_seconds_of_the_end_of_its_parents() {
    let mut fleet = Fleet::new(1, 4);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
    // Splits, then merges, some of whose parents have two owners.
    for shards in [8, 4, 2, 4] {
        fleet.put_on_each_shard();
        fleet.run_until_delivered(SECOND * 5).await;
        fleet.kinesis.update_shard_count(STREAM, shards).expect("doubling and halving are allowed");
        fleet.put_on_each_shard();
        let took = fleet.run_until_delivered(SECOND * 10).await;
        assert!(took <= SECOND * 2, "to {shards} shards: {took:?}");
        fleet.run_for(SECOND * 20).await;
    }
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0, "no ancestor is read again");
}

#[test]
fn incident_04_the_end_of_a_shard_gets_stuck_on_no_processor_and_no_crash() {
    kept_over(Scenario::ShardEnds, 0..6);
}

/// What a processor does about the end of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    NeverCheckpoints,
    CheckpointsTheLastRecord,
    FailsHalfOfItsCalls,
    SeesNoRecord,
}

#[tokio::test(start_paused = true)]
async fn incident_04_whenever_the_worker_crashes_the_children_have_leases_before_the_end_is_stored_and_start()
{
    for habit in [
        Habit::NeverCheckpoints,
        Habit::CheckpointsTheLastRecord,
        Habit::FailsHalfOfItsCalls,
        Habit::SeesNoRecord,
    ] {
        let mut moments = [0; 3];
        for crash in 0..40 {
            let mut fleet = Fleet::new(u64::from(crash), 1);
            fleet.behaviour.checkpoints = false;
            match habit {
                Habit::CheckpointsTheLastRecord => fleet.policy = CheckpointPolicy::AfterBatch,
                Habit::FailsHalfOfItsCalls => fleet.behaviour.fail = 0.5,
                Habit::NeverCheckpoints | Habit::SeesNoRecord => {}
            }
            fleet.start("alpha");
            // So slow that there is time for a crash between any two writes.
            let slow = Fault::Delay { before: MS * 50..MS * 100, after: MS * 50..MS * 100 };
            fleet.worker("alpha").store.add(FaultRule::new(slow));
            fleet.run_until(SECOND * 10, "owned", |fleet| fleet.is_balanced(1)).await;
            fleet.run_for(SECOND * 5).await;
            if habit != Habit::SeesNoRecord {
                fleet.put_on_each_shard();
            }
            fleet.kinesis.split_shard(STREAM, PARENT, 1 << 127).expect("the middle lies inside");
            fleet.put_on_each_shard();
            // The clerks of a fleet may deliver nothing late; a crash within a second hits every write.
            tokio::time::sleep(MS * 25 * crash).await;
            fleet.kill("alpha");
            // What was on its way lands.
            fleet.run_for(SECOND).await;
            let leases = fleet.leases();
            let children = CHILDREN.iter().filter(|child| leases.contains_key(**child)).count();
            let ended = leases[PARENT].is_ended();
            assert!(!ended || children == 2, "{habit:?}, crash {crash}: ended with {children} children");
            moments[if ended { 2 } else { usize::from(children > 0) }] += 1;
            fleet.start("beta");
            fleet.run_until_delivered(SECOND * 60).await;
            let over = |fleet: &Fleet| fleet.leases()[PARENT].is_ended();
            fleet.run_until(SECOND * 60, "the end is stored", over).await;
            fleet.ledger.assert_complete();
        }
        println!("{habit:?}: crashed before the children's leases, before the end, after it: {moments:?}");
        assert!(moments.iter().all(|crashes| *crashes > 0), "{habit:?}: {moments:?}");
    }
}
