//! An HTTP client that answers from the services in this process.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;

use crate::services::Services;
use crate::wire::{AwsBody, AwsRequest, AwsResponse};

/// Hands the SDK's requests to [`Services`] without a socket, a task or a timer.
///
/// It works under tokio's paused clock. Each call first lets other tasks run, as a call over a
/// network would, and is then answered in one step: a caller that gives up before that step has
/// not changed anything. An event stream is pulled by the SDK: what it does not read is not sent.
#[derive(Clone, Debug)]
pub struct InProcessClient {
    services: Services,
}

impl InProcessClient {
    /// Creates a client of `services`.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

impl HttpClient for InProcessClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcessClient {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let services = self.services.clone();
        HttpConnectorFuture::new(async move {
            tokio::task::yield_now().await;
            let body = request.take_body().collect().await.map_err(ConnectorError::user)?.to_bytes();
            let path = path_of(request.uri());
            let request = AwsRequest::new(path, |name| request.headers().get(name), body);
            into_sdk(services.handle(&request))
        })
    }
}

/// The path of an absolute or relative URI, without its query.
pub(crate) fn path_of(uri: &str) -> &str {
    let rest = match uri.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => uri,
    };
    rest.split_once('?').map_or(rest, |(path, _)| path)
}

pub(crate) fn into_sdk(response: AwsResponse) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(response.status).map_err(|error| ConnectorError::user(error.into()))?;
    let body = match response.body {
        AwsBody::Whole(bytes) => SdkBody::from(bytes),
        events @ AwsBody::Events(_) => SdkBody::from_body_1_x(events),
    };
    let mut answer = HttpResponse::new(status, body);
    for (name, value) in response.headers {
        answer.headers_mut().try_insert(name, value).map_err(|error| ConnectorError::user(error.into()))?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn the_path_is_cut_out_of_any_uri() {
        assert_eq!(path_of("http://127.0.0.1:4567/service/a/operation/b?c=d"), "/service/a/operation/b");
        assert_eq!(path_of("http://127.0.0.1:4567"), "/");
        assert_eq!(path_of("/a?b"), "/a");
    }
}
