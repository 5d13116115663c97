use std::collections::BTreeMap;

use kcl_core::model::SequenceNumber;
use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn lease(item: &Item) -> Lease {
    match read(item) {
        Row::Lease(lease) => *lease,
        other => panic!("not a lease: {other:?}"),
    }
}

fn reason(item: &Item) -> String {
    match read(item) {
        Row::Unreadable(row) => row.reason,
        other => panic!("readable: {other:?}"),
    }
}

/// A lease as KCL 3.5 creates it (2.x: the same without `entityType`).
fn java_item() -> Item {
    item([
        ("leaseKey", text("shardId-000000000001")),
        ("leaseCounter", number(0)),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("checkpoint", text("TRIM_HORIZON")),
        ("checkpointSubSequenceNumber", number(0)),
        ("parentShardId", AttributeValue::Ss(vec!["shardId-000000000000".into()])),
        ("startingHashKey", text("0")),
        ("endingHashKey", text("170141183460469231731687303715884105727")),
        ("entityType", text("LEASE")),
    ])
}

fn java_lease() -> Lease {
    let mut lease = Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    lease.parents = ["shardId-000000000000".into()].into();
    lease.hash_key_range = Some(HashKeyRange::new(0, u128::MAX / 2).unwrap());
    lease
}

#[test]
fn a_new_lease_is_the_item_that_java_writes() {
    assert_eq!(to_item(&java_lease()), java_item());
    assert_eq!(lease(&java_item()), java_lease());
}

#[test]
fn a_lease_of_java_in_the_middle_of_its_life_is_read() {
    let mut item = java_item();
    item.remove("entityType");
    for (name, value) in [
        ("leaseCounter", number(1_234_567)),
        ("leaseOwner", text("10.0.0.1:6f1d3c5e")),
        ("ownerSwitchesSinceCheckpoint", number(2)),
        ("checkpoint", text("49590338271490256608559692538361571095921575989136588898")),
        ("checkpointSubSequenceNumber", number(7)),
        ("pendingCheckpoint", text("49590338271490256608559692538361571095921575989136588900")),
        ("pendingCheckpointSubSequenceNumber", number(1)),
        ("pendingCheckpointState", AttributeValue::B(Blob::new(vec![0, 1, 255]))),
        ("childShardIds", AttributeValue::Ss(vec!["shardId-3".into(), "shardId-2".into()])),
        ("throughputKBps", number("1.2E-4")),
        ("checkpointOwner", text("10.0.0.2:0a1b")),
        ("streamName", text("123456789012:orders:1700000000")),
        ("shardId", text("shardId-000000000001")),
    ] {
        item.insert(name.into(), value);
    }
    let read = lease(&item);
    let sequence = |digits: &str| digits.parse::<SequenceNumber>().unwrap();
    let mut expected = java_lease();
    expected.counter = 1_234_567;
    expected.owner = Some("10.0.0.1:6f1d3c5e".into());
    expected.owner_switches = 2;
    expected.checkpoint = Checkpoint::At(Position::new(
        sequence("49590338271490256608559692538361571095921575989136588898"),
        7,
    ));
    expected.pending = Some(PendingCheckpoint {
        position: Position::new(sequence("49590338271490256608559692538361571095921575989136588900"), 1),
        state: Some(Bytes::from_static(&[0, 1, 255])),
    });
    expected.children = ["shardId-2".into(), "shardId-3".into()].into();
    expected.checkpoint_owner = Some("10.0.0.2:0a1b".into());
    assert_eq!(read, expected);
}

#[test]
fn what_java_leaves_out_or_gets_wrong_is_tolerated() {
    let mut item = java_item();
    for name in ["checkpointSubSequenceNumber", "startingHashKey", "parentShardId", "entityType"] {
        item.remove(name);
    }
    item.insert("pendingCheckpoint".into(), text("SHARD_END"));
    let mut expected = java_lease();
    expected.hash_key_range = None;
    expected.parents.clear();
    assert_eq!(lease(&item), expected);

    item.insert("pendingCheckpoint".into(), text("9"));
    item.insert("pendingCheckpointState".into(), number(9));
    expected.pending = Some(PendingCheckpoint { position: Position::new(9.into(), 0), state: None });
    assert_eq!(lease(&item), expected);
}

#[test]
fn a_range_of_one_hash_key_is_a_range() {
    let mut item = java_item();
    item.insert("endingHashKey".into(), text("0"));
    assert_eq!(lease(&item).hash_key_range, Some(HashKeyRange::new(0, 0).unwrap()));
}

#[test]
fn rows_that_cannot_be_understood_say_why() {
    let wrong = |name: &str, value: AttributeValue| {
        let mut item = java_item();
        item.insert(name.into(), value);
        item
    };
    for name in ["leaseCounter", "ownerSwitchesSinceCheckpoint", "checkpoint"] {
        let mut item = java_item();
        item.remove(name);
        assert_eq!(reason(&item), format!("attribute is missing: name={name}"));
    }
    for (name, value) in [
        ("leaseCounter", text("5")),
        ("leaseOwner", number(5)),
        ("checkpoint", number(5)),
        ("childShardIds", text("shardId-1")),
        ("pendingCheckpointState", text("state")),
        ("entityType", number(1)),
        ("attemptToken", AttributeValue::Bool(true)),
    ] {
        let mut item = wrong(name, value);
        item.entry("pendingCheckpoint".into()).or_insert(text("1"));
        assert_eq!(reason(&item), format!("attribute is of another type than expected: name={name}"));
    }
    for (name, value, shown) in [
        ("leaseCounter", number(-1), "-1"),
        ("leaseCounter", number("1.5"), "1.5"),
        ("leaseCounter", number(1u64 << 63), "9223372036854775808"),
        ("ownerSwitchesSinceCheckpoint", number(u64::MAX), "18446744073709551615"),
        ("checkpoint", text("latest"), "latest"),
        ("checkpoint", text(""), ""),
        ("pendingCheckpoint", text("x"), "x"),
        ("attemptToken", text("no uuid"), "no uuid"),
        ("startTimestampMillis", number(-1), "-1"),
        ("streamIdentity", text("arn"), "arn"),
        ("streamIdentity", text("arn@soon"), "arn@soon"),
    ] {
        let expected = format!("attribute cannot be understood: name={name} value={shown:?}");
        assert_eq!(reason(&wrong(name, value)), expected);
    }
    let inverted = reason(&wrong("startingHashKey", text("170141183460469231731687303715884105728")));
    assert!(inverted.contains("startingHashKey"), "{inverted}");
}

#[test]
fn rows_of_other_kinds_are_foreign_whatever_else_they_hold() {
    for (key, kind) in [
        ("Leader", "LEADER"),
        ("Migration3.0", "CLIENT_VERSION_MIGRATION"),
        ("worker-a", "WORKER_METRIC_STATS"),
        ("x", "OF_THE_FUTURE"),
    ] {
        let mut item = java_item();
        item.insert("leaseKey".into(), text(key));
        item.insert("entityType".into(), text(kind));
        match read(&item) {
            Row::Foreign(row) => assert_eq!((row.key.as_str(), row.entity_type.as_str()), (key, kind)),
            other => panic!("not foreign: {other:?}"),
        }
    }
}

fn positions() -> impl Strategy<Value = Position> {
    (any::<[u64; 3]>(), any::<u64>())
        .prop_map(|(limbs, sub)| Position::new(SequenceNumber::from_limbs(limbs), sub))
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    prop_oneof![
        Just(Checkpoint::AtTimestamp),
        Just(Checkpoint::TrimHorizon),
        Just(Checkpoint::Latest),
        Just(Checkpoint::ShardEnd),
        positions().prop_map(Checkpoint::At),
    ]
}

fn pending() -> impl Strategy<Value = PendingCheckpoint> {
    (positions(), option::of(any::<Vec<u8>>()))
        .prop_map(|(position, state)| PendingCheckpoint { position, state: state.map(Into::into) })
}

prop_compose! {
    fn leases()(
        (key, checkpoint, counter, switches) in (".{1,40}", checkpoints(), 0..=LARGEST_COUNT, 0..=LARGEST_COUNT),
        workers in any::<[Option<String>; 3]>(),
        pending in option::of(pending()),
        (parents, children) in (btree_set(".{1,20}", 0..3), btree_set(".{1,20}", 0..3)),
        range in option::of(any::<(u128, u128)>()),
        millis in option::of(0..4_000_000_000_000_u64),
        stream in option::of((".{0,30}", any::<u64>())),
        token in option::of(any::<u128>()),
    ) -> Lease {
        let mut lease = Lease::new(key.as_str().into(), checkpoint);
        lease.counter = counter;
        lease.owner_switches = switches;
        let [owner, request, checkpoint_owner] = workers.map(|worker| worker.map(Into::into));
        lease.owner = owner;
        lease.requested_by = request;
        lease.checkpoint_owner = checkpoint_owner;
        lease.pending = pending;
        lease.parents = parents.into_iter().map(Into::into).collect();
        lease.children = children.into_iter().map(Into::into).collect();
        lease.hash_key_range =
            range.map(|(a, b)| HashKeyRange::new(a.min(b), a.max(b)).unwrap());
        lease.start_timestamp =
            millis.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        lease.stream = stream.map(|(arn, created_millis)| StreamIdentity { arn, created_millis });
        lease.token = token.map(|bits| AttemptToken(format!("{bits:032x}").parse().unwrap()));
        lease
    }
}

proptest! {
    #[test]
    fn every_lease_reads_back_beside_any_unknown_attributes(
        lease in leases(),
        unknown in any::<BTreeMap<String, String>>(),
    ) {
        let mut item = to_item(&lease);
        for (name, value) in unknown {
            item.insert(format!("unknown{name}"), text(value));
        }
        match read(&item) {
            Row::Lease(read) => prop_assert_eq!(*read, lease),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn sets_are_never_empty(lease in leases()) {
        for value in to_item(&lease).values() {
            if let AttributeValue::Ss(texts) = value {
                prop_assert!(!texts.is_empty());
            }
        }
    }
}
