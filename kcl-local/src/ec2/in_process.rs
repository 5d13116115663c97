use std::future::pending;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;

use super::{Message, Service};
use crate::client::path_of;

/// Hands the SDK's requests to a model without a socket. It works under tokio's paused clock.
#[derive(Clone, Debug)]
pub struct InProcess<S>(S);

impl<S: Service> InProcess<S> {
    /// Creates a client of `service`.
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: Service> HttpClient for InProcess<S> {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl<S: Service> HttpConnector for InProcess<S> {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let service = self.0.clone();
        HttpConnectorFuture::new(async move {
            tokio::task::yield_now().await;
            let body = request.take_body().collect().await.map_err(ConnectorError::user)?.to_bytes();
            let headers = request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let message = Message {
                method: request.method().to_owned(),
                path: path_of(request.uri()).to_owned(),
                headers: headers.collect(),
                body,
            };
            // Who never gets an answer gives up by a time-out of its own.
            let Some(answer) = service.answer(&message) else { return pending().await };
            let status =
                StatusCode::try_from(answer.status).map_err(|error| ConnectorError::user(error.into()))?;
            let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
            for (name, value) in answer.headers {
                let headers = response.headers_mut();
                headers.try_insert(name, value).map_err(|error| ConnectorError::user(error.into()))?;
            }
            Ok(response)
        })
    }
}
