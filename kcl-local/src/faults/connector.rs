//! The HTTP client that carries the faults out.

use std::future::pending;
use std::io;
use std::mem;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body_util::BodyExt;

use super::rule::{Fate, Verdict};
use super::stream::FaultyBody;
use super::{Faults, Seen, StreamFault, When};
use crate::client::{into_sdk, path_of, timed_out, within_read_timeout};
use crate::wire::{AwsResponse, EVENT_STREAM, Service, Target};

#[derive(Debug)]
pub(super) struct FaultyClient {
    inner: SharedHttpClient,
    faults: Faults,
}

impl FaultyClient {
    pub(super) fn new(inner: SharedHttpClient, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl HttpClient for FaultyClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(FaultyConnector {
            inner: self.inner.http_connector(settings, components),
            faults: self.faults.clone(),
            settings: settings.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_base_client_config(&self.inner, components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_final_config(&self.inner, components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

#[derive(Clone, Debug)]
struct FaultyConnector {
    inner: SharedHttpConnector,
    faults: Faults,
    settings: HttpConnectorSettings,
}

impl HttpConnector for FaultyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Some(target) = Target::parse(request.headers().get("x-amz-target"), path_of(request.uri()))
        else {
            return self.inner.call(request);
        };
        let mut verdict = self.faults.judge(&target, request.body().bytes().unwrap_or_default());
        let stream = mem::take(&mut verdict.stream);
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let faults = this.faults.clone();
            let answer = if verdict.changes_the_call() {
                let read_timeout = this.settings.read_timeout();
                within_read_timeout(read_timeout, Box::pin(this.suffer(target.service, request, verdict)))
                    .await
            } else {
                this.inner.call(request).await
            };
            answer.map(|answer| watch(answer, &faults, target, stream))
        })
    }
}

/// Puts the body of an event stream behind the faults that befall it, and counts it. Other answers stay as they are.
fn watch(
    mut answer: HttpResponse,
    faults: &Faults,
    target: Target,
    stream: Vec<(When, StreamFault)>,
) -> HttpResponse {
    if answer.headers().get("content-type").is_some_and(|kind| kind.starts_with(EVENT_STREAM)) {
        let open = faults.stream_opened(target);
        let body = mem::replace(answer.body_mut(), SdkBody::taken());
        *answer.body_mut() = SdkBody::from_body_1_x(FaultyBody::new(body, stream, open));
    }
    answer
}

impl FaultyConnector {
    async fn suffer(
        self,
        service: Service,
        mut request: HttpRequest,
        verdict: Verdict,
    ) -> Result<HttpResponse, ConnectorError> {
        // A network takes the request before it loses or delays it; a body that nobody reads would
        // trip the SDK's check for stalled uploads.
        let body = request.take_body().collect().await.map_err(ConnectorError::user)?.to_bytes();
        *request.body_mut() = SdkBody::from(body);
        if !verdict.delay_request.is_zero() {
            tokio::time::sleep(verdict.delay_request).await;
        }
        let answer = match verdict.fate {
            None => self.inner.call(request).await,
            Some(Fate::Fail(seen)) => show(seen, service).await,
            Some(Fate::DropAnswer(seen)) => {
                // Whatever the service said, the caller is not to know.
                let _ = self.inner.call(request).await;
                show(seen, service).await
            }
            Some(Fate::LandLate { after, seen }) => {
                let inner = self.inner.clone();
                self.faults.land_late(async move {
                    tokio::time::sleep(after).await;
                    let _ = inner.call(request).await;
                });
                show(seen, service).await
            }
            Some(Fate::Duplicate) => {
                let copy = request.try_clone().ok_or_else(|| {
                    ConnectorError::user("a request with a streaming body cannot be duplicated".into())
                })?;
                let _ = self.inner.call(copy).await;
                self.inner.call(request).await
            }
        };
        if !verdict.delay_answer.is_zero() {
            tokio::time::sleep(verdict.delay_answer).await;
        }
        answer
    }
}

/// The request id of the errors of this layer; those of the services begin with zeros.
const REFUSED: &str = "ffffffff-0000-4000-8000-000000000000";

async fn show(seen: Seen, service: Service) -> Result<HttpResponse, ConnectorError> {
    let broken = |kind: io::ErrorKind| ConnectorError::io(io::Error::from(kind).into());
    match seen {
        Seen::Refused => Err(broken(io::ErrorKind::ConnectionRefused).never_connected()),
        Seen::Reset => Err(broken(io::ErrorKind::ConnectionReset)),
        Seen::TimedOut(after) => {
            tokio::time::sleep(after).await;
            Err(timed_out("no answer", after))
        }
        Seen::Hang => pending().await,
        Seen::Error(error) => {
            let mut response = match service {
                Service::CloudWatch => AwsResponse::cbor_error(&error),
                Service::Kinesis | Service::DynamoDb => AwsResponse::error(&error),
            };
            response.headers.push(("x-amzn-requestid", REFUSED.to_owned()));
            into_sdk(response)
        }
    }
}
