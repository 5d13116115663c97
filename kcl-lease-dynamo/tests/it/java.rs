//! Leaders of the Java KCL 3.x are found where they keep their lock, and nowhere else.

use aws_sdk_dynamodb::types::ScalarAttributeType;
use kcl_core::lease::{LeaseStore, StoreErrorKind};
use kcl_lease_dynamo::TableMode;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;

use crate::support::{Item, Local, TABLE, item, text};

const LEGACY: &str = "orders-app-CoordinatorState";

fn lock(key: &str) -> Item {
    item([
        (key, text("Leader")),
        ("ownerName", text("10.0.0.1:6f1d")),
        ("leaseDuration", text("120000")),
        ("recordVersionNumber", text("6d62a5f2-0000-4000-8000-000000000001")),
    ])
}

fn typed(mut item: Item, entity_type: &str) -> Item {
    item.insert("entityType".into(), text(entity_type));
    item
}

fn released(mut item: Item) -> Item {
    item.insert("isReleased".into(), text("1"));
    item
}

async fn leadership(local: &Local) -> Option<String> {
    local.store().prepare().await.unwrap().java_leadership
}

/// With the lease table, and a legacy table if asked for.
async fn with_tables(legacy: bool) -> Local {
    let local = Local::start();
    local.create_table(TABLE, "leaseKey", ScalarAttributeType::S).await;
    if legacy {
        local.create_table(LEGACY, "key", ScalarAttributeType::S).await;
    }
    local
}

#[tokio::test(start_paused = true)]
async fn an_untouched_table_has_no_leader() {
    assert_eq!(leadership(&with_tables(false).await).await, None);
    assert_eq!(leadership(&with_tables(true).await).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_in_the_lease_table_is_found() {
    let local = with_tables(false).await;
    local.put(TABLE, typed(lock("leaseKey"), "LEADER")).await;
    let migration = item([("leaseKey", text("Migration3.0")), ("cv", text("CLIENT_VERSION_3X"))]);
    local.put(TABLE, typed(migration, "CLIENT_VERSION_MIGRATION")).await;
    let found = leadership(&local).await.unwrap();
    for part in ["orders-app", "Leader", "10.0.0.1:6f1d", "CLIENT_VERSION_3X", "delete the row"] {
        assert!(found.contains(part), "{part} in {found}");
    }

    local.put(TABLE, released(typed(lock("leaseKey"), "LEADER"))).await;
    assert_eq!(leadership(&local).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_in_the_legacy_table_is_found() {
    let local = with_tables(true).await;
    for row in [lock("key"), typed(lock("key"), "LEADER")] {
        local.put(LEGACY, row).await;
        let found = leadership(&local).await.unwrap();
        for part in [LEGACY, "10.0.0.1:6f1d", "client_version=unknown"] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }
    assert_eq!(local.store().without_legacy_probe().prepare().await.unwrap().java_leadership, None);
    let elsewhere = local.store().with_legacy_coordinator_table("other-CoordinatorState");
    assert_eq!(elsewhere.prepare().await.unwrap().java_leadership, None);
    local.put(LEGACY, released(lock("key"))).await;
    assert_eq!(leadership(&local).await, None);
}

#[tokio::test(start_paused = true)]
async fn other_rows_of_the_coordinator_are_no_leader() {
    let local = with_tables(true).await;
    let migration = |key| item([(key, text("Migration3.0")), ("cv", text("CLIENT_VERSION_UPGRADE_FROM_2X"))]);
    local.put(TABLE, typed(migration("leaseKey"), "CLIENT_VERSION_MIGRATION")).await;
    local.put(LEGACY, migration("key")).await;
    assert_eq!(leadership(&local).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_table_by_chance_of_the_legacy_name_is_no_obstacle() {
    let local = with_tables(false).await;
    local.create_table(LEGACY, "id", ScalarAttributeType::N).await;
    assert_eq!(leadership(&local).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_denied_is_an_error_that_says_what_to_do() {
    let local = with_tables(false).await;
    let denied = Fault::Fail(Seen::Error(errors::access_denied()));
    local.faults.add(Rule::on(Service::DynamoDb, "GetItem", denied).when_body_contains("CoordinatorState"));
    let error = local.store().prepare().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied);
    let message = error.to_string();
    for part in ["GetItem", LEGACY, "without_legacy_probe"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let store = local.store().without_legacy_probe().with_table_mode(TableMode::MustExist);
    assert_eq!(store.prepare().await.unwrap().java_leadership, None);
}
