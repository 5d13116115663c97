use std::sync::Arc;

use super::*;
use crate::plan::world::{at, id, lease, shard, table};

const HALF: u128 = u128::MAX / 2;
const LOW: (u128, u128) = (0, HALF);
const HIGH: (u128, u128) = (HALF + 1, u128::MAX);
const ALL: (u128, u128) = (0, u128::MAX);

/// 0 was split into 1 and 2, which were merged into 3, which was split into 4 and 5.
fn family() -> Vec<Shard> {
    vec![
        shard(0, &[], ALL, (1, Some(9))),
        shard(1, &[0], LOW, (10, Some(19))),
        shard(2, &[0], HIGH, (10, Some(19))),
        shard(3, &[1, 2], ALL, (20, Some(29))),
        shard(4, &[3], LOW, (30, None)),
        shard(5, &[3], HIGH, (30, None)),
    ]
}

fn waiting(leases: &LeaseTable, shard: usize, awaited: &[usize]) -> Vec<ShardId> {
    let awaited = |parent: &ShardId| awaited.iter().any(|number| id(*number) == *parent);
    let answer = parents_done(&leases[&id(shard)], leases, &awaited);
    assert_eq!(answer.is_done(), answer.waiting.is_empty());
    answer.waiting.into_iter().map(|parent| parent.parent).collect()
}

#[test]
fn a_graph_knows_roots_children_and_parents() {
    let shards = family();
    let graph = ShardGraph::new(&shards[1..]);
    assert!(!graph.is_listed(&id(0)));
    assert_eq!(graph.roots().map(|shard| &shard.id).collect::<Vec<_>>(), [&id(1), &id(2)]);
    assert_eq!(graph.children(&id(0)).collect::<Vec<_>>(), [&id(1), &id(2)], "of an expired shard too");
    assert_eq!(graph.parents(&id(3)).collect::<Vec<_>>(), [&id(1), &id(2)]);
    assert_eq!(graph.open().count(), 2);
    assert_eq!(graph.closed().count(), 3);
}

#[test]
fn age_puts_parents_first_whatever_the_sequence_numbers_say() {
    let mut shards = family();
    shards.reverse();
    for shard in &mut shards {
        shard.starting_sequence_number = SequenceNumber::ZERO;
    }
    shards[5].starting_sequence_number = 77.into();
    let graph = ShardGraph::new(&shards);
    let (by_age, circular) = graph.by_age();
    assert_eq!(by_age.iter().map(|shard| shard.id.clone()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5].map(id));
    assert!(circular.is_empty());
}

#[test]
fn a_child_waits_until_every_parent_has_ended() {
    let shards = family();
    let child = lease(&shards[3], Checkpoint::TrimHorizon);
    for (one, other, expected) in [
        (at(15), at(15), vec![id(1), id(2)]),
        (Checkpoint::ShardEnd, at(15), vec![id(2)]),
        (Checkpoint::TrimHorizon, Checkpoint::ShardEnd, vec![id(1)]),
        (Checkpoint::ShardEnd, Checkpoint::ShardEnd, vec![]),
    ] {
        let leases = table([lease(&shards[1], one), lease(&shards[2], other), child.clone()]);
        assert_eq!(waiting(&leases, 3, &[]), expected, "{one} {other}");
    }
}

#[test]
fn a_parent_without_lease_is_done_unless_it_is_to_get_one() {
    let shards = family();
    let leases = table([lease(&shards[1], Checkpoint::ShardEnd), lease(&shards[3], Checkpoint::TrimHorizon)]);
    assert_eq!(waiting(&leases, 3, &[2]), [id(2)]);
    assert_eq!(waiting(&leases, 3, &[]), [] as [ShardId; 0]);
}

#[test]
fn a_started_descendant_proves_that_the_parent_was_finished() {
    let shards = family();
    // Of the parent a late write brought back an unfinished row.
    let leases = table([lease(&shards[3], at(25)), lease(&shards[4], Checkpoint::TrimHorizon), {
        lease(&shards[5], at(33))
    }]);
    assert_eq!(waiting(&leases, 4, &[]), [] as [ShardId; 0], "its sibling was started");

    let mut unstarted = leases.clone();
    unstarted.insert(id(5), Arc::new(lease(&shards[5], Checkpoint::TrimHorizon)));
    assert_eq!(waiting(&unstarted, 4, &[]), [id(3)]);
    unstarted.insert(id(5), Arc::new(lease(&shards[5], Checkpoint::Latest)));
    assert_eq!(waiting(&unstarted, 4, &[]), [id(3)], "LATEST is no sign of a start");
}

#[test]
fn descendants_are_found_through_rows_that_know_their_children() {
    let shards = family();
    let mut parent = lease(&shards[0], at(5));
    parent.children = BTreeSet::from([id(1), id(2)]);
    let mut merged = lease(&shards[3], at(25));
    merged.parents = BTreeSet::from([id(2)]);
    let leases = table([parent, lease(&shards[1], Checkpoint::TrimHorizon), merged]);
    // 2 has no row; 0 names it as its child, and 3 as its parent.
    assert_eq!(waiting(&leases, 1, &[]), [] as [ShardId; 0]);
}

#[test]
fn a_shard_that_was_started_waits_for_nobody() {
    let shards = family();
    let leases = table([lease(&shards[3], at(25)), lease(&shards[4], at(31))]);
    assert_eq!(waiting(&leases, 4, &[3]), [] as [ShardId; 0]);
}

#[test]
fn the_answer_says_for_whom_and_why() {
    let shards = family();
    let leases = table([lease(&shards[1], at(15)), lease(&shards[3], Checkpoint::TrimHorizon)]);
    let answer = parents_done(&leases[&id(3)], &leases, &|_| true);
    assert_eq!(
        answer.to_string(),
        "waiting for shardId-000000000001 (at 15/0), shardId-000000000002 (has no lease yet)"
    );
    assert_eq!(ParentsDone::default().to_string(), "all parents are done");
}
