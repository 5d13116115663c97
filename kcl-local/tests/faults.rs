//! Every fault, as the real SDK client sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_dynamodb::{Client, config};
use kcl_local::LocalAws;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::wire::Service;
use tokio::time::Instant;

const TABLE: &str = "leases";
const SECOND: Duration = Duration::from_secs(1);

/// A table behind a fault layer, and a client that tries once.
struct World {
    faults: Faults,
    client: Client,
    /// Keeps a socket open; without one the client needs nobody.
    _aws: Option<LocalAws>,
}

impl World {
    async fn in_process() -> Self {
        let faults = Faults::seeded(1);
        let aws = LocalAws::builder().faults(&faults).in_process().unwrap();
        Self::with_table(aws, faults).await
    }

    async fn with_table(aws: LocalAws, faults: Faults) -> Self {
        let config = config::Builder::from(&aws.sdk_config()).retry_config(RetryConfig::disabled()).build();
        let client = Client::from_conf(config);
        let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
        let attribute = AttributeDefinition::builder()
            .attribute_name("id")
            .attribute_type(ScalarAttributeType::S)
            .build()
            .unwrap();
        let create = client.create_table().table_name(TABLE).key_schema(key).attribute_definitions(attribute);
        create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
        Self { faults, client, _aws: Some(aws) }
    }

    fn on_put(&self, fault: Fault) {
        self.faults.add(Rule::on(Service::DynamoDb, "PutItem", fault));
    }

    async fn put(&self, id: &str) -> Result<(), SdkError<PutItemError>> {
        let put = self.client.put_item().table_name(TABLE).item("id", AttributeValue::S(id.into()));
        put.condition_expression("attribute_not_exists(id)").send().await.map(drop)
    }

    async fn holds(&self, id: &str) -> bool {
        let get = self.client.get_item().table_name(TABLE).key("id", AttributeValue::S(id.into()));
        get.send().await.unwrap().item().is_some()
    }

    /// The same world through a client with a read timeout.
    fn with_read_timeout(&self, timeout: Duration) -> Self {
        let config = self.client.config().to_builder();
        let timeouts = TimeoutConfig::builder().read_timeout(timeout).build();
        let client = Client::from_conf(config.timeout_config(timeouts).build());
        Self { faults: self.faults.clone(), client, _aws: None }
    }
}

type Check = fn(&SdkError<PutItemError>) -> bool;

fn is_timeout<E>(error: &SdkError<E>) -> bool {
    matches!(error, SdkError::DispatchFailure(failure) if failure.is_timeout())
}

fn is_io<E>(error: &SdkError<E>) -> bool {
    matches!(error, SdkError::DispatchFailure(failure) if failure.is_io())
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_is_executed_late_and_not_at_all_for_a_caller_that_left() {
    let world = World::in_process().await;
    world.on_put(Fault::DelayRequest(60 * SECOND));
    let start = Instant::now();
    world.put("patient").await.unwrap();
    assert_eq!(start.elapsed(), 60 * SECOND);

    let hasty = tokio::time::timeout(10 * SECOND, world.put("hasty")).await;
    assert!(hasty.is_err());
    tokio::time::sleep(120 * SECOND).await;
    assert!(world.holds("patient").await);
    assert!(!world.holds("hasty").await);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_answer_belongs_to_a_request_that_was_executed() {
    let world = World::in_process().await;
    world.on_put(Fault::DelayAnswer(60 * SECOND));
    let start = Instant::now();
    let error = world.with_read_timeout(5 * SECOND).put("a").await.unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert!(world.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn delays_of_several_rules_add_up() {
    let world = World::in_process().await;
    world.on_put(Fault::DelayRequest(SECOND));
    world.on_put(Fault::DelayAnswer(2 * SECOND));
    world.faults.add(Rule::on_every_operation(Service::DynamoDb, Fault::DelayRequest(4 * SECOND)));
    let start = Instant::now();
    world.put("a").await.unwrap();
    assert_eq!(start.elapsed(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_not_executed() {
    let world = World::in_process().await;
    let failures: [(Seen, Check); 4] = [
        (Seen::Refused, is_io),
        (Seen::Reset, is_io),
        (Seen::TimedOut(3 * SECOND), is_timeout),
        (Seen::Error(errors::provisioned_throughput_exceeded()), |error| {
            error.as_service_error().is_some_and(PutItemError::is_provisioned_throughput_exceeded_exception)
        }),
    ];
    for (seen, is_expected) in failures {
        world.faults.clear();
        world.on_put(Fault::Fail(seen.clone()));
        let error = world.put("a").await.unwrap_err();
        assert!(is_expected(&error), "{seen:?}: {error:?}");
        assert!(!world.holds("a").await, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_by_the_callers_timeout_alone() {
    let world = World::in_process().await;
    world.on_put(Fault::Fail(Seen::Hang));
    let hour = tokio::time::timeout(3_600 * SECOND, world.put("a")).await;
    assert!(hour.is_err(), "{hour:?}");
    let error = world.with_read_timeout(7 * SECOND).put("a").await.unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_answer_belongs_to_a_request_that_was_executed() {
    let world = World::in_process().await;
    for (id, seen) in [
        ("reset", Seen::Reset),
        ("timed out", Seen::TimedOut(SECOND)),
        ("error", Seen::Error(errors::internal_server_error())),
    ] {
        world.faults.clear();
        world.on_put(Fault::DropAnswer(seen));
        world.put(id).await.unwrap_err();
        assert!(world.holds(id).await, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_lands_after_its_caller_saw_a_failure() {
    let world = World::in_process().await;
    world.on_put(Fault::LandLate { after: 30 * SECOND, seen: Seen::Reset });
    let start = Instant::now();
    assert!(is_io(&world.put("a").await.unwrap_err()));
    assert!(start.elapsed() < SECOND);
    tokio::time::sleep(29 * SECOND).await;
    assert!(!world.holds("a").await);
    world.faults.landed().await;
    assert!(world.holds("a").await);
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_executed_twice_and_the_second_answer_is_seen() {
    let world = World::in_process().await;
    world.on_put(Fault::Duplicate);
    let error = world.put("a").await.unwrap_err();
    assert!(error.as_service_error().unwrap().is_conditional_check_failed_exception());
    assert!(world.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn only_the_numbered_calls_suffer() {
    let world = World::in_process().await;
    let rule = Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Reset)).calls(2..=3);
    let rule = world.faults.add(rule);
    let mut suffered = Vec::new();
    for call in 1..=5 {
        suffered.push(world.put(&format!("id-{call}")).await.is_err());
    }
    assert_eq!(suffered, [false, true, true, false, false]);
    assert_eq!((rule.matched(), rule.hits()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn only_calls_with_the_text_in_their_body_suffer() {
    let world = World::in_process().await;
    let rule = Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Reset));
    world.faults.add(rule.when_body_contains("shardId-000000000001"));
    world.put("shardId-000000000000").await.unwrap();
    world.put("shardId-000000000001").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn only_calls_in_the_window_suffer() {
    let world = World::in_process().await;
    let now = Instant::now();
    let rule = Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Reset));
    world.faults.add(rule.during(now + SECOND..now + 2 * SECOND));
    let mut suffered = Vec::new();
    for call in 0..4 {
        suffered.push(world.put(&format!("id-{call}")).await.is_err());
        tokio::time::sleep(SECOND / 2).await;
    }
    assert_eq!(suffered, [false, false, true, true]);
    tokio::time::sleep(SECOND).await;
    world.put("after").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rule_is_switched_on_and_off() {
    let world = World::in_process().await;
    let rule = Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Reset));
    let rule = world.faults.add(rule.switched_off());
    world.put("a").await.unwrap();
    rule.switch_on();
    world.put("b").await.unwrap_err();
    rule.switch_off();
    world.put("c").await.unwrap();
    assert_eq!(rule.hits(), 1);
}

async fn pattern(seed: u64, with_another_rule: bool) -> Vec<bool> {
    let faults = Faults::seeded(seed);
    let aws = LocalAws::builder().faults(&faults).in_process().unwrap();
    let world = World::with_table(aws, faults).await;
    let half = || Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Reset)).with_probability(0.5);
    world.faults.add(half());
    if with_another_rule {
        let reads = Fault::DelayRequest(SECOND);
        world.faults.add(Rule::on(Service::DynamoDb, "GetItem", reads).with_probability(0.5));
    }
    let mut suffered = Vec::new();
    for call in 0..64 {
        suffered.push(world.put(&format!("id-{call}")).await.is_err());
        world.holds("id").await;
    }
    suffered
}

#[tokio::test(start_paused = true)]
async fn the_seed_alone_decides_who_suffers_by_chance() {
    let first = pattern(5, false).await;
    assert!(first.contains(&true) && first.contains(&false));
    assert_eq!(pattern(5, false).await, first);
    assert_eq!(pattern(5, true).await, first);
    assert_ne!(pattern(6, false).await, first);
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_decides_the_fate_and_every_rule_counts() {
    let world = World::in_process().await;
    let on_put = |seen| Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(seen));
    let first = world.faults.add(on_put(Seen::Error(errors::internal_server_error())).once());
    let second = world.faults.add(on_put(Seen::Reset).calls(1..=2));
    assert_eq!(world.put("a").await.unwrap_err().code(), Some("InternalServerError"));
    assert!(is_io(&world.put("a").await.unwrap_err()));
    world.put("a").await.unwrap();
    assert_eq!((first.hits(), second.hits()), (1, 1));
    assert_eq!((first.matched(), second.matched()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_per_attempt_and_recorded() {
    let world = World::in_process().await;
    world.faults.record_last(2);
    let throttle = Fault::Fail(Seen::Error(errors::provisioned_throughput_exceeded()));
    world.faults.add(Rule::on(Service::DynamoDb, "PutItem", throttle).calls(..=2));
    let config = world.client.config().to_builder().retry_config(RetryConfig::standard());
    let client = Client::from_conf(config.build());
    let put = client.put_item().table_name(TABLE).item("id", AttributeValue::S("marker".into()));
    put.send().await.unwrap();
    assert_eq!(world.faults.calls(Service::DynamoDb, "PutItem"), 3);
    assert_eq!(world.faults.calls(Service::DynamoDb, "CreateTable"), 1);
    assert_eq!(world.faults.calls(Service::Kinesis, "PutItem"), 0);
    assert_eq!(world.faults.all_calls().values().sum::<u64>(), 4);

    let recorded = world.faults.recorded();
    assert_eq!(recorded.iter().map(|call| call.suffered).collect::<Vec<_>>(), [true, false]);
    for call in &recorded {
        assert_eq!(call.target.operation, "PutItem");
        assert!(std::str::from_utf8(&call.body).unwrap().contains("marker"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sdk_reads_the_code_and_message_of_every_ready_made_error() {
    let world = World::in_process().await;
    let all: [ApiError; 9] = [
        errors::provisioned_throughput_exceeded(),
        errors::throttling(),
        errors::limit_exceeded(),
        errors::internal_server_error(),
        errors::service_unavailable(),
        errors::expired_iterator(),
        errors::resource_not_found(),
        errors::access_denied(),
        errors::kms_throttling(),
    ];
    for expected in all {
        world.faults.clear();
        world.on_put(Fault::Fail(Seen::Error(expected.clone())));
        let error = world.put("a").await.unwrap_err();
        assert_eq!(error.code(), Some(expected.code.as_str()));
        assert_eq!(error.message(), Some(expected.message.as_str()));
        assert_eq!(error.raw_response().unwrap().status().as_u16(), expected.status);
    }
}

#[tokio::test]
async fn faults_befall_calls_over_a_socket_too() {
    let faults = Faults::seeded(1);
    let aws = LocalAws::builder().faults(&faults).start().await.unwrap();
    let world = World::with_table(aws, faults).await;
    world.on_put(Fault::DropAnswer(Seen::Reset));
    assert!(is_io(&world.put("a").await.unwrap_err()));
    assert!(world.holds("a").await);
    world.faults.clear();
    world.on_put(Fault::LandLate { after: Duration::ZERO, seen: Seen::Reset });
    world.put("b").await.unwrap_err();
    world.faults.landed().await;
    assert!(world.holds("b").await);
}
