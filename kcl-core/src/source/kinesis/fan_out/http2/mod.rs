//! The HTTP client of subscriptions: HTTP/2 connections of their own, a few subscriptions on each.
//!
//! What arrives for a subscription and is not read yet takes credit from two windows: the stream's and the
//! connection's. Here the connection's has room for every stream's at once, so a stream that nobody reads fills its
//! own and takes nothing from the others. [`pool`] knows which connection has a place, [`connection`] is one,
//! [`tls`] what is under it for `https://`.

mod connection;
mod pool;
#[cfg(feature = "fan-out")]
mod tls;

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use self::connection::Endpoint;
use self::pool::{Place, Pool};

/// How many connections a request tries that turn out to be closed, each one new or newly found so.
const TRIES: u32 = 3;

/// An HTTP client for the SDK that opens HTTP/2 connections of its own, with at most so many requests on each.
///
/// Made for requests that are answered for minutes, each at its own pace: a body that is not read for a while takes
/// nothing from the others. `https://` endpoints are reached by TLS with the certificates of the operating system
/// (feature `fan-out`), `http://` endpoints with prior knowledge, that is without asking whether they speak HTTP/2.
/// Proxies are not supported. A connection belongs to the tokio runtime whose request opened it.
///
/// Connections are checked by pings; those that are poisoned, told to go away or unused for a minute are closed. The
/// tasks that drive them end with the last clone of the client and the last body.
#[derive(Clone, Debug)]
pub struct SubscriptionHttpClient {
    pool: Arc<Pool>,
}

impl SubscriptionHttpClient {
    /// Creates a client that puts up to `per_connection` requests on a connection; 1 to 100.
    #[must_use]
    pub fn new(per_connection: usize) -> Self {
        Self { pool: Arc::new(Pool::new(per_connection.clamp(1, 100))) }
    }

    /// How many connections there are now that take requests.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pool.connections()
    }
}

impl HttpClient for SubscriptionHttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { pool: Arc::clone(&self.pool), settings: settings.clone() })
    }
}

#[derive(Clone, Debug)]
struct Connector {
    pool: Arc<Pool>,
    settings: HttpConnectorSettings,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let limit = connector.settings.read_timeout();
            let answer = Box::pin(connector.send(request));
            match limit {
                None => answer.await,
                Some(limit) => timeout(limit, answer).await.map_err(|_| timed_out("no answer", limit))?,
            }
        })
    }
}

impl Connector {
    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let endpoint = Endpoint::of(request.uri())?;
        let capture = request.extensions().get::<CaptureSmithyConnection>().cloned();
        for _ in 0..TRIES {
            let place = self.pool.place(&endpoint);
            if let Some(capture) = &capture {
                let connection = Arc::downgrade(place.connection());
                capture.set_connection_retriever(move || {
                    let connection = Weak::clone(&connection);
                    let poison = move || {
                        if let Some(connection) = connection.upgrade() {
                            connection.retire();
                        }
                    };
                    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
                });
            }
            let mut sender = place.connection().sender(&endpoint, self.settings.connect_timeout()).await?;
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let response = response
                        .map(|incoming| SdkBody::from_body_1_x(PlacedBody { incoming, _place: place }));
                    return HttpResponse::try_from(response)
                        .map_err(|error| ConnectorError::user(error.into()));
                }
                Err(mut error) => {
                    // Closed meanwhile, or told to go away: another connection takes what was not sent.
                    place.connection().retire();
                    match error.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(ConnectorError::io(error.into_error().into())),
                    }
                }
            }
        }
        Err(ConnectorError::io("every connection was closed before it took the request".into()))
    }
}

fn timed_out(what: &str, limit: Duration) -> ConnectorError {
    ConnectorError::timeout(format!("{what} within {limit:?}").into())
}

/// The body of an answer, which keeps its place on the connection as long as it lives. Dropping it resets the
/// stream.
struct PlacedBody {
    incoming: Incoming,
    _place: Place,
}

impl Body for PlacedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
