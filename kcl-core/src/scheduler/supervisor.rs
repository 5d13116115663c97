//! Compares the leases held with the consumers that run, and repairs any difference.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{Instrument as _, error, info_span, warn};

use super::report::{Running, RunningShard, ShardOutcome};
use crate::consumer::{self, ConsumerContext, Exit, Order, ShardReport};
use crate::error::BoxError;
use crate::event::Event;
use crate::gate::{Gate, Part};
use crate::lease::{LeaseHandle, Phase, ReleaseTo};
use crate::metrics::{MetricEvent, Stalled};
use crate::model::ShardId;
use crate::plant::{Plant, planted};

/// A consumer task that ended.
pub(super) struct Done {
    shard: ShardId,
    incarnation: u64,
    exit: Result<Exit, String>,
}

struct Consumer {
    handle: LeaseHandle,
    orders: watch::Sender<Order>,
    report: watch::Receiver<ShardReport>,
    task: AbortHandle,
}

/// What is paused on request.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    all: bool,
    shards: BTreeSet<ShardId>,
    /// Whether a worker that started on standby was told to take leases before it ran.
    pub(super) active: bool,
}

impl Pauses {
    pub(super) fn pause(&mut self, shard: Option<ShardId>) {
        match shard {
            Some(shard) => {
                self.shards.insert(shard);
            }
            None => self.all = true,
        }
    }

    pub(super) fn resume(&mut self, shard: Option<ShardId>) {
        match shard {
            Some(shard) => {
                self.shards.remove(&shard);
            }
            None => *self = Self { active: self.active, ..Self::default() },
        }
    }

    pub(super) fn activate(&mut self) {
        self.active = true;
    }

    fn holds(&self, shard: &ShardId) -> bool {
        self.all || self.shards.contains(shard)
    }
}

/// The consumers of a scheduler.
pub(super) struct Supervisor {
    context: Arc<ConsumerContext>,
    consumers: BTreeMap<ShardId, Consumer>,
    tasks: JoinSet<Done>,
    pauses: Pauses,
    /// Whether the scheduler stops.
    stopping: bool,
    /// Whether consumers were told to end.
    draining: bool,
    outcomes: BTreeMap<ShardId, ShardOutcome>,
    gate: Gate,
}

impl Supervisor {
    pub(super) fn new(context: Arc<ConsumerContext>, pauses: Pauses, gate: Gate) -> Self {
        Self {
            context,
            consumers: BTreeMap::new(),
            tasks: JoinSet::new(),
            pauses,
            stopping: false,
            draining: false,
            outcomes: BTreeMap::new(),
            gate,
        }
    }

    /// Starts a consumer for each held lease that has none. A shard whose previous consumer has not ended yet
    /// waits for that (one consumer per shard and process).
    ///
    /// L-3: a consumer that lost its lease and broke its promise to show life will not end by itself. It is dropped,
    /// and the shard starts anew once it is gone, if the lease is held again.
    /// Returns whether consumers were started.
    pub(super) fn reconcile(&mut self, held: &BTreeMap<ShardId, LeaseHandle>) -> bool {
        let before = self.consumers.len();
        for (shard, consumer) in &self.consumers {
            if consumer.handle.is_lost() && !consumer.handle.keeps_promise() && !consumer.task.is_finished() {
                warn!(%shard, "dropping a consumer that shows no sign of life");
                consumer.task.abort();
            }
        }
        for (shard, handle) in held {
            let runs = self.consumers.get(shard).is_some_and(|consumer| {
                !planted(Plant::TwoConsumers) || consumer.handle.incarnation() == handle.incarnation()
            });
            if handle.is_lost() || runs {
                continue;
            }
            // A lease whose consumer ended although it is held starts over at what is stored by now.
            self.start(handle.restarted());
        }
        self.consumers.len() != before
    }

    fn start(&mut self, handle: LeaseHandle) {
        let shard = handle.shard().clone();
        let (orders, orders_view) = watch::channel(self.order_for(&shard));
        let report = ShardReport::starting(handle.acquired().checkpoint);
        let (report_sender, report) = watch::channel(report);
        let incarnation = handle.incarnation();
        let context = Arc::clone(&self.context);
        handle.consumer_started();
        let task = if self.draining {
            // Acquired while stopping: nothing was started, so the lease goes back as it came.
            let (shard, handle) = (shard.clone(), handle.clone());
            self.tasks.spawn(async move {
                let to = match handle.standing().phase {
                    Phase::HandOver(successor) => ReleaseTo::Worker(successor),
                    Phase::Held | Phase::Lost(_) => ReleaseTo::Anybody,
                };
                let clean = handle.release(None, to).await.is_ok();
                Done { shard, incarnation, exit: Ok(Exit::Released { clean }) }
            })
        } else {
            let span = info_span!("shard", %shard, lease_counter = handle.acquired().counter);
            let run = consumer::run(context, handle.clone(), orders_view, report_sender).instrument(span);
            let (part, shard) = (Part::Consumer(shard.clone()), shard.clone());
            self.tasks.spawn(self.gate.guard(part, async move {
                let exit = AssertUnwindSafe(run).catch_unwind().await.map_err(|panic| panic_text(&*panic));
                Done { shard, incarnation, exit }
            }))
        };
        self.consumers.insert(shard, Consumer { handle, orders, report, task });
    }

    fn order_for(&self, shard: &ShardId) -> Order {
        if self.draining {
            Order::Drain
        } else if self.pauses.holds(shard) {
            Order::Pause
        } else {
            Order::Run
        }
    }

    fn give_orders(&self) {
        for (shard, consumer) in &self.consumers {
            let order = self.order_for(shard);
            consumer.orders.send_if_modified(|current| {
                let changes = *current != order;
                *current = order;
                changes
            });
        }
    }

    pub(super) fn pause(&mut self, shard: Option<ShardId>) {
        self.pauses.pause(shard);
        self.give_orders();
    }

    pub(super) fn resume(&mut self, shard: Option<ShardId>) {
        self.pauses.resume(shard);
        self.give_orders();
    }

    /// From now on it counts how each shard comes out.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Drains every shard.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.give_orders();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.consumers.is_empty()
    }

    /// Waits for a consumer to end; never returns while none runs. Cancel-safe.
    pub(super) async fn next_done(&mut self) -> Done {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => return done,
                // Consumer tasks catch their panics: this one was dropped because it showed no sign of life.
                Some(Err(error)) => match self.dropped(error.id()) {
                    Some(done) => return done,
                    None => error!(%error, "a consumer task could not be joined"),
                },
                None => std::future::pending().await,
            }
        }
    }

    /// The end of a consumer whose task was dropped.
    fn dropped(&self, task: tokio::task::Id) -> Option<Done> {
        let (shard, consumer) = self.consumers.iter().find(|(_, consumer)| consumer.task.id() == task)?;
        let exit = Err("it showed no sign of life and was dropped".to_owned());
        Some(Done { shard: shard.clone(), incarnation: consumer.handle.incarnation(), exit })
    }

    /// Takes note of a consumer that ended; returns the shard and its error if the error policy says to
    /// stop the scheduler.
    pub(super) fn take_done(&mut self, done: Done) -> Option<(ShardId, BoxError)> {
        let Done { shard, incarnation, exit } = done;
        let known = self.consumers.get(&shard).is_some_and(|c| c.handle.incarnation() == incarnation);
        if known && let Some(consumer) = self.consumers.remove(&shard) {
            consumer.handle.consumer_ended();
        }
        let outcome = match exit {
            Ok(Exit::Ended) => ShardOutcome::Ended,
            Ok(Exit::Lost(reason)) => ShardOutcome::Lost(reason),
            Ok(Exit::Released { clean: true }) => ShardOutcome::Released,
            Ok(Exit::Released { clean: false }) => ShardOutcome::ReleasedUncleanly,
            Ok(Exit::StopScheduler(error)) => {
                self.outcomes.insert(shard.clone(), ShardOutcome::ReleasedUncleanly);
                return Some((shard, error));
            }
            Err(reason) => {
                warn!(%shard, %reason, "a consumer broke; it is started again from the stored checkpoint");
                self.context.metrics.record(&MetricEvent::Stall(Stalled::Consumer));
                self.context.events.send(Event::ConsumerRepaired { shard: shard.clone(), reason });
                ShardOutcome::ReleasedUncleanly
            }
        };
        if self.stopping {
            self.outcomes.insert(shard, outcome);
        }
        None
    }

    /// Gives up on what still runs, and returns how each shard came out.
    pub(super) fn finish(mut self) -> BTreeMap<ShardId, ShardOutcome> {
        self.tasks.abort_all();
        for (shard, consumer) in std::mem::take(&mut self.consumers) {
            let stage = consumer.report.borrow().stage;
            self.outcomes.insert(shard, ShardOutcome::DeadlineExceeded(stage));
        }
        self.outcomes
    }

    /// What runs, for snapshots.
    pub(super) fn running(&self) -> Running {
        let running = self.consumers.iter().map(|(shard, consumer)| {
            let shown = RunningShard { handle: consumer.handle.clone(), report: consumer.report.clone() };
            (shard.clone(), shown)
        });
        Arc::new(running.collect())
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned());
    format!("it panicked: {text}")
}
