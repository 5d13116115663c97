//! What processors do to themselves must cost nobody a record.

use std::time::Duration;

use integration_tests::fleet::{Behaviour, Fleet};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn one_worker_takes_every_shard_and_delivers_every_record() {
    let mut fleet = Fleet::new(1, 4);
    fleet.put(&["a", "b", "c", "d", "e", "f"]);
    fleet.put_aggregate("a", 10);
    fleet.start("alpha");
    let took = fleet.run_until_delivered(SECOND * 5).await;
    assert!(took <= SECOND * 5, "first records of an empty table come within 5 s");
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_01_a_processor_that_fails_and_panics_on_some_batches_loses_nothing_and_skips_nothing() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(seed, 3);
        fleet.behaviour = Behaviour { fail: 0.2, panic: 0.1, ..Behaviour::default() };
        fleet.start("alpha");
        for _ in 0..50 {
            fleet.put(&["a", "b", "c", "d", "e"]);
            fleet.put_aggregate("f", 3);
            fleet.run_for(SECOND / 5).await;
        }
        fleet.run_until_delivered(SECOND * 120).await;
        fleet.ledger.assert_complete();
    }
}
