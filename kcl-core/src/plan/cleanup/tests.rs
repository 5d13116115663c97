use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::HashKeyRange;
use crate::plan::world::{World, at, id, initial_positions, lease, shard, steps, table, time};

const HALF: u128 = u128::MAX / 2;
const LOW: (u128, u128) = (0, HALF);
const HIGH: (u128, u128) = (HALF + 1, u128::MAX);
const ALL: (u128, u128) = (0, u128::MAX);
const RETENTION: Duration = Duration::from_secs(900);

/// 0 was split into 1 and 2; 1 was split into 3 and 4.
fn family() -> Vec<Shard> {
    vec![
        shard(0, &[], ALL, (1, Some(9))),
        shard(1, &[0], LOW, (10, Some(19))),
        shard(2, &[0], HIGH, (10, None)),
        shard(3, &[1], (0, 9), (20, None)),
        shard(4, &[1], (10, HALF), (20, None)),
    ]
}

fn plan(shards: &[Shard], leases: &LeaseTable, ended_for: Duration) -> CleanupPlan {
    let ended_for = leases.keys().map(|shard| (shard.clone(), ended_for)).collect();
    leases_to_delete(&CleanupInput { leases, shards, ended_for: &ended_for, retention: RETENTION })
}

fn deleted(shards: &[Shard], leases: &LeaseTable) -> Vec<(ShardId, DeleteReason)> {
    let plan = plan(shards, leases, RETENTION);
    plan.delete.into_iter().map(|deletion| (deletion.lease.shard, deletion.reason)).collect()
}

/// Found by the fleet simulator (scenario `resharding`, seed 75): a loss was reported of records nobody had lost.
#[test]
fn a_listing_that_lags_by_generations_is_no_proof_that_a_shard_has_expired() {
    let shards = family();
    let leases = table([
        lease(&shards[1], Checkpoint::ShardEnd),
        lease(&shards[3], Checkpoint::TrimHorizon),
        lease(&shards[4], at(25)),
    ]);
    // Shard 0 alone was listed when 1 had not been made yet, let alone its children.
    for listed in [&shards[..1], &shards[..3], &[]] {
        assert_eq!(plan(listed, &leases, RETENTION).trimmed, vec![], "{} shards listed", listed.len());
    }
    // With a younger shard listed the absence says something.
    let gone = [shard(9, &[], ALL, (99, None))];
    assert_eq!(plan(&gone, &leases, RETENTION).trimmed.len(), 2);
}

#[test]
fn an_ended_lease_goes_once_every_child_was_started() {
    let shards = family();
    for (one, other, goes) in [
        (at(15), at(15), true),
        (Checkpoint::ShardEnd, at(15), true),
        (at(15), Checkpoint::TrimHorizon, false),
        (Checkpoint::Latest, at(15), false),
    ] {
        let leases = table([
            lease(&shards[0], Checkpoint::ShardEnd),
            lease(&shards[1], one),
            lease(&shards[2], other),
        ]);
        let expected = if goes { vec![(id(0), DeleteReason::ChildrenStarted)] } else { vec![] };
        assert_eq!(deleted(&shards, &leases), expected, "{one} {other}");
    }
}

#[test]
fn an_ended_lease_is_kept_for_the_retention() {
    let shards = family();
    let leases = table([
        lease(&shards[0], Checkpoint::ShardEnd),
        lease(&shards[1], at(15)),
        lease(&shards[2], at(15)),
    ]);
    assert_eq!(plan(&shards, &leases, RETENTION - Duration::from_millis(1)).delete, []);
    let unseen =
        CleanupInput { leases: &leases, shards: &shards, ended_for: &BTreeMap::new(), retention: RETENTION };
    assert_eq!(leases_to_delete(&unseen).delete, []);
    assert_eq!(plan(&shards, &leases, RETENTION).delete[0].lease, *leases[&id(0)]);
}

#[test]
fn an_ended_lease_is_kept_while_a_child_has_no_lease() {
    let shards = family();
    let leases = table([lease(&shards[0], Checkpoint::ShardEnd), lease(&shards[1], at(15))]);
    assert_eq!(deleted(&shards, &leases), []);
}

#[test]
fn a_child_that_was_deleted_itself_counts_as_started() {
    let shards = family();
    let leases = table([
        lease(&shards[0], Checkpoint::ShardEnd),
        lease(&shards[2], at(15)),
        lease(&shards[3], at(25)),
        lease(&shards[4], at(25)),
    ]);
    assert_eq!(deleted(&shards, &leases), [(id(0), DeleteReason::ChildrenStarted)]);
}

#[test]
fn parents_go_before_children_and_none_stays_behind() {
    let shards = family();
    let mut leases = table([
        lease(&shards[0], Checkpoint::ShardEnd),
        lease(&shards[1], Checkpoint::ShardEnd),
        lease(&shards[2], at(15)),
        lease(&shards[3], at(25)),
        lease(&shards[4], at(25)),
    ]);
    let gone: Vec<_> = deleted(&shards, &leases).into_iter().map(|(shard, _)| shard).collect();
    assert_eq!(gone, [id(0), id(1)]);
    leases.insert(id(2), Arc::new(lease(&shards[2], Checkpoint::TrimHorizon)));
    assert_eq!(deleted(&shards, &leases), [], "0 waits for 2, and 1 for 0");
}

#[test]
fn the_time_of_a_start_that_was_cut_short_is_kept_until_it_is_completed() {
    let mut shards = family();
    shards.truncate(3);
    shards[0].hash_key_range = HashKeyRange::new(0, HALF).unwrap();
    let mut parent = lease(&shards[0], Checkpoint::ShardEnd);
    parent.start_timestamp = Some(time(5));
    let mut leases = table([parent, lease(&shards[1], at(15)), lease(&shards[2], at(15))]);
    let missed = shard(7, &[], HIGH, (1, None));
    shards.push(missed.clone());
    assert_eq!(deleted(&shards, &leases), []);
    leases.insert(id(7), Arc::new(lease(&missed, Checkpoint::Latest)));
    assert_eq!(deleted(&shards, &leases), [(id(0), DeleteReason::ChildrenStarted)]);
}

#[test]
fn the_last_shard_of_a_deleted_stream_is_kept() {
    let shards = [shard(0, &[], ALL, (1, Some(9)))];
    let leases = table([lease(&shards[0], Checkpoint::ShardEnd)]);
    assert_eq!(deleted(&shards, &leases), []);
    assert_eq!(deleted(&[], &leases), []);
}

#[test]
fn a_shard_that_left_the_listing_with_its_children_waits_for_its_successors() {
    let expired = shard(0, &[], LOW, (1, Some(9)));
    let shards = [shard(5, &[1], LOW, (30, None)), shard(6, &[2], HIGH, (30, None))];
    let mut leases = table([
        lease(&expired, Checkpoint::ShardEnd),
        lease(&shards[0], Checkpoint::TrimHorizon),
        lease(&shards[1], Checkpoint::TrimHorizon),
    ]);
    assert_eq!(deleted(&shards, &leases), []);
    leases.insert(id(5), Arc::new(lease(&shards[0], at(33))));
    assert_eq!(deleted(&shards, &leases), [(id(0), DeleteReason::SuccessorsStarted)]);
}

#[test]
fn an_unfinished_lease_whose_shard_is_gone_is_reported_and_kept() {
    let shards = family();
    let leases = table([lease(&shards[0], at(5)), lease(&shards[1], at(15)), lease(&shards[2], at(15))]);
    let plan = plan(&shards[1..], &leases, RETENTION);
    assert_eq!(plan.delete, []);
    assert_eq!(plan.trimmed, [TrimmedLease { shard: id(0), checkpoint: at(5) }]);
    assert!(plan.trimmed[0].to_string().contains("shard=shardId-000000000000 checkpoint=5/0"));
}

#[test]
fn a_row_younger_than_the_listing_is_not_reported_as_lost() {
    let shards = family();
    let young = shard(9, &[3], (0, 4), (40, None));
    let leases = table([lease(&shards[3], at(25)), lease(&young, Checkpoint::TrimHorizon)]);
    assert_eq!(plan(&shards, &leases, RETENTION), CleanupPlan::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cleaning_up_twice_deletes_nothing_and_leads_to_no_new_lease(
        initial in initial_positions(),
        shards in 1..4usize,
        steps in steps(true),
    ) {
        let mut world = World::new(initial, shards);
        world.run(&steps);
        world.sync(usize::MAX);
        world.cleanup();
        prop_assert_eq!(world.plan_cleanup(), vec![]);
        prop_assert_eq!(world.plan().create, vec![]);
        world.assert_covered();
    }

    #[test]
    fn once_everything_is_read_only_the_youngest_generation_is_left(
        initial in initial_positions(),
        shards in 1..4usize,
        steps in steps(false),
    ) {
        let mut world = World::new(initial, shards);
        world.run(&steps);
        world.finish();
        world.finish();
        // An ended row stays only while some child has delivered nothing yet.
        let leases = &world.leases;
        for ended in leases.values().filter(|lease| lease.is_ended()) {
            let mut ahead: Vec<_> = vec![ended];
            let mut unstarted = false;
            while let Some(row) = ahead.pop() {
                unstarted |= !row.checkpoint.is_real();
                ahead.extend(leases.values().filter(|child| child.parents.contains(&row.shard)));
                // A parent that stays keeps its children's rows, too.
                unstarted |= row.parents.iter().any(|parent| leases.contains_key(parent));
            }
            prop_assert!(unstarted, "{ended:?}");
        }
    }
}
