//! Reads a shard ahead of its processor.
//!
//! Runs beside the callbacks, inside the consumer's task. Survives what sources do: fails to open, fails to
//! answer, names positions unknown, says nothing at all. The reader decides that a source is dead by the
//! source's silence only, never by how slowly its answers are consumed.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, debug_span};

use super::budget::ShardBudget;
use super::delivery::Answer;
use super::report::{millis, note};
use super::{Budget, ConsumerContext, ReaderActivity, ShardReport};
use crate::error::Chain;
use crate::event::Event;
use crate::lease::Lease;
use crate::metrics::{MetricEvent, Stalled};
use crate::model::{Checkpoint, SequenceNumber, ShardId};
use crate::plant::{Plant, planted};
use crate::retry::Backoff;
use crate::source::{ShardReader, SourceBatch, SourceError, SourceErrorKind, StartFrom};
use crate::time::Clock;

/// How many answers may wait for the processor; the byte budgets are the limit that matters.
pub(super) const MAX_ANSWERS: usize = 128;
/// The time-out of a silent source is measured in this many parts, each from one look at the source to the
/// next: when a callback blocks the thread, at most one part is wrongly counted as silence.
const LOOKS: u32 = 4;
/// How often reading must fail in a row, beside for how long, before the lease is given up.
const FAILURES_BEFORE_GIVING_UP: u32 = 5;
/// How often the consumer is woken to look at the vitals while they only grow. Answers with records wake it anyway.
const VITALS_INTERVAL: Duration = Duration::from_millis(500);
/// How far before the first request reading starts again if a `LATEST` position brought no record yet.
const LATEST_OVERLAP: Duration = Duration::from_secs(5);

/// What the reader hands to the consumer, in order.
#[derive(Debug)]
pub(super) enum Input {
    /// An answer with something to deliver or the end of the shard.
    Answer(Answer),
    /// The source does not know the shard (any more).
    Gone(Arc<SourceError>),
    /// The source gave no sign of life for too long: the lease is better held by somebody else.
    GiveUp(String),
}

/// What the consumer asks of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Read nothing.
    Off,
    /// Read on after the last record read. Another number than before: open the shard anew.
    On(u32),
}

/// What the consumer can see of the reader.
#[derive(Clone, Debug, Default)]
pub(super) struct Vitals {
    /// Grows with each answer, and each sign that the source is only busy.
    pub(super) signs_of_life: u64,
    /// How often reading failed since.
    pub(super) failures: u32,
    /// The latest failure, with its causes.
    pub(super) error: Option<String>,
    /// When the consumer was last woken to look.
    told: Option<Instant>,
}

/// Where a shard is read from.
#[derive(Debug)]
struct Place {
    start: Result<StartFrom, Arc<SourceError>>,
    /// When a `LATEST` start was first tried: that is what `LATEST` means from then on.
    tried_latest: Option<SystemTime>,
    /// The last record read.
    last: Option<SequenceNumber>,
}

impl Place {
    fn of(context: &ConsumerContext, lease: &Lease) -> Self {
        let start = match lease.checkpoint {
            Checkpoint::TrimHorizon => Ok(StartFrom::TrimHorizon),
            Checkpoint::Latest => Ok(lease.start_timestamp.map_or(StartFrom::Latest, StartFrom::AtTimestamp)),
            Checkpoint::At(position) if planted(Plant::ResumeAfterAggregate) => {
                Ok(StartFrom::AfterSequence(position.sequence))
            }
            Checkpoint::At(position) => Ok(StartFrom::AtSequence(position.sequence)),
            Checkpoint::AtTimestamp => context
                .start_timestamp(lease)
                .map(StartFrom::AtTimestamp)
                .ok_or("the lease says AT_TIMESTAMP without a time; configure the application with one"),
            Checkpoint::ShardEnd => Err("the shard has ended"),
        };
        let start = start.map_err(|message| {
            let kind = SourceErrorKind::PositionUnknown;
            Arc::new(SourceError::new(kind, "open", lease.shard.as_str(), message))
        });
        Self { start, tried_latest: None, last: None }
    }

    fn next(&mut self, clock: &dyn Clock) -> Result<StartFrom, Arc<SourceError>> {
        if let Some(last) = self.last {
            return Ok(StartFrom::AfterSequence(last));
        }
        let start = self.start.clone()?;
        if start == StartFrom::Latest {
            let now = clock.now();
            if let Some(first) = self.tried_latest {
                return Ok(StartFrom::AtTimestamp(first.checked_sub(LATEST_OVERLAP).unwrap_or(first)));
            }
            self.tried_latest = Some(now);
        }
        Ok(start)
    }
}

/// Reads one shard into a bounded buffer.
pub(super) struct PrefetchReader {
    context: Arc<ConsumerContext>,
    shard: ShardId,
    place: Place,
    budget: ShardBudget,
    inputs: mpsc::Sender<Input>,
    reading: watch::Receiver<Reading>,
    vitals: watch::Sender<Vitals>,
    /// What the consumer shows; its part about the reader is written here.
    report: watch::Sender<ShardReport>,
    /// Whether the source's reader reads in another way than it was told to.
    falls_back: bool,
}

/// What became of one attempt to get an answer.
enum Attempt {
    Answer(SourceBatch),
    Failed(Arc<SourceError>),
    Silent,
}

impl PrefetchReader {
    pub(super) fn new(
        context: Arc<ConsumerContext>,
        lease: &Lease,
        budget: ShardBudget,
        inputs: mpsc::Sender<Input>,
        reading: watch::Receiver<Reading>,
        (vitals, report): (watch::Sender<Vitals>, watch::Sender<ShardReport>),
    ) -> Self {
        let place = Place::of(&context, lease);
        let shard = lease.shard.clone();
        Self { context, shard, place, budget, inputs, reading, vitals, report, falls_back: false }
    }

    /// Reads whenever asked to. Ends by being dropped.
    pub(super) async fn run(mut self) -> Infallible {
        let mut reading = self.reading.clone();
        loop {
            if *reading.borrow_and_update() == Reading::Off {
                self.does(ReaderActivity::Off);
                changed(&mut reading).await;
                continue;
            }
            select! {
                biased;
                () = changed(&mut reading) => {}
                () = async {
                    self.read().await;
                    self.does(ReaderActivity::Finished);
                    std::future::pending().await
                } => {}
            }
        }
    }

    /// Reads until the shard ends, is gone or given up.
    ///
    /// Cancel-safe: what was read is either handed over and counted in `place.last`, or neither.
    async fn read(&mut self) {
        let settings = Arc::clone(&self.context.settings);
        // Several attempts fit into the time after which the lease is given up.
        let max_delay = settings.retry_max.min(settings.stall_timeout / 4).max(settings.retry_initial);
        let mut backoff = Backoff::new(settings.retry_initial, max_delay, self.context.entropy.clone());
        let mut reader: Option<Box<dyn ShardReader>> = None;
        let mut silences = 0;
        let mut failing_since: Option<Instant> = None;
        loop {
            let slot = match self.inputs.clone().try_reserve_owned() {
                Ok(slot) => slot,
                Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(inputs)) => {
                    self.does(ReaderActivity::HeldUp(Budget::Shard));
                    let Ok(slot) = inputs.reserve_owned().await else { return };
                    slot
                }
            };
            let held_up = |budget| self.does(ReaderActivity::HeldUp(budget));
            let mut reservation = self.budget.reserve(held_up).await;
            self.does(ReaderActivity::Asking);
            match self.attempt(&mut reader).await {
                Attempt::Answer(batch) => {
                    if backoff.attempts() > 0 || silences > 0 {
                        tracing::info!(shard = %self.shard, failures = backoff.attempts(), "reading goes on");
                    }
                    (silences, failing_since) = (0, None);
                    backoff.reset();
                    let absorbed = reader.as_ref().and_then(|reader| reader.absorbed_failures());
                    self.note_answer(&batch, absorbed);
                    self.note_fallback(reader.as_ref().and_then(|reader| reader.fallback()));
                    if let Some(last) = batch.records.last() {
                        self.place.last = Some(last.sequence_number);
                    }
                    let is_end = batch.end.is_some();
                    let is_tick = settings.deliver_empty_batches;
                    if !is_end && !is_tick && batch.records.is_empty() {
                        self.budget.settle(&mut reservation, 0);
                        continue;
                    }
                    self.budget.settle(&mut reservation, footprint(&batch));
                    slot.send(Input::Answer(Answer { batch, reservation }));
                    if is_end {
                        return;
                    }
                }
                Attempt::Failed(error) => {
                    reader = None;
                    drop(reservation);
                    let delay = backoff.next_delay();
                    self.note_failure(backoff.attempts(), &error);
                    match error.kind() {
                        SourceErrorKind::ShardMissing => {
                            slot.send(Input::Gone(error));
                            return;
                        }
                        // Another worker would be told the same.
                        SourceErrorKind::Throttled => failing_since = None,
                        _ => {
                            let since = *failing_since.get_or_insert_with(Instant::now);
                            if since.elapsed() + delay >= settings.stall_timeout.saturating_mul(2)
                                && backoff.attempts() >= FAILURES_BEFORE_GIVING_UP
                            {
                                slot.send(Input::GiveUp(Chain(&*error).to_string()));
                                return;
                            }
                        }
                    }
                    self.does(ReaderActivity::Resting { until: Instant::now() + delay });
                    sleep(delay).await;
                }
                Attempt::Silent => {
                    reader = None;
                    silences += 1;
                    let silent_for = settings.stall_timeout.saturating_mul(silences);
                    self.context.metrics.record(&MetricEvent::Stall(Stalled::Source));
                    self.context.events.send(Event::Stalled {
                        shard: self.shard.clone(),
                        stage: "Fetching".into(),
                        silent_for,
                    });
                    let message = format!("the source did not answer for {silent_for:?}");
                    tracing::warn!(shard = %self.shard, ?silent_for, "source is silent, reading starts anew");
                    if silences > 1 {
                        slot.send(Input::GiveUp(message));
                        return;
                    }
                    note(&self.report, |report| report.reader.error = Some(message.clone()));
                    self.vitals.send_modify(|vitals| vitals.error = Some(message));
                }
            }
        }
    }

    /// Opens the shard if need be and waits for one answer.
    async fn attempt(&mut self, reader: &mut Option<Box<dyn ShardReader>>) -> Attempt {
        let look = self.context.settings.stall_timeout / LOOKS;
        let answer = async {
            let reader = match reader {
                Some(reader) => reader,
                None => {
                    let from = self.place.next(&*self.context.clock)?;
                    reader.insert(self.context.source.open(&self.shard, from).await?)
                }
            };
            reader.next().await.map_err(Arc::new)
        }
        .instrument(debug_span!("read"));
        let mut answer = pin!(answer);
        for _ in 0..LOOKS {
            match timeout(look, &mut answer).await {
                Ok(Ok(batch)) => return Attempt::Answer(batch),
                Ok(Err(error)) => return Attempt::Failed(error),
                Err(_) => {}
            }
        }
        Attempt::Silent
    }

    /// Shows what the reader does, if it is news.
    fn does(&self, activity: ReaderActivity) {
        note(&self.report, |report| report.reader.does(activity, Instant::now()));
    }

    fn note_answer(&self, batch: &SourceBatch, absorbed: Option<(u32, Arc<SourceError>)>) {
        if let Some(behind) = batch.behind {
            self.context.metrics.record(&MetricEvent::Behind { shard: &self.shard, behind });
        }
        let (failures, error, kind) = match absorbed {
            Some((failures, error)) => (failures, Some(Chain(&*error).to_string()), Some(error.kind())),
            None => (0, None, None),
        };
        note(&self.report, |report| {
            let now = Instant::now();
            (report.last_fetch, report.millis_behind) = (Some(now), batch.behind.map(millis));
            report.reader.fails(failures, error.clone().zip(kind), now);
            report.reader.answered(!batch.records.is_empty(), batch.behind, now);
        });
        if let Some(error) = &error
            && failures.is_power_of_two()
        {
            self.report_failing(failures, error.clone());
        }
        // A consumer woken by each answer of an idle shard would cost more than the rest of the library.
        self.vitals.send_if_modified(|vitals| {
            let now = Instant::now();
            let is_news = vitals.failures != failures
                || vitals.told.is_none_or(|told| now.duration_since(told) >= VITALS_INTERVAL);
            vitals.signs_of_life += 1;
            (vitals.failures, vitals.error) = (failures, error);
            if is_news {
                vitals.told = Some(now);
            }
            is_news
        });
    }

    fn note_fallback(&mut self, reason: Option<Arc<SourceError>>) {
        if self.falls_back == reason.is_some() {
            return;
        }
        self.falls_back = reason.is_some();
        self.context.metrics.record(&MetricEvent::Fallback { started: self.falls_back });
        let shard = self.shard.clone();
        let shown = reason.as_ref().map(|reason| Chain(&**reason).to_string());
        note(&self.report, |report| report.reader.fallback = shown);
        self.context.events.send(match reason {
            Some(reason) => {
                let error = Chain(&*reason).to_string();
                tracing::warn!(%shard, error, "the shard cannot be subscribed to and is polled");
                Event::FallbackStarted { shard, error }
            }
            None => {
                tracing::info!(%shard, "the shard is subscribed to again");
                Event::FallbackEnded { shard }
            }
        });
    }

    fn note_failure(&self, failures: u32, error: &SourceError) {
        let text = Chain(error).to_string();
        tracing::warn!(shard = %self.shard, failures, error = text, "reading failed, trying again");
        self.report_failing(failures, text.clone());
        note(&self.report, |report| {
            report.reader.fails(failures, Some((text.clone(), error.kind())), Instant::now());
        });
        self.vitals.send_modify(|vitals| {
            if error.kind() == SourceErrorKind::Throttled {
                vitals.signs_of_life += 1;
            }
            vitals.failures = failures;
            vitals.error = Some(text);
        });
    }

    fn report_failing(&self, failures: u32, error: String) {
        self.context.events.send(Event::ReaderFailing { shard: self.shard.clone(), failures, error });
    }
}

/// Waits for another order; for ever if there will be none.
async fn changed(reading: &mut watch::Receiver<Reading>) {
    if reading.changed().await.is_err() {
        std::future::pending().await
    }
}

/// What a batch takes in memory, roughly.
fn footprint(batch: &SourceBatch) -> usize {
    let keys: usize =
        batch.records.iter().map(|record| record.partition_key.as_ref().map_or(0, |key| key.len())).sum();
    batch.payload_bytes() + keys + size_of_val(batch.records.as_slice())
}
