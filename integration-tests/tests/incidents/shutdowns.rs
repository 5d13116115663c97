//! Incident 17: stopping.

use std::time::Duration;

use integration_tests::fleet::Fleet;
use integration_tests::sim::scenario::Scenario;
use kcl_core::testing::{Fault, FaultRule, StoreOperation, StreamCall};
use kcl_core::{Health, ShardOutcome, WorkerId};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::kept_over;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How often the lease table is listed, by the default settings.
const CYCLE: Duration = Duration::from_secs(4);
const OPERATIONS: [StoreOperation; 6] = [
    StoreOperation::Prepare,
    StoreOperation::List,
    StoreOperation::Get,
    StoreOperation::Create,
    StoreOperation::Update,
    StoreOperation::Delete,
];
const CALLS: [StreamCall; 4] = [StreamCall::Identity, StreamCall::List, StreamCall::Open, StreamCall::Read];

/// Whatever the worker is doing, and however little time it is given: from starting over reading and processing to
/// renewing.
#[tokio::test(start_paused = true)]
async fn incident_17_a_shutdown_at_any_moment_ends_by_its_deadline_with_a_report_and_no_task_and_no_call_after_it()
 {
    let (mut clean, mut late) = (0, 0);
    for round in 0..60 {
        let mut random = fastrand::Rng::with_seed(round);
        let mut fleet = Fleet::new(round, 4);
        fleet.behaviour.slowness = SECOND * random.u32(0..6);
        fleet.behaviour.fail = 0.1;
        fleet.stream.set_latency(MS * random.u32(0..200));
        let tasks = Handle::current().metrics().num_alive_tasks();
        fleet.start("alpha");
        let worker = fleet.worker("alpha");
        let (store, handle) = (std::sync::Arc::clone(&worker.store), worker.handle.clone());
        let slow = Fault::Delay { before: MS..MS * 100, after: MS..MS * 100 };
        store.add(FaultRule::new(slow));
        let moment = Instant::now() + MS * random.u32(0..12_000);
        while Instant::now() < moment {
            fleet.put_on_each_shard();
            tokio::time::sleep((SECOND / 2).min(moment - Instant::now())).await;
        }
        let held = handle.snapshot().shards;
        let (deadline, begun) = (SECOND * random.u32(1..8), Instant::now());
        let report = handle.shutdown(deadline).await;
        assert!(begun.elapsed() <= deadline, "round {round}: {:?} of {deadline:?}", begun.elapsed());
        assert_eq!(handle.health(), Health::Dead);
        assert!(held.keys().all(|shard| report.shards.contains_key(shard)), "round {round}: {report:?}");
        let leases = fleet.leases();
        for (shard, outcome) in &report.shards {
            let released = matches!(outcome, ShardOutcome::Released | ShardOutcome::ReleasedUncleanly);
            assert!(!released || leases[shard].owner.is_none(), "round {round}: {shard} {outcome:?}");
            late += usize::from(matches!(outcome, ShardOutcome::DeadlineExceeded(_)));
            clean += usize::from(matches!(outcome, ShardOutcome::Released));
        }
        let calls = || -> u64 {
            let stream = CALLS.map(|call| fleet.stream.calls(call));
            OPERATIONS.map(|operation| store.calls(operation)).iter().chain(&stream).sum()
        };
        let before = calls();
        tokio::time::sleep(SECOND * 60).await;
        assert_eq!(calls(), before, "round {round}");
        // The task that ran it is over, too, and waits to be joined.
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks, "round {round}");
        fleet.start("beta");
        fleet.run_until_delivered(SECOND * 60).await;
        fleet.ledger.assert_complete();
        drop(fleet);
        tokio::time::sleep(SECOND * 60).await;
    }
    println!("{clean} shards released, {late} not by the deadline");
    assert!(clean > 50 && late > 5, "{clean} {late}");
}

#[tokio::test(start_paused = true)]
async fn incident_17_a_worker_that_stopped_is_gone_from_its_peers_view_within_a_cycle() {
    for round in 0..10 {
        let mut fleet = Fleet::new(round, 6);
        for worker in ["alpha", "beta", "gamma"] {
            fleet.start(worker);
        }
        fleet.run_until(SECOND * 60, "balance", |fleet| fleet.is_balanced(3)).await;
        fleet.run_for(SECOND * 10 + MS * 370 * u32::try_from(round).unwrap_or(0)).await;
        let report = fleet.stop("beta").await;
        assert!(report.is_clean() && report.shards.len() == 2, "{report:?}");
        let beta = WorkerId::from("beta");
        let forgotten = |fleet: &Fleet| {
            ["alpha", "gamma"]
                .iter()
                .all(|worker| !fleet.worker(worker).handle.snapshot().leases_by_owner().contains_key(&beta))
        };
        let took = fleet.run_until(CYCLE * 3, "beta is gone", forgotten).await;
        // Listings are a tenth apart more or less.
        assert!(took <= CYCLE.mul_f64(1.2), "round {round}: {took:?}");
    }
}

#[test]
fn incident_17_shutdowns_at_any_moment_break_no_promise() {
    kept_over(Scenario::Shutdowns, 0..8);
}
