//! Tables that are none, or of another kind, and services that refuse.

use kcl_cli::CliErrorKind;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;

use crate::support::{APPLICATION, Local, SHARD, item, java_lease, number, text};

/// Every command that reads or writes a table.
const COMMANDS: [&str; 9] = [
    "status",
    "audit",
    "leases list",
    "leases release shardId-000000000000 --yes --force",
    "leases move shardId-000000000000 --to w --yes --force",
    "checkpoint set shardId-000000000000 LATEST --yes --force",
    "reset --to LATEST --yes --force",
    "reset --delete-rows --yes --force",
    "export",
];

#[tokio::test(start_paused = true)]
async fn a_table_of_another_kind_is_described_and_not_touched() {
    let by_key = Local::start();
    by_key.create_table(APPLICATION, "userId").await;
    by_key.put(APPLICATION, item([("userId", text("u1")), ("email", text("a@b"))])).await;
    let by_rows = Local::start();
    by_rows.create_table(APPLICATION, "leaseKey").await;
    by_rows.put(APPLICATION, item([("leaseKey", text("flat 7")), ("rent", number(900))])).await;
    for (local, seen) in [
        (&by_key, ["userId (S, HASH)", "{email, userId}"]),
        (&by_rows, ["none of its rows is a lease", "{leaseKey, rent}"]),
    ] {
        for command in COMMANDS {
            let ran = local.kcl(command).await;
            assert_eq!(ran.outcome.as_ref().unwrap_err().kind(), CliErrorKind::ForeignTable, "{command}");
            for part in seen.into_iter().chain(["nothing was touched"]) {
                assert!(ran.failure().contains(part), "{command}: {part} in {}", ran.failure());
            }
        }
        assert_eq!(local.writes(), [] as [&str; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_describe_the_rows_tell_what_the_table_is() {
    let local = Local::start();
    local.create_table(APPLICATION, "userId").await;
    local.put(APPLICATION, item([("userId", text("u1"))])).await;
    let denied = Fault::Fail(Seen::Error(errors::access_denied()));
    local.faults.add(Rule::on(Service::DynamoDb, "DescribeTable", denied));
    let ran = local.kcl("leases list").await;
    assert!(ran.failure().contains("its rows have no leaseKey"), "{}", ran.failure());
}

#[tokio::test(start_paused = true)]
async fn what_keeps_the_tool_from_the_table_is_said_with_a_remedy() {
    let local = Local::start();
    for command in COMMANDS {
        let ran = local.kcl(command).await;
        assert_eq!(ran.outcome.as_ref().unwrap_err().kind(), CliErrorKind::Missing, "{command}");
        assert!(ran.failure().contains("--application"), "{}", ran.failure());
    }
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, None)).await;
    for (error, kind, part) in [
        (errors::access_denied(), CliErrorKind::Denied, "dynamodb:Scan"),
        (errors::provisioned_throughput_exceeded(), CliErrorKind::Throttled, "capacity"),
        (errors::internal_server_error(), CliErrorKind::Unavailable, "try again"),
    ] {
        let rule = local.faults.add(Rule::on(Service::DynamoDb, "Scan", Fault::Fail(Seen::Error(error))));
        let ran = local.kcl("leases list").await;
        assert_eq!(ran.outcome.as_ref().unwrap_err().kind(), kind, "{}", ran.failure());
        assert!(ran.failure().contains(part), "{part} in {}", ran.failure());
        rule.switch_off();
    }
    let throttled = Fault::Fail(Seen::Error(errors::provisioned_throughput_exceeded()));
    local.faults.add(Rule::on(Service::DynamoDb, "Scan", throttled).calls(1..=2));
    local.kcl("leases list").await.outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_or_lease_that_does_not_exist_is_named() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, None)).await;
    let ran = local.kcl("status --stream nowhere").await;
    assert_eq!(ran.outcome.as_ref().unwrap_err().kind(), CliErrorKind::Missing, "{}", ran.failure());
    assert!(ran.failure().contains("nowhere") && ran.failure().contains("--stream"), "{}", ran.failure());
    let ran = local.kcl("leases show shardId-7").await;
    assert!(
        ran.failure().contains("shardId-7") && ran.failure().contains("leases list"),
        "{}",
        ran.failure()
    );
    let ran = local.kcl("status --lag").await;
    assert!(ran.failure().contains("give --stream"), "{}", ran.failure());
}
