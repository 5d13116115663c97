//! Fleet rows as items: what is refused, and what is left alone (`docs/fleet-protocol.md`).

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::fleet::{FleetEntry, FleetRowKey, MemberState};
use kcl_core::lease::{Consistency, FleetChange, FleetWrite, LeaseStore, StoreErrorKind};

use crate::support::{Item, Local, TABLE, item, number, text};

const ROW: FleetRowKey = FleetRowKey(3);
const KEY: &str = "kcl:fleet:3";

fn entry(heartbeat: u64) -> FleetEntry {
    let mut entry = FleetEntry::new(Duration::from_secs(10), MemberState::Active);
    entry.heartbeat = heartbeat;
    entry
}

/// Every change; `a` is meant to be a member with heartbeat 1, `b` none.
fn changes() -> [FleetChange; 6] {
    [
        FleetChange::Create,
        FleetChange::Join { worker: "b".into(), entry: entry(0) },
        FleetChange::Beat { worker: "a".into(), entry: entry(9) },
        FleetChange::Remove { worker: "a".into(), heartbeat: 1 },
        FleetChange::Rows(2),
        FleetChange::DeleteEmpty,
    ]
}

/// A row of that type which could be a fleet row in everything else.
fn row(kind: Option<AttributeValue>, members: &[&str]) -> Item {
    let entry = || AttributeValue::M(item([("hb", number(1)), ("d", number(10_000))]));
    let workers = members.iter().map(|id| ((*id).to_owned(), entry())).collect();
    let mut row = item([("leaseKey", text(KEY)), ("workers", AttributeValue::M(workers))]);
    row.extend(kind.map(|kind| ("entityType".to_owned(), kind)));
    row
}

#[tokio::test(start_paused = true)]
async fn a_row_of_another_kind_under_the_key_is_never_changed() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    for kind in [Some(text("LEASE")), Some(text("OF_THE_FUTURE")), Some(number(1)), None] {
        for members in [&["a"][..], &[]] {
            let foreign = row(kind.clone(), members);
            local.put(TABLE, foreign.clone()).await;
            let error = store.fleet_row(ROW, Consistency::Strong).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Invalid);
            for change in changes() {
                let answer = store.change_fleet(ROW, &change).await;
                assert_eq!(local.item(TABLE, KEY).await.as_ref(), Some(&foreign), "{kind:?} {change:?}");
                let error = answer.unwrap_err();
                assert_eq!((error.kind(), error.may_have_applied()), (StoreErrorKind::Invalid, false));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_missing_row_conflicts_with_nothing() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    for change in &changes()[1..] {
        assert_eq!(store.change_fleet(ROW, change).await.unwrap(), FleetWrite::Conflict(None), "{change:?}");
        assert_eq!(local.item(TABLE, KEY).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_is_named_with_its_row() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    for (name, value) in [("hb", Some(text("1"))), ("d", None)] {
        let mut broken = row(Some(text("FLEET")), &["a"]);
        let Some(AttributeValue::M(workers)) = broken.get_mut("workers") else { unreachable!() };
        let Some(AttributeValue::M(entry)) = workers.get_mut("a") else { unreachable!() };
        entry.remove(name);
        entry.extend(value.map(|value| (name.to_owned(), value)));
        local.put(TABLE, broken).await;
        let error = store.fleet_row(ROW, Consistency::Strong).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        let said = error.to_string();
        assert!(said.contains(KEY) && said.contains("entry of a ") && said.contains(name), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_added_survives_changes_of_others() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let mut newer = row(Some(text("FLEET")), &["a", "z"]);
    let Some(AttributeValue::M(workers)) = newer.get_mut("workers") else { unreachable!() };
    let Some(AttributeValue::M(z)) = workers.get_mut("z") else { unreachable!() };
    z.insert("st".to_owned(), text("asleep"));
    z.insert("more".to_owned(), AttributeValue::L(vec![number(1)]));
    let z = AttributeValue::M(z.clone());
    newer.insert("more".to_owned(), text("kept"));
    local.put(TABLE, newer).await;
    let [_, join, beat, _, rows, _] = changes();
    let remove = FleetChange::Remove { worker: "a".into(), heartbeat: 9 };
    for change in [join, beat, rows, remove] {
        let FleetWrite::Applied(Some(row)) = store.change_fleet(ROW, &change).await.unwrap() else {
            panic!("refused: {change:?}")
        };
        assert_eq!(row.workers["z"].state, MemberState::Observer);
        let stored = local.item(TABLE, KEY).await.unwrap();
        assert_eq!(stored["more"], text("kept"));
        assert_eq!(stored["workers"].as_m().unwrap()["z"], z);
    }
}
