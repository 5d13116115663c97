use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::plan::world::{World, at, id, initial_positions, lease, range, shard, steps, stream, table, time};

fn plan(shards: &[Shard], leases: &LeaseTable, initial: InitialPosition) -> SyncPlan {
    plan_sync(&SyncInput {
        shards,
        leases,
        initial,
        stream: &stream(),
        start_timestamp: Some(time(1000)),
        first_start: leases.is_empty(),
    })
}

fn created(plan: &SyncPlan) -> Vec<(ShardId, Checkpoint)> {
    plan.create.iter().map(|planned| (planned.lease.shard.clone(), planned.lease.checkpoint)).collect()
}

const HALF: u128 = u128::MAX / 2;
const LOW: (u128, u128) = (0, HALF);
const HIGH: (u128, u128) = (HALF + 1, u128::MAX);
const ALL: (u128, u128) = (0, u128::MAX);
const AT_5: InitialPosition = InitialPosition::AtTimestamp(SystemTime::UNIX_EPOCH);

/// 0 was split into 1 and 2, which were merged into 3.
fn split_and_merged() -> Vec<Shard> {
    vec![
        shard(0, &[], ALL, (1, Some(9))),
        shard(1, &[0], LOW, (10, Some(19))),
        shard(2, &[0], HIGH, (10, Some(19))),
        shard(3, &[1, 2], ALL, (20, None)),
    ]
}

#[test]
fn first_start_reads_closed_shards_to_their_end_unless_it_is_at_latest() {
    let shards = split_and_merged();
    for (initial, expected) in [
        (InitialPosition::TrimHorizon, (id(0), Checkpoint::TrimHorizon)),
        (AT_5, (id(0), Checkpoint::AtTimestamp)),
        (InitialPosition::Latest, (id(3), Checkpoint::Latest)),
    ] {
        assert_eq!(created(&plan(&shards, &BTreeMap::new(), initial)), [expected]);
    }
}

#[test]
fn leases_carry_lineage_range_stream_and_start_time() {
    let shards = split_and_merged();
    let plan = plan(&shards, &BTreeMap::new(), InitialPosition::Latest);
    let lease = &plan.create[0].lease;
    assert_eq!(lease.parents, BTreeSet::from([id(1), id(2)]));
    assert_eq!(lease.hash_key_range, Some(range(0, u128::MAX)));
    assert_eq!(lease.stream, Some(stream()));
    assert_eq!(lease.start_timestamp, Some(time(1000)));
    assert_eq!((lease.owner.as_ref(), lease.counter), (None, 0));
}

#[test]
fn leases_are_created_by_starting_sequence_number_and_then_by_id() {
    let third = u128::MAX / 3;
    let shards = [
        shard(7, &[], (0, third), (5, None)),
        shard(2, &[], (third + 1, 2 * third), (5, None)),
        shard(9, &[], (2 * third + 1, u128::MAX), (1, None)),
    ];
    let plan = plan(&shards, &BTreeMap::new(), InitialPosition::TrimHorizon);
    let order: Vec<_> = created(&plan).into_iter().map(|(shard, _)| shard).collect();
    assert_eq!(order, [id(9), id(2), id(7)]);
}

#[test]
fn a_child_without_lease_of_an_ended_parent_is_a_hole_and_is_filled_at_once() {
    let shards = split_and_merged();
    let leases = table([lease(&shards[0], Checkpoint::ShardEnd), lease(&shards[1], at(15))]);
    for initial in [InitialPosition::TrimHorizon, InitialPosition::Latest, AT_5] {
        let plan = plan(&shards, &leases, initial);
        assert_eq!(created(&plan), [(id(2), Checkpoint::TrimHorizon)], "{initial:?}");
        assert_eq!(plan.create[0].reason, CreateReason::ParentEnded(id(0)));
        assert!(plan.awaits(&id(3)) && plan.awaits(&id(2)) && !plan.awaits(&id(1)));
    }
}

#[test]
fn a_hole_below_a_parent_that_started_at_a_timestamp_starts_at_that_timestamp() {
    let shards = split_and_merged();
    let mut parent = lease(&shards[0], Checkpoint::ShardEnd);
    parent.start_timestamp = Some(time(12));
    let leases = table([parent, lease(&shards[1], at(15))]);
    let plan = plan(&shards, &leases, InitialPosition::AtTimestamp(time(99)));
    assert_eq!(created(&plan), [(id(2), Checkpoint::AtTimestamp)]);
    assert_eq!(plan.create[0].lease.start_timestamp, Some(time(12)), "not the time configured since");
}

#[test]
fn ancestors_of_a_shard_that_was_started_are_never_read_again() {
    let shards = split_and_merged();
    for checkpoint in [at(25), Checkpoint::ShardEnd, Checkpoint::Latest] {
        let leases = table([lease(&shards[3], checkpoint)]);
        for initial in [InitialPosition::TrimHorizon, InitialPosition::Latest, AT_5] {
            assert_eq!(plan(&shards, &leases, initial), SyncPlan::default(), "{checkpoint} {initial:?}");
        }
    }
}

#[test]
fn an_unstarted_child_of_a_merge_proves_nothing_about_its_parents() {
    let shards = split_and_merged();
    let leases = table([lease(&shards[1], Checkpoint::ShardEnd), lease(&shards[3], Checkpoint::TrimHorizon)]);
    let plan = plan(&shards, &leases, InitialPosition::TrimHorizon);
    assert_eq!(created(&plan), [(id(2), Checkpoint::TrimHorizon)]);
    assert_eq!(plan.create[0].reason, CreateReason::ParentProcessed { witness: id(1) });
}

#[test]
fn the_deleted_lease_of_a_processed_parents_child_is_restored() {
    let shards = split_and_merged();
    let leases = table([lease(&shards[1], at(15))]);
    let plan = plan(&shards, &leases, InitialPosition::Latest);
    assert_eq!(created(&plan), [(id(2), Checkpoint::TrimHorizon)]);
    assert_eq!(plan.create[0].reason, CreateReason::ParentProcessed { witness: id(1) });
}

#[test]
fn descendants_are_found_when_the_generations_between_have_expired() {
    // 0 has an unfinished lease; its children left the listing together with it.
    let old = shard(0, &[], ALL, (1, Some(9)));
    let shards = [shard(5, &[1], LOW, (30, None)), shard(6, &[2], HIGH, (30, None))];
    let leases = table([lease(&old, at(4))]);
    let plan = plan(&shards, &leases, InitialPosition::Latest);
    assert_eq!(created(&plan), [(id(5), Checkpoint::TrimHorizon), (id(6), Checkpoint::TrimHorizon)]);
    assert_eq!(plan.create[0].reason, CreateReason::AncestorTrimmed(id(0)));
}

#[test]
fn what_follows_an_expired_shard_is_not_read_from_before_a_start_at_latest() {
    // The row of 0 completes a start at 40 that was cut short: 5 may have been open at that time.
    let mut old = lease(&shard(0, &[], ALL, (1, Some(9))), Checkpoint::AtTimestamp);
    old.start_timestamp = Some(time(40));
    let plan = plan(&[shard(5, &[0], ALL, (10, None))], &table([old]), InitialPosition::Latest);
    assert_eq!(created(&plan), [(id(5), Checkpoint::AtTimestamp)]);
    assert_eq!(plan.create[0].lease.start_timestamp, Some(time(40)));
}

#[test]
fn a_row_younger_than_the_listing_covers_its_shard() {
    // The listing is from before 0 was split; the row of 1 was made at the end of 0.
    let shards = [shard(0, &[], ALL, (1, None))];
    let young = shard(1, &[0], LOW, (10, None));
    let leases = table([lease(&shards[0], at(9)), lease(&young, Checkpoint::TrimHorizon)]);
    assert_eq!(plan(&shards, &leases, InitialPosition::TrimHorizon), SyncPlan::default());
}

#[test]
fn a_new_shard_without_kin_starts_at_the_configured_position() {
    let shards = [shard(0, &[], LOW, (1, None)), shard(1, &[], HIGH, (1, None))];
    let leases = table([lease(&shards[0], at(4))]);
    for initial in [InitialPosition::TrimHorizon, InitialPosition::Latest, AT_5] {
        assert_eq!(created(&plan(&shards, &leases, initial)), [(id(1), initial.sentinel())]);
    }
    let latest = plan(&shards, &leases, InitialPosition::Latest);
    assert_eq!(latest.create[0].lease.start_timestamp, Some(time(1000)));
}

#[test]
fn a_first_start_at_latest_that_was_cut_short_is_completed_as_of_its_own_time() {
    let mut first = lease(&shard(0, &[], LOW, (1, None)), Checkpoint::Latest);
    first.start_timestamp = Some(time(40));
    let leases = table([first]);
    // 1 was split since: it may have been open at that time.
    let middle = HALF + HALF / 2;
    let shards = [
        shard(0, &[], LOW, (1, None)),
        shard(1, &[], HIGH, (1, Some(49))),
        shard(2, &[1], (HALF + 1, middle), (50, None)),
        shard(3, &[1], (middle + 1, u128::MAX), (50, None)),
    ];
    let plan = plan(&shards, &leases, InitialPosition::Latest);
    assert_eq!(created(&plan), [(id(1), Checkpoint::AtTimestamp)]);
    assert_eq!(plan.create[0].lease.start_timestamp, Some(time(40)));
    assert_eq!(plan.create[0].reason, CreateReason::CompletesStart);
}

/// The example of the Java KCL: 0 and 1 were merged into 6, 2 and 3 into 7, 6 and 7 into 8; 5 was split into 9
/// and 10; 4 stayed. There are leases of 4, 5 and 7.
#[test]
fn the_example_of_the_java_kcl() {
    let keys = |first: u128, last: u128| {
        let width = u128::MAX / 6;
        (first * width, if last == 5 { u128::MAX } else { (last + 1) * width - 1 })
    };
    let middle = keys(5, 5).0 + u128::MAX / 12;
    let shards = [
        shard(0, &[], keys(0, 0), (1, Some(9))),
        shard(1, &[], keys(1, 1), (1, Some(9))),
        shard(2, &[], keys(2, 2), (1, Some(9))),
        shard(3, &[], keys(3, 3), (1, Some(9))),
        shard(4, &[], keys(4, 4), (1, None)),
        shard(5, &[], keys(5, 5), (1, Some(19))),
        shard(6, &[0, 1], keys(0, 1), (10, Some(19))),
        shard(7, &[2, 3], keys(2, 3), (10, Some(19))),
        shard(8, &[6, 7], keys(0, 3), (20, None)),
        shard(9, &[5], (keys(5, 5).0, middle), (20, None)),
        shard(10, &[5], (middle + 1, u128::MAX), (20, None)),
    ];
    let leases =
        |seven| table([lease(&shards[4], at(5)), lease(&shards[5], at(5)), lease(&shards[7], seven)]);
    let ids = |seven, initial| -> Vec<_> {
        created(&plan(&shards, &leases(seven), initial)).into_iter().map(|(shard, _)| shard).collect()
    };

    // As Java: 0 and 1 are the oldest that were never read; 6, 8, 9 and 10 follow when their parents end.
    assert_eq!(ids(at(15), InitialPosition::TrimHorizon), [id(0), id(1)]);
    assert_eq!(ids(at(15), AT_5), [id(0), id(1)]);

    // Java looks at 2 and 3 from open shards only, and finds 7. Here an unstarted merge proves nothing about
    // its parents, so they are read: nobody has.
    assert_eq!(ids(Checkpoint::TrimHorizon, InitialPosition::TrimHorizon), [id(0), id(1), id(2), id(3)]);

    // At LATEST Java makes a lease of 6, at LATEST: it is closed, so nothing is ever read from it. Here closed
    // shards without history are passed over without a lease; 8 follows when 7 ends, as in Java.
    assert_eq!(ids(at(15), InitialPosition::Latest), [] as [ShardId; 0]);

    // If the row of 7 tells when that start was, 6 and its parents are read from that time on, as 7 is.
    let mut leases = leases(at(15));
    Arc::make_mut(leases.get_mut(&id(7)).unwrap()).start_timestamp = Some(time(12));
    let plan = plan(&shards, &leases, InitialPosition::Latest);
    assert_eq!(created(&plan), [(id(0), Checkpoint::AtTimestamp), (id(1), Checkpoint::AtTimestamp)]);
}

#[test]
fn odd_listings_are_reported_and_planned_nevertheless() {
    let shards =
        [shard(0, &[], LOW, (1, None)), shard(1, &[0], LOW, (10, None)), shard(2, &[3], LOW, (1, None)), {
            shard(3, &[2], LOW, (1, None))
        }];
    let plan = plan(&shards, &BTreeMap::new(), InitialPosition::TrimHorizon);
    assert_eq!(created(&plan), [(id(0), Checkpoint::TrimHorizon)]);
    assert_eq!(
        plan.problems,
        [
            SyncProblem::OpenParent { parent: id(0), child: id(1) },
            SyncProblem::OpenParent { parent: id(2), child: id(3) },
            SyncProblem::OpenParent { parent: id(3), child: id(2) },
            SyncProblem::UncoveredHashKeys { first: HALF + 1, last: u128::MAX },
            SyncProblem::Circular(id(2)),
            SyncProblem::Circular(id(3)),
        ]
    );
    let nothing = plan_sync(&SyncInput {
        shards: &[],
        leases: &BTreeMap::new(),
        initial: InitialPosition::Latest,
        stream: &stream(),
        start_timestamp: None,
        first_start: true,
    });
    assert_eq!(nothing.problems, [SyncProblem::NothingListed]);
}

#[test]
fn children_start_at_their_beginning_and_belong_to_the_one_who_ends_the_parent() {
    let shards = split_and_merged();
    let children: Vec<_> = shards[1..=2].iter().map(ChildShard::from).collect();
    for (checkpoint, initial) in [
        (at(9), InitialPosition::TrimHorizon),
        (at(9), InitialPosition::Latest),
        (Checkpoint::Latest, InitialPosition::Latest),
        (at(9), InitialPosition::AtTimestamp(time(5))),
    ] {
        let leases =
            child_leases(&lease(&shards[0], checkpoint), &children, &"me".into(), initial, &stream());
        assert_eq!(leases.iter().map(|lease| &lease.shard).collect::<Vec<_>>(), [&id(1), &id(2)]);
        for (lease, child) in leases.iter().zip(&children) {
            assert_eq!(lease.checkpoint, Checkpoint::TrimHorizon);
            assert_eq!(lease.owner, Some("me".into()));
            assert_eq!(lease.parents, BTreeSet::from([id(0)]));
            assert_eq!(lease.hash_key_range, Some(child.hash_key_range));
            assert_eq!(lease.stream, Some(stream()));
        }
    }
}

#[test]
fn a_child_of_a_parent_that_delivered_nothing_since_a_timestamp_starts_at_it_too() {
    let shards = split_and_merged();
    let mut parent = lease(&shards[0], Checkpoint::AtTimestamp);
    parent.start_timestamp = Some(time(12));
    let mut children = vec![ChildShard::from(&shards[1])];
    children[0].parents.clear();
    let later = InitialPosition::AtTimestamp(time(99));
    let leases = child_leases(&parent, &children, &"me".into(), later, &stream());
    assert_eq!((leases[0].checkpoint, leases[0].start_timestamp), (Checkpoint::AtTimestamp, Some(time(12))));
    assert_eq!(leases[0].parents, BTreeSet::from([id(0)]), "a child that names no parents has this one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// S-1, S-2, D-1: for any history, start position and crash, what was promised is delivered once, in the
    /// order of the lineage, and nothing from before the start.
    #[test]
    fn any_history_is_delivered_exactly_as_the_start_position_promises(
        initial in initial_positions(),
        shards in 1..4usize,
        before in steps(false),
        after in steps(false),
    ) {
        let mut world = World::new(initial, shards);
        world.run(&before);
        world.run(&after);
        world.finish();
    }

    #[test]
    fn shards_lost_to_the_retention_cost_nothing_but_themselves(
        initial in initial_positions(),
        shards in 1..4usize,
        steps in steps(true),
    ) {
        let mut world = World::new(initial, shards);
        world.run(&steps);
        world.finish();
    }

    #[test]
    fn syncing_twice_plans_nothing_and_covers_the_hash_keys(
        initial in initial_positions(),
        shards in 1..4usize,
        steps in steps(true),
    ) {
        let mut world = World::new(initial, shards);
        world.run(&steps);
        world.sync(usize::MAX);
        world.assert_covered();
        let again = world.plan();
        prop_assert_eq!(again.create, vec![]);
        prop_assert_eq!(again.problems, vec![]);
    }
}
