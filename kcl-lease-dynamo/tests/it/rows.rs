//! What the store leaves alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::lease::verb::Verb;
use kcl_core::lease::{
    AttemptToken, Consistency, Expectation, Lease, LeaseStore, Patch, PendingCheckpoint, StoreErrorKind,
    Write,
};
use kcl_core::model::{Checkpoint, Position, ShardId};
use kcl_core::{Entropy, WorkerId};

use crate::support::{Item, Local, TABLE, item, number, text};

fn unknown_attributes() -> Item {
    let list = AttributeValue::L(vec![number(1), AttributeValue::Null(true)]);
    let map = AttributeValue::M(item([("inner", text("x")), ("list", list)]));
    item([
        ("throughputKBps", AttributeValue::N("12.345678".into())),
        ("streamName", text("123456789012:orders:1700000000")),
        ("private.map", map),
        ("flag", AttributeValue::Bool(false)),
        ("bytes", AttributeValue::B(Blob::new(vec![0, 255]))),
        ("numbers", AttributeValue::Ns(vec!["1".into(), "2".into()])),
    ])
}

fn verbs(lease: &Lease, entropy: &Entropy) -> Vec<Verb> {
    let (me, token) = (WorkerId::from("worker-b"), || AttemptToken(entropy.uuid()));
    let at = Checkpoint::At(Position::new(12.into(), 1));
    let pending = PendingCheckpoint { position: Position::new(9.into(), 0), state: Some(vec![7].into()) };
    vec![
        Verb::renew(lease, token()),
        Verb::take(lease, &me, token()),
        Verb::request(lease, &me),
        Verb::checkpoint(lease, at, token()),
        Verb::prepare_checkpoint(lease, pending, token()),
        Verb::end(lease, ["shardId-2".into()].into(), token()),
        Verb::release(lease, Some(at), Some(me), token()),
    ]
}

#[tokio::test(start_paused = true)]
async fn unknown_attributes_survive_every_verb() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let key = ShardId::from("shardId-000000000001");
    let mut written = item([
        ("leaseKey", text(key.as_str())),
        ("leaseCounter", number(5)),
        ("leaseOwner", text("worker-a")),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("checkpoint", text("TRIM_HORIZON")),
        ("checkpointSubSequenceNumber", number(0)),
        ("parentShardId", AttributeValue::Ss(vec!["shardId-000000000000".into()])),
    ]);
    written.extend(unknown_attributes());
    let entropy = Entropy::seeded(1);
    let count = verbs(&Lease::new(key.clone(), Checkpoint::Latest), &entropy).len();
    for index in 0..count {
        local.put(TABLE, written.clone()).await;
        let lease = store.get(&key, Consistency::Strong).await.unwrap().unwrap();
        let verb = &verbs(&lease, &entropy)[index];
        let answer = store.update(&key, &verb.expect, &verb.patch).await.unwrap();
        assert_eq!(answer, Write::Applied(verb.patch.apply_to(&lease)));
        let after = local.item(TABLE, key.as_str()).await.unwrap();
        for (name, value) in unknown_attributes() {
            assert_eq!(after.get(&name), Some(&value), "{name} after {verb:?}");
        }
        assert_eq!(after.get("parentShardId"), written.get("parentShardId"));
        if verb.patch.checkpoint.is_none() {
            assert_eq!(after.get("checkpoint"), written.get("checkpoint"));
        }
        // Nothing is added to rows that somebody else made but what the verb is about.
        assert_eq!(after.get("entityType"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_other_kinds_are_reported_and_never_written() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let foreign = [
        item([
            ("leaseKey", text("worker-a")),
            ("entityType", text("WORKER_METRIC_STATS")),
            ("lut", number(1_790_000_000)),
            ("sts", AttributeValue::M(item([("C", AttributeValue::L(vec![number(12)]))]))),
        ]),
        // A row of a kind to come may look like a lease in everything else.
        item([
            ("leaseKey", text("of-the-future")),
            ("entityType", text("SOMETHING_NEW")),
            ("leaseCounter", number(0)),
            ("ownerSwitchesSinceCheckpoint", number(0)),
            ("checkpoint", text("TRIM_HORIZON")),
            ("checkpointSubSequenceNumber", number(0)),
        ]),
    ];
    for row in &foreign {
        local.put(TABLE, row.clone()).await;
    }
    let lease = Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    let _ = store.create(&lease).await.unwrap();

    let page = store.list(None, Consistency::Eventual).await.unwrap();
    assert_eq!(page.leases, [Arc::new(lease)]);
    let kinds: BTreeSet<_> = page.foreign.iter().map(|row| row.entity_type.as_str()).collect();
    assert_eq!(kinds, ["SOMETHING_NEW", "WORKER_METRIC_STATS"].into());

    let (any, token) = (Expectation::default(), AttemptToken(Entropy::seeded(2).uuid()));
    for row in &foreign {
        let key = ShardId::from(row["leaseKey"].as_s().unwrap().as_str());
        assert_eq!(store.get(&key, Consistency::Strong).await.unwrap(), None);
        let patch = Patch { token: Some(token), ..Patch::default() };
        let counter = Expectation { counter: Some(0), ..any.clone() };
        for expect in [&any, &counter] {
            assert_eq!(store.update(&key, expect, &patch).await.unwrap(), Write::Conflict(None));
            assert_eq!(store.delete(&key, expect).await.unwrap(), Write::Conflict(None));
        }
        let error = store.create(&Lease::new(key.clone(), Checkpoint::Latest)).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (StoreErrorKind::Invalid, false));
        assert_eq!(local.item(TABLE, key.as_str()).await.as_ref(), Some(row));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_read_are_reported_and_left_alone() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let broken = item([
        ("leaseKey", text("shardId-000000000009")),
        ("leaseCounter", number(3)),
        ("checkpoint", text("TRIM_HORIZON")),
    ]);
    local.put(TABLE, broken.clone()).await;
    let good = Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    let _ = store.create(&good).await.unwrap();

    let page = store.list(None, Consistency::Eventual).await.unwrap();
    assert_eq!(page.leases, [Arc::new(good)]);
    assert_eq!(page.unreadable[0].key, "shardId-000000000009");
    assert!(page.unreadable[0].reason.contains("ownerSwitchesSinceCheckpoint"), "{:?}", page.unreadable);

    let key = ShardId::from("shardId-000000000009");
    let stale = Expectation { counter: Some(2), ..Expectation::default() };
    for error in [
        store.get(&key, Consistency::Strong).await.unwrap_err(),
        store.update(&key, &stale, &Patch::default()).await.unwrap_err(),
        store.delete(&key, &stale).await.unwrap_err(),
        store.create(&Lease::new(key.clone(), Checkpoint::Latest)).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.may_have_applied()), (StoreErrorKind::Invalid, false));
        assert!(error.to_string().contains("ownerSwitchesSinceCheckpoint"), "{error}");
    }
    assert_eq!(local.item(TABLE, key.as_str()).await, Some(broken));
}

#[tokio::test(start_paused = true)]
async fn a_created_row_has_javas_attributes_and_ours() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let mut lease = Lease::new("shardId-000000000001".into(), Checkpoint::Latest);
    lease.token = Some(AttemptToken("6d62a5f2-0000-4000-8000-000000000001".parse().unwrap()));
    lease.requested_by = Some("worker-b".into());
    lease.start_timestamp =
        Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_790_000_000_123));
    lease.stream = Some(kcl_core::model::StreamIdentity {
        arn: "arn:aws:kinesis:eu-central-1:123456789012:stream/orders".into(),
        created_millis: 1_780_000_000_456,
    });
    let _ = store.create(&lease).await.unwrap();
    let expected = item([
        ("leaseKey", text("shardId-000000000001")),
        ("entityType", text("LEASE")),
        ("leaseCounter", number(0)),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("checkpoint", text("LATEST")),
        ("checkpointSubSequenceNumber", number(0)),
        ("attemptToken", text("6d62a5f2-0000-4000-8000-000000000001")),
        ("handOverRequest", text("worker-b")),
        ("startTimestampMillis", number(1_790_000_000_123)),
        ("streamIdentity", text("arn:aws:kinesis:eu-central-1:123456789012:stream/orders@1780000000456")),
    ]);
    assert_eq!(local.item(TABLE, "shardId-000000000001").await, Some(expected));
}
