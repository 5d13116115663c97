//! What is counted: the same by both stores, and what there is no answer to.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config};
use kcl_core::Entropy;
use kcl_core::fleet::{FleetEntry, FleetRowKey, Gave, MEMBERS_PER_ROW, MemberState};
use kcl_core::lease::{
    AttemptToken, Change, Consistency, Expectation, FleetChange, Lease, LeaseStore, Patch, PendingCheckpoint,
    StoreOperation, Write,
};
use kcl_core::model::{Checkpoint, HashKeyRange, Position, ShardId, StreamIdentity, WorkerId};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::error::ApiError;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;

use crate::support::Local;

const ROW: FleetRowKey = FleetRowKey::FIRST;
const BOTH: [Consistency; 2] = [Consistency::Strong, Consistency::Eventual];

/// A lease with every attribute; its state has so many bytes.
fn lease(index: u64, state: usize) -> Lease {
    let mut lease = Lease::new(format!("shardId-{index:012}").into(), Checkpoint::TrimHorizon);
    lease.counter = index * 100;
    lease.owner = Some("worker-ü".into());
    lease.checkpoint = Checkpoint::At(Position::new((index * 7_919).into(), index));
    let state = Some(vec![7; state].into());
    lease.pending = Some(PendingCheckpoint { position: Position::new(12.into(), 10), state });
    lease.parents = ["shardId-1".into(), "shardId-2".into()].into();
    lease.hash_key_range = HashKeyRange::new(0, u128::MAX / 3).ok();
    lease.start_timestamp = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123));
    let arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders".into();
    lease.stream = Some(StreamIdentity { arn, created_millis: 1_780_000_000_456 });
    lease.token = Some(AttemptToken(Entropy::seeded(index).uuid()));
    lease
}

/// A row whose size passes the bounds of 1 KB and of 4 KB byte by byte, so that an error of one byte shows.
async fn lease_calls(store: &dyn LeaseStore) {
    let any = Expectation::default();
    let stale = Expectation { counter: Some(u64::MAX >> 1), ..any.clone() };
    for (index, state) in (1..).zip([400..420, 3_470..3_490].into_iter().flat_map(|around| {
        let (first, last) = (around.start - 60, around.end + 60);
        first..last
    })) {
        let row = lease(index, state);
        assert!(matches!(store.create(&row).await.unwrap(), Write::Applied(_)));
        assert!(matches!(store.create(&row).await.unwrap(), Write::Conflict(Some(_))));
        for consistency in BOTH {
            assert!(store.get(&row.shard, consistency).await.unwrap().is_some());
        }
        for patch in [
            Patch { counter: Some(row.counter + 1), ..Patch::default() },
            Patch { owner: Change::Set("w".repeat(700).into()), ..Patch::default() },
            Patch { pending: Change::Remove, owner: Change::Remove, ..Patch::default() },
        ] {
            assert!(matches!(store.update(&row.shard, &stale, &patch).await.unwrap(), Write::Conflict(_)));
            assert!(matches!(store.update(&row.shard, &any, &patch).await.unwrap(), Write::Applied(_)));
        }
        assert!(matches!(store.delete(&row.shard, &stale).await.unwrap(), Write::Conflict(_)));
        assert!(matches!(store.delete(&row.shard, &any).await.unwrap(), Write::Applied(_)));
    }
}

async fn fleet_calls(store: &dyn LeaseStore) {
    let id = |number: usize| WorkerId::from(format!("worker-{number}:f0"));
    let entry = |heartbeat: u64, gives: u64| {
        let mut entry = FleetEntry::new(Duration::from_millis(10_500), MemberState::Active);
        (entry.heartbeat, entry.load, entry.cpu) = (heartbeat, heartbeat * 1_001, Some(40));
        entry.limits.leases = Some(64);
        let gives: Vec<_> = (0..gives).map(|n| (ShardId::from(format!("shardId-{n:012}")), id(3))).collect();
        entry.gave = Gave::of(gives.iter().map(|(shard, to)| (shard, to)));
        entry
    };
    let mut changes = vec![FleetChange::Create, FleetChange::Create];
    for number in 0..=MEMBERS_PER_ROW {
        let worker = id(number);
        changes.push(FleetChange::Join { worker: worker.clone(), entry: entry(0, 0) });
        for (heartbeat, gives) in [(10, 0), (101, 5), (100, 0), (1_000, 40), (1_001, number as u64)] {
            changes.push(FleetChange::Beat { worker: worker.clone(), entry: entry(heartbeat, gives) });
        }
        changes.push(FleetChange::Rows(u32::try_from(number).unwrap() / 2 * 5));
    }
    for number in 0..MEMBERS_PER_ROW {
        changes.push(FleetChange::DeleteEmpty);
        changes.push(FleetChange::Remove { worker: id(number), heartbeat: 7 });
        changes.push(FleetChange::Remove { worker: id(number), heartbeat: 1_001 });
    }
    for change in changes {
        let _ = store.change_fleet(ROW, &change).await.unwrap();
        for consistency in BOTH {
            assert!(store.fleet_row(ROW, consistency).await.unwrap().is_some());
        }
    }
    let _ = store.change_fleet(ROW, &FleetChange::DeleteEmpty).await.unwrap();
    for consistency in BOTH {
        assert_eq!(store.fleet_row(ROW, consistency).await.unwrap(), None);
        assert_eq!(store.get(&"missing".into(), consistency).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn both_stores_count_the_same() {
    let local = Local::start();
    let (dynamo, memory) = (local.store(), MemoryLeaseStore::new());
    let stores: [&dyn LeaseStore; 2] = [&dynamo, &memory];
    for store in stores {
        store.prepare().await.unwrap();
        lease_calls(store).await;
        fleet_calls(store).await;
        for index in 0..60 {
            let _ = store.create(&lease(index, 50)).await.unwrap();
            for consistency in BOTH {
                assert_eq!(store.list(None, consistency).await.unwrap().next, None);
            }
        }
    }
    for operation in StoreOperation::ALL {
        let (reported, computed) = (dynamo.usage().of(operation), memory.usage().of(operation));
        // The memory store has no table to prepare.
        if operation != StoreOperation::Prepare {
            assert_eq!(reported, computed, "{operation:?}");
        }
        assert!(reported.requests > 0, "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_no_row_also_looks_for_it() {
    let local = Local::start();
    let (dynamo, memory) = (local.store(), MemoryLeaseStore::new());
    let stores: [&dyn LeaseStore; 2] = [&dynamo, &memory];
    for store in stores {
        store.prepare().await.unwrap();
        let missing = ShardId::from("missing");
        let patch = Patch { counter: Some(1), ..Patch::default() };
        let _ = store.update(&missing, &Expectation::default(), &patch).await.unwrap();
        let _ = store.delete(&missing, &Expectation::default()).await.unwrap();
        let _ = store.change_fleet(ROW, &FleetChange::Rows(2)).await.unwrap();
    }
    let (reported, computed) = (dynamo.usage(), memory.usage());
    for operation in StoreOperation::WRITES {
        assert_eq!(reported.of(operation), computed.of(operation), "{operation:?}");
    }
    for (operation, looked_up) in [(StoreOperation::Get, 2), (StoreOperation::FleetRow, 1)] {
        assert_eq!(computed.of(operation).requests, 0);
        assert_eq!(reported.of(operation).requests, looked_up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_hides_the_row_costs_what_the_row_does() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    let row = lease(1, 5_000);
    let _ = store.create(&row).await.unwrap();
    let before = store.usage();
    let bare = ApiError::client("ConditionalCheckFailedException", "The conditional request failed");
    local.faults.add(Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Error(bare))));
    assert_eq!(store.create(&row).await.unwrap(), Write::Conflict(Some(row)));
    let used = store.usage().since(&before);
    assert!((used.of(StoreOperation::Create).write_units - 6.0).abs() < f64::EPSILON, "{used:?}");
    assert!((used.of(StoreOperation::Get).read_units - 2.0).abs() < f64::EPSILON, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_count_when_they_left_whatever_became_of_them() {
    let local = Local::start();
    let store = local.store();
    store.prepare().await.unwrap();
    // One to describe the table, to create it and to describe it again, and those of the probe.
    assert!(store.usage().of(StoreOperation::Prepare).requests >= 5);
    assert!(store.usage().of(StoreOperation::Prepare).read_units >= 1.0);

    let before = store.usage();
    let row = lease(1, 0);
    for fault in [
        Fault::Fail(Seen::Hang),
        Fault::Fail(Seen::Error(errors::provisioned_throughput_exceeded())),
        Fault::DropAnswer(Seen::Reset),
    ] {
        local.faults.add(Rule::on(Service::DynamoDb, "PutItem", fault).once());
        store.create(&row).await.unwrap_err();
    }
    local.faults.add(Rule::on(Service::DynamoDb, "PutItem", Fault::Fail(Seen::Hang)).once());
    let clone = store.clone();
    tokio::time::timeout(Duration::from_millis(10), clone.create(&row)).await.unwrap_err();
    let used = store.usage().since(&before).of(StoreOperation::Create);
    assert_eq!((used.requests, used.write_units.to_bits()), (4, 0.0_f64.to_bits()));

    let lost = Config::builder().behavior_version(BehaviorVersion::latest());
    let lost = Client::from_conf(lost.http_client(local.aws.http_client()).build());
    let lost = DynamoLeaseStore::new(lost, "orders-app");
    lost.create(&row).await.unwrap_err();
    assert_eq!(lost.usage().total().requests, 0, "it never left");
}
