//! The loop of a consumer: looks at the facts, does what the stage says, looks again.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until, timeout};

use super::budget::BufferMeter;
use super::delivery::Delivery;
use super::leave::{Ending, Leaving};
use super::process::{Pending, Schedule};
use super::reader::{Input, MAX_ANSWERS, PrefetchReader, Reading, Vitals};
use super::signals::Signals;
use super::state::{Facts, Work};
use super::{ConsumerContext, Exit, Order, RetryReport, ShardReport, Stage};
use crate::checkpointer::Checkpointer;
use crate::error::Chain;
use crate::lease::LeaseHandle;
use crate::processor::{RecordProcessor, ShardContext};
use crate::retry::Backoff;

/// Added to what is promised of a callback, for what happens around it.
const SLACK: Duration = Duration::from_secs(5);
/// Longer than any process lives, short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How often the report follows a shard that only fetches.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the consumer of one held lease to its end.
///
/// One future; dropping it stops everything, stores nothing and calls nothing.
pub(crate) async fn run(
    context: Arc<ConsumerContext>,
    handle: LeaseHandle,
    orders: watch::Receiver<Order>,
    report: watch::Sender<ShardReport>,
) -> Exit {
    if handle.acquired().is_ended() {
        return Exit::Ended;
    }
    let (inputs_sender, inputs) = mpsc::channel(MAX_ANSWERS);
    let (reading, reading_receiver) = watch::channel(Reading::Off);
    let (vitals_sender, vitals) = watch::channel(Vitals::default());
    let budget = context.budget.shard(context.settings.shard_buffer_bytes);
    let meter = budget.meter();
    let reader = PrefetchReader::new(
        Arc::clone(&context),
        handle.acquired(),
        budget,
        inputs_sender,
        reading_receiver,
        (vitals_sender, report.clone()),
    );
    let feed = Feed { inputs, reading, generation: 0, vitals, meter };
    let consumer = Consumer::new(context, handle, orders, report, feed);
    let mut consumer = Box::pin(consumer.run());
    let mut reader = Box::pin(reader.run());
    // Both are polled at each wake-up unless the consumer is done; then nothing is left to read for.
    select! {
        biased;
        exit = &mut consumer => exit,
        never = &mut reader => match never {},
    }
}

/// The consumer's side of the reader.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) inputs: mpsc::Receiver<Input>,
    reading: watch::Sender<Reading>,
    generation: u32,
    vitals: watch::Receiver<Vitals>,
    meter: BufferMeter,
}

impl Feed {
    fn start(&self) {
        self.reading.send_replace(Reading::On(self.generation));
    }

    /// Opens the shard anew, after the last record read.
    pub(super) fn restart(&mut self) {
        self.generation += 1;
        self.start();
    }

    pub(super) fn stop(&self) {
        self.reading.send_replace(Reading::Off);
    }
}

/// A consumer between two steps.
pub(super) struct Consumer {
    pub(super) context: Arc<ConsumerContext>,
    pub(super) handle: LeaseHandle,
    pub(super) signals: Signals,
    pub(super) checkpointer: Checkpointer,
    pub(super) feed: Feed,
    pub(super) shard: Arc<ShardContext>,
    pub(super) processor: Option<Box<dyn RecordProcessor>>,
    pub(super) initialized: bool,
    pub(super) leaving: Option<Leaving>,
    pub(super) ending: Option<Ending>,
    /// When the next attempt of a failed step is due.
    pub(super) rest_until: Option<Instant>,
    pub(super) backoff: Backoff,
    /// The order the current step knows of.
    pub(super) order: Order,
    pub(super) delivery: Delivery,
    pub(super) pending: Option<Pending>,
    /// The last thing the reader had to say; counts once everything before it is delivered.
    pub(super) last_word: Option<Input>,
    pub(super) schedule: Schedule,
    /// How often the current step failed in a row.
    pub(super) failures: u32,
    pub(super) last_error: Option<String>,
    pub(super) last_delivery: Option<Instant>,
    /// User records and payload bytes acknowledged.
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Since when the shard is being given up.
    pub(super) draining_since: Option<Instant>,
    /// Since when it fails.
    failing_since: Option<Instant>,
    parents_done: bool,
    signs_of_life: u64,
    pub(super) report: watch::Sender<ShardReport>,
    reported_at: Instant,
}

fn backoff_of(context: &ConsumerContext) -> Backoff {
    Backoff::new(context.settings.retry_initial, context.settings.retry_max, context.entropy.clone())
}

/// `delay` from now, or as good as never.
pub(super) fn after(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay.min(FOREVER)).unwrap_or(now)
}

impl Consumer {
    fn new(
        context: Arc<ConsumerContext>,
        handle: LeaseHandle,
        orders: watch::Receiver<Order>,
        report: watch::Sender<ShardReport>,
        feed: Feed,
    ) -> Self {
        let lease = handle.acquired();
        let shard = Arc::new(ShardContext {
            stream: context.stream.clone(),
            shard: lease.shard.clone(),
            hash_key_range: lease.hash_key_range,
            checkpoint: lease.checkpoint,
            pending: lease.pending.clone(),
        });
        let delivery = Delivery::new(&context.settings, lease.hash_key_range, lease.checkpoint.position());
        let backoff = backoff_of(&context);
        let now = Instant::now();
        let schedule = Schedule::new(context.checkpoint_policy, now, backoff_of(&context));
        Self {
            signals: Signals::new(handle.clone(), orders),
            checkpointer: Checkpointer::new(handle.clone(), context.metrics.clone()),
            feed,
            shard,
            processor: None,
            initialized: false,
            leaving: None,
            ending: None,
            rest_until: None,
            backoff,
            order: Order::Run,
            delivery,
            pending: None,
            last_word: None,
            schedule,
            failures: 0,
            failing_since: None,
            last_error: None,
            last_delivery: None,
            records: 0,
            bytes: 0,
            draining_since: None,
            parents_done: false,
            signs_of_life: 0,
            report,
            reported_at: now,
            context,
            handle,
        }
    }

    async fn run(mut self) -> Exit {
        loop {
            consume_budget().await;
            self.fill();
            let stage = self.facts().stage();
            self.show(stage);
            if !matches!(stage, Stage::Losing | Stage::Draining) && self.store_if_due().await {
                continue;
            }
            let step = match stage {
                Stage::WaitingForParents => self.wait_for_parents().await,
                Stage::Initializing => self.initialize().await,
                Stage::Fetching => self.fetch().await,
                Stage::Delivering => self.deliver().await,
                Stage::Ending => self.end().await,
                Stage::Retrying => self.idle(self.rest_until).await,
                Stage::Fenced => self.wait_for_proof().await,
                Stage::Paused => self.idle(None).await,
                Stage::Draining => ControlFlow::Break(self.drain().await),
                Stage::Losing | Stage::Done => ControlFlow::Break(self.lose().await),
            };
            if let ControlFlow::Break(exit) = step {
                self.show(Stage::Done);
                return exit;
            }
        }
    }

    fn facts(&mut self) -> Facts {
        self.order = self.signals.order();
        if self.rest_until.is_some_and(|until| Instant::now() >= until) {
            self.rest_until = None;
        }
        Facts {
            lost: self.signals.loss().is_some(),
            order: if self.leaving.is_some() { Order::Drain } else { self.order },
            parents_done: self.parents_done,
            initialized: self.initialized,
            work: match (&self.pending, &self.ending) {
                (Some(_), _) => Work::Batch,
                (None, Some(_)) => Work::End,
                (None, None) => Work::Nothing,
            },
            resting: self.rest_until.is_some(),
            provable: self.handle.may_deliver(),
        }
    }

    /// How long the consumer may be silent while it waits (L-3).
    pub(super) fn promise_patience(&self) {
        self.handle.promise(self.context.settings.stall_timeout.saturating_mul(2).saturating_add(SLACK));
    }

    /// Promises that a callback, which is about to start, ends within its limit (L-3).
    pub(super) fn promise_callback(&self) -> Duration {
        let limit = self.context.settings.callback_limit;
        self.handle.promise(limit.saturating_add(SLACK));
        limit
    }

    /// Waits until `until`, until a checkpoint is due, or until something else is asked.
    pub(super) async fn idle(&mut self, until: Option<Instant>) -> ControlFlow<Exit> {
        let wake = [until, self.schedule.due()].into_iter().flatten().min();
        loop {
            self.promise_patience();
            let beat = after(Instant::now(), self.context.settings.stall_timeout);
            let next = wake.map_or(beat, |wake| wake.min(beat));
            select! {
                biased;
                () = self.signals.interruption(self.order) => break,
                () = sleep_until(next) => if wake.is_some_and(|wake| wake <= next) { break },
            }
        }
        ControlFlow::Continue(())
    }

    /// L-1: waits until the lease can be proven valid again.
    async fn wait_for_proof(&mut self) -> ControlFlow<Exit> {
        self.promise_patience();
        let beat = after(Instant::now(), self.context.settings.stall_timeout);
        let wake = self.schedule.due().map_or(beat, |due| due.min(beat));
        select! {
            biased;
            () = self.signals.interruption_or_proof(self.order) => {}
            () = sleep_until(wake) => {}
        }
        ControlFlow::Continue(())
    }

    /// S-1: waits until every parent's end is stored.
    async fn wait_for_parents(&mut self) -> ControlFlow<Exit> {
        self.promise_patience();
        let (context, handle) = (Arc::clone(&self.context), self.handle.clone());
        let lineage = &context.lineage;
        // Listened to from before the look, or an end that is stored during the look would go unnoticed.
        let mut some_end = pin!(lineage.some_shard_ended());
        let mut woken = false;
        let limit = context.settings.stall_timeout;
        let mut look = pin!(timeout(limit, lineage.parents_done(handle.acquired())));
        let done = loop {
            select! {
                biased;
                () = self.signals.interruption(self.order) => return ControlFlow::Continue(()),
                () = &mut some_end, if !woken => woken = true,
                done = &mut look => break done,
            }
        };
        let delay = match done {
            Ok(Ok(true)) => {
                self.parents_done = true;
                self.recovered();
                // Reading ahead while the processor is initialised.
                self.feed.start();
                return ControlFlow::Continue(());
            }
            Ok(Ok(false)) => {
                self.recovered();
                let interval = context.settings.parent_poll_interval;
                interval.mul_f64(0.9 + 0.2 * context.entropy.unit())
            }
            Ok(Err(error)) => self.step_failed(Chain(&error).to_string()),
            Err(_) => self.step_failed(format!("the parents could not be looked up within {limit:?}")),
        };
        if !woken {
            let until = after(Instant::now(), delay.min(limit));
            select! {
                biased;
                () = self.signals.interruption(self.order) => {}
                () = &mut some_end => {}
                () = sleep_until(until) => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// Waits for records, or a sign that there will be some.
    async fn fetch(&mut self) -> ControlFlow<Exit> {
        let due = self.schedule.due();
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // The inputs come before the vitals: an answer changes both, and is not to wait for another round.
        select! {
            biased;
            () = self.signals.interruption(self.order) => {}
            input = self.feed.inputs.recv() => {
                self.promise_patience();
                if let Some(input) = input {
                    self.accept(input);
                }
            }
            () = timer => {}
            changed = self.feed.vitals.changed() => if changed.is_ok() {
                let signs_of_life = self.feed.vitals.borrow_and_update().signs_of_life;
                // Failures show in the vitals, too, and prove nothing.
                if signs_of_life != self.signs_of_life {
                    self.signs_of_life = signs_of_life;
                    self.promise_patience();
                }
            },
        }
        ControlFlow::Continue(())
    }

    /// A step succeeded, after failures perhaps.
    pub(super) fn recovered(&mut self) {
        if self.failures > 0 {
            tracing::info!(shard = %self.shard.shard, failures = self.failures, "the shard goes on after failures");
        }
        self.failures = 0;
        self.failing_since = None;
        self.rest_until = None;
        self.backoff.reset();
    }

    /// A step failed; returns how long to wait before the next attempt.
    pub(super) fn step_failed(&mut self, error: String) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert_with(Instant::now);
        let delay = self.backoff.next_delay();
        tracing::warn!(shard = %self.shard.shard, failures = self.failures, ?delay, error, "a step of the shard failed, trying again");
        self.last_error = Some(error);
        delay
    }

    /// Brings the report up to date: at each change of the stage, else now and then.
    pub(super) fn show(&mut self, stage: Stage) {
        let now = Instant::now();
        let vitals = self.feed.vitals.borrow();
        let failures = if stage == Stage::Fetching { vitals.failures } else { self.failures };
        {
            let shown = self.report.borrow();
            let is_news = shown.stage != stage || shown.failures != failures;
            if !is_news && now.duration_since(self.reported_at) < REPORT_INTERVAL {
                return;
            }
        }
        self.reported_at = now;
        self.report.send_modify(|report| {
            if report.stage != stage {
                tracing::debug!(shard = %self.shard.shard, from = ?report.stage, to = ?stage, "stage");
                (report.stage, report.since) = (stage, now);
            }
            report.last_delivery = self.last_delivery;
            report.unstored_since = self.checkpointer.unstored_since();
            let stored = self.checkpointer.stored();
            if report.checkpoint != stored {
                (report.checkpoint, report.checkpointed_at) = (stored, now);
            }
            report.uncheckpointed = self.checkpointer.is_behind();
            report.batch = self.pending.as_ref().and_then(Pending::ends);
            report.retry = self.failing_since.map(|since| RetryReport {
                failures: self.failures,
                since,
                next_attempt: self.rest_until,
                error: self.last_error.clone().unwrap_or_default(),
            });
            (report.records, report.bytes) = (self.records, self.bytes);
            report.buffered_bytes = self.feed.meter.bytes();
            report.failures = failures;
            report.last_error = vitals.error.clone().or_else(|| self.last_error.clone());
        });
    }
}
