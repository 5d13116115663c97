//! Handing records to the processor, and what comes of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug_span, info_span};

use super::Exit;
use super::budget::Reservation;
use super::callback::{self, Failure, Outcome};
use super::leave::{Ending, Leaving};
use super::reader::Input;
use super::report::{BatchEnds, note};
use super::run::{Consumer, after};
use crate::checkpointer::{CheckpointError, CheckpointPolicy};
use crate::error::{BoxError, Chain};
use crate::event::Event;
use crate::metrics::MetricEvent;
use crate::model::{Checkpoint, Position, SequenceNumber};
use crate::plant::{Plant, planted};
use crate::processor::{Callback, OnError, ProcessorFailure, RecordBatch};
use crate::retry::Backoff;

/// A batch on its way through the processor.
#[derive(Debug)]
pub(super) struct Pending {
    batch: RecordBatch,
    bytes: usize,
    cover: Option<Position>,
    /// Held until the batch is acknowledged.
    _budget: Vec<Reservation>,
}

impl Pending {
    /// The first and the last record; none of a tick.
    pub(super) fn ends(&self) -> Option<BatchEnds> {
        let records = &self.batch.records;
        Some((records.first()?.position, records.last()?.position))
    }
}

/// When the library stores what is acknowledged.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: CheckpointPolicy,
    stored_at: Instant,
    due: Option<Instant>,
    backoff: Backoff,
}

impl Schedule {
    pub(super) const fn new(policy: CheckpointPolicy, now: Instant, backoff: Backoff) -> Self {
        Self { policy, stored_at: now, due: None, backoff }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the library stores anything.
    pub(super) const fn is_manual(&self) -> bool {
        matches!(self.policy, CheckpointPolicy::Manual)
    }

    fn acknowledged(&mut self) {
        let due = match self.policy {
            CheckpointPolicy::Manual => return,
            CheckpointPolicy::AfterBatch => Instant::now(),
            CheckpointPolicy::Every(interval) => after(self.stored_at, interval),
        };
        self.due.get_or_insert(due);
    }

    fn stored(&mut self) {
        self.stored_at = Instant::now();
        self.due = None;
        self.backoff.reset();
    }

    fn failed(&mut self) {
        self.due = Some(after(Instant::now(), self.backoff.next_delay()));
    }
}

impl Consumer {
    pub(super) async fn initialize(&mut self) -> ControlFlow<Exit> {
        if self.rest_until.is_some() {
            return self.idle(self.rest_until).await;
        }
        let limit = self.promise_callback();
        let processor = match &mut self.processor {
            Some(processor) => processor,
            none => match callback::create(&*self.context.factory, &self.shard) {
                Ok(processor) => none.insert(processor),
                Err(failure) => return self.failed(Callback::Initialize, failure).await,
            },
        };
        let (shard, metrics) = (&self.shard, &self.context.metrics);
        let call = async { processor.initialize(shard).await };
        match callback::timed(metrics, &self.report, Callback::Initialize, limit, call).await {
            Outcome::Done => {
                self.initialized = true;
                self.recovered();
                self.promise_patience();
                ControlFlow::Continue(())
            }
            Outcome::Failed(failure) => self.failed(Callback::Initialize, failure).await,
            Outcome::Overran => ControlFlow::Break(self.abandon(Callback::Initialize).await),
        }
    }

    pub(super) fn accept(&mut self, input: Input) {
        match input {
            Input::Answer(answer) => self.delivery.push(answer),
            Input::Gone(_) | Input::GiveUp(_) => self.last_word = Some(input),
        }
    }

    /// Makes the next batch of what was read, if none is on its way.
    pub(super) fn fill(&mut self) {
        while self.initialized && self.pending.is_none() && self.ending.is_none() && self.leaving.is_none() {
            while !self.delivery.fills_a_batch()
                && self.last_word.is_none()
                && let Ok(input) = self.feed.inputs.try_recv()
            {
                self.accept(input);
            }
            if self.delivery.is_empty() {
                match self.last_word.take() {
                    Some(Input::Gone(error)) => self.ending = Some(Ending::of_missing(error)),
                    Some(Input::GiveUp(reason)) => self.leaving = Some(Leaving::Stalled(reason)),
                    Some(Input::Answer(_)) | None => {}
                }
                break;
            }
            let cut = self.delivery.cut();
            self.tell(cut.out_of_range, cut.damaged, cut.hole_before);
            let end = self.delivery.take_end();
            let is_tick =
                self.context.settings.deliver_empty_batches && end.is_none() && self.delivery.is_empty();
            if cut.records.is_empty() {
                // Aggregates without a record for this shard: a checkpoint can move past them all the same.
                self.checkpointer.acknowledge(cut.cover);
                self.schedule.acknowledged();
            }
            if !cut.records.is_empty() || is_tick {
                self.pending = Some(Pending {
                    batch: RecordBatch {
                        shard: Arc::clone(&self.shard),
                        records: Arc::new(cut.records),
                        behind: cut.behind,
                        attempt: 0,
                    },
                    bytes: cut.bytes,
                    cover: cut.cover,
                    _budget: cut.spent,
                });
            }
            self.ending = end.map(Ending::of_closed);
        }
    }

    /// Reports what was left out of a batch, or may be missing before it.
    fn tell(&self, out_of_range: u64, damaged: Vec<(Position, String)>, hole_before: Option<SequenceNumber>) {
        let shard = &self.shard.shard;
        let events = &self.context.events;
        self.context.metrics.record(&MetricEvent::OpenedUp {
            out_of_range,
            damaged: damaged.len() as u64,
            hole: hole_before.is_some(),
        });
        if out_of_range > 0 {
            tracing::debug!(%shard, records = out_of_range, "dropped records of other shards");
            events.send(Event::RecordsOutOfRange { shard: shard.clone(), records: out_of_range });
        }
        if let Some((position, reason)) = damaged.first() {
            let records = damaged.len();
            tracing::warn!(%shard, records, first = %position, reason, "delivered damaged aggregates as plain records");
        }
        for (position, reason) in damaged {
            events.send(Event::DamagedAggregate { shard: shard.clone(), position, reason });
        }
        if let Some(first) = hole_before {
            let checkpoint = self.shard.checkpoint;
            let reason = format!(
                "the record of the checkpoint is gone, and records after it may be: the oldest held is {first}"
            );
            tracing::error!(%shard, %checkpoint, %first, "records between checkpoint and first may have expired");
            events.send(Event::DataLoss { shard: shard.clone(), checkpoint, reason });
        }
    }

    pub(super) async fn deliver(&mut self) -> ControlFlow<Exit> {
        let limit = self.promise_callback();
        let (Some(processor), Some(pending)) = (&mut self.processor, &mut self.pending) else {
            return ControlFlow::Continue(());
        };
        let begun = Instant::now();
        self.last_delivery = Some(begun);
        note(&self.report, |report| (report.batch, report.last_delivery) = (pending.ends(), Some(begun)));
        self.checkpointer.hand(pending.cover);
        let (records, bytes) = (pending.batch.records.len() as u64, pending.bytes as u64);
        let (batch, checkpointer) = (pending.batch.clone(), &self.checkpointer);
        let span = info_span!("process_records", records, bytes, attempt = batch.attempt);
        let call = async { processor.process_records(batch, checkpointer).await };
        let outcome = callback::run(&self.report, ("process_records", span), limit, call).await;
        self.promise_patience();
        self.context.metrics.record(&MetricEvent::Delivered {
            shard: &self.shard.shard,
            records,
            bytes,
            took: begun.elapsed(),
            ok: matches!(outcome, Outcome::Done),
        });
        match outcome {
            Outcome::Done => {
                self.records += records;
                self.bytes += bytes;
                self.handle.processed(self.bytes);
                self.pass_batch();
                ControlFlow::Continue(())
            }
            Outcome::Failed(failure) => {
                self.checkpointer.take_back();
                self.failed(Callback::ProcessRecords, failure).await
            }
            Outcome::Overran => {
                self.checkpointer.take_back();
                ControlFlow::Break(self.abandon(Callback::ProcessRecords).await)
            }
        }
    }

    /// The batch was acknowledged, or skipped on request.
    fn pass_batch(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.checkpointer.acknowledge(pending.cover);
        }
        self.schedule.acknowledged();
        self.recovered();
    }

    /// D-1: whatever the policy says, a failed batch is passed on explicit request only.
    pub(super) async fn failed(&mut self, callback: Callback, failure: Failure) -> ControlFlow<Exit> {
        let Failure { error, panicked } = failure;
        let delay = self.callback_failed(callback, &error);
        let is_batch = callback == Callback::ProcessRecords;
        let ends = self.pending.as_ref().filter(|_| is_batch).and_then(Pending::ends);
        let decision = callback::decide(
            &*self.context.error_policy,
            &ProcessorFailure {
                shard: &self.shard,
                callback,
                failures: self.failures,
                error: &error,
                panicked,
                batch: ends,
            },
        );
        let delay = match decision {
            OnError::ReleaseLease => {
                self.leaving = Some(Leaving::Policy);
                return ControlFlow::Continue(());
            }
            OnError::StopScheduler => {
                self.leaving = Some(Leaving::Stop(error));
                return ControlFlow::Continue(());
            }
            _ if is_batch && planted(Plant::SkipFailedBatch) => {
                self.pass_batch();
                return ControlFlow::Continue(());
            }
            OnError::Skip if is_batch && self.dead_letter(&error).await => {
                return ControlFlow::Continue(());
            }
            OnError::RetryAfter(delay) => delay,
            OnError::Retry | OnError::Skip => delay,
        };
        self.context.metrics.record(&MetricEvent::CallbackRetried { callback });
        if is_batch && let Some(pending) = &mut self.pending {
            pending.batch.attempt = pending.batch.attempt.saturating_add(1);
        }
        self.rest_until = Some(after(Instant::now(), delay));
        ControlFlow::Continue(())
    }

    /// Takes note of a failed callback; returns the delay before the next attempt.
    pub(super) fn callback_failed(&mut self, callback: Callback, error: &BoxError) -> Duration {
        let text = Chain(&**error).to_string();
        let delay = self.step_failed(format!("{callback}: {text}"));
        self.context.metrics.record(&MetricEvent::CallbackFailed { callback });
        self.context.events.send(Event::CallbackFailed {
            shard: self.shard.shard.clone(),
            callback,
            failures: self.failures,
            error: text,
        });
        delay
    }

    /// Hands the failed batch to the policy and passes it; false if the policy did not take it.
    async fn dead_letter(&mut self, error: &BoxError) -> bool {
        let limit = self.promise_callback();
        let Some(pending) = &self.pending else { return false };
        let (batch, policy) = (&pending.batch, &self.context.error_policy);
        let span = info_span!("dead_letter", records = batch.records.len());
        let call = async { policy.dead_letter(batch, error).await };
        let taken = callback::run(&self.report, ("dead_letter", span), limit, call).await;
        self.promise_patience();
        match taken {
            Outcome::Done => {}
            Outcome::Failed(failure) => {
                let text = Chain(&*failure.error).to_string();
                self.last_error = Some(format!("dead_letter: {text}"));
                return false;
            }
            Outcome::Overran => {
                self.last_error = Some("dead_letter: did not end within callback_limit".into());
                return false;
            }
        }
        if let [first, .., last] | [first @ last] = batch.records() {
            let (first, last, records) = (first.position, last.position, batch.records.len());
            tracing::error!(shard = %self.shard.shard, %first, %last, records, "skipped a batch on request");
            self.context.metrics.record(&MetricEvent::Skipped { records: records as u64 });
            self.context.events.send(Event::BatchSkipped {
                shard: self.shard.shard.clone(),
                first,
                last,
                records,
            });
        }
        self.pass_batch();
        true
    }

    /// Stores what is acknowledged if the policy says so; returns whether it was tried.
    ///
    /// A store that fails or is slow delays delivery a little, and is tried again later.
    pub(super) async fn store_if_due(&mut self) -> bool {
        if self.schedule.due().is_none_or(|due| Instant::now() < due) {
            return false;
        }
        if !self.checkpointer.is_behind() {
            self.schedule.stored();
            return false;
        }
        self.promise_patience();
        let limit = self.context.settings.lease_duration / 2;
        let store = self.checkpointer.store_acknowledged().instrument(debug_span!("checkpoint"));
        match timeout(limit, store).await {
            Ok(Ok(())) => self.schedule.stored(),
            // The standing of the lease says so, too, or will.
            Ok(Err(CheckpointError::LeaseLost)) => self.schedule.stored(),
            Ok(Err(error)) => self.store_failed(&Chain(&error).to_string()),
            Err(_) => self.store_failed(&format!("no answer within {limit:?}")),
        }
        true
    }

    fn store_failed(&mut self, error: &str) {
        self.schedule.failed();
        tracing::warn!(shard = %self.shard.shard, error, "could not store a checkpoint, trying again");
        self.last_error = Some(format!("checkpoint: {error}"));
    }

    /// What goes into the row when the lease is given up.
    pub(super) fn final_checkpoint(&self) -> Option<Checkpoint> {
        if self.schedule.is_manual() { None } else { self.checkpointer.acknowledged().map(Checkpoint::At) }
    }
}
