//! The HTTP endpoint over real sockets: every route, bad clients, a port that is taken, and the end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kcl_core::testing::{Action, MemoryStream, Recorder, Rule};
use kcl_core::{Callback, Endpoint, Event, Health, ProblemKind, Scheduler, SchedulerHandle, SchedulerPhase};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{Kinesis, NewRecord};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
const STREAM: &str = "orders";

struct Worker {
    handle: SchedulerHandle,
    kinesis: Kinesis,
    recorder: Recorder,
    tasks: JoinSet<()>,
}

fn start(endpoint: Endpoint) -> Worker {
    integration_tests::log::init();
    let kinesis = Kinesis::new(std::sync::Arc::new(kcl_local::clock::SystemClock));
    kinesis.create_stream(STREAM, 2).unwrap();
    let recorder = Recorder::new().with(Rule::on(Callback::ProcessRecords, Action::Checkpoint));
    let scheduler = Scheduler::builder("app")
        .worker_id("alpha")
        .stream(MemoryStream::new(kinesis.clone(), STREAM))
        .lease_store(MemoryLeaseStore::new())
        .processor(recorder.clone())
        .endpoint(endpoint)
        .build()
        .unwrap();
    let handle = scheduler.handle();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(scheduler.run().await) });
    Worker { handle, kinesis, recorder, tasks }
}

impl Worker {
    /// Waits until `done` says what was waited for; the scheduler shows when it changes something, not when.
    async fn until<T>(&self, what: &str, mut done: impl FnMut(&SchedulerHandle) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = done(&self.handle) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}; {:?}", self.handle.health());
            tokio::time::sleep(SECOND / 100).await;
        }
    }

    async fn address(&self) -> SocketAddr {
        self.until("listening", |handle| handle.snapshot().endpoint?.bound).await
    }

    async fn holding(&self) -> SocketAddr {
        let holds = |handle: &SchedulerHandle| (handle.snapshot().shards.len() == 2).then_some(());
        self.until("two shards", holds).await;
        self.address().await
    }
}

async fn ask(address: SocketAddr, method: Method, path: &str) -> Response<String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let exchange = async move {
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
    };
    let both = async { tokio::join!(exchange, connection).0 };
    timeout(PATIENCE, both).await.expect("an answer")
}

async fn get(address: SocketAddr, path: &str) -> Response<String> {
    ask(address, Method::GET, path).await
}

fn json(response: &Response<String>) -> Value {
    serde_json::from_str(response.body()).unwrap()
}

#[tokio::test]
async fn every_route_is_answered_over_a_socket() {
    let worker = start(Endpoint::on_port(0).metrics(|| "records_total 17\n".to_owned()));
    let address = worker.holding().await;
    assert!(address.ip().is_loopback());
    for (path, status, kind) in [
        ("/health/live", 200, "application/json"),
        ("/health/ready", 200, "application/json"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/status", 200, "text/html; charset=utf-8"),
        ("/status.json", 200, "application/json"),
        ("/status?all=1", 200, "text/html; charset=utf-8"),
        ("/", 307, "text/plain; charset=utf-8"),
        ("/nothing", 404, "text/plain; charset=utf-8"),
    ] {
        let response = get(address, path).await;
        assert_eq!(response.status(), status, "{path}: {}", response.body());
        assert_eq!(response.headers()[CONTENT_TYPE], kind, "{path}");
        let head = ask(address, Method::HEAD, path).await;
        assert_eq!((head.status(), head.body().as_str()), (response.status(), ""), "{path}");
        assert_ne!(head.headers()[CONTENT_LENGTH], "0", "{path}: a HEAD tells the length");
    }
    assert_eq!(get(address, "/").await.headers()[LOCATION], "/status");
    assert_eq!(ask(address, Method::POST, "/status").await.status(), 405);
    let status = json(&get(address, "/status.json").await);
    assert_eq!((&status["application"], &status["health"]), (&"app".into(), &"ready".into()));
    assert_eq!(status["shards"].as_array().unwrap().len(), 2);
    assert!(status["worker"].as_str().unwrap().starts_with("alpha"));
}

/// Errors come from anywhere, and may hold what a browser would run.
#[tokio::test]
async fn neither_errors_nor_records_reach_the_page_as_markup_or_at_all() {
    let worker = start(Endpoint::on_port(0));
    let address = worker.holding().await;
    worker.recorder.clear_rules();
    worker.recorder.add(Rule::on(Callback::ProcessRecords, Action::Fail));
    let record = NewRecord::new("SECRET-KEY", "SECRET-DATA <script>alert(1)</script>");
    worker.kinesis.put_record(STREAM, record).unwrap();
    let failing = |handle: &SchedulerHandle| match handle.health() {
        Health::Degraded(problems) => {
            problems.iter().any(|p| p.kind == ProblemKind::CallbackFailing).then_some(())
        }
        _ => None,
    };
    worker.until("a failing callback", failing).await;
    let ready = get(address, "/health/ready").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(json(&ready)["problems"][0]["kind"], "callback-failing");
    assert_eq!(get(address, "/health/live").await.status(), 200, "restarting it would not help");
    for path in ["/status", "/status.json?all=1", "/health/ready"] {
        let response = get(address, path).await;
        assert!(response.body().contains("process_records"), "{path}: {}", response.body());
        assert!(!response.body().contains("SECRET") && !response.body().contains("<script"), "{path}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_once_stops_nobody_and_is_taken_when_it_is_free() {
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = squatter.local_addr().unwrap();
    let worker = start(Endpoint::at(address));
    let mut events = worker.handle.events();
    let shown = |handle: &SchedulerHandle| match handle.health() {
        Health::Degraded(problems) => {
            problems.into_iter().find(|problem| problem.kind == ProblemKind::Endpoint)
        }
        _ => None,
    };
    let problem = worker.until("a problem", shown).await;
    assert!(problem.text.contains(&address.to_string()), "{problem}");
    worker.kinesis.put_record(STREAM, NewRecord::new("key", "data")).unwrap();
    let delivered = |_: &SchedulerHandle| (worker.recorder.count(Callback::ProcessRecords) > 0).then_some(());
    worker.until("a delivery, all the same", delivered).await;
    // Long enough for a second attempt.
    tokio::time::sleep(SECOND * 3 / 2).await;
    drop(squatter);
    assert_eq!(worker.address().await, address);
    assert_eq!(get(address, "/health/live").await.status(), 200);
    assert_eq!(worker.handle.health(), Health::Ready);
    let mut told = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            Event::EndpointFailing { address: at, .. } if at == address => told.0 += 1,
            Event::EndpointListening { address: at } if at == address => told.1 += 1,
            _ => {}
        }
    }
    assert!(told == (1, 1), "once per change of state: {told:?}");
}

#[tokio::test]
async fn clients_that_are_slow_or_talk_nonsense_are_sent_away_and_hold_nobody_up() {
    let worker = start(Endpoint::on_port(0));
    let address = worker.holding().await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\nhost: ").await.unwrap();
        slow.push(stream);
    }
    let answered = Instant::now();
    assert_eq!(get(address, "/health/live").await.status(), 200);
    assert!(answered.elapsed() < SECOND * 4, "nobody waits for the slow: {:?}", answered.elapsed());
    let mut nonsense = TcpStream::connect(address).await.unwrap();
    nonsense.write_all(b"\x16\x03\x01 hello\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, nonsense.read_to_end(&mut answer)).await.expect("an end");
    let mut large = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /status HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    // The server may close before it has read all of it.
    let _ = large.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, large.read_to_end(&mut answer)).await.expect("an end");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("slow clients are sent away");
    }
    assert!(begun.elapsed() < SECOND * 15, "{:?}", begun.elapsed());
    assert_eq!(get(address, "/health/ready").await.status(), 200);
}

#[tokio::test]
async fn more_clients_than_are_answered_at_a_time_are_answered_one_after_the_other() {
    let worker = start(Endpoint::on_port(0));
    let address = worker.holding().await;
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    // Those that say nothing are sent away after their time, and then it is this one's turn.
    assert_eq!(get(address, "/health/live").await.status(), 200);
}

#[tokio::test]
async fn while_shards_drain_it_lives_and_is_not_ready_and_then_it_is_gone() {
    let mut worker = start(Endpoint::on_port(0));
    let address = worker.holding().await;
    worker.recorder.add(Rule::on(Callback::ShutdownRequested, Action::Delay(SECOND * 2)));
    let handle = worker.handle.clone();
    let mut stopping = JoinSet::new();
    stopping.spawn(async move { handle.shutdown(SECOND * 20).await });
    let stops =
        |handle: &SchedulerHandle| (handle.snapshot().phase == SchedulerPhase::Stopping).then_some(());
    worker.until("stopping", stops).await;
    assert_eq!(get(address, "/health/live").await.status(), 200);
    let ready = get(address, "/health/ready").await;
    assert_eq!((ready.status().as_u16(), &json(&ready)["status"]), (503, &"dead".into()));
    let page = get(address, "/status").await;
    assert!(page.body().contains("stopping"), "{}", page.body());
    assert!(stopping.join_next().await.unwrap().unwrap().is_clean());
    timeout(PATIENCE, worker.tasks.join_next()).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_scheduler_that_is_dropped_takes_its_endpoint_along() {
    let mut worker = start(Endpoint::on_port(0));
    let address = worker.holding().await;
    worker.tasks.shutdown().await;
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(SECOND / 100).await;
    }
}

#[test]
fn an_endpoint_that_others_could_reach_is_refused_unless_it_was_asked_for() {
    let build = |endpoint| {
        let kinesis = Kinesis::new(std::sync::Arc::new(kcl_local::clock::SystemClock));
        Scheduler::builder("app")
            .stream(MemoryStream::new(kinesis, STREAM))
            .lease_store(MemoryLeaseStore::new())
            .processor(Recorder::new())
            .endpoint(endpoint)
            .build()
    };
    let open = Endpoint::at("0.0.0.0:0".parse().unwrap());
    let refused = build(open.clone()).unwrap_err().to_string();
    assert!(refused.contains("beyond_this_machine()"), "{refused}");
    assert!(build(open.beyond_this_machine()).is_ok());
}
