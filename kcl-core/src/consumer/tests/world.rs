//! The world around one consumer: a scripted source, a keeper, a lineage.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kpl_aggregation::Aggregator;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::checkpointer::{CheckpointError, CheckpointPolicy};
use crate::consumer::{
    ConsumerContext, Exit, Lineage, LineageError, Order, ShardReport, Stage, WorkerBudget, run,
};
use crate::entropy::Entropy;
use crate::event::{Event, EventSender};
use crate::lease::Proof;
use crate::lease::{
    CheckpointUpdate, Command, Lease, LeaseHandle, Liveness, LossReason, Phase, ReleaseTo, Standing,
    StoreError, StoreErrorKind,
};
use crate::model::{
    Checkpoint, ChildShard, HashKeyRange, InitialPosition, Position, SequenceNumber, Shard, ShardId,
    SourceRecord, StreamIdentity,
};
use crate::processor::{AlwaysRetry, ErrorPolicy, RecordProcessorFactory};
use crate::settings::Settings;
use crate::source::{
    ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom, StreamSource,
};
use crate::testing::Recorder;
use crate::time::TokioClock;

pub(super) const SHARD: &str = "shardId-000000000000";
pub(super) const VALIDITY: Duration = Duration::from_secs(9);

pub(super) fn at(sequence: u64, sub: u64) -> Position {
    Position::new(sequence.into(), sub)
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn plain(sequence: u64, size: usize) -> SourceRecord {
    SourceRecord::new(sequence.into(), None, Some("key".into()), vec![b'x'; size].into())
}

/// An aggregate of `count` records with `size` bytes each.
pub(super) fn aggregate(sequence: u64, count: u64, size: usize) -> SourceRecord {
    let mut aggregator = Aggregator::new();
    for index in 0..count {
        let mut data = index.to_string().into_bytes();
        data.resize(size.max(data.len()), b'.');
        assert!(aggregator.add("key", Some(5), data).unwrap().is_none());
    }
    let put = aggregator.finish().unwrap();
    assert!(put.is_aggregate);
    SourceRecord::new(sequence.into(), None, Some("key".into()), put.data)
}

pub(super) fn child(id: &str) -> ChildShard {
    ChildShard { id: id.into(), parents: vec![SHARD.into()], hash_key_range: HashKeyRange::FULL }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Silent,
    Failing(SourceErrorKind),
}

/// A source that holds one shard and behaves as told.
#[derive(Debug)]
pub(super) struct Script {
    state: Mutex<ScriptState>,
    pub(super) readers: Arc<AtomicUsize>,
    put: Notify,
}

#[derive(Debug)]
pub(super) struct ScriptState {
    pub(super) records: BTreeMap<SequenceNumber, SourceRecord>,
    pub(super) end: Option<SourceEnd>,
    pub(super) answer_records: usize,
    /// How often a quiet shard answers with nothing, less 20 ms.
    pub(super) quiet_interval: Duration,
    pub(super) mood: Mood,
    pub(super) opens: Vec<StartFrom>,
}

impl Script {
    pub(super) fn state(&self) -> MutexGuard<'_, ScriptState> {
        self.state.lock().unwrap()
    }

    pub(super) fn put(&self, records: impl IntoIterator<Item = SourceRecord>) {
        self.state().records.extend(records.into_iter().map(|record| (record.sequence_number, record)));
        self.put.notify_one();
    }

    pub(super) fn close(&self, children: Vec<ChildShard>) {
        self.state().end = Some(SourceEnd { children });
        self.put.notify_one();
    }

    pub(super) fn set(&self, mood: Mood) {
        self.state().mood = mood;
        self.put.notify_one();
    }
}

#[derive(Debug)]
struct ScriptReader {
    script: Arc<Script>,
    /// The next record is the first at or after this one.
    next: SequenceNumber,
}

fn successor(sequence: SequenceNumber) -> SequenceNumber {
    let [high, mid, low] = sequence.limbs();
    SequenceNumber::from_limbs([high, mid, low + 1])
}

#[derive(Debug)]
pub(super) struct Source(pub(super) Arc<Script>);

#[async_trait]
impl StreamSource for Source {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        Ok(stream())
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        let mut state = self.0.state();
        state.opens.push(from);
        let next = match from {
            StartFrom::TrimHorizon | StartFrom::AtTimestamp(_) => SequenceNumber::ZERO,
            StartFrom::Latest => {
                state.records.keys().next_back().map_or(SequenceNumber::ZERO, |last| successor(*last))
            }
            StartFrom::AtSequence(sequence) => sequence,
            StartFrom::AfterSequence(sequence) => successor(sequence),
        };
        self.0.readers.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(ScriptReader { script: Arc::clone(&self.0), next }))
    }

    fn name(&self) -> &str {
        "script"
    }
}

impl Drop for ScriptReader {
    fn drop(&mut self) {
        self.script.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl ShardReader for ScriptReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        sleep(Duration::from_millis(20)).await;
        let deadline = Instant::now() + self.script.state().quiet_interval;
        loop {
            let mood = self.script.state().mood;
            match mood {
                Mood::Silent => std::future::pending().await,
                Mood::Failing(kind) => {
                    return Err(SourceError::new(kind, "GetRecords", SHARD, "failing as told"));
                }
                Mood::Well => {}
            }
            {
                let state = self.script.state();
                let records: Vec<_> = state
                    .records
                    .range(self.next..)
                    .take(state.answer_records)
                    .map(|(_, r)| r.clone())
                    .collect();
                if let Some(last) = records.last() {
                    self.next = successor(last.sequence_number);
                }
                let is_last = state.records.range(self.next..).next().is_none();
                let end = state.end.clone().filter(|_| is_last);
                if !records.is_empty() || end.is_some() {
                    return Ok(SourceBatch::new(records, Some(Duration::ZERO), end));
                }
            }
            if timeout(deadline - Instant::now(), self.script.put.notified()).await.is_err() {
                return Ok(SourceBatch::new(Vec::new(), Some(Duration::ZERO), None));
            }
        }
    }
}

fn stream() -> StreamIdentity {
    StreamIdentity { arn: "arn:aws:kinesis:eu-west-1:123456789012:stream/test".into(), created_millis: 0 }
}

#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) parents_done: AtomicBool,
    pub(super) ended: Notify,
    pub(super) looks: AtomicUsize,
    pub(super) children: Mutex<VecDeque<Result<Vec<ChildShard>, LineageError>>>,
}

#[async_trait]
impl Lineage for Family {
    async fn parents_done(&self, _: &Lease) -> Result<bool, LineageError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(self.parents_done.load(Ordering::Relaxed))
    }

    async fn some_shard_ended(&self) {
        self.ended.notified().await;
    }

    async fn children(
        &self,
        _: &ShardId,
        named: Option<&[ChildShard]>,
    ) -> Result<Vec<ChildShard>, LineageError> {
        self.children.lock().unwrap().pop_front().unwrap_or_else(|| Ok(named.unwrap_or_default().to_vec()))
    }
}

/// What the keeper did, and what it is to do.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) checkpoint: Checkpoint,
    /// Every position stored, in order.
    pub(super) stored: Vec<Checkpoint>,
    pub(super) pending: Option<crate::lease::PendingCheckpoint>,
    pub(super) released: Option<(Option<Checkpoint>, ReleaseTo)>,
    pub(super) ended: Option<Vec<ChildShard>>,
    pub(super) failing: bool,
    pub(super) renews: bool,
    /// When the consumer's promise to show life was found broken first (L-3).
    pub(super) broken_promise: Option<Instant>,
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) checkpoint_policy: CheckpointPolicy,
    pub(super) error_policy: Arc<dyn ErrorPolicy>,
    pub(super) recorder: Recorder,
    pub(super) script: Arc<Script>,
    pub(super) family: Arc<Family>,
    pub(super) row: Arc<Mutex<Row>>,
    pub(super) lease: Lease,
    pub(super) budget: WorkerBudget,
}

impl World {
    pub(super) fn new() -> Self {
        let settings = Settings::default();
        let budget = WorkerBudget::new(settings.worker_buffer_bytes);
        let family = Family::default();
        family.parents_done.store(true, Ordering::Relaxed);
        Self {
            settings,
            checkpoint_policy: CheckpointPolicy::Manual,
            error_policy: Arc::new(AlwaysRetry),
            recorder: Recorder::new(),
            script: Arc::new(Script {
                state: Mutex::new(ScriptState {
                    records: BTreeMap::new(),
                    end: None,
                    answer_records: 1000,
                    quiet_interval: seconds(1),
                    mood: Mood::Well,
                    opens: Vec::new(),
                }),
                readers: Arc::default(),
                put: Notify::new(),
            }),
            family: Arc::new(family),
            row: Arc::new(Mutex::new(Row {
                checkpoint: Checkpoint::TrimHorizon,
                stored: Vec::new(),
                pending: None,
                released: None,
                ended: None,
                failing: false,
                renews: true,
                broken_promise: None,
            })),
            lease: Lease::new(SHARD.into(), Checkpoint::TrimHorizon),
            budget,
        }
    }

    pub(super) fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap()
    }

    /// Goes on where the row says.
    pub(super) fn resume(&mut self) {
        let row = self.row.lock().unwrap();
        self.lease.checkpoint = row.checkpoint;
        self.lease.pending = row.pending.clone();
    }

    /// Starts the consumer, and a keeper that serves it.
    pub(super) fn start(&self) -> Running {
        self.start_with(Arc::new(self.recorder.clone()))
    }

    pub(super) fn start_with(&self, factory: Arc<dyn RecordProcessorFactory>) -> Running {
        let (standing, standing_receiver) = watch::channel(Standing {
            valid_until: Instant::now() + VALIDITY,
            phase: Phase::Held,
            checkpoint: self.lease.checkpoint,
        });
        let (commands, commands_receiver) = mpsc::channel(8);
        let liveness = Arc::new(Liveness::new(seconds(5)));
        let handle = LeaseHandle::new(
            self.lease.clone(),
            1,
            standing_receiver,
            commands,
            Arc::clone(&liveness),
            Proof::Lease,
        );
        let standing = Arc::new(standing);
        let (orders, orders_receiver) = watch::channel(Order::Run);
        let (report_sender, report) = watch::channel(ShardReport::starting(self.lease.checkpoint));
        let events = EventSender::new(1024);
        let context = Arc::new(ConsumerContext {
            stream: stream(),
            source: Arc::new(Source(Arc::clone(&self.script))),
            factory,
            error_policy: Arc::clone(&self.error_policy),
            checkpoint_policy: self.checkpoint_policy,
            settings: Arc::new(self.settings.clone()),
            initial_position: InitialPosition::TrimHorizon,
            lineage: Arc::clone(&self.family) as Arc<dyn Lineage>,
            events: events.clone(),
            entropy: Entropy::seeded(1),
            clock: Arc::new(TokioClock::new(SystemTime::UNIX_EPOCH + seconds(1_000_000))),
            budget: self.budget.clone(),
            metrics: crate::metrics::Metrics::none(),
        });
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(
            Arc::clone(&self.row),
            Arc::clone(&standing),
            commands_receiver,
            Arc::clone(&liveness),
        ));
        let mut consumer = JoinSet::new();
        consumer.spawn(run(context, handle, orders_receiver, report_sender));
        Running { consumer, _keeper: keeper, standing, orders, report, events: events.subscribe() }
    }
}

/// A consumer that runs, and its keeper.
pub(super) struct Running {
    pub(super) consumer: JoinSet<Exit>,
    _keeper: JoinSet<()>,
    standing: Arc<watch::Sender<Standing>>,
    pub(super) orders: watch::Sender<Order>,
    pub(super) report: watch::Receiver<ShardReport>,
    events: broadcast::Receiver<Event>,
}

impl Running {
    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.standing.send_modify(|standing| standing.phase = phase);
    }

    pub(super) fn lose(&self) {
        self.set_phase(Phase::Lost(LossReason::Taken { by: Some("other".into()) }));
    }

    pub(super) fn stage(&self) -> Stage {
        self.report.borrow().stage
    }

    /// Waits until the consumer is in `stage`.
    pub(super) async fn reaches(&mut self, stage: Stage) {
        let reached = timeout(seconds(3600), self.report.wait_for(|report| report.stage == stage)).await;
        assert!(matches!(reached, Ok(Ok(_))), "stage {stage:?} not reached");
    }

    /// Waits for the end of the consumer.
    pub(super) async fn exit(&mut self) -> Exit {
        timeout(seconds(7200), self.consumer.join_next())
            .await
            .expect("no end within two hours")
            .unwrap()
            .unwrap()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

async fn keep(
    row: Arc<Mutex<Row>>,
    standing: Arc<watch::Sender<Standing>>,
    mut commands: mpsc::Receiver<Command>,
    liveness: Arc<Liveness>,
) {
    let mut tick = tokio::time::interval(seconds(1));
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(command) => {
                    // A write takes a while.
                    sleep(Duration::from_millis(5)).await;
                    serve(&row, &standing, command);
                }
                None => return,
            },
            _ = tick.tick() => {
                let mut row = row.lock().unwrap();
                if !liveness.is_alive() {
                    row.broken_promise.get_or_insert_with(Instant::now);
                }
                if row.renews && !matches!(standing.borrow().phase, Phase::Lost(_)) {
                    standing.send_modify(|standing| standing.valid_until = Instant::now() + VALIDITY);
                }
            }
        }
    }
}

fn serve(row: &Mutex<Row>, standing: &watch::Sender<Standing>, command: Command) {
    let mut row = row.lock().unwrap();
    let lost = matches!(standing.borrow().phase, Phase::Lost(_));
    let verdict = || {
        if lost {
            Err(CheckpointError::LeaseLost)
        } else if row.failing {
            let error = StoreError::new(StoreErrorKind::Throttled, "UpdateItem", "table", "failing as told");
            Err(CheckpointError::Store(Arc::new(error)))
        } else {
            Ok(())
        }
    };
    let verdict = verdict();
    let lose = |reason| standing.send_modify(|standing| standing.phase = Phase::Lost(reason));
    let answer = match command {
        Command::Checkpoint { update, answer, .. } => {
            match update {
                CheckpointUpdate::Commit(checkpoint) if verdict.is_ok() && checkpoint > row.checkpoint => {
                    row.checkpoint = checkpoint;
                    row.pending = None;
                    row.stored.push(checkpoint);
                }
                CheckpointUpdate::Prepare(pending) if verdict.is_ok() => row.pending = Some(pending),
                _ => {}
            }
            answer
        }
        Command::Release { checkpoint, to, answer, .. } => {
            if verdict.is_ok() {
                if let Some(checkpoint) = checkpoint {
                    row.checkpoint = row.checkpoint.max(checkpoint);
                }
                row.released = Some((checkpoint, to));
                lose(LossReason::Released);
            }
            answer
        }
        Command::End { end, answer, .. } => {
            if verdict.is_ok() {
                row.checkpoint = Checkpoint::ShardEnd;
                row.ended = Some(end.children);
                lose(LossReason::Ended);
            }
            answer
        }
        Command::Read { answer, .. } => {
            let _ = answer.send(Ok(Vec::new()));
            return;
        }
    };
    let _ = answer.send(verdict);
}

pub(super) fn range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange::new(start, end).unwrap()
}
