//! Over loopback sockets, against hyper's own server.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use futures_util::StreamExt;
use futures_util::stream::{repeat_with, unfold};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

const CHUNK: usize = 64 << 10;

/// A server whose answers never end.
#[derive(Debug, Default)]
struct Server {
    /// Connections accepted, requests taken, answers not given up.
    connections: AtomicUsize,
    requests: AtomicUsize,
    answers: AtomicUsize,
    /// Has every connection say that it goes away.
    leave: Notify,
}

struct Answer(Arc<Server>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.answers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Starts a server. Its answers are chunks, as fast as they are taken if the path says so, else a byte at once and
/// then nothing.
async fn serve() -> (Arc<Server>, String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server: Arc<Server> = Arc::default();
    let mut tasks = JoinSet::new();
    let accepting = Arc::clone(&server);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            accepting.connections.fetch_add(1, Ordering::SeqCst);
            let server = Arc::clone(&accepting);
            connections.spawn(async move {
                let answering = Arc::clone(&server);
                let service = service_fn(move |request: Request<Incoming>| {
                    let server = Arc::clone(&answering);
                    async move {
                        server.requests.fetch_add(1, Ordering::SeqCst);
                        server.answers.fetch_add(1, Ordering::SeqCst);
                        let answer = Answer(Arc::clone(&server));
                        let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; CHUNK])));
                        let body = if request.uri().path() == "/flood" {
                            repeat_with(move || {
                                let _ = &answer;
                                chunk()
                            })
                            .boxed()
                        } else {
                            unfold((answer, true), async |(answer, is_first)| {
                                if !is_first {
                                    std::future::pending::<()>().await;
                                }
                                Some((Ok(Frame::data(Bytes::from_static(b"x"))), (answer, false)))
                            })
                            .boxed()
                        };
                        Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
                    }
                });
                let connection =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    biased;
                    _ = &mut connection => return,
                    () = server.leave.notified() => {}
                }
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            });
        }
    });
    (server, address, tasks)
}

async fn get(client: &SubscriptionHttpClient, uri: &str) -> (SdkBody, CaptureSmithyConnection) {
    let connector =
        Connector { pool: Arc::clone(&client.pool), settings: HttpConnectorSettings::builder().build() };
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(uri.to_owned()).unwrap();
    let capture = CaptureSmithyConnection::new();
    request.add_extension(capture.clone());
    let answer = timeout(Duration::from_secs(10), connector.call(request)).await.unwrap().unwrap();
    (answer.into_body(), capture)
}

/// Waits for what other tasks bring about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn requests_are_spread_over_connections_and_their_places_used_again() {
    let (server, address, _tasks) = serve().await;
    let client = SubscriptionHttpClient::new(4);
    let asked = (0..16).map(|_| get(&client, &address));
    let mut bodies: Vec<_> = futures_util::future::join_all(asked).await;
    assert_eq!((server.connections.load(Ordering::SeqCst), client.connections()), (4, 4));
    bodies.truncate(10);
    until("six answers are reset", || server.answers.load(Ordering::SeqCst) == 10).await;
    for _ in 0..6 {
        bodies.push(get(&client, &address).await);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 4);
    drop(bodies);
    until("all answers are reset", || server.answers.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn bodies_that_nobody_reads_take_nothing_from_the_others() {
    let (_server, address, _tasks) = serve().await;
    let client = SubscriptionHttpClient::new(16);
    let flood = format!("{address}/flood");
    let mut unread = Vec::new();
    for _ in 0..15 {
        unread.push(get(&client, &flood).await);
    }
    // Time to fill their windows, one mebibyte each.
    sleep(Duration::from_millis(500)).await;
    let (mut healthy, _) = get(&client, &flood).await;
    let mut read = 0;
    while read < 64 << 20 {
        let frame =
            timeout(Duration::from_secs(10), healthy.frame()).await.expect("it flows").unwrap().unwrap();
        read += frame.into_data().unwrap().len();
    }
    assert_eq!(client.connections(), 1, "all of it over one connection");
}

#[tokio::test]
async fn a_poisoned_connection_gets_no_new_requests_and_keeps_those_it_has() {
    let (server, address, _tasks) = serve().await;
    let client = SubscriptionHttpClient::new(4);
    let (mut old, capture) = get(&client, &address).await;
    capture.get().unwrap().poison();
    let _new = get(&client, &address).await;
    assert_eq!((server.connections.load(Ordering::SeqCst), client.connections()), (2, 1));
    assert!(old.frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_without_a_failure() {
    let (server, address, _tasks) = serve().await;
    let client = SubscriptionHttpClient::new(4);
    let (mut old, _) = get(&client, &address).await;
    server.leave.notify_waiters();
    sleep(Duration::from_millis(200)).await;
    let _new = get(&client, &address).await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    assert!(old.frame().await.unwrap().is_ok(), "what was asked before is answered");
}

#[tokio::test]
async fn nobody_there_is_a_failed_connection_and_tried_again_on_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = SubscriptionHttpClient::new(4);
    let connector =
        Connector { pool: Arc::clone(&client.pool), settings: HttpConnectorSettings::builder().build() };
    for _ in 0..2 {
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(address.clone()).unwrap();
        let error = connector.call(request).await.unwrap_err();
        assert!(error.is_io(), "{error:?}");
        assert_eq!(client.connections(), 0);
    }
}

#[cfg(not(feature = "fan-out"))]
#[tokio::test]
async fn https_without_tls_says_what_to_do() {
    let client = SubscriptionHttpClient::new(4);
    let connector =
        Connector { pool: Arc::clone(&client.pool), settings: HttpConnectorSettings::builder().build() };
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri("https://localhost:1".to_owned()).unwrap();
    let error = connector.call(request).await.unwrap_err();
    assert!(error.is_user() && format!("{error:?}").contains("feature fan-out"), "{error:?}");
}

/// Ends TLS in front of a server.
#[cfg(feature = "fan-out")]
async fn behind_tls(address: &str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let https = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let plain = address.trim_start_matches("http://").to_owned();
    let acceptor = tls::tests::acceptor(&[b"h2"]);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            connections.spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut server = tokio::net::TcpStream::connect(plain).await.unwrap();
                // Either side may hang up.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (https, tasks)
}

#[cfg(feature = "fan-out")]
#[tokio::test]
async fn answers_come_through_tls_and_are_reset_through_it() {
    tls::trust_localhost();
    let (server, address, _tasks) = serve().await;
    let (https, _forwarding) = behind_tls(&address).await;
    let client = SubscriptionHttpClient::new(4);
    let mut bodies = Vec::new();
    for _ in 0..5 {
        let (mut body, _) = get(&client, &https).await;
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.as_ref(), b"x");
        bodies.push(body);
    }
    assert_eq!((server.connections.load(Ordering::SeqCst), client.connections()), (2, 2));
    let (mut flood, _) = get(&client, &format!("{https}/flood")).await;
    let mut bytes = 0;
    while bytes < 8 << 20 {
        bytes += flood.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    drop((bodies, flood));
    until("all answers are reset", || server.answers.load(Ordering::SeqCst) == 0).await;
}
