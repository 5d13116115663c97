//! The lease side of a scheduler: lists the lease table, plans, and drives the keeper's writes.
//!
//! One task, in production on its own thread and runtime, so that busy processors cannot delay renewals (L-1).
//! Every call to the lease store is made here.

mod answers;
mod fleet;
mod owners;
mod peers;
mod planning;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug_span, warn};

pub(crate) use self::fleet::audit_interval;
use self::fleet::{Fleet, FleetDone};
pub use self::fleet::{FleetSnapshot, MemberSnapshot};
pub use self::owners::OwnerSeen;
use self::owners::Owners;
use self::peers::Peers;
use super::builder::{StartMode, Takeover};
use super::trouble::Trouble;
use crate::entropy::Entropy;
use crate::error::{Chain, Error};
use crate::event::EventSender;
use crate::fleet::{FleetRow, FleetRowKey, MemberLimits, MemberState};
use crate::lease::keeper::{Keeper, KeeperSettings};
use crate::lease::{
    Command, Consistency, Lease, LeaseHandle, LeaseObserver, LeasePage, LeaseStore, LeaseTable, LossReason,
    MemberProof, Prepared, Proof, StoreError, StoreErrorKind, Write,
};
use crate::load::LoadSource;
use crate::metrics::Metrics;
use crate::model::{InitialPosition, Shard, ShardId, StreamIdentity, WorkerId};
use crate::plan::PlacementStrategy;
use crate::retry::Backoff;
use crate::settings::Settings;
use crate::time::Clock;

/// What the lease table showed when it was last listed, and what was written since.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableView {
    pub(crate) leases: Arc<LeaseTable>,
    /// Whether this worker is the one that keeps house.
    pub(crate) leader: bool,
    /// What a member of a fleet sees of it.
    pub(crate) fleet: Option<FleetSnapshot>,
    /// When the table was last listed to its end.
    pub(crate) listed_at: Option<Instant>,
    /// The rows that cannot be read, by key, and why.
    pub(crate) unreadable: BTreeMap<String, String>,
    /// Since when each lease has been seen with its owner.
    pub(crate) owners: Arc<BTreeMap<ShardId, OwnerSeen>>,
    /// The leases whose owner lets them stand still, and since when that is known.
    pub(crate) expired: BTreeMap<ShardId, Instant>,
    /// The leases this worker gave up, and until when it leaves them to others.
    pub(crate) given_up: BTreeMap<ShardId, Instant>,
    /// Whether this worker takes leases.
    pub(crate) taking: bool,
}

/// What a start found.
#[derive(Debug)]
pub(crate) struct StartView {
    pub(crate) prepared: Prepared,
    pub(crate) leases: LeaseTable,
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
    /// Take and ask for nothing more, and leave by then. `drain` is told when consumers are to end.
    StopTaking { deadline: Instant, drain: oneshot::Sender<()> },
    /// Take leases from now on.
    Activate,
}

/// What the scheduler sees of its lease side.
#[derive(Clone, Debug)]
pub(crate) struct CoordinationView {
    pub(crate) held: watch::Receiver<Arc<BTreeMap<ShardId, LeaseHandle>>>,
    pub(crate) table: watch::Receiver<Arc<TableView>>,
    /// Tells when this worker stored the end of a shard.
    pub(crate) ended: Arc<Notify>,
    /// Counts reasons to list the stream's shards now.
    pub(crate) listing_wanted: watch::Receiver<u64>,
    /// Whether nothing is taken any more, no lease is held or being acquired, and no call is under way.
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
    pub(crate) way: Way,
    pub(crate) metrics: Metrics,
}

/// How workers coordinate, with what that needs.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) coordination: super::builder::Coordination,
    pub(crate) takeover: Takeover,
    pub(crate) start: StartMode,
    pub(crate) placement: PlacementStrategy,
    pub(crate) load: Option<Arc<dyn LoadSource>>,
}

/// The stream's shards, and who waits until their leases are there.
type FirstCompare = (Arc<Vec<Shard>>, oneshot::Sender<Result<(), StoreError>>);
type Flight = BoxFuture<'static, ((ShardId, u64), Instant, Result<Write, Arc<StoreError>>)>;
type SideCall = BoxFuture<'static, SideDone>;

/// The answer of a call that is not a write on a held lease.
enum SideDone {
    /// The caller was answered.
    Nothing,
    /// A lease was passed on that this worker never held.
    PassedOn(ShardId, Box<Result<Write, StoreError>>),
    /// The rows of a fleet were read, on behalf of a worker that is no member.
    Peers(Vec<(FleetRowKey, Option<FleetRow>)>, Result<(), StoreError>),
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

#[derive(Debug)]
struct Scan {
    consistency: Consistency,
    /// In the order in which the pages have them.
    rows: Vec<(ShardId, Arc<Lease>)>,
    unreadable: BTreeMap<String, String>,
    foreign: BTreeMap<String, String>,
    /// Rows that were written while the scan was under way; newer than what it shows.
    written: BTreeMap<ShardId, Option<Arc<Lease>>>,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            consistency: Consistency::Eventual,
            rows: Vec::new(),
            unreadable: BTreeMap::new(),
            foreign: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }
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
    metrics: Metrics,
    trouble: Trouble,
    stop: CancellationToken,

    keeper: Keeper,
    observer: LeaseObserver,
    table: LeaseTable,
    listed_at: Option<Instant>,
    free_since: BTreeMap<ShardId, Instant>,
    /// Who asks for which lease, and since when that is seen.
    requests: BTreeMap<ShardId, (WorkerId, Instant)>,
    ended_since: BTreeMap<ShardId, Instant>,
    /// Leases this worker gave up by itself are left to others for a while.
    given_up_until: BTreeMap<ShardId, Instant>,
    /// Since when each lease has been seen with its owner.
    owners: Owners,
    /// Rows a side call is under way for.
    side_busy: BTreeSet<ShardId>,
    /// The rows that cannot be read, by key, and why.
    unreadable: BTreeMap<String, String>,
    reported_trimmed: BTreeSet<ShardId>,
    taking: bool,
    /// Whether a lease was ever acquired.
    has_written: bool,
    /// What makes this worker stop.
    fatal: Option<Error>,
    /// What a member of a fleet needs beyond the rest.
    fleet: Option<Box<Fleet>>,
    /// What a worker that is no member knows of fleets.
    peers: Peers,
    way: Way,
    /// Rows of other kinds, by key: their kind.
    foreign_rows: BTreeMap<String, String>,
    /// When the listing was begun that the table shows.
    listing_shown_begun: Option<Instant>,
    listing_begun: Instant,
    /// Whether the table changed since it was published, and when that was.
    table_dirty: bool,
    published: Option<(Instant, Arc<LeaseTable>)>,
    /// The first comparison of shards and leases, which waits for this worker to become a member.
    first_compare: Option<FirstCompare>,
    /// Shards to compare with the leases as soon as those are listed freshly enough.
    sync_later: Option<(Instant, Arc<Vec<Shard>>)>,

    scan: Option<Scan>,
    scan_backoff: Backoff,
    next_scan: Instant,
    next_plan: Option<Instant>,

    commands: mpsc::Receiver<Command>,
    controls: mpsc::Receiver<Control>,
    held: watch::Sender<Arc<BTreeMap<ShardId, LeaseHandle>>>,
    view: watch::Sender<Arc<TableView>>,
    ended: Arc<Notify>,
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
            way,
            metrics,
        } = config;
        let (command_sender, commands) = mpsc::channel(1024);
        let (control_sender, controls) = mpsc::channel(16);
        let (held, held_view) = watch::channel(Arc::default());
        let (view, table_view) = watch::channel(Arc::default());
        let ended = Arc::new(Notify::new());
        let (listing_wanted, listing_wanted_view) = watch::channel(0);
        let (idle, idle_view) = watch::channel(false);
        let is_fleet = way.coordination == super::builder::Coordination::Fleet;
        let member_proof =
            is_fleet.then(|| MemberProof::new(Arc::clone(&clock), settings.lease_safety_margin));
        let keeper_settings = KeeperSettings {
            lease_duration: settings.lease_duration,
            safety_margin: settings.lease_safety_margin,
            max_writes: settings.max_lease_writes,
            first_promise: settings.stall_timeout,
            stream: stream.clone(),
            initial,
            proof: match &member_proof {
                Some(proof) => Proof::Member(proof.clone()),
                None => Proof::Lease,
            },
        };
        let keeper = Keeper::new(me.clone(), keeper_settings, entropy.fork(), command_sender.clone())
            .with_metrics(metrics.clone());
        let now = Instant::now();
        let scan_backoff =
            Backoff::new(Duration::from_millis(100), settings.lease_scan_interval, entropy.fork());
        let fleet = member_proof.map(|proof| {
            let backoff =
                Backoff::new(Duration::from_millis(100), settings.lease_duration / 3, entropy.fork());
            let limits = MemberLimits {
                leases: u64::try_from(settings.max_leases).ok().filter(|_| settings.max_leases != usize::MAX),
                load: settings.max_load,
            };
            let state = match way.start {
                StartMode::Active => MemberState::Active,
                StartMode::Standby => MemberState::Observer,
            };
            let patient = way.takeover == Takeover::Wait;
            Box::new(Fleet::new(&me, proof, settings.lease_duration, (limits, state), patient, backoff))
        });
        let taking = way.start == StartMode::Active || is_fleet;
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
            metrics,
            trouble,
            stop,
            keeper,
            table: BTreeMap::new(),
            listed_at: None,
            free_since: BTreeMap::new(),
            requests: BTreeMap::new(),
            ended_since: BTreeMap::new(),
            given_up_until: BTreeMap::new(),
            owners: Owners::default(),
            side_busy: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            reported_trimmed: BTreeSet::new(),
            taking,
            has_written: false,
            fatal: None,
            fleet,
            peers: Peers::default(),
            way,
            foreign_rows: BTreeMap::new(),
            listing_shown_begun: None,
            listing_begun: now,
            table_dirty: true,
            published: None,
            first_compare: None,
            sync_later: None,
            scan: None,
            scan_backoff,
            next_scan: now,
            next_plan: None,
            commands,
            controls,
            held,
            view,
            ended: Arc::clone(&ended),
            listing_wanted,
            idle,
            flights: FuturesUnordered::new(),
            side_calls: FuturesUnordered::new(),
            page: None,
        };
        let view = CoordinationView {
            held: held_view,
            table: table_view,
            ended,
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
        started: oneshot::Sender<Result<StartView, Error>>,
    ) -> Result<(), Error> {
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
        while self.fatal.is_none() && !self.step(&stop).await {}
        self.keeper.abandon_all(&LossReason::Released);
        self.handle_outcomes(Instant::now());
        self.publish_held(Instant::now());
        self.fatal.map_or(Ok(()), Err)
    }

    async fn start(&mut self) -> Result<StartView, Error> {
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
                Err(error) => return Err(error.into()),
            }
        };
        loop {
            match self.list_all().await {
                Ok(()) => break,
                Err(error) if error.is_retryable() => {
                    warn!(error = %Chain(&error), "the lease table cannot be listed, trying again");
                    self.trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if prepared.java_leadership.is_none() {
            self.refuse_foreign_rows()?;
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.provisioned = prepared.provisioned;
        }
        self.publish_table();
        Ok(StartView { prepared, leases: self.table.clone() })
    }

    async fn list_all(&mut self) -> Result<(), StoreError> {
        let consistency = Consistency::Eventual;
        self.listing_begun = Instant::now();
        self.scan = Some(Scan { consistency, ..Scan::default() });
        let mut page = self.store.list(None, consistency).await?;
        loop {
            match self.take_page(page, Instant::now()) {
                Some(token) => page = self.store.list(Some(token), consistency).await?,
                None => return Ok(()),
            }
        }
    }

    /// Does whatever comes next. Returns whether to stop.
    async fn step(&mut self, stop: &CancellationToken) -> bool {
        let now = Instant::now();
        self.fleet_send_due(now);
        self.send_due(now);
        self.handle_outcomes(now);
        self.publish_held(now);
        let wake = self.next_wake();
        tokio::select! {
            biased;
            () = stop.cancelled() => return true,
            Some(done) = next_fleet_call(&mut self.fleet) => self.fleet_done(done),
            Some((shard, sent, result)) = self.flights.next(), if !self.flights.is_empty() => {
                self.keeper.answered((&shard.0, shard.1), result, sent, Instant::now());
                self.table_dirty = true;
                // Answers come in bursts; taking all that are there spares a round of publishing for each.
                while let Some(Some((shard, sent, result))) = self.flights.next().now_or_never() {
                    self.keeper.answered((&shard.0, shard.1), result, sent, Instant::now());
                }
            }
            Some(command) = self.commands.recv() => self.take_command(command, Instant::now()),
            Some(done) = self.side_calls.next(), if !self.side_calls.is_empty() => self.side_done(done),
            Some(control) = self.controls.recv() => self.take_control(control),
            page = poll_page(&mut self.page), if self.page.is_some() => {
                self.page = None;
                self.page_arrived(page, Instant::now());
            }
            () = tokio::time::sleep_until(wake) => {}
        }
        let now = Instant::now();
        if self.scan.is_none() && now >= self.next_scan {
            self.begin_listing(now);
        }
        if self.plan_at().is_some_and(|at| now >= at) {
            self.next_plan = None;
            self.sync_when_fresh(now);
            self.plan(now);
        }
        false
    }

    fn next_wake(&self) -> Instant {
        let scan = self.scan.is_none().then_some(self.next_scan);
        let fleet = self.fleet.as_ref().and_then(|fleet| fleet.next_wake(Instant::now()));
        self.keeper
            .next_due()
            .into_iter()
            .chain(scan)
            .chain(fleet)
            .chain(self.plan_at())
            .min()
            .unwrap_or_else(|| Instant::now() + self.settings.lease_duration)
    }
}

async fn next_fleet_call(fleet: &mut Option<Box<Fleet>>) -> Option<FleetDone> {
    match fleet {
        Some(fleet) => fleet.calls.next().await,
        None => None,
    }
}

/// Bounds a call; without an answer by then, the call may have been applied or may still be.
async fn in_time<T>(
    store: &dyn LeaseStore,
    operation: &'static str,
    timeout: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let call = call.instrument(debug_span!("lease_table", operation));
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        let message = format!("no answer within {timeout:?}");
        Err(StoreError::new(StoreErrorKind::Unavailable, operation, store.to_string(), message))
    })
}

async fn poll_page(
    page: &mut Option<BoxFuture<'static, Result<LeasePage, StoreError>>>,
) -> Result<LeasePage, StoreError> {
    match page {
        Some(page) => page.await,
        None => std::future::pending().await,
    }
}
