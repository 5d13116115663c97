//! `export` and `import`.

use std::path::PathBuf;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::Coordination;
use tokio::time::{Duration, sleep};

use crate::support::{APPLICATION, Local, SHARD, item, java_lease, number, text};

/// A file of a test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("kcl-cli-test-{}-{name}.json", std::process::id())))
    }

    fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_comes_back_as_it_was_known_attributes_and_unknown_ones() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    let mut row = java_lease(SHARD, Some("java-a"));
    for (name, value) in [
        ("pendingCheckpointState", AttributeValue::B(Blob::new([0, 1, 255]))),
        ("throughputKBps", AttributeValue::N("0.00012".into())),
        ("childShardIds", AttributeValue::Ss(vec!["b".into(), "a".into()])),
        (
            "theirOwn",
            AttributeValue::M(item([("deep", AttributeValue::L(vec![AttributeValue::Null(true)]))])),
        ),
    ] {
        row.insert(name.into(), value);
    }
    let leader =
        item([("leaseKey", text("Leader")), ("entityType", text("LEADER")), ("ownerName", text("x"))]);
    let broken = item([("leaseKey", text("shardId-000000000009")), ("checkpoint", number(5))]);
    for row in [row, leader, broken] {
        local.put(APPLICATION, row).await;
    }
    let file = Scratch::new("round-trip");
    local.kcl(&format!("export --output {}", file.path())).await.outcome.unwrap();

    let elsewhere = format!("import {} --table copy --create-table --yes", file.path());
    local.kcl(&elsewhere).await.outcome.unwrap();
    assert_eq!(local.items("copy").await, local.items(APPLICATION).await);
    let again = local.kcl(&elsewhere).await;
    again.outcome.as_ref().unwrap();
    assert!(again.err.contains("3 rows are there already"), "{}", again.err);
    let printed = local.kcl("export").await.out;
    assert!(printed.contains("\"format\": \"kcl-table/1\""), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_changed_are_kept_unless_overwritten_and_live_ones_are_refused() {
    let local = Local::with_stream(1).await;
    let worker = local.worker("a", Coordination::PerLease);
    local.until("it works", |owners| owners == ["a"]).await;
    let file = Scratch::new("overwrite");
    local.kcl(&format!("export -o {}", file.path())).await.outcome.unwrap();
    let exported = local.item(SHARD).await.unwrap();
    local.put_record("first").await;
    sleep(Duration::from_secs(10)).await;

    let kept = local.kcl(&format!("import {} --yes", file.path())).await;
    kept.outcome.as_ref().unwrap();
    assert!(kept.err.contains("--overwrite replaces them"), "{}", kept.err);
    let refused = local.kcl(&format!("import {} --overwrite --yes", file.path())).await;
    assert!(refused.failure().contains("the lease is live"), "{}", refused.failure());
    assert_eq!(local.writes(), [] as [&str; 0]);

    worker.crash().await;
    local.kcl(&format!("import {} --overwrite --yes", file.path())).await.outcome.unwrap();
    assert_eq!(local.item(SHARD).await.unwrap(), exported);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_is_not_brought_back_to_life_by_an_import() {
    let local = Local::with_stream(1).await;
    let worker = local.worker("a", Coordination::Fleet);
    local.until("it works", |owners| owners[0].starts_with('a')).await;
    let file = Scratch::new("fleet");
    local.kcl(&format!("export -o {}", file.path())).await.outcome.unwrap();
    worker.crash().await;
    let copy = local.kcl(&format!("import {} --table copy --create-table --yes", file.path())).await;
    copy.outcome.as_ref().unwrap();
    assert!(copy.err.contains("1 fleet rows of the file are left out"), "{}", copy.err);
    assert_eq!(local.items("copy").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_export_is_refused_before_anything_is_read() {
    let local = Local::start();
    let file = Scratch::new("bad");
    std::fs::write(&file.0, "{}").unwrap();
    let refused = local.kcl(&format!("import {} --yes", file.path())).await;
    assert!(refused.failure().contains("no export"), "{}", refused.failure());
    let missing = local.kcl("import /nonexistent/file --yes").await;
    assert!(missing.failure().contains("cannot read"), "{}", missing.failure());
    assert!(local.faults.recorded().is_empty());
}
