//! The services on a loopback socket.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// Serves [`Services`] over HTTP/1.1 on 127.0.0.1, on a thread and a runtime of its own.
///
/// The services run on that thread too, so that SQLite under a lock never blocks the caller's
/// runtime, and requests are answered one after another. Dropping the server closes the listener
/// at once, gives answers under way 200 ms to be written, and joins the thread; it blocks the
/// dropping thread for that long at most.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken, or there are no threads or files left.
    pub async fn start(services: Services, port: u16) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let (started, start) = oneshot::channel();
        #[allow(clippy::disallowed_methods, reason = "the server has its own thread, which its drop ends")]
        let thread = std::thread::Builder::new().name("kcl-local".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    Ok(listener) => {
                        let _ = started.send(listener.local_addr());
                        serve(listener, services, stopped).await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        })?;
        let address = start.await.map_err(|_| io::Error::other("the server thread ended"))??;
        Ok(Self { address, stop, thread: Some(thread) })
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

async fn serve(listener: TcpListener, services: Services, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // The stop goes first, or a busy listener would outlive it.
            biased;
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, services.clone(), stopped.clone()));
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
async fn converse(stream: TcpStream, services: Services, mut stopped: watch::Receiver<()>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = service_fn(move |request| {
        let services = services.clone();
        async move { Ok::<_, Infallible>(answer(&services, request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    tokio::select! {
        // Either end of the race is final; the stop goes first so that it is not put off.
        biased;
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            // An error here is the client's hang-up.
            let _ = connection.await;
        }
        _ = connection.as_mut() => {}
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
