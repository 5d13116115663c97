//! Rows as the Java KCL 2.x and 3.x, and workers of ours, write them.

use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::model::StreamIdentity;
use kcl_lease_dynamo::Item;

use super::*;

const MEMBER: &str = "w:00000000-0000-0000-0000-000000000007:f0";

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn item(attributes: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A row as KCL 2.x writes it, of the `index`th of two shards.
fn java2(index: u64, owner: Option<&str>, checkpoint: &str) -> Item {
    let half = u128::MAX / 2;
    let (first, last) = if index == 0 { (0, half) } else { (half + 1, u128::MAX) };
    let mut row = item([
        ("leaseKey", text(&format!("shardId-{index:012}"))),
        ("leaseCounter", number(12)),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("checkpoint", text(checkpoint)),
        ("checkpointSubSequenceNumber", number(0)),
        ("startingHashKey", text(&first.to_string())),
        ("endingHashKey", text(&last.to_string())),
    ]);
    if let Some(owner) = owner {
        row.insert("leaseOwner".into(), text(owner));
    }
    row
}

fn with(mut row: Item, attributes: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Item {
    row.extend(item(attributes));
    row
}

fn leader() -> Item {
    item([
        ("leaseKey", text("Leader")),
        ("entityType", text("LEADER")),
        ("ownerName", text("10.0.0.1:6f1d")),
        ("leaseDuration", text("120000")),
    ])
}

fn fleet_row() -> Item {
    let entry = item([("hb", number(5)), ("d", number(10_000)), ("st", text("active")), ("n", number(1))]);
    let workers = [(MEMBER.to_owned(), AttributeValue::M(entry))].into();
    item([
        ("leaseKey", text("kcl:fleet:0")),
        ("entityType", text("FLEET")),
        ("workers", AttributeValue::M(workers)),
    ])
}

fn shard(index: u64, parents: &[u64], range: (u128, u128), open: bool) -> Shard {
    let id = |index: &u64| ShardId::from(format!("shardId-{index:012}"));
    Shard {
        id: id(&index),
        parent: parents.first().map(id),
        adjacent_parent: parents.get(1).map(id),
        hash_key_range: HashKeyRange::new(range.0, range.1).unwrap(),
        starting_sequence_number: (100 * (index + 1)).into(),
        ending_sequence_number: (!open).then(|| (100 * (index + 1) + 50).into()),
    }
}

fn two_shards() -> Vec<Shard> {
    let half = u128::MAX / 2;
    vec![shard(0, &[], (0, half), true), shard(1, &[], (half + 1, u128::MAX), true)]
}

struct Scene {
    view: TableView,
    watcher: Watcher,
    stream: Option<StreamView>,
    positions: BTreeMap<ShardId, Position>,
}

impl Scene {
    fn of(rows: impl IntoIterator<Item = Item>) -> Self {
        let view = TableView::new("orders", rows);
        let mut watcher = Watcher::new(Duration::from_secs(10));
        watcher.view(&view);
        Self { view, watcher, stream: None, positions: BTreeMap::new() }
    }

    fn with_stream(mut self, shards: Vec<Shard>) -> Self {
        let arn = "arn:aws:kinesis:us-east-1:1:stream/orders".to_owned();
        self.stream = Some(StreamView::new(StreamIdentity { arn, created_millis: 5 }, shards));
        self
    }

    fn status(&self) -> Status {
        self.starting(None)
    }

    fn starting(&self, initial: Option<InitialPosition>) -> Status {
        Status::of(&Seen {
            application: Some("orders"),
            view: &self.view,
            stream: self.stream.as_ref(),
            watcher: &self.watcher,
            positions: &self.positions,
            leadership: None,
            initial,
            notes: &[],
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        })
    }
}

fn kinds(status: &Status) -> Vec<&'static str> {
    status.problems.iter().map(|problem| problem.kind).collect()
}

fn stages(status: &Status) -> Vec<Stage> {
    status.shards.iter().map(|shard| shard.stage).collect()
}

#[tokio::test]
async fn a_sound_table_of_java_2x_has_no_problems() {
    let scene = Scene::of([java2(0, Some("a"), "105"), java2(1, Some("b"), "TRIM_HORIZON")]);
    let status = scene.with_stream(two_shards()).status();
    assert_eq!(status.fleet.kind, FleetKind::Java2);
    assert_eq!(kinds(&status), [] as [&str; 0]);
    assert_eq!(stages(&status), [Stage::Processing, Stage::Processing]);
    assert_eq!(status.owners, [("a".to_owned(), 1), ("b".to_owned(), 1)].into());
    assert!(status.notes.iter().any(|note| note.contains("--watch")), "{:?}", status.notes);
    assert!(status.notes.iter().any(|note| note.contains("--lag")), "{:?}", status.notes);
}

#[tokio::test]
async fn the_signs_of_every_fleet_are_read() {
    let ours =
        with(java2(0, Some("w"), "105"), [("attemptToken", text("00000000-0000-0000-0000-000000000001"))]);
    let just_created = with(
        java2(0, None, "TRIM_HORIZON"),
        [
            ("entityType", text("LEASE")),
            ("streamIdentity", text("arn:aws:kinesis:us-east-1:1:stream/orders@5")),
        ],
    );
    let of_member = with(ours.clone(), [("leaseOwner", text(MEMBER))]);
    for (rows, kind) in [
        (vec![], FleetKind::Empty),
        (vec![java2(0, Some("a"), "105")], FleetKind::Java2),
        (vec![java2(0, None, "105"), leader()], FleetKind::Java3),
        (vec![leader()], FleetKind::Java3),
        (vec![with(java2(0, Some("a"), "105"), [("throughputKBps", number(1))])], FleetKind::Java3),
        (vec![with(java2(0, Some("b"), "105"), [("checkpointOwner", text("a"))])], FleetKind::Java3),
        (vec![with(java2(0, Some("b"), "105"), [("entityType", text("LEASE"))])], FleetKind::Java3),
        (vec![ours], FleetKind::PerLease),
        (vec![just_created], FleetKind::PerLease),
        (vec![of_member.clone(), fleet_row()], FleetKind::Fleet),
        (vec![of_member, fleet_row(), leader()], FleetKind::Mixed),
    ] {
        let status = Scene::of(rows.clone()).status();
        assert_eq!(status.fleet.kind, kind, "{rows:?}");
        assert_eq!(kinds(&status).contains(&"mixed-fleet"), kind == FleetKind::Mixed, "{rows:?}");
    }
}

#[tokio::test]
async fn a_hand_off_of_java_3x_shows_who_works_and_who_is_next() {
    let row = with(java2(0, Some("b"), "105"), [("checkpointOwner", text("a"))]);
    let status = Scene::of([row]).status();
    let shard = &status.shards[0];
    assert_eq!(shard.stage, Stage::HandingOver);
    assert_eq!((shard.owner.as_deref(), shard.next_owner.as_deref()), (Some("a"), Some("b")));
}

#[tokio::test]
async fn a_missing_lease_leaves_a_hole() {
    // The parent ended, one of its children has no lease.
    let half = u128::MAX / 2;
    let shards = vec![
        shard(0, &[], (0, u128::MAX), false),
        shard(1, &[0], (0, half), true),
        shard(2, &[0], (half + 1, u128::MAX), true),
    ];
    let parent = with(
        java2(0, None, "SHARD_END"),
        [("startingHashKey", text("0")), ("endingHashKey", text(&u128::MAX.to_string()))],
    );
    let child = with(
        java2(1, Some("a"), "TRIM_HORIZON"),
        [
            ("startingHashKey", text("0")),
            ("endingHashKey", text(&half.to_string())),
            ("parentShardId", AttributeValue::Ss(vec!["shardId-000000000000".into()])),
        ],
    );
    let status = Scene::of([parent, child]).with_stream(shards).status();
    assert_eq!(stages(&status), [Stage::Ended, Stage::Processing, Stage::MissingLease]);
    assert_eq!(kinds(&status), ["missing-lease", "hole"]);
    assert_eq!(status.holes[0].first, (half + 1).to_string());
    assert!((status.holes[0].share - 0.5).abs() < 1e-9);
}

#[tokio::test]
async fn a_child_waits_for_its_parent_and_a_grandchild_is_pending() {
    let shards = vec![
        shard(0, &[], (0, u128::MAX), false),
        shard(1, &[0], (0, u128::MAX), false),
        shard(2, &[1], (0, u128::MAX), true),
    ];
    let full = [("startingHashKey", text("0")), ("endingHashKey", text(&u128::MAX.to_string()))];
    let parent = with(java2(0, Some("a"), "105"), full.clone());
    let child = with(
        with(java2(1, Some("a"), "TRIM_HORIZON"), full),
        [("parentShardId", AttributeValue::Ss(vec!["shardId-000000000000".into()]))],
    );
    let status = Scene::of([parent, child]).with_stream(shards).status();
    assert_eq!(stages(&status), [Stage::Processing, Stage::WaitingForParents, Stage::Pending]);
    assert_eq!(status.shards[1].waiting_for, ["shardId-000000000000"]);
    assert_eq!(status.shards[2].waiting_for, ["shardId-000000000001"]);
    assert_eq!(kinds(&status), [] as [&str; 0]);
}

#[tokio::test]
async fn shards_without_history_are_no_hole_unless_the_start_position_promised_them() {
    let scene = Scene::of([java2(0, Some("a"), "105")]).with_stream(two_shards());
    let status = scene.status();
    assert_eq!(stages(&status), [Stage::Processing, Stage::NoLease]);
    assert_eq!(kinds(&status), [] as [&str; 0]);
    assert!(status.notes.iter().any(|note| note.contains("--initial-position")), "{:?}", status.notes);
}

#[tokio::test]
async fn an_orphan_and_a_checkpoint_of_another_shard_are_found() {
    let lost =
        with(java2(7, Some("a"), "705"), [("startingHashKey", text("0")), ("endingHashKey", text("9"))]);
    let shards = two_shards();
    let rows = [java2(0, Some("a"), "5"), java2(1, Some("a"), "SHARD_END"), lost];
    let status = Scene::of(rows).with_stream(shards).status();
    assert_eq!(status.orphans, ["shardId-000000000007"]);
    let kinds = kinds(&status);
    assert_eq!(kinds.iter().filter(|kind| **kind == "impossible-checkpoint").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"orphan") && kinds.contains(&"wrong-stream"), "{kinds:?}");
}

#[tokio::test]
async fn unreadable_and_foreign_rows_are_found_and_do_not_stop_the_report() {
    let mut broken = java2(1, Some("a"), "105");
    broken.remove("leaseCounter");
    let odd = item([("leaseKey", text("odd")), ("entityType", text("SOMETHING"))]);
    let status = Scene::of([java2(0, Some("a"), "105"), broken, odd, leader()]).status();
    // Nobody works on what the row cannot tell.
    assert_eq!(kinds(&status), ["unreadable-row", "foreign-row", "hole"]);
    assert!(status.problems[0].message.contains("leaseCounter"), "{}", status.problems[0].message);
}

#[tokio::test]
async fn the_report_reads_well_and_keeps_its_field_names() {
    let rows = [java2(0, Some(MEMBER), "105"), java2(1, Some(MEMBER), "205"), fleet_row()];
    let mut scene = Scene::of(rows);
    let position =
        Position { lag_millis: Some(1_500), checkpoint_age_millis: Some(61_000), ..Position::default() };
    scene.positions.insert("shardId-000000000000".into(), position);
    let status = scene.status();
    let shown = status.to_string();
    for part in ["fleet of kcl-core", "1.5 s", "1 min 1 s", "MEMBER", "active", "no problems found"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let json = serde_json::to_value(&status).unwrap();
    let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "application",
        "fleet",
        "holes",
        "members",
        "notes",
        "orphans",
        "owners",
        "problems",
        "shards",
        "stream",
        "table",
    ];
    assert_eq!(fields, expected);
    let shard = json["shards"][0].as_object().unwrap();
    let fields: Vec<&str> = shard.keys().map(String::as_str).collect();
    let expected = [
        "checkpoint",
        "checkpoint_age_millis",
        "counter",
        "lag_millis",
        "listed",
        "next_owner",
        "note",
        "open",
        "owner",
        "shard",
        "stage",
        "standing",
        "sub_sequence_number",
        "waiting_for",
    ];
    assert_eq!(fields, expected);
    assert_eq!(json["shards"][0]["standing"]["state"], "unproven");
}
