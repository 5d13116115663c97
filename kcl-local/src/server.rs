//! The services on a loopback socket.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::error::ApiError;
use crate::services::Services;
use crate::wire::{AwsBody, AwsRequest, AwsResponse};

/// The longest request body that is read; PutRecords may carry 10 MiB of data, in base64.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// How long a stop waits for answers that are being written.
const DRAIN: Duration = Duration::from_millis(200);

/// How long the listener rests after a failed accept, which means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Settings of a [`Server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The port of 127.0.0.1; 0, the default, takes a free one.
    pub port: u16,
    /// The most requests, event streams included, that an HTTP/2 connection carries at a time. Default 200.
    pub max_concurrent_streams: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { port: 0, max_concurrent_streams: 200 }
    }
}

/// Serves [`Services`] on 127.0.0.1, on a thread and a runtime of its own: over HTTP/1.1, and on the same port over
/// HTTP/2 for clients that begin with it (prior knowledge), since there is no TLS to negotiate it.
///
/// The services run on that thread too, so that SQLite under a lock never blocks the caller's
/// runtime, and requests are answered one after another. An event stream is sent as its reader takes it: unread events
/// stay in the stream of records. Dropping the server closes the listener at once, gives answers under way 200 ms to be
/// written, event streams among them, and joins the thread; it blocks the dropping thread for that long at most.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    away: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken, or there are no threads or files left.
    pub async fn start(services: Services, port: u16) -> io::Result<Self> {
        Self::start_with(services, ServerOptions { port, ..ServerOptions::default() }).await
    }

    /// Listens with these settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(services: Services, options: ServerOptions) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let (away, sent_away) = watch::channel(());
        let (started, start) = oneshot::channel();
        #[allow(clippy::disallowed_methods, reason = "the server has its own thread, which its drop ends")]
        let thread = std::thread::Builder::new().name("kcl-local".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await {
                    Ok(listener) => {
                        let _ = started.send(listener.local_addr());
                        let host = Host { services, options, stopped, sent_away };
                        host.serve(listener).await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        })?;
        let address = start.await.map_err(|_| io::Error::other("the server thread ended"))??;
        Ok(Self { address, stop, away, thread: Some(thread) })
    }

    /// Asks the clients of all connections that are open now to go: HTTP/2 connections get a `GOAWAY` and end with the
    /// last of their requests, HTTP/1.1 connections end after the answer under way. New connections are taken as before.
    pub fn send_away(&self) {
        self.away.send_replace(());
    }

    /// The address that is listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(thread) = self.thread.take() {
            // A panic on the thread has been printed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// What every connection gets of the server.
#[derive(Clone)]
struct Host {
    services: Services,
    options: ServerOptions,
    stopped: watch::Receiver<()>,
    sent_away: watch::Receiver<()>,
}

impl Host {
    async fn serve(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // The stop goes first, or a busy listener would outlive it.
                biased;
                _ = self.stopped.changed() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().converse(stream));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }

    /// Answers the requests of one connection until either side closes it or the server stops.
    async fn converse(mut self, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // Only those are sent away who were there.
        self.sent_away.mark_unchanged();
        let services = self.services.clone();
        let answer = service_fn(move |request| {
            let services = services.clone();
            async move { Ok::<_, Infallible>(answer(&services, request).await) }
        });
        let mut builder = auto::Builder::new(Streams::default());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(self.options.max_concurrent_streams);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
        let mut is_leaving = false;
        loop {
            tokio::select! {
                // The end is final; the stop goes before it so that it is not put off.
                biased;
                _ = self.stopped.changed() => break,
                Ok(()) = self.sent_away.changed(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                // An error here is the client's hang-up.
                _ = connection.as_mut() => return,
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Runs the requests of one HTTP/2 connection; they end with it.
#[derive(Clone, Default)]
struct Streams {
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            stream.await;
        });
    }
}

async fn answer(services: &Services, request: Request<Incoming>) -> Response<AwsBody> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let error = ApiError {
                status: 413,
                code: "RequestEntityTooLarge".into(),
                message: format!("cannot read the request of up to {MAX_REQUEST} bytes: {error}"),
            };
            return render(AwsResponse::error(&error));
        }
    };
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    render(services.handle(&AwsRequest::new(head.uri.path(), header, body)))
}

fn render(response: AwsResponse) -> Response<AwsBody> {
    let mut builder = Response::builder().status(response.status);
    for (name, value) in &response.headers {
        builder = builder.header(*name, value);
    }
    builder.body(response.body).unwrap_or_else(|_| {
        let mut bare = Response::new(AwsBody::Whole(Bytes::new()));
        *bare.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        bare
    })
}
