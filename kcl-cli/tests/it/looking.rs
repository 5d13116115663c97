//! `status`, `audit`, `shards tree` and `cost` beside workers that run.

use std::time::Duration;

use kcl_cli::Outcome;
use kcl_core::Coordination;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{APPLICATION, Local, STREAM, java_lease};

#[tokio::test(start_paused = true)]
async fn a_fleet_at_work_is_shown_live_with_its_lag_and_without_problems() {
    let local = Local::with_stream(2).await;
    let workers = [local.worker("a", Coordination::Fleet), local.worker("b", Coordination::Fleet)];
    local.until("both work", |owners| owners.len() == 2 && owners[0] != owners[1] && owners[0] != "-").await;
    for key in 0..20 {
        local.put_record(&key.to_string()).await;
    }
    sleep(Duration::from_secs(20)).await;

    let ran = local.kcl("--json status --lag --watch 1s --count 8 --check").await;
    assert_eq!(ran.outcome.as_ref().ok(), Some(&Outcome::InOrder), "{}", ran.out);
    let states: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.len(), 8);
    let last = &states[7];
    assert_eq!(last["fleet"]["kind"], "fleet");
    assert_eq!(last["members"].as_array().unwrap().len(), 2);
    // Nobody named the stream: the rows do.
    assert!(last["stream"].as_str().unwrap().ends_with(":stream/orders"), "{last}");
    for shard in last["shards"].as_array().unwrap() {
        assert_eq!(shard["stage"], "processing", "{shard}");
        assert_eq!(shard["standing"]["state"], "live", "{shard}");
        assert_eq!(shard["lag_millis"], 0, "{shard}");
        assert!(shard["checkpoint_age_millis"].as_u64().unwrap() >= 20_000, "{shard}");
    }
    assert_eq!(local.writes().iter().filter(|name| name.contains("Item")).count(), 0, "it only looks");

    for worker in workers {
        worker.crash().await;
    }
    let ran = local.kcl("audit --watch").await;
    assert_eq!(ran.outcome.as_ref().ok(), Some(&Outcome::ProblemsFound), "{}", ran.out);
    assert!(ran.out.contains("dead-member") && ran.out.contains("owner-gone"), "{}", ran.out);
    assert!(ran.err.contains("watching the owners"), "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn lag_is_told_of_a_consumer_that_stopped() {
    let local = Local::with_stream(1).await;
    let worker = local.worker("a", Coordination::PerLease);
    local.until("it works", |owners| owners == ["a"]).await;
    local.put_record("first").await;
    sleep(Duration::from_secs(5)).await;
    worker.crash().await;
    local.put_record("second").await;
    sleep(Duration::from_secs(60)).await;
    local.put_record("third").await;
    sleep(Duration::from_secs(40)).await;

    let shown = local.kcl("--json checkpoint show --lag").await.json();
    let checkpoint = &shown["checkpoints"][0];
    assert!((60_000..120_000).contains(&checkpoint["lag_millis"].as_u64().unwrap()), "{checkpoint}");
    assert!(checkpoint["checkpoint_age_millis"].as_u64().unwrap() >= 105_000, "{checkpoint}");
    let named = local.kcl(&format!("status --stream {STREAM}")).await;
    named.outcome.as_ref().unwrap();
    assert!(named.out.contains("--lag looks at the stream"), "{}", named.out);
}

#[tokio::test(start_paused = true)]
async fn the_tree_shows_a_split_and_its_leases() {
    let local = Local::with_stream(1).await;
    let _worker = local.worker("a", Coordination::PerLease);
    local.until("it works", |owners| owners == ["a"]).await;
    let half = (u128::MAX / 2 + 1).to_string();
    let split = local.kinesis().split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key(half).send().await.unwrap();
    local.until("the children are worked on", |owners| owners == ["-", "a", "a"]).await;

    let ran = local.kcl("shards tree").await;
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].ends_with("3 shards, 2 open"), "{}", ran.out);
    assert!(lines[2].starts_with("shardId-000000000000  closed  SHARD_END"), "{}", ran.out);
    assert!(lines[3].starts_with("  shardId-000000000001  open"), "{}", ran.out);
    let status = local.kcl("--json status --check").await;
    assert_eq!(status.outcome.as_ref().ok(), Some(&Outcome::InOrder), "{}", status.out);
    assert_eq!(status.json()["shards"][0]["stage"], "ended");
}

#[tokio::test(start_paused = true)]
async fn cost_counts_leases_and_workers_in_the_table() {
    let local = Local::start();
    local.create_table(APPLICATION, "leaseKey").await;
    local.put(APPLICATION, java_lease("shardId-000000000000", Some("a"))).await;
    local.put(APPLICATION, java_lease("shardId-000000000001", Some("b"))).await;
    let cost = local.kcl("--json cost").await.json();
    assert_eq!((&cost["input"]["shards"], &cost["input"]["workers"]), (&2.into(), &2.into()));
    assert_eq!(cost["input"]["mode"], "java2");
    let text = local.kcl("cost --shards 100 --workers 4 --mode fleet --metrics detailed").await.out;
    assert!(text.contains("us-east-1") && text.contains("custom metrics"), "{text}");
}
