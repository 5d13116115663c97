use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::lease::handle::{CheckpointUpdate, ReleaseTo};
use crate::lease::{Change, PendingCheckpoint, StoreErrorKind};
use crate::model::{Checkpoint, ChildShard, HashKeyRange, Position};

const DURATION: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(1);

/// A keeper, and a table its attempts are applied to by hand.
struct Bench {
    keeper: Keeper,
    table: BTreeMap<ShardId, Lease>,
    _commands: mpsc::Receiver<Command>,
}

type Answered = oneshot::Receiver<Result<(), CheckpointError>>;

impl Bench {
    fn new() -> Self {
        let (sender, commands) = mpsc::channel(8);
        let settings = KeeperSettings {
            lease_duration: DURATION,
            safety_margin: MARGIN,
            max_writes: 4,
            first_promise: DURATION * 6,
            stream: StreamIdentity { arn: "arn".into(), created_millis: 1 },
            initial: InitialPosition::TrimHorizon,
            proof: Proof::Lease,
        };
        let keeper = Keeper::new("me".into(), settings, Entropy::seeded(1), sender);
        Self { keeper, table: BTreeMap::new(), _commands: commands }
    }

    fn row(&mut self, shard: &str) -> Lease {
        let lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
        self.table.insert(shard.into(), lease.clone());
        lease
    }

    fn apply(&mut self, call: &Call) -> Write {
        match call {
            Call::Create(lease) => match self.table.get(&lease.shard) {
                Some(row) => Write::Conflict(Some(row.clone())),
                None => {
                    self.table.insert(lease.shard.clone(), lease.clone());
                    Write::Applied(lease.clone())
                }
            },
            Call::Update(verb) => match self.table.get(&verb.shard) {
                Some(row) if verb.expect.holds_for(row) => {
                    let row = verb.patch.apply_to(row);
                    self.table.insert(verb.shard.clone(), row.clone());
                    Write::Applied(row)
                }
                row => Write::Conflict(row.cloned()),
            },
        }
    }

    fn one_attempt(&mut self) -> Attempt {
        let mut attempts = self.keeper.due(Instant::now());
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        attempts.remove(0)
    }

    /// Applies and answers everything that is due.
    fn settle(&mut self) -> usize {
        let mut count = 0;
        loop {
            let attempts = self.keeper.due(Instant::now());
            if attempts.is_empty() {
                return count;
            }
            for attempt in attempts {
                let now = Instant::now();
                let write = self.apply(&attempt.call);
                self.keeper.answered((&attempt.shard, attempt.number), Ok(write), now, now);
                count += 1;
            }
        }
    }

    fn hold(&mut self, shard: &str) -> LeaseHandle {
        let row = self.row(shard);
        self.keeper.acquire(&row, Acquisition::Take, "test".into(), Instant::now());
        self.settle();
        self.handle(shard)
    }

    fn handle(&mut self, shard: &str) -> LeaseHandle {
        self.keeper.changed = true;
        self.keeper.take_changed_handles(Instant::now()).unwrap()[shard].clone()
    }

    fn checkpoint(&mut self, handle: &LeaseHandle, sequence: u64) -> Answered {
        let update = CheckpointUpdate::Commit(at(sequence));
        let (answer, answered) = oneshot::channel();
        let (shard, incarnation) = (handle.shard().clone(), handle.incarnation());
        self.keeper.command(Command::Checkpoint { shard, incarnation, update, answer }, Instant::now());
        answered
    }

    fn end(&mut self, handle: &LeaseHandle, children: &[&str]) -> Answered {
        let children = children.iter().map(|child| ChildShard {
            id: (*child).into(),
            parents: vec![handle.shard().clone()],
            hash_key_range: range(),
        });
        let end = EndShard { children: children.collect() };
        let (answer, answered) = oneshot::channel();
        let (shard, incarnation) = (handle.shard().clone(), handle.incarnation());
        self.keeper.command(Command::End { shard, incarnation, end, answer }, Instant::now());
        answered
    }
}

fn range() -> HashKeyRange {
    HashKeyRange::FULL
}

fn at(sequence: u64) -> Checkpoint {
    Checkpoint::At(Position::new(sequence.into(), 0))
}

fn error(kind: StoreErrorKind) -> Arc<StoreError> {
    Arc::new(StoreError::new(kind, "UpdateItem", "table", "test"))
}

async fn advance(by: Duration) {
    tokio::time::advance(by).await;
}

#[tokio::test(start_paused = true)]
async fn validity_counts_from_before_the_write_was_sent() {
    let mut bench = Bench::new();
    let row = bench.row("a");
    let sent = Instant::now();
    bench.keeper.acquire(&row, Acquisition::Take, "test".into(), sent);
    let attempt = bench.one_attempt();
    advance(Duration::from_secs(3)).await;
    let write = bench.apply(&attempt.call);
    bench.keeper.answered((&attempt.shard, attempt.number), Ok(write), sent, Instant::now());
    let handle = bench.handle("a");
    assert_eq!(handle.standing().valid_until, sent + DURATION - MARGIN);
    assert!(handle.may_deliver());
    advance(Duration::from_secs(6)).await;
    assert!(!handle.may_deliver());
}

#[tokio::test(start_paused = true)]
async fn six_attempts_to_renew_or_checkpoint_fit_into_the_time_that_is_left_of_the_lease() {
    for checkpoint in [false, true] {
        let mut bench = Bench::new();
        let handle = bench.hold("a");
        let held = Instant::now();
        advance(bench.keeper.settings.renewal_interval()).await;
        let _answered = checkpoint.then(|| bench.checkpoint(&handle, 5));
        let mut attempts = 0;
        while held.elapsed() < DURATION {
            for attempt in bench.keeper.due(Instant::now()) {
                attempts += 1;
                let sent = Instant::now();
                advance(attempt.time_out).await;
                let unanswered = Err(error(StoreErrorKind::Unavailable));
                bench.keeper.answered((&attempt.shard, attempt.number), unanswered, sent, Instant::now());
            }
            advance(Duration::from_millis(1)).await;
        }
        assert!(attempts >= 6, "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_throttles_for_six_tenths_of_a_lease_at_the_worst_time_costs_no_lease() {
    for seed in 0..40 {
        let mut bench = Bench::new();
        bench.keeper.entropy = Entropy::seeded(seed);
        bench.hold("a");
        advance(bench.keeper.settings.renewal_interval()).await;
        bench.settle();
        let renewed = Instant::now();
        advance(bench.keeper.settings.renewal_interval()).await;
        let throttled = Instant::now();
        let mut attempts = 0;
        let landed = loop {
            let now = Instant::now();
            for attempt in bench.keeper.due(now) {
                attempts += 1;
                let refused = Err(error(StoreErrorKind::Throttled));
                bench.keeper.answered((&attempt.shard, attempt.number), refused, now, now);
                if throttled.elapsed() >= DURATION.mul_f64(0.6) {
                    attempts += 100;
                }
            }
            if attempts >= 100 {
                break now;
            }
            advance(Duration::from_millis(5)).await;
        };
        assert!(landed - renewed < DURATION, "seed {seed}: {:?}", landed - renewed);
        assert!(attempts < 100 + 25, "seed {seed}: a table that throttles is not stormed: {attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_makes_the_next_renewal_superfluous() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    for second in 1..=30u64 {
        advance(Duration::from_secs(1)).await;
        let mut answered = bench.checkpoint(&handle, second);
        assert_eq!(bench.settle(), 1, "the checkpoint and nothing else");
        assert!(answered.try_recv().unwrap().is_ok());
    }
    assert_eq!(bench.table["a"].checkpoint, at(30));
    assert_eq!(bench.table["a"].counter, 31);
    advance(DURATION / 3).await;
    assert_eq!(bench.settle(), 1, "without checkpoints, renewals");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_never_move_back_and_are_merged() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut later = bench.checkpoint(&handle, 9);
    let mut earlier = bench.checkpoint(&handle, 4);
    assert_eq!(bench.settle(), 1);
    assert!(later.try_recv().unwrap().is_ok());
    assert!(earlier.try_recv().unwrap().is_ok());
    let mut old = bench.checkpoint(&handle, 7);
    assert_eq!(bench.settle(), 0, "stored already");
    assert!(old.try_recv().unwrap().is_ok());
    assert_eq!(bench.table["a"].checkpoint, at(9));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_landed_without_an_answer_is_recognised_when_it_is_repeated() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut answered = bench.checkpoint(&handle, 5);
    let attempt = bench.one_attempt();
    let first = Instant::now();
    let _ = bench.apply(&attempt.call);
    bench.keeper.answered(
        (&attempt.shard, attempt.number),
        Err(error(StoreErrorKind::Unavailable)),
        first,
        first,
    );
    assert_eq!(answered.try_recv().unwrap_err(), TryRecvError::Empty, "nothing is known yet");
    let other = bench.checkpoint(&handle, 6);
    advance(Duration::from_secs(2)).await;
    let repeat = bench.one_attempt();
    let (Call::Update(once), Call::Update(again)) = (&attempt.call, &repeat.call) else { panic!() };
    assert_eq!(once, again, "nothing else is written before the answer");
    let write = bench.apply(&repeat.call);
    assert!(matches!(write, Write::Conflict(_)));
    bench.keeper.answered((&repeat.shard, repeat.number), Ok(write), Instant::now(), Instant::now());
    assert!(answered.try_recv().unwrap().is_ok());
    assert_eq!(handle.standing().valid_until, first + DURATION - MARGIN, "counts from the first attempt");
    bench.settle();
    drop(other);
    assert_eq!(bench.table["a"].checkpoint, at(6));
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_after_a_lost_answer_is_not_taken_for_ones_own() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut answered = bench.checkpoint(&handle, 5);
    let attempt = bench.one_attempt();
    let now = Instant::now();
    bench.keeper.answered(
        (&attempt.shard, attempt.number),
        Err(error(StoreErrorKind::Unavailable)),
        now,
        now,
    );
    // A Java worker takes the lease: new counter, old token.
    let row = bench.table.get_mut("a").unwrap();
    row.owner = Some("java".into());
    row.counter += 1;
    advance(Duration::from_secs(2)).await;
    bench.settle();
    assert!(matches!(answered.try_recv().unwrap(), Err(CheckpointError::LeaseLost)));
    let mut handle = handle;
    assert_eq!(handle.lost().await, LossReason::Taken { by: Some("java".into()) });
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_landed_before_the_lease_was_taken_counts_as_stored() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut answered = bench.checkpoint(&handle, 5);
    let attempt = bench.one_attempt();
    let now = Instant::now();
    let _ = bench.apply(&attempt.call);
    bench.keeper.answered(
        (&attempt.shard, attempt.number),
        Err(error(StoreErrorKind::Unavailable)),
        now,
        now,
    );
    let row = bench.table.get_mut("a").unwrap();
    row.owner = Some("java".into());
    row.counter += 1;
    advance(Duration::from_secs(2)).await;
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
    assert!(handle.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_consumer_broke_its_promise_is_given_up() {
    let mut bench = Bench::new();
    let mut handle = bench.hold("a");
    handle.promise(Duration::from_secs(2));
    advance(DURATION / 3).await;
    let attempt = bench.one_attempt();
    let Call::Update(verb) = &attempt.call else { panic!() };
    assert_eq!(verb.patch.owner, Change::Remove);
    assert_eq!(handle.lost().await, LossReason::Stalled, "told before the lease is given up");
    let now = Instant::now();
    let write = bench.apply(&attempt.call);
    bench.keeper.answered((&attempt.shard, attempt.number), Ok(write), now, now);
    assert_eq!(bench.table["a"].owner, None);
    assert!(matches!(bench.checkpoint(&handle, 3).try_recv().unwrap(), Err(CheckpointError::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn renewals_go_on_after_validity_lapsed_and_restore_it() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    for _ in 0..30 {
        advance(Duration::from_secs(1)).await;
        for attempt in bench.keeper.due(Instant::now()) {
            let now = Instant::now();
            bench.keeper.answered(
                (&attempt.shard, attempt.number),
                Err(error(StoreErrorKind::Throttled)),
                now,
                now,
            );
        }
    }
    assert!(!handle.may_deliver());
    assert!(!handle.is_lost(), "nobody took it");
    advance(Duration::from_secs(2)).await;
    bench.settle();
    assert!(handle.may_deliver());
}

#[tokio::test(start_paused = true)]
async fn children_have_leases_before_their_parent_is_marked_as_ended() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut answered = bench.end(&handle, &["b", "c"]);
    let attempts = bench.keeper.due(Instant::now());
    let creations = attempts.iter().filter(|a| matches!(a.call, Call::Create(_))).count();
    assert_eq!((attempts.len(), creations), (2, 2), "the end waits for both");
    let now = Instant::now();
    for attempt in attempts {
        assert_eq!(bench.table["a"].checkpoint, Checkpoint::TrimHorizon);
        let write = bench.apply(&attempt.call);
        bench.keeper.answered((&attempt.shard, attempt.number), Ok(write), now, now);
    }
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
    let parent = &bench.table["a"];
    assert_eq!(parent.checkpoint, Checkpoint::ShardEnd);
    assert_eq!(parent.owner, None, "ended leases are renewed by nobody");
    assert_eq!(parent.children, BTreeSet::from(["b".into(), "c".into()]));
    for child in ["b", "c"] {
        assert_eq!(bench.table[child].owner, Some("me".into()));
        assert_eq!(bench.table[child].checkpoint, Checkpoint::TrimHorizon);
        assert!(bench.handle(child).may_deliver());
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_somebody_else_created_does_not_hold_up_the_end() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    bench.row("b");
    let mut answered = bench.end(&handle, &["b"]);
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
    assert_eq!(bench.table["b"].owner, None, "left as it is");
    assert!(bench.table["a"].is_ended());
}

#[tokio::test(start_paused = true)]
async fn both_parents_of_a_merge_that_end_at_once_wait_for_the_lease_of_the_child() {
    let mut bench = Bench::new();
    let (one, other) = (bench.hold("a"), bench.hold("b"));
    let mut one_answered = bench.end(&one, &["c"]);
    let creation = bench.one_attempt();
    let mut other_answered = bench.end(&other, &["c"]);
    assert!(bench.keeper.due(Instant::now()).is_empty(), "no end is written before the creation is answered");
    let now = Instant::now();
    let write = bench.apply(&creation.call);
    bench.keeper.answered((&creation.shard, creation.number), Ok(write), now, now);
    bench.settle();
    assert!(one_answered.try_recv().unwrap().is_ok() && other_answered.try_recv().unwrap().is_ok());
    assert!(bench.table["a"].is_ended() && bench.table["b"].is_ended());
}

#[tokio::test(start_paused = true)]
async fn the_parent_is_renewed_while_its_children_cannot_be_created() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut answered = bench.end(&handle, &["b"]);
    let begun = Instant::now();
    while begun.elapsed() < DURATION * 2 {
        for attempt in bench.keeper.due(Instant::now()) {
            let now = Instant::now();
            let result = match attempt.call {
                Call::Create(_) => Err(error(StoreErrorKind::Throttled)),
                Call::Update(_) => Ok(bench.apply(&attempt.call)),
            };
            bench.keeper.answered((&attempt.shard, attempt.number), result, now, now);
        }
        assert!(handle.may_deliver());
        advance(Duration::from_millis(250)).await;
    }
    assert_eq!(answered.try_recv().unwrap_err(), TryRecvError::Empty);
    advance(Duration::from_secs(2)).await;
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_release_carries_the_final_checkpoint_in_one_write() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let mut earlier = bench.checkpoint(&handle, 3);
    let (answer, mut answered) = oneshot::channel();
    let command = Command::Release {
        shard: "a".into(),
        incarnation: handle.incarnation(),
        checkpoint: Some(at(8)),
        to: ReleaseTo::Worker("other".into()),
        answer,
    };
    bench.keeper.command(command, Instant::now());
    assert_eq!(bench.settle(), 1);
    assert!(answered.try_recv().unwrap().is_ok() && earlier.try_recv().unwrap().is_ok());
    assert_eq!(bench.table["a"].checkpoint, at(8));
    assert_eq!(bench.table["a"].owner, Some("other".into()));
}

#[tokio::test(start_paused = true)]
async fn a_handle_of_an_earlier_hold_can_write_nothing() {
    let mut bench = Bench::new();
    let old = bench.hold("a");
    let row = bench.table.get_mut("a").unwrap();
    row.counter += 1;
    advance(DURATION / 3).await;
    bench.settle();
    assert!(old.is_lost());
    let row = bench.table["a"].clone();
    bench.keeper.acquire(&row, Acquisition::Adopt, "named".into(), Instant::now());
    bench.settle();
    assert!(matches!(bench.checkpoint(&old, 1).try_recv().unwrap(), Err(CheckpointError::LeaseLost)));
    let new = bench.handle("a");
    let mut answered = bench.checkpoint(&new, 1);
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_is_held_at_once_and_announced_after_its_holder_can_no_longer_believe_in_it() {
    let mut bench = Bench::new();
    let mut row = bench.row("a");
    row.owner = Some("slow".into());
    bench.table.insert("a".into(), row.clone());
    bench.keeper.acquire(&row, Acquisition::Steal, "ignored".into(), Instant::now());
    bench.settle();
    assert_eq!(bench.table["a"].owner, Some("me".into()));
    let held = |bench: &mut Bench| bench.keeper.take_changed_handles(Instant::now());
    assert!(held(&mut bench).is_some_and(|held| held.is_empty()));
    let begun = Instant::now();
    while begun.elapsed() < DURATION {
        advance(Duration::from_millis(500)).await;
        bench.settle();
    }
    assert!(held(&mut bench).is_some_and(|held| held.contains_key("a")));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_the_lease_is_shown_to_its_consumer() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    bench.table.get_mut("a").unwrap().requested_by = Some("newcomer".into());
    advance(DURATION / 3).await;
    bench.settle();
    assert_eq!(handle.standing().phase, Phase::HandOver("newcomer".into()));
}

#[tokio::test(start_paused = true)]
async fn a_prepared_checkpoint_is_stored_beside_the_checkpoint_and_dropped_by_the_next() {
    let mut bench = Bench::new();
    let handle = bench.hold("a");
    let pending = PendingCheckpoint { position: Position::new(4.into(), 1), state: Some("state".into()) };
    let (answer, mut answered) = oneshot::channel();
    let update = CheckpointUpdate::Prepare(pending.clone());
    let incarnation = handle.incarnation();
    bench
        .keeper
        .command(Command::Checkpoint { shard: "a".into(), incarnation, update, answer }, Instant::now());
    bench.settle();
    assert!(answered.try_recv().unwrap().is_ok());
    assert_eq!(bench.table["a"].pending, Some(pending));
    assert_eq!(bench.table["a"].checkpoint, Checkpoint::TrimHorizon);
    let _answered = bench.checkpoint(&handle, 4);
    bench.settle();
    assert_eq!(bench.table["a"].pending, None);
}
