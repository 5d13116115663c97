//! Creating the table, expecting it, and refusing another.

use std::time::Duration;

use aws_sdk_dynamodb::types::ScalarAttributeType;
use kcl_core::lease::{LeaseStore, ProvisionedUnits, StoreErrorKind};
use kcl_lease_dynamo::{Billing, DynamoLeaseStore, TableMode, TableSettings};
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Local, TABLE};

fn create(settings: TableSettings) -> TableMode {
    TableMode::CreateIfMissing(settings)
}

fn fails_with(error: ApiError) -> Fault {
    Fault::Fail(Seen::Error(error))
}

#[tokio::test(start_paused = true)]
async fn a_missing_table_is_created_on_demand_with_nothing_else() {
    let local = Local::start();
    assert!(local.store().prepare().await.unwrap().created);
    assert_eq!(
        local.bodies("CreateTable"),
        [json!({
            "TableName": TABLE,
            "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        })]
    );
    let prepared = local.store().prepare().await.unwrap();
    assert_eq!((prepared.created, prepared.provisioned), (false, None));
    assert_eq!(local.bodies("CreateTable").len(), 1);
    assert!(local.bodies("UpdateContinuousBackups").is_empty());
}

#[tokio::test(start_paused = true)]
async fn settings_of_the_table_are_requested() {
    let local = Local::start();
    let settings = TableSettings::new()
        .billing(Billing::Provisioned { read: 7, write: 9 })
        .tag("team", "orders")
        .tag("cost", "42")
        .deletion_protection(true)
        .point_in_time_recovery(true);
    let store = local.store().with_table_mode(create(settings));
    let prepared = store.prepare().await.unwrap();
    assert_eq!((prepared.created, prepared.provisioned), (true, Some(ProvisionedUnits::new(7, 9))));
    let body = &local.bodies("CreateTable")[0];
    assert_eq!(body["BillingMode"], "PROVISIONED");
    assert_eq!(body["ProvisionedThroughput"], json!({"ReadCapacityUnits": 7, "WriteCapacityUnits": 9}));
    assert_eq!(body["Tags"], json!([{"Key": "cost", "Value": "42"}, {"Key": "team", "Value": "orders"}]));
    assert_eq!(body["DeletionProtectionEnabled"], true);
    assert!(local.aws.dynamodb().has_point_in_time_recovery(TABLE));
    let table = local.client().describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    assert_eq!(table.deletion_protection_enabled(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn recovery_is_switched_on_for_a_table_that_exists() {
    let local = Local::start();
    local.create_table(TABLE, "leaseKey", ScalarAttributeType::S).await;
    // A table that was just created cannot have backups for a while.
    let busy = ApiError::client("ContinuousBackupsUnavailableException", "not yet");
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateContinuousBackups", fails_with(busy)).calls(1..=3));
    let settings = TableSettings::new().point_in_time_recovery(true);
    let store = local.store().with_table_mode(create(settings));
    let begin = Instant::now();
    assert!(!store.prepare().await.unwrap().created);
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert!(local.aws.dynamodb().has_point_in_time_recovery(TABLE));
}

#[tokio::test(start_paused = true)]
async fn a_customer_key_is_requested() {
    let local = Local::start();
    // The local DynamoDB need not know keys: what counts is the request.
    let settings = TableSettings::new().kms_key("alias/orders");
    let _ = local.store().with_table_mode(create(settings)).prepare().await;
    assert_eq!(
        local.bodies("CreateTable")[0]["SSESpecification"],
        json!({"Enabled": true, "SSEType": "KMS", "KMSMasterKeyId": "alias/orders"})
    );
}

#[tokio::test(start_paused = true)]
async fn workers_that_start_together_create_one_table() {
    let local = Local::start();
    let stores = [local.store(), local.store(), local.store()];
    let (a, b, c) = tokio::join!(stores[0].prepare(), stores[1].prepare(), stores[2].prepare());
    let created = [a, b, c].into_iter().filter(|prepared| prepared.as_ref().unwrap().created).count();
    assert_eq!(created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hiccup_while_the_new_table_is_awaited_is_sat_out() {
    let local = Local::start();
    let fault = fails_with(errors::internal_server_error());
    local.faults.add(Rule::on(Service::DynamoDb, "DescribeTable", fault).calls(2..=4));
    assert!(local.store().prepare().await.unwrap().created);
    assert_eq!(local.bodies("DescribeTable").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_expected_table_needs_no_right_but_to_read_it() {
    let local = Local::start();
    for operation in ["DescribeTable", "CreateTable", "UpdateTable"] {
        let denied = fails_with(errors::access_denied());
        local.faults.add(Rule::on(Service::DynamoDb, operation, denied));
    }
    let store = local.store().with_table_mode(TableMode::MustExist);
    let error = store.prepare().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TableMissing);
    assert!(!error.is_retryable() && !error.may_have_applied());
    assert!(error.to_string().contains(TABLE), "{error}");

    local.faults.clear();
    local.create_table(TABLE, "leaseKey", ScalarAttributeType::S).await;
    let before = local.faults.all_calls();
    let prepared = store.prepare().await.unwrap();
    assert!(!prepared.created);
    let mut after = local.faults.all_calls();
    for (target, calls) in before {
        after.entry(target).and_modify(|now| *now -= calls);
    }
    after.retain(|_, calls| *calls > 0);
    let operations: Vec<_> = after.keys().map(|target| target.operation.clone()).collect();
    assert_eq!(operations, ["GetItem"]);
}

#[tokio::test(start_paused = true)]
async fn a_table_of_another_shape_is_refused() {
    for (key, kind) in [("id", ScalarAttributeType::S), ("leaseKey", ScalarAttributeType::N)] {
        for mode in [TableMode::default(), TableMode::MustExist] {
            let local = Local::start();
            local.create_table(TABLE, key, kind.clone()).await;
            let error = local.store().with_table_mode(mode.clone()).prepare().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::TableForeign, "{key} {mode:?}: {error}");
            assert!(error.to_string().contains("leaseKey"), "{error}");
            assert_eq!(error.resource(), TABLE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_away_from_active_is_given_up() {
    let local = Local::start();
    let fault = fails_with(errors::internal_server_error());
    local.faults.add(Rule::on(Service::DynamoDb, "DescribeTable", fault).calls(2..));
    let begin = Instant::now();
    let error = local.store().prepare().await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (StoreErrorKind::Unavailable, false));
    assert_eq!(begin.elapsed(), Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn an_impossible_name_is_refused_before_any_call() {
    let local = Local::start();
    for name in ["", "ab", "no spaces", "umläut", &"x".repeat(256)] {
        let error = DynamoLeaseStore::new(local.client(), name).prepare().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{name}");
    }
    assert!(local.faults.all_calls().is_empty());
    assert_eq!(local.store().to_string(), TABLE);
}
