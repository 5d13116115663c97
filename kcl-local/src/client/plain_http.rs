//! A plain HTTP/1.1 client with a pool, small enough not to weigh on a first build.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};

use super::{timed_out, within_read_timeout};

/// The most connections that wait for a request.
const MAX_IDLE: usize = 64;

/// The SDK's HTTP client for `http://` endpoints: local services, no TLS, no proxies.
///
/// A connection is driven by the call that uses it, so the client owns no task, and a call that is
/// dropped closes its connection. Idle connections are kept per endpoint and per tokio runtime: a
/// connection belongs to the runtime that opened it, and another one would stall or fail with it.
#[derive(Clone, Default)]
pub struct PlainHttpClient {
    idle: Pool,
}

impl PlainHttpClient {
    /// Creates a client without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for PlainHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainHttpClient").finish_non_exhaustive()
    }
}

impl HttpClient for PlainHttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { idle: self.idle.clone(), settings: settings.clone() })
    }
}

#[derive(Clone)]
struct Connector {
    idle: Pool,
    settings: HttpConnectorSettings,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let read_timeout = connector.settings.read_timeout();
            within_read_timeout(read_timeout, Box::pin(connector.send(request))).await
        })
    }
}

impl Connector {
    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let endpoint = Endpoint::of(request.uri())?;
        let host =
            HeaderValue::from_str(&endpoint.authority).map_err(|error| ConnectorError::user(error.into()))?;
        request.headers_mut().insert(HOST, host);
        // A server expects the path alone, not the whole URI.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() =
            path.parse().map_err(|error: hyper::http::uri::InvalidUri| ConnectorError::user(error.into()))?;

        // A pooled connection that the server has closed meanwhile gives the request back unsent.
        while let Some(mut link) = self.idle.take(&endpoint) {
            if !link.is_ready().await {
                continue;
            }
            match link.send(request).await {
                Ok(response) => return self.into_sdk(response, link),
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(ConnectorError::io(error.into())),
            }
        }
        let mut link = self.connect(endpoint).await?;
        match link.send(request).await {
            Ok(response) => self.into_sdk(response, link),
            Err((error, _)) => Err(ConnectorError::io(error.into())),
        }
    }

    async fn connect(&self, endpoint: Endpoint) -> Result<Link, ConnectorError> {
        let connect = TcpStream::connect(endpoint.authority.clone());
        let stream = match self.settings.connect_timeout() {
            Some(limit) => match tokio::time::timeout(limit, connect).await {
                Ok(stream) => stream,
                Err(_) => return Err(timed_out("no connection", limit)),
            },
            None => connect.await,
        };
        let stream = stream.map_err(|error| ConnectorError::io(error.into()).never_connected())?;
        stream.set_nodelay(true).map_err(|error| ConnectorError::io(error.into()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| ConnectorError::io(error.into()))?;
        Ok(Link { endpoint, sender, connection, is_closed: false })
    }

    fn into_sdk(self, response: Response<Incoming>, link: Link) -> Result<HttpResponse, ConnectorError> {
        let response = response.map(|incoming| {
            let body = AnswerBody { incoming, link: Mutex::new(Some(link)), idle: self.idle };
            SdkBody::from_body_1_x(body)
        });
        HttpResponse::try_from(response).map_err(|error| ConnectorError::user(error.into()))
    }
}

/// Where a connection leads and which runtime drives its socket.
#[derive(Clone, PartialEq, Eq)]
struct Endpoint {
    authority: String,
    runtime: Id,
}

impl Endpoint {
    fn of(uri: &Uri) -> Result<Self, ConnectorError> {
        let refuse = |why: &str| ConnectorError::user(format!("{why}: {uri}").into());
        if uri.scheme_str() != Some("http") {
            return Err(refuse("only http:// endpoints are served by the plain client"));
        }
        let host = uri.host().ok_or_else(|| refuse("no host in the endpoint"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let runtime = Handle::try_current().map_err(|error| ConnectorError::user(error.into()))?.id();
        Ok(Self { authority, runtime })
    }
}

/// One connection with the two halves that hyper makes of it.
struct Link {
    endpoint: Endpoint,
    sender: SendRequest<SdkBody>,
    connection: Connection<TokioIo<TcpStream>, SdkBody>,
    is_closed: bool,
}

impl Link {
    /// Moves bytes; to be called whenever something that waits for the connection is polled.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.is_closed && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.is_closed = true;
        }
    }

    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            if self.is_closed {
                return Poll::Ready(false);
            }
            self.sender.poll_ready(cx).map(|ready| ready.is_ok())
        })
        .await
    }

    /// Sends a request and waits for the head of the answer. An error carries the request if not a
    /// byte of it was sent.
    async fn send(
        &mut self,
        request: Request<SdkBody>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<SdkBody>>)> {
        let mut answer = Box::pin(self.sender.try_send_request(request));
        let answer = poll_fn(|cx| {
            // The connection goes first: what it reads or fails with is what the answer waits for.
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        answer.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }
}

/// The connections that wait for their next request.
#[derive(Clone, Default)]
struct Pool {
    idle: Arc<Mutex<Vec<Link>>>,
}

impl Pool {
    fn take(&self, endpoint: &Endpoint) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let position = idle.iter().rposition(|link| link.endpoint == *endpoint)?;
        Some(idle.remove(position))
    }

    fn put(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == MAX_IDLE {
            // The one unused for longest; it may belong to a runtime that is gone.
            idle.remove(0);
        }
        idle.push(link);
    }
}

/// The body of an answer; it drives its connection and gives it back to the pool at the end.
struct AnswerBody {
    incoming: Incoming,
    /// Never contended: the lock makes the body `Sync`, which the SDK asks for.
    link: Mutex<Option<Link>>,
    idle: Pool,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let link = this.link.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = link {
            link.drive(cx);
        }
        let frame = Pin::new(&mut this.incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => {
                if let Some(link) = link.take().filter(|link| !link.is_closed) {
                    this.idle.put(link);
                }
            }
            Poll::Ready(Some(Err(_))) => *link = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // Only a poll that returns nothing gives the connection back.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
