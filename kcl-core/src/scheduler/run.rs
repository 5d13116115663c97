use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use super::bill::Meter;
use super::builder::{ForeignLeases, LeaseRuntime, SchedulerBuilder};
use super::coordination::{Control, Way};
use super::handle::{Request, SchedulerHandle, SchedulerView};
use super::lineage::{Listing, StreamLineage};
use super::metered::MeteredStore;
use super::report::{ListingFailure, SchedulerPhase, ShutdownReport};
use super::reporting::Reporting;
use super::sampler::Sampler;
use super::start::Started;
use super::supervisor::{Pauses, Supervisor};
use super::trouble::Trouble;
use crate::checkpointer::CheckpointPolicy;
use crate::consumer::{ConsumerContext, WorkerBudget};
use crate::entropy::Entropy;
use crate::error::{BoxError, Chain, Error, ErrorKind};
use crate::event::EventSender;
use crate::gate::Gate;
use crate::lease::LeaseStore;
use crate::metrics::{MetricEvent, Metrics, Origin};
use crate::model::{InitialPosition, ShardId, WorkerId};
use crate::processor::{ErrorPolicy, RecordProcessorFactory};
use crate::settings::Settings;
use crate::source::StreamSource;
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
pub(super) struct Worker {
    pub(super) application: String,
    pub(super) id: WorkerId,
    pub(super) source: Arc<dyn StreamSource>,
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) factory: Arc<dyn RecordProcessorFactory>,
    pub(super) error_policy: Arc<dyn ErrorPolicy>,
    pub(super) checkpoint_policy: CheckpointPolicy,
    pub(super) initial: InitialPosition,
    pub(super) foreign: ForeignLeases,
    pub(super) runtime: LeaseRuntime,
    pub(super) settings: Arc<Settings>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Entropy,
    pub(super) events: EventSender,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) view: watch::Sender<SchedulerView>,
    pub(super) gate: Gate,
    pub(super) way: Way,
    pub(super) metrics: Metrics,
    #[cfg(feature = "http")]
    pub(super) endpoint: Option<crate::http::Endpoint>,
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
        let (view, _) = watch::channel(SchedulerView::new());
        let origin = Origin::new(builder.application.clone(), worker.clone());
        let metrics = Metrics::new(origin, builder.metrics);
        let store = MeteredStore::over(store, &metrics);
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
            gate: builder.gate,
            way: builder.way,
            metrics,
            #[cfg(feature = "http")]
            endpoint: builder.endpoint,
        };
        Self { worker, requests }
    }

    /// A handle to steer and watch this scheduler.
    #[must_use]
    pub fn handle(&self) -> SchedulerHandle {
        self.worker.handle()
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
        let span = info_span!(
            "scheduler",
            application = %worker.application,
            worker = %worker.id,
            // Known once the service has told.
            stream = tracing::field::Empty
        );
        let signal: BoxFuture<'_, ()> = Box::pin(signal);
        #[cfg(feature = "http")]
        let endpoint = span.in_scope(|| worker.open_endpoint());
        let outcome = Box::pin(worker.run(requests, signal)).instrument(span).await;
        #[cfg(feature = "http")]
        if let Some(endpoint) = endpoint {
            endpoint.close().await;
        }
        outcome
    }
}

impl Worker {
    fn handle(&self) -> SchedulerHandle {
        SchedulerHandle {
            worker: self.id.clone(),
            settings: Arc::clone(&self.settings),
            requests: self.requests.clone(),
            view: self.view.subscribe(),
            events: self.events.clone(),
        }
    }

    /// Opens the endpoint, if there is one. It outlives the shards, so that probes see them drain.
    #[cfg(feature = "http")]
    fn open_endpoint(&self) -> Option<crate::http::Open> {
        let endpoint = self.endpoint.clone()?;
        Some(crate::http::Open::new(crate::http::Site {
            endpoint,
            application: self.application.clone(),
            stream: self.source.name().to_owned(),
            handle: self.handle(),
            view: self.view.clone(),
            events: self.events.clone(),
            entropy: self.entropy.fork(),
        }))
    }

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
        let reporting = Reporting::begin(&self.metrics);
        self.source.attach_metrics(&self.metrics);
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
                self.metrics.record(&MetricEvent::Started { ok: false });
                reporting.end_soon().await;
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                return Err(error);
            }
            Some(Err(_)) => {
                self.metrics.record(&MetricEvent::Started { ok: false });
                reporting.end_soon().await;
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                let context = format!("could not start within {timeout:?}: ");
                return Err(trouble.take().unwrap_or_else(|| self.silent_start()).within(&context));
            }
        };
        self.metrics.record(&MetricEvent::Started { ok: true });
        self.supervise((started, reporting), requests, pauses, signal, stop).await
    }

    async fn supervise(
        self,
        (started, reporting): (Started, Reporting),
        mut requests: mpsc::Receiver<Request>,
        pauses: Pauses,
        mut signal: BoxFuture<'_, ()>,
        stop: CancellationToken,
    ) -> Result<ShutdownReport, Error> {
        let Started { stream, control, mut view, mut ended, listing } = started;
        tracing::Span::current().record("stream", stream.to_string());
        let (listing_sender, listing_view) = watch::channel(listing);
        let news = Arc::new(Notify::new());
        let listing_wanted = Arc::new(Notify::new());
        let lineage = StreamLineage {
            stream: stream.clone(),
            initial: self.initial,
            commands: view.commands.clone(),
            table: view.table.clone(),
            ended: Arc::clone(&view.ended),
            listing: listing_view,
            listed: Arc::clone(&news),
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
            metrics: self.metrics.clone(),
        });
        let meter = Meter::new(Arc::clone(&self.store));
        let active = pauses.active;
        let mut supervisor = Supervisor::new(context, pauses, self.gate.clone());
        self.view.send_modify(|shown| {
            shown.phase = SchedulerPhase::Running;
            shown.table = Some(view.table.clone());
            shown.meter = Some(meter.clone());
            shown.listing = Some(listing_sender.subscribe());
        });
        info!("running");

        if active {
            // A lease side that has ended takes nothing.
            let _ = control.send(Control::Activate).await;
        }
        let mut listings = Listings::new(Arc::clone(&self.source), self.settings.shard_sync_interval);
        let mut sampler = Sampler::new(self.metrics.clone(), &self.settings);
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
                () = drained(&mut shutdown) => {
                    supervisor.drain();
                    let held = Arc::clone(&view.held.borrow());
                    let _ = supervisor.reconcile(&held);
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
                    Request::Activate => {
                        // A lease side that has ended takes nothing any more.
                        let _ = control.send(Control::Activate).await;
                    }
                },
                outcome = &mut ended.ended => {
                    // Without its lease side this worker can prove nothing; better gone than silent.
                    let _ = supervisor.finish();
                    reporting.end_soon().await;
                    self.view.send_modify(|view| view.phase = SchedulerPhase::Stopped);
                    return Err(match outcome {
                        Ok(Err(error)) => error,
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
                    let _ = supervisor.reconcile(&held);
                    self.show(&supervisor);
                }
                Ok(()) = view.held.changed() => {
                    let held = Arc::clone(&view.held.borrow_and_update());
                    let _ = supervisor.reconcile(&held);
                    self.show(&supervisor);
                }
                listed = listings.next(), if shutdown.is_none() => {
                    self.show_listing(listed.as_ref().err());
                    if let Ok(listing) = listed {
                        let sync = Control::Shards { shards: Arc::clone(&listing.shards), answer: None };
                        listing_sender.send_replace(listing);
                        news.notify_waiters();
                        // A full or closed channel loses one comparison; the next one comes.
                        let _ = control.try_send(sync);
                    }
                }
                Ok(()) = view.idle.changed(), if shutdown.is_some() => {}
                () = listing_wanted.notified(), if shutdown.is_none() => listings.want(),
                Ok(()) = view.listing_wanted.changed(), if shutdown.is_none() => listings.want(),
                _ = tick.tick() => {
                    if let Some(minute) = meter.tick() {
                        self.metrics.record(&MetricEvent::TableMinute(&minute));
                    }
                    if view.table.borrow().leader {
                        listings.want_if_old();
                    }
                    let held = Arc::clone(&view.held.borrow());
                    if supervisor.reconcile(&held) {
                        self.show(&supervisor);
                    }
                }
                () = sampler.due() => sampler.sample(&supervisor.running(), &view.table.borrow()),
            }
        }

        let shutdown = shutdown.unwrap_or_else(|| Shutdown::new(Duration::ZERO));
        stop.cancel();
        // The lease side stops at its next step; by then it has no call under way.
        let _ = tokio::time::timeout_at(shutdown.deadline, &mut ended.ended).await;
        let shards = supervisor.finish();
        reporting.end(shutdown.deadline).await;
        let report = ShutdownReport { shards, took: shutdown.begun.elapsed() };
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
                let begun = Shutdown::new(deadline);
                self.view.send_modify(|view| view.phase = SchedulerPhase::Stopping);
                supervisor.stop();
                let (drain, told) = oneshot::channel();
                // Without a lease side nobody says when to drain, which is then at once.
                let _ = control.send(Control::StopTaking { deadline: begun.deadline, drain }).await;
                *shutdown = Some(Shutdown { drain: Some(told), ..begun });
            }
        }
    }

    /// Shows that the stream's shards were listed, or why they were not.
    fn show_listing(&self, error: Option<&String>) {
        self.view.send_if_modified(|view| {
            let was_failing = view.listing_failure.is_some();
            view.listing_failure = error.map(|error| {
                ListingFailure::after(view.listing_failure.as_ref(), error.clone(), Instant::now())
            });
            was_failing || error.is_some()
        });
    }

    fn show(&self, supervisor: &Supervisor) {
        self.view.send_modify(|view| view.running = supervisor.running());
    }
}

/// Waits until consumers are to be told to end, if they were not yet. Cancel-safe.
async fn drained(shutdown: &mut Option<Shutdown>) {
    let Some(told) = shutdown.as_mut().and_then(|shutdown| shutdown.drain.as_mut()) else {
        return std::future::pending().await;
    };
    // If nobody is left to say when, it is now.
    let _ = told.await;
    if let Some(shutdown) = shutdown {
        shutdown.drain = None;
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
            // What starts now is told by `Worker::start`, once it is there.
            Some(Request::Activate) => pauses.activate(),
            None => std::future::pending().await,
        }
    }
}

/// A shutdown under way.
struct Shutdown {
    begun: Instant,
    deadline: Instant,
    answers: Vec<oneshot::Sender<ShutdownReport>>,
    error: Option<(ShardId, BoxError)>,
    /// Completes when consumers are to end; gone once they were told.
    drain: Option<oneshot::Receiver<()>>,
}

impl Shutdown {
    fn new(deadline: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, deadline: begun + deadline, answers: Vec::new(), error: None, drain: None }
    }
}

/// Lists the stream's shards when it is time or when somebody asks, one call at a time.
struct Listings {
    source: Arc<dyn StreamSource>,
    interval: Duration,
    call: Option<BoxFuture<'static, Result<Listing, String>>>,
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

    /// The next listing, or why the call failed. Cancel-safe.
    async fn next(&mut self) -> Result<Listing, String> {
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
                    Ok(shards) => Ok(Listing { begun, shards: Arc::new(shards) }),
                    Err(error) => {
                        let error = Chain(&error).to_string();
                        warn!(error, "the stream's shards could not be listed");
                        Err(error)
                    }
                }
            };
            self.call = Some(call.boxed());
        }
        let listed = match &mut self.call {
            Some(call) => call.await,
            None => std::future::pending().await,
        };
        self.call = None;
        // A failed call is repeated after the spacing.
        self.wanted |= listed.is_err();
        listed
    }
}
