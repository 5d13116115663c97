//! An HTTP client that begins with HTTP/2, as the service is spoken to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Keeps one connection, and makes another once that takes no more requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http2Client {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connected: AtomicUsize,
    sender: Mutex<Option<SendRequest<SdkBody>>>,
    connections: Mutex<JoinSet<()>>,
}

impl Http2Client {
    /// How many connections were made.
    pub(crate) fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    async fn sender(&self, authority: &str) -> SendRequest<SdkBody> {
        let known = self.shared.sender.lock().unwrap().clone();
        if let Some(mut sender) = known
            && sender.ready().await.is_ok()
        {
            return sender;
        }
        let stream = TcpStream::connect(authority).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        self.shared.connections.lock().unwrap().spawn(async move {
            let _ = connection.await;
        });
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        *self.shared.sender.lock().unwrap() = Some(sender.clone());
        sender
    }
}

impl HttpClient for Http2Client {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http2Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().unwrap();
            let authority = request.uri().authority().unwrap().to_string();
            let mut sender = client.sender(&authority).await;
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            Ok(HttpResponse::try_from(answer.map(SdkBody::from_body_1_x)).unwrap())
        })
    }
}
