//! Fleets of workers in processes of their own, over real sockets: killed, terminated, stopped, and cut off from
//! DynamoDB.
//!
//! Each test starts three workers on eight shards with records coming in all the time, does one thing to them, lets
//! them deliver the rest, and closes the books over what the workers wrote about each record before they
//! checkpointed it. Nothing may be lost, each hold of a lease must give out exactly what follows its checkpoint, and
//! a record may come twice only if a fault broke off the hold that delivered it before it was checkpointed.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a broken expectation ends the test; the account is shown"
)]

mod account;
mod fleet;
mod link;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use integration_tests::line::Line;
use kcl_core::ShardId;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::account::{Account, now};
use crate::fleet::{D, Fleet, LIMIT, MARGIN, SLACK, WORKERS};
use crate::link::Cut;

/// The one things are done to.
const VICTIM: &str = "beta";

fn is_evicted(line: &Line) -> bool {
    matches!(line, Line::Evicted { .. })
}

fn seconds(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_killed_worker_go_on_elsewhere() {
    let mut fleet = Fleet::start().await;
    let shards = fleet.shards_of(VICTIM).await;
    let victim = fleet.take(VICTIM);
    victim.signal(Signal::KILL);
    let killed = now();
    assert!(!victim.ended(LIMIT).await.success());
    let taken_over = fleet.taken_over(VICTIM, &shards, killed).await;
    let account = fleet.finish("kill -9", &[VICTIM]).await;
    println!("kill -9: {} shards went on after {:.1} s", shards.len(), seconds(killed, taken_over));
    account.assert_sound();
    account.assert_no_overlap();
    assert!(taken_over - killed < D * 3 / 2 + SLACK, "{:?}", taken_over - killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_worker_hands_its_shards_over() {
    let mut fleet = Fleet::start().await;
    let shards = fleet.shards_of(VICTIM).await;
    let victim = fleet.take(VICTIM);
    victim.signal(Signal::TERM);
    let told = now();
    let status = victim.ended(LIMIT).await;
    assert_eq!(status.code(), Some(0), "{status}");
    let taken_over = fleet.taken_over(VICTIM, &shards, told).await;
    let account = fleet.finish("SIGTERM", &[]).await;
    println!("SIGTERM: {} shards went on after {:.1} s", shards.len(), seconds(told, taken_over));
    account.assert_sound();
    account.assert_no_overlap();
    assert_eq!(account.duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_delivers_nothing_more_of_what_it_held() {
    one_is_stopped(Duration::ZERO).await;
}

/// Here the table cannot tell it for a while that it was evicted: its own clock must.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_needs_nobody_to_tell_it() {
    one_is_stopped(Duration::from_secs(1)).await;
}

/// Stops the victim for longer than its leases last, and keeps DynamoDB from it for `untold` after that.
async fn one_is_stopped(untold: Duration) {
    let fleet = Fleet::start().await;
    let shards = fleet.shards_of(VICTIM).await;
    fleet.worker(VICTIM).signal(Signal::STOP);
    let stopped = now();
    fleet.taken_over(VICTIM, &shards, stopped).await;
    let asleep = now() - stopped;
    sleep((D * 7 / 4).saturating_sub(asleep)).await;
    let victim = fleet.worker(VICTIM);
    if !untold.is_zero() {
        victim.link.cut(Cut::Silent);
    }
    // Whatever is begun from here on is begun awake.
    let continued = now();
    victim.signal(Signal::CONT);
    sleep(untold).await;
    victim.link.heal();
    fleet
        .until(LIMIT, "it learns that it was evicted", async |fleet| fleet.book.count(VICTIM, is_evicted) > 0)
        .await;
    fleet.has_returned(VICTIM, continued).await;
    let account = fleet.finish(&format!("SIGSTOP, untold for {untold:?}"), &[VICTIM]).await;
    println!("SIGSTOP, untold for {untold:?}: asleep for {:.1} s", seconds(stopped, continued));
    account.assert_sound();
    // A delivery that had passed its check when the signal came begins after it, however late that is: no process
    // can check and begin in one step. Such a moment is microseconds long, so that one is possible and two are not.
    assert!(old_holds(&account, stopped, continued) <= 1, "L-1: {}", account.overlaps_in_words());
    assert!(account.overlaps.iter().all(|late| late.worker == VICTIM && late.at >= continued));
    assert!(account.overlaps.len() <= 1, "L-1: {}", account.overlaps_in_words());
}

/// How many batches of the victim's holds from before `stopped` began after `continued`.
fn old_holds(account: &Account, stopped: Duration, continued: Duration) -> usize {
    let holds = account.holds.values().flatten();
    let old = holds.filter(|hold| hold.worker == VICTIM && hold.at < stopped);
    let late = old.map(|hold| {
        let late = hold.records.iter().map(|(at, _)| *at).filter(|at| *at >= continued);
        late.collect::<BTreeSet<_>>().len()
    });
    late.sum()
}

async fn one_is_cut_off(how: Cut) {
    let fleet = Fleet::start().await;
    let shards = fleet.shards_of(VICTIM).await;
    fleet.worker(VICTIM).link.cut(how);
    let cut = now();
    let taken_over = fleet.taken_over(VICTIM, &shards, cut).await;
    let asunder = now() - cut;
    sleep((D * 3 / 2).saturating_sub(asunder)).await;
    let healed = now();
    fleet.worker(VICTIM).link.heal();
    fleet
        .until(LIMIT, "it learns that it was evicted", async |fleet| fleet.book.count(VICTIM, is_evicted) > 0)
        .await;
    fleet.has_returned(VICTIM, healed).await;
    let others_evicted = WORKERS.iter().filter(|name| **name != VICTIM);
    let others_evicted: usize = others_evicted.map(|name| fleet.book.count(name, is_evicted)).sum();
    let account = fleet.finish(&format!("cut off, {how:?}"), &[VICTIM]).await;
    let last = last_of(&account, &shards, cut, healed);
    println!(
        "cut off, {how:?}: the last batch began after {:.1} s, others went on after {:.1} s",
        seconds(cut, last),
        seconds(cut, taken_over)
    );
    account.assert_sound();
    account.assert_no_overlap();
    assert_eq!(others_evicted, 0);
    // Kinesis was still there, and the lease lasts for D - MARGIN after a heartbeat that is D/3 old at most.
    assert!(last > cut + D / 8, "it went on for a while: {:.3} s", seconds(cut, last));
    // The last heartbeat that was confirmed was sent before the cut.
    assert!(last < cut + D - MARGIN / 2, "L-1: {:.3} s after the cut", seconds(cut, last));
}

/// When the last batch began that the victim delivered of these shards while it was cut off.
fn last_of(account: &Account, shards: &BTreeSet<ShardId>, cut: Duration, healed: Duration) -> Duration {
    let holds = shards.iter().flat_map(|shard| &account.holds[shard]);
    let records = holds.filter(|hold| hold.worker == VICTIM && hold.at < cut).flat_map(|hold| &hold.records);
    records.map(|(at, _)| *at).filter(|at| *at < healed).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_calls_are_refused_stops_in_time_and_comes_back() {
    one_is_cut_off(Cut::Refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_calls_are_swallowed_stops_in_time_and_comes_back() {
    one_is_cut_off(Cut::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_when_all_are_cut_off_alike() {
    let fleet = Fleet::start().await;
    for (how, length) in [(Cut::Refused, D * 6 / 10), (Cut::Silent, D * 2)] {
        let (owners, holds) = (fleet.owners().await, holds_of_each(&fleet));
        fleet.workers().for_each(|worker| worker.link.cut(how));
        sleep(length).await;
        let healed = now();
        fleet.workers().for_each(|worker| worker.link.heal());
        fleet
            .until(LIMIT, "all shards are delivered again", async |fleet| {
                let holds = fleet.holds();
                let last = |shard: &ShardId| holds[shard].last().and_then(|hold| hold.records.last());
                owners.keys().all(|shard| last(shard).is_some_and(|(at, _)| *at > healed))
            })
            .await;
        let after = seconds(healed, now());
        println!("all cut off, {how:?} for {length:?}: all shards delivered {after:.1} s after its end");
        assert_eq!(fleet.owners().await, owners, "same members, same shards");
        assert_eq!(holds_of_each(&fleet), holds, "no processor was made anew");
    }
    let evicted: usize = WORKERS.iter().map(|name| fleet.book.count(name, is_evicted)).sum();
    let account = fleet.finish("all cut off", &[]).await;
    account.assert_sound();
    account.assert_no_overlap();
    assert_eq!((account.duplicates, evicted), (0, 0));
}

fn holds_of_each(fleet: &Fleet) -> BTreeMap<ShardId, usize> {
    fleet.holds().into_iter().map(|(shard, holds)| (shard, holds.len())).collect()
}
