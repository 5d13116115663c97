use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::create::full_lease;
use super::{Store, answered, any, create, delete, list, read, set_up, shard};
use crate::lease::{Consistency, Lease, LeasePage, Write};
use crate::model::{Checkpoint, ShardId};

/// How many rows do not fit on one page.
const MORE_THAN_A_PAGE: usize = 100;

/// Lists until what is listed is what is expected, because a listing may lag.
pub(super) async fn list_until(store: &Store, expected: &BTreeMap<ShardId, Lease>) -> Vec<LeasePage> {
    let mut attempts = 0;
    loop {
        let pages = list(store).await;
        let leases = pages.iter().flat_map(|page| &page.leases);
        let listed: BTreeMap<_, _> = leases.map(|lease| (lease.shard.clone(), Lease::clone(lease))).collect();
        if listed == *expected || attempts == 100 {
            assert_eq!(listed, *expected);
            return pages;
        }
        attempts += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// No rows, no leases, no error.
pub async fn a_store_without_rows_lists_nothing(store: Store) {
    answered(store.prepare()).await;
    for page in list(&store).await {
        assert!(page.leases.is_empty() && page.unreadable.is_empty() && page.foreign.is_empty());
    }
    assert_eq!(read(&store, &shard(0)).await, None);
}

/// Every row is on exactly one page, with all its attributes.
pub async fn a_listing_has_every_row_once_over_several_pages(store: Store) {
    let leases: Vec<_> = (0..MORE_THAN_A_PAGE).map(|index| full_lease(shard(index))).collect();
    set_up(&store, &leases).await;
    let expected = leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
    let pages = list_until(&store, &expected).await;
    assert!(pages.len() > 1, "the store under test must be set up so that 100 leases need several pages");
    let rows: usize = pages.iter().map(|page| page.leases.len()).sum();
    assert_eq!(rows, MORE_THAN_A_PAGE);
    assert!(pages.iter().all(|page| page.unreadable.is_empty() && page.foreign.is_empty()));
}

/// Rows that exist throughout a listing are on it, whatever happens to other rows between its pages, even if
/// the row a page ended with is deleted.
pub async fn a_listing_keeps_its_rows_while_others_come_and_go(store: Store) {
    let lease = |index| Lease::new(shard(index), Checkpoint::TrimHorizon);
    let leases: Vec<_> = (0..2 * MORE_THAN_A_PAGE).map(lease).collect();
    set_up(&store, &leases).await;
    let all = leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
    list_until(&store, &all).await;

    let mut passing: BTreeSet<_> = (0..MORE_THAN_A_PAGE).map(|index| shard(2 * index + 1)).collect();
    let lasting: BTreeSet<_> = (0..MORE_THAN_A_PAGE).map(|index| shard(2 * index)).collect();
    let mut seen = BTreeSet::new();
    let mut born = 10 * MORE_THAN_A_PAGE;
    let mut next = None;
    let mut pages = 0;
    loop {
        let page = answered(store.list(next, Consistency::Eventual)).await;
        pages += 1;
        let last = page.leases.iter().rev().map(|lease| &lease.shard).find(|key| passing.contains(*key));
        if let Some(last) = last.cloned() {
            passing.remove(&last);
            assert!(matches!(delete(&store, &last, &any()).await, Write::Applied(_)));
        }
        if let Some(first) = passing.pop_first() {
            assert!(matches!(delete(&store, &first, &any()).await, Write::Applied(_)));
        }
        if let Some(farthest) = passing.pop_last() {
            assert!(matches!(delete(&store, &farthest, &any()).await, Write::Applied(_)));
        }
        if born < 11 * MORE_THAN_A_PAGE {
            born += 1;
            assert!(matches!(create(&store, &lease(born)).await, Write::Applied(_)));
        }
        seen.extend(page.leases.iter().map(|lease| lease.shard.clone()));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    let missing: Vec<_> = lasting.difference(&seen).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

/// A second prepare finds what the first made, and leaves the rows alone.
pub async fn prepare_can_be_repeated(store: Store) {
    answered(store.prepare()).await;
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    for _ in 0..2 {
        let prepared = answered(store.prepare()).await;
        assert!(!prepared.created);
        assert_eq!(prepared.java_leadership, None);
    }
    assert_eq!(read(&store, &lease.shard).await, Some(lease));
}
