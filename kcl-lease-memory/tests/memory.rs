//! The memory store against the conformance suite and its own promises.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use kcl_core::lease::{
    Consistency, Expectation, Lease, LeaseStore, PageToken, Patch, StoreErrorKind, StoreOperation, Write,
};
use kcl_core::model::{Checkpoint, ShardId};
use kcl_core::testing::conformance;
use kcl_lease_memory::MemoryLeaseStore;

fn store() -> MemoryLeaseStore {
    MemoryLeaseStore::new().with_page_size(NonZeroUsize::new(7).unwrap())
}

mod plain {
    async fn make_store() -> kcl_lease_memory::MemoryLeaseStore {
        super::store()
    }

    kcl_core::testing::lease_store_conformance!(make_store);
}

mod behind_an_arc {
    use super::{Arc, LeaseStore};

    async fn make_store() -> Arc<dyn LeaseStore> {
        Arc::new(super::store())
    }

    kcl_core::testing::lease_store_conformance!(make_store);
}

mod behind_a_box {
    use super::LeaseStore;

    async fn make_store() -> Box<dyn LeaseStore> {
        Box::new(super::store())
    }

    kcl_core::testing::lease_store_conformance!(make_store);
}

mod behind_a_slow_store {
    use std::time::Duration;

    use kcl_core::Entropy;
    use kcl_core::testing::{Fault, FaultRule, FaultyStore};
    use kcl_lease_memory::MemoryLeaseStore;

    async fn make_store() -> FaultyStore<MemoryLeaseStore> {
        let store = FaultyStore::new(super::store(), Entropy::seeded(11));
        let range = Duration::ZERO..Duration::from_millis(20);
        store.add(FaultRule::new(Fault::Delay { before: range.clone(), after: range }));
        store.add(FaultRule::new(Fault::Stale(Duration::from_secs(2))).probability(0.5));
        store
    }

    kcl_core::testing::lease_store_conformance!(make_store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_on_several_threads() {
    conformance::all(async |_| store()).await;
}

#[tokio::test]
async fn clones_share_rows_and_counters() {
    let store = store();
    let clone = store.clone();
    let lease = Lease::new("shardId-000000000000".into(), Checkpoint::TrimHorizon);
    let _ = store.create(&lease).await.unwrap();
    assert_eq!(clone.get(&lease.shard, Consistency::Strong).await.unwrap(), Some(lease.clone()));
    let _ = clone.update(&lease.shard, &Expectation::default(), &Patch::default()).await.unwrap();
    let _ = clone.delete(&lease.shard, &Expectation::default()).await.unwrap();
    clone.list(None, Consistency::Eventual).await.unwrap();
    clone.prepare().await.unwrap();
    let requests = store.usage();
    for operation in [
        StoreOperation::Prepare,
        StoreOperation::List,
        StoreOperation::Get,
        StoreOperation::Create,
        StoreOperation::Update,
        StoreOperation::Delete,
    ] {
        assert_eq!(requests.of(operation).requests, 1, "{operation:?}");
    }
    assert_eq!(requests.total().requests, 6);
}

#[tokio::test]
async fn rows_that_are_no_leases_are_reported_and_left_alone() {
    let store = store();
    store.insert(Lease::new("a".into(), Checkpoint::TrimHorizon));
    store.insert_foreign("Leader", "LEADER");
    store.insert_unreadable("z", "no leaseCounter");

    let page = store.list(None, Consistency::Eventual).await.unwrap();
    assert!(page.leases.iter().map(|lease| &**lease).eq(&store.leases()));
    assert_eq!((page.foreign[0].key.as_str(), page.foreign[0].entity_type.as_str()), ("Leader", "LEADER"));
    assert_eq!(
        (page.unreadable[0].key.as_str(), page.unreadable[0].reason.as_str()),
        ("z", "no leaseCounter")
    );

    let (any, patch) = (Expectation::default(), Patch { counter: Some(1), ..Patch::default() });
    let foreign = ShardId::from("Leader");
    assert_eq!(store.get(&foreign, Consistency::Strong).await.unwrap(), None);
    assert_eq!(store.update(&foreign, &any, &patch).await.unwrap(), Write::Conflict(None));
    assert_eq!(store.delete(&foreign, &any).await.unwrap(), Write::Conflict(None));
    let lease = Lease::new(foreign, Checkpoint::Latest);
    assert_eq!(store.create(&lease).await.unwrap_err().kind(), StoreErrorKind::Invalid);

    let unreadable = ShardId::from("z");
    for error in [
        store.get(&unreadable, Consistency::Strong).await.unwrap_err(),
        store.update(&unreadable, &any, &patch).await.unwrap_err(),
        store.delete(&unreadable, &any).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        assert!(!error.may_have_applied());
        assert!(error.to_string().contains("no leaseCounter"), "{error}");
    }
    assert_eq!(store.list(None, Consistency::Eventual).await.unwrap().foreign, page.foreign);
    assert_eq!(store.list(None, Consistency::Eventual).await.unwrap().unreadable, page.unreadable);
    assert!(store.remove(&unreadable) && !store.remove(&unreadable));
}

#[tokio::test]
async fn a_page_can_begin_behind_a_row_that_is_gone() {
    let store = store();
    for index in 0..20 {
        store.insert(Lease::new(format!("shardId-{index:012}").into(), Checkpoint::TrimHorizon));
    }
    let first = store.list(None, Consistency::Eventual).await.unwrap();
    let PageToken(last) = first.next.clone().unwrap();
    assert!(store.remove(&last.as_str().into()));
    let second = store.list(first.next, Consistency::Eventual).await.unwrap();
    assert_eq!((first.leases.len(), second.leases.len()), (7, 7));
    assert!(second.leases[0].shard.as_str() > last.as_str());
    let third = store.list(second.next, Consistency::Eventual).await.unwrap();
    assert_eq!((third.leases.len(), third.next), (6, None));
}
