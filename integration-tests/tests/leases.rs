//! Leases under faults: nothing is lost, nobody delivers on what is not theirs, and everything comes to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use integration_tests::fleet::Fleet;
use kcl_core::lease::StoreErrorKind;
use kcl_core::testing::{Fault, FaultRule, StoreOperation};
use kcl_core::{ShardId, WorkerId};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// The lease duration of the default settings.
const D: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn incident_09_a_write_applied_but_answered_with_an_error_loses_no_lease() {
    let mut fleet = Fleet::new(3, 20);
    fleet.start("alpha");
    fleet.run_until(SECOND * 5, "all owned", |fleet| fleet.owners().values().sum::<usize>() == 20).await;
    let store = &fleet.worker("alpha").store;
    store.add(FaultRule::new(Fault::LoseAnswer).on([StoreOperation::Update]).probability(0.05));
    let hang = Fault::Hang(SECOND * 2);
    store.add(FaultRule::new(hang).on([StoreOperation::Update]).probability(0.05));
    let late = Fault::LandLate { delay: SECOND / 10..SECOND * 3 };
    store.add(FaultRule::new(late).on([StoreOperation::Update]).probability(0.05));
    let mut events = fleet.worker("alpha").handle.events();
    for _ in 0..600 {
        fleet.put(&["a", "b", "c"]);
        fleet.run_for(SECOND).await;
    }
    assert!(fleet.worker("alpha").store.strikes(StoreOperation::Update) > 100, "the faults did strike");
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, kcl_core::Event::LeaseLost { .. }), "{event:?}");
    }
    fleet.run_until_delivered(SECOND * 30).await;
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_09_throttling_for_most_of_a_lease_duration_loses_no_lease() {
    let mut fleet = Fleet::new(4, 10);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
    fleet.run_for(D).await;
    let owners = fleet.leases();
    for worker in ["alpha", "beta"] {
        fleet.worker(worker).store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Throttled)));
    }
    fleet.run_for(D.mul_f64(0.6)).await;
    for worker in ["alpha", "beta"] {
        fleet.worker(worker).store.clear();
    }
    fleet.run_for(D * 3).await;
    for (shard, lease) in fleet.leases() {
        assert_eq!(lease.owner, owners[&shard].owner, "{shard} changed hands");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_row_is_made_again_and_its_shard_goes_on() {
    let mut fleet = Fleet::new(5, 2);
    fleet.start("alpha");
    fleet.put(&["a", "b", "c", "d"]);
    fleet.run_until_delivered(SECOND * 5).await;
    let shard: ShardId = "shardId-000000000000".into();
    assert!(fleet.store.remove(&shard));
    fleet.put(&["a", "b", "c", "d"]);
    let took = fleet
        .run_until(D * 3, "owned again", |fleet| {
            fleet.leases().get(&ShardId::from("shardId-000000000000")).is_some_and(|l| l.owner.is_some())
        })
        .await;
    fleet.put(&["a", "b", "c", "d"]);
    // The row is gone and with it the checkpoint: the new one starts at the beginning, so D-2 does not apply here.
    fleet.run_until(D * 3, "delivered", |fleet| fleet.ledger.lost().is_empty()).await;
    assert!(took < D, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_the_same_worker_id_goes_on_at_once() {
    let mut fleet = Fleet::new(6, 6);
    fleet.start("alpha");
    fleet.put(&["a", "b", "c", "d", "e", "f"]);
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.kill("alpha");
    fleet.put(&["a", "b", "c", "d", "e", "f"]);
    fleet.start("alpha");
    let took = fleet.run_until_delivered(SECOND * 10).await;
    assert!(took <= SECOND * 3, "first record within 3 s, not after the leases ran out: {took:?}");
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_by_a_peer_at_its_next_look() {
    let mut fleet = Fleet::new(7, 8);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
    let report = fleet.stop("alpha").await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.shards.len(), 4);
    fleet.put(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let took = fleet.run_until_delivered(D).await;
    assert!(took < SECOND * 6, "{took:?}");
    assert_eq!(fleet.ledger.duplicates(), 0);
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_takes_back_what_it_asked_for() {
    for seed in 0..10 {
        let mut fleet = Fleet::new(seed, 12);
        fleet.start("alpha");
        fleet.start("gamma");
        fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
        fleet.start("beta");
        let asked =
            |fleet: &Fleet| fleet.leases().values().any(|lease| lease.requested_by == Some("beta".into()));
        fleet.run_until(SECOND * 20, "beta asks", asked).await;
        let report = fleet.stop("beta").await;
        assert!(report.is_clean(), "{report:?}");
        assert!(!asked(&fleet), "seed {seed}");
        fleet.put(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"]);
        let took = fleet.run_until_delivered(D * 2).await;
        assert!(took < D / 2, "seed {seed}: no lease waits for a worker that is gone: {took:?}");
        fleet.ledger.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn incident_17_shutdown_keeps_its_deadline_and_calls_nothing_afterwards() {
    let mut fleet = Fleet::new(8, 4);
    fleet.behaviour.slowness = SECOND * 3600;
    fleet.start("alpha");
    fleet.put(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    fleet.run_for(SECOND * 5).await;
    let handle = fleet.worker("alpha").handle.clone();
    let begun = Instant::now();
    let report = handle.shutdown(SECOND * 3).await;
    assert!(begun.elapsed() <= SECOND * 3, "{:?}", begun.elapsed());
    assert!(!report.is_clean());
    let calls = || -> u64 {
        let store = &fleet.worker("alpha").store;
        [StoreOperation::List, StoreOperation::Get, StoreOperation::Update, StoreOperation::Create]
            .map(|operation| store.calls(operation))
            .iter()
            .sum()
    };
    let before = calls();
    tokio::time::sleep(D * 6).await;
    assert_eq!(calls(), before);
}

#[tokio::test(start_paused = true)]
async fn incident_08_a_worker_cut_off_from_its_store_stops_delivering_before_its_lease_can_be_taken() {
    for seed in 0..30 {
        let mut fleet = Fleet::new(seed, 4);
        fleet.behaviour.checkpoints = false;
        fleet.start("alpha");
        fleet.start("beta");
        fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
        fleet.run_for(SECOND * seed as u32 / 3).await;
        let cut_off: BTreeSet<ShardId> = fleet
            .leases()
            .into_values()
            .filter(|lease| lease.owner == Some("alpha".into()))
            .map(|lease| lease.shard)
            .collect();
        let hang = Fault::Hang(SECOND * 3600);
        fleet.worker("alpha").store.add(FaultRule::new(hang));
        for _ in 0..300 {
            fleet.put(&["a", "b", "c", "d", "e", "f"]);
            fleet.run_for(SECOND / 10).await;
        }
        let (alpha, beta) = (WorkerId::from("alpha"), WorkerId::from("beta"));
        for shard in &cut_off {
            let of = |worker: &WorkerId| {
                let deliveries = fleet.ledger.deliveries().into_iter();
                deliveries
                    .filter(|d| d.shard == *shard && d.worker == *worker)
                    .map(|d| d.at)
                    .collect::<Vec<_>>()
            };
            let last = of(&alpha).into_iter().max();
            let first = of(&beta).into_iter().min().expect("beta takes the shard over");
            assert!(last.is_none_or(|last| last < first), "seed {seed}: L-1 broken on {shard}");
        }
        fleet.run_until_delivered(SECOND * 5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_table_longer_than_the_lease_duration_moves_nothing() {
    let mut fleet = Fleet::new(9, 10);
    fleet.start("alpha");
    fleet.start("beta");
    fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(2)).await;
    fleet.run_for(D).await;
    let before = fleet.leases();
    for worker in ["alpha", "beta"] {
        fleet.worker(worker).store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable)));
    }
    fleet.run_for(D * 3).await;
    for worker in ["alpha", "beta"] {
        fleet.worker(worker).store.clear();
    }
    fleet.put(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let took = fleet.run_until_delivered(D).await;
    assert!(took < D / 2, "{took:?}");
    fleet.run_for(D * 3).await;
    for (shard, lease) in fleet.leases() {
        assert_eq!(lease.owner, before[&shard].owner, "{shard} changed hands");
    }
    fleet.ledger.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn incident_12_a_fleet_balances_hands_over_without_duplicates_and_then_rests() {
    let mut fleet = Fleet::new(10, 24);
    fleet.start("alpha");
    fleet.run_until(SECOND * 5, "all owned", |fleet| fleet.owners().values().sum::<usize>() == 24).await;
    for worker in ["beta", "gamma", "delta"] {
        fleet.start(worker);
        for _ in 0..40 {
            fleet.put(&["a", "b", "c", "d", "e", "f", "g", "h"]);
            fleet.run_for(SECOND).await;
        }
    }
    assert!(fleet.is_balanced(4), "{:?}", fleet.owners());
    fleet.run_until_delivered(SECOND * 5).await;
    fleet.ledger.assert_complete();
    assert_eq!(fleet.ledger.duplicates(), 0, "moves are hand-overs");
    let before = fleet.leases();
    tokio::time::sleep(SECOND * 3600).await;
    for (shard, lease) in fleet.leases() {
        assert_eq!(lease.owner, before[&shard].owner, "{shard} moved at balance");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_02_a_stalled_consumer_does_not_keep_its_lease() {
    let mut fleet = Fleet::new(11, 2);
    fleet.settings.callback_limit = SECOND * 30;
    fleet.behaviour.slowness = SECOND * 100_000;
    fleet.start("alpha");
    fleet.put(&["a", "b", "c", "d"]);
    let mut events = fleet.worker("alpha").handle.events();
    fleet.run_for(SECOND * 60).await;
    let mut lost = 0;
    while let Ok(event) = events.try_recv() {
        lost += u32::from(matches!(event, kcl_core::Event::LeaseLost { .. }));
    }
    assert!(lost >= 2, "callbacks over their limit give the lease up");
}
