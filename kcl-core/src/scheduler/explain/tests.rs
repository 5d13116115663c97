use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::super::coordination::{FleetSnapshot, MemberSnapshot, OwnerSeen, TableView};
use super::super::report::ShardSnapshot;
use super::*;
use crate::consumer::{CallbackReport, ReaderActivity, ReaderReport, ShardReport, Stage};
use crate::fleet::{MemberLimits, MemberState};
use crate::lease::Lease;
use crate::model::{HashKeyRange, Shard};
use crate::source::SourceErrorKind;

const SHARD: &str = "shardId-000000000002";
const PARENT: &str = "shardId-000000000001";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(sequence: u64) -> Position {
    Position::new(sequence.into(), 0)
}

fn lease(shard: &str, owner: Option<&str>, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::new(shard.into(), checkpoint);
    lease.owner = owner.map(WorkerId::from);
    lease
}

/// A worker `me` that runs, and its table: the parent with `other`, the shard with `me`.
struct Scene {
    snapshot: Snapshot,
    settings: Settings,
    held: ShardReport,
    valid: bool,
}

impl Scene {
    fn new() -> Self {
        let mut snapshot = Snapshot::of_table("me".into(), SchedulerPhase::Running, &TableView::default());
        snapshot.at = Instant::now() + seconds(10_000);
        snapshot.taking = true;
        snapshot.listed_ago = Some(seconds(1));
        let mut scene = Self {
            held: ShardReport::starting(Checkpoint::TrimHorizon),
            snapshot,
            settings: Settings::default(),
            valid: true,
        };
        scene.held.stage = Stage::Fetching;
        scene.held.since = scene.ago(100);
        scene.held.reader.activity = ReaderActivity::Asking;
        scene.held.reader.since = scene.ago(1);
        scene.lease(lease(PARENT, Some("other"), Checkpoint::At(at(7))), 300);
        scene.lease(lease(SHARD, Some("me"), Checkpoint::TrimHorizon), 200);
        scene
    }

    fn ago(&self, length: u64) -> Instant {
        self.snapshot.at - seconds(length)
    }

    fn lease(&mut self, lease: Lease, seen: u64) {
        let since = self.ago(seen);
        let (shard, owner) = (lease.shard.clone(), lease.owner.clone());
        Arc::make_mut(&mut self.snapshot.owners).insert(shard.clone(), OwnerSeen::new(owner, since));
        Arc::make_mut(&mut self.snapshot.leases).insert(shard, Arc::new(lease));
    }

    fn fleet(&mut self) -> &mut FleetSnapshot {
        let member = MemberSnapshot {
            state: MemberState::Active,
            leases: 1,
            load: 0,
            cpu: None,
            limits: MemberLimits { leases: None, load: None },
            moved_ago: seconds(1),
        };
        self.snapshot.fleet.get_or_insert_with(|| FleetSnapshot {
            member: Some("me".into()),
            members: BTreeMap::from([("me".into(), member.clone()), ("other".into(), member)]),
            ..FleetSnapshot::default()
        })
    }

    fn held(mut self) -> Explanation {
        let report = self.held.clone();
        let held =
            ShardSnapshot { report, valid_for: seconds(9), handing_over_to: None, shows_life: self.valid };
        self.snapshot.shards.insert(SHARD.into(), held);
        self.explain(SHARD)
    }

    fn explain(&self, shard: &str) -> Explanation {
        Explanation::of(&self.snapshot, &shard.into(), &self.settings)
    }
}

fn retry(scene: &Scene, failures: u32) -> RetryReport {
    RetryReport {
        failures,
        since: scene.ago(65),
        next_attempt: Some(scene.snapshot.at + seconds(4)),
        error: "process_records: the database is down".into(),
    }
}

fn fails(scene: &mut Scene, failures: u32, kind: SourceErrorKind) {
    let reader = &mut scene.held.reader;
    (reader.failures, reader.failing_since) = (failures, Some(scene.snapshot.at - seconds(20)));
    (reader.error, reader.error_kind) = (Some("GetRecords failed".into()), Some(kind));
    reader.activity = ReaderActivity::Resting { until: scene.snapshot.at + seconds(2) };
}

type Change = fn(&mut Scene);
type Case = (&'static str, Change, &'static str, Activity, Option<ProblemKind>);

/// What can be the case with a held shard: how to get there, the sentence, the activity, the problem.
const HELD: &[Case] = &[
    ("starting", |s| s.held.stage = Stage::Initializing, "is about to start", Activity::Waiting, None),
    (
        "parents",
        |s| {
            s.held.stage = Stage::WaitingForParents;
            let mut row = lease(SHARD, Some("me"), Checkpoint::TrimHorizon);
            row.parents = BTreeSet::from([PARENT.into()]);
            s.lease(row, 200);
        },
        "waits for the end of shardId-000000000001 (at 7/0, held by other)",
        Activity::Waiting,
        None,
    ),
    (
        "parents that cannot be looked up",
        |s| {
            s.held.stage = Stage::WaitingForParents;
            s.held.retry = Some(RetryReport { next_attempt: None, ..retry(s, 1) });
        },
        "is about to see that its parents have ended, which cannot be looked up: failed once, 1 min 5 s ago: \
         process_records: the database is down",
        Activity::NotProcessing,
        Some(ProblemKind::StepFailing),
    ),
    (
        "a callback",
        |s| {
            s.held.stage = Stage::Delivering;
            s.held.callback = Some(CallbackReport { name: "process_records", since: s.ago(12) });
            s.held.batch = Some((at(3), at(9)));
        },
        "has been in process_records for 12 s of at most 15 min, with the batch 3/0 to 9/0",
        Activity::Delivering,
        None,
    ),
    (
        "a callback behind which reading stops",
        |s| {
            s.held.stage = Stage::Delivering;
            s.held.callback = Some(CallbackReport { name: "process_records", since: s.ago(12) });
            s.held.batch = Some((at(3), at(3)));
            s.held.reader.activity = ReaderActivity::HeldUp(Budget::Shard);
        },
        "has been in process_records for 12 s of at most 15 min, with the record 3/0; nothing more is read ahead, \
         because the buffer of the shard is full",
        Activity::Delivering,
        None,
    ),
    (
        "a slow callback",
        |s| {
            s.held.stage = Stage::Ending;
            s.held.callback = Some(CallbackReport { name: "shard_ended", since: s.ago(225) });
        },
        "has been in shard_ended for 3 min 45 s of at most 15 min",
        Activity::NotProcessing,
        Some(ProblemKind::CallbackSlow),
    ),
    (
        "a retry",
        |s| {
            s.held.stage = Stage::Retrying;
            s.held.batch = Some((at(3), at(9)));
            s.held.retry = Some(retry(s, 4));
        },
        "retries the batch 3/0 to 9/0: failed 4 times in 1 min 5 s, again in 4 s: process_records: the database is \
         down",
        Activity::NotProcessing,
        Some(ProblemKind::CallbackFailing),
    ),
    (
        "a retry that runs",
        |s| {
            s.held.stage = Stage::Delivering;
            s.held.callback = Some(CallbackReport { name: "process_records", since: s.ago(1) });
            s.held.batch = Some((at(3), at(9)));
            s.held.retry = Some(RetryReport { next_attempt: None, ..retry(s, 4) });
        },
        "retries the batch 3/0 to 9/0: failed 4 times in 1 min 5 s: process_records: the database is down",
        Activity::NotProcessing,
        Some(ProblemKind::CallbackFailing),
    ),
    (
        "no traffic",
        |s| {
            s.held.reader.quiet_since = Some(s.ago(7200));
            s.held.last_delivery = Some(s.ago(3600));
        },
        "is idle: everything is delivered, and nothing new has come for 1 h",
        Activity::Idle,
        None,
    ),
    (
        "a pause between two records",
        |s| s.held.reader.quiet_since = Some(s.ago(4)),
        "is being processed",
        Activity::Delivering,
        None,
    ),
    (
        "traffic",
        |s| s.held.millis_behind = Some(90_000),
        "is being processed, 1 min 30 s behind the tip",
        Activity::Delivering,
        None,
    ),
    (
        "a lag that grows",
        |s| {
            s.held.millis_behind = Some(200_000);
            s.held.reader.least_behind = Some((140_000, s.ago(60)));
        },
        "gets no records although it is 3 min 20 s behind the tip, and was 2 min 20 s behind 1 min ago",
        Activity::NotProcessing,
        Some(ProblemKind::LagGrows),
    ),
    (
        "a lag that shrinks",
        |s| {
            s.held.millis_behind = Some(140_000);
            s.held.reader.least_behind = Some((140_000, s.ago(60)));
        },
        "is being processed, 2 min 20 s behind the tip",
        Activity::Delivering,
        None,
    ),
    (
        "back-pressure",
        |s| {
            s.held.reader.activity = ReaderActivity::HeldUp(Budget::Worker);
            s.held.reader.since = s.ago(5);
            s.held.buffered_bytes = 12;
        },
        "has not been read for 5 s: the buffer of the worker is full (12 bytes of this shard)",
        Activity::Waiting,
        None,
    ),
    (
        "a throttle that passes",
        |s| fails(s, 2, SourceErrorKind::Throttled),
        "is throttled: failed 2 times in 20 s, again in 2 s: GetRecords failed",
        Activity::Waiting,
        None,
    ),
    (
        "a throttle that stays",
        |s| fails(s, 3, SourceErrorKind::Throttled),
        "is throttled: failed 3 times in 20 s, again in 2 s: GetRecords failed",
        Activity::NotProcessing,
        Some(ProblemKind::Throttled),
    ),
    (
        "reads that fail",
        |s| fails(s, 3, SourceErrorKind::Denied),
        "cannot be read: failed 3 times in 20 s, again in 2 s: GetRecords failed",
        Activity::NotProcessing,
        Some(ProblemKind::ReaderFailing),
    ),
    (
        "a source that is silent",
        |s| s.held.reader.since = s.ago(30),
        "is stalled: the source has not answered for 30 s, and the lease is given up after 2 min",
        Activity::NotProcessing,
        Some(ProblemKind::SourceSilent),
    ),
    (
        "a source that is slow",
        |s| s.held.reader.since = s.ago(29),
        "is being processed",
        Activity::Delivering,
        None,
    ),
    (
        "a consumer that is silent",
        |s| s.valid = false,
        "is stalled: its consumer shows no sign of life, and its lease is not renewed any more",
        Activity::NotProcessing,
        Some(ProblemKind::ConsumerSilent),
    ),
    (
        "a pause",
        |s| s.held.stage = Stage::Paused,
        "has been paused on request for 1 min 40 s",
        Activity::Waiting,
        None,
    ),
    (
        "a fence",
        |s| s.held.stage = Stage::Fenced,
        "has records and may not deliver them: the lease cannot be renewed, for 1 min 40 s now",
        Activity::NotProcessing,
        Some(ProblemKind::Fenced),
    ),
    (
        "a drain",
        |s| {
            s.held.stage = Stage::Draining;
            s.held.callback = Some(CallbackReport { name: "shutdown_requested", since: s.ago(3) });
        },
        "is being drained and released, once shutdown_requested ends, which has run for 3 s",
        Activity::Waiting,
        None,
    ),
    (
        "an end that cannot be stored",
        |s| {
            s.held.stage = Stage::Ending;
            s.held.retry = Some(RetryReport { error: "no answer".into(), ..retry(s, 2) });
        },
        "has been read to its end, which cannot be stored: failed 2 times in 1 min 5 s, again in 4 s: no answer",
        Activity::NotProcessing,
        Some(ProblemKind::StepFailing),
    ),
    (
        "an end",
        |s| s.held.stage = Stage::Ending,
        "has been read to its end, which is being stored",
        Activity::Waiting,
        None,
    ),
    (
        "a loss",
        |s| s.held.stage = Stage::Losing,
        "was given up or lost, and its processor is being told",
        Activity::Waiting,
        None,
    ),
    (
        "a fallback",
        |s| s.held.reader.fallback = Some("no such consumer".into()),
        "is being processed; it is polled, because it cannot be subscribed to: no such consumer",
        Activity::Delivering,
        None,
    ),
];

#[tokio::test(start_paused = true)]
async fn a_held_shard_is_explained_by_what_its_consumer_and_its_reader_show() {
    for (name, change, sentence, activity, problem) in HELD {
        let mut scene = Scene::new();
        change(&mut scene);
        let explanation = scene.held();
        assert_eq!(explanation.to_string(), format!("{SHARD} {sentence}"), "{name}");
        assert_eq!((explanation.activity, explanation.problem), (*activity, *problem), "{name}");
        let is_wrong = explanation.activity == Activity::NotProcessing;
        assert_eq!(is_wrong, explanation.problem.is_some(), "{name}: a problem is what is not processed");
    }
}

#[tokio::test(start_paused = true)]
async fn every_stage_of_a_consumer_is_explained_and_a_hand_over_comes_before_it() {
    for stage in [
        Stage::WaitingForParents,
        Stage::Initializing,
        Stage::Fetching,
        Stage::Delivering,
        Stage::Retrying,
        Stage::Fenced,
        Stage::Paused,
        Stage::Ending,
        Stage::Draining,
    ] {
        let mut scene = Scene::new();
        scene.held.stage = stage;
        let report = scene.held.clone();
        let (valid_for, shows_life) = (seconds(9), true);
        let held = ShardSnapshot { report, valid_for, handing_over_to: Some("other".into()), shows_life };
        scene.snapshot.shards.insert(SHARD.into(), held);
        let told = scene.explain(SHARD).to_string();
        assert!(told.ends_with("is being handed over to other"), "{stage:?}: {told}");
    }
}

/// What can be the case with a shard this worker does not process.
const OTHERS: &[(&str, Change, &str)] = &[
    (
        "another's",
        |s| s.lease(lease(SHARD, Some("other"), Checkpoint::At(at(1))), 90),
        "is leased by other, as seen for 1 min 30 s",
    ),
    (
        "another's, asked for",
        |s| {
            let mut row = lease(SHARD, Some("other"), Checkpoint::At(at(1)));
            row.requested_by = Some("me".into());
            s.lease(row, 90);
        },
        "is leased by other, as seen for 1 min 30 s, and was asked for by me",
    ),
    (
        "a stranger's",
        |s| {
            s.fleet();
            s.lease(lease(SHARD, Some("java"), Checkpoint::At(at(1))), 5);
        },
        "is leased by java, as seen for 5 s, which is not a member of the fleet",
    ),
    (
        "another's, that waits",
        |s| {
            let mut row = lease(SHARD, Some("other"), Checkpoint::TrimHorizon);
            row.parents = BTreeSet::from([PARENT.into()]);
            s.lease(row, 5);
        },
        "is leased by other, as seen for 5 s, and waits for the end of shardId-000000000001 (at 7/0, held by other)",
    ),
    (
        "a dead worker's",
        |s| {
            s.lease(lease(SHARD, Some("other"), Checkpoint::At(at(1))), 90);
            s.snapshot.expired.insert(SHARD.into(), s.ago(2));
        },
        "is leased by other, which has been taken for dead for 2 s: the next plan of the workers shares it out",
    ),
    (
        "this worker's, without a consumer",
        |_| {},
        "has been held for 3 min 20 s and waits for its consumer to start",
    ),
    (
        "free",
        |s| s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3),
        "is free, as seen for 3 s: the next plan of the workers shares it out",
    ),
    (
        "free, on standby",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.snapshot.taking = false;
        },
        "is free, as seen for 3 s: this worker is on standby and takes nothing",
    ),
    (
        "free, not a member",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.fleet().member = None;
        },
        "is free, as seen for 3 s: this worker takes nothing until it is a member of the fleet",
    ),
    (
        "free, beside a stranger",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.fleet().foreign_owner = Some("java".into());
        },
        "is free, as seen for 3 s: nothing is taken while java, which is not a member of the fleet, works on the table",
    ),
    (
        "free, given up",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.snapshot.given_up.insert(SHARD.into(), s.snapshot.at + seconds(7));
        },
        "is free, as seen for 3 s: this worker gave it up and leaves it to others for 7 s",
    ),
    (
        "free, decided about",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.fleet().decisions.insert(SHARD.into(), "taken: it is free".into());
        },
        "is free, as seen for 3 s: taken: it is free",
    ),
    (
        "free, too many held",
        |s| {
            s.settings.max_leases = 1;
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            let report = s.held.clone();
            let (valid_for, shows_life) = (seconds(9), true);
            let held = ShardSnapshot { report, valid_for, handing_over_to: None, shows_life };
            s.snapshot.shards.insert(PARENT.into(), held);
        },
        "is free, as seen for 3 s: this worker holds 1 leases, the most it may (max_leases)",
    ),
    (
        "free, stopping",
        |s| {
            s.lease(lease(SHARD, None, Checkpoint::TrimHorizon), 3);
            s.snapshot.phase = SchedulerPhase::Stopping;
        },
        "is free, as seen for 3 s: this worker is stopping, and another takes it",
    ),
    (
        "ended",
        |s| {
            let mut row = lease(SHARD, None, Checkpoint::ShardEnd);
            row.children = BTreeSet::from(["a".into(), "b".into()]);
            s.lease(row, 3);
        },
        "is processed to its end; its children are a and b",
    ),
    (
        "without a lease",
        |s| {
            Arc::make_mut(&mut s.snapshot.leases).remove(SHARD);
            s.snapshot.listed_shards = Arc::new(vec![child_of(None)]);
        },
        "has no lease yet; the next comparison of shards and leases creates it",
    ),
    (
        "without a lease, behind its parent",
        |s| {
            Arc::make_mut(&mut s.snapshot.leases).remove(SHARD);
            s.snapshot.listed_shards = Arc::new(vec![child_of(Some(PARENT.into()))]);
        },
        "has no lease yet, and gets one at the end of shardId-000000000001 (at 7/0, held by other)",
    ),
    (
        "unreadable",
        |s| {
            Arc::make_mut(&mut s.snapshot.leases).remove(SHARD);
            s.snapshot.unreadable.insert(SHARD.to_owned(), "no counter".to_owned());
        },
        "is not processed: its row in the lease table cannot be read: no counter",
    ),
    (
        "unknown",
        |s| {
            Arc::make_mut(&mut s.snapshot.leases).remove(SHARD);
            s.snapshot.shards_listed_ago = Some(seconds(30));
        },
        "is unknown: neither the lease table nor the stream's listing has it, which is 30 s old",
    ),
    (
        "of a scheduler that starts",
        |s| s.snapshot.phase = SchedulerPhase::Starting,
        "is not processed yet: the scheduler is starting",
    ),
    (
        "of a scheduler that stopped",
        |s| s.snapshot.phase = SchedulerPhase::Stopped,
        "is not processed: the scheduler has stopped",
    ),
];

fn child_of(parent: Option<ShardId>) -> Shard {
    Shard {
        id: SHARD.into(),
        parent,
        adjacent_parent: None,
        hash_key_range: HashKeyRange::FULL,
        starting_sequence_number: 5u64.into(),
        ending_sequence_number: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_processed_here_is_explained_by_the_table_and_the_listing() {
    for (name, change, sentence) in OTHERS {
        let mut scene = Scene::new();
        change(&mut scene);
        let explanation = scene.explain(SHARD);
        assert_eq!(explanation.to_string(), format!("{SHARD} {sentence}"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_answers_nothing_for_good_is_not_taken_for_a_quiet_shard() {
    let mut scene = Scene::new();
    let mut reader = ReaderReport { since: scene.ago(30), ..scene.held.reader.clone() };
    reader.quiet_since = Some(scene.ago(600));
    scene.held.reader = reader;
    assert_eq!(scene.held().problem, Some(ProblemKind::SourceSilent));
}
