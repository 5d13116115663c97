//! The faulty store of kcl-core's test tools, over the memory store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use kcl_core::Entropy;
use kcl_core::lease::verb::{Verb, Verdict};
use kcl_core::lease::{
    AttemptToken, Consistency, Expectation, Lease, LeaseStore, Patch, StoreErrorKind, Write,
};
use kcl_core::model::{Checkpoint, ShardId};
use kcl_core::testing::{Fault, FaultRule, FaultyStore, StoreOperation};
use kcl_lease_memory::MemoryLeaseStore;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn faulty() -> FaultyStore<MemoryLeaseStore> {
    let memory = MemoryLeaseStore::new();
    memory.insert(lease(0));
    memory.insert(lease(1));
    FaultyStore::new(memory, Entropy::seeded(5))
}

fn key(index: usize) -> ShardId {
    format!("shardId-{index:012}").into()
}

fn lease(index: usize) -> Lease {
    Lease::new(key(index), Checkpoint::TrimHorizon)
}

fn set_counter(counter: u64) -> Patch {
    Patch { counter: Some(counter), ..Patch::default() }
}

/// What is truly stored.
fn stored(store: &FaultyStore<MemoryLeaseStore>, index: usize) -> u64 {
    store.inner().leases()[index].counter
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_not_applied() {
    let store = faulty();
    for (kind, may_have_applied) in [
        (StoreErrorKind::Throttled, false),
        (StoreErrorKind::Denied, false),
        (StoreErrorKind::Unavailable, true),
    ] {
        let id = store.add(FaultRule::new(Fault::Refuse(kind)).on(StoreOperation::WRITES));
        let error = store.update(&key(0), &Expectation::default(), &set_counter(9)).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (kind, may_have_applied));
        assert!(store.get(&key(0), Consistency::Strong).await.is_ok(), "reads are not named by the rule");
        assert!(store.remove(id));
    }
    assert_eq!(stored(&store, 0), 0);
    assert_eq!(store.inner().usage().of(StoreOperation::Update).requests, 0);
    assert_eq!(store.calls(StoreOperation::Update), 3);
    assert_eq!(store.strikes(StoreOperation::Update), 3);
    assert_eq!(store.strikes(StoreOperation::Get), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_write_in_force() {
    let store = faulty();
    store.add(FaultRule::new(Fault::LoseAnswer).times(1));
    let token = AttemptToken(Entropy::seeded(1).uuid());
    let verb = Verb::take(&lease(0), &"worker-a".into(), token);
    let error = store.update(&verb.shard, &verb.expect, &verb.patch).await.unwrap_err();
    assert!(error.may_have_applied() && error.is_retryable());
    assert_eq!(stored(&store, 0), 1);

    let answer = store.update(&verb.shard, &verb.expect, &verb.patch).await.unwrap();
    assert!(matches!(verb.judge(answer, true), Verdict::InForce(_)));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_lands_after_its_delay() {
    let store = faulty();
    store.add(FaultRule::new(Fault::LandLate { delay: SECOND..SECOND }).times(3));
    let begin = Instant::now();
    let error = store.update(&key(0), &Expectation::default(), &set_counter(9)).await.unwrap_err();
    assert!(error.may_have_applied());
    assert!(store.create(&lease(2)).await.is_err());
    assert!(store.delete(&key(1), &Expectation::default()).await.is_err());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!((stored(&store, 0), store.inner().leases().len()), (0, 2));

    tokio::time::sleep(SECOND - Duration::from_millis(2)).await;
    assert_eq!(stored(&store, 0), 0);
    store.settle().await;
    let keys: Vec<_> = store.inner().leases().into_iter().map(|lease| lease.shard).collect();
    assert_eq!(keys, [key(0), key(2)]);
    assert_eq!(stored(&store, 0), 9);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_that_was_fenced_does_nothing() {
    let store = faulty();
    store.add(FaultRule::new(Fault::LandLate { delay: SECOND..SECOND }).times(1));
    let expect = Expectation { counter: Some(0), ..Expectation::default() };
    assert!(store.update(&key(0), &expect, &set_counter(1)).await.is_err());
    let _ = store.update(&key(0), &expect, &set_counter(7)).await.unwrap();
    store.settle().await;
    assert_eq!(stored(&store, 0), 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_hangs_for_its_time_and_does_nothing() {
    let store = faulty();
    store.add(FaultRule::new(Fault::Hang(30 * SECOND)).shards([key(0)]));
    let begin = Instant::now();
    let error = store.update(&key(0), &Expectation::default(), &set_counter(9)).await.unwrap_err();
    assert!(error.may_have_applied());
    assert_eq!((begin.elapsed(), stored(&store, 0)), (30 * SECOND, 0));
    let _ = store.update(&key(1), &Expectation::default(), &set_counter(9)).await.unwrap();
    assert_eq!((begin.elapsed(), stored(&store, 1)), (30 * SECOND, 9));
    store.list(None, Consistency::Eventual).await.unwrap();
    assert_eq!(begin.elapsed(), 30 * SECOND, "a listing is about no shard");
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_and_lie_on_both_sides_of_the_call() {
    let store = faulty();
    store.add(FaultRule::new(Fault::Delay { before: SECOND..SECOND, after: 2 * SECOND..2 * SECOND }));
    store.add(FaultRule::new(Fault::Delay { before: SECOND..SECOND, after: Duration::ZERO..Duration::ZERO }));
    let begin = Instant::now();
    let (patch, expect, shard) = (set_counter(9), Expectation::default(), key(0));
    let write = store.update(&shard, &expect, &patch);
    let watch = async {
        tokio::time::sleep(2 * SECOND - Duration::from_millis(2)).await;
        let before = stored(&store, 0);
        tokio::time::sleep(Duration::from_millis(4)).await;
        (before, stored(&store, 0))
    };
    let (answer, seen) = tokio::join!(write, watch);
    assert!(matches!(answer.unwrap(), Write::Applied(_)));
    assert_eq!((seen, begin.elapsed()), ((0, 9), 4 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn stale_reads_show_what_was_read_before_and_not_older() {
    let store = faulty();
    store.add(FaultRule::new(Fault::Stale(5 * SECOND)));
    let counters = || async {
        let listed = store.list(None, Consistency::Eventual).await.unwrap().leases[0].counter;
        let eventual = store.get(&key(0), Consistency::Eventual).await.unwrap().unwrap().counter;
        (listed, eventual)
    };
    assert_eq!(counters().await, (0, 0));
    tokio::time::sleep(3 * SECOND).await;
    let _ = store.update(&key(0), &Expectation::default(), &set_counter(9)).await.unwrap();
    assert_eq!(counters().await, (0, 0));
    let strong = store.get(&key(0), Consistency::Strong).await.unwrap().unwrap();
    assert_eq!(strong.counter, 9);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(counters().await, (9, 9));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_strikes_the_same_calls() {
    let run = || async {
        let store = faulty();
        store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Throttled)).probability(0.3));
        let zero = Duration::ZERO..Duration::ZERO;
        store.add(FaultRule::new(Fault::Delay { before: Duration::ZERO..SECOND, after: zero }));
        let begin = Instant::now();
        let mut failed = Vec::new();
        for call in 0..200 {
            if store.list(None, Consistency::Eventual).await.is_err() {
                failed.push(call);
            }
        }
        (failed, begin.elapsed())
    };
    let first = run().await;
    assert_eq!(first, run().await);
    assert!((30..90).contains(&first.0.len()), "{}", first.0.len());
}

#[tokio::test(start_paused = true)]
async fn faults_can_be_switched_off_and_on_and_cleared() {
    let store = faulty();
    store.add(FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable)));
    assert!(store.prepare().await.is_err());
    store.set_enabled(false);
    assert!(store.prepare().await.is_ok());
    store.set_enabled(true);
    assert!(store.clone().prepare().await.is_err());
    store.clear();
    assert!(store.prepare().await.is_ok());
    assert_eq!((store.calls(StoreOperation::Prepare), store.strikes(StoreOperation::Prepare)), (4, 2));
}
