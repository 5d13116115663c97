//! The conformance suite: in process under a paused clock, and over loopback in real time.

use std::num::NonZeroU32;

use aws_sdk_dynamodb::Client;
use kcl_core::testing::conformance;
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;

const ROWS_PER_PAGE: NonZeroU32 = NonZeroU32::new(30).unwrap();

fn store(aws: &LocalAws, table: &str) -> DynamoLeaseStore {
    DynamoLeaseStore::new(Client::new(&aws.sdk_config()), table).with_page_size(ROWS_PER_PAGE)
}

async fn make_store() -> DynamoLeaseStore {
    store(&LocalAws::in_process().unwrap(), "orders-app")
}

kcl_core::testing::lease_store_conformance!(make_store);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_loopback() {
    let aws = LocalAws::start().await.unwrap();
    conformance::all(async |case| store(&aws, case)).await;
}
