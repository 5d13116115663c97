//! Local services, workers on them, and the tool as it is typed.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_kinesis::primitives::Blob;
use clap::Parser;
use kcl_cli::args::Cli;
use kcl_cli::{Access, CliError, Console, Outcome, run};
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{
    BoxError, CheckpointPolicy, Checkpointer, Coordination, Entropy, Error, RecordBatch, RecordProcessor,
    Scheduler, ShardContext, ShutdownReport, TokioClock,
};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::faults::Faults;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub(crate) const APPLICATION: &str = "orders-app";
pub(crate) const STREAM: &str = "orders";

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The services in process. The tool has a fault layer of its own, which records its calls; workers have none.
pub(crate) struct Local {
    pub(crate) aws: LocalAws,
    pub(crate) faults: Faults,
    clock: TokioClock,
}

/// What a command came to.
pub(crate) struct Ran {
    pub(crate) outcome: Result<Outcome, CliError>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        self.outcome.as_ref().unwrap();
        serde_json::from_str(&self.out).unwrap()
    }

    /// The failure, its hint and its causes.
    pub(crate) fn failure(&self) -> String {
        let error = self.outcome.as_ref().unwrap_err();
        format!("{error}; {}; {}", error.hint().unwrap_or_default(), error.causes().join("; "))
    }
}

impl Local {
    pub(crate) fn start() -> Self {
        Self::over(LocalAws::in_process().unwrap())
    }

    /// In process the services' clock starts now, too, and then follows tokio's.
    #[allow(clippy::disallowed_methods, reason = "the services start with the wall clock")]
    pub(crate) fn over(aws: LocalAws) -> Self {
        let faults = Faults::seeded(3);
        faults.record_last(10_000);
        Self { aws, faults, clock: TokioClock::new(SystemTime::now()) }
    }

    /// With a stream of so many shards.
    pub(crate) async fn with_stream(shards: i32) -> Self {
        let local = Self::start();
        local.kinesis().create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        sleep(Duration::from_secs(5)).await;
        local
    }

    pub(crate) fn kinesis(&self) -> aws_sdk_kinesis::Client {
        aws_sdk_kinesis::Client::new(&self.aws.sdk_config())
    }

    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.aws.sdk_config())
    }

    pub(crate) fn store(&self) -> DynamoLeaseStore {
        DynamoLeaseStore::new(self.dynamodb(), APPLICATION)
    }

    /// Runs the tool on the application, as a person without a terminal types it.
    pub(crate) async fn kcl(&self, line: &str) -> Ran {
        self.answered(line, None).await
    }

    /// Runs the tool as a person types it who answers its question.
    pub(crate) async fn answered(&self, line: &str, answer: Option<&str>) -> Ran {
        let words = ["kcl", "--application", APPLICATION].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let client = self.faults.wrap(self.aws.http_client());
        let config = self.aws.sdk_config().into_builder().http_client(client).build();
        let access = Access::new(config, cli.connection.clone()).with_clock(self.clock);
        let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), answer.unwrap_or_default().as_bytes());
        let asked: Option<&mut dyn std::io::BufRead> = if answer.is_some() { Some(&mut input) } else { None };
        let mut console = Console::new(&mut out, &mut err, asked, cli.json);
        let outcome = Box::pin(run(&cli.command, &access, &mut console)).await;
        Ran { outcome, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    /// The names of the calls of the tool that write.
    pub(crate) fn writes(&self) -> Vec<String> {
        let recorded = self.faults.recorded();
        let operations = recorded.into_iter().map(|call| call.target.operation);
        operations.filter(|name| !["DescribeTable", "Scan", "GetItem"].contains(&name.as_str())).collect()
    }

    pub(crate) async fn put_record(&self, key: &str) {
        let put = self.kinesis().put_record().stream_name(STREAM).partition_key(key);
        put.data(Blob::new(key.as_bytes())).send().await.unwrap();
    }

    pub(crate) async fn create_table(&self, table: &str, key: &str) {
        let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let attribute =
            AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S).build();
        self.dynamodb()
            .create_table()
            .table_name(table)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(schema.unwrap())
            .attribute_definitions(attribute.unwrap())
            .send()
            .await
            .unwrap();
    }

    pub(crate) async fn put(&self, table: &str, item: Item) {
        self.dynamodb().put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }

    pub(crate) async fn item(&self, key: &str) -> Option<Item> {
        let request = self.dynamodb().get_item().table_name(APPLICATION).key("leaseKey", text(key));
        request.consistent_read(true).send().await.unwrap().item
    }

    /// The rows of a table, by key; none if there is no table yet.
    pub(crate) async fn items(&self, table: &str) -> Vec<Item> {
        let answer = self.dynamodb().scan().table_name(table).send().await;
        let mut items = answer.ok().and_then(|answer| answer.items).unwrap_or_default();
        items.sort_by_key(|item| item["leaseKey"].as_s().unwrap().clone());
        items
    }

    /// The owners of the leases, in the order of shards, and `-` for none.
    pub(crate) async fn owners(&self) -> Vec<String> {
        let items = self.items(APPLICATION).await;
        let leases = items.iter().filter(|item| item["leaseKey"].as_s().unwrap().starts_with("shardId-"));
        leases
            .map(|item| item.get("leaseOwner").map_or("-", |owner| owner.as_s().unwrap()).to_owned())
            .collect()
    }

    /// Starts a worker.
    pub(crate) fn worker(&self, name: &str, coordination: Coordination) -> Worker {
        let scheduler = Scheduler::builder(APPLICATION)
            .stream(KinesisStream::new(self.kinesis(), STREAM))
            .lease_store(self.store())
            .worker_id(name)
            .coordination(coordination)
            .lease_runtime(kcl_core::LeaseRuntime::Shared)
            .checkpoint_policy(CheckpointPolicy::AfterBatch)
            .clock(self.clock)
            .entropy(Entropy::seeded(name.bytes().map(u64::from).sum()))
            .processor(|_: &ShardContext| Nothing)
            .build()
            .unwrap();
        let handle = scheduler.handle();
        let mut run = JoinSet::new();
        run.spawn(scheduler.run());
        Worker { run, handle }
    }

    /// Waits until there are leases and `condition` holds of their owners.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        loop {
            let owners = self.owners().await;
            if !owners.is_empty() && condition(&owners) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(300), "{what}: {owners:?}");
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A worker that runs. Dropping it is a crash.
pub(crate) struct Worker {
    run: JoinSet<Result<ShutdownReport, Error>>,
    pub(crate) handle: kcl_core::SchedulerHandle,
}

impl Worker {
    pub(crate) async fn crash(mut self) {
        self.run.shutdown().await;
    }
}

struct Nothing;

#[async_trait]
impl RecordProcessor for Nothing {
    async fn process_records(&mut self, _: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        Ok(())
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

/// A lease as KCL 2.x writes it.
pub(crate) fn java_lease(shard: &str, owner: Option<&str>) -> Item {
    let mut row = item([
        ("leaseKey", text(shard)),
        ("leaseCounter", number(12)),
        ("ownerSwitchesSinceCheckpoint", number(1)),
        ("checkpoint", text("TRIM_HORIZON")),
        ("checkpointSubSequenceNumber", number(0)),
        ("startingHashKey", text("0")),
        ("endingHashKey", text("340282366920938463463374607431768211455")),
    ]);
    if let Some(owner) = owner {
        row.insert("leaseOwner".into(), text(owner));
    }
    row
}

pub(crate) const SHARD: &str = "shardId-000000000000";
