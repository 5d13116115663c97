//! Listens, and answers connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use super::Endpoint;
use super::answer::{Look, Question, answer};
use crate::entropy::Entropy;
use crate::event::{Event, EventSender};
use crate::retry::Backoff;
use crate::scheduler::{EndpointSnapshot, SchedulerHandle, SchedulerView};

/// How many connections are answered at a time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all. Each carries one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request head.
const HEAD_BYTES: usize = 16 << 10;
/// The delays between attempts to listen.
const BIND_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the listener rests after a failed accept, which means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers under way may take when the scheduler has ended.
const CLOSE: Duration = Duration::from_millis(500);

/// What the endpoint of a scheduler knows of it.
pub(crate) struct Site {
    pub(crate) endpoint: Endpoint,
    pub(crate) application: String,
    pub(crate) stream: String,
    pub(crate) handle: SchedulerHandle,
    pub(crate) view: watch::Sender<SchedulerView>,
    pub(crate) events: EventSender,
    pub(crate) entropy: Entropy,
}

/// An endpoint that listens, or tries to. Ends by being dropped.
pub(crate) struct Open {
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Open {
    pub(crate) fn new(site: Site) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let address = site.endpoint.address;
        let shown = EndpointSnapshot { address, bound: None, error: None };
        site.view.send_modify(|view| view.endpoint = Some(shown));
        let span = tracing::info_span!("endpoint", %address);
        task.spawn(Arc::new(site).run(stop.clone()).instrument(span));
        Self { task, stop }
    }

    /// Stops listening, and lets answers under way be written for a moment.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        // What is not written by then is cut off.
        let _ = timeout(CLOSE, self.task.join_next()).await;
    }
}

impl Site {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let listener = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            listener = self.bind() => listener,
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // The stop goes first, or a busy listener would outlive it.
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        self.listens(&listener);
                        connections.spawn(Arc::clone(&self).converse(stream, stop.clone()));
                    }
                    Err(error) => {
                        self.fails(&error);
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Tries until it listens.
    async fn bind(&self) -> TcpListener {
        let (first, most) = BIND_DELAYS;
        let mut backoff = Backoff::new(first, most, self.entropy.clone());
        loop {
            match TcpListener::bind(self.endpoint.address).await {
                Ok(listener) => {
                    self.listens(&listener);
                    return listener;
                }
                Err(error) => self.fails(&error),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// Shows that it listens, if that is news.
    fn listens(&self, listener: &TcpListener) {
        let bound = listener.local_addr().unwrap_or(self.endpoint.address);
        if self.show(Some(bound), None) {
            info!(%bound, "the endpoint listens");
            self.events.send(Event::EndpointListening { address: bound });
        }
    }

    /// Shows that it does not listen, if that is news.
    fn fails(&self, error: &io::Error) {
        let (address, error) = (self.endpoint.address, error.to_string());
        if self.show(None, Some(error.clone())) {
            warn!(%address, error, "the endpoint cannot listen; the scheduler goes on, and it keeps trying");
            self.events.send(Event::EndpointFailing { address, error });
        }
    }

    fn show(&self, bound: Option<SocketAddr>, error: Option<String>) -> bool {
        let shown = EndpointSnapshot { address: self.endpoint.address, bound, error };
        self.view.send_if_modified(|view| {
            let is_news = view.endpoint.as_ref() != Some(&shown);
            view.endpoint = Some(shown);
            is_news
        })
    }

    /// Answers the one request of a connection.
    async fn converse(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        let service = service_fn(|request| {
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .keep_alive(false);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let conversation = async {
            tokio::select! {
                // An answer under way is written to its end either way.
                biased;
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
                // An error here is the client's hang-up.
                _ = connection.as_mut() => return,
            }
            let _ = connection.await;
        };
        // A client that reads too slowly has had its time.
        let _ = timeout(CONNECTION_TIMEOUT, conversation).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let question = Question { method: request.method(), uri: request.uri(), headers: request.headers() };
        let look = || Look {
            application: &self.application,
            stream: &self.stream,
            snapshot: self.handle.snapshot(),
            settings: &self.handle.settings,
        };
        answer(&question, &self.endpoint, look).map(|body| Full::new(Bytes::from(body)))
    }
}
