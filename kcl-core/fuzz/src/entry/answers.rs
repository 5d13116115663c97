use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::{Client, Config};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use kcl_core::Entropy;
use kcl_core::model::SequenceNumber;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::source::{SourceError, StartFrom, StreamSource};
use tokio::time::timeout;

/// The most calls of one script.
const CALLS: usize = 12;

/// Takes the lines for what the service answers, one call after the other: the status and, behind a blank, the body.
pub fn answers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("no thread or file is needed").block_on(async {
        // Virtual time: whatever is retried or waited for has an end.
        timeout(Duration::from_secs(3600), read(&text)).await.expect("every call returns");
    });
}

async fn read(text: &str) {
    let script = Script::new(text);
    let stream = KinesisStream::new(client(&script), "orders").with_entropy(Entropy::seeded(1));
    if let Some(identity) = presentable(stream.identity().await) {
        assert!(!identity.arn.is_empty());
    }
    let seen = |number: SequenceNumber| {
        // Numbers are not made up: what was read stands in an answer as it is printed.
        assert!(text.contains('\\') || text.contains(&format!("\"{number}\"")), "{number}");
    };
    for shard in presentable(stream.list_shards().await).into_iter().flatten() {
        seen(shard.starting_sequence_number);
        shard.ending_sequence_number.into_iter().for_each(seen);
    }
    let opened = stream.open(&"shardId-000000000000".into(), StartFrom::TrimHorizon).await;
    let mut reader = opened.expect("the name is one");
    while !script.is_over() {
        let Some(batch) = presentable(reader.next().await) else { continue };
        for record in &batch.records {
            seen(record.sequence_number);
            assert!(record.partition_key.as_ref().is_none_or(|key| !key.is_empty()));
        }
        if batch.end.is_some() {
            let after = reader.next().await.expect("the end is no failure");
            assert_eq!((after.records.len(), after.end), (0, batch.end), "nothing follows the end");
            break;
        }
    }
}

/// What was understood. What was not is an error that can be logged.
fn presentable<T: Debug>(outcome: Result<T, SourceError>) -> Option<T> {
    outcome.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn client(script: &Script) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "fuzz"))
        .endpoint_url("http://answers.invalid")
        .http_client(script.clone());
    Client::from_conf(config.build())
}

/// An HTTP client that answers what stands in the script, and then that the service is out of order.
#[derive(Clone, Debug)]
struct Script(Arc<Mutex<VecDeque<(u16, String)>>>);

impl Script {
    fn new(text: &str) -> Self {
        let answers = text.lines().take(CALLS).map(|line| {
            let (status, body) = line.split_once(' ').unwrap_or((line, ""));
            let status = status.parse().ok().filter(|status| (200..600).contains(status));
            (status.unwrap_or(200), body.to_owned())
        });
        Self(Arc::new(Mutex::new(answers.collect())))
    }

    fn next(&self) -> Option<(u16, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl HttpClient for Script {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Script {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.next().unwrap_or((500, String::new()));
        let status = StatusCode::try_from(status).expect("statuses are checked");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}
