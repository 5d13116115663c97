//! `leases`, `checkpoint` and `reset`: what they write beside workers that live, and after those that died.

use std::time::Duration;

use kcl_cli::CliErrorKind;
use kcl_core::{Coordination, Event};
use kcl_local::faults::{Fault, Rule, Seen};
use kcl_local::wire::Service;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{APPLICATION, Local, SHARD, java_lease, text};

async fn at_work(coordination: Coordination) -> (Local, crate::support::Worker) {
    let local = Local::with_stream(1).await;
    let worker = local.worker("a", coordination);
    local.until("it works", |owners| owners.len() == 1 && owners[0].starts_with('a')).await;
    (local, worker)
}

#[tokio::test(start_paused = true)]
async fn a_live_lease_is_not_released_and_that_of_a_dead_worker_is() {
    for coordination in [Coordination::PerLease, Coordination::Fleet] {
        let (local, worker) = at_work(coordination).await;
        sleep(Duration::from_secs(20)).await;
        let refused = local.kcl(&format!("leases release {SHARD} --yes")).await;
        assert_eq!(refused.outcome.as_ref().unwrap_err().kind(), CliErrorKind::Refused);
        assert!(refused.failure().contains("the lease is live"), "{}", refused.failure());
        assert_eq!(local.writes(), [] as [&str; 0], "{coordination:?}");

        worker.crash().await;
        let begun = Instant::now();
        let released = local.kcl(&format!("leases release {SHARD} --yes")).await;
        released.outcome.as_ref().unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(9), "it watched for the lease duration");
        assert_eq!(local.owners().await, ["-"], "{coordination:?}");
        // The entry of the dead member goes first: else it could still come back to life under its lease.
        let evicts = released.err.find("remove-member");
        assert_eq!(evicts.is_some(), coordination == Coordination::Fleet, "{}", released.err);
        assert!(evicts < released.err.find("update shardId"), "{}", released.err);

        // Another worker goes on.
        let _other = local.worker("b", coordination);
        local.until("the other works", |owners| owners[0].starts_with('b')).await;
    }
}

#[tokio::test(start_paused = true)]
async fn force_fences_a_live_owner() {
    let (local, worker) = at_work(Coordination::PerLease).await;
    let mut events = worker.handle.events();
    let released = local.kcl(&format!("leases release {SHARD} --yes --force")).await;
    released.outcome.as_ref().unwrap();
    assert!(released.err.contains("WARNING") && released.err.contains("next renewal"), "{}", released.err);
    let lost = async { while !matches!(events.recv().await.unwrap(), Event::LeaseLost { .. }) {} };
    timeout(Duration::from_secs(30), lost).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_by_a_per_lease_worker() {
    let local = Local::with_stream(2).await;
    let _workers = [local.worker("a", Coordination::PerLease), local.worker("b", Coordination::PerLease)];
    local
        .until("both work", |owners| {
            owners.len() == 2 && owners[0] != owners[1] && !owners.contains(&"-".into())
        })
        .await;
    let owners = local.owners().await;
    let refused = local.kcl(&format!("leases hand-over {SHARD} --to nobody --yes")).await;
    assert!(refused.failure().contains("no lease names nobody"), "{}", refused.failure());
    let asked = local.kcl(&format!("leases hand-over {SHARD} --to {} --yes", owners[1])).await;
    asked.outcome.as_ref().unwrap();
    assert!(asked.err.contains("handOverRequest: (absent) -> "), "{}", asked.err);
    assert!(!asked.err.contains("leaseCounter:"), "a request moves no counter: {}", asked.err);
    let (before, to) = (owners[0].clone(), owners[1].clone());
    local.until("it is handed over", move |owners| owners[0] == to && owners[0] != before).await;
}

#[tokio::test(start_paused = true)]
async fn members_of_a_fleet_and_java_workers_are_not_asked() {
    let (local, _worker) = at_work(Coordination::Fleet).await;
    let refused = local.kcl(&format!("leases hand-over {SHARD} --to b --yes")).await;
    assert!(refused.failure().contains("members of a fleet take no requests"), "{}", refused.failure());

    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, Some("java-a"))).await;
    let refused = local.kcl(&format!("leases hand-over {SHARD} --to java-b --yes")).await;
    assert!(refused.failure().contains("do not know requests"), "{}", refused.failure());
    assert_eq!(local.writes(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_java_is_moved_once_its_owner_stands_still() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    let mut row = java_lease(SHARD, Some("java-a"));
    row.insert("theirOwn".into(), text("stays"));
    local.put(APPLICATION, row).await;
    local.put(APPLICATION, java_lease("shardId-000000000001", Some("java-b"))).await;
    let moved = local.kcl(&format!("leases move {SHARD} --to java-b --yes")).await;
    moved.outcome.as_ref().unwrap();
    let row = local.item(SHARD).await.unwrap();
    assert_eq!((&row["leaseOwner"], &row["theirOwn"]), (&text("java-b"), &text("stays")));
    assert_eq!(row["ownerSwitchesSinceCheckpoint"].as_n().unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_confirmation() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, None)).await;
    let before = local.item(SHARD).await;
    let line = format!("checkpoint set {SHARD} LATEST");

    let dry = local.kcl(&format!("--json {line} --dry-run")).await;
    let report = dry.json();
    assert_eq!((&report["dry_run"], &report["written"]), (&true.into(), &0.into()));
    assert_eq!(report["planned"][0]["row"], SHARD);
    assert!(report["planned"][0]["changes"].to_string().contains("TRIM_HORIZON -> LATEST"), "{report}");
    let unasked = local.kcl(&line).await;
    assert!(unasked.failure().contains("--yes"), "{}", unasked.failure());
    let declined = local.answered(&line, Some("no\n")).await;
    assert!(declined.failure().contains("not confirmed"), "{}", declined.failure());
    assert_eq!(local.writes(), [] as [&str; 0]);
    assert_eq!(local.item(SHARD).await, before);

    local.answered(&line, Some("yes\n")).await.outcome.unwrap();
    let after = local.item(SHARD).await.unwrap();
    assert_eq!(after["checkpoint"], text("LATEST"));
    assert!(
        after.contains_key("startTimestampMillis"),
        "LATEST means from now on, not from when a worker comes"
    );
}

#[tokio::test(start_paused = true)]
async fn a_time_is_not_written_for_java_workers_and_a_foreign_position_for_nobody() {
    let local = Local::with_stream(1).await;
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, None)).await;
    let line = format!("checkpoint set {SHARD} 2026-01-31T12:00:00Z --yes");
    assert!(local.kcl(&line).await.failure().contains("in their settings"));
    let forced = local.kcl(&format!("{line} --force")).await;
    forced.outcome.unwrap();
    let row = local.item(SHARD).await.unwrap();
    assert_eq!(row["checkpoint"], text("AT_TIMESTAMP"));
    assert_eq!(row["startTimestampMillis"].as_n().unwrap(), "1769860800000");

    let line = format!("checkpoint set {SHARD} 7 --yes --stream orders");
    assert!(local.kcl(&line).await.failure().contains("none of the shard"));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_recognised_and_a_lost_race_is_told() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease(SHARD, Some("a"))).await;
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", Fault::DropAnswer(Seen::Reset)).once());
    let released = local.kcl(&format!("--json leases release {SHARD} --yes")).await.json();
    assert_eq!((&released["written"], &released["stopped_by"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(local.item(SHARD).await.unwrap()["leaseCounter"].as_n().unwrap(), "13");

    // The request is on its way for a while, and somebody else is faster.
    let delay = Fault::DelayRequest(Duration::from_secs(5));
    local.faults.add(Rule::on(Service::DynamoDb, "UpdateItem", delay).once());
    let release = format!("checkpoint set {SHARD} LATEST --yes");
    let (ran, ()) = tokio::join!(local.kcl(&release), async {
        sleep(Duration::from_secs(2)).await;
        let mut row = java_lease(SHARD, Some("b"));
        row.insert("leaseCounter".into(), crate::support::number(14));
        local.put(APPLICATION, row).await;
    });
    assert_eq!(ran.outcome.as_ref().unwrap_err().kind(), CliErrorKind::LostRace);
    assert!(ran.out.contains("leaseOwner=b"), "{}", ran.out);
    assert_eq!(local.item(SHARD).await.unwrap()["checkpoint"], text("TRIM_HORIZON"));
}

#[tokio::test(start_paused = true)]
async fn a_reset_sets_every_lease_back_and_workers_read_again() {
    let (local, worker) = at_work(Coordination::Fleet).await;
    local.put_record("first").await;
    sleep(Duration::from_secs(10)).await;
    assert_ne!(local.item(SHARD).await.unwrap()["checkpoint"], text("TRIM_HORIZON"));
    let refused = local.kcl("reset --to TRIM_HORIZON --yes").await;
    assert_eq!(refused.outcome.as_ref().unwrap_err().kind(), CliErrorKind::Refused);
    worker.handle.shutdown(Duration::from_secs(20)).await;
    let reset = local.kcl("reset --to TRIM_HORIZON --yes").await;
    reset.outcome.as_ref().unwrap();
    let row = local.item(SHARD).await.unwrap();
    assert_eq!(row["checkpoint"], text("TRIM_HORIZON"));
    assert!(!row.contains_key("leaseOwner"));
    local.kcl("reset --delete-rows --yes").await.outcome.unwrap();
    assert!(local.item(SHARD).await.is_none());
}
