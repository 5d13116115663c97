use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use super::builder::{ForeignLeases, LeaseRuntime, SchedulerBuilder};
use super::coordination::{Control, Coordination, CoordinationConfig, CoordinationView, StartView};
use super::handle::{Request, SchedulerHandle, SchedulerView};
use super::lineage::{Listing, StreamLineage};
use super::report::{SchedulerPhase, ShutdownReport};
use super::supervisor::{Pauses, Supervisor};
use super::trouble::Trouble;
use crate::checkpointer::CheckpointPolicy;
use crate::consumer::{ConsumerContext, WorkerBudget};
use crate::entropy::Entropy;
use crate::error::{BoxError, Chain, Error, ErrorKind};
use crate::event::EventSender;
use crate::lease::{Lease, LeaseStore, StoreError};
use crate::model::{InitialPosition, Shard, ShardId, StreamIdentity, WorkerId};
use crate::plan::{self, Refusal};
use crate::processor::{ErrorPolicy, RecordProcessorFactory};
use crate::retry::Backoff;
use crate::settings::Settings;
use crate::source::{SourceError, StreamSource};
use crate::time::Clock;

/// How many events a listener may fall behind.
const EVENT_CAPACITY: usize = 1024;
/// How often leases held and consumers running are compared, besides whenever either changes.
const SUPERVISION_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two listings of the stream's shards (`ListShards` is limited per stream).
const LISTING_SPACING: Duration = Duration::from_secs(1);
/// What is set aside of a shutdown's deadline for ending the lease side.
const LEASE_SIDE_END: Duration = Duration::from_millis(200);

/// A worker: competes for the leases of a stream's shards and runs one processor for each it holds.
///
/// Made by [`Scheduler::builder`]. Needs a tokio runtime with time enabled.
pub struct Scheduler {
    worker: Worker,
    requests: mpsc::Receiver<Request>,
}

/// What a scheduler is made of.
struct Worker {
    application: String,
    id: WorkerId,
    source: Arc<dyn StreamSource>,
    store: Arc<dyn LeaseStore>,
    factory: Arc<dyn RecordProcessorFactory>,
    error_policy: Arc<dyn ErrorPolicy>,
    checkpoint_policy: CheckpointPolicy,
    initial: InitialPosition,
    foreign: ForeignLeases,
    runtime: LeaseRuntime,
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    events: EventSender,
    requests: mpsc::Sender<Request>,
    view: watch::Sender<SchedulerView>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("application", &self.worker.application)
            .field("worker", &self.worker.id)
            .field("source", &self.worker.source)
            .field("store", &self.worker.store)
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Starts to build a scheduler for the application of this name.
    #[must_use]
    pub fn builder(application: impl Into<String>) -> SchedulerBuilder {
        SchedulerBuilder::new(application.into())
    }

    pub(super) fn new(
        builder: SchedulerBuilder,
        worker: WorkerId,
        source: Arc<dyn StreamSource>,
        store: Arc<dyn LeaseStore>,
        factory: Arc<dyn RecordProcessorFactory>,
    ) -> Self {
        let (request_sender, requests) = mpsc::channel(16);
        let (view, _) = watch::channel(SchedulerView {
            phase: SchedulerPhase::Created,
            running: Arc::default(),
            table: None,
        });
        let worker = Worker {
            application: builder.application,
            id: worker,
            source,
            store,
            factory,
            error_policy: builder.error_policy,
            checkpoint_policy: builder.checkpoint_policy,
            initial: builder.initial,
            foreign: builder.foreign,
            runtime: builder.runtime,
            settings: Arc::new(builder.settings),
            clock: builder.clock,
            entropy: builder.entropy,
            events: EventSender::new(EVENT_CAPACITY),
            requests: request_sender,
            view,
        };
        Self { worker, requests }
    }

    /// A handle to steer and watch this scheduler.
    #[must_use]
    pub fn handle(&self) -> SchedulerHandle {
        let worker = &self.worker;
        SchedulerHandle {
            worker: worker.id.clone(),
            settings: Arc::clone(&worker.settings),
            requests: worker.requests.clone(),
            view: worker.view.subscribe(),
            events: worker.events.clone(),
        }
    }

    /// Runs until [`SchedulerHandle::shutdown`] is called.
    ///
    /// # Errors
    /// If it cannot start within [`Settings::start_timeout`] (rights, region, stream or table missing, a table it
    /// must not work on), if its first write of a lease is denied, or if an error policy asked to stop.
    ///
    /// # Cancel safety
    /// Dropping the future stops everything at once, as a crash would: leases run out by themselves.
    pub async fn run(self) -> Result<ShutdownReport, Error> {
        self.run_until(std::future::pending()).await
    }

    /// Runs until `signal` completes, then drains within [`Settings::shutdown_deadline`].
    ///
    /// # Errors
    /// As [`Scheduler::run`].
    ///
    /// # Cancel safety
    /// As [`Scheduler::run`].
    pub async fn run_until(self, signal: impl Future<Output = ()> + Send) -> Result<ShutdownReport, Error> {
        let Self { worker, requests } = self;
        let span = info_span!("scheduler", application = %worker.application, worker = %worker.id);
        let signal: BoxFuture<'_, ()> = Box::pin(signal);
        Box::pin(worker.run(requests, signal)).instrument(span).await
    }
}

impl Worker {
    async fn run(
        self,
        mut requests: mpsc::Receiver<Request>,
        mut signal: BoxFuture<'_, ()>,
    ) -> Result<ShutdownReport, Error> {
        self.view.send_modify(|view| view.phase = SchedulerPhase::Starting);
        let stop = CancellationToken::new();
        // Whatever way this future ends, also by being dropped, the lease side ends with it.
        let _stop_on_drop = stop.clone().drop_guard();
        let timeout = self.settings.start_timeout;
        let begun = Instant::now();
        let trouble = Trouble::default();
        let start = Box::pin(tokio::time::timeout(timeout, self.start(&stop, &trouble)));
        let mut pauses = Pauses::default();
        let mut pending = None;
        let started = tokio::select! {
            biased;
            () = &mut signal => None,
            request = next_shutdown(&mut requests, &mut pauses) => {
                pending = Some(request);
                None
            }
            started = start => Some(started),
        };
        let started = match started {
            None => {
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                let report = ShutdownReport { took: begun.elapsed(), ..ShutdownReport::default() };
                if let Some(answer) = pending {
                    let _ = answer.send(report.clone());
                }
                return Ok(report);
            }
            Some(Ok(Ok(started))) => started,
            Some(Ok(Err(error))) => {
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                return Err(error);
            }
            Some(Err(_)) => {
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                let context = format!("could not start within {timeout:?}: ");
                return Err(trouble.take().unwrap_or_else(|| self.silent_start()).within(&context));
            }
        };
        self.supervise(started, requests, pauses, signal, stop).await
    }

    // --- starting ----------------------------------------------------------------------------------------

    /// The error of a start in which no call was answered, not even by an error.
    fn silent_start(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "stream {} or lease table {} does not answer; check region, endpoint and network",
                self.source.name(),
                self.store
            ),
        )
    }

    async fn start(&self, stop: &CancellationToken, trouble: &Trouble) -> Result<Started, Error> {
        let stream =
            self.retry("the stream cannot be described yet", trouble, || self.source.identity()).await?;
        let (coordination, control, view) = Coordination::new(CoordinationConfig {
            store: Arc::clone(&self.store),
            me: self.id.clone(),
            settings: Arc::clone(&self.settings),
            stream: stream.clone(),
            initial: self.initial,
            clock: Arc::clone(&self.clock),
            entropy: self.entropy.fork(),
            events: self.events.clone(),
            trouble: trouble.clone(),
            stop: stop.clone(),
        });
        let (start_answer, start_view) = oneshot::channel();
        let ended = self.drive(coordination, start_answer)?;
        let lost = || Error::new(ErrorKind::Bug, "the lease side ended while starting");
        let StartView { prepared, leases } = start_view.await.map_err(|_| lost())??;
        if let Some(found) = prepared.java_leadership {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "lease table {} is led by Java KCL 3.x workers, which assign leases themselves ({found}): stop \
                     them first, or use another application name",
                    self.store
                ),
            ));
        }
        let begun = Instant::now();
        let shards = Arc::new(
            self.retry("the shards cannot be listed yet", trouble, || self.source.list_shards()).await?,
        );
        self.check_table(&shards, &leases, &stream, &control, trouble).await?;
        self.settle("leases cannot be created yet", &control, trouble, |answer| Control::Shards {
            shards: Arc::clone(&shards),
            answer: Some(answer),
        })
        .await?;
        Ok(Started { stream, control, view, ended, listing: Listing { begun, shards } })
    }

    /// Calls until it succeeds or fails for good; the caller bounds the time.
    async fn retry<T, F>(
        &self,
        waiting: &str,
        trouble: &Trouble,
        mut call: impl FnMut() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.entropy.fork());
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) if error.is_retryable() => {
                    warn!(error = %Chain(&error), "{waiting}, trying again");
                    trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the lease side do something until it succeeds or fails for good; the caller bounds the time.
    async fn settle(
        &self,
        waiting: &str,
        control: &mpsc::Sender<Control>,
        trouble: &Trouble,
        request: impl Fn(oneshot::Sender<Result<(), StoreError>>) -> Control,
    ) -> Result<(), Error> {
        let lost = || Error::new(ErrorKind::Bug, "the lease side ended while starting");
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.entropy.fork());
        loop {
            let (answer, answered) = oneshot::channel();
            control.send(request(answer)).await.map_err(|_| lost())?;
            match answered.await.map_err(|_| lost())? {
                Ok(()) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    warn!(error = %Chain(&error), "{waiting}, trying again");
                    trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts the lease side where the builder said; the returned future completes when it has ended.
    fn drive(
        &self,
        coordination: Coordination,
        started: oneshot::Sender<Result<StartView, StoreError>>,
    ) -> Result<LeaseSide, Error> {
        let (ended_sender, ended) = oneshot::channel();
        let span = tracing::Span::current();
        let drive = async move {
            let outcome = coordination.run(started).instrument(span).await;
            // Whoever waited has gone if this fails.
            let _ = ended_sender.send(outcome);
        };
        let task = match self.runtime {
            LeaseRuntime::Shared => {
                let mut task = tokio::task::JoinSet::new();
                task.spawn(drive);
                Some(task)
            }
            LeaseRuntime::OwnThread => {
                let cannot = |error| {
                    Error::new(ErrorKind::Unavailable, "the thread for leases could not be started")
                        .with_source(BoxError::from(error))
                };
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
                let run = move || {
                    runtime.block_on(drive);
                    // Connections the store's client keeps open must not hold up the end.
                    runtime.shutdown_background();
                };
                std::thread::Builder::new().name("kcl-leases".to_owned()).spawn(run).map_err(cannot)?;
                None
            }
        };
        Ok(LeaseSide { ended, _task: task })
    }

    async fn check_table(
        &self,
        shards: &[Shard],
        leases: &BTreeMap<ShardId, Lease>,
        stream: &StreamIdentity,
        control: &mpsc::Sender<Control>,
        trouble: &Trouble,
    ) -> Result<(), Error> {
        let refusals = plan::check_table(shards, leases, stream);
        if refusals.is_empty() {
            return Ok(());
        }
        match self.foreign {
            ForeignLeases::Adopt if refusals.iter().all(Refusal::yields_to_adopt) => {
                for refusal in &refusals {
                    warn!(%refusal, "adopted on request");
                }
                Ok(())
            }
            ForeignLeases::Reset => {
                let leases: Vec<Lease> =
                    refusals.iter().filter_map(|refusal| leases.get(&refusal.shard).cloned()).collect();
                warn!(leases = leases.len(), "deleting leases that do not belong to the stream, on request");
                self.settle("leases cannot be deleted yet", control, trouble, |answer| Control::Delete {
                    leases: leases.clone(),
                    answer,
                })
                .await
            }
            ForeignLeases::Refuse | ForeignLeases::Adopt => {
                const SHOWN: usize = 5;
                let mut lines: Vec<String> = refusals.iter().take(SHOWN).map(ToString::to_string).collect();
                if refusals.len() > SHOWN {
                    lines.push(format!("and {} more", refusals.len() - SHOWN));
                }
                Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "lease table {} does not fit stream {stream}:\n- {}\nchoose {}",
                        self.store,
                        lines.join("\n- "),
                        plan::choices(&refusals)
                    ),
                ))
            }
        }
    }

    // --- running -----------------------------------------------------------------------------------------

    async fn supervise(
        self,
        started: Started,
        mut requests: mpsc::Receiver<Request>,
        pauses: Pauses,
        mut signal: BoxFuture<'_, ()>,
        stop: CancellationToken,
    ) -> Result<ShutdownReport, Error> {
        let Started { stream, control, mut view, mut ended, listing } = started;
        let (listing_sender, listing_view) = watch::channel(listing);
        let listing_wanted = Arc::new(Notify::new());
        let lineage = StreamLineage {
            stream: stream.clone(),
            initial: self.initial,
            commands: view.commands.clone(),
            table: view.table.clone(),
            ended: view.ended.clone(),
            listing: listing_view,
            listing_wanted: Arc::clone(&listing_wanted),
        };
        let context = Arc::new(ConsumerContext {
            stream,
            source: Arc::clone(&self.source),
            factory: Arc::clone(&self.factory),
            error_policy: Arc::clone(&self.error_policy),
            checkpoint_policy: self.checkpoint_policy,
            settings: Arc::clone(&self.settings),
            initial_position: self.initial,
            lineage: Arc::new(lineage),
            events: self.events.clone(),
            entropy: self.entropy.fork(),
            clock: Arc::clone(&self.clock),
            budget: WorkerBudget::new(self.settings.worker_buffer_bytes),
        });
        let mut supervisor = Supervisor::new(context, pauses);
        self.view.send_modify(|shown| {
            shown.phase = SchedulerPhase::Running;
            shown.table = Some(view.table.clone());
        });
        info!("running");

        let mut listings = Listings::new(Arc::clone(&self.source), self.settings.shard_sync_interval);
        let mut tick = tokio::time::interval(SUPERVISION_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut shutdown: Option<Shutdown> = None;
        let mut signalled = false;
        loop {
            if shutdown.as_ref().is_some_and(|shutdown| {
                Instant::now() + LEASE_SIDE_END >= shutdown.deadline
                    || supervisor.is_idle() && *view.idle.borrow()
            }) {
                break;
            }
            let deadline = shutdown.as_ref().map(|shutdown| shutdown.deadline - LEASE_SIDE_END);
            tokio::select! {
                biased;
                () = sleep_until(deadline) => {}
                () = &mut signal, if !signalled => {
                    signalled = true;
                    let deadline = self.settings.shutdown_deadline;
                    self.begin_shutdown(&mut shutdown, &mut supervisor, &control, deadline).await;
                }
                Some(request) = requests.recv() => match request {
                    Request::Shutdown { deadline, answer } => {
                        self.begin_shutdown(&mut shutdown, &mut supervisor, &control, deadline).await;
                        if let Some(shutdown) = &mut shutdown {
                            shutdown.answers.push(answer);
                        }
                    }
                    Request::Pause(shard) => supervisor.pause(shard),
                    Request::Resume(shard) => supervisor.resume(shard),
                },
                outcome = &mut ended.ended => {
                    // Without its lease side this worker can prove nothing; better gone than silent.
                    let _ = supervisor.finish();
                    self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                    return Err(match outcome {
                        Ok(Err(error)) => error.into(),
                        Ok(Ok(())) | Err(_) => {
                            Error::new(ErrorKind::Bug, "the lease side ended unexpectedly (its panic is in the log)")
                        }
                    });
                }
                done = supervisor.next_done() => {
                    if let Some(error) = supervisor.take_done(done) {
                        let deadline = self.settings.shutdown_deadline;
                        self.begin_shutdown(&mut shutdown, &mut supervisor, &control, deadline).await;
                        if let Some(shutdown) = &mut shutdown {
                            shutdown.error.get_or_insert(error);
                        }
                    }
                    let held = Arc::clone(&view.held.borrow_and_update());
                    supervisor.reconcile(&held);
                    self.show(&supervisor);
                }
                Ok(()) = view.held.changed() => {
                    let held = Arc::clone(&view.held.borrow_and_update());
                    supervisor.reconcile(&held);
                    self.show(&supervisor);
                }
                listed = listings.next(), if shutdown.is_none() => {
                    if let Some(listing) = listed {
                        let sync = Control::Shards { shards: Arc::clone(&listing.shards), answer: None };
                        listing_sender.send_replace(listing);
                        // A full or closed channel loses one comparison; the next one comes.
                        let _ = control.try_send(sync);
                    }
                }
                Ok(()) = view.idle.changed(), if shutdown.is_some() => {}
                () = listing_wanted.notified(), if shutdown.is_none() => listings.want(),
                Ok(()) = view.listing_wanted.changed(), if shutdown.is_none() => listings.want(),
                _ = tick.tick() => {
                    if view.table.borrow().leader {
                        listings.want_if_old();
                    }
                    let held = Arc::clone(&view.held.borrow());
                    supervisor.reconcile(&held);
                    self.show(&supervisor);
                }
            }
        }

        let shutdown = shutdown.unwrap_or_else(|| Shutdown::new(Duration::ZERO));
        stop.cancel();
        // The lease side stops at its next step; by then it has no call under way.
        let _ = tokio::time::timeout_at(shutdown.deadline, &mut ended.ended).await;
        let report = ShutdownReport { shards: supervisor.finish(), took: shutdown.begun.elapsed() };
        info!(%report, "stopped");
        self.view.send_modify(|view| {
            view.phase = SchedulerPhase::Stopped;
            view.running = Arc::default();
        });
        for answer in shutdown.answers {
            let _ = answer.send(report.clone());
        }
        match shutdown.error {
            Some((shard, error)) => {
                let message =
                    format!("a callback of shard {shard} failed, and the error policy says to stop");
                Err(Error::new(ErrorKind::Processor, message).with_source(error))
            }
            None => Ok(report),
        }
    }

    async fn begin_shutdown(
        &self,
        shutdown: &mut Option<Shutdown>,
        supervisor: &mut Supervisor,
        control: &mpsc::Sender<Control>,
        deadline: Duration,
    ) {
        match shutdown {
            Some(shutdown) => shutdown.deadline = shutdown.deadline.min(Instant::now() + deadline),
            None => {
                info!(?deadline, "stopping");
                *shutdown = Some(Shutdown::new(deadline));
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopping);
                supervisor.drain();
                let _ = control.send(Control::StopTaking).await;
            }
        }
    }

    fn show(&self, supervisor: &Supervisor) {
        self.view.send_modify(|view| view.running = supervisor.running());
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn next_shutdown(
    requests: &mut mpsc::Receiver<Request>,
    pauses: &mut Pauses,
) -> oneshot::Sender<ShutdownReport> {
    loop {
        match requests.recv().await {
            Some(Request::Shutdown { answer, .. }) => return answer,
            Some(Request::Pause(shard)) => pauses.pause(shard),
            Some(Request::Resume(shard)) => pauses.resume(shard),
            None => std::future::pending().await,
        }
    }
}

/// What a start left running.
struct Started {
    stream: StreamIdentity,
    control: mpsc::Sender<Control>,
    view: CoordinationView,
    ended: LeaseSide,
    listing: Listing,
}

/// The running lease side.
struct LeaseSide {
    ended: oneshot::Receiver<Result<(), Arc<StoreError>>>,
    /// Owns the task where it is one.
    _task: Option<tokio::task::JoinSet<()>>,
}

/// A shutdown under way.
struct Shutdown {
    begun: Instant,
    deadline: Instant,
    answers: Vec<oneshot::Sender<ShutdownReport>>,
    error: Option<(ShardId, BoxError)>,
}

impl Shutdown {
    fn new(deadline: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, deadline: begun + deadline, answers: Vec::new(), error: None }
    }
}

/// Lists the stream's shards when it is time or when somebody asks, one call at a time.
struct Listings {
    source: Arc<dyn StreamSource>,
    interval: Duration,
    call: Option<BoxFuture<'static, Option<Listing>>>,
    last_begun: Instant,
    wanted: bool,
}

impl Listings {
    fn new(source: Arc<dyn StreamSource>, interval: Duration) -> Self {
        Self { source, interval, call: None, last_begun: Instant::now(), wanted: false }
    }

    fn want(&mut self) {
        self.wanted = true;
    }

    fn want_if_old(&mut self) {
        if self.last_begun.elapsed() >= self.interval {
            self.wanted = true;
        }
    }

    /// The next listing, or nothing if the call failed. Cancel-safe.
    async fn next(&mut self) -> Option<Listing> {
        if self.call.is_none() {
            if !self.wanted {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(self.last_begun + LISTING_SPACING).await;
            self.wanted = false;
            let begun = Instant::now();
            self.last_begun = begun;
            let source = Arc::clone(&self.source);
            let call = async move {
                match source.list_shards().await {
                    Ok(shards) => Some(Listing { begun, shards: Arc::new(shards) }),
                    Err(error) => {
                        warn!(error = %Chain(&error), "the stream's shards could not be listed");
                        None
                    }
                }
            };
            self.call = Some(call.boxed());
        }
        let listed = match &mut self.call {
            Some(call) => call.await,
            None => None,
        };
        self.call = None;
        // A failed call is repeated after the spacing.
        self.wanted |= listed.is_none();
        listed
    }
}
