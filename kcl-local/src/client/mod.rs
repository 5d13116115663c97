//! HTTP clients for the AWS SDK.

mod in_process;
mod plain_http;

pub use in_process::InProcessClient;
pub(crate) use in_process::{into_sdk, path_of};
pub use plain_http::PlainHttpClient;

use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;

/// Gives up on an answer after the SDK's read timeout, as every HTTP client must.
pub(crate) async fn within_read_timeout(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<HttpResponse, ConnectorError>>,
) -> Result<HttpResponse, ConnectorError> {
    let Some(limit) = limit else { return answer.await };
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out("no answer", limit)),
    }
}

pub(crate) fn timed_out(what: &str, limit: Duration) -> ConnectorError {
    ConnectorError::timeout(format!("{what} within {limit:?}").into())
}
