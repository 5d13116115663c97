use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::coordination::{FleetSnapshot, TableView};
use super::super::report::{EndpointSnapshot, ListingFailure, ShardSnapshot};
use super::*;
use crate::consumer::ShardReport;
use crate::lease::{Lease, ProvisionedUnits};
use crate::model::Checkpoint;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn running() -> Snapshot {
    let mut snapshot = Snapshot::of_table("me".into(), SchedulerPhase::Running, &TableView::default());
    snapshot.at = Instant::now() + seconds(10_000);
    snapshot.listed_ago = Some(seconds(1));
    snapshot.taking = true;
    snapshot
}

fn health(snapshot: &Snapshot) -> Health {
    Health::of(snapshot, &Settings::default())
}

/// A held shard in this stage.
fn hold(snapshot: &mut Snapshot, shard: &str, stage: Stage) {
    let mut report = ShardReport::starting(Checkpoint::TrimHorizon);
    (report.stage, report.since) = (stage, snapshot.at);
    report.checkpointed_at = snapshot.at - seconds(1000);
    let held = ShardSnapshot { report, valid_for: seconds(9), handing_over_to: None, shows_life: true };
    snapshot.shards.insert(shard.into(), held);
}

#[tokio::test(start_paused = true)]
async fn each_phase_has_its_word() {
    for (phase, word) in [
        (SchedulerPhase::Created, "starting"),
        (SchedulerPhase::Starting, "starting"),
        (SchedulerPhase::Running, "ready"),
        (SchedulerPhase::Stopping, "dead"),
        (SchedulerPhase::Stopped, "dead"),
    ] {
        let snapshot = Snapshot { phase, ..running() };
        assert_eq!(health(&snapshot).name(), word, "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_problem_of_a_worker_is_named_and_told() {
    type Change = fn(&mut Snapshot);
    let member = || FleetSnapshot { member: Some("me".into()), ..FleetSnapshot::default() };
    let mut seen = BTreeSet::new();
    let cases: [(ProblemKind, Change, &str); 7] = [
        (ProblemKind::NotAMember, |s| s.fleet = Some(FleetSnapshot::default()), "not a member"),
        (
            ProblemKind::TableTooSmall,
            |s| {
                let units = |read, write| ProvisionedUnits { read, write };
                if let Some(fleet) = &mut s.fleet {
                    fleet.too_small = Some((units(1, 2), units(3, 4)));
                }
            },
            "1 read and 2 write units a second, its workers need 3 and 4",
        ),
        (
            ProblemKind::ForeignOwner,
            |s| {
                if let Some(fleet) = &mut s.fleet {
                    fleet.foreign_owner = Some("java".into());
                }
            },
            "java works on the lease table",
        ),
        (
            ProblemKind::TableNotListed,
            |s| s.listed_ago = Some(seconds(181)),
            "cannot be listed, for 3 min 1 s now",
        ),
        (
            ProblemKind::UnreadableRow,
            |s| drop(s.unreadable.insert("row".into(), "no counter".into())),
            "the row row of the lease table cannot be read: no counter",
        ),
        (
            ProblemKind::ShardsNotListed,
            |s| {
                let since = s.at - seconds(9);
                s.listing_failure = Some(ListingFailure { failures: 3, since, error: "denied".into() });
            },
            "could not be listed 3 times in 9 s: denied",
        ),
        (
            ProblemKind::Endpoint,
            |s| {
                let address = SocketAddr::from(([127, 0, 0, 1], 8080));
                let error = Some("address in use".into());
                s.endpoint = Some(EndpointSnapshot { address, bound: None, error });
            },
            "cannot listen on 127.0.0.1:8080: address in use",
        ),
    ];
    for (kind, change, text) in cases {
        let mut snapshot = Snapshot { fleet: Some(member()), ..running() };
        assert_eq!(health(&snapshot), Health::Ready);
        change(&mut snapshot);
        let health = health(&snapshot);
        let [problem] = health.problems() else { panic!("{kind}: {health:?}") };
        assert_eq!((problem.kind, &problem.shard), (kind, &None));
        assert!(problem.to_string().contains(text), "{problem}");
        seen.insert(kind);
    }
    assert_eq!(seen.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn passing_trouble_is_not_told() {
    let mut snapshot = running();
    let since = snapshot.at - seconds(9);
    snapshot.listing_failure = Some(ListingFailure { failures: 2, since, error: "throttled".into() });
    snapshot.listed_ago = Some(seconds(30));
    assert_eq!(health(&snapshot), Health::Ready);
}

#[tokio::test(start_paused = true)]
async fn problems_of_shards_are_told_after_those_of_the_worker_each_with_its_shard() {
    let mut snapshot = running();
    hold(&mut snapshot, "a", Stage::Fetching);
    hold(&mut snapshot, "b", Stage::Fenced);
    snapshot.unreadable.insert("row".into(), "no counter".into());
    let health = health(&snapshot);
    let told: Vec<_> =
        health.problems().iter().map(|p| (p.kind, p.shard.as_ref().map(ShardId::as_str))).collect();
    assert_eq!(told, [(ProblemKind::UnreadableRow, None), (ProblemKind::Fenced, Some("b"))]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_holds_nothing_is_ready_and_says_so() {
    let mut snapshot = running();
    assert_eq!(health(&snapshot), Health::Ready);
    assert_eq!(Health::notes(&snapshot), [Note::HoldsNothing { leases: 0 }]);
    let mut leases = std::collections::BTreeMap::new();
    for (shard, checkpoint) in [("a", Checkpoint::Latest), ("b", Checkpoint::ShardEnd)] {
        leases.insert(shard.into(), Arc::new(Lease::new(shard.into(), checkpoint)));
    }
    snapshot.leases = Arc::new(leases);
    snapshot.taking = false;
    assert_eq!(health(&snapshot), Health::Ready);
    assert_eq!(Health::notes(&snapshot), [Note::HoldsNothing { leases: 1 }, Note::Standby]);
}

#[tokio::test(start_paused = true)]
async fn an_old_checkpoint_is_told_of_only_while_records_are_delivered_beyond_it() {
    let mut snapshot = running();
    hold(&mut snapshot, "a", Stage::Fetching);
    assert_eq!(Health::notes(&snapshot), []);
    let at = snapshot.at;
    if let Some(held) = snapshot.shards.get_mut("a") {
        held.report.last_delivery = Some(at - seconds(900));
        held.report.uncheckpointed = true;
    }
    let old = Note::OldCheckpoint { shard: "a".into(), age: seconds(1000) };
    assert_eq!(old.to_string(), "a: records are delivered, and the checkpoint has not moved for 16 min 40 s");
    assert_eq!(Health::notes(&snapshot), [old]);
    assert_eq!(health(&snapshot), Health::Ready, "it is no problem");
    hold(&mut snapshot, "b", Stage::Paused);
    assert!(Health::notes(&snapshot).contains(&Note::Paused { shards: 1 }));
}

#[test]
fn names_of_problems_are_different() {
    let names: BTreeSet<_> = ProblemKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), ProblemKind::ALL.len());
}

#[test]
fn the_documentation_says_what_to_do_about_each_problem() {
    let text = include_str!("../../../../docs/operations.md");
    for kind in ProblemKind::ALL {
        assert!(text.contains(&format!("| `{kind}` |")), "{kind} is not in docs/operations.md");
    }
}
