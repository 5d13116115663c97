use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::Value;

use super::Endpoint;
use super::answer::{Look, Question, answer};
use crate::consumer::{ReaderActivity, ShardReport, Stage};
use crate::lease::Lease;
use crate::model::{Checkpoint, ShardId, WorkerId};
use crate::scheduler::{SchedulerPhase, ShardSnapshot, Snapshot};
use crate::settings::Settings;

const EVIL: &str = "<script>alert('x')</script> & \"more\"";

/// A worker that holds one idle shard beside a table of three leases.
fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::at_rest("me".into(), SchedulerPhase::Running);
    snapshot.listed_ago = Some(Duration::from_millis(1500));
    snapshot.taking = true;
    let mut leases = BTreeMap::new();
    for (shard, owner, checkpoint) in [
        ("shard-a", Some("me"), Checkpoint::TrimHorizon),
        ("shard-b", Some("other"), Checkpoint::Latest),
        ("shard-c", None, Checkpoint::ShardEnd),
    ] {
        let mut lease = Lease::new(shard.into(), checkpoint);
        lease.owner = owner.map(WorkerId::from);
        leases.insert(ShardId::from(shard), Arc::new(lease));
    }
    snapshot.leases = Arc::new(leases);
    let mut report = ShardReport::starting(Checkpoint::TrimHorizon);
    report.stage = Stage::Fetching;
    report.reader.activity = ReaderActivity::Asking;
    (report.reader.since, report.reader.quiet_since) = (snapshot.at, Some(snapshot.at));
    let held =
        ShardSnapshot { report, valid_for: Duration::from_secs(9), handing_over_to: None, shows_life: true };
    snapshot.shards.insert("shard-a".into(), held);
    snapshot
}

fn with_problem(mut snapshot: Snapshot) -> Snapshot {
    let held = snapshot.shards.get_mut("shard-a").unwrap();
    held.report.reader.failures = 3;
    held.report.reader.error = Some(EVIL.to_owned());
    snapshot
}

fn ask(
    endpoint: &Endpoint,
    method: Method,
    uri: &str,
    accept: Option<&'static str>,
    now: &Snapshot,
) -> Response<String> {
    let uri: Uri = uri.parse().unwrap();
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
    }
    let settings = Settings::default();
    let look = || Look { application: "app", stream: "orders", snapshot: now.clone(), settings: &settings };
    answer(&Question { method: &method, uri: &uri, headers: &headers }, endpoint, look)
}

fn get(uri: &str, now: &Snapshot) -> Response<String> {
    ask(&Endpoint::on_port(0), Method::GET, uri, None, now)
}

fn json(response: &Response<String>) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    serde_json::from_str(response.body()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_life_is_answered_200_until_the_scheduler_has_stopped() {
    for (phase, status) in [
        (SchedulerPhase::Created, 200),
        (SchedulerPhase::Starting, 200),
        (SchedulerPhase::Running, 200),
        (SchedulerPhase::Stopping, 200),
        (SchedulerPhase::Stopped, 503),
    ] {
        let now = Snapshot { phase, ..with_problem(snapshot()) };
        assert_eq!(get("/health/live", &now).status(), status, "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_readiness_is_answered_200_if_ready_else_503_with_the_reasons() {
    let ready = get("/health/ready", &snapshot());
    assert_eq!(ready.status(), 200);
    assert_eq!(json(&ready)["status"], "ready");
    assert_eq!(json(&ready)["shards"], 1);
    for phase in [SchedulerPhase::Starting, SchedulerPhase::Stopping, SchedulerPhase::Stopped] {
        assert_eq!(get("/health/ready", &Snapshot { phase, ..snapshot() }).status(), 503, "{phase:?}");
    }

    let wrong = with_problem(snapshot());
    let degraded = get("/health/ready", &wrong);
    assert_eq!(degraded.status(), 503);
    let told = json(&degraded);
    assert_eq!(told["status"], "degraded");
    assert_eq!(
        (&told["problems"][0]["kind"], &told["problems"][0]["shard"]),
        (&"reader-failing".into(), &"shard-a".into())
    );
    let lenient = Endpoint::on_port(0).degraded_is_ready();
    assert_eq!(ask(&lenient, Method::GET, "/health/ready", None, &wrong).status(), 200);

    let mut idle = snapshot();
    idle.shards.clear();
    let idle = get("/health/ready", &idle);
    assert_eq!(idle.status(), 200);
    assert_eq!(json(&idle)["notes"][0], "this worker holds no shard; there are 2 unfinished leases");
}

#[tokio::test(start_paused = true)]
async fn the_shape_of_the_status_as_json_is_kept() {
    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }
    let now = with_problem(snapshot());
    let status = json(&get("/status.json", &now));
    assert_eq!(status["version"], 1);
    assert_eq!(
        keys(&status),
        [
            "application",
            "bill",
            "fleet",
            "health",
            "housekeeper",
            "leases",
            "notes",
            "phase",
            "problems",
            "shards",
            "stream",
            "version",
            "worker"
        ]
    );
    assert_eq!(keys(&status["problems"][0]), ["kind", "shard", "text"]);
    assert_eq!(
        keys(&status["shards"][0]),
        [
            "activity",
            "buffered_bytes",
            "bytes",
            "checkpoint",
            "checkpoint_age_millis",
            "failures",
            "lag_millis",
            "last_delivery_millis_ago",
            "last_error",
            "last_fetch_millis_ago",
            "lease_valid_millis",
            "problem",
            "reason",
            "records",
            "shard",
            "stage",
            "uncheckpointed"
        ]
    );
    assert_eq!(
        keys(&status["leases"]),
        [
            "by_owner",
            "ended",
            "free",
            "held_by_others",
            "held_here",
            "listed_millis_ago",
            "total",
            "unreadable"
        ]
    );
    assert_eq!(status["leases"]["by_owner"]["other"], 1);
    assert_eq!((&status["leases"]["total"], &status["leases"]["ended"]), (&3.into(), &1.into()));
    let all = json(&get("/status.json?all=1", &now));
    assert_eq!(keys(&all["other_leases"][0]), ["checkpoint", "owner", "reason", "shard"]);
}

#[tokio::test(start_paused = true)]
async fn leases_of_others_are_counted_and_listed_only_on_request() {
    let page = get("/status", &snapshot());
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.body().contains("shard-a") && page.body().contains("<td class=\"id\">other</td>"));
    assert!(!page.body().contains("shard-b"));
    let all = get("/status?all=1", &snapshot());
    assert!(all.body().contains("shard-b</td><td>is leased by other"), "{}", all.body());
    let wrong = get("/status?al=1", &snapshot());
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    assert!(wrong.body().contains("?all=1"));
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_leases_make_no_page_of_twenty_thousand_rows() {
    let mut now = snapshot();
    let leases = Arc::make_mut(&mut now.leases);
    for index in 0..20_000 {
        let mut lease = Lease::new(format!("shard-x-{index:05}").into(), Checkpoint::Latest);
        lease.owner = Some(format!("worker-{}", index % 50).into());
        leases.insert(lease.shard.clone(), Arc::new(lease));
    }
    let page = get("/status", &now);
    assert!(page.body().len() < 32 << 10, "{}", page.body().len());
    assert!(page.body().contains("<dt>all</dt><dd>20003</dd>"));
    assert_eq!(get("/status?all=1", &now).body().matches("shard-x-").count(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn whoever_accepts_json_and_no_page_gets_json() {
    let endpoint = Endpoint::on_port(0);
    let browser = Some("text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8");
    for (accept, kind) in [
        (None, "text/html; charset=utf-8"),
        (Some("*/*"), "text/html; charset=utf-8"),
        (browser, "text/html; charset=utf-8"),
        (Some("application/json"), "application/json"),
    ] {
        let response = ask(&endpoint, Method::GET, "/status", accept, &snapshot());
        assert_eq!(response.headers()[CONTENT_TYPE], kind, "{accept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_comes_from_outside_is_taken_for_markup() {
    let mut now = with_problem(snapshot());
    now.worker = EVIL.into();
    now.unreadable.insert(EVIL.to_owned(), EVIL.to_owned());
    let mut lease = Lease::new(EVIL.into(), Checkpoint::Latest);
    lease.owner = Some(EVIL.into());
    Arc::make_mut(&mut now.leases).insert(EVIL.into(), Arc::new(lease));
    let held = now.shards["shard-a"].clone();
    now.shards.insert(EVIL.into(), held);
    for uri in ["/status", "/status?all=1"] {
        let page = get(uri, &now);
        assert!(!page.body().contains("<script"), "{}", page.body());
        assert!(
            page.body().contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;")
        );
        assert!(page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_or_has_stopped_has_a_page() {
    for phase in [SchedulerPhase::Created, SchedulerPhase::Starting, SchedulerPhase::Stopped] {
        let now = Snapshot::at_rest("me".into(), phase);
        let page = get("/status", &now);
        assert_eq!(page.status(), 200);
        assert!(page.body().contains("Shards of this worker (0)") && page.body().ends_with("</html>\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_are_rendered_by_what_was_given_for_that_and_missed_with_a_hint() {
    let none = get("/metrics", &snapshot());
    assert_eq!(none.status(), 404);
    assert!(none.body().contains("Endpoint::metrics"));
    let endpoint = Endpoint::on_port(0).metrics(|| "records_total 17\n".to_owned());
    let some = ask(&endpoint, Method::GET, "/metrics", None, &snapshot());
    assert_eq!((some.status().as_u16(), some.body().as_str()), (200, "records_total 17\n"));
    assert_eq!(some.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let endpoint = Endpoint::on_port(0).metrics(|| std::panic::resume_unwind(Box::new("on request")));
    assert_eq!(ask(&endpoint, Method::GET, "/metrics", None, &snapshot()).status(), 500);
}

#[tokio::test(start_paused = true)]
async fn other_paths_and_methods_are_refused_and_the_root_leads_to_the_status() {
    let root = get("/", &snapshot());
    assert_eq!(
        (root.status().as_u16(), &root.headers()[LOCATION]),
        (307, &HeaderValue::from_static("/status"))
    );
    for path in ["/x", "/status/", "/health", "/..%2f"] {
        let missing = get(path, &snapshot());
        assert_eq!(missing.status(), 404, "{path}");
        assert!(missing.body().contains("/health/live"));
    }
    for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        let refused = ask(&Endpoint::on_port(0), method, "/status", None, &snapshot());
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
    }
}

#[test]
fn an_address_that_others_can_reach_must_be_asked_for() {
    for (address, is_fine) in [
        ("127.0.0.1:80", true),
        ("127.8.9.1:80", true),
        ("[::1]:80", true),
        ("0.0.0.0:80", false),
        ("[::]:80", false),
        ("10.0.0.1:80", false),
    ] {
        let endpoint = Endpoint::at(address.parse().unwrap());
        assert_eq!(endpoint.problem().is_none(), is_fine, "{address}");
        assert_eq!(endpoint.beyond_this_machine().problem(), None);
    }
}
