//! The calls: one method each, by ARN wherever it is known.

use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_kinesis::Client;
#[cfg(feature = "fan-out-without-tls")]
use aws_sdk_kinesis::config::SharedHttpClient;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::time::Instant;

use super::classify::{Class, Failure, Setup, classify};
use super::client::{Readiness, adopt};
use super::convert;
use crate::metrics::{FetchCall, MetricEvent, Metrics};
use crate::model::{Shard, ShardId, StreamIdentity};
use crate::source::name::StreamName;
use crate::source::{SourceError, SourceErrorKind, StartFrom};

/// The most shards of one page, the API's maximum.
const PAGE: i32 = 1_000;

/// How often a listing starts over because a paging token (they last 300 s) has expired.
const RESTARTS: u32 = 3;

/// A stream and the client that reaches it.
#[derive(Debug)]
pub(super) struct Service {
    given: Client,
    client: Client,
    readiness: Readiness,
    text: String,
    stream: Result<StreamName, String>,
    resolved: OnceLock<String>,
    metrics: OnceLock<Metrics>,
}

impl Service {
    pub(super) fn new(client: &Client, name_or_arn: String, call_timeout: Duration) -> Self {
        let readiness = Readiness::default();
        Self {
            given: client.clone(),
            client: adopt(client, call_timeout, &readiness),
            readiness,
            stream: StreamName::parse(&name_or_arn),
            text: name_or_arn,
            resolved: OnceLock::new(),
            metrics: OnceLock::new(),
        }
    }

    pub(super) fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self::new(&self.given, self.text.clone(), call_timeout)
    }

    /// The stream's name, or the text that is none.
    pub(super) fn name(&self) -> &str {
        self.stream.as_ref().map_or(&self.text, StreamName::name)
    }

    /// Reports a name that is none.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        self.target("DescribeStreamSummary").map(drop)
    }

    /// What names the stream in a request: its ARN, or its name while the ARN is not known.
    pub(super) fn target(&self, operation: &'static str) -> Result<Target, SourceError> {
        let stream = self.stream.as_ref().map_err(|problem| {
            let resource = format!("stream {:?}", self.text);
            SourceError::new(SourceErrorKind::Misconfigured, operation, resource, problem)
        })?;
        Ok(match stream.arn().or(self.resolved.get().map(String::as_str)) {
            Some(arn) => Target { arn: Some(arn.to_owned()), name: None },
            None => Target { arn: None, name: Some(stream.name().to_owned()) },
        })
    }

    pub(super) fn setup(&self) -> Setup {
        let has_region = self.client.config().region().is_some();
        Setup { has_signed: self.readiness.has_signed(), has_region }
    }

    pub(super) fn attach_metrics(&self, metrics: &Metrics) {
        self.metrics.get_or_init(|| metrics.clone());
    }

    /// To whom metrics go.
    pub(super) fn metrics(&self) -> &Metrics {
        const NONE: &Metrics = &Metrics::none();
        self.metrics.get().unwrap_or(NONE)
    }

    fn fetched(&self, shard: &ShardId, call: FetchCall, begun: Instant, ok: bool) {
        self.metrics().record(&MetricEvent::Fetched { shard, call, took: begun.elapsed(), ok });
    }

    /// What a failed call means. It is counted here.
    pub(super) fn classify<E>(
        &self,
        error: SdkError<E, HttpResponse>,
        operation: &'static str,
        resource: &str,
    ) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let failure = classify(error, operation, resource, self.setup());
        self.metrics().record(&match failure.class {
            Class::ExpiredIterator => MetricEvent::IteratorExpired,
            class => MetricEvent::CallFailed { call: operation, throttled: class == Class::Throttled },
        });
        failure
    }

    pub(super) fn resource(&self) -> String {
        format!("stream {}", self.name())
    }

    /// How errors name a shard.
    pub(super) fn shard_resource(&self, shard: &ShardId) -> String {
        format!("stream {}, shard {shard}", self.name())
    }

    /// The client that makes the calls.
    #[cfg(feature = "fan-out-without-tls")]
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// A client for subscriptions, over an HTTP client of its own. `open` is how long a call may take until it is
    /// answered; what comes through the subscription then is not limited by it.
    #[cfg(feature = "fan-out-without-tls")]
    pub(super) fn over(&self, http: SharedHttpClient, open: Duration) -> Client {
        let client = adopt(&self.given, open, &self.readiness);
        Client::from_conf(client.config().to_builder().http_client(http).build())
    }

    /// The stream's ARN, asked for if it is not known.
    #[cfg(feature = "fan-out-without-tls")]
    pub(super) async fn arn(&self) -> Result<String, SourceError> {
        match self.target("DescribeStreamSummary")?.arn {
            Some(arn) => Ok(arn),
            None => self.identity().await.map(|identity| identity.arn),
        }
    }

    /// `DescribeStreamSummary`. Requests carry the ARN from then on.
    pub(super) async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        const OPERATION: &str = "DescribeStreamSummary";
        let target = self.target(OPERATION)?;
        let call = self
            .client
            .describe_stream_summary()
            .set_stream_arn(target.arn)
            .set_stream_name(target.name)
            .send();
        let answer = Box::pin(call)
            .await
            .map_err(|error| self.classify(error, OPERATION, &self.resource()))
            // The request holds nothing but what the user gave.
            .map_err(|failure| failure.error.or_misconfigured())?;
        let invalid = |problem: &str| Failure::invalid(OPERATION, &self.resource(), problem).error;
        let summary = answer.stream_description_summary.ok_or_else(|| invalid("the answer is empty"))?;
        if summary.stream_arn.is_empty() {
            return Err(invalid("the answer names no ARN"));
        }
        let created_millis = convert::millis(&summary.stream_creation_timestamp)
            .ok_or_else(|| invalid("the answer has no usable creation time"))?;
        self.resolved.get_or_init(|| summary.stream_arn.clone());
        Ok(StreamIdentity { arn: summary.stream_arn, created_millis })
    }

    /// `ListShards`, all pages. A token that expires on the way starts the listing over.
    pub(super) async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        for _ in 0..RESTARTS {
            match self.list_pages().await {
                Err(failure) if failure.class == Class::ExpiredToken => {}
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
        self.list_pages().await.map_err(|failure| failure.error)
    }

    async fn list_pages(&self) -> Result<Vec<Shard>, Failure> {
        const OPERATION: &str = "ListShards";
        let target = self.target(OPERATION).map_err(|error| Failure { class: Class::Invalid, error })?;
        let mut call = self
            .client
            .list_shards()
            .set_stream_arn(target.arn)
            .set_stream_name(target.name)
            .max_results(PAGE);
        let mut shards = Vec::new();
        loop {
            let answer = Box::pin(call.send())
                .await
                .map_err(|error| self.classify(error, OPERATION, &self.resource()))?;
            for shard in answer.shards.unwrap_or_default() {
                let shard = convert::shard(shard);
                shards.push(shard.map_err(|problem| Failure::invalid(OPERATION, &self.resource(), problem))?);
            }
            // The token stands for the stream; the service refuses the name beside it.
            let Some(token) = answer.next_token else { return Ok(shards) };
            call = self.client.list_shards().next_token(token).max_results(PAGE);
        }
    }

    /// `GetShardIterator`.
    pub(super) async fn shard_iterator(&self, shard: &ShardId, from: StartFrom) -> Result<String, Failure> {
        const OPERATION: &str = "GetShardIterator";
        let target = self.target(OPERATION).map_err(|error| Failure { class: Class::Invalid, error })?;
        let call = self
            .client
            .get_shard_iterator()
            .set_stream_arn(target.arn)
            .set_stream_name(target.name)
            .shard_id(shard.as_str());
        let call = match from {
            StartFrom::TrimHorizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            StartFrom::Latest => call.shard_iterator_type(ShardIteratorType::Latest),
            StartFrom::AtTimestamp(time) => call
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(convert::cut_to_millis(DateTime::from(time))),
            StartFrom::AtSequence(number) => call
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(number.to_string()),
            StartFrom::AfterSequence(number) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number.to_string()),
        };
        let begun = Instant::now();
        let answer = Box::pin(call.send()).await;
        self.fetched(shard, FetchCall::GetShardIterator, begun, answer.is_ok());
        let answer = answer.map_err(|error| self.classify(error, OPERATION, &self.shard_resource(shard)))?;
        answer.shard_iterator.ok_or_else(|| {
            Failure::invalid(OPERATION, &self.shard_resource(shard), "the answer has no iterator")
        })
    }

    /// `GetRecords`.
    pub(super) async fn records(
        &self,
        shard: &ShardId,
        iterator: &str,
        limit: i32,
    ) -> Result<GetRecordsOutput, Failure> {
        const OPERATION: &str = "GetRecords";
        let target = self.target(OPERATION).map_err(|error| Failure { class: Class::Invalid, error })?;
        // The API has no place for the name here; the iterator stands for the stream.
        let call =
            self.client.get_records().set_stream_arn(target.arn).shard_iterator(iterator).limit(limit).send();
        let begun = Instant::now();
        let answer = Box::pin(call).await;
        self.fetched(shard, FetchCall::GetRecords, begun, answer.is_ok());
        answer.map_err(|error| self.classify(error, OPERATION, &self.shard_resource(shard)))
    }
}

/// What names the stream in a request: one of the two.
pub(super) struct Target {
    pub(super) arn: Option<String>,
    pub(super) name: Option<String>,
}
