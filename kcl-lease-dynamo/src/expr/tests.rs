use kcl_core::Position;
use kcl_core::lease::PendingCheckpoint;
use kcl_core::lease::verb::Verb;
use kcl_core::lease::{AttemptToken, Lease};
use kcl_core::model::{Checkpoint, HashKeyRange};

use super::*;

const A_LEASE: &str = "attribute_exists(#leaseKey) AND (attribute_not_exists(#entityType) OR #entityType = :expected_entityType)";

/// Checks an expression whole: condition, update and, as `placeholder=value`, the values.
#[track_caller]
fn assert_golden(expression: &Expression, condition: &str, update: Option<&str>, values: &[&str]) {
    assert_eq!(expression.condition(), condition);
    assert_eq!(expression.update().as_deref(), update);
    let rendered: Vec<_> =
        expression.values.iter().map(|(name, value)| format!("{name}={}", render(value))).collect();
    assert_eq!(rendered, values);

    // DynamoDB refuses names and values that no expression uses, and names that are not defined.
    let text = format!("{} {}", expression.condition(), expression.update().unwrap_or_default());
    let used: std::collections::BTreeSet<_> = text
        .split(|c: char| !(c.is_alphanumeric() || "#:_".contains(c)))
        .filter(|word| word.starts_with(['#', ':']))
        .map(str::to_owned)
        .collect();
    let defined = expression.names.keys().chain(expression.values.keys()).cloned().collect();
    assert_eq!(used, defined);
    for (placeholder, attribute) in &expression.names {
        assert_eq!(placeholder.strip_prefix('#'), Some(attribute.as_str()));
    }
}

fn render(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) => format!("S {text}"),
        AttributeValue::N(digits) => format!("N {digits}"),
        AttributeValue::Ss(texts) => format!("SS {}", texts.join(",")),
        AttributeValue::B(bytes) => format!("B {:?}", bytes.as_ref()),
        other => panic!("not used: {other:?}"),
    }
}

fn token() -> AttemptToken {
    AttemptToken("6d62a5f2-0000-4000-8000-000000000001".parse().unwrap())
}

fn owned() -> Lease {
    let mut lease = Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    lease.owner = Some("worker-a".into());
    lease.counter = 41;
    lease
}

fn at(sequence: u64, sub_sequence: u64) -> Checkpoint {
    Checkpoint::At(Position::new(sequence.into(), sub_sequence))
}

fn of(verb: &Verb) -> Expression {
    Expression::patching(&verb.expect, &verb.patch)
}

const OWNED: &str = " AND #leaseCounter = :expected_leaseCounter AND #leaseOwner = :expected_leaseOwner";

#[test]
fn creation_requires_that_there_is_no_row() {
    assert_golden(&Expression::no_row(), "attribute_not_exists(#leaseKey)", None, &[]);
}

#[test]
fn every_write_requires_a_row_that_is_a_lease() {
    let expression = Expression::patching(&Expectation::default(), &Patch::default());
    assert_golden(&expression, A_LEASE, None, &[":expected_entityType=S LEASE"]);
}

#[test]
fn renew_writes_the_counter_and_the_token() {
    assert_golden(
        &of(&Verb::renew(&owned(), token())),
        &format!("{A_LEASE}{OWNED}"),
        Some("SET #leaseCounter = :leaseCounter, #attemptToken = :attemptToken"),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
        ],
    );
}

#[test]
fn take_from_another_counts_the_switch_and_clears_requests() {
    assert_golden(
        &of(&Verb::take(&owned(), &"worker-b".into(), token())),
        &format!("{A_LEASE}{OWNED}"),
        Some(
            "SET #leaseCounter = :leaseCounter, #leaseOwner = :leaseOwner, #attemptToken = :attemptToken \
             REMOVE #handOverRequest, #checkpointOwner ADD #ownerSwitchesSinceCheckpoint :one",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
            ":leaseOwner=S worker-b",
            ":one=N 1",
        ],
    );
}

#[test]
fn take_of_a_free_lease_requires_that_it_is_free() {
    let mut free = owned();
    free.owner = None;
    assert_golden(
        &of(&Verb::take(&free, &"worker-b".into(), token())),
        &format!(
            "{A_LEASE} AND #leaseCounter = :expected_leaseCounter AND attribute_not_exists(#leaseOwner)"
        ),
        Some(
            "SET #leaseCounter = :leaseCounter, #leaseOwner = :leaseOwner, #attemptToken = :attemptToken \
             REMOVE #handOverRequest, #checkpointOwner",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":leaseCounter=N 42",
            ":leaseOwner=S worker-b",
        ],
    );
}

#[test]
fn request_changes_nothing_but_the_request() {
    assert_golden(
        &of(&Verb::request(&owned(), &"worker-b".into())),
        &format!(
            "{A_LEASE} AND #leaseOwner = :expected_leaseOwner AND \
             (attribute_not_exists(#handOverRequest) OR #handOverRequest = :expected_handOverRequest)"
        ),
        Some("SET #handOverRequest = :handOverRequest"),
        &[
            ":expected_entityType=S LEASE",
            ":expected_handOverRequest=S worker-b",
            ":expected_leaseOwner=S worker-a",
            ":handOverRequest=S worker-b",
        ],
    );
}

#[test]
fn checkpoint_writes_both_parts_and_drops_the_pending_one() {
    assert_golden(
        &of(&Verb::checkpoint(&owned(), at(77, 3), token())),
        &format!("{A_LEASE}{OWNED}"),
        Some(
            "SET #leaseCounter = :leaseCounter, #checkpoint = :checkpoint, \
             #checkpointSubSequenceNumber = :checkpointSubSequenceNumber, \
             #ownerSwitchesSinceCheckpoint = :ownerSwitchesSinceCheckpoint, #attemptToken = :attemptToken \
             REMOVE #pendingCheckpoint, #pendingCheckpointSubSequenceNumber, #pendingCheckpointState",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":checkpoint=S 77",
            ":checkpointSubSequenceNumber=N 3",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
            ":ownerSwitchesSinceCheckpoint=N 0",
        ],
    );
}

#[test]
fn prepare_without_state_drops_an_older_state() {
    let pending = PendingCheckpoint { position: Position::new(9.into(), 1), state: None };
    assert_golden(
        &of(&Verb::prepare_checkpoint(&owned(), pending, token())),
        &format!("{A_LEASE}{OWNED}"),
        Some(
            "SET #leaseCounter = :leaseCounter, #pendingCheckpoint = :pendingCheckpoint, \
             #pendingCheckpointSubSequenceNumber = :pendingCheckpointSubSequenceNumber, \
             #attemptToken = :attemptToken REMOVE #pendingCheckpointState",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
            ":pendingCheckpoint=S 9",
            ":pendingCheckpointSubSequenceNumber=N 1",
        ],
    );
}

#[test]
fn prepare_with_state_writes_bytes() {
    let state = Some(vec![0_u8, 255].into());
    let pending = PendingCheckpoint { position: Position::new(9.into(), 0), state };
    let patch = Patch { pending: Change::Set(pending), ..Patch::default() };
    assert_golden(
        &Expression::patching(&Expectation::default(), &patch),
        A_LEASE,
        Some(
            "SET #pendingCheckpoint = :pendingCheckpoint, \
             #pendingCheckpointSubSequenceNumber = :pendingCheckpointSubSequenceNumber, \
             #pendingCheckpointState = :pendingCheckpointState",
        ),
        &[
            ":expected_entityType=S LEASE",
            ":pendingCheckpoint=S 9",
            ":pendingCheckpointState=B [0, 255]",
            ":pendingCheckpointSubSequenceNumber=N 0",
        ],
    );
}

#[test]
fn end_names_the_children_and_frees_the_lease() {
    assert_golden(
        &of(&Verb::end(&owned(), ["shardId-2".into(), "shardId-1".into()].into(), token())),
        &format!("{A_LEASE}{OWNED}"),
        Some(
            "SET #leaseCounter = :leaseCounter, #checkpoint = :checkpoint, \
             #checkpointSubSequenceNumber = :checkpointSubSequenceNumber, \
             #ownerSwitchesSinceCheckpoint = :ownerSwitchesSinceCheckpoint, #childShardIds = :childShardIds, \
             #attemptToken = :attemptToken \
             REMOVE #leaseOwner, #pendingCheckpoint, #pendingCheckpointSubSequenceNumber, \
             #pendingCheckpointState, #handOverRequest",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":checkpoint=S SHARD_END",
            ":checkpointSubSequenceNumber=N 0",
            ":childShardIds=SS shardId-1,shardId-2",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
            ":ownerSwitchesSinceCheckpoint=N 0",
        ],
    );
}

#[test]
fn release_to_a_successor_counts_the_switch() {
    assert_golden(
        &of(&Verb::release(&owned(), None, Some("worker-b".into()), token())),
        &format!("{A_LEASE}{OWNED}"),
        Some(
            "SET #leaseCounter = :leaseCounter, #leaseOwner = :leaseOwner, #attemptToken = :attemptToken \
             REMOVE #handOverRequest ADD #ownerSwitchesSinceCheckpoint :one",
        ),
        &[
            ":attemptToken=S 6d62a5f2-0000-4000-8000-000000000001",
            ":expected_entityType=S LEASE",
            ":expected_leaseCounter=N 41",
            ":expected_leaseOwner=S worker-a",
            ":leaseCounter=N 42",
            ":leaseOwner=S worker-b",
            ":one=N 1",
        ],
    );
}

#[test]
fn an_empty_set_of_children_removes_the_attribute() {
    let patch = Patch { children: Some([].into()), ..Patch::default() };
    let expression = Expression::patching(&Expectation::default(), &patch);
    assert_golden(&expression, A_LEASE, Some("REMOVE #childShardIds"), &[":expected_entityType=S LEASE"]);
}

#[test]
fn hash_keys_are_decimal_texts() {
    let patch = Patch { hash_key_range: Some(HashKeyRange::FULL), ..Patch::default() };
    assert_golden(
        &Expression::patching(&Expectation::default(), &patch),
        A_LEASE,
        Some("SET #startingHashKey = :startingHashKey, #endingHashKey = :endingHashKey"),
        &[
            ":endingHashKey=S 340282366920938463463374607431768211455",
            ":expected_entityType=S LEASE",
            ":startingHashKey=S 0",
        ],
    );
}

#[test]
fn a_checkpoint_is_compared_in_as_many_parts_as_matter() {
    let expecting = |checkpoint| {
        Expression::expecting(&Expectation { checkpoint: Some(checkpoint), ..Expectation::default() })
    };
    assert_golden(
        &expecting(at(7, 3)),
        &format!(
            "{A_LEASE} AND #checkpoint = :expected_checkpoint AND \
             #checkpointSubSequenceNumber = :expected_checkpointSubSequenceNumber"
        ),
        None,
        &[
            ":expected_checkpoint=S 7",
            ":expected_checkpointSubSequenceNumber=N 3",
            ":expected_entityType=S LEASE",
        ],
    );
    assert_golden(
        &expecting(at(7, 0)),
        &format!(
            "{A_LEASE} AND #checkpoint = :expected_checkpoint AND \
             (attribute_not_exists(#checkpointSubSequenceNumber) OR \
             #checkpointSubSequenceNumber = :expected_checkpointSubSequenceNumber)"
        ),
        None,
        &[
            ":expected_checkpoint=S 7",
            ":expected_checkpointSubSequenceNumber=N 0",
            ":expected_entityType=S LEASE",
        ],
    );
    assert_golden(
        &expecting(Checkpoint::Latest),
        &format!("{A_LEASE} AND #checkpoint = :expected_checkpoint"),
        None,
        &[":expected_checkpoint=S LATEST", ":expected_entityType=S LEASE"],
    );
}
