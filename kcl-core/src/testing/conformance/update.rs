use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::create::full_lease;
use super::{
    Store, any, at, counter_is, create, delete, hash_key_range, list, owner_is, read, set_up, shard, token,
    update,
};
use crate::lease::{
    Change, Expectation, Lease, OwnerExpectation, OwnerSwitches, Patch, PendingCheckpoint, Write,
};
use crate::model::{Checkpoint, Position};

fn renewal(counter: u64) -> Patch {
    Patch { counter: Some(counter), ..Patch::default() }
}

/// Writes that counted on another counter lose, and learn the row.
pub async fn a_stale_counter_conflicts_and_shows_the_row(store: Store) {
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    for stale in [0, lease.counter - 1, lease.counter + 1] {
        let answer = update(&store, &lease.shard, &counter_is(stale), &renewal(99)).await;
        assert_eq!(answer, Write::Conflict(Some(lease.clone())));
    }
    let renewed = renewal(42).apply_to(&lease);
    let answer = update(&store, &lease.shard, &counter_is(41), &renewal(42)).await;
    assert_eq!(answer, Write::Applied(renewed.clone()));
    let answer = update(&store, &lease.shard, &counter_is(41), &renewal(42)).await;
    assert_eq!(answer, Write::Conflict(Some(renewed)));
}

/// `Any`, `Absent` and `Is` against a free lease and an owned one.
pub async fn an_owner_expectation_tells_free_own_and_other(store: Store) {
    let free = Lease::new(shard(0), Checkpoint::TrimHorizon);
    let mut owned = Lease::new(shard(1), Checkpoint::TrimHorizon);
    owned.owner = Some("worker-a".into());
    set_up(&store, &[free.clone(), owned.clone()]).await;

    let absent = Expectation { owner: OwnerExpectation::Absent, ..any() };
    let patch = Patch::default();
    for (lease, expect, holds) in [
        (&free, any(), true),
        (&free, absent.clone(), true),
        (&free, owner_is("worker-a"), false),
        (&owned, any(), true),
        (&owned, absent, false),
        (&owned, owner_is("worker-a"), true),
        (&owned, owner_is("worker-b"), false),
        (&owned, owner_is("worker"), false),
    ] {
        let answer = update(&store, &lease.shard, &expect, &patch).await;
        let expected =
            if holds { Write::Applied(lease.clone()) } else { Write::Conflict(Some(lease.clone())) };
        assert_eq!(answer, expected, "{expect:?}");
    }
}

/// Sequence number and sub-sequence number both count; sentinels equal only themselves.
pub async fn a_checkpoint_expectation_compares_both_parts(store: Store) {
    let checkpoints = [
        at(7, 0),
        at(7, 3),
        at(8, 3),
        Checkpoint::TrimHorizon,
        Checkpoint::Latest,
        Checkpoint::AtTimestamp,
        Checkpoint::ShardEnd,
    ];
    for (index, stored) in checkpoints.into_iter().enumerate() {
        let lease = Lease::new(shard(index), stored);
        set_up(&store, std::slice::from_ref(&lease)).await;
        for expected in checkpoints {
            let expect = Expectation { checkpoint: Some(expected), ..any() };
            let answer = update(&store, &lease.shard, &expect, &Patch::default()).await;
            assert_eq!(matches!(answer, Write::Applied(_)), stored == expected, "{stored} {expected}");
        }
    }
}

/// `unrequested_but_by` lets nobody's request and one's own pass, and no other's.
pub async fn a_hand_over_request_by_another_conflicts(store: Store) {
    let lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    let expect = |me: &str| Expectation { unrequested_but_by: Some(me.into()), ..any() };
    let ask = |me: &str| Patch { requested_by: Change::Set(me.into()), ..Patch::default() };

    let asked = ask("worker-b").apply_to(&lease);
    for _ in 0..2 {
        let answer = update(&store, &lease.shard, &expect("worker-b"), &ask("worker-b")).await;
        assert_eq!(answer, Write::Applied(asked.clone()));
    }
    let answer = update(&store, &lease.shard, &expect("worker-c"), &ask("worker-c")).await;
    assert_eq!(answer, Write::Conflict(Some(asked)));

    let withdraw = Patch { requested_by: Change::Remove, ..Patch::default() };
    assert_eq!(update(&store, &lease.shard, &any(), &withdraw).await, Write::Applied(lease.clone()));
    let answer = update(&store, &lease.shard, &expect("worker-c"), &ask("worker-c")).await;
    assert_eq!(answer, Write::Applied(ask("worker-c").apply_to(&lease)));
}

/// One part that does not hold is enough for a conflict, whichever it is.
pub async fn every_part_of_an_expectation_must_hold(store: Store) {
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    let good = Expectation {
        counter: Some(lease.counter),
        owner: OwnerExpectation::Is("worker-a".into()),
        checkpoint: Some(lease.checkpoint),
        unrequested_but_by: Some("worker-b".into()),
    };
    for bad in [
        Expectation { counter: Some(1), ..good.clone() },
        Expectation { owner: OwnerExpectation::Absent, ..good.clone() },
        Expectation { owner: OwnerExpectation::Is("worker-b".into()), ..good.clone() },
        Expectation { checkpoint: Some(at(7, 4)), ..good.clone() },
        Expectation { unrequested_but_by: Some("worker-a".into()), ..good.clone() },
    ] {
        let answer = update(&store, &lease.shard, &bad, &renewal(42)).await;
        assert_eq!(answer, Write::Conflict(Some(lease.clone())), "{bad:?}");
    }
    let answer = update(&store, &lease.shard, &good, &renewal(42)).await;
    assert_eq!(answer, Write::Applied(renewal(42).apply_to(&lease)));
}

/// Neither an update nor a delete of a missing row, whatever it expects, leaves a row behind.
pub async fn a_missing_row_conflicts_and_is_not_brought_back(store: Store) {
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    assert_eq!(delete(&store, &lease.shard, &any()).await, Write::Applied(lease.clone()));

    let absent = Expectation { owner: OwnerExpectation::Absent, ..any() };
    let unrequested = Expectation { unrequested_but_by: Some("worker-a".into()), ..any() };
    for expect in [any(), absent, unrequested, counter_is(41), counter_is(0), owner_is("worker-a")] {
        for patch in [Patch::default(), renewal(42)] {
            let answer = update(&store, &lease.shard, &expect, &patch).await;
            assert_eq!(answer, Write::Conflict(None), "{expect:?} {patch:?}");
        }
        assert_eq!(delete(&store, &lease.shard, &expect).await, Write::Conflict(None), "{expect:?}");
        assert_eq!(read(&store, &lease.shard).await, None);
    }
    for page in list(&store).await {
        assert_eq!(page.unreadable, []);
    }
    assert_eq!(create(&store, &lease).await, Write::Applied(lease));
}

/// Every field of a patch by itself, in every variant, on a row where everything is set.
pub async fn a_patch_leaves_other_attributes_alone(store: Store) {
    let pending = PendingCheckpoint { position: Position::new(10.into(), 0), state: None };
    let none = Patch::default();
    let patches = [
        Patch { counter: Some(42), ..none.clone() },
        Patch { owner: Change::Set("worker-z".into()), ..none.clone() },
        Patch { owner: Change::Remove, ..none.clone() },
        Patch { checkpoint: Some(at(8, 0)), ..none.clone() },
        Patch { checkpoint: Some(Checkpoint::ShardEnd), ..none.clone() },
        Patch { pending: Change::Set(pending), ..none.clone() },
        Patch { pending: Change::Remove, ..none.clone() },
        Patch { owner_switches: OwnerSwitches::Increment, ..none.clone() },
        Patch { owner_switches: OwnerSwitches::Reset, ..none.clone() },
        Patch { children: Some([shard(7)].into()), ..none.clone() },
        Patch { children: Some(BTreeSet::new()), ..none.clone() },
        Patch { hash_key_range: Some(hash_key_range(5, 6)), ..none.clone() },
        Patch { token: Some(token(9)), ..none.clone() },
        Patch { requested_by: Change::Set("worker-z".into()), ..none.clone() },
        Patch { requested_by: Change::Remove, ..none.clone() },
        Patch {
            start_timestamp: Change::Set(SystemTime::UNIX_EPOCH + Duration::from_millis(86)),
            ..none.clone()
        },
        Patch { start_timestamp: Change::Remove, ..none.clone() },
        Patch { clear_checkpoint_owner: true, ..none },
    ];
    for (index, patch) in patches.iter().enumerate() {
        let lease = full_lease(shard(index));
        set_up(&store, std::slice::from_ref(&lease)).await;
        let patched = patch.apply_to(&lease);
        assert_ne!(patched, lease, "{patch:?} would show nothing");
        let answer = update(&store, &lease.shard, &counter_is(41), patch).await;
        assert_eq!(answer, Write::Applied(patched.clone()), "{patch:?}");
        assert_eq!(read(&store, &lease.shard).await, Some(patched), "{patch:?}");
    }
    // The same patches on a row that has none of the optional attributes.
    for (index, patch) in patches.iter().enumerate() {
        let lease = Lease::new(shard(50 + index), Checkpoint::TrimHorizon);
        set_up(&store, std::slice::from_ref(&lease)).await;
        let patched = patch.apply_to(&lease);
        let answer = update(&store, &lease.shard, &any(), patch).await;
        assert_eq!(answer, Write::Applied(patched.clone()), "{patch:?}");
        assert_eq!(read(&store, &lease.shard).await, Some(patched), "{patch:?}");
    }
}

/// A patch that names nothing is a check of the expectation.
pub async fn a_patch_without_changes_changes_nothing(store: Store) {
    let lease = full_lease(shard(0));
    set_up(&store, std::slice::from_ref(&lease)).await;
    let none = Patch::default();
    assert_eq!(update(&store, &lease.shard, &counter_is(41), &none).await, Write::Applied(lease.clone()));
    assert_eq!(
        update(&store, &lease.shard, &counter_is(40), &none).await,
        Write::Conflict(Some(lease.clone()))
    );
    assert_eq!(read(&store, &lease.shard).await, Some(lease));
}

/// `Increment` adds to what is stored, `Reset` starts at 0 again.
pub async fn owner_switches_are_counted_and_reset(store: Store) {
    let mut lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    for (change, expected) in [
        (OwnerSwitches::Increment, 1),
        (OwnerSwitches::Increment, 2),
        (OwnerSwitches::Keep, 2),
        (OwnerSwitches::Reset, 0),
        (OwnerSwitches::Reset, 0),
        (OwnerSwitches::Increment, 1),
    ] {
        let patch = Patch { owner_switches: change, ..Patch::default() };
        lease.owner_switches = expected;
        assert_eq!(update(&store, &lease.shard, &any(), &patch).await, Write::Applied(lease.clone()));
    }
    assert_eq!(read(&store, &lease.shard).await, Some(lease));
}

/// A pending checkpoint without state replaces one with state without leaving that behind.
pub async fn a_pending_checkpoint_is_replaced_and_removed_whole(store: Store) {
    let mut lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    let with = |sequence: u64, state: Option<&'static [u8]>| {
        Change::Set(PendingCheckpoint {
            position: Position::new(sequence.into(), sequence + 1),
            state: state.map(Bytes::from_static),
        })
    };
    for pending in [
        with(1, Some(b"\x00\xffstate")),
        with(2, None),
        with(3, Some(b"again")),
        Change::Keep,
        Change::Remove,
        Change::Remove,
        with(4, None),
    ] {
        let patch = Patch { pending, ..Patch::default() };
        lease = patch.apply_to(&lease);
        assert_eq!(update(&store, &lease.shard, &any(), &patch).await, Write::Applied(lease.clone()));
        assert_eq!(read(&store, &lease.shard).await, Some(lease.clone()));
    }
}

/// The set of children is replaced, not merged; an empty one is allowed; parents stay.
pub async fn children_are_set_and_emptied(store: Store) {
    let mut lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    lease.parents = [shard(8), shard(9)].into();
    set_up(&store, std::slice::from_ref(&lease)).await;
    for children in [vec![1], vec![2, 3], vec![], vec![], vec![4]] {
        let children: BTreeSet<_> = children.into_iter().map(shard).collect();
        let patch = Patch { children: Some(children.clone()), ..Patch::default() };
        lease.children = children;
        assert_eq!(update(&store, &lease.shard, &any(), &patch).await, Write::Applied(lease.clone()));
        assert_eq!(read(&store, &lease.shard).await, Some(lease.clone()));
    }
}

/// A consistent read right after an answered write never shows the row before.
pub async fn a_strong_read_sees_the_last_write(store: Store) {
    let mut lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    for counter in 0..20 {
        lease.counter = counter + 1;
        let answer = update(&store, &lease.shard, &counter_is(counter), &renewal(counter + 1)).await;
        assert_eq!(answer, Write::Applied(lease.clone()));
        assert_eq!(read(&store, &lease.shard).await.as_ref(), Some(&lease));
    }
    assert_eq!(delete(&store, &lease.shard, &counter_is(20)).await, Write::Applied(lease));
    assert_eq!(read(&store, &shard(0)).await, None);
}

/// A delete that counted on another row loses, and learns the row; one that wins returns what it deleted.
pub async fn a_delete_needs_its_expectation(store: Store) {
    let lease = full_lease(shard(0));
    let other = full_lease(shard(1));
    set_up(&store, &[lease.clone(), other.clone()]).await;
    let absent = Expectation { owner: OwnerExpectation::Absent, ..any() };
    let elsewhere = Expectation { checkpoint: Some(at(7, 4)), ..any() };
    for expect in [counter_is(40), owner_is("worker-b"), absent, elsewhere] {
        let answer = delete(&store, &lease.shard, &expect).await;
        assert_eq!(answer, Write::Conflict(Some(lease.clone())), "{expect:?}");
    }
    assert_eq!(read(&store, &lease.shard).await.as_ref(), Some(&lease));

    let expect = Expectation {
        counter: Some(41),
        owner: OwnerExpectation::Is("worker-a".into()),
        checkpoint: Some(lease.checkpoint),
        unrequested_but_by: None,
    };
    assert_eq!(delete(&store, &lease.shard, &expect).await, Write::Applied(lease));
    assert_eq!(read(&store, &shard(0)).await, None);
    assert_eq!(delete(&store, &shard(0), &expect).await, Write::Conflict(None));
    assert_eq!(read(&store, &shard(1)).await, Some(other));
}
