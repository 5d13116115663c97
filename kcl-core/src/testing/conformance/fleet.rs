//! Fleet rows: who may change what, and what everybody sees of it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Store, answered, list, set_up, shard};
use crate::entropy::Entropy;
use crate::fleet::{FleetEntry, FleetRow, FleetRowKey, Gave, MEMBERS_PER_ROW, MemberState, member_id};
use crate::lease::{
    Consistency, FleetChange, FleetWrite, Lease, LeaseStore, OperationUsage, StoreOperation, Write,
};
use crate::model::{Checkpoint, ShardId, WorkerId};

const ROW: FleetRowKey = FleetRowKey(3);

fn id(number: u128) -> WorkerId {
    member_id("w", Uuid::from_u128(number), ROW)
}

fn entry(heartbeat: u64) -> FleetEntry {
    let mut entry = FleetEntry::new(Duration::from_secs(10), MemberState::Active);
    entry.heartbeat = heartbeat;
    entry
}

fn join(number: u128) -> FleetChange {
    FleetChange::Join { worker: id(number), entry: entry(0) }
}

fn beat(number: u128, heartbeat: u64) -> FleetChange {
    FleetChange::Beat { worker: id(number), entry: entry(heartbeat) }
}

fn remove(number: u128, heartbeat: u64) -> FleetChange {
    FleetChange::Remove { worker: id(number), heartbeat }
}

async fn change(store: &Store, change: &FleetChange) -> FleetWrite {
    answered(store.change_fleet(ROW, change)).await
}

/// Makes a change that must be applied, and returns the row.
async fn apply(store: &Store, made: &FleetChange) -> Option<FleetRow> {
    match change(store, made).await {
        FleetWrite::Applied(row) => row,
        FleetWrite::Conflict(row) => panic!("{made:?} is refused: {row:?}"),
    }
}

/// Makes a change that must be refused, and returns the row it met.
async fn refused(store: &Store, made: &FleetChange) -> Option<FleetRow> {
    match change(store, made).await {
        FleetWrite::Conflict(row) => row,
        FleetWrite::Applied(row) => panic!("{made:?} is applied: {row:?}"),
    }
}

async fn read(store: &Store) -> Option<FleetRow> {
    answered(store.fleet_row(ROW, Consistency::Strong)).await
}

async fn new_row(store: &Store) {
    set_up(store, &[]).await;
    assert_eq!(apply(store, &FleetChange::Create).await, Some(FleetRow::default()));
}

/// A fleet row is created once, and empty.
///
/// # Panics
/// If the store does not conform.
pub async fn a_fleet_row_is_created_once(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(read(&store).await, None);
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    let row = apply(&store, &join(1)).await;
    assert_eq!(refused(&store, &FleetChange::Create).await, row);
    assert_eq!(read(&store).await, row);
}

/// A member joins a row that is there, once, and only while it has room.
///
/// # Panics
/// If the store does not conform.
pub async fn a_member_joins_where_there_is_room(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(refused(&store, &join(1)).await, None, "there is no row");
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    for number in 0..MEMBERS_PER_ROW as u128 {
        let row = apply(&store, &join(number)).await.unwrap_or_default();
        assert_eq!(row.workers.len() as u128, number + 1);
        assert_eq!(row.workers.get(&id(number)), Some(&entry(0)));
    }
    let full = refused(&store, &join(99)).await.unwrap_or_default();
    assert_eq!(full.workers.len(), MEMBERS_PER_ROW);
    assert!(
        matches!(apply(&store, &remove(3, 0)).await, Some(row) if row.workers.len() == MEMBERS_PER_ROW - 1)
    );
    assert!(refused(&store, &join(4)).await.is_some(), "it is a member already");
    assert!(apply(&store, &join(99)).await.is_some());
}

/// Of fifty that join one row at the same time sixteen become members.
///
/// # Panics
/// If the store does not conform.
pub async fn of_fifty_that_join_at_once_sixteen_fit(store: Arc<dyn LeaseStore>) {
    new_row(&store).await;
    let joins = (0..50).map(|number| {
        let store = Arc::clone(&store);
        async move { matches!(change(&store, &join(number)).await, FleetWrite::Applied(_)) }
    });
    let joined = futures_util::future::join_all(joins).await;
    assert_eq!(joined.iter().filter(|joined| **joined).count(), MEMBERS_PER_ROW);
    let row = read(&store).await.unwrap_or_default();
    for (number, joined) in joined.into_iter().enumerate() {
        assert_eq!(row.workers.contains_key(&id(number as u128)), joined, "{number}");
    }
}

/// A heartbeat needs an entry and a larger number, and replaces the entry whole.
///
/// # Panics
/// If the store does not conform.
pub async fn a_heartbeat_needs_an_entry_and_a_larger_number(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(refused(&store, &beat(1, 1)).await, None, "there is no row");
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    assert_eq!(refused(&store, &beat(1, 1)).await, Some(FleetRow::default()), "there is no entry");
    let _ = apply(&store, &join(1)).await;
    let _ = apply(&store, &join(2)).await;
    let mut full = entry(5);
    full.gave = Gave::of([(&ShardId::from("shard"), &id(2))]);
    full.cpu = Some(7);
    let row =
        apply(&store, &FleetChange::Beat { worker: id(1), entry: full.clone() }).await.unwrap_or_default();
    assert_eq!(row.workers.get(&id(1)), Some(&full));
    assert_eq!(row.workers.get(&id(2)), Some(&entry(0)), "another's entry is left alone");
    for old in [0, 4, 5] {
        let shown = refused(&store, &beat(1, old)).await.unwrap_or_default();
        assert_eq!(shown.workers.get(&id(1)), Some(&full), "{old}");
    }
    let row = apply(&store, &beat(1, 6)).await.unwrap_or_default();
    assert_eq!(row.workers.get(&id(1)), Some(&entry(6)), "nothing of the old entry is left");
}

/// An entry is removed only at the heartbeat that was seen, and no heartbeat brings it back.
///
/// # Panics
/// If the store does not conform.
pub async fn an_entry_is_removed_at_the_heartbeat_that_was_seen(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(refused(&store, &remove(1, 0)).await, None);
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    assert!(refused(&store, &remove(1, 0)).await.is_some());
    let _ = apply(&store, &join(1)).await;
    let _ = apply(&store, &beat(1, 3)).await;
    for wrong in [0, 2, 4] {
        assert!(refused(&store, &remove(1, wrong)).await.is_some_and(|row| row.workers.contains_key(&id(1))));
    }
    assert_eq!(apply(&store, &remove(1, 3)).await, Some(FleetRow::default()));
    assert_eq!(refused(&store, &beat(1, 9)).await, Some(FleetRow::default()));
    assert_eq!(read(&store).await, Some(FleetRow::default()));
}

/// The number of rows only grows.
///
/// # Panics
/// If the store does not conform.
pub async fn the_number_of_rows_only_grows(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(refused(&store, &FleetChange::Rows(2)).await, None);
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    let _ = apply(&store, &join(1)).await;
    assert_eq!(apply(&store, &FleetChange::Rows(2)).await.and_then(|row| row.rows), Some(2));
    for smaller in [1, 2] {
        assert_eq!(refused(&store, &FleetChange::Rows(smaller)).await.and_then(|row| row.rows), Some(2));
    }
    let row = apply(&store, &FleetChange::Rows(5)).await.unwrap_or_default();
    assert_eq!((row.rows, row.workers.len()), (Some(5), 1));
}

/// A row is deleted only when it has no members, and then is gone.
///
/// # Panics
/// If the store does not conform.
pub async fn a_fleet_row_is_deleted_only_when_empty(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    assert_eq!(refused(&store, &FleetChange::DeleteEmpty).await, None);
    assert_eq!(apply(&store, &FleetChange::Create).await, Some(FleetRow::default()));
    let _ = apply(&store, &join(1)).await;
    assert!(refused(&store, &FleetChange::DeleteEmpty).await.is_some());
    let _ = apply(&store, &remove(1, 0)).await;
    assert_eq!(apply(&store, &FleetChange::DeleteEmpty).await, None);
    assert_eq!(read(&store).await, None);
    assert_eq!(refused(&store, &join(1)).await, None);
}

/// Every attribute of an entry reads back, also at its extremes.
///
/// # Panics
/// If the store does not conform.
pub async fn a_fleet_entry_reads_back_with_every_attribute(store: Arc<dyn LeaseStore>) {
    new_row(&store).await;
    let large = i64::MAX as u64;
    for (number, name) in ["w", "i-0abc.eu:x", "wörker ☃", &"long".repeat(40)].into_iter().enumerate() {
        let worker = member_id(name, Uuid::from_u128(number as u128), ROW);
        let _ = apply(&store, &FleetChange::Join { worker: worker.clone(), entry: entry(0) }).await;
        let mut full = entry(large);
        full.lease_duration = Duration::from_millis(600_000);
        (full.moves, full.leases, full.load, full.housekeeping) = (large, large, large, large);
        full.cpu = Some(u16::MAX);
        (full.limits.leases, full.limits.load) = (Some(large), Some(0));
        full.state =
            [MemberState::Active, MemberState::Draining, MemberState::Observer, MemberState::Gone][number];
        full.gave = if number == 3 {
            Gave::Many
        } else {
            let shards: Vec<ShardId> = (0..3).map(shard).collect();
            Gave::of([(&shards[0], &worker), (&shards[1], &worker), (&shards[2], &id(9))])
        };
        let row = apply(&store, &FleetChange::Beat { worker: worker.clone(), entry: full.clone() }).await;
        assert_eq!(row.unwrap_or_default().workers.get(&worker), Some(&full));
        assert_eq!(read(&store).await.unwrap_or_default().workers.get(&worker), Some(&full));
    }
}

/// Heartbeats of different members at the same time do not disturb each other.
///
/// # Panics
/// If the store does not conform.
pub async fn heartbeats_at_the_same_time_do_not_disturb_each_other(store: Arc<dyn LeaseStore>) {
    new_row(&store).await;
    for number in 0..8 {
        let _ = apply(&store, &join(number)).await;
    }
    let beats = (0..8_u128).flat_map(|number| (1..=10).map(move |heartbeat| (number, heartbeat)));
    let beats = beats.map(|(number, heartbeat)| {
        let store = Arc::clone(&store);
        async move { change(&store, &beat(number, heartbeat)).await }
    });
    let answers = futures_util::future::join_all(beats).await;
    assert_eq!(answers.len(), 80);
    let row = read(&store).await.unwrap_or_default();
    for number in 0..8 {
        assert_eq!(row.workers.get(&id(number)), Some(&entry(10)), "the largest number stays");
    }
}

/// Fleet rows are listed as rows of another kind, and no call on leases touches them.
///
/// # Panics
/// If the store does not conform.
pub async fn fleet_rows_are_no_leases(store: Arc<dyn LeaseStore>) {
    let lease = Lease::new(shard(1), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    let _ = apply(&store, &FleetChange::Create).await;
    let before = apply(&store, &join(1)).await;
    let pages = list(&store).await;
    let foreign: Vec<_> = pages.iter().flat_map(|page| &page.foreign).collect();
    assert_eq!(foreign.len(), 1);
    assert_eq!((foreign[0].key.as_str(), foreign[0].entity_type.as_str()), ("kcl:fleet:3", "FLEET"));
    assert!(pages.iter().all(|page| page.unreadable.is_empty()));
    assert_eq!(pages.iter().flat_map(|page| &page.leases).count(), 1);
    let key = ShardId::from(ROW.to_string());
    assert_eq!(answered(store.get(&key, Consistency::Strong)).await, None);
    assert!(store.create(&Lease::new(key.clone(), Checkpoint::TrimHorizon)).await.is_err());
    let none = crate::lease::Expectation::default();
    assert_eq!(answered(store.delete(&key, &none)).await, Write::Conflict(None));
    assert_eq!(read(&store).await, before);
}

/// A consistent listing shows every write that was answered before.
///
/// # Panics
/// If the store does not conform.
pub async fn a_consistent_listing_sees_the_last_write(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    for number in 0..20 {
        let lease = Lease::new(shard(number), Checkpoint::TrimHorizon);
        assert_eq!(answered(store.create(&lease)).await, Write::Applied(lease));
        let (mut count, mut next) = (0, None);
        loop {
            let page = answered(store.list(next, Consistency::Strong)).await;
            count += page.leases.len();
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(count, number + 1);
    }
}

/// Any changes, in any order, do what [`FleetChange::apply_to`] says.
///
/// # Panics
/// If the store does not conform.
pub async fn fleet_changes_agree_with_the_model(store: Arc<dyn LeaseStore>) {
    set_up(&store, &[]).await;
    let entropy = Entropy::seeded(7);
    let mut model: Option<FleetRow> = None;
    for _ in 0..400 {
        let number = u128::from(entropy.below(20));
        let heartbeat = entropy.below(6);
        let made = match entropy.below(12) {
            0 => FleetChange::Create,
            1..5 => join(number),
            5..8 => beat(number, heartbeat),
            8..10 => remove(number, heartbeat),
            10 => FleetChange::Rows(u32::try_from(entropy.below(5)).unwrap_or(0)),
            _ => FleetChange::DeleteEmpty,
        };
        let expected = match made.apply_to(model.as_ref()) {
            Ok(row) => FleetWrite::Applied(row),
            Err(_) => FleetWrite::Conflict(model.clone()),
        };
        assert_eq!(change(&store, &made).await, expected, "{made:?}");
        if let FleetWrite::Applied(row) = expected {
            model = row;
        }
        assert_eq!(read(&store).await, model);
    }
}

/// Every request is counted, and what it consumes.
///
/// # Panics
/// If the store does not conform.
pub async fn every_request_is_counted(store: Arc<dyn LeaseStore>) {
    new_row(&store).await;
    let before = store.usage();
    let _ = apply(&store, &join(1)).await;
    let _ = refused(&store, &join(1)).await;
    let _ = read(&store).await;
    let lease = Lease::new(shard(1), Checkpoint::TrimHorizon);
    let _ = answered(store.create(&lease)).await;
    let _ = answered(store.get(&lease.shard, Consistency::Eventual)).await;
    let used = store.usage().since(&before);
    let expected = |operation, requests, read_units, write_units| {
        assert_eq!(used.of(operation), OperationUsage { requests, read_units, write_units }, "{operation:?}");
    };
    expected(StoreOperation::ChangeFleet, 2, 0.0, 2.0);
    expected(StoreOperation::FleetRow, 1, 1.0, 0.0);
    expected(StoreOperation::Create, 1, 0.0, 1.0);
    expected(StoreOperation::Get, 1, 0.5, 0.0);
    assert_eq!(used.total().requests, 5);
}
