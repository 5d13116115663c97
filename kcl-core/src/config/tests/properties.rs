use std::collections::BTreeMap;

use java_properties::{LineContent, PropertiesIter};
use proptest::prelude::*;

use super::super::key::{Kind, key};
use super::super::parts::{MetricsChoice, RetrievalMode};
use super::super::properties::JAVA_KEYS;
use super::super::value::at;
use super::super::{
    Configuration, ConfigurationLoader, Conversion, PropertyTreatment as Treatment, convert_properties,
};
use crate::model::InitialPosition;
use crate::scheduler::Coordination;

/// What every file needs.
const BASE: &str = "applicationName = orders-app\nstreamName = orders\n";

fn convert(text: &str) -> Conversion {
    convert_properties("app.properties", format!("{BASE}{text}").as_bytes())
}

fn configuration(text: &str) -> Configuration {
    let conversion = convert(text);
    conversion.configuration.unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn treatment(text: &str, key: &str) -> Treatment {
    let conversion = convert(text);
    conversion.report.entries.into_iter().rfind(|entry| entry.key == key).unwrap().treatment
}

fn problems(text: &str) -> Vec<String> {
    convert(text).report.problems.iter().map(ToString::to_string).collect()
}

/// A value that Java takes for this setting, and what it is when it is serialised.
fn sample(path: &str) -> (String, serde_json::Value) {
    let number = |number: u64| (number.to_string(), serde_json::json!(number));
    match (path, key(path).unwrap().kind) {
        ("endpoints.kinesis" | "endpoints.dynamodb" | "endpoints.cloudwatch", _) => {
            ("http://localhost:4566".to_owned(), "http://localhost:4566".into())
        }
        ("retrieval.fanOut.consumerArn", _) => {
            let arn = "arn:aws:kinesis:eu-west-1:1:stream/orders/consumer/app:1";
            (arn.to_owned(), arn.into())
        }
        ("settings.callbackLimit", _) => ("7".to_owned(), 7_000.into()),
        ("retrieval.mode", _) => ("polling".to_owned(), "Polling".into()),
        (_, Kind::Position) => ("trim_horizon".to_owned(), "TRIM_HORIZON".into()),
        (_, Kind::Text) => ("other-name".to_owned(), "other-name".into()),
        (_, Kind::Flag) => ("Yes ".to_owned(), true.into()),
        (_, Kind::Number { .. } | Kind::Time { .. }) => {
            let (text, value) = number(7_001);
            (format!("{text}  "), value)
        }
        (_, Kind::Choice(_)) => ("SUMMARY".to_owned(), "Summary".into()),
        (_, Kind::Names(_)) => ("ShardId, Operation".to_owned(), serde_json::json!(["ShardId", "Operation"])),
        (path, kind) => panic!("{path}: {kind:?} has no key of Java"),
    }
}

#[test]
fn every_key_of_java_is_handled() {
    for java in JAVA_KEYS {
        let name = java.name;
        let Some(path) = java.rule.path() else {
            assert!(
                matches!(treatment(&format!("{name} = 5"), name), Treatment::WithoutMeaning { .. }),
                "{name}"
            );
            continue;
        };
        let (text, expected) = sample(path);
        let (text, expected) = match name {
            "initialPositionInStreamExtended" => ("1700000000".to_owned(), "2023-11-14T22:13:20Z".into()),
            _ => (text, expected),
        };
        let fan_out = if name.starts_with("fanout") { "retrievalMode = FANOUT\n" } else { "" };
        let line = format!("{fan_out}{name} = {text}");
        match treatment(&line, name) {
            Treatment::Taken { setting, .. } | Treatment::Renamed { setting, .. } => {
                assert_eq!(setting, path)
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(at(&configuration(&line).values(), path), Some(&expected), "{name}");
    }
}

#[test]
fn a_wrong_value_is_never_a_default() {
    for java in JAVA_KEYS {
        let Some(path) = java.rule.path() else { continue };
        let wrong: &[&str] = match key(path).unwrap().kind {
            Kind::Text => continue,
            Kind::Flag => &["maybe", "", "2"],
            Kind::Number { .. } | Kind::Time { .. } => {
                &["abc", "0x10", "-5", "1.5", "10s", "", "99999999999999999999"]
            }
            Kind::Names(_) => &["Host"],
            _ => &["abc", "", "-1"],
        };
        for value in wrong {
            let text = format!("{} = {value}", java.name);
            let found = problems(&text);
            let start = format!("app.properties:3: {}: ", java.name);
            assert!(found.len() == 1 && found[0].starts_with(&start), "{text}: {found:?}");
            assert!(matches!(treatment(&text, java.name), Treatment::Wrong { .. }), "{text}");
        }
    }
}

#[test]
fn every_wrong_value_is_told_at_once() {
    let found = problems(
        "failoverTimeMillis = abc\nmaxLeasesForWorker = 0x10\n\nmaxRecords = 10001\nstreamArn = x y\n",
    );
    let lines: Vec<_> =
        found.iter().map(|problem| problem.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "app.properties:3 failoverTimeMillis",
            "app.properties:4 maxLeasesForWorker",
            "app.properties:6 maxRecords",
            "app.properties:7 streamArn"
        ]
    );
    assert!(found[0].contains("Java takes its default for it without a word"), "{found:?}");
    assert!(found[2].contains("from 1 to 10000"), "{found:?}");
}

#[test]
fn what_java_takes_when_nothing_is_said_is_taken_and_told() {
    let conversion = convert("");
    let configuration = conversion.configuration.clone().unwrap();
    assert_eq!(configuration.initial_position, InitialPosition::Latest);
    assert_eq!(configuration.retrieval.mode, RetrievalMode::FanOut);
    assert_eq!(configuration.metrics.level, MetricsChoice::Detailed);
    assert_eq!(configuration.coordination, Coordination::PerLease);
    let told: Vec<_> = conversion.report.assumptions.iter().map(|told| told.setting.as_str()).collect();
    for setting in
        ["initialPosition", "retrieval.mode", "metrics.level", "settings.shutdownDeadline", "coordination"]
    {
        assert!(told.contains(&setting), "{told:?}");
    }
    // Each is in the file that is written, too, with its reason.
    let toml = conversion.to_toml().unwrap();
    assert!(toml.contains("# No initialPositionInStream: Java starts at LATEST"), "{toml}");
    assert!(toml.contains("shutdownDeadline = \"30s\""), "{toml}");
}

#[test]
fn a_polling_key_makes_java_poll_unless_the_mode_is_set() {
    let mode = |text: &str| configuration(text).retrieval.mode;
    assert_eq!(mode("maxRecords = 5"), RetrievalMode::Polling);
    assert_eq!(mode("pollingConfig.maxRecords = 5"), RetrievalMode::Polling);
    assert_eq!(
        mode("retryGetRecordsInSeconds = 5"),
        RetrievalMode::Polling,
        "one that means nothing counts, too"
    );
    assert_eq!(mode("maxRecords = 5\nretrievalMode = DEFAULT"), RetrievalMode::Polling);
    assert_eq!(mode("maxRecords = 5\nretrievalMode = fanout"), RetrievalMode::FanOut);
    assert_eq!(mode("retrievalMode = DEFAULT"), RetrievalMode::FanOut);
    assert_eq!(mode("retrievalMode = Polling"), RetrievalMode::Polling);
}

#[test]
fn a_zero_that_java_ignores_is_honoured_and_told_or_refused() {
    let Treatment::Renamed { value, note, .. } = treatment("shutdownGraceMillis = 0", "shutdownGraceMillis")
    else {
        panic!("not taken")
    };
    assert_eq!(value, "\"0ms\"");
    assert!(note.unwrap().contains("Java takes its default for 0"));
    let found = problems("maxLeasesForWorker = 0");
    assert!(found[0].contains("leave the key out for the default"), "{found:?}");
    let Treatment::WithoutMeaning { why, .. } =
        treatment("cleanupLeasesUponShardCompletion = false", "cleanupLeasesUponShardCompletion")
    else {
        panic!("has a meaning")
    };
    assert!(why.contains("Java takes false for its default"), "{why}");
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_and_its_value_is_not_shown() {
    let conversion = convert("FailoverTimeMillis = s3cret\nmaxRecord = s3cret\ncom.example.x = s3cret\n");
    let nearest: Vec<_> = conversion
        .report
        .entries
        .iter()
        .skip(2)
        .map(|entry| match &entry.treatment {
            Treatment::Unknown { nearest } => nearest.as_deref(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nearest, [Some("failoverTimeMillis"), Some("maxRecords"), None]);
    assert!(conversion.configuration.is_ok() && !conversion.report.is_in_order());
    let shown =
        format!("{conversion:?}{}{}", conversion.report, serde_json::to_string(&conversion.report).unwrap());
    assert!(!shown.contains("s3cret"));
}

#[test]
fn credentials_are_told_by_class_in_any_spelling_of_the_key() {
    for name in ["AwsCredentialsProvider", "AWSCredentialsProvider", "awscredentialsproviderDynamoDB"] {
        let line = format!("{name} = StsAssumeRoleCredentialsProvider|arn:s3cret|session");
        let Treatment::WithoutMeaning { instead, .. } = treatment(&line, name) else { panic!("{name}") };
        assert!(instead.contains("AssumeRoleProvider") && !instead.contains("s3cret"), "{instead}");
    }
    assert!(matches!(
        treatment("AwsCredentialsProviderX = y", "AwsCredentialsProviderX"),
        Treatment::Unknown { .. }
    ));
}

#[test]
fn the_last_line_of_a_key_counts_as_in_java() {
    let conversion = convert("maxRecords = abc\nmaxRecords = 7\n");
    assert_eq!(conversion.report.entries[2].treatment, Treatment::Replaced { by_line: 4 });
    assert_eq!(conversion.configuration.unwrap().retrieval.polling.fetch_records, 7);
}

#[test]
fn two_names_of_one_setting_must_agree() {
    let found = problems("workerId = a\nworkerIdentifier = b");
    assert!(found.len() == 1 && found[0].contains("workerId in line 3 says something else"), "{found:?}");
    assert!(problems("workerId = a\nworkerIdentifier = a").is_empty());
    let found = problems("initialPositionInStream = LATEST\ninitialPositionInStreamExtended = 5");
    assert!(found.len() == 1 && found[0].contains("by chance"), "{found:?}");
}

#[test]
fn an_arn_wins_over_a_name() {
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
    assert_eq!(configuration(&format!("streamArn = {arn}")).stream, arn);
    let text = format!("applicationName = orders-app\nstreamArn = {arn}\nstreamName = other\n");
    let conversion = convert_properties("a", text.as_bytes());
    assert_eq!(conversion.configuration.unwrap().stream, arn);
    assert!(matches!(conversion.report.entries[2].treatment, Treatment::WithoutMeaning { .. }));
}

#[test]
fn what_a_file_must_have_is_demanded() {
    let conversion = convert_properties("a.properties", b"maxRecords = 5\n");
    let found: Vec<_> = conversion.report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a.properties: applicationName: is required"), "{found:?}");
    assert!(found[1].starts_with("a.properties: streamName: is required"), "{found:?}");
    assert!(conversion.configuration.is_err() && conversion.to_toml().is_err());
}

#[test]
fn short_leases_bring_what_depends_on_them_along() {
    for millis in [1_000, 2_000, 5_000, 8_000, 10_000, 600_000] {
        let configuration =
            configuration(&format!("failoverTimeMillis = {millis}\nidleTimeBetweenReadsInMillis=4000"));
        assert_eq!(configuration.settings.lease_duration.as_millis(), millis);
    }
    assert!(problems("failoverTimeMillis = 700000")[0].contains("a time from 1s to 10m"));
}

#[test]
fn fan_out_keys_mean_nothing_while_polling() {
    let text = "retrievalMode = POLLING\nfanoutConfig.consumerName = c";
    assert!(matches!(treatment(text, "fanoutConfig.consumerName"), Treatment::WithoutMeaning { .. }));
    assert!(convert(text).configuration.is_ok());
    let arn = "fanoutConfig.consumerArn = arn:aws:kinesis:eu-west-1:1:stream/orders/consumer/c:1";
    let text = format!("{arn}\nfanoutConfig.consumerName = c");
    assert!(matches!(treatment(&text, "fanoutConfig.consumerName"), Treatment::WithoutMeaning { .. }));
}

#[test]
fn a_file_is_read_as_java_reads_it() {
    let text = "# comment\n! comment\napplicationName:orders\\u002dapp\nstreamName orders\\\n   -x\nmaxRecords\\\n = 5\n\
                processingLanguage = python/3.9 \n";
    let conversion = convert_properties("a", text.as_bytes());
    let configuration = conversion.configuration.unwrap();
    assert_eq!(
        (configuration.application.as_str(), configuration.stream.as_str()),
        ("orders-app", "orders-x")
    );
    assert_eq!(configuration.retrieval.polling.fetch_records, 5);
    let broken = convert_properties("a", b"applicationName = a\nstreamName = \\u12\nmaxRecords = 5\n");
    assert!(broken.report.problems[0].to_string().starts_with("a:2: cannot be read from here on"));
}

#[test]
fn the_report_is_a_table_for_people() {
    let report =
        convert("failoverTimeMillis = 9000\nexecutableName = x.py\nmaxRecord = 1\nmaxRecords = x\n").report;
    let text = report.to_string();
    for part in [
        "app.properties: 6 keys",
        "    1  applicationName     renamed     application = \"orders-app\"",
        "    3  failoverTimeMillis  renamed     settings.leaseDuration = \"9s\"",
        "    4  executableName      no meaning  there is no MultiLang daemon",
        "instead: implement RecordProcessor",
        "    5  maxRecord           UNKNOWN     is maxRecords meant?",
        "    6  maxRecords          WRONG       \"x\" is not a whole number",
        "Where the file says nothing:",
        "  initialPosition = \"LATEST\"",
        "- app.properties:6: maxRecords: ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["entries"][2]["treatment"], "renamed");
    assert_eq!(json["entries"][2]["setting"], "settings.leaseDuration");
    assert_eq!(json["entries"][4]["nearest"], "maxRecords");
}

/// Text that looks like a file, or like nothing.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<_> = JAVA_KEYS.iter().map(|key| key.name).collect();
    let name = prop_oneof![
        4 => proptest::sample::select(names).prop_map(str::to_owned),
        1 => "[a-zA-Z.\\\\ =:\u{e9}]{0,20}",
    ];
    let value = prop_oneof!["[0-9]{1,22}", "-?[0-9]{1,6}", "[ -~]{0,20}", Just("TRUE".to_owned())];
    let lines = proptest::collection::vec((name, value), 0..20)
        .prop_map(|lines| {
            lines.into_iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()
        })
        .prop_map(String::into_bytes);
    prop_oneof![3 => lines, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn every_key_in_any_file_is_in_the_report(bytes in files()) {
        let conversion = convert_properties("a", &bytes);
        let mut expected = Vec::new();
        for line in PropertiesIter::new(&bytes[..]) {
            let Ok(line) = line else { break };
            let number = line.line_number();
            if let LineContent::KVPair(key, _) = line.consume_content() {
                expected.push((number, key));
            }
        }
        let found: Vec<_> = conversion.report.entries.iter().map(|entry| (entry.line, entry.key.clone())).collect();
        prop_assert_eq!(found, expected);
        // What the report calls wrong is a problem, and with a problem there is no configuration.
        let wrong: BTreeMap<_, _> = conversion.report.entries.iter()
            .filter(|entry| matches!(entry.treatment, Treatment::Wrong { .. }))
            .map(|entry| (entry.line, &entry.key)).collect();
        prop_assert!(wrong.len() <= conversion.report.problems.len());
        prop_assert_eq!(conversion.configuration.is_ok(), conversion.report.problems.is_empty());
        let _ = conversion.report.to_string();
    }

    #[test]
    fn what_is_converted_loads_as_the_same(
        lines in proptest::collection::vec(
            (proptest::sample::select(JAVA_KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
             prop_oneof!["[1-9][0-9]{3}", "true|LATEST|summary|fanout|ShardId", Just("http://host".to_owned())]),
            0..12,
        )
    ) {
        // What is wrong is left out, so that most files convert.
        let fits = |(name, value): &&(&str, String)| {
            let problems = problems(&format!("{name} = {value}"));
            problems.is_empty() && *name != "streamName" && *name != "applicationName"
        };
        let text: String = lines.iter().filter(fits).map(|(name, value)| format!("{name} = {value}\n")).collect();
        let conversion = convert(&text);
        if let Ok(configuration) = &conversion.configuration {
            let toml = conversion.to_toml().unwrap();
            let loaded = ConfigurationLoader::new().toml("a.toml", &toml).load();
            prop_assert_eq!(loaded.as_ref(), Ok(configuration), "{}", toml);
        }
    }
}
