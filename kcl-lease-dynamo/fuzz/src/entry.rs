//! Entry points of the fuzz targets, each a law that holds for any bytes. Also run by the crate's own tests.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::lease::verb::Verb;
use kcl_core::lease::{AttemptToken, Lease, PendingCheckpoint};
use kcl_core::model::{Checkpoint, Position};
use kcl_core::{Entropy, WorkerId};

use crate::schema::{Item, LARGEST_COUNT, LEASE, Row, name, read, to_item};

/// Takes the lines for the attributes of an item: name, type and value, with blanks between them.
pub fn item(bytes: &[u8]) {
    let mut item = attributes(&String::from_utf8_lossy(bytes));
    let row = read(&item);
    let kind = item.get(name::ENTITY_TYPE).and_then(|kind| kind.as_s().ok());
    let key = item.get(name::KEY).and_then(|key| key.as_s().ok());
    match &row {
        Row::Lease(lease) => {
            assert!(kind.is_none_or(|kind| kind == LEASE));
            assert_eq!(Some(lease.shard.as_str()), key.map(String::as_str));
            survives(lease);
            verbs(lease);
        }
        Row::Foreign(row) => {
            assert_eq!((Some(&row.entity_type), &row.key), (kind, key.unwrap_or(&String::new())));
            assert_ne!(row.entity_type, LEASE);
        }
        Row::Unreadable(row) => {
            assert_eq!(&row.key, key.unwrap_or(&String::new()));
            assert!(row.reason.contains("name=") && !row.reason.contains('\n'), "{}", row.reason);
            assert!(row.reason.len() < 2_000, "values of any length are cut");
        }
    }
    let before = format!("{row:?}");
    item.insert("ofTheFuture".to_owned(), AttributeValue::Null(true));
    assert_eq!(format!("{:?}", read(&item)), before, "unknown attributes change nothing");
}

fn attributes(text: &str) -> Item {
    let attributes = text.lines().map(|line| {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (kind, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let texts = || value.split(',').map(str::to_owned).collect();
        let value = match kind {
            "S" => AttributeValue::S(value.to_owned()),
            "N" => AttributeValue::N(value.to_owned()),
            "B" => AttributeValue::B(Blob::new(value)),
            "SS" => AttributeValue::Ss(texts()),
            "NS" => AttributeValue::Ns(texts()),
            "BOOL" => AttributeValue::Bool(value == "true"),
            "L" => AttributeValue::L(vec![AttributeValue::S(value.to_owned())]),
            _ => AttributeValue::Null(true),
        };
        (name.to_owned(), value)
    });
    attributes.collect()
}

/// What was read is written so that it is read again.
fn survives(lease: &Lease) {
    let item = to_item(lease);
    match read(&item) {
        Row::Lease(again) => assert_eq!(&*again, lease),
        other => unreachable!("{lease:?} was written as {item:?} and read as {other:?}"),
    }
}

/// Every write that can follow makes the counter grow (L-2) and leaves a lease, unless there is no larger count.
fn verbs(lease: &Lease) {
    let (me, token) = (WorkerId::from("worker-b"), AttemptToken(Entropy::seeded(1).uuid()));
    let position = lease.checkpoint.position().unwrap_or(Position::new(12.into(), 1));
    let verbs = [
        Verb::renew(lease, token),
        Verb::take(lease, &me, token),
        Verb::checkpoint(lease, Checkpoint::At(position), token),
        Verb::prepare_checkpoint(lease, PendingCheckpoint { position, state: None }, token),
        Verb::end(lease, ["shardId-2".into()].into(), token),
        Verb::release(lease, None, Some(me), token),
    ];
    for verb in verbs {
        let next = verb.patch.apply_to(lease);
        assert!(next.counter > lease.counter, "{next:?}");
        if next.counter.max(next.owner_switches) <= LARGEST_COUNT {
            survives(&next);
        }
    }
}
