//! What a failed call says: the kind, whether it may have applied, and what to do.

use std::time::Duration;

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Region};
use kcl_core::lease::{
    Consistency, Expectation, Lease, LeaseStore, Patch, StoreError, StoreErrorKind, Write,
};
use kcl_core::model::{Checkpoint, ShardId};
use kcl_lease_dynamo::{DynamoLeaseStore, TableMode};
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;
use tokio::time::Instant;

use crate::support::{Local, TABLE};

use StoreErrorKind::{Denied, Invalid, TableMissing, Throttled, Unavailable};

fn lease() -> Lease {
    Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon)
}

fn increment() -> Patch {
    Patch { counter: Some(1), ..Patch::default() }
}

fn counter_is_0() -> Expectation {
    Expectation { counter: Some(0), ..Expectation::default() }
}

async fn update(store: &DynamoLeaseStore) -> Result<Write, StoreError> {
    store.update(&lease().shard, &counter_is_0(), &increment()).await
}

/// A table with one lease, and a store over it.
async fn prepared() -> (Local, DynamoLeaseStore) {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let _ = store.create(&lease()).await.unwrap();
    (local, store)
}

async fn counter(local: &Local) -> u64 {
    let item = local.item(TABLE, lease().shard.as_str()).await.unwrap();
    item["leaseCounter"].as_n().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn error_answers_are_told_apart_by_their_code() {
    let (local, store) = prepared().await;
    let client = |code: &str| ApiError::client(code, "said the service");
    let with_status = |status, code: &str| {
        let mut error = client(code);
        error.status = status;
        error
    };
    for (answer, kind, may_have_applied) in [
        (errors::provisioned_throughput_exceeded(), Throttled, false),
        (errors::throttling(), Throttled, false),
        (client("RequestLimitExceeded"), Throttled, false),
        (client("TransactionConflictException"), Throttled, false),
        (client("ReplicatedWriteConflictException"), Throttled, false),
        (with_status(429, "SomethingNew"), Throttled, false),
        (errors::internal_server_error(), Unavailable, true),
        (errors::service_unavailable(), Unavailable, true),
        (with_status(502, "BadGateway"), Unavailable, true),
        (errors::resource_not_found(), TableMissing, false),
        (errors::access_denied(), Denied, false),
        (client("UnrecognizedClientException"), Denied, false),
        (client("InvalidSignatureException"), Denied, false),
        (client("ExpiredTokenException"), Denied, false),
        (with_status(403, "SomethingNew"), Denied, false),
        (client("ValidationException"), Invalid, false),
    ] {
        let code = answer.code.clone();
        let fault = Fault::Fail(Seen::Error(answer));
        local.faults.add(Rule::on_every_operation(Service::DynamoDb, fault));
        let (shard, any) = (ShardId::from("shardId-000000000001"), Expectation::default());
        for error in [
            update(&store).await.unwrap_err(),
            store.create(&lease()).await.unwrap_err(),
            store.delete(&shard, &any).await.unwrap_err(),
            store.get(&shard, Consistency::Strong).await.unwrap_err(),
            store.list(None, Consistency::Eventual).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.may_have_applied()), (kind, may_have_applied), "{code}: {error}");
            let message = error.to_string();
            for part in [error.operation(), TABLE, code.as_str()] {
                assert!(message.contains(part), "{part} in {message}");
            }
            assert!(std::error::Error::source(&error).is_some());
        }
        local.faults.clear();
    }
    assert_eq!(counter(&local).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_denied_write_names_the_right_that_is_missing() {
    let (local, store) = prepared().await;
    let denied = Fault::Fail(Seen::Error(errors::access_denied()));
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", denied));
    let message = update(&store).await.unwrap_err().to_string();
    assert!(message.contains("allow dynamodb:UpdateItem"), "{message}");
    assert!(message.contains(TABLE), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_leaves_open_what_happened() {
    let (local, store) = prepared().await;
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", Fault::DropAnswer(Seen::Reset)).once());
    let error = update(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (Unavailable, true));
    assert_eq!(counter(&local).await, 1);

    // The repeated write meets its own result.
    let Write::Conflict(Some(row)) = update(&store).await.unwrap() else { panic!("not applied before") };
    assert_eq!(row.counter, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_refused_applied_nothing() {
    let (local, store) = prepared().await;
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", Fault::Fail(Seen::Refused)));
    let error = update(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (Unavailable, false), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_ends_with_the_time_out_and_is_not_repeated() {
    let (local, store) = prepared().await;
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", Fault::Fail(Seen::Hang)));
    for (store, time_out) in [
        (store.clone(), Duration::from_secs(2)),
        (store.with_request_timeout(Duration::from_millis(500)), Duration::from_millis(500)),
    ] {
        let calls = local.faults.calls(Service::DynamoDb, "UpdateItem");
        let begin = Instant::now();
        let error = update(&store).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (Unavailable, true));
        let took = begin.elapsed();
        assert!(took >= time_out && took < time_out + Duration::from_millis(5), "{took:?}");
        assert_eq!(local.faults.calls(Service::DynamoDb, "UpdateItem"), calls + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_is_passed_on_at_once() {
    let (local, store) = prepared().await;
    let fault = Fault::Fail(Seen::Error(errors::provisioned_throughput_exceeded()));
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", fault));
    let begin = Instant::now();
    let error = update(&store).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!((begin.elapsed(), local.faults.calls(Service::DynamoDb, "UpdateItem")), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_without_the_row_is_looked_up() {
    let (local, store) = prepared().await;
    // Some stand-ins for DynamoDB do not return the row with the error.
    let bare = ApiError::client("ConditionalCheckFailedException", "The conditional request failed");
    let fault = Fault::Fail(Seen::Error(bare));
    for operation in ["PutItem", "UpdateItem", "DeleteItem"] {
        local.faults.add(Rule::on(Service::DynamoDb, operation, fault.clone()));
    }
    let row = Some(lease());
    let shard = lease().shard;
    assert_eq!(update(&store).await.unwrap(), Write::Conflict(row.clone()));
    assert_eq!(store.create(&lease()).await.unwrap(), Write::Conflict(row.clone()));
    assert_eq!(store.delete(&shard, &counter_is_0()).await.unwrap(), Write::Conflict(row));
    let looked_up = local.bodies("GetItem").into_iter().filter(|body| body["ConsistentRead"] == true);
    assert!(looked_up.count() >= 3);

    local.faults.add(Rule::on(Service::DynamoDb, "GetItem", Fault::Fail(Seen::Reset)));
    let error = update(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (Unavailable, false));
}

fn without_region_or_credentials() -> aws_sdk_dynamodb::config::Builder {
    Config::builder().behavior_version(BehaviorVersion::latest())
}

#[tokio::test(start_paused = true)]
async fn a_client_without_region_or_credentials_says_so() {
    let local = Local::start();
    let with_http =
        |builder: aws_sdk_dynamodb::config::Builder| builder.http_client(local.aws.http_client()).build();
    let bare = with_http(without_region_or_credentials());
    let region = with_http(without_region_or_credentials().region(Region::new("eu-central-1")));
    for (config, part) in [(bare, "no region"), (region, "credentials")] {
        for mode in [TableMode::default(), TableMode::MustExist] {
            let client = Client::from_conf(config.clone());
            let store = DynamoLeaseStore::new(client, TABLE).with_table_mode(mode);
            let error = store.prepare().await.unwrap_err();
            assert_eq!((error.kind(), error.may_have_applied()), (Denied, false), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert!(local.faults.all_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_had_are_denied_unless_their_source_is_down() {
    let local = Local::start();
    let not_loaded = || CredentialsError::not_loaded("nothing configured");
    let source_is_down = || CredentialsError::provider_error("the metadata service is down");
    for (error, kind) in [
        (not_loaded as fn() -> CredentialsError, Denied),
        (source_is_down as fn() -> CredentialsError, Unavailable),
    ] {
        let config = without_region_or_credentials()
            .region(Region::new("eu-central-1"))
            .http_client(local.aws.http_client())
            .credentials_provider(provide_credentials_fn(move || async move { Err(error()) }))
            .build();
        let store = DynamoLeaseStore::new(Client::from_conf(config), TABLE);
        let failed = update(&store).await.unwrap_err();
        assert_eq!((failed.kind(), failed.may_have_applied()), (kind, false), "{failed}");
        assert!(failed.to_string().contains("credentials"), "{failed}");
    }
    assert!(local.faults.all_calls().is_empty());
}
