//! The binary over sockets: exit codes, where output goes, the environment.

use std::process::{Output, Stdio};

use kcl_local::LocalAws;
use serde_json::Value;

const TABLE: &str = "orders-app";

async fn kcl(aws: &LocalAws, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kcl"));
    command
        .args(arguments)
        .env_clear()
        .env("AWS_ENDPOINT_URL", aws.endpoint_url())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .stdin(Stdio::null());
    command.output().await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_binary_speaks_json_keeps_its_exit_codes_and_asks_before_it_writes() {
    let aws = LocalAws::start().await.unwrap();
    let local = crate::support::Local::over(aws);
    let missing = kcl(&local.aws, &["--application", TABLE, "--json", "leases", "list"]).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(missing.stdout.is_empty());
    let error: Value = serde_json::from_slice(&missing.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "missing");

    local.create_table(TABLE, "leaseKey").await;
    local.put(TABLE, crate::support::java_lease("shardId-000000000000", None)).await;
    let list = kcl(&local.aws, &["leases", "list", "-a", TABLE, "--json"]).await;
    assert_eq!(list.status.code(), Some(0), "{}", text(&list.stderr));
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["leases"][0]["checkpoint"], "TRIM_HORIZON");

    let sound = kcl(&local.aws, &["audit", "-a", TABLE]).await;
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stdout));
    let mut broken = crate::support::java_lease("shardId-000000000001", None);
    broken.remove("leaseCounter");
    local.put(TABLE, broken).await;
    let audit = kcl(&local.aws, &["audit", "-a", TABLE]).await;
    assert_eq!(audit.status.code(), Some(1), "{}", text(&audit.stderr));
    assert!(text(&audit.stdout).contains("unreadable-row"), "{}", text(&audit.stdout));

    let set = ["checkpoint", "set", "shardId-000000000000", "LATEST", "-a", TABLE];
    let unconfirmed = kcl(&local.aws, &set).await;
    assert_eq!(unconfirmed.status.code(), Some(2));
    assert!(text(&unconfirmed.stderr).contains("--yes"), "{}", text(&unconfirmed.stderr));
    let confirmed = kcl(&local.aws, &[&set[..], &["--yes"]].concat()).await;
    assert_eq!(confirmed.status.code(), Some(0), "{}", text(&confirmed.stderr));
    assert!(text(&confirmed.stderr).contains("TRIM_HORIZON -> LATEST"), "{}", text(&confirmed.stderr));
    assert!(text(&confirmed.stdout).contains("1 of 1 writes"), "{}", text(&confirmed.stdout));

    let usage = kcl(&local.aws, &["leases", "release"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let estimate = kcl(&local.aws, &["shards", "estimate", "--record-size", "2KB", "--rate", "5000"]).await;
    assert!(text(&estimate.stdout).starts_with("14 shards"), "{}", text(&estimate.stdout));
    let prices = kcl(&local.aws, &["cost", "--print-prices"]).await;
    assert!(text(&prices.stdout).contains("[dynamodb]"));
}
