//! One HTTP/2 connection and the tasks that drive it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper::Uri;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::timed_out;

/// What a stream may send before its reader has read. The service sends a shard two megabytes per second at most, so
/// a mebibyte keeps it sending at full rate over half a second of round trip.
const STREAM_WINDOW: u32 = 1 << 20;
/// A connection is pinged this often, and given up if a ping is not answered for [`PING_TIMEOUT`]: one that is dead
/// is found even if all of its subscriptions wait for something else, and devices on the way see traffic.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a connection is used. One without requests at two looks is closed.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Where a connection leads and which runtime drives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    is_https: bool,
    host: String,
    port: u16,
    runtime: Id,
}

impl Endpoint {
    pub(super) fn of(uri: &Uri) -> Result<Self, ConnectorError> {
        let refuse = |why: &str| ConnectorError::user(format!("{why}: {uri}").into());
        let is_https = match uri.scheme_str() {
            Some("https") if cfg!(feature = "fan-out") => true,
            Some("https") => {
                let remedy =
                    "build kcl-core with the feature fan-out, or give the stream HTTP clients of your own";
                return Err(refuse(&format!("this build has no TLS for subscriptions ({remedy})")));
            }
            Some("http") => false,
            _ => return Err(refuse("only http:// and https:// endpoints are known")),
        };
        let host = uri.host().ok_or_else(|| refuse("no host in the endpoint"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let runtime = Handle::try_current().map_err(|error| ConnectorError::user(error.into()))?.id();
        Ok(Self { is_https, host, port, runtime })
    }

    /// The host without the brackets of an IPv6 address.
    #[cfg(feature = "fan-out")]
    pub(super) fn name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A connection, from before it is opened until nobody uses it any more.
#[derive(Debug)]
pub(super) struct Connection {
    per_connection: usize,
    sender: OnceCell<SendRequest<SdkBody>>,
    requests: AtomicUsize,
    /// What the other end says it allows.
    allowed: AtomicUsize,
    is_retired: AtomicBool,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Connection {
    pub(super) fn new(per_connection: usize) -> Self {
        Self {
            per_connection,
            sender: OnceCell::new(),
            requests: AtomicUsize::new(0),
            allowed: AtomicUsize::new(usize::MAX),
            is_retired: AtomicBool::new(false),
            tasks: Arc::default(),
        }
    }

    /// Whether new requests may go over it.
    pub(super) fn takes_requests(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire) && self.sender.get().is_none_or(|sender| !sender.is_closed())
    }

    /// No new requests from now on. Those on it go on.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    pub(super) fn enter(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn leave(&self) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many requests the other end allows at a time.
    pub(super) fn room(&self) -> usize {
        self.allowed.load(Ordering::Acquire)
    }

    /// What sends requests. The first who asks opens the connection; the others wait for it.
    pub(super) async fn sender(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        limit: Option<Duration>,
    ) -> Result<SendRequest<SdkBody>, ConnectorError> {
        let opened = self.sender.get_or_try_init(|| async {
            let open = self.open(endpoint);
            match limit {
                None => open.await,
                Some(limit) => timeout(limit, open).await.map_err(|_| timed_out("no connection", limit))?,
            }
        });
        opened.await.cloned().inspect_err(|_| self.retire())
    }

    async fn open(self: &Arc<Self>, endpoint: &Endpoint) -> Result<SendRequest<SdkBody>, ConnectorError> {
        let failed = |error: std::io::Error| ConnectorError::io(error.into()).never_connected();
        let stream =
            TcpStream::connect(format!("{}:{}", endpoint.host, endpoint.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        #[cfg(feature = "fan-out")]
        if endpoint.is_https {
            return self.shake_hands(super::tls::connect(endpoint, stream).await?).await;
        }
        self.shake_hands(stream).await
    }

    async fn shake_hands(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<SdkBody>, ConnectorError> {
        // Every stream may fill its window, and the answers without a body still find room.
        let streams = u32::try_from(self.per_connection).unwrap_or(u32::MAX).saturating_add(1);
        let (sender, mut connection) = Builder::new(Tasks(Arc::downgrade(&self.tasks)))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectorError::io(error.into()))?;
        let tasks = Tasks(Arc::downgrade(&self.tasks));
        let this = Arc::downgrade(self);
        tasks.execute(async move {
            let ended = poll_fn(|context| {
                let ended = Pin::new(&mut connection).poll(context);
                if let Some(this) = this.upgrade() {
                    this.allowed.store(connection.current_max_send_streams(), Ordering::Release);
                }
                ended
            });
            // Who uses the connection learns from its streams how it ended.
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a connection of subscriptions ended");
            }
        });
        tasks.execute(close_when_idle(Arc::downgrade(self)));
        Ok(sender)
    }
}

/// Closes a connection that nobody uses, by ending its tasks, this one among them.
async fn close_when_idle(connection: Weak<Connection>) {
    let mut looks = interval(LOOK_INTERVAL);
    let mut was_idle = false;
    loop {
        looks.tick().await;
        let Some(connection) = connection.upgrade() else { return };
        let is_idle = connection.requests() == 0;
        if is_idle && was_idle {
            connection.retire();
            // Between the look and the retirement somebody may have come.
            if connection.requests() == 0 {
                connection.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
                return;
            }
        }
        was_idle = is_idle;
    }
}

/// Where hyper puts the tasks of a connection: they end with it.
#[derive(Clone, Debug)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }
}
