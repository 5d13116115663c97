//! What the Kinesis source makes of clients that lack something, or whose connections die.

#![cfg(feature = "kinesis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Builder, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::{Client, Config};
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use kcl_core::source::kinesis::{KinesisStream, PollingConfig};
use kcl_core::source::{SourceError, SourceErrorKind, StreamSource};
use kcl_local::clock::TokioClock;
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::kinesis::Kinesis;
use kcl_local::services::Services;
use kcl_local::wire::Service;
use tokio::time::Instant;

/// A client's configuration without region and credentials, against a service that has the stream.
fn bare(faults: &Faults) -> Builder {
    let kinesis =
        Kinesis::new(Arc::new(TokioClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30))));
    kinesis.create_stream("orders", 1).unwrap();
    let local = SharedHttpClient::new(kcl_local::client::InProcessClient::new(Services::new(kinesis)));
    Config::builder().behavior_version(BehaviorVersion::latest()).http_client(faults.wrap(local))
}

fn region() -> Region {
    Region::from_static("us-east-1")
}

fn credentials() -> Credentials {
    Credentials::new("local", "local", None, None, "test")
}

async fn failure(config: Builder) -> SourceError {
    KinesisStream::new(Client::from_conf(config.build()), "orders").identity().await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_client_without_region_is_told_to_set_one() {
    let faults = Faults::seeded(0);
    let complete = || bare(&faults).credentials_provider(credentials());
    for config in [complete(), complete().endpoint_url("http://in-process.invalid"), bare(&faults)] {
        let error = failure(config).await;
        assert_eq!(error.kind(), SourceErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("no region: set AWS_REGION"), "{error}");
    }
    assert!(faults.all_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_without_credentials_is_told_to_get_some() {
    let faults = Faults::seeded(0);
    let error = failure(bare(&faults).region(region())).await;
    assert_eq!(error.kind(), SourceErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("credentials"), "{error}");
    assert!(faults.all_calls().is_empty());
}

/// A provider that fails as it is told.
#[derive(Debug)]
struct Failing(fn() -> CredentialsError);

impl ProvideCredentials for Failing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let result: provider::Result = Err((self.0)());
        future::ProvideCredentials::ready(result)
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_do_not_exist_are_told_from_those_that_cannot_be_fetched_now() {
    let faults = Faults::seeded(0);
    let missing = || CredentialsError::not_loaded("nothing in the environment");
    let unreachable = || CredentialsError::provider_error("the credentials service is down");
    for (fails, kind) in [
        (missing as fn() -> CredentialsError, SourceErrorKind::Denied),
        (unreachable as fn() -> CredentialsError, SourceErrorKind::Unavailable),
    ] {
        let error = failure(bare(&faults).region(region()).credentials_provider(Failing(fails))).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("credentials"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_own_retries_and_time_outs_are_replaced() {
    let faults = Faults::seeded(0);
    let patient = TimeoutConfig::builder().operation_timeout(Duration::from_secs(3_600));
    let config = bare(&faults)
        .region(region())
        .credentials_provider(credentials())
        .endpoint_url("http://in-process.invalid")
        .retry_config(RetryConfig::standard().with_max_attempts(10))
        .timeout_config(patient.operation_attempt_timeout(Duration::from_secs(600)).build());
    let client = Client::from_conf(config.build());
    let source = KinesisStream::new(client.clone(), "orders");

    let throttle = Fault::Fail(Seen::Error(errors::throttling()));
    let rule = faults.add(Rule::on(Service::Kinesis, "ListShards", throttle));
    assert_eq!(source.list_shards().await.unwrap_err().kind(), SourceErrorKind::Throttled);
    assert_eq!(rule.hits(), 1);

    let hang = Fault::Fail(Seen::Hang);
    faults.add(Rule::on(Service::Kinesis, "DescribeStreamSummary", hang));
    let start = Instant::now();
    assert_eq!(source.identity().await.unwrap_err().kind(), SourceErrorKind::Unavailable);
    assert_eq!(start.elapsed().as_secs(), 15);
    let mut polling = PollingConfig::default();
    polling.call_timeout = Duration::from_secs(4);
    let start = Instant::now();
    KinesisStream::new(client, "orders").with_polling(polling).identity().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 4);
}

/// A client whose connections never answer, and that counts how many it was told not to use again.
#[derive(Clone, Debug, Default)]
struct DeadConnections {
    poisoned: Arc<AtomicU32>,
}

impl HttpClient for DeadConnections {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for DeadConnections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let poisoned = Arc::clone(&self.poisoned);
        let request = request.try_into_http1x().unwrap();
        request.extensions().get::<CaptureSmithyConnection>().unwrap().set_connection_retriever(move || {
            let poisoned = Arc::clone(&poisoned);
            let poison = move || {
                poisoned.fetch_add(1, Ordering::Relaxed);
            };
            Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
        });
        HttpConnectorFuture::new(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_call_times_out_is_not_used_again() {
    let dead = DeadConnections::default();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region())
        .credentials_provider(credentials())
        .endpoint_url("http://in-process.invalid")
        .http_client(dead.clone());
    let source = KinesisStream::new(Client::from_conf(config.build()), "orders");
    for calls in 1..=2 {
        assert_eq!(source.identity().await.unwrap_err().kind(), SourceErrorKind::Unavailable);
        assert_eq!(dead.poisoned.load(Ordering::Relaxed), calls);
    }
}
