use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::bill::Meter;
use super::coordination::TableView;
use super::explain::{Activity, Explanation};
use super::health::Health;
use super::lineage::Listing;
use super::report::{
    EndpointSnapshot, ListingFailure, Running, SchedulerPhase, ShardSnapshot, ShutdownReport, Snapshot,
};
use crate::event::{Event, EventSender};
use crate::model::{ShardId, WorkerId};
use crate::settings::Settings;

/// A request to a scheduler.
#[derive(Debug)]
pub(crate) enum Request {
    Shutdown { deadline: Duration, answer: oneshot::Sender<ShutdownReport> },
    Pause(Option<ShardId>),
    Resume(Option<ShardId>),
    Activate,
}

/// What a scheduler shows to its handles.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerView {
    pub(crate) phase: SchedulerPhase,
    pub(crate) running: Running,
    pub(crate) table: Option<watch::Receiver<Arc<TableView>>>,
    pub(crate) meter: Option<Meter>,
    pub(crate) listing: Option<watch::Receiver<Listing>>,
    pub(crate) listing_failure: Option<ListingFailure>,
    pub(crate) endpoint: Option<EndpointSnapshot>,
}

impl SchedulerView {
    /// What a scheduler shows that does not run yet.
    pub(crate) fn new() -> Self {
        Self {
            phase: SchedulerPhase::Created,
            running: Arc::default(),
            table: None,
            meter: None,
            listing: None,
            listing_failure: None,
            endpoint: None,
        }
    }
}

/// Steers and watches a running scheduler. Clones steer the same one.
#[derive(Clone, Debug)]
pub struct SchedulerHandle {
    pub(crate) worker: WorkerId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) view: watch::Receiver<SchedulerView>,
    pub(crate) events: EventSender,
}

impl SchedulerHandle {
    /// Stops the scheduler: takes nothing more, lets running callbacks end, calls `shutdown_requested`, releases
    /// each lease, and returns what came of each shard. Works at any time; a scheduler that does not run yet
    /// will stop as soon as it does.
    ///
    /// Returns by `deadline`: what is not released by then is dropped, and its lease runs out by itself. A
    /// second call with a shorter deadline shortens the first one's.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Shutdown { deadline, answer }).await.is_err() {
            return ShutdownReport::default();
        }
        answered.await.unwrap_or_default()
    }

    /// Stops deliveries, of one shard or of all, and keeps the leases. Reading ahead goes on within its budget.
    ///
    /// Holds also for shards whose leases this worker gets later, and if it comes before `run()`. A callback that
    /// runs already ends as it would have.
    pub async fn pause(&self, shard: Option<ShardId>) {
        // A scheduler that has ended delivers nothing anyway.
        let _ = self.requests.send(Request::Pause(shard)).await;
    }

    /// Ends a pause: of all shards with `None`; with a shard its own, not one of all.
    pub async fn resume(&self, shard: Option<ShardId>) {
        // A scheduler that has ended stays ended.
        let _ = self.requests.send(Request::Resume(shard)).await;
    }

    /// Takes leases from now on, after a start with [`StartMode::Standby`](crate::StartMode::Standby).
    pub async fn activate(&self) {
        // A scheduler that has ended takes nothing any more.
        let _ = self.requests.send(Request::Activate).await;
    }

    /// This worker's id, as it was given to the builder. In a fleet, the id under which it is a member begins with it;
    /// [`Snapshot::fleet`] has that.
    #[must_use]
    pub const fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// What the scheduler shows right now. Cheap; calls nothing.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut view = self.view.borrow().clone();
        if self.view.has_changed().is_err() {
            // Whoever ran the scheduler dropped it.
            (view.phase, view.running) = (SchedulerPhase::Stopped, Running::default());
        }
        let table = view.table.as_ref().map(|table| Arc::clone(&table.borrow())).unwrap_or_default();
        let mut snapshot = Snapshot::of_table(self.worker.clone(), view.phase, &table);
        let now = snapshot.at;
        let shards: BTreeMap<ShardId, ShardSnapshot> = view
            .running
            .iter()
            .map(|(shard, running)| {
                let report = running.report.borrow().clone();
                (shard.clone(), ShardSnapshot::new(report, &running.handle, now))
            })
            .collect();
        snapshot.shards = shards;
        snapshot.bill = view.meter.as_ref().map(Meter::bill);
        if let Some(listing) = &view.listing {
            let listing = listing.borrow();
            snapshot.listed_shards = Arc::clone(&listing.shards);
            snapshot.shards_listed_ago = Some(now.saturating_duration_since(listing.begun));
        }
        (snapshot.listing_failure, snapshot.endpoint) = (view.listing_failure, view.endpoint);
        snapshot
    }

    /// How well the scheduler is doing. Cheap; calls nothing.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.snapshot(), &self.settings)
    }

    /// Why a shard is moving or not, whoever holds it. Cheap; calls nothing.
    #[must_use]
    pub fn explain(&self, shard: &ShardId) -> Explanation {
        Explanation::of(&self.snapshot(), shard, &self.settings)
    }

    /// What each held shard is doing: tells "no traffic" from "not processing".
    #[must_use]
    pub fn activity(&self) -> BTreeMap<ShardId, Activity> {
        let snapshot = self.snapshot();
        let of = |shard: &ShardId| Explanation::of(&snapshot, shard, &self.settings).activity;
        snapshot.shards.keys().map(|shard| (shard.clone(), of(shard))).collect()
    }

    /// The events from now on. A listener that falls more than 1,024 events behind misses the oldest and is told.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until the scheduler runs: the table is prepared, the shards are listed. Returns at once if it has
    /// ended. Cancel-safe.
    pub async fn ready(&self) {
        let mut view = self.view.clone();
        let started =
            |view: &SchedulerView| !matches!(view.phase, SchedulerPhase::Created | SchedulerPhase::Starting);
        // An error means that the scheduler has ended.
        let _ = view.wait_for(started).await;
    }

    /// Waits until the scheduler has ended, whatever for. Cancel-safe.
    pub async fn ended(&self) {
        let mut view = self.view.clone();
        // An error means that whoever ran the scheduler dropped it.
        let _ = view.wait_for(|view| view.phase == SchedulerPhase::Stopped).await;
    }
}
