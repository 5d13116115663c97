//! What every [`LeaseStore`] must do, as tests.
//!
//! [`lease_store_conformance!`](crate::lease_store_conformance) makes one test of each case, under a paused
//! clock. Where a clock cannot be paused, over sockets say, [`all`] runs the cases one after the other. Each
//! case is also a function of its own.
//!
//! # Contract
//! Every case gets an empty store for itself, and leaves rows in it. The store must be set up so that 100
//! leases do not fit on one page of a listing; otherwise paging would go untested, and the cases about
//! listings fail. Listings may lag behind; the cases wait up to ten seconds for them.
//!
//! # Panics
//! A case panics when the store does not conform.

#![allow(clippy::panic, reason = "a case reports a difference by panicking, as a test does")]

mod create;
mod draw;
mod fleet;
mod listing;
mod model;
mod race;
mod update;

use std::sync::Arc;

pub use create::{
    a_lease_reads_back_with_every_attribute, a_lease_with_few_attributes_reads_back, create_happens_once,
    long_and_foreign_texts_are_kept, numbers_are_exact_at_their_extremes,
};
pub use fleet::{
    a_consistent_listing_sees_the_last_write, a_fleet_entry_reads_back_with_every_attribute,
    a_fleet_row_is_created_once, a_fleet_row_is_deleted_only_when_empty,
    a_heartbeat_needs_an_entry_and_a_larger_number, a_member_joins_where_there_is_room,
    an_entry_is_removed_at_the_heartbeat_that_was_seen, every_request_is_counted,
    fleet_changes_agree_with_the_model, fleet_rows_are_no_leases,
    heartbeats_at_the_same_time_do_not_disturb_each_other, of_fifty_that_join_at_once_sixteen_fit,
    the_number_of_rows_only_grows,
};
pub use listing::{
    a_listing_has_every_row_once_over_several_pages, a_listing_keeps_its_rows_while_others_come_and_go,
    a_store_without_rows_lists_nothing, prepare_can_be_repeated,
};
pub use model::{
    every_verb_does_to_the_row_what_its_patch_says, expectations_and_patches_agree_with_the_model,
    repeated_verbs_are_recognised, verbs_in_any_order_agree_with_the_model,
};
pub use race::{
    concurrent_creates_have_one_winner, concurrent_deletes_have_one_winner, every_increment_that_won_counts,
    one_of_64_takers_wins_each_round,
};
pub use update::{
    a_checkpoint_expectation_compares_both_parts, a_delete_needs_its_expectation,
    a_hand_over_request_by_another_conflicts, a_missing_row_conflicts_and_is_not_brought_back,
    a_patch_leaves_other_attributes_alone, a_patch_without_changes_changes_nothing,
    a_pending_checkpoint_is_replaced_and_removed_whole, a_stale_counter_conflicts_and_shows_the_row,
    a_strong_read_sees_the_last_write, an_owner_expectation_tells_free_own_and_other,
    children_are_set_and_emptied, every_part_of_an_expectation_must_hold,
    owner_switches_are_counted_and_reset,
};

use crate::lease::{
    AttemptToken, Consistency, Expectation, Lease, LeasePage, LeaseStore, OwnerExpectation, Patch, Write,
};
use crate::model::{Checkpoint, HashKeyRange, Position, ShardId};

/// Makes a `#[tokio::test(start_paused = true)]` of each case of [`conformance`](crate::testing::conformance).
///
/// The argument is a function, or a closure, that returns a future of an empty store. The calling crate needs
/// `tokio` with `macros` and `test-util` in its dev-dependencies.
///
/// ```text
/// async fn make_store() -> MyStore { MyStore::new() }
/// kcl_core::testing::lease_store_conformance!(make_store);
/// ```
#[macro_export]
macro_rules! lease_store_conformance {
    ($make_store:expr) => {
        $crate::lease_store_conformance!(@cases tests $make_store);
    };
    (@cases $what:ident $make_store:expr) => {
        $crate::lease_store_conformance!(@$what $make_store;
            create_happens_once
            a_lease_reads_back_with_every_attribute
            a_lease_with_few_attributes_reads_back
            long_and_foreign_texts_are_kept
            numbers_are_exact_at_their_extremes
            a_stale_counter_conflicts_and_shows_the_row
            an_owner_expectation_tells_free_own_and_other
            a_checkpoint_expectation_compares_both_parts
            a_hand_over_request_by_another_conflicts
            every_part_of_an_expectation_must_hold
            a_missing_row_conflicts_and_is_not_brought_back
            a_patch_leaves_other_attributes_alone
            a_patch_without_changes_changes_nothing
            owner_switches_are_counted_and_reset
            a_pending_checkpoint_is_replaced_and_removed_whole
            children_are_set_and_emptied
            a_strong_read_sees_the_last_write
            a_delete_needs_its_expectation
            a_store_without_rows_lists_nothing
            a_listing_has_every_row_once_over_several_pages
            a_listing_keeps_its_rows_while_others_come_and_go
            prepare_can_be_repeated
            concurrent_creates_have_one_winner
            concurrent_deletes_have_one_winner
            one_of_64_takers_wins_each_round
            every_increment_that_won_counts
            expectations_and_patches_agree_with_the_model
            every_verb_does_to_the_row_what_its_patch_says
            verbs_in_any_order_agree_with_the_model
            repeated_verbs_are_recognised
            a_fleet_row_is_created_once
            a_member_joins_where_there_is_room
            of_fifty_that_join_at_once_sixteen_fit
            a_heartbeat_needs_an_entry_and_a_larger_number
            an_entry_is_removed_at_the_heartbeat_that_was_seen
            the_number_of_rows_only_grows
            a_fleet_row_is_deleted_only_when_empty
            a_fleet_entry_reads_back_with_every_attribute
            heartbeats_at_the_same_time_do_not_disturb_each_other
            fleet_rows_are_no_leases
            a_consistent_listing_sees_the_last_write
            fleet_changes_agree_with_the_model
            every_request_is_counted
        );
    };
    (@tests $make_store:expr; $($case:ident)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                let store = $make_store().await;
                $crate::testing::conformance::$case(::std::sync::Arc::new(store)).await;
            }
        )+
    };
    (@run $make_store:expr; $($case:ident)+) => {
        $(
            $crate::testing::conformance::$case(::std::sync::Arc::new($make_store(stringify!($case)).await)).await;
        )+
    };
}

/// Runs every case, one after the other, each on a store of its own.
///
/// `make_store` is told the name of the case, for example to name a table after it.
///
/// # Panics
/// At the first case that fails.
pub async fn all<S: LeaseStore>(make_store: impl AsyncFn(&'static str) -> S) {
    crate::lease_store_conformance!(@cases run make_store);
}

/// A store under test.
type Store = Arc<dyn LeaseStore>;

fn shard(index: usize) -> ShardId {
    ShardId::from(format!("shardId-{index:012}"))
}

fn hash_key_range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange::new(start, end).expect("the cases name the smaller key first")
}

fn at(sequence: u64, sub_sequence: u64) -> Checkpoint {
    Checkpoint::At(Position::new(sequence.into(), sub_sequence))
}

fn token(number: u128) -> AttemptToken {
    AttemptToken(uuid::Uuid::from_u128(number))
}

fn any() -> Expectation {
    Expectation::default()
}

fn counter_is(counter: u64) -> Expectation {
    Expectation { counter: Some(counter), ..Expectation::default() }
}

fn owner_is(owner: &str) -> Expectation {
    Expectation { owner: OwnerExpectation::Is(owner.into()), ..Expectation::default() }
}

/// Awaits an answer.
async fn answered<T>(answer: impl Future<Output = Result<T, crate::lease::StoreError>>) -> T {
    match answer.await {
        Ok(answer) => answer,
        Err(error) => panic!("{}", crate::error::Chain(&error)),
    }
}

async fn create(store: &Store, lease: &Lease) -> Write {
    answered(store.create(lease)).await
}

async fn update(store: &Store, shard: &ShardId, expect: &Expectation, patch: &Patch) -> Write {
    answered(store.update(shard, expect, patch)).await
}

async fn delete(store: &Store, shard: &ShardId, expect: &Expectation) -> Write {
    answered(store.delete(shard, expect)).await
}

async fn read(store: &Store, shard: &ShardId) -> Option<Lease> {
    answered(store.get(shard, Consistency::Strong)).await
}

/// Creates rows that must not exist yet.
async fn set_up(store: &Store, leases: &[Lease]) {
    answered(store.prepare()).await;
    for lease in leases {
        assert_eq!(create(store, lease).await, Write::Applied(lease.clone()));
    }
}

/// Reads a listing to its end.
async fn list(store: &Store) -> Vec<LeasePage> {
    let mut pages = Vec::new();
    let mut next = None;
    loop {
        let page = answered(store.list(next, Consistency::Eventual)).await;
        next = page.next.clone();
        pages.push(page);
        if next.is_none() {
            return pages;
        }
    }
}
