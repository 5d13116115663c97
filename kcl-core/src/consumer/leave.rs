//! The ends of a consumer: the shard ends, is given up, or is lost.
//!
//! Each tells the processor at most once that it is over (P-1), and each gets to its end whatever the
//! processor answers.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::select;
use tokio::time::{Instant, sleep};
use tracing::info_span;

use super::callback::{self, Outcome};
use super::run::{Consumer, after};
use super::{Exit, LineageError, Order, Stage};
use crate::checkpointer::CheckpointError;
use crate::error::{BoxError, Chain};
use crate::event::Event;
use crate::lease::{EndShard, LossReason, ReleaseTo};
use crate::metrics::MetricEvent;
use crate::model::{Checkpoint, ChildShard};
use crate::plant::{Plant, planted};
use crate::processor::Callback;
use crate::source::{SourceEnd, SourceError, SourceErrorKind};

/// How often `shutdown_requested` is called until it succeeds; whoever waits for the lease does not wait long.
const SHUTDOWN_ATTEMPTS: u32 = 3;

/// Why the lease is given up although nobody asked for it.
#[derive(Debug)]
pub(super) enum Leaving {
    /// The source gave no sign of life.
    Stalled(String),
    /// The error policy says so.
    Policy,
    /// The error policy says that the scheduler is to stop.
    Stop(BoxError),
}

/// The end of the shard, on its way to be stored.
#[derive(Debug)]
pub(super) struct Ending {
    named: Vec<ChildShard>,
    /// Set if the source does not know the shard any more, instead of having said that it ended.
    missing: Option<Arc<SourceError>>,
    /// Known once looked up.
    children: Option<Vec<ChildShard>>,
}

impl Ending {
    pub(super) fn of_closed(end: SourceEnd) -> Self {
        Self { named: end.children, missing: None, children: None }
    }

    pub(super) const fn of_missing(error: Arc<SourceError>) -> Self {
        Self { named: Vec::new(), missing: Some(error), children: None }
    }

    /// The children the source named; `None` if it does not know the shard.
    fn named(&self) -> Option<&[ChildShard]> {
        if self.missing.is_some() { None } else { Some(&self.named) }
    }
}

impl Consumer {
    /// One step towards the stored end of the shard: looks up the children, then calls `shard_ended`, then has
    /// the end stored.
    pub(super) async fn end(&mut self) -> ControlFlow<Exit> {
        if self.rest_until.is_some() {
            return self.idle(self.rest_until).await;
        }
        let Some(ending) = &mut self.ending else { return ControlFlow::Continue(()) };
        let Some(children) = ending.children.take() else { return self.look_up_children().await };
        let limit = self.promise_callback();
        let Some(processor) = &mut self.processor else { return ControlFlow::Continue(()) };
        let checkpointer = &self.checkpointer;
        let call = async { processor.shard_ended(checkpointer).await };
        match callback::timed(&self.context.metrics, &self.report, Callback::ShardEnded, limit, call).await {
            Outcome::Done => {
                if planted(Plant::CallAfterLast) {
                    let again = async { processor.shutdown_requested(checkpointer).await };
                    let name = ("shutdown_requested", info_span!("shutdown_requested"));
                    let _ = callback::run(&self.report, name, limit, again).await;
                }
                ControlFlow::Break(self.store_end(children).await)
            }
            Outcome::Failed(failure) => {
                if let Some(ending) = &mut self.ending {
                    ending.children = Some(children);
                }
                self.promise_patience();
                self.failed(Callback::ShardEnded, failure).await
            }
            Outcome::Overran => ControlFlow::Break(self.abandon(Callback::ShardEnded).await),
        }
    }

    async fn look_up_children(&mut self) -> ControlFlow<Exit> {
        self.promise_patience();
        let context = Arc::clone(&self.context);
        let Some(ending) = &mut self.ending else { return ControlFlow::Continue(()) };
        if planted(Plant::TrustNamedChildren) || planted(Plant::MissingShardIsEnd) && ending.missing.is_some()
        {
            ending.children = Some(ending.named.clone());
            return ControlFlow::Continue(());
        }
        let found = select! {
            biased;
            () = self.signals.interruption(self.order) => return ControlFlow::Continue(()),
            found = context.lineage.children(&self.shard.shard, ending.named()) => found,
        };
        let missing = ending.missing.clone();
        match (found, missing) {
            (Ok(children), missing) => {
                ending.children = Some(children);
                self.recovered();
                if let Some(error) = missing {
                    self.tell_loss(&error);
                }
            }
            // Neither shard nor children are listed: all of it lies beyond the retention. Whatever part of the
            // hash-key space is not covered now is found by the next comparison of shards and leases.
            (Err(LineageError::Source(error)), Some(_)) if error.kind() == SourceErrorKind::ShardMissing => {
                ending.children = Some(Vec::new());
                self.recovered();
                self.tell_loss(&error);
            }
            // One of the two is wrong, and the end of a shard is nothing to guess.
            (Err(error @ (LineageError::StillOpen(_) | LineageError::StillListed(_))), _) => {
                let error = Chain(&error).to_string();
                let delay = self.step_failed(error.clone());
                self.context.events.send(Event::ReaderFailing {
                    shard: self.shard.shard.clone(),
                    failures: self.failures,
                    error,
                });
                let _ = self.idle(Some(after(Instant::now(), delay))).await;
                self.ending = None;
                self.feed.restart();
            }
            (Err(error), _) => {
                let delay = self.step_failed(Chain(&error).to_string());
                self.rest_until = Some(after(Instant::now(), delay));
            }
        }
        ControlFlow::Continue(())
    }

    fn tell_loss(&self, error: &SourceError) {
        let checkpoint =
            self.checkpointer.acknowledged().map_or_else(|| self.checkpointer.stored(), Checkpoint::At);
        let shard = self.shard.shard.clone();
        let reason = format!("the shard is gone before its end was read: {}", Chain(error));
        tracing::error!(%shard, %checkpoint, reason, "records may have been lost");
        self.context.events.send(Event::DataLoss { shard, checkpoint, reason });
    }

    /// Has the end stored, after `shard_ended` succeeded: nothing is called any more.
    async fn store_end(&mut self, children: Vec<ChildShard>) -> Exit {
        self.retire();
        self.recovered();
        loop {
            self.promise_patience();
            let ids = children.iter().map(|child| child.id.clone()).collect();
            let error = match self.handle.end(EndShard { children: children.clone() }).await {
                Ok(()) => {
                    let shard = self.shard.shard.clone();
                    self.context.events.send(Event::ShardEnded { shard, children: ids });
                    return Exit::Ended;
                }
                Err(CheckpointError::LeaseLost) => return self.lose().await,
                Err(error) => error,
            };
            let delay = self.step_failed(Chain(&error).to_string());
            self.show(Stage::Ending);
            self.order = self.signals.order();
            if self.order == Order::Drain {
                return self.release(false).await;
            }
            select! {
                biased;
                () = self.signals.interruption(self.order) => {}
                () = sleep(delay) => {}
            }
        }
    }

    /// Gives the shard up: a batch in hand is not waited for, and not counted.
    pub(super) async fn drain(&mut self) -> Exit {
        self.draining_since = Some(Instant::now());
        self.discard();
        let mut clean = !matches!(self.leaving, Some(Leaving::Stalled(_)));
        if let Some(Leaving::Stalled(reason)) = &self.leaving {
            tracing::warn!(shard = %self.shard.shard, reason, "giving the lease up: no sign of life");
        }
        self.recovered();
        while self.initialized {
            if self.signals.loss().is_some() {
                return self.lose().await;
            }
            let limit = self.promise_callback();
            let Some(processor) = &mut self.processor else { break };
            let checkpointer = &self.checkpointer;
            let call = async { processor.shutdown_requested(checkpointer).await };
            match callback::timed(
                &self.context.metrics,
                &self.report,
                Callback::ShutdownRequested,
                limit,
                call,
            )
            .await
            {
                Outcome::Done => break,
                Outcome::Overran => return self.abandon(Callback::ShutdownRequested).await,
                Outcome::Failed(failure) => {
                    let delay = self.callback_failed(Callback::ShutdownRequested, &failure.error);
                    if self.failures >= SHUTDOWN_ATTEMPTS {
                        clean = false;
                        break;
                    }
                    self.promise_patience();
                    self.show(Stage::Draining);
                    select! {
                        biased;
                        () = self.signals.lost() => {}
                        () = sleep(delay) => {}
                    }
                }
            }
        }
        self.release(clean).await
    }

    /// Releases the lease; the processor has been told, or cannot be.
    async fn release(&mut self, clean: bool) -> Exit {
        self.promise_patience();
        let to = self.signals.successor();
        let is_handed_over = matches!(to, ReleaseTo::Worker(_));
        let released = self.handle.release(self.final_checkpoint(), to).await;
        let clean = match released {
            Ok(()) => {
                if is_handed_over && let Some(since) = self.draining_since {
                    self.context.metrics.record(&MetricEvent::HandedOver { took: since.elapsed() });
                }
                clean
            }
            Err(CheckpointError::LeaseLost) => return self.lose().await,
            Err(error) => {
                self.step_failed(Chain(&error).to_string());
                false
            }
        };
        self.retire();
        match self.leaving.take() {
            Some(Leaving::Stop(error)) => Exit::StopScheduler(error),
            Some(Leaving::Stalled(_) | Leaving::Policy) | None => Exit::Released { clean },
        }
    }

    /// Tells the processor that the lease is lost.
    pub(super) async fn lose(&mut self) -> Exit {
        self.discard();
        // The reader is polled beside this and lets go of its source, a subscription for example, before the loss is told.
        tokio::task::yield_now().await;
        if self.initialized
            && let limit = self.promise_callback()
            && let Some(processor) = &mut self.processor
        {
            let call = async { processor.lease_lost().await };
            match callback::timed(&self.context.metrics, &self.report, Callback::LeaseLost, limit, call).await
            {
                Outcome::Done => {}
                Outcome::Failed(failure) => {
                    self.callback_failed(Callback::LeaseLost, &failure.error);
                }
                Outcome::Overran => self.overran(Callback::LeaseLost),
            }
        }
        self.retire();
        match self.leaving.take() {
            Some(Leaving::Stop(error)) => Exit::StopScheduler(error),
            // Whoever answered that the lease is lost did so before the standing said why.
            _ => Exit::Lost(self.signals.loss().unwrap_or(LossReason::Taken { by: None })),
        }
    }

    /// Gives the lease up after a callback that did not end: its processor cannot be called again.
    pub(super) async fn abandon(&mut self, callback: Callback) -> Exit {
        self.overran(callback);
        self.retire();
        self.discard();
        self.release(false).await
    }

    fn overran(&mut self, callback: Callback) {
        let limit = self.context.settings.callback_limit;
        let error: BoxError = format!("did not end within callback_limit ({limit:?}) and was dropped").into();
        self.callback_failed(callback, &error);
    }

    /// Lets go of the processor: nothing is called any more.
    fn retire(&mut self) {
        self.initialized = false;
        self.processor = None;
    }

    /// Lets go of everything read and not acknowledged.
    fn discard(&mut self) {
        self.feed.stop();
        self.feed.inputs.close();
        while self.feed.inputs.try_recv().is_ok() {}
        self.pending = None;
        self.delivery.clear();
        self.checkpointer.take_back();
    }
}
