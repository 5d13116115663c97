//! Real SDK clients over `kcl-local`: the way a user's program is put together.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::testing::{Action, Recorder, Rule as Told};
use kcl_core::{Callback, LeaseRuntime, Scheduler, SchedulerBuilder};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Faults, Rule, Seen};
use kcl_local::wire::Service;

/// The stream.
pub const STREAM: &str = "orders";
/// The lease table.
pub const TABLE: &str = "orders-app";

/// A row of a DynamoDB table.
pub type Item = HashMap<String, AttributeValue>;

/// The services, what goes wrong between them and the clients, and what processors were given.
#[derive(Debug)]
pub struct Aws {
    /// The services.
    pub local: LocalAws,
    /// The fault layer around every client.
    pub faults: Faults,
    /// Makes the processors. They checkpoint after each batch.
    pub recorder: Recorder,
}

impl Aws {
    fn around(local: LocalAws, faults: Faults) -> Self {
        crate::log::init();
        let recorder = Recorder::new().with(Told::on(Callback::ProcessRecords, Action::Checkpoint));
        Self { local, faults, recorder }
    }

    /// Without sockets, on tokio's clock.
    ///
    /// # Panics
    /// If the services cannot be started.
    #[must_use]
    pub fn in_process() -> Self {
        let faults = Faults::seeded(5);
        let local = LocalAws::builder().faults(&faults).in_process().expect("services in process start");
        Self::around(local, faults)
    }

    /// Over loopback sockets, on the wall clock.
    ///
    /// # Panics
    /// If the services cannot be started.
    pub async fn over_sockets() -> Self {
        let faults = Faults::seeded(5);
        let local = LocalAws::builder().faults(&faults).start().await.expect("a loopback port is free");
        Self::around(local, faults)
    }

    /// The same with the stream.
    ///
    /// # Panics
    /// If there is one already.
    #[must_use]
    pub fn with_stream(self, shards: u32) -> Self {
        self.local.kinesis().create_stream(STREAM, shards).expect("the stream is new");
        self
    }

    /// A Kinesis client.
    #[must_use]
    pub fn kinesis(&self) -> aws_sdk_kinesis::Client {
        aws_sdk_kinesis::Client::new(&self.local.sdk_config())
    }

    /// A DynamoDB client.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.local.sdk_config())
    }

    /// The stream as a source.
    #[must_use]
    pub fn source(&self) -> KinesisStream {
        KinesisStream::new(self.kinesis(), STREAM)
    }

    /// The lease table as a store.
    #[must_use]
    pub fn store(&self) -> DynamoLeaseStore {
        DynamoLeaseStore::new(self.dynamodb(), TABLE)
    }

    /// A scheduler with all of it, lease writes included, on the runtime of the test.
    #[must_use]
    pub fn builder(&self) -> SchedulerBuilder {
        Scheduler::builder(TABLE)
            .worker_id("alpha")
            .stream(self.source())
            .lease_store(self.store())
            .processor(self.recorder.clone())
            .lease_runtime(LeaseRuntime::Shared)
    }

    /// Makes every call of `operation` fail with an error of this code and status 400.
    pub fn fail(&self, service: Service, operation: &str, code: &'static str, message: &'static str) {
        let fault = Fault::Fail(Seen::Error(ApiError::client(code, message)));
        self.faults.add(Rule::on(service, operation, fault));
    }

    /// How many calls changed DynamoDB or tried to.
    #[must_use]
    pub fn writes(&self) -> u64 {
        ["CreateTable", "PutItem", "UpdateItem", "DeleteItem"]
            .iter()
            .map(|operation| self.faults.calls(Service::DynamoDb, operation))
            .sum()
    }

    /// Creates a table whose key is this attribute alone.
    ///
    /// # Panics
    /// If it exists.
    pub async fn create_table(&self, table: &str, key: &str) {
        let key_schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let attribute =
            AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S).build();
        let request = self
            .dynamodb()
            .create_table()
            .table_name(table)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key_schema.expect("the key is complete"))
            .attribute_definitions(attribute.expect("the attribute is complete"));
        request.send().await.expect("the table is new");
    }

    /// Writes a row as it is.
    ///
    /// # Panics
    /// If the table refuses it.
    pub async fn put_item(&self, table: &str, item: Item) {
        self.dynamodb()
            .put_item()
            .table_name(table)
            .set_item(Some(item))
            .send()
            .await
            .expect("the table takes it");
    }

    /// Every row of the lease table, by key.
    ///
    /// # Panics
    /// If the table cannot be read.
    pub async fn rows(&self) -> std::collections::BTreeMap<String, Item> {
        let request = self.dynamodb().scan().table_name(TABLE).consistent_read(true);
        let items = request.send().await.expect("the table is there").items.unwrap_or_default();
        items.into_iter().map(|item| (string(&item, "leaseKey").to_owned(), item)).collect()
    }
}

/// An attribute that is a string.
///
/// # Panics
/// If it is not there, or something else.
#[must_use]
pub fn string<'a>(item: &'a Item, name: &str) -> &'a str {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.expect("the attribute is there and a string")
}

/// A row of these attributes.
#[must_use]
pub fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A string.
#[must_use]
pub fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number.
#[must_use]
pub fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
