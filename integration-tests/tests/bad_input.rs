//! Bad input: the error says what call, what resource and what remedy; in time; and nothing is written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]
#![allow(clippy::print_stdout, reason = "what a person would read is worth a look")]

use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use integration_tests::aws::{Aws, Item, STREAM, TABLE, item, number, string, text};
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::{
    Callback, CheckpointPolicy, Error, ErrorKind, Event, ForeignLeases, Health, Scheduler, SchedulerBuilder,
    SchedulerPhase, Settings, Stage,
};
use kcl_lease_dynamo::{Billing, DynamoLeaseStore, TableMode, TableSettings};
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::kinesis::NewRecord;
use kcl_local::wire::Service;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
/// Within this every bad input is told.
const LIMIT: Duration = Duration::from_secs(30);
const FIRST: &str = "shardId-000000000000";
const SECOND_SHARD: &str = "shardId-000000000001";
const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// Runs until the error comes, which must be of this kind and name all of `parts`.
#[track_caller]
fn refused(builder: SchedulerBuilder, kind: ErrorKind, parts: &[&str]) -> impl Future<Output = Error> {
    let caller = std::panic::Location::caller();
    let scheduler = builder.build().unwrap();
    let (handle, parts) =
        (scheduler.handle(), parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
    async move {
        let error = match timeout(LIMIT, scheduler.run()).await {
            Ok(Err(error)) => error,
            other => panic!("{caller}: {other:?}"),
        };
        let shown = error.to_string();
        println!("{kind:?}: {shown}\n");
        assert_eq!(error.kind(), kind, "{caller}: {error:?}");
        for part in parts {
            assert!(shown.contains(&part), "{caller}: {part:?} is not in: {shown}");
        }
        assert_eq!(handle.health(), Health::Dead);
        error
    }
}

fn must_exist(aws: &Aws) -> DynamoLeaseStore {
    aws.store().with_table_mode(TableMode::MustExist)
}

/// Every bad input that needs nothing but the services; over sockets too.
async fn missing_and_denied(aws: impl AsyncFn() -> Aws) {
    let without_stream = aws().await;
    let parts = ["DescribeStreamSummary", "stream orders", "the stream's name or ARN", "region"];
    refused(without_stream.builder(), ErrorKind::Missing, &parts).await;
    assert_eq!(without_stream.writes(), 0);

    let with_stream = aws().await.with_stream(2);
    let builder = with_stream.builder().lease_store(must_exist(&with_stream));
    refused(builder, ErrorKind::Missing, &["GetItem", "lease table orders-app", "create the table"]).await;
    assert_eq!(with_stream.writes(), 0);

    let denials = [
        (Service::Kinesis, "DescribeStreamSummary", "check credentials, region and rights", 0),
        (Service::Kinesis, "ListShards", "check credentials, region and rights", 1),
        (Service::DynamoDb, "DescribeTable", "dynamodb:DescribeTable", 0),
        (Service::DynamoDb, "CreateTable", "dynamodb:CreateTable", 1),
        (Service::DynamoDb, "GetItem", "dynamodb:GetItem", 1),
        (Service::DynamoDb, "Scan", "dynamodb:Scan", 1),
    ];
    for (service, operation, remedy, writes) in denials {
        let aws = aws().await.with_stream(1);
        aws.fail(service, operation, "AccessDeniedException", "User bob is not authorized");
        let resource = if service == Service::Kinesis { "stream orders" } else { "table orders-app" };
        let parts = [operation, resource, remedy, "User bob is not authorized"];
        refused(aws.builder(), ErrorKind::Denied, &parts).await;
        // At most the table was created, which comes before the calls that need it.
        assert_eq!(aws.writes(), writes, "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_or_table_and_denied_access_are_told() {
    missing_and_denied(async || Aws::in_process()).await;
}

#[tokio::test]
async fn a_missing_stream_or_table_and_denied_access_are_told_over_sockets() {
    missing_and_denied(Aws::over_sockets).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_not_write_leases_says_so_instead_of_looking_busy() {
    // The fleet's row is made before anything else.
    for (operation, rows) in [("PutItem", 0), ("UpdateItem", 1)] {
        let aws = Aws::in_process().with_stream(2);
        aws.fail(Service::DynamoDb, operation, "AccessDeniedException", "User bob is not authorized");
        let parts = [operation, "table orders-app", "dynamodb:", "User bob"];
        refused(aws.builder(), ErrorKind::Denied, &parts).await;
        let rows_found = aws.rows().await;
        assert_eq!(rows_found.len(), rows);
        assert!(rows_found.values().all(|row| !row.contains_key("leaseOwner")));
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_not_accepted_are_told() {
    for code in [
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "MissingAuthenticationTokenException",
        "InvalidClientTokenId",
        "IncompleteSignatureException",
    ] {
        let stream = [(Service::Kinesis, "DescribeStreamSummary", "stream orders")];
        let table = [(Service::DynamoDb, "DescribeTable", "table orders-app")];
        for (service, operation, resource) in stream.into_iter().chain(table) {
            let aws = Aws::in_process().with_stream(1);
            aws.fail(service, operation, code, "The security token included in the request is invalid.");
            refused(aws.builder(), ErrorKind::Denied, &[operation, resource, code, "credentials", "region"])
                .await;
            assert_eq!(aws.writes(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_region_or_credentials_is_told() {
    let aws = Aws::in_process().with_stream(1);
    let credentials = || Credentials::new("local", "local", None, None, "test");
    let region = || Region::from_static("us-east-1");

    let bare = || {
        aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws.local.http_client())
            .endpoint_url(aws.local.endpoint_url())
    };
    let stream = |config: aws_sdk_kinesis::config::Builder| {
        aws.builder().stream(KinesisStream::new(aws_sdk_kinesis::Client::from_conf(config.build()), STREAM))
    };
    let parts = ["DescribeStreamSummary", "stream orders"];
    let no_region = stream(bare().credentials_provider(credentials()));
    refused(no_region, ErrorKind::Denied, &[parts[0], parts[1], "no region", "AWS_REGION"]).await;
    let no_credentials = stream(bare().region(region()));
    refused(no_credentials, ErrorKind::Denied, &[parts[0], parts[1], "credentials"]).await;

    let bare = || {
        aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws.local.http_client())
            .endpoint_url(aws.local.endpoint_url())
    };
    let table = |config: aws_sdk_dynamodb::config::Builder| {
        aws.builder()
            .lease_store(DynamoLeaseStore::new(aws_sdk_dynamodb::Client::from_conf(config.build()), TABLE))
    };
    let parts = ["DescribeTable", "table orders-app"];
    let no_region = table(bare().credentials_provider(credentials()));
    refused(no_region, ErrorKind::Denied, &[parts[0], parts[1], "no region", "AWS_REGION"]).await;
    let no_credentials = table(bare().region(region()));
    refused(no_credentials, ErrorKind::Denied, &[parts[0], parts[1], "credentials"]).await;
    assert_eq!(aws.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_reached_ends_the_start_with_the_call_that_failed() {
    for seen in [
        Seen::Refused,
        Seen::Reset,
        Seen::Hang,
        Seen::Error(errors::service_unavailable()),
        Seen::Error(errors::throttling()),
    ] {
        for (service, operation, resource) in [
            (Service::Kinesis, "DescribeStreamSummary", "stream orders"),
            (Service::Kinesis, "ListShards", "stream orders"),
            (Service::DynamoDb, "DescribeTable", "table orders-app"),
            (Service::DynamoDb, "Scan", "table orders-app"),
            (Service::DynamoDb, "PutItem", "table orders-app"),
        ] {
            let aws = Aws::in_process().with_stream(1);
            aws.faults.add(Rule::on(service, operation, Fault::Fail(seen.clone())));
            let begun = Instant::now();
            let parts = ["could not start within 25s", operation, resource];
            let error = refused(aws.builder(), ErrorKind::Unavailable, &parts).await;
            let remedy =
                ["check region, endpoint and network", "raise the table's capacity", "make them fewer"];
            assert!(remedy.iter().any(|remedy| error.to_string().contains(remedy)), "{error}");
            assert_eq!(begun.elapsed(), Settings::default().start_timeout, "{operation} {seen:?}");
            // Tried again and again, but not in a rush.
            let calls = aws.faults.calls(service, operation);
            assert!((2..40).contains(&calls), "{operation} {seen:?}: {calls} calls");
            assert!(aws.recorder.calls().is_empty());
        }
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_over_sockets() {
    let aws = Aws::over_sockets().await.with_stream(1);
    let builder = aws.builder();
    drop(aws);
    let mut settings = Settings::default();
    settings.start_timeout = SECOND * 2;
    let parts = ["could not start within 2s", "DescribeStreamSummary", "stream orders", "endpoint"];
    refused(builder.settings(settings), ErrorKind::Unavailable, &parts).await;
}

#[tokio::test(start_paused = true)]
async fn names_and_settings_that_cannot_be_right_are_told() {
    let aws = Aws::in_process().with_stream(1);
    for name in ["no stream", "", "arn:aws:dynamodb:us-east-1:000000000000:table/orders"] {
        let builder = aws.builder().stream(KinesisStream::new(aws.kinesis(), name));
        let parts =
            ["DescribeStreamSummary", &format!("stream {name:?}"), "correct the stream's name or ARN"];
        refused(builder, ErrorKind::Config, &parts).await;
    }
    for name in ["no", "no table", ""] {
        let builder = aws.builder().lease_store(DynamoLeaseStore::new(aws.dynamodb(), name));
        let parts = [&format!("lease table {name:?}"), "3 to 255", "correct the lease store's settings"];
        refused(builder, ErrorKind::Config, &parts).await;
    }
    assert!(aws.faults.calls(Service::DynamoDb, "CreateTable") == 0);
    let nothing = TableSettings::new().billing(Billing::Provisioned { read: 0, write: 0 });
    let store = aws.store().with_table_mode(TableMode::CreateIfMissing(nothing));
    let parts = ["CreateTable", "table orders-app", "refuses these table settings"];
    refused(aws.builder().lease_store(store), ErrorKind::Config, &parts).await;
}

/// A12: heartbeats that are throttled cost healthy workers their leases; the table says beforehand that they will be.
#[tokio::test(start_paused = true)]
async fn a_table_provisioned_with_less_than_its_workers_need_is_told() {
    let aws = Aws::in_process().with_stream(2);
    let small = TableSettings::new().billing(Billing::Provisioned { read: 1, write: 9 });
    let store = || aws.store().with_table_mode(TableMode::CreateIfMissing(small.clone()));
    let (mut handles, mut runs) = (Vec::new(), tokio::task::JoinSet::new());
    for worker in ["alpha", "beta"] {
        let scheduler = aws.builder().worker_id(worker).lease_store(store()).build().unwrap();
        handles.push(scheduler.handle());
        runs.spawn(scheduler.run());
        let alone = worker == "alpha";
        let as_told = || match handles.last().map(|handle| handle.health()) {
            Some(Health::Ready) => alone,
            Some(Health::Degraded(problems)) => {
                !alone
                    && problems.iter().any(|problem| {
                        problem.text.contains("1 read and 9 write units a second, its workers need 2 and 2")
                    })
            }
            _ => false,
        };
        let begun = Instant::now();
        while !as_told() {
            assert!(begun.elapsed() < SECOND * 60, "{:?}", handles.last().map(|handle| handle.health()));
            sleep(SECOND).await;
        }
    }
}

#[test]
fn a_nonsensical_configuration_is_refused_with_all_problems_listed() {
    let mut settings = Settings::default();
    settings.lease_duration = Duration::ZERO;
    settings.batch_records = 0;
    settings.retry_initial = SECOND * 100;
    settings.start_timeout = Duration::ZERO;
    let error = Scheduler::builder(" ")
        .worker_id("Leader")
        .settings(settings)
        .checkpoint_policy(CheckpointPolicy::Every(Duration::ZERO))
        .build()
        .unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
    let shown = error.to_string();
    for part in [
        "lease_duration",
        "lease_safety_margin",
        "lease_scan_interval",
        "batch_records",
        "retry_initial",
        "start_timeout",
        "application must have a name",
        "worker id \"Leader\"",
        "checkpoint interval",
        "stream is missing",
        "lease store is missing",
        "processor is missing",
    ] {
        assert!(shown.contains(part), "{part} is not in: {shown}");
    }
}

// --- what a lease table may hold ---------------------------------------------------------------------------

/// A lease row as the Java KCL writes it.
fn java_row(shard: &str, checkpoint: &str) -> Item {
    item([
        ("leaseKey", text(shard)),
        ("leaseCounter", number(7)),
        ("leaseOwner", text("java-worker")),
        ("ownerSwitchesSinceCheckpoint", number(2)),
        ("checkpoint", text(checkpoint)),
        ("checkpointSubSequenceNumber", number(0)),
    ])
}

fn of_stream(mut row: Item, identity: &str) -> Item {
    row.insert("streamIdentity".into(), text(identity));
    row
}

/// The stream with one record on each of two shards, and a table with these rows.
async fn with_rows(rows: impl IntoIterator<Item = Item>) -> Aws {
    let aws = Aws::in_process().with_stream(2);
    put_on_both(&aws);
    aws.create_table(TABLE, "leaseKey").await;
    for row in rows {
        aws.put_item(TABLE, row).await;
    }
    aws
}

/// Puts a record on each shard.
fn put_on_both(aws: &Aws) {
    for hash_key in [0, u128::MAX] {
        let record = NewRecord::new("key", "record").with_explicit_hash_key(hash_key);
        aws.local.kinesis().put_record(STREAM, record).unwrap();
    }
}

/// Waits until both shards delivered `each` records.
async fn delivered(aws: &Aws, each: usize) {
    let begun = Instant::now();
    while [FIRST, SECOND_SHARD].iter().any(|shard| aws.recorder.acknowledged(shard).len() < each) {
        assert!(begun.elapsed() < LIMIT, "{:?}", aws.recorder.calls());
        sleep(SECOND / 10).await;
    }
    for shard in [FIRST, SECOND_SHARD] {
        assert_eq!(aws.recorder.acknowledged(shard).len(), each, "{shard}");
    }
}

fn start(
    builder: SchedulerBuilder,
) -> (kcl_core::SchedulerHandle, JoinHandle<Result<kcl_core::ShutdownReport, Error>>) {
    let scheduler = builder.build().unwrap();
    let handle = scheduler.handle();
    #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
    let task = tokio::spawn(scheduler.run());
    (handle, task)
}

/// The same table is refused by default, refused or adopted on request, and reset on request.
async fn choices(rows: Vec<Item>, parts: &[&str], adopts: bool) {
    let aws = with_rows(rows).await;
    let before = aws.rows().await;
    let writes = aws.writes();
    let choices = ["ForeignLeases::Reset", "another application name", "lease table orders-app"];
    let parts: Vec<&str> = parts.iter().chain(&choices).copied().collect();
    refused(aws.builder(), ErrorKind::Refused, &parts).await;
    let adopting = || aws.builder().foreign_leases(ForeignLeases::Adopt);
    if !adopts {
        refused(adopting(), ErrorKind::Refused, &parts).await;
    }
    assert_eq!(aws.rows().await, before, "a refused table is left as it is");
    assert_eq!(aws.writes(), writes);
    assert!(aws.recorder.calls().is_empty());

    let builder = if adopts { adopting() } else { aws.builder().foreign_leases(ForeignLeases::Reset) };
    let (handle, task) = start(builder);
    delivered(&aws, 1).await;
    assert!(handle.shutdown(SECOND * 10).await.is_clean());
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn incident_21_another_streams_leases_are_refused_and_can_be_adopted() {
    let other = "arn:aws:kinesis:us-east-1:000000000000:stream/payments@1700000000000";
    let rows =
        || [FIRST, SECOND_SHARD].map(|shard| of_stream(java_row(shard, "TRIM_HORIZON"), other)).to_vec();
    let parts = ["another stream", FIRST, other, ARN, "ForeignLeases::Adopt"];
    choices(rows(), &parts, true).await;

    let aws = with_rows(rows()).await;
    let (handle, task) = start(aws.builder().foreign_leases(ForeignLeases::Reset));
    delivered(&aws, 1).await;
    handle.shutdown(SECOND * 10).await;
    task.await.unwrap().unwrap();
    for row in aws.rows().await.values() {
        assert!(string(row, "streamIdentity").starts_with(ARN), "{row:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_21_a_stream_that_was_deleted_and_made_again_is_noticed() {
    let aws = Aws::in_process().with_stream(2);
    let (handle, task) = start(aws.builder());
    handle.ready().await;
    put_on_both(&aws);
    delivered(&aws, 1).await;
    handle.shutdown(SECOND * 10).await;
    task.await.unwrap().unwrap();
    let before = aws.rows().await;

    sleep(SECOND * 100).await;
    aws.local.kinesis().delete_stream(STREAM).unwrap();
    let aws = aws.with_stream(2);
    put_on_both(&aws);
    let parts = ["an earlier stream of the same name", FIRST, ARN, "Reset"];
    refused(aws.builder(), ErrorKind::Refused, &parts).await;
    assert_eq!(aws.rows().await, before);
    let (handle, task) = start(aws.builder().foreign_leases(ForeignLeases::Reset));
    delivered(&aws, 2).await;
    handle.shutdown(SECOND * 10).await;
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn incident_21_rows_of_a_shard_the_stream_never_had_are_refused_and_can_be_adopted() {
    let rows = [FIRST, SECOND_SHARD, "shardId-000000000017"].map(|shard| java_row(shard, "TRIM_HORIZON"));
    choices(rows.to_vec(), &["shard this stream never had", "shardId-000000000017"], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_the_shard_does_not_know_is_an_error_with_the_choices_spelled_out() {
    // A number that no shard hands out, and one from before this shard's birth.
    let behind = "49590338271490256608559692538361571095921575989136588898";
    for checkpoint in ["5", behind] {
        let rows = vec![java_row(FIRST, checkpoint), java_row(SECOND_SHARD, "TRIM_HORIZON")];
        let parts = [FIRST, checkpoint, "not a position of the shard", "correct the checkpoint in the row"];
        choices(rows, &parts, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_that_is_open_is_an_error_with_the_choices_spelled_out() {
    let rows = vec![java_row(FIRST, "SHARD_END"), java_row(SECOND_SHARD, "TRIM_HORIZON")];
    choices(rows, &[FIRST, "has ended, but it is open", "TRIM_HORIZON"], false).await;
}

#[tokio::test(start_paused = true)]
async fn live_leadership_of_a_java_kcl_3_is_refused() {
    let lock = |key: &str| {
        let mut lock = item([
            (key, text("Leader")),
            ("ownerName", text("10.0.0.1:6f1d")),
            ("leaseDuration", text("120000")),
            ("recordVersionNumber", text("6d62a5f2-0000-4000-8000-000000000001")),
        ]);
        lock.insert("entityType".into(), text("LEADER"));
        lock
    };
    let legacy = "orders-app-CoordinatorState";
    for (table, key) in [(TABLE, "leaseKey"), (legacy, "key")] {
        let aws = with_rows([]).await;
        if table != TABLE {
            aws.create_table(table, key).await;
        }
        aws.put_item(table, lock(key)).await;
        let (before, writes) = (aws.rows().await, aws.writes());
        let parts =
            ["lease table orders-app", "Java KCL 3.x", table, "10.0.0.1:6f1d", "another application name"];
        refused(aws.builder(), ErrorKind::Refused, &parts).await;
        let adopting = aws.builder().foreign_leases(ForeignLeases::Adopt);
        refused(adopting, ErrorKind::Refused, &parts).await;
        assert_eq!((aws.rows().await, aws.writes()), (before, writes));
    }
}

/// A table of another shape, expected or not.
async fn foreign_shape(aws: Aws) {
    let aws = aws.with_stream(1);
    aws.create_table(TABLE, "id").await;
    let writes = aws.writes();
    for (store, operation) in [(aws.store(), "DescribeTable"), (must_exist(&aws), "GetItem")] {
        let parts = [operation, "table orders-app", "leaseKey", "another name for the lease table"];
        refused(aws.builder().lease_store(store), ErrorKind::Refused, &parts).await;
    }
    assert_eq!(aws.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_table_of_another_shape_is_refused() {
    foreign_shape(Aws::in_process()).await;
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused_over_sockets() {
    foreign_shape(Aws::over_sockets().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_is_reported_and_left_alone_while_the_rest_goes_on() {
    for damage in
        [("checkpoint", text("yesterday")), ("leaseCounter", text("7")), ("parentShardId", number(1))]
    {
        let (name, value) = damage;
        let mut row = java_row(FIRST, "TRIM_HORIZON");
        row.insert(name.into(), value);
        let aws = with_rows([row.clone()]).await;
        let scheduler = aws.builder().build().unwrap();
        let handle = scheduler.handle();
        let mut events = handle.events();
        #[allow(clippy::disallowed_methods, reason = "the test owns the task and ends it")]
        let task = tokio::spawn(scheduler.run());
        // Long enough for many listings of the table and of the shards, and for the row to look abandoned.
        sleep(SECOND * 300).await;
        assert_eq!(aws.recorder.acknowledged(SECOND_SHARD).len(), 1);
        assert!(aws.recorder.acknowledged(FIRST).is_empty());
        assert_eq!(aws.rows().await[FIRST], row, "not a byte of it changes");
        let mut reports = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let Event::UnreadableLease { key, reason } = event {
                reports.push((key, reason));
            }
        }
        assert_eq!(reports.len(), 1, "{reports:?}");
        println!("{reports:?}");
        assert_eq!(reports[0].0, FIRST);
        assert!(reports[0].1.contains(name), "{reports:?}");
        assert!(handle.snapshot().unreadable[FIRST].contains(name));
        match handle.health() {
            Health::Degraded(problems) => assert!(problems[0].text.contains(FIRST), "{problems:?}"),
            other => panic!("{other:?}"),
        }

        // Once somebody repairs the row, its shard is processed.
        aws.put_item(TABLE, java_row(FIRST, "TRIM_HORIZON")).await;
        delivered(&aws, 1).await;
        assert_eq!(handle.health(), Health::Ready);
        assert!(handle.shutdown(SECOND * 10).await.is_clean());
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn reads_that_are_denied_while_running_are_retried_and_skip_and_end_nothing() {
    for code in ["KMSAccessDeniedException", "AccessDeniedException"] {
        let aws = Aws::in_process().with_stream(2);
        let (handle, task) = start(aws.builder());
        handle.ready().await;
        put_on_both(&aws);
        delivered(&aws, 1).await;

        let mut events = handle.events();
        aws.fail(Service::Kinesis, "GetRecords", code, "The key is not yours");
        put_on_both(&aws);
        sleep(SECOND * 30).await;
        let snapshot = handle.snapshot();
        assert_eq!(snapshot.phase, SchedulerPhase::Running);
        assert_eq!(snapshot.shards.len(), 2);
        for (shard, state) in &snapshot.shards {
            assert_eq!(state.report.stage, Stage::Fetching, "{shard}");
            assert!(state.report.failures >= 3, "{shard}: {state:?}");
            assert!(state.report.last_error.as_ref().unwrap().contains(code), "{shard}: {state:?}");
        }
        assert!(matches!(handle.health(), Health::Degraded(problems) if problems.len() == 2));
        // Long enough for the leases to be given up for somebody who may be allowed to, and taken again.
        sleep(SECOND * 600).await;
        let mut failing = 0;
        while let Ok(event) = events.try_recv() {
            match event {
                Event::ReaderFailing { error, .. } => {
                    assert!(
                        error.contains("GetRecords") && error.contains("The key is not yours"),
                        "{error}"
                    );
                    failing += 1;
                }
                Event::LeaseLost { .. } | Event::LeaseAcquired { .. } | Event::Stalled { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(failing > 10);
        assert_eq!(aws.recorder.count(Callback::ShardEnded), 0);
        delivered(&aws, 1).await;

        aws.faults.clear();
        delivered(&aws, 2).await;
        assert_eq!(handle.health(), Health::Ready);
        handle.shutdown(SECOND * 10).await;
        task.await.unwrap().unwrap();
    }
}
