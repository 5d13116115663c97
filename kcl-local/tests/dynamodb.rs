//! DynamoDB through the real SDK client, in process under a paused clock and over a socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]
#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, Put, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType, TableStatus, Tag, TimeToLiveSpecification, TransactWriteItem, WriteRequest,
};
use kcl_local::LocalAws;

const TABLE: &str = "leases";

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

async fn create_table(client: &Client) -> String {
    let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build().unwrap();
    let attribute = AttributeDefinition::builder()
        .attribute_name("leaseKey")
        .attribute_type(ScalarAttributeType::S)
        .build()
        .unwrap();
    let table = client
        .create_table()
        .table_name(TABLE)
        .key_schema(key)
        .attribute_definitions(attribute)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
    table.table_description().unwrap().table_arn().unwrap().to_owned()
}

async fn put(client: &Client, key: &str, counter: u64) {
    let put =
        client.put_item().table_name(TABLE).item("leaseKey", text(key)).item("counter", number(counter));
    put.send().await.unwrap();
}

async fn conditions_are_checked_and_the_old_item_comes_with_the_refusal(aws: &LocalAws) {
    let client = Client::new(&aws.sdk_config());
    create_table(&client).await;
    let create = || {
        client
            .put_item()
            .table_name(TABLE)
            .item("leaseKey", text("shard-0"))
            .item("counter", number(1))
            .condition_expression("attribute_not_exists(leaseKey)")
            .send()
    };
    create().await.unwrap();
    assert!(create().await.unwrap_err().into_service_error().is_conditional_check_failed_exception());

    let renew = |expected: u64| {
        client
            .update_item()
            .table_name(TABLE)
            .key("leaseKey", text("shard-0"))
            .update_expression("SET #c = :new")
            .condition_expression("#c = :old")
            .expression_attribute_names("#c", "counter")
            .expression_attribute_values(":old", number(expected))
            .expression_attribute_values(":new", number(expected + 1))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
    };
    renew(1).await.unwrap();
    let UpdateItemError::ConditionalCheckFailedException(refused) =
        renew(1).await.unwrap_err().into_service_error()
    else {
        panic!("expected a failed condition")
    };
    assert_eq!(refused.item().unwrap()["counter"], number(2));

    let delete = |expected: u64| {
        client
            .delete_item()
            .table_name(TABLE)
            .key("leaseKey", text("shard-0"))
            .condition_expression("#c = :old")
            .expression_attribute_names("#c", "counter")
            .expression_attribute_values(":old", number(expected))
            .send()
    };
    assert!(delete(1).await.unwrap_err().into_service_error().is_conditional_check_failed_exception());
    delete(2).await.unwrap();
    let get = client.get_item().table_name(TABLE).key("leaseKey", text("shard-0")).consistent_read(true);
    assert!(get.send().await.unwrap().item().is_none());
}

async fn a_paged_scan_returns_every_item_once(aws: &LocalAws) {
    let client = Client::new(&aws.sdk_config());
    create_table(&client).await;
    for counter in 0..25 {
        put(&client, &format!("shard-{counter:02}"), counter).await;
    }
    let mut start: Option<HashMap<String, AttributeValue>> = None;
    let (mut keys, mut pages) = (Vec::new(), 0);
    loop {
        let page =
            client.scan().table_name(TABLE).limit(7).set_exclusive_start_key(start).send().await.unwrap();
        pages += 1;
        keys.extend(page.items().iter().map(|item| item["leaseKey"].as_s().unwrap().clone()));
        start = page.last_evaluated_key().cloned();
        if start.is_none() {
            break;
        }
    }
    keys.sort();
    let expected: Vec<_> = (0..25).map(|counter| format!("shard-{counter:02}")).collect();
    assert_eq!(keys, expected);
    assert_eq!(pages, 4);
}

async fn tables_are_described_tagged_recoverable_and_deleted(aws: &LocalAws) {
    let client = Client::new(&aws.sdk_config());
    let arn = create_table(&client).await;
    let again = client.describe_table().table_name(TABLE).send().await.unwrap();
    assert_eq!(again.table().unwrap().table_status(), Some(&TableStatus::Active));
    assert_eq!(client.list_tables().send().await.unwrap().table_names(), [TABLE]);

    let tag = Tag::builder().key("team").value("orders").build().unwrap();
    client.tag_resource().resource_arn(&arn).tags(tag.clone()).send().await.unwrap();
    let tags = client.list_tags_of_resource().resource_arn(&arn).send().await.unwrap();
    assert_eq!(tags.tags(), [tag]);

    let expiry = TimeToLiveSpecification::builder().attribute_name("expires").enabled(true).build().unwrap();
    client.update_time_to_live().table_name(TABLE).time_to_live_specification(expiry).send().await.unwrap();
    let expiry = client.describe_time_to_live().table_name(TABLE).send().await.unwrap();
    assert_eq!(expiry.time_to_live_description().unwrap().attribute_name(), Some("expires"));

    let protect = client.update_table().table_name(TABLE).deletion_protection_enabled(true);
    protect.send().await.unwrap();
    let refused = client.delete_table().table_name(TABLE).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"), "{refused:?}");
    client.update_table().table_name(TABLE).deletion_protection_enabled(false).send().await.unwrap();

    let status = async || {
        let described = client.describe_continuous_backups().table_name(TABLE).send().await.unwrap();
        let description = described.continuous_backups_description().unwrap().clone();
        description
            .point_in_time_recovery_description()
            .unwrap()
            .point_in_time_recovery_status()
            .unwrap()
            .clone()
    };
    assert_eq!(status().await, PointInTimeRecoveryStatus::Disabled);
    assert!(!aws.dynamodb().has_point_in_time_recovery(TABLE));
    let on =
        PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build().unwrap();
    let switch =
        client.update_continuous_backups().table_name(TABLE).point_in_time_recovery_specification(on.clone());
    switch.send().await.unwrap();
    assert_eq!(status().await, PointInTimeRecoveryStatus::Enabled);
    assert!(aws.dynamodb().has_point_in_time_recovery(TABLE));
    let nowhere =
        client.update_continuous_backups().table_name("nowhere").point_in_time_recovery_specification(on);
    assert!(nowhere.send().await.unwrap_err().into_service_error().is_table_not_found_exception());

    client.delete_table().table_name(TABLE).send().await.unwrap();
    assert!(!aws.dynamodb().has_point_in_time_recovery(TABLE));
    let missing = client.describe_table().table_name(TABLE).send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
}

async fn batches_transactions_and_queries_work(aws: &LocalAws) {
    let client = Client::new(&aws.sdk_config());
    create_table(&client).await;
    let writes = (0..25).map(|counter| {
        let put = aws_sdk_dynamodb::types::PutRequest::builder()
            .item("leaseKey", text(format!("shard-{counter}")))
            .item("counter", number(counter))
            .build()
            .unwrap();
        WriteRequest::builder().put_request(put).build()
    });
    let batch = client.batch_write_item().request_items(TABLE, writes.collect()).send().await.unwrap();
    assert!(batch.unprocessed_items().unwrap().is_empty());

    let put = Put::builder()
        .table_name(TABLE)
        .item("leaseKey", text("shard-3"))
        .condition_expression("attribute_not_exists(leaseKey)")
        .build()
        .unwrap();
    let transaction =
        client.transact_write_items().transact_items(TransactWriteItem::builder().put(put).build());
    let cancelled = transaction.send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
        cancelled,
    ) = cancelled
    else {
        panic!("expected a cancelled transaction, got {cancelled:?}")
    };
    assert_eq!(cancelled.cancellation_reasons()[0].code(), Some("ConditionalCheckFailed"));

    let found = client
        .query()
        .table_name(TABLE)
        .key_condition_expression("leaseKey = :key")
        .expression_attribute_values(":key", text("shard-7"))
        .send()
        .await
        .unwrap();
    assert_eq!(found.items()[0]["counter"], number(7));
}

async fn refusals_parse_to_the_errors_of_the_sdk(aws: &LocalAws) {
    let client = Client::new(&aws.sdk_config());
    create_table(&client).await;
    let short = client.describe_table().table_name("ab").send().await.unwrap_err();
    assert_eq!(short.code(), Some("ValidationException"));
    assert!(short.message().unwrap().starts_with("TableName must be at least 3"), "{short:?}");
    let missing =
        client.get_item().table_name("nowhere").key("leaseKey", text("a")).send().await.unwrap_err();
    assert!(missing.as_service_error().unwrap().is_resource_not_found_exception());
    let twice = client
        .create_table()
        .table_name(TABLE)
        .key_schema(KeySchemaElement::builder().attribute_name("k").key_type(KeyType::Hash).build().unwrap())
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("k")
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap_err();
    assert!(twice.as_service_error().unwrap().is_resource_in_use_exception());
    let unknown = client.describe_limits().send().await.unwrap_err();
    assert_eq!(unknown.code(), Some("UnknownOperationException"));
}

macro_rules! over_both_transports {
    ($($name:ident),* $(,)?) => {
        mod in_process_under_a_paused_clock {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                let aws = kcl_local::LocalAws::in_process().unwrap();
                Box::pin(super::$name(&aws)).await;
            })*
        }
        mod over_a_socket {
            $(#[tokio::test]
            async fn $name() {
                let aws = kcl_local::LocalAws::start().await.unwrap();
                Box::pin(super::$name(&aws)).await;
            })*
        }
    };
}

over_both_transports!(
    conditions_are_checked_and_the_old_item_comes_with_the_refusal,
    a_paged_scan_returns_every_item_once,
    tables_are_described_tagged_recoverable_and_deleted,
    batches_transactions_and_queries_work,
    refusals_parse_to_the_errors_of_the_sdk,
);
