//! How to test a processor: what `docs/testing.md` explains, and the tests of that guide.
//!
//! `totals` is the processor. The tests here run it in a world of whole workers in virtual time; `services` runs the
//! same test through the SDK, on local services or in an account; `guide` compares the guide with all of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod guide;
mod services;
mod totals;

use std::ops::Range;
use std::time::Duration;

use kcl_core::testing::{Action, Mishap, Part, Recorder, Rule, World, WorldError};
use kcl_core::{BoxError, Callback, CheckpointPolicy, SchedulerBuilder, ShardContext};
use kcl_lease_memory::MemoryLeaseStore;

use totals::{Totaller, Totals};

const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn totals_survive_a_reshard_a_crash_and_a_deployment() -> Result<(), BoxError> {
    let totals = Totals::default();
    let mut world = World::new(7, 2, MemoryLeaseStore::new(), application(&totals))?;
    every_order_counts(&mut world, &totals).await
}

async fn every_order_counts(world: &mut World, totals: &Totals) -> Result<(), BoxError> {
    for worker in ["alpha", "beta", "gamma"] {
        world.start(worker)?;
    }
    order(world, 0..100).await?;
    world.run_until(LIMIT, "both shards are read", |world| world.owned_in_all() == 2).await?;
    world.reshard(4).await?;
    order(world, 100..200).await?;
    world.run_until(LIMIT, "four shards are read", |world| world.owned_in_all() == 4).await?;
    world.crash("beta")?;
    order(world, 200..300).await?;
    world.deploy().await?;
    order(world, 300..400).await?;
    world.run_until(LIMIT, "every order counts", |_| totals.orders() == 400).await?;
    assert_eq!((totals.of("ann"), totals.of("bob")), (200 * 100, 200 * 100));
    Ok(())
}

async fn order(world: &World, numbers: Range<u32>) -> Result<(), WorldError> {
    for number in numbers {
        let customer = if number % 2 == 0 { "ann" } else { "bob" };
        world.put(customer, format!("{number} 100")).await?;
    }
    Ok(())
}

fn application(totals: &Totals) -> impl Fn(&str, SchedulerBuilder) -> SchedulerBuilder + use<> {
    let processor = Totaller { totals: totals.clone() };
    let make = move |_: &ShardContext| processor.clone();
    move |_, worker| worker.processor(make.clone()).checkpoint_policy(CheckpointPolicy::AfterBatch)
}

/// What happens in a world of this seed, on a runtime of its own.
fn trace(seed: u64) -> Result<Vec<String>, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let totals = Totals::default();
        let mut world = World::new(seed, 2, MemoryLeaseStore::new(), application(&totals))?;
        every_order_counts(&mut world, &totals).await?;
        Ok(world.trace().lines())
    })
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() -> Result<(), BoxError> {
    let seven = trace(7)?;
    assert_eq!(seven, trace(7)?);
    assert_ne!(seven, trace(8)?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn totals_survive_lost_answers_and_disturbed_reads() -> Result<(), BoxError> {
    let totals = Totals::default();
    let mut world = World::new(7, 4, MemoryLeaseStore::new(), application(&totals))?;
    for worker in ["alpha", "beta"] {
        world.start(worker)?;
        world.befall(worker, "lost-answers".parse()?, 0.3)?;
        world.befall(worker, "disturbed-reads".parse()?, 0.5)?;
    }
    order(&world, 0..100).await?;
    world.run_for(Duration::from_secs(60)).await?;
    world.crash("alpha")?;
    order(&world, 100..200).await?;
    world.calm("beta")?;
    world.run_until(LIMIT, "every order counts", |_| totals.orders() == 200).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn totals_survive_every_mishap_by_itself() -> Result<(), BoxError> {
    for mishap in Mishap::ALL {
        let totals = Totals::default();
        let mut world = World::new(7, 1, MemoryLeaseStore::new(), application(&totals))?;
        world.start("alpha")?;
        world.run_until(LIMIT, "alpha reads", |world| world.owned("alpha") == 1).await?;
        world.befall("alpha", *mishap, 0.3)?;
        order(&world, 0..20).await?;
        world.reshard(2).await?;
        world.run_for(Duration::from_secs(10)).await?;
        world.calm("alpha")?;
        order(&world, 20..40).await?;
        world.run_until(LIMIT, mishap.name(), |_| totals.orders() == 40).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stalled_worker_is_replaced_and_does_no_harm_when_it_wakes() -> Result<(), BoxError> {
    let totals = Totals::default();
    let mut world = World::new(7, 2, MemoryLeaseStore::new(), application(&totals))?;
    world.start("alpha")?;
    world.run_until(LIMIT, "alpha reads", |world| world.owned("alpha") == 2).await?;
    world.stall("alpha")?;
    world.start("beta")?;
    order(&world, 0..100).await?;
    world.run_until(LIMIT, "beta takes over", |_| totals.orders() == 100).await?;
    world.wake("alpha")?;
    world.freeze("beta", Part::LeaseSide)?;
    order(&world, 100..200).await?;
    world.run_until(LIMIT, "alpha takes over", |_| totals.orders() == 200).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn orders_of_a_failed_batch_come_again() -> Result<(), BoxError> {
    let recorder = Recorder::new()
        .with(Rule::on(Callback::ProcessRecords, Action::Fail).times(2))
        .with(Rule::on(Callback::ProcessRecords, Action::Checkpoint));
    let processors = recorder.clone();
    let app = move |_: &str, worker: SchedulerBuilder| worker.processor(processors.clone());
    let mut world = World::new(7, 1, MemoryLeaseStore::new(), app)?;
    world.start("alpha")?;
    order(&world, 0..10).await?;
    let done = |_: &World| recorder.acknowledged("shardId-000000000000").len() == 10;
    world.run_until(LIMIT, "ten orders are acknowledged", done).await?;
    assert_eq!(recorder.violations(), Vec::<String>::new());
    let attempts: Vec<_> = recorder.calls().iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [0, 0, 1, 2], "initialize, then the same batch three times");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_checkpointed_before_a_crash_is_delivered_twice_and_counts_once() -> Result<(), BoxError>
{
    let totals = Totals::default();
    let app = application(&totals);
    let rarely = CheckpointPolicy::Every(Duration::from_secs(60));
    let app = move |name: &str, worker| app(name, worker).checkpoint_policy(rarely);
    let mut world = World::new(7, 2, MemoryLeaseStore::new(), app)?;
    world.start("alpha")?;
    order(&world, 0..100).await?;
    world.run_until(LIMIT, "every order counts", |_| totals.orders() == 100).await?;
    world.crash("alpha")?;
    world.start("beta")?;
    world.run_until(LIMIT, "beta begins again", |_| totals.deliveries() == 200).await?;
    assert_eq!(totals.orders(), 100);
    Ok(())
}
