use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{BoxError, Chain, Error, ErrorKind};

/// The longest answer that is read. What is asked for takes a hundred bytes.
const MAX_ANSWER: usize = 64 << 10;

/// A request to the instance metadata service. None has a body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataRequest {
    /// `GET` or `PUT`.
    pub method: &'static str,
    /// The path, from the root.
    pub path: String,
    /// The one header that matters, by name and value.
    pub header: (&'static str, String),
}

/// An answer of the instance metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataAnswer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// There is nobody to ask.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The connection broke before the answer was there.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Carries requests to the instance metadata service. The default is HTTP/1.1 without a proxy; a test brings its own.
///
/// # Contract
/// The caller gives up by dropping the future, which must end the request.
#[async_trait]
pub trait MetadataTransport: Debug + Send + Sync + 'static {
    /// Makes one request.
    async fn call(&self, request: MetadataRequest) -> Result<MetadataAnswer, TransportError>;
}

/// HTTP/1.1, one connection for each request: there are a few of them a minute, to a service on the same machine.
#[derive(Clone, Debug)]
pub(super) struct Http {
    authority: String,
    connect_timeout: Duration,
}

impl Http {
    pub(super) fn new(endpoint: &str, connect_timeout: Duration) -> Result<Self, Error> {
        let refuse = |why: &str| {
            let expected = "http://HOST or http://HOST:PORT is expected, for example http://169.254.169.254";
            Error::new(ErrorKind::Config, format!("the metadata endpoint {endpoint:?} {why}; {expected}"))
        };
        let uri: Uri = endpoint.parse().map_err(|_| refuse("is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refuse("does not begin with http://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("has a path"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("names no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{host}:{port}"), connect_timeout })
    }

    async fn exchange(&self, request: MetadataRequest) -> Result<MetadataAnswer, BoxError> {
        let connecting = timeout(self.connect_timeout, TcpStream::connect(&self.authority)).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(TransportError::NoConnection(error.to_string()).into()),
            Err(_) => {
                let problem = format!("none within {:?}", self.connect_timeout);
                return Err(TransportError::NoConnection(problem).into());
            }
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let (name, value) = request.header;
        let request = Request::builder()
            .method(request.method)
            .uri(request.path)
            .header(header::HOST, &self.authority)
            .header(header::CONNECTION, "close")
            .header(name, value)
            .body(Empty::<Bytes>::new())?;
        let mut exchange = pin!(async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, BoxError>(MetadataAnswer { status, body })
        });
        let mut connection = pin!(connection);
        let mut is_open = true;
        loop {
            tokio::select! {
                // The answer goes first: nothing else is waited for.
                biased;
                answer = &mut exchange => return answer,
                // How it ended is learned from the exchange.
                _ = &mut connection, if is_open => is_open = false,
            }
        }
    }
}

#[async_trait]
impl MetadataTransport for Http {
    async fn call(&self, request: MetadataRequest) -> Result<MetadataAnswer, TransportError> {
        self.exchange(request).await.map_err(|error| match error.downcast::<TransportError>() {
            Ok(error) => *error,
            Err(error) => TransportError::Broken(Chain(&*error).to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_none_is_refused_with_what_is_expected() {
        for good in ["http://169.254.169.254", "http://[fd00:ec2::254]/", "http://127.0.0.1:1338"] {
            assert!(Http::new(good, Duration::ZERO).is_ok(), "{good}");
        }
        for bad in
            ["", "169.254.169.254", "https://169.254.169.254", "http://", "http://host/latest", "nonsense"]
        {
            let error = Http::new(bad, Duration::ZERO).unwrap_err();
            assert!(error.to_string().contains("http://HOST"), "{error}");
        }
    }
}
