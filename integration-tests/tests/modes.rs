//! Workers of both ways to coordinate on one lease table: they find out, refuse or wait, and hand the table on.

#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::time::Duration;

use kcl_core::testing::{Recorder, World, WorldError};
use kcl_core::{CheckpointPolicy, Coordination, ErrorKind, SchedulerBuilder, StartMode, Takeover};
use kcl_lease_memory::MemoryLeaseStore;

const SECOND: Duration = Duration::from_secs(1);
/// The default lease duration.
const D: Duration = Duration::from_secs(10);
const SHARDS: u32 = 4;

/// A world in which the workers whose names begin with "old" coordinate per lease and others as a fleet, or the other way
/// round; those whose names end in "waits" wait for the others to go.
fn world(old: Coordination, new: Coordination) -> World {
    let app = Recorder::new();
    World::new(5, SHARDS, MemoryLeaseStore::new(), move |name, worker: SchedulerBuilder| {
        let takeover = if name.ends_with("waits") { Takeover::Wait } else { Takeover::Refuse };
        worker
            .processor(app.clone())
            .checkpoint_policy(CheckpointPolicy::AfterBatch)
            .coordination(if name.starts_with("old") { old } else { new })
            .takeover(takeover)
            .start_mode(if name.starts_with("standby") { StartMode::Standby } else { StartMode::Active })
    })
    .unwrap()
}

async fn with_old(old: Coordination, new: Coordination) -> World {
    let mut world = world(old, new);
    world.start("old-a").unwrap();
    world.start("old-b").unwrap();
    world.run_until(SECOND * 60, "the old ones share", |world| world.owned_in_all() == 4).await.unwrap();
    world.run_for(SECOND * 20).await.unwrap();
    world
}

/// A worker of the new way is refused, and the old ones keep everything.
async fn is_refused(old: Coordination, new: Coordination, said: &str) {
    let mut world = with_old(old, new).await;
    world.start("new").unwrap();
    let mut refused = None;
    for _ in 0..60 {
        if let Err(WorldError::WorkerEnded { name, error }) = world.run_for(SECOND).await {
            assert_eq!((name.as_str(), error.kind()), ("new", ErrorKind::Refused), "{error}");
            refused = Some(error.to_string());
            break;
        }
        assert_eq!(world.owned("new"), 0);
    }
    let refused = refused.expect("it is refused within a minute");
    assert!(refused.contains(said), "{refused}");
    world.run_for(SECOND * 30).await.unwrap();
    assert_eq!(world.owned("old-a") + world.owned("old-b"), 4);
}

/// A worker of the new way waits until the old ones have stopped in order, and then has everything soon.
async fn waits(old: Coordination, new: Coordination, soon: Duration) {
    let mut world = with_old(old, new).await;
    world.start("new-waits").unwrap();
    world.run_for(SECOND * 60).await.unwrap();
    assert_eq!(world.owned("new-waits"), 0, "the old ones work");
    assert_eq!(world.owned_in_all(), 4);
    world.stop("old-a", SECOND * 20).await.unwrap();
    world.run_for(SECOND * 20).await.unwrap();
    assert_eq!((world.owned("old-b"), world.owned("new-waits")), (4, 0));
    world.stop("old-b", SECOND * 20).await.unwrap();
    let taken = |world: &World| world.owned("new-waits") == 4;
    world.run_until(soon, "the new one has everything", taken).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fleet_is_refused_beside_workers_that_renew_each_lease() {
    is_refused(Coordination::PerLease, Coordination::Fleet, "Takeover::Wait").await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_renews_each_lease_is_refused_beside_a_fleet() {
    is_refused(Coordination::Fleet, Coordination::PerLease, "live members of a fleet").await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_takes_over_when_the_last_other_worker_has_stopped() {
    waits(Coordination::PerLease, Coordination::Fleet, D / 4 + SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_renews_each_lease_takes_over_from_a_fleet_that_has_stopped() {
    waits(Coordination::Fleet, Coordination::PerLease, D).await;
}

#[tokio::test(start_paused = true)]
async fn leases_of_killed_workers_of_the_other_kind_are_taken_after_a_while() {
    for (old, new, limit) in [
        (Coordination::PerLease, Coordination::Fleet, D * 5 / 2),
        (Coordination::Fleet, Coordination::PerLease, D * 3),
    ] {
        let mut world = with_old(old, new).await;
        world.crash("old-a").unwrap();
        world.crash("old-b").unwrap();
        world.start("new").unwrap();
        world.run_until(limit, "the new one has all", |world| world.owned("new") == 4).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_on_standby_takes_nothing_until_it_is_told() {
    for coordination in [Coordination::Fleet, Coordination::PerLease] {
        let mut world = world(coordination, coordination);
        world.start("standby").unwrap();
        world.run_for(SECOND * 30).await.unwrap();
        assert_eq!(world.owned("standby"), 0, "{coordination:?}");
        world.handle("standby").unwrap().activate().await;
        let has_all = |world: &World| world.owned("standby") == 4;
        world.run_until(SECOND * 10, "it takes everything", has_all).await.unwrap();
    }
}
