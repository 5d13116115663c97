use std::sync::Arc;

use super::*;
use crate::plan::world::{World, at, id, initial_positions, lease, range, shard, steps, stream, table};
use proptest::prelude::*;

const HALF: u128 = u128::MAX / 2;

fn listing() -> Vec<Shard> {
    vec![
        shard(4, &[], (0, u128::MAX), (100, Some(199))),
        shard(5, &[4], (0, HALF), (200, None)),
        shard(6, &[4], (HALF + 1, u128::MAX), (200, None)),
    ]
}

fn ours(mut lease: Lease) -> Lease {
    lease.stream = Some(stream());
    lease
}

fn check(leases: impl IntoIterator<Item = Lease>) -> Vec<Refusal> {
    check_table(&listing(), &table(leases), &stream())
}

#[test]
fn a_table_of_this_stream_is_accepted() {
    let shards = listing();
    let expired = shard(3, &[], (0, u128::MAX), (1, Some(99)));
    let newborn = shard(7, &[5], (0, 9), (300, None));
    for rows in [
        vec![lease(&shards[0], Checkpoint::ShardEnd), lease(&shards[1], at(200)), lease(&shards[2], at(250))],
        vec![lease(&expired, at(50)), lease(&newborn, Checkpoint::TrimHorizon)],
        vec![lease(&shards[0], at(199)), lease(&shards[1], Checkpoint::Latest)],
        vec![ours(lease(&shards[0], Checkpoint::AtTimestamp))],
        vec![Lease::new(id(5), at(222))],
    ] {
        assert_eq!(check(rows), []);
    }
}

#[test]
fn the_leases_of_another_stream_are_refused() {
    let mut row = lease(&listing()[1], at(210));
    row.stream = Some(StreamIdentity { arn: "arn:other".into(), created_millis: 7 });
    let refusals = check([row]);
    assert!(matches!(refusals[..], [Refusal { reason: RefusalReason::OtherStream { .. }, .. }]));
    assert!(refusals[0].yields_to_adopt());
    assert_eq!(
        refusals[0].to_string(),
        "the lease belongs to another stream: shard=shardId-000000000005 stored=arn:other@7 \
         configured=arn:aws:kinesis:eu-west-1:123456789012:stream/orders@7"
    );
    assert!(choices(&refusals).contains("Reset") && choices(&refusals).contains("Adopt"));
}

#[test]
fn a_stream_created_again_under_its_name_is_another_stream() {
    let mut row = lease(&listing()[1], at(210));
    row.stream = Some(StreamIdentity { created_millis: 6, ..stream() });
    assert!(matches!(check([row])[..], [Refusal { reason: RefusalReason::RecreatedStream { .. }, .. }]));
}

#[test]
fn rows_without_stream_are_judged_by_their_hash_keys_and_ids() {
    let mut row = lease(&listing()[1], at(210));
    row.hash_key_range = Some(range(0, 9));
    assert!(matches!(
        check([row.clone()])[..],
        [Refusal { reason: RefusalReason::OtherHashKeys { .. }, .. }]
    ));
    assert_eq!(check([ours(row)]), [], "a row that names its stream is believed");

    let young = shard(99, &[98], (0, 9), (1, None));
    let refusals = check([lease(&young, at(210))]);
    assert_eq!(refusals[0].reason, RefusalReason::NeverListed { youngest: id(6) });
}

#[test]
fn a_checkpoint_the_shard_does_not_know_is_refused_with_the_choices() {
    let shards = listing();
    for (shard, sequence) in [(0, 99), (0, 200), (1, 199)] {
        let refusals = check([ours(lease(&shards[shard], at(sequence)))]);
        assert!(matches!(refusals[..], [Refusal { reason: RefusalReason::CheckpointOutside { .. }, .. }]));
        assert!(!refusals[0].yields_to_adopt());
    }
    let refusals = check([lease(&shards[0], at(200))]);
    assert_eq!(
        refusals[0].to_string(),
        "the checkpoint is not a position of the shard: shard=shardId-000000000004 checkpoint=200/0 \
         starting=100 ending=199"
    );
    assert!(choices(&refusals).contains("Reset") && choices(&refusals).contains("correct the checkpoint"));
    assert!(!choices(&refusals).contains("Adopt"));
}

#[test]
fn the_end_of_an_open_shard_without_children_is_refused() {
    let shards = listing();
    let ended = lease(&shards[1], Checkpoint::ShardEnd);
    assert_eq!(check([ended.clone()])[0].reason, RefusalReason::EndedWhileOpen);
    let child = shard(7, &[5], (0, HALF), (300, None));
    assert_eq!(check([ended, lease(&child, Checkpoint::TrimHorizon)]), [], "the listing is only older");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_history_of_the_stream_itself_is_refused(
        initial in initial_positions(),
        steps in steps(true),
        by_java: bool,
    ) {
        let mut world = World::new(initial, 2);
        world.run(&steps);
        if by_java {
            for row in world.leases.values_mut() {
                Arc::make_mut(row).stream = None;
            }
        }
        prop_assert_eq!(check_table(&world.listing(), &world.leases, &stream()), vec![]);
    }
}
