//! A local DynamoDB, and what the tests put there by hand.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::faults::Faults;
use serde_json::Value;

pub(crate) const TABLE: &str = "orders-app";

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The services in process, with a fault layer that also records the calls.
pub(crate) struct Local {
    pub(crate) aws: LocalAws,
    pub(crate) faults: Faults,
}

impl Local {
    pub(crate) fn start() -> Self {
        let faults = Faults::seeded(3);
        faults.record_last(100);
        let aws = LocalAws::builder().faults(&faults).in_process().unwrap();
        Self { aws, faults }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.aws.sdk_config())
    }

    pub(crate) fn store(&self) -> DynamoLeaseStore {
        DynamoLeaseStore::new(self.client(), TABLE)
    }

    /// The bodies of the calls of an operation.
    pub(crate) fn bodies(&self, operation: &str) -> Vec<Value> {
        let recorded = self.faults.recorded();
        let calls = recorded.iter().filter(|call| call.target.operation == operation);
        calls.map(|call| serde_json::from_slice(&call.body).unwrap()).collect()
    }

    pub(crate) async fn create_table(&self, table: &str, key: &str, kind: ScalarAttributeType) {
        let key_schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let attribute = AttributeDefinition::builder().attribute_name(key).attribute_type(kind).build();
        self.client()
            .create_table()
            .table_name(table)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key_schema.unwrap())
            .attribute_definitions(attribute.unwrap())
            .send()
            .await
            .unwrap();
    }

    pub(crate) async fn put(&self, table: &str, item: Item) {
        self.client().put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }

    pub(crate) async fn item(&self, table: &str, key: &str) -> Option<Item> {
        let request = self.client().get_item().table_name(table).key("leaseKey", text(key));
        request.consistent_read(true).send().await.unwrap().item
    }
}

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
