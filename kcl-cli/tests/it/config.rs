//! `kcl config`, by the binary: it needs no service, no region and no credentials.

use std::path::PathBuf;
use std::process::{Command, Output};

use kcl_core::config::ConfigurationLoader;
use serde_json::Value;

const JAVA: &str = "applicationName = orders-app\nstreamName = orders\nexecutableName = sample.py\n\
                    AWSCredentialsProvider = DefaultAWSCredentialsProviderChain\n\
                    initialPositionInStream = TRIM_HORIZON\nretrievalMode = POLLING\nfailoverTimeMillis = 20000\n";

/// A file of its own for each test, gone when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kcl-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn kcl(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kcl"));
    let Output { status, stdout, stderr } =
        command.args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_file_of_java_becomes_toml_and_every_key_is_reported_beside_it() {
    let file = File::new("good.properties", JAVA);
    let (code, toml, report) = kcl(&["config", "convert", file.name()], &[]);
    assert_eq!(code, Some(0), "{report}");
    let configuration = ConfigurationLoader::new().toml("a.toml", &toml).load().unwrap();
    assert_eq!(configuration.settings.lease_duration.as_secs(), 20);
    assert!(toml.contains("# failoverTimeMillis, line 7\nleaseDuration = \"20s\""), "{toml}");
    for line in JAVA.lines() {
        assert!(report.contains(line.split(" = ").next().unwrap()), "{line}: {report}");
    }

    let (code, json, report) = kcl(&["config", "convert", file.name(), "--json"], &[]);
    assert_eq!((code, report.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["configuration"]["settings"]["leaseDuration"], 20_000);
    assert_eq!(json["report"]["entries"].as_array().unwrap().len(), 7);
    assert_eq!(kcl(&["config", "check", file.name()], &[]).0, Some(0));
}

#[test]
fn what_is_wrong_with_a_file_of_java_is_told_and_nothing_is_written() {
    let file = File::new("bad.properties", &format!("{JAVA}maxLeasesForWorker = 0x10\nmaxRecord = 5\n"));
    let (code, toml, report) = kcl(&["config", "convert", file.name()], &[]);
    assert_eq!((code, toml.as_str()), (Some(2), ""));
    assert!(report.contains(":8: maxLeasesForWorker: \"0x10\" is not a whole number"), "{report}");
    let (code, shown, _) = kcl(&["config", "check", file.name()], &[]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("is maxRecords meant?"), "{shown}");
    let (code, _, error) = kcl(&["config", "convert", file.name(), "--json"], &[]);
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((code, &error["error"]["kind"]), (Some(2), &Value::from("invalid")));
    assert!(error["error"]["message"].as_str().unwrap().contains("maxLeasesForWorker"), "{error}");
    // A key that nobody knows is to be looked at, and no reason not to convert.
    let file = File::new("odd.properties", &format!("{JAVA}maxRecord = 5\n"));
    assert_eq!(kcl(&["config", "check", file.name()], &[]).0, Some(1));
    assert_eq!(kcl(&["config", "convert", file.name()], &[]).0, Some(0));
}

#[test]
fn toml_is_checked_with_the_variables_if_asked_for() {
    let file =
        File::new("app.toml", "application = 'orders-app'\nstream = 'orders'\nsettings.maxLeases = 5\n");
    let variables = [("KCL_SETTINGS__MAX_LEASES", "none"), ("KCL_METRICS__LEVEL", "summary")];
    let (code, shown, _) = kcl(&["config", "check", file.name()], &variables);
    assert_eq!(code, Some(0));
    assert!(shown.contains("maxLeases = 5") && !shown.contains("Summary"), "{shown}");
    let (code, shown, _) = kcl(&["config", "check", "--with-environment", file.name()], &variables);
    assert_eq!(code, Some(0));
    assert!(!shown.contains("maxLeases") && shown.contains("level = \"Summary\""), "{shown}");
    let (code, shown, _) =
        kcl(&["config", "check", "--with-environment", "--json", file.name()], &[("KCL_METRICS__LEVE", "x")]);
    assert_eq!(code, Some(1));
    let json: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["problems"][0]["origin"]["name"], "KCL_METRICS__LEVE");
    assert!(json["configuration"].is_null());
}

#[test]
fn files_that_are_not_there_or_of_another_kind_are_refused() {
    assert_eq!(kcl(&["config", "check", "no/such.toml"], &[]).0, Some(2));
    let file = File::new("plain.toml", "");
    let (code, _, error) = kcl(&["config", "convert", file.name()], &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("does not end in .properties"), "{error}");
}
