use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::listing::list_until;
use super::{Store, answered, at, create, hash_key_range, read, set_up, shard, token, update};
use crate::lease::{Change, Consistency, Expectation, Lease, Patch, PendingCheckpoint, Write};
use crate::model::{Checkpoint, Position, SequenceNumber, ShardId, StreamIdentity, WorkerId};

/// A lease in which every attribute is set.
pub(super) fn full_lease(shard: ShardId) -> Lease {
    let mut lease = Lease::new(shard, at(7, 3));
    lease.owner = Some("worker-a".into());
    lease.counter = 41;
    lease.pending = Some(PendingCheckpoint {
        position: Position::new(9.into(), 1),
        state: Some((0..=255).collect::<Bytes>()),
    });
    lease.owner_switches = 5;
    lease.parents = [super::shard(100), super::shard(101)].into();
    lease.children = [super::shard(102), super::shard(103)].into();
    lease.hash_key_range = Some(hash_key_range(0, u128::MAX / 2));
    lease.start_timestamp = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123));
    lease.stream = Some(StreamIdentity {
        arn: "arn:aws:kinesis:eu-central-1:123456789012:stream/orders".into(),
        created_millis: 1_780_000_000_456,
    });
    lease.token = Some(token(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    lease.requested_by = Some("worker-b".into());
    lease.checkpoint_owner = Some("worker-c".into());
    lease
}

/// A second create under the same key conflicts, shows the first row, and changes nothing.
pub async fn create_happens_once(store: Store) {
    let first = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&first)).await;

    let mut second = Lease::new(shard(0), Checkpoint::Latest);
    second.owner = Some("worker-z".into());
    assert_eq!(create(&store, &second).await, Write::Conflict(Some(first.clone())));
    assert_eq!(create(&store, &first).await, Write::Conflict(Some(first.clone())));
    assert_eq!(read(&store, &shard(0)).await, Some(first));
    assert_eq!(read(&store, &shard(1)).await, None);
}

/// No attribute of a created lease is lost or changed.
pub async fn a_lease_reads_back_with_every_attribute(store: Store) {
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    assert_eq!(read(&store, &shard(0)).await, Some(lease));
}

/// What a lease does not have is not made up.
pub async fn a_lease_with_few_attributes_reads_back(store: Store) {
    for (index, checkpoint) in
        [Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::AtTimestamp, Checkpoint::ShardEnd, at(1, 0)]
            .into_iter()
            .enumerate()
    {
        let lease = Lease::new(shard(index), checkpoint);
        set_up(&store, std::slice::from_ref(&lease)).await;
        assert_eq!(read(&store, &shard(index)).await, Some(lease));
    }
    assert_eq!(answered(store.get(&shard(99), Consistency::Eventual)).await, None);
}

/// Keys of up to 1,024 bytes, and texts in any script, are keys, owners and children like others.
pub async fn long_and_foreign_texts_are_kept(store: Store) {
    let keys = [
        "k".repeat(1_024),
        "123456789012:orders:1700000000:shardId-000000000001".into(),
        "片段-0001 ñ 🦀 \"quoted\" \\ \t#:.".into(),
        "Shard".into(),
        "shard".into(),
    ];
    let mut all = BTreeMap::new();
    for key in &keys {
        let mut lease = Lease::new(key.as_str().into(), Checkpoint::TrimHorizon);
        lease.owner = Some(WorkerId::from(format!("worker {key}")));
        lease.parents = [ShardId::from(format!("parent {key}"))].into();
        set_up(&store, std::slice::from_ref(&lease)).await;
        let patch = Patch {
            requested_by: Change::Set(WorkerId::from(format!("asker {key}"))),
            children: Some([ShardId::from(format!("child {key}"))].into()),
            ..Patch::default()
        };
        let expected = patch.apply_to(&lease);
        assert_eq!(
            update(&store, &lease.shard, &Expectation::default(), &patch).await,
            Write::Applied(expected.clone())
        );
        assert_eq!(read(&store, &lease.shard).await.as_ref(), Some(&expected));
        all.insert(lease.shard, expected);
    }
    list_until(&store, &all).await;
}

/// Counters up to 2^63 - 1, sequence numbers of 56 digits and more, 128-bit hash keys.
pub async fn numbers_are_exact_at_their_extremes(store: Store) {
    let largest = i64::MAX.unsigned_abs();
    let sequences = [
        SequenceNumber::ZERO,
        u64::MAX.into(),
        "49590338271490256608559692538361571095921575989136588898".parse().unwrap_or_default(),
        SequenceNumber::MAX,
    ];
    for (index, sequence) in sequences.into_iter().enumerate() {
        let mut lease = Lease::new(shard(index), Checkpoint::At(Position::new(sequence, largest)));
        lease.counter = largest - 1;
        lease.owner_switches = largest - 1;
        lease.pending = Some(PendingCheckpoint { position: Position::new(sequence, largest), state: None });
        lease.hash_key_range = Some(hash_key_range(u128::MAX - 1, u128::MAX));
        set_up(&store, std::slice::from_ref(&lease)).await;

        let patch = Patch {
            counter: Some(largest),
            owner_switches: crate::lease::OwnerSwitches::Increment,
            ..Patch::default()
        };
        let expect = Expectation {
            counter: Some(largest - 1),
            checkpoint: Some(lease.checkpoint),
            ..Expectation::default()
        };
        let expected = patch.apply_to(&lease);
        assert_eq!(update(&store, &lease.shard, &expect, &patch).await, Write::Applied(expected.clone()));
        assert_eq!(read(&store, &lease.shard).await, Some(expected));
    }
}
