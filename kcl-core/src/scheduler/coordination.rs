//! The lease side of a scheduler: lists the lease table, plans, and drives the keeper's writes.
//!
//! One task, in production on its own thread and runtime, so that busy processors cannot delay renewals (L-1).
//! Every call to the lease store is made here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::trouble::Trouble;
use crate::entropy::Entropy;
use crate::error::Chain;
use crate::event::{Event, EventSender};
use crate::lease::keeper::{Acquisition, Attempt, Call, Keeper, KeeperSettings, Outcome};
use crate::lease::verb::Verb;
use crate::lease::{
    AttemptToken, Command, Consistency, Expectation, Lease, LeaseHandle, LeaseObserver, LeasePage,
    LeaseStore, LossReason, OwnerExpectation, Prepared, StoreError, StoreErrorKind, Write,
};
use crate::model::{InitialPosition, Shard, ShardId, StreamIdentity, WorkerId};
use crate::plan::{self, Action, BalanceInput, BalanceLimits, CleanupInput, LeaseView, SyncInput};
use crate::retry::Backoff;
use crate::settings::Settings;
use crate::time::Clock;

/// What the lease table showed when it was last listed, and what was written since.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableView {
    pub(crate) leases: BTreeMap<ShardId, Lease>,
    /// Whether this worker is the one that keeps house (KCL 2.x rule).
    pub(crate) leader: bool,
    /// When the table was last listed to its end.
    pub(crate) listed_at: Option<Instant>,
    /// The rows that cannot be read, by key, and why.
    pub(crate) unreadable: BTreeMap<String, String>,
}

/// What a start found.
#[derive(Debug)]
pub(crate) struct StartView {
    pub(crate) prepared: Prepared,
    pub(crate) leases: BTreeMap<ShardId, Lease>,
}

/// A request of the scheduler to its lease side.
#[derive(Debug)]
pub(crate) enum Control {
    /// The stream's shards as just listed: create what is missing, delete what is done with.
    Shards {
        shards: Arc<Vec<Shard>>,
        /// Answered once the creations are.
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    /// Delete these rows if they are still like this (a reset the user asked for).
    Delete { leases: Vec<Lease>, answer: oneshot::Sender<Result<(), StoreError>> },
    /// Take and ask for nothing more.
    StopTaking,
}

/// What the scheduler sees of its lease side.
#[derive(Clone, Debug)]
pub(crate) struct CoordinationView {
    pub(crate) held: watch::Receiver<Arc<BTreeMap<ShardId, LeaseHandle>>>,
    pub(crate) table: watch::Receiver<Arc<TableView>>,
    /// Counts shards whose end this worker stored.
    pub(crate) ended: watch::Receiver<u64>,
    /// Counts reasons to list the stream's shards now.
    pub(crate) listing_wanted: watch::Receiver<u64>,
    /// Whether no lease is held and none is being acquired.
    pub(crate) idle: watch::Receiver<bool>,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// What a lease side is made of.
#[derive(Debug)]
pub(crate) struct CoordinationConfig {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) me: WorkerId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) stream: StreamIdentity,
    pub(crate) initial: InitialPosition,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) events: EventSender,
    pub(super) trouble: Trouble,
    pub(crate) stop: CancellationToken,
}

/// How many leases are created at a time.
const CREATIONS_AT_A_TIME: usize = 32;

type Flight = BoxFuture<'static, (ShardId, Instant, Result<Write, Arc<StoreError>>)>;
type SideCall = BoxFuture<'static, SideDone>;

/// The answer of a call that is not a write on a held lease.
enum SideDone {
    /// The caller was answered.
    Nothing,
    /// A hand-over was asked for, or not.
    Requested(ShardId, Box<Result<Write, StoreError>>),
    /// Leases were created.
    Created(Batch),
    /// Leases were deleted.
    Deleted(Batch),
}

/// Creations or deletions done one after the other, up to the first error.
struct Batch {
    attempted: Vec<ShardId>,
    written: Vec<(ShardId, Write)>,
    error: Option<StoreError>,
    answer: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Batch {
    fn finish(self) {
        if let Some(answer) = self.answer {
            let _ = answer.send(self.error.map_or(Ok(()), Err));
        }
    }
}

#[derive(Debug, Default)]
struct Scan {
    rows: BTreeMap<ShardId, Lease>,
    unreadable: BTreeMap<String, String>,
    /// Rows that were written while the scan was under way; newer than what it shows.
    written: BTreeMap<ShardId, Option<Lease>>,
}

/// The lease side. See the module.
pub(crate) struct Coordination {
    store: Arc<dyn LeaseStore>,
    me: WorkerId,
    settings: Arc<Settings>,
    stream: StreamIdentity,
    initial: InitialPosition,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    events: EventSender,
    trouble: Trouble,
    stop: CancellationToken,

    keeper: Keeper,
    observer: LeaseObserver,
    table: BTreeMap<ShardId, Lease>,
    listed_at: Option<Instant>,
    listing: Option<(Arc<Vec<Shard>>, Instant)>,
    free_since: BTreeMap<ShardId, Instant>,
    /// Who asks for which lease, and since when that is seen.
    requests: BTreeMap<ShardId, (WorkerId, Instant)>,
    ended_since: BTreeMap<ShardId, Instant>,
    /// Leases this worker gave up by itself are left to others for a while.
    given_up_until: BTreeMap<ShardId, Instant>,
    /// Rows a side call is under way for.
    side_busy: BTreeSet<ShardId>,
    /// The rows that cannot be read, by key, and why.
    unreadable: BTreeMap<String, String>,
    reported_trimmed: BTreeSet<ShardId>,
    taking: bool,
    /// Whether a lease was ever acquired.
    has_written: bool,
    /// The first write of a lease was denied.
    denied: Option<Arc<StoreError>>,

    scan: Option<Scan>,
    scan_backoff: Backoff,
    next_scan: Instant,
    next_plan: Option<Instant>,

    commands: mpsc::Receiver<Command>,
    controls: mpsc::Receiver<Control>,
    held: watch::Sender<Arc<BTreeMap<ShardId, LeaseHandle>>>,
    view: watch::Sender<Arc<TableView>>,
    ended: watch::Sender<u64>,
    listing_wanted: watch::Sender<u64>,
    idle: watch::Sender<bool>,

    flights: FuturesUnordered<Flight>,
    side_calls: FuturesUnordered<SideCall>,
    page: Option<BoxFuture<'static, Result<LeasePage, StoreError>>>,
}

impl Coordination {
    pub(crate) fn new(config: CoordinationConfig) -> (Self, mpsc::Sender<Control>, CoordinationView) {
        let CoordinationConfig {
            store,
            me,
            settings,
            stream,
            initial,
            clock,
            entropy,
            events,
            trouble,
            stop,
        } = config;
        let (command_sender, commands) = mpsc::channel(1024);
        let (control_sender, controls) = mpsc::channel(16);
        let (held, held_view) = watch::channel(Arc::default());
        let (view, table_view) = watch::channel(Arc::default());
        let (ended, ended_view) = watch::channel(0);
        let (listing_wanted, listing_wanted_view) = watch::channel(0);
        let (idle, idle_view) = watch::channel(true);
        let keeper_settings = KeeperSettings {
            lease_duration: settings.lease_duration,
            safety_margin: settings.lease_safety_margin,
            max_writes: settings.max_lease_writes,
            first_promise: settings.stall_timeout,
            stream: stream.clone(),
            initial,
        };
        let keeper = Keeper::new(me.clone(), keeper_settings, entropy.fork(), command_sender.clone());
        let now = Instant::now();
        let scan_backoff =
            Backoff::new(Duration::from_millis(100), settings.lease_scan_interval, entropy.fork());
        let coordination = Self {
            observer: LeaseObserver::new(settings.lease_duration),
            store,
            me,
            settings,
            stream,
            initial,
            clock,
            entropy,
            events,
            trouble,
            stop,
            keeper,
            table: BTreeMap::new(),
            listed_at: None,
            listing: None,
            free_since: BTreeMap::new(),
            requests: BTreeMap::new(),
            ended_since: BTreeMap::new(),
            given_up_until: BTreeMap::new(),
            side_busy: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            reported_trimmed: BTreeSet::new(),
            taking: true,
            has_written: false,
            denied: None,
            scan: None,
            scan_backoff,
            next_scan: now,
            next_plan: None,
            commands,
            controls,
            held,
            view,
            ended,
            listing_wanted,
            idle,
            flights: FuturesUnordered::new(),
            side_calls: FuturesUnordered::new(),
            page: None,
        };
        let view = CoordinationView {
            held: held_view,
            table: table_view,
            ended: ended_view,
            listing_wanted: listing_wanted_view,
            idle: idle_view,
            commands: command_sender,
        };
        (coordination, control_sender, view)
    }

    /// Prepares the store and lists the table, answers with what was found, and then runs until stopped.
    ///
    /// When it ends, no call to the store is under way, and every handle shows its lease as lost.
    ///
    /// # Errors
    /// If the right to write leases turns out to be missing.
    pub(crate) async fn run(
        mut self,
        started: oneshot::Sender<Result<StartView, StoreError>>,
    ) -> Result<(), Arc<StoreError>> {
        let stop = self.stop.clone();
        let start = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            start = self.start() => start,
        };
        let failed = start.is_err();
        if started.send(start).is_err() || failed {
            return Ok(());
        }
        self.next_scan = Instant::now() + self.scan_interval();
        while self.denied.is_none() && !self.step(&stop).await {}
        self.keeper.abandon_all(&LossReason::Released);
        self.handle_outcomes(Instant::now());
        self.publish_held(Instant::now());
        self.denied.map_or(Ok(()), Err)
    }

    async fn start(&mut self) -> Result<StartView, StoreError> {
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.entropy.fork());
        let prepared = loop {
            match self.store.prepare().await {
                Ok(prepared) => break prepared,
                Err(error) if error.is_retryable() => {
                    warn!(error = %Chain(&error), "the lease store is not ready yet, trying again");
                    self.trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        };
        loop {
            match self.list_all().await {
                Ok(()) => break,
                Err(error) if error.is_retryable() => {
                    warn!(error = %Chain(&error), "the lease table could not be listed, trying again");
                    self.trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.publish_table();
        Ok(StartView { prepared, leases: self.table.clone() })
    }

    async fn list_all(&mut self) -> Result<(), StoreError> {
        self.scan = Some(Scan::default());
        let mut page = self.store.list(None).await?;
        loop {
            match self.take_page(page, Instant::now()) {
                Some(token) => page = self.store.list(Some(token)).await?,
                None => return Ok(()),
            }
        }
    }

    /// Does whatever comes next. Returns whether to stop.
    async fn step(&mut self, stop: &CancellationToken) -> bool {
        let now = Instant::now();
        self.send_due(now);
        self.handle_outcomes(now);
        self.publish_held(now);
        let wake = self.next_wake();
        tokio::select! {
            biased;
            () = stop.cancelled() => return true,
            Some((shard, sent, result)) = self.flights.next(), if !self.flights.is_empty() => {
                self.keeper.answered(&shard, result, sent, Instant::now());
                // Answers come in bursts; taking all that are there spares a round of publishing for each.
                while let Some(Some((shard, sent, result))) = self.flights.next().now_or_never() {
                    self.keeper.answered(&shard, result, sent, Instant::now());
                }
            }
            Some(command) = self.commands.recv() => self.take_command(command, Instant::now()),
            Some(done) = self.side_calls.next(), if !self.side_calls.is_empty() => self.side_done(done),
            Some(control) = self.controls.recv() => self.take_control(control, Instant::now()),
            page = poll_page(&mut self.page), if self.page.is_some() => {
                self.page = None;
                self.page_arrived(page, Instant::now());
            }
            () = tokio::time::sleep_until(wake) => {}
        }
        let now = Instant::now();
        if self.scan.is_none() && now >= self.next_scan {
            self.scan = Some(Scan::default());
            self.request_page(None);
        }
        if self.next_plan.is_some_and(|at| now >= at) {
            self.next_plan = None;
            self.plan(now);
        }
        false
    }

    fn next_wake(&self) -> Instant {
        let scan = self.scan.is_none().then_some(self.next_scan);
        self.keeper
            .next_due()
            .into_iter()
            .chain(scan)
            .chain(self.next_plan)
            .min()
            .unwrap_or_else(|| Instant::now() + self.settings.lease_duration)
    }

    // --- writes ------------------------------------------------------------------------------------------

    fn send_due(&mut self, now: Instant) {
        let timeout = self.settings.lease_duration / 6;
        for Attempt { shard, call } in self.keeper.due(now) {
            let store = Arc::clone(&self.store);
            self.flights.push(Box::pin(async move {
                let sent = Instant::now();
                let answer = tokio::time::timeout(timeout, async {
                    match &call {
                        Call::Update(Verb { shard, expect, patch }) => {
                            store.update(shard, expect, patch).await
                        }
                        Call::Create(lease) => store.create(lease).await,
                    }
                });
                let result = match answer.await {
                    Ok(result) => result,
                    Err(_) => Err(StoreError::new(
                        StoreErrorKind::Unavailable,
                        "write",
                        store.to_string(),
                        format!("no answer within {timeout:?}"),
                    )),
                };
                (shard, sent, result.map_err(Arc::new))
            }));
        }
    }

    fn take_command(&mut self, command: Command, now: Instant) {
        let Command::Read { shards, answer } = command else {
            return self.keeper.command(command, now);
        };
        let store = Arc::clone(&self.store);
        self.side_calls.push(Box::pin(async move {
            let mut rows = Vec::with_capacity(shards.len());
            for shard in &shards {
                match store.get(shard, Consistency::Strong).await {
                    Ok(row) => rows.extend(row),
                    Err(error) => {
                        let _ = answer.send(Err(error));
                        return SideDone::Nothing;
                    }
                }
            }
            let _ = answer.send(Ok(rows));
            SideDone::Nothing
        }));
    }

    fn take_control(&mut self, control: Control, now: Instant) {
        match control {
            Control::Shards { shards, answer } => {
                self.listing = Some((shards, now));
                self.sync(answer);
            }
            Control::Delete { leases, answer } => self.delete(leases, Some(answer)),
            Control::StopTaking => {
                self.taking = false;
                self.next_plan = None;
            }
        }
    }

    fn side_done(&mut self, done: SideDone) {
        let now = Instant::now();
        match done {
            SideDone::Nothing => {}
            SideDone::Requested(shard, result) => {
                self.side_busy.remove(&shard);
                match *result {
                    Ok(Write::Applied(row)) => {
                        self.requests.insert(shard, (self.me.clone(), now));
                        self.saw(row, now);
                        self.next_scan = self.next_scan.min(now + self.scan_interval());
                    }
                    Ok(Write::Conflict(Some(row))) => self.saw(row, now),
                    Ok(Write::Conflict(None)) => self.gone(&shard),
                    Err(error) => {
                        debug!(%shard, error = %Chain(&error), "a hand-over could not be asked for");
                    }
                }
            }
            SideDone::Created(batch) => {
                self.batch_done(&batch, true, now);
                batch.finish();
                self.plan_soon(now);
            }
            SideDone::Deleted(batch) => {
                self.batch_done(&batch, false, now);
                batch.finish();
            }
        }
    }

    fn batch_done(&mut self, batch: &Batch, created: bool, now: Instant) {
        for shard in &batch.attempted {
            self.side_busy.remove(shard);
        }
        for (shard, write) in &batch.written {
            match write {
                Write::Conflict(Some(row)) => self.saw(row.clone(), now),
                Write::Applied(row) if created => self.saw(row.clone(), now),
                Write::Applied(_) | Write::Conflict(None) => self.gone(shard),
            }
        }
        if let Some(error) = &batch.error {
            let what = if created { "created" } else { "deleted" };
            warn!(error = %Chain(error), "leases could not be {what}; the next listing tries again");
        }
        self.publish_table();
    }

    fn handle_outcomes(&mut self, now: Instant) {
        for outcome in self.keeper.take_outcomes() {
            match outcome {
                Outcome::Acquired { shard, reason } => {
                    info!(%shard, %reason, "lease acquired");
                    self.has_written = true;
                    self.requests.remove(&shard);
                    self.free_since.remove(&shard);
                    self.events.send(Event::LeaseAcquired { shard, reason });
                }
                Outcome::Seen(row) => {
                    let mine = row.is_owned_by(&self.me);
                    self.saw(row, now);
                    if mine && self.taking {
                        // The row names this worker, but the write that did was not recognised: adopt it soon.
                        self.plan_soon(now + self.settings.lease_duration / 20);
                    }
                }
                Outcome::Gone(shard) => {
                    self.gone(&shard);
                    self.want_listing();
                }
                Outcome::Lost { shard, reason } => {
                    match &reason {
                        LossReason::Taken { by: Some(owner) } if *owner == self.me => {
                            warn!(%shard, "a write under this worker's id is not this worker's: is the id used twice?");
                        }
                        LossReason::Ended => {}
                        LossReason::Released => info!(%shard, "lease released"),
                        _ => warn!(%shard, ?reason, "lease lost"),
                    }
                    if matches!(reason, LossReason::Released | LossReason::Stalled) {
                        self.given_up_until.insert(shard.clone(), now + self.settings.lease_duration);
                    }
                    self.events.send(Event::LeaseLost { shard, reason });
                }
                Outcome::Ended { row } => {
                    info!(shard = %row.shard, "shard ended");
                    self.ended_since.insert(row.shard.clone(), now);
                    self.saw(row, now);
                    self.publish_table();
                    self.ended.send_modify(|count| *count += 1);
                }
                Outcome::WriteFailed { shard, failures, error } => {
                    // A worker that may not write leases would look busy for ever and do nothing. One that has
                    // written some goes on: rights and credentials that were taken away may come back.
                    if error.kind() == StoreErrorKind::Denied && !self.has_written {
                        self.denied.get_or_insert_with(|| Arc::clone(&error));
                    }
                    if failures == 1 {
                        debug!(%shard, error = %Chain(&*error), "a lease write failed, repeating it");
                    } else {
                        warn!(%shard, failures, error = %Chain(&*error), "a lease write fails again and again");
                    }
                }
            }
        }
    }

    fn publish_held(&mut self, now: Instant) {
        let is_idle = self.keeper.is_idle();
        self.idle.send_if_modified(|idle| std::mem::replace(idle, is_idle) != is_idle);
        if let Some(held) = self.keeper.take_changed_handles(now) {
            self.held.send_if_modified(|current| {
                let same = current.len() == held.len()
                    && current
                        .iter()
                        .zip(&held)
                        .all(|((a, x), (b, y))| a == b && x.incarnation() == y.incarnation());
                if !same {
                    *current = Arc::new(held);
                }
                !same
            });
        }
    }

    // --- the table ---------------------------------------------------------------------------------------

    fn scan_interval(&self) -> Duration {
        let scan = self.settings.lease_scan_interval;
        let interval = if self.requests.values().any(|(worker, _)| *worker == self.me) {
            scan.min(Duration::from_secs(1))
        } else if self.is_alone() {
            // Nobody else holds anything, so nothing but a newcomer's request can be seen, and renewals show that.
            self.settings.lease_duration.max(scan)
        } else {
            scan
        };
        // Workers that started together drift apart.
        interval.mul_f64(0.9 + self.entropy.unit() / 10.0)
    }

    fn is_alone(&self) -> bool {
        let held: BTreeSet<&ShardId> = self.keeper.held().map(|lease| &lease.shard).collect();
        !held.is_empty() && self.table.values().all(|lease| lease.is_ended() || held.contains(&lease.shard))
    }

    fn request_page(&mut self, token: Option<crate::lease::PageToken>) {
        let store = Arc::clone(&self.store);
        let timeout = self.settings.lease_duration / 2;
        self.page = Some(Box::pin(async move {
            match tokio::time::timeout(timeout, store.list(token)).await {
                Ok(result) => result,
                Err(_) => Err(StoreError::new(
                    StoreErrorKind::Unavailable,
                    "list",
                    store.to_string(),
                    format!("no answer within {timeout:?}"),
                )),
            }
        }));
    }

    fn page_arrived(&mut self, page: Result<LeasePage, StoreError>, now: Instant) {
        match page {
            Ok(page) => match self.take_page(page, now) {
                Some(token) => self.request_page(Some(token)),
                None => {
                    self.scan_backoff.reset();
                    self.publish_table();
                    self.plan(now);
                    self.next_scan = now + self.scan_interval();
                }
            },
            Err(error) => {
                self.scan = None;
                let delay = self.scan_backoff.next_delay();
                if self.scan_backoff.attempts() == 2 {
                    warn!(error = %Chain(&error), "the lease table cannot be listed, trying again");
                }
                self.next_scan = now + delay;
            }
        }
    }

    /// Takes a page of the listing; returns where the next one begins. After the last, the table is replaced.
    fn take_page(&mut self, page: LeasePage, now: Instant) -> Option<crate::lease::PageToken> {
        let scan = self.scan.get_or_insert_default();
        for row in page.unreadable {
            if self.unreadable.get(&row.key) != Some(&row.reason) {
                warn!(key = %row.key, reason = %row.reason, "a row of the lease table cannot be read; it is left alone");
                let (key, reason) = (row.key.clone(), row.reason.clone());
                self.events.send(Event::UnreadableLease { key, reason });
            }
            scan.unreadable.insert(row.key, row.reason);
        }
        for lease in page.leases {
            self.observer.observe(&lease, now);
            self.keeper.note_row(&lease);
            scan.rows.insert(lease.shard.clone(), lease);
        }
        if page.next.is_some() {
            return page.next;
        }
        let Scan { mut rows, unreadable, written } = std::mem::take(scan);
        self.scan = None;
        for (shard, row) in written {
            match row {
                Some(row) => rows.insert(shard, row),
                None => rows.remove(&shard),
            };
        }
        self.table = rows;
        self.unreadable = unreadable;
        self.listed_at = Some(now);
        self.notice_missing_rows(now);
        None
    }

    fn notice_missing_rows(&mut self, now: Instant) {
        let table = &self.table;
        self.observer.retain(|shard| table.contains_key(shard));
        self.requests.retain(|shard, (worker, _)| {
            table.get(shard).is_some_and(|lease| lease.requested_by.as_ref() == Some(worker))
        });
        self.ended_since.retain(|shard, _| table.contains_key(shard));
        self.given_up_until.retain(|_, until| *until > now);
        for lease in table.values().filter(|lease| lease.is_ended()) {
            self.ended_since.entry(lease.shard.clone()).or_insert(now);
        }
        let is_there =
            |shard: &ShardId| table.contains_key(shard) || self.unreadable.contains_key(shard.as_str());
        let hole = table.values().any(|lease| lease.is_ended() && !lease.children.iter().all(is_there));
        if hole {
            self.want_listing();
        }
    }

    fn want_listing(&self) {
        self.listing_wanted.send_modify(|count| *count += 1);
    }

    fn saw(&mut self, row: Lease, now: Instant) {
        self.observer.observe(&row, now);
        if let Some(scan) = &mut self.scan {
            scan.written.insert(row.shard.clone(), Some(row.clone()));
        }
        self.table.insert(row.shard.clone(), row);
    }

    fn gone(&mut self, shard: &ShardId) {
        if let Some(scan) = &mut self.scan {
            scan.written.insert(shard.clone(), None);
        }
        self.table.remove(shard);
    }

    fn publish_table(&self) {
        let mut leases = self.table.clone();
        for lease in self.keeper.held() {
            leases.insert(lease.shard.clone(), lease.clone());
        }
        let leader = plan::is_leader(&self.me, leases.values());
        self.view.send_replace(Arc::new(TableView {
            leases,
            leader,
            listed_at: self.listed_at,
            unreadable: self.unreadable.clone(),
        }));
    }

    // --- planning ----------------------------------------------------------------------------------------

    fn plan_soon(&mut self, at: Instant) {
        if self.taking {
            self.next_plan = Some(self.next_plan.map_or(at, |planned| planned.min(at)));
        }
    }

    fn plan(&mut self, now: Instant) {
        if !self.taking {
            return;
        }
        let duration = self.settings.lease_duration;
        // What is known must be fresh enough for "has not changed" to mean anything.
        if self.listed_at.is_none_or(|at| now - at > duration.max(self.settings.lease_scan_interval * 3)) {
            return;
        }
        let mut rows = self.table.clone();
        for lease in self.keeper.held() {
            rows.insert(lease.shard.clone(), lease.clone());
        }
        let held: BTreeSet<ShardId> = self.keeper.held().map(|lease| lease.shard.clone()).collect();
        let mut busy = self.keeper.busy();
        busy.retain(|shard| !held.contains(shard));
        busy.extend(self.side_busy.iter().cloned());
        let given_up = self.given_up_until.iter().filter(|(_, until)| **until > now);
        busy.extend(given_up.map(|(shard, _)| shard.clone()));
        let mut next_plan: Option<Instant> = None;
        let mut soonest = |at: Instant| next_plan = Some(next_plan.map_or(at, |known| known.min(at)));
        let grace = duration / 5;
        let mut views = Vec::with_capacity(rows.len());
        for lease in rows.values() {
            let mine = held.contains(&lease.shard);
            let expired = !mine && lease.owner.is_some() && self.observer.is_expired(lease, now);
            let free = !lease.is_ended() && !mine && (lease.owner.is_none() || expired);
            let free_for = if free {
                let since = *self.free_since.entry(lease.shard.clone()).or_insert(now);
                if now < since + grace {
                    soonest(since + grace);
                }
                Some(now - since)
            } else {
                self.free_since.remove(&lease.shard);
                if !mine
                    && !lease.is_ended()
                    && let Some(at) = self.observer.expires_at(lease)
                {
                    soonest(at.max(now + duration / 100));
                }
                None
            };
            let requested_for = lease.requested_by.as_ref().map(|worker| {
                let seen = self.requests.entry(lease.shard.clone()).or_insert_with(|| (worker.clone(), now));
                if seen.0 != *worker {
                    *seen = (worker.clone(), now);
                }
                now - seen.1
            });
            views.push(LeaseView { lease, expired, free_for, requested_for });
        }
        let decisions = plan::plan_balance(&BalanceInput {
            me: &self.me,
            leases: &views,
            held: &held,
            busy: &busy,
            limits: BalanceLimits {
                max_leases: self.settings.max_leases,
                max_requests: self.settings.max_requests,
                grace,
                // Long enough for a callback to end; only a Java worker never answers.
                request_timeout: duration * 3,
            },
        });
        self.next_plan = next_plan;
        for decision in decisions {
            debug!(shard = %decision.shard, action = ?decision.action, reason = %decision.reason, "planned");
            let Some(row) = rows.get(&decision.shard) else { continue };
            let how = match decision.action {
                Action::Adopt => Acquisition::Adopt,
                Action::Take => Acquisition::Take,
                Action::Steal => Acquisition::Steal,
                Action::Request => {
                    self.request(row);
                    continue;
                }
            };
            self.keeper.acquire(row, how, decision.reason.to_string(), now);
        }
    }

    fn request(&mut self, row: &Lease) {
        let store = Arc::clone(&self.store);
        let verb = Verb::request(row, &self.me);
        self.side_busy.insert(row.shard.clone());
        self.side_calls.push(Box::pin(async move {
            let result = store.update(&verb.shard, &verb.expect, &verb.patch).await;
            SideDone::Requested(verb.shard, Box::new(result))
        }));
    }

    /// Compares the stream's shards with the leases: creates what is missing, deletes what is done with.
    fn sync(&mut self, answer: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let Some((shards, _)) = self.listing.clone() else { return };
        let mut leases = self.table.clone();
        for lease in self.keeper.held() {
            leases.insert(lease.shard.clone(), lease.clone());
        }
        let plan = plan::plan_sync(&SyncInput {
            shards: &shards,
            leases: &leases,
            initial: self.initial,
            stream: &self.stream,
            start_timestamp: Some(self.clock.now()),
            first_start: leases.is_empty() && self.unreadable.is_empty(),
        });
        let token = AttemptToken(self.entropy.uuid());
        let busy = self.keeper.busy();
        let create: Vec<Lease> = plan
            .create
            .into_iter()
            .filter(|planned| !busy.contains(&planned.lease.shard))
            // Whoever repairs the row decides where its shard goes on.
            .filter(|planned| !self.unreadable.contains_key(planned.lease.shard.as_str()))
            .map(|planned| {
                info!(shard = %planned.lease.shard, checkpoint = %planned.lease.checkpoint, reason = %planned.reason,
                    "creating a lease");
                Lease { token: Some(token), ..planned.lease }
            })
            .collect();
        if answer.is_none() {
            self.clean_up(&shards, &leases);
        }
        if create.is_empty() {
            if let Some(answer) = answer {
                let _ = answer.send(Ok(()));
            }
            self.plan_soon(Instant::now());
            return;
        }
        self.side_busy.extend(create.iter().map(|lease| lease.shard.clone()));
        let store = Arc::clone(&self.store);
        let attempted: Vec<ShardId> = create.iter().map(|lease| lease.shard.clone()).collect();
        self.side_calls.push(Box::pin(async move {
            let mut batch = Batch { attempted, written: Vec::new(), error: None, answer };
            // Generation by generation, so that a crash midway leaves ancestors first.
            for generation in generations(create) {
                let mut writes = futures_util::stream::iter(generation)
                    .map(|lease| {
                        let store = &store;
                        async move { (store.create(&lease).await, lease.shard) }
                    })
                    .buffer_unordered(CREATIONS_AT_A_TIME);
                while let Some((result, shard)) = writes.next().await {
                    match result {
                        Ok(write) => batch.written.push((shard, write)),
                        Err(error) => batch.error = Some(error),
                    }
                }
                if batch.error.is_some() {
                    break;
                }
            }
            SideDone::Created(batch)
        }));
    }

    fn clean_up(&mut self, shards: &[Shard], leases: &BTreeMap<ShardId, Lease>) {
        let now = Instant::now();
        let ended_for: BTreeMap<ShardId, Duration> =
            self.ended_since.iter().map(|(shard, since)| (shard.clone(), now - *since)).collect();
        let plan = plan::leases_to_delete(&CleanupInput {
            shards,
            leases,
            ended_for: &ended_for,
            retention: self.settings.ended_lease_retention,
        });
        for lease in plan.trimmed {
            if self.reported_trimmed.insert(lease.shard.clone()) {
                warn!(shard = %lease.shard, checkpoint = %lease.checkpoint, "the shard expired before it was read to its end");
                let reason = "the stream no longer lists the shard, and its end was not reached".to_owned();
                self.events.send(Event::DataLoss {
                    shard: lease.shard,
                    checkpoint: lease.checkpoint,
                    reason,
                });
            }
        }
        let rows = plan.delete.into_iter().map(|deletion| {
            info!(shard = %deletion.lease.shard, reason = %deletion.reason, "deleting a lease");
            deletion.lease
        });
        let rows = rows.collect();
        self.delete(rows, None);
    }

    fn delete(&mut self, leases: Vec<Lease>, answer: Option<oneshot::Sender<Result<(), StoreError>>>) {
        if leases.is_empty() {
            if let Some(answer) = answer {
                let _ = answer.send(Ok(()));
            }
            return;
        }
        self.side_busy.extend(leases.iter().map(|lease| lease.shard.clone()));
        let store = Arc::clone(&self.store);
        let attempted: Vec<ShardId> = leases.iter().map(|lease| lease.shard.clone()).collect();
        self.side_calls.push(Box::pin(async move {
            let mut batch = Batch { attempted, written: Vec::new(), error: None, answer };
            for lease in leases {
                let expect = Expectation {
                    counter: Some(lease.counter),
                    owner: lease.owner.map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
                    checkpoint: Some(lease.checkpoint),
                    ..Expectation::default()
                };
                match store.delete(&lease.shard, &expect).await {
                    Ok(write) => batch.written.push((lease.shard, write)),
                    Err(error) => {
                        batch.error = Some(error);
                        break;
                    }
                }
            }
            SideDone::Deleted(batch)
        }));
    }
}

/// Splits leases that are in order of birth, so that no lease is in one part with a parent.
fn generations(leases: Vec<Lease>) -> Vec<Vec<Lease>> {
    let mut generations: Vec<Vec<Lease>> = Vec::new();
    let mut current: BTreeSet<ShardId> = BTreeSet::new();
    for lease in leases {
        if generations.is_empty() || lease.parents.iter().any(|parent| current.contains(parent)) {
            generations.push(Vec::new());
            current.clear();
        }
        current.insert(lease.shard.clone());
        if let Some(generation) = generations.last_mut() {
            generation.push(lease);
        }
    }
    generations
}

async fn poll_page(
    page: &mut Option<BoxFuture<'static, Result<LeasePage, StoreError>>>,
) -> Result<LeasePage, StoreError> {
    match page {
        Some(page) => page.await,
        None => std::future::pending().await,
    }
}
