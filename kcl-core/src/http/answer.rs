//! What each request gets: a function of the request and of one look at the scheduler.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION,
};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use serde::Serialize;
use serde_json::json;

use super::{Endpoint, document, page};
use crate::scheduler::{Health, SchedulerPhase, Snapshot};
use crate::settings::Settings;

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an answer is made of.
pub(super) struct Look<'a> {
    pub(super) application: &'a str,
    pub(super) stream: &'a str,
    pub(super) snapshot: Snapshot,
    pub(super) settings: &'a Settings,
}

impl Look<'_> {
    pub(super) fn health(&self) -> Health {
        Health::of(&self.snapshot, self.settings)
    }
}

/// The part of a request that matters.
pub(super) struct Question<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

/// Answers a request. `look` is called at most once.
pub(super) fn answer<'a>(
    question: &Question<'_>,
    endpoint: &Endpoint,
    look: impl FnOnce() -> Look<'a>,
) -> Response<String> {
    if question.method != Method::GET && question.method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match question.uri.path() {
        "/" => {
            let mut response = text(StatusCode::TEMPORARY_REDIRECT, "see /status\n");
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/status"));
            response
        }
        "/health/live" => live(look().snapshot.phase),
        "/health/ready" => ready(endpoint, &look()),
        "/metrics" => metrics(endpoint),
        "/status" | "/status.json" => match asks_for_all(question.uri.query()) {
            Ok(all) if wants_json(question) => json(StatusCode::OK, &document::Document::of(&look(), all)),
            Ok(all) => with(StatusCode::OK, HTML, page::render(&look(), all)),
            Err(problem) => text(StatusCode::BAD_REQUEST, problem),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there is nothing here; there are /status, /status.json, /metrics, /health/live and /health/ready\n",
        ),
    }
}

fn live(phase: SchedulerPhase) -> Response<String> {
    let (status, word) = match phase {
        SchedulerPhase::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        _ => (StatusCode::OK, "alive"),
    };
    json(status, &json!({ "status": word, "phase": document::phase(phase) }))
}

fn ready(endpoint: &Endpoint, look: &Look<'_>) -> Response<String> {
    let health = look.health();
    let is_ready = match &health {
        Health::Ready => true,
        Health::Degraded(_) => endpoint.degraded_is_ready,
        Health::Starting | Health::Dead => false,
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &document::Readiness::of(&health, &look.snapshot))
}

fn metrics(endpoint: &Endpoint) -> Response<String> {
    let Some(render) = &endpoint.metrics else {
        return text(
            StatusCode::NOT_FOUND,
            "this endpoint has no metrics: give it what renders them, Endpoint::metrics(|| ...)\n",
        );
    };
    match catch_unwind(AssertUnwindSafe(|| render())) {
        Ok(metrics) => with(StatusCode::OK, METRICS, metrics),
        Err(_) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "what renders the metrics panicked; the log has it\n")
        }
    }
}

fn wants_json(question: &Question<'_>) -> bool {
    let accepted = question.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    question.uri.path() == "/status.json" || accepted.contains(JSON) && !accepted.contains("text/html")
}

fn asks_for_all(query: Option<&str>) -> Result<bool, &'static str> {
    match query {
        None | Some("" | "all=0") => Ok(false),
        Some("all=1") => Ok(true),
        Some(_) => Err("the only query here is ?all=1, which lists every lease of the application\n"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<String> {
    with(status, TEXT, text.to_owned())
}

fn json(status: StatusCode, document: &impl Serialize) -> Response<String> {
    match serde_json::to_string_pretty(document) {
        Ok(text) => with(status, JSON, text),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status could not be written as JSON\n"),
    }
}

fn with(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
