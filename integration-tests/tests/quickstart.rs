//! The quickstart's scenario over loopback sockets, in real time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the test; the account is shown"
)]

use std::time::Duration;

use examples::quickstart::{Options, Reading, Screen, run};
use kcl_core::Coordination;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_loses_nothing_through_a_reshard_and_a_crash() {
    // One after the other: each wants the machine for itself.
    loses_nothing(Coordination::Fleet, Reading::FanOut).await;
    loses_nothing(Coordination::PerLease, Reading::Polling).await;
}

async fn loses_nothing(coordination: Coordination, reading: Reading) {
    let options = Options { duration: Duration::from_secs(15), seed: 7, coordination, reading };
    let account = run(&options, &mut Screen::lines(std::io::stderr())).await.unwrap();
    println!("{account}");
    assert_eq!(account.problems(), Vec::<String>::new());
    // The account is only worth something if all of it happened: both workers worked, the children of the split
    // and of the merge were read, and records of both kinds were put.
    assert_eq!(account.deliveries.keys().collect::<Vec<_>>(), ["A", "B"]);
    assert!(account.deliveries.values().all(|&count| count > 200), "{account:?}");
    assert_eq!(account.shards, 7, "{account:?}");
    assert!(account.aggregated > 500 && account.put - account.aggregated > 500, "{account:?}");
}
