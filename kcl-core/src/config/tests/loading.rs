use std::time::Duration;

use super::super::key::{KEYS, Kind};
use super::super::parts::{CheckpointChoice, RetrievalMode};
use super::super::{ConfigurationError, ConfigurationLoader};
use super::{loader, problems};
use crate::model::InitialPosition;
use crate::scheduler::Coordination;
use crate::settings::OutOfRange;

const FILE: &str = r#"
application = "orders-app"
stream = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
region = "eu-west-1"
initialPosition = 2026-01-31T12:00:00Z
coordination = "per-lease"
checkpoint = { policy = "every", interval = "1m 30s" }

[retrieval]
mode = "FanOut"
fanOut.bufferBytes = "32MiB"

[settings]
leaseDuration = 12_000
leaseScanInterval = "500ms"
outOfRange = "drop_aggregate"
maxLeases = 7

[leaseTable.tags]
team = "orders"
"#;

#[test]
fn a_file_is_read_as_people_write_it() {
    let configuration = ConfigurationLoader::new().toml("app.toml", FILE).load().unwrap();
    let InitialPosition::AtTimestamp(time) = configuration.initial_position else { panic!("no time") };
    assert_eq!(humantime::format_rfc3339(time).to_string(), "2026-01-31T12:00:00Z");
    assert_eq!(configuration.coordination, Coordination::PerLease);
    assert_eq!(configuration.checkpoint.policy, CheckpointChoice::Every);
    assert_eq!(configuration.checkpoint.interval, Some(Duration::from_secs(90)));
    assert_eq!(configuration.retrieval.mode, RetrievalMode::FanOut);
    assert_eq!(configuration.retrieval.fan_out.buffer_bytes, 32 << 20);
    assert_eq!(configuration.settings.lease_duration, Duration::from_secs(12));
    assert_eq!(configuration.settings.lease_scan_interval, Duration::from_millis(500));
    assert_eq!(configuration.settings.out_of_range, OutOfRange::DropAggregate);
    assert_eq!(configuration.settings.max_leases, 7);
    assert_eq!(configuration.lease_table.tags["team"], "orders");
}

#[test]
fn later_layers_go_over_earlier_ones_whatever_their_kind() {
    let configuration = ConfigurationLoader::new()
        .toml("app.toml", FILE)
        .toml("host.toml", "settings.leaseDuration = '20s'\nworkerId = 'of-file'")
        .variables([
            ("KCL_SETTINGS__LEASE_DURATION", "30s"),
            ("KCL_LEASE_TABLE__TAGS", "a=1, b=2"),
            ("KCL_SETTINGS__MAX_LEASES", "none"),
            ("PATH", "/bin"),
        ])
        .set("workerId", "of-program")
        .load()
        .unwrap();
    assert_eq!(configuration.settings.lease_duration, Duration::from_secs(30));
    assert_eq!(configuration.worker_id.as_deref(), Some("of-program"));
    assert_eq!(configuration.settings.max_leases, usize::MAX, "none takes the limit back");
    let tags: Vec<_> = configuration.lease_table.tags.into_iter().collect();
    assert_eq!(tags, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
}

/// A text for a value of this kind that is not a default.
fn sample(kind: Kind) -> String {
    match kind {
        Kind::Text => "https-text".to_owned(),
        Kind::Flag => "true".to_owned(),
        Kind::Number { least, .. } => (least + 1).to_string(),
        Kind::Bytes { least } => (least + 1).to_string(),
        Kind::Time { least, .. } => format!("{}ms", least + 1),
        Kind::Choice(choices) => choices.last().unwrap().to_lowercase(),
        Kind::Position => "LATEST".to_owned(),
        Kind::Names(names) => names[1..3].join(","),
        Kind::Tags => "team=orders".to_owned(),
    }
}

#[test]
fn every_key_is_taken_from_its_variable() {
    for key in KEYS {
        let text = sample(key.kind);
        let variable = format!("KCL_{}", key.variable());
        let by_variable = loader().variables([(variable.as_str(), text.as_str())]).load();
        let by_key = loader().set(key.path, text.as_str()).load();
        // Some values make no sense alone. Then both ways say the same.
        let said = |error: ConfigurationError| {
            let problems = error.problems().iter().cloned();
            problems.map(|problem| (problem.key, problem.message)).collect::<Vec<_>>()
        };
        assert_eq!(by_variable.map_err(said), by_key.map_err(said), "{variable}");
    }
}

#[test]
fn every_problem_is_listed_with_its_place() {
    let file = "application = 'orders-app'\n\
                leaseDuration = '5s'\n\
                [settings]\n\
                lease_duration = '5s'\n\
                maxLeases = 'seven'\n\
                callbackLimit = '10 parsecs'\n\
                retryInitial = '100us'\n\
                leaseScanInterval = '9s'\n\
                [retrival]\n\
                mode = 'polling'\n\
                [metrics]\n\
                level = 'all'\n\
                enabledDimensions = ['ShardId', 'Host']\n";
    let found = problems(
        ConfigurationLoader::new()
            .toml("app.toml", file)
            .variables([("KCL_SETTINGS__BATCH_RECORDS", "-3"), ("KCL_SETTINGS__LEASEDURATION", "5s")])
            .set("startMode", "asleep"),
    );
    let expected = [
        "app.toml:2: leaseDuration: there is no such key; is settings.leaseDuration meant?",
        "app.toml:4: settings.lease_duration: there is no such key; is settings.leaseDuration meant?",
        "app.toml:5: settings.maxLeases: \"seven\" is not allowed here; allowed is a number from 1, without quotes",
        "app.toml:6: settings.callbackLimit: \"10 parsecs\" is not allowed here; allowed is a time from 1ms to 365d, as \
         500ms, 10s or 5m; a plain number is milliseconds",
        "app.toml:7: settings.retryInitial: \"100us\": times are whole milliseconds",
        "app.toml:10: retrival.mode: there is no such key; is retrieval.mode meant?",
        "app.toml:12: metrics.level: \"all\" is not allowed here; allowed is None, Summary, Detailed",
        "app.toml:13: metrics.enabledDimensions: this list is not allowed here; allowed is a list of ALL, Operation, \
         ShardId, StreamId, WorkerIdentifier",
        "environment variable KCL_SETTINGS__BATCH_RECORDS: settings.batchRecords: \"-3\" is not allowed here; allowed is \
         a number from 1",
        "environment variable KCL_SETTINGS__LEASEDURATION: there is no such variable; is \
         KCL_SETTINGS__LEASE_DURATION meant?",
        "given by the program: startMode: \"asleep\" is not allowed here; allowed is Active, Standby",
        "default: stream: is required: the stream's name or ARN",
        "app.toml:8: settings.leaseScanInterval: must be above zero and at most 0.45 of the lease duration",
    ];
    let mut found: Vec<_> = found.iter().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_value_in_a_layer_that_is_covered_must_be_right_too() {
    let found = problems(loader().toml("app.toml", "settings.maxLeases = 0").set("settings.maxLeases", "5"));
    assert!(found[0].starts_with("app.toml:1: settings.maxLeases: 0 is not allowed"), "{found:?}");
}

#[test]
fn what_is_no_toml_is_said_with_its_lines_and_without_its_text() {
    let text =
        "application = 'a\nstream = 'orders'\nregion = s3cret s3cret\nworkerId = 'a'\nworkerId = 'b'\n";
    let found = problems(ConfigurationLoader::new().toml("app.toml", text)).join("\n");
    for line in ["app.toml:1: not TOML", "app.toml:3: not TOML", "app.toml:5: not TOML"] {
        assert!(found.contains(line), "{found}");
    }
    assert!(!found.contains("s3cret"), "{found}");
}

#[test]
fn a_file_that_is_not_there_is_a_problem_like_others() {
    let found = problems(ConfigurationLoader::new().file("no/such.toml").set("startMode", "x"));
    assert!(found.iter().any(|problem| problem.starts_with("no/such.toml: cannot be read")), "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("startMode")), "{found:?}");
}

#[test]
fn a_section_is_no_value_and_a_value_no_section() {
    let found =
        problems(loader().toml("a.toml", "settings = 5\napplication = { name = 'a' }\nmetrics.level.x = 1"));
    assert!(found.iter().any(|problem| problem.contains("write its keys below [settings]")), "{found:?}");
    assert!(
        found.iter().any(|problem| problem.starts_with("a.toml:2: application: this table")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|problem| problem.starts_with("a.toml:3: metrics.level: this table")),
        "{found:?}"
    );
    assert!(loader().toml("a.toml", "[settings]\n[metrics]").load().is_ok(), "empty sections say nothing");
}

#[test]
fn a_variable_of_somebody_else_must_be_named() {
    let with = || loader().variables([("KCL_LOG", "debug")]);
    let found = problems(with());
    assert!(found[0].contains("ignore_variables"), "{found:?}");
    assert!(with().ignore_variables(["KCL_LOG"]).load().is_ok());
}

#[test]
fn what_contradicts_is_refused() {
    for (toml, key) in [
        ("checkpoint.policy = 'Every'", "checkpoint.interval"),
        ("checkpoint.interval = '1s'", "checkpoint.interval"),
        ("leaseTable.billing = 'Provisioned'", "leaseTable.readCapacity"),
        ("leaseTable.readCapacity = 5", "leaseTable.readCapacity"),
        ("leaseTable = { create = false, pointInTimeRecovery = true }", "leaseTable.pointInTimeRecovery"),
        ("leaseTable = { lookForJavaLeader = false, coordinatorTable = 'x' }", "leaseTable.coordinatorTable"),
        ("leaseTable.name = 'a b'", "leaseTable.name"),
        ("leaseTable.requestTimeout = '4s'", "leaseTable.requestTimeout"),
        ("retrieval.fanOut.fallback.enabled = true", "retrieval.fanOut.fallback.enabled"),
        ("retrieval = { mode = 'FanOut', fanOut.consumerArn = 'orders' }", "retrieval.fanOut.consumerArn"),
        ("retrieval.polling.minInterval = '5s'", "retrieval.polling.maxInterval"),
        ("region = 'eu-west-1'\nstream = 'arn:aws:kinesis:us-east-1:1:stream/orders'", "region"),
        ("stream = 'arn:aws:dynamodb:us-east-1:1:table/orders'", "stream"),
        ("endpoints.kinesis = 'localhost:4566'", "endpoints.kinesis"),
        ("endpoints.dynamodb = 'https://me:s3cret@host'", "endpoints.dynamodb"),
        ("workerId = 'Leader'", "workerId"),
        ("metrics.namespace = 'AWS/Kinesis'", "metrics.namespace"),
        ("settings = { shardBufferBytes = '300MiB' }", "settings.workerBufferBytes"),
    ] {
        let found = loader().toml("a.toml", toml).load().unwrap_err();
        assert!(
            found.problems().iter().any(|problem| problem.key.as_deref() == Some(key)),
            "{toml}: {found}"
        );
        assert!(!found.to_string().contains("s3cret"), "{found}");
    }
}

#[test]
fn debug_shows_where_values_are_and_not_which() {
    let loader = ConfigurationLoader::new().toml("a.toml", "password = 's3cret'").set("workerId", "w");
    let shown = format!("{loader:?}");
    assert!(shown.contains("a.toml:1") && !shown.contains("s3cret"), "{shown}");
    let said = loader.load().unwrap_err().to_string();
    assert!(said.contains("password") && !said.contains("s3cret"), "{said}");
}
