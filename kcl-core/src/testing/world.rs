//! A whole fleet in one process: real schedulers on one runtime, over the model of Kinesis.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kcl_local::kinesis::{Kinesis, NewRecord, ShardFilter};
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::{FaultyStore, Gate, MemoryStream, Mishap, Part};
use crate::entropy::Entropy;
use crate::error::{BoxError, Error};
use crate::lease::{Lease, LeaseStore, PageToken};
use crate::model::{ShardId, WorkerId};
use crate::scheduler::{LeaseRuntime, Scheduler, SchedulerBuilder, SchedulerHandle, ShutdownReport};
use crate::source::StreamSource;
use crate::time::TokioClock;

/// The stream of a [`World`].
pub const STREAM: &str = "stream";
/// When a world begins, in seconds since the Unix epoch.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How often a world that runs looks whether what it waits for has come.
const LOOK: Duration = Duration::from_millis(50);

/// The lease store of a worker: the world's, with what befalls this worker's calls.
pub type WorldStore = FaultyStore<Arc<dyn LeaseStore>>;

/// What is wrong with what was asked of a world.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// There cannot be a stream without shards.
    #[error("a world needs a stream of at least one shard")]
    NoShards,
    /// No worker of this name runs.
    #[error("no worker {name:?} runs; running: {running:?}")]
    NoSuchWorker {
        /// The name asked for.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// A worker of this name runs already.
    #[error("worker {0:?} runs already; stop or crash it first, or choose another name")]
    AlreadyRuns(String),
    /// The application's builder was refused.
    #[error("the application cannot be built")]
    Application(#[source] Error),
    /// The model of Kinesis refused a call.
    #[error("the stream refused the call")]
    Stream(#[source] BoxError),
    /// A worker ended by itself.
    #[error("worker {name} ended by itself")]
    WorkerEnded {
        /// The worker.
        name: String,
        /// Why.
        #[source]
        error: Error,
    },
    /// What was waited for did not come.
    #[error("not within {limit:?}: {what}\n{state}")]
    Late {
        /// How long it was waited for.
        limit: Duration,
        /// What was waited for.
        what: String,
        /// Leases, workers and their shards.
        state: String,
    },
}

/// What happened in a world, a line for each event, with virtual time: the same for the same seed.
#[derive(Clone, Debug)]
pub struct Trace {
    begun: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    fn new() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    /// Adds a line.
    pub fn note(&self, line: impl fmt::Display) {
        let at = self.begun.elapsed().as_secs_f64();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:>10.3} {line}"));
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A worker that runs.
#[derive(Debug)]
struct Member {
    handle: SchedulerHandle,
    gate: Gate,
    store: WorldStore,
    stream: Option<MemoryStream>,
    run: AbortHandle,
    /// Ends with the worker's last event.
    _listener: AbortHandle,
}

/// The application under test: what each worker is built with, but for what the world gives it.
type Application = Box<dyn Fn(&str, SchedulerBuilder) -> SchedulerBuilder>;

/// N real workers of one application in one process, that start, crash, stall, stop and are deployed on request.
///
/// Needs a current-thread runtime with a paused clock (`#[tokio::test(start_paused = true)]`), on which hours take
/// milliseconds and the same seed gives the same [`Trace`]. Nothing touches the network. Dropping a world crashes
/// what runs.
///
/// ```
/// # use kcl_core::testing::{Recorder, World, WorldError};
/// # use kcl_core::SchedulerBuilder;
/// # async fn example(store: impl kcl_core::lease::LeaseStore) -> Result<(), WorldError> {
/// let processors = Recorder::new();
/// let app = processors.clone();
/// let mut world = World::new(7, 4, store, move |_, worker: SchedulerBuilder| worker.processor(app.clone()))?;
/// world.start("alpha")?;
/// world.start("beta")?;
/// world.put("key", "payload")?;
/// world.crash("alpha")?;
/// let ten = std::time::Duration::from_secs(30);
/// world.run_until(ten, "beta has all", |world| world.owned("beta") == 4).await?;
/// # Ok(())
/// # }
/// ```
pub struct World {
    entropy: Entropy,
    store: Arc<dyn LeaseStore>,
    stream: Stream,
    application: Application,
    trace: Trace,
    members: BTreeMap<String, Member>,
    runs: JoinSet<(String, u64, Result<ShutdownReport, Error>)>,
    listeners: JoinSet<()>,
    started: u64,
    incarnations: BTreeMap<String, u64>,
}

enum Stream {
    Model(Kinesis),
    Given(Arc<dyn Fn() -> Arc<dyn StreamSource>>),
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("members", &self.members).finish_non_exhaustive()
    }
}

impl World {
    /// A stream of `shards` shards, and no worker yet.
    ///
    /// `application` gets each worker's name and a builder to which processor, settings and policies are to be
    /// added; id, stream, lease store, clock, randomness and runtime are there.
    ///
    /// # Errors
    /// If there are no shards, or more than the model takes.
    pub fn new(
        seed: u64,
        shards: u32,
        store: impl LeaseStore,
        application: impl Fn(&str, SchedulerBuilder) -> SchedulerBuilder + 'static,
    ) -> Result<Self, WorldError> {
        if shards == 0 {
            return Err(WorldError::NoShards);
        }
        let clock = kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + EPOCH);
        let kinesis = Kinesis::new(Arc::new(clock));
        kinesis.create_stream(STREAM, shards).map_err(|error| WorldError::Stream(error.into()))?;
        Ok(Self::of(seed, Stream::Model(kinesis), store, application))
    }

    /// A world over a stream of one's own, for example a real one; `source` is called for each worker.
    ///
    /// Mishaps then befall the lease store only, and putting and resharding are the caller's.
    pub fn over<S: StreamSource>(
        seed: u64,
        source: impl Fn() -> S + 'static,
        store: impl LeaseStore,
        application: impl Fn(&str, SchedulerBuilder) -> SchedulerBuilder + 'static,
    ) -> Self {
        let source = Stream::Given(Arc::new(move || Arc::new(source())));
        Self::of(seed, source, store, application)
    }

    fn of(
        seed: u64,
        stream: Stream,
        store: impl LeaseStore,
        application: impl Fn(&str, SchedulerBuilder) -> SchedulerBuilder + 'static,
    ) -> Self {
        Self {
            entropy: Entropy::seeded(seed),
            store: Arc::new(store),
            stream,
            application: Box::new(application),
            trace: Trace::new(),
            members: BTreeMap::new(),
            runs: JoinSet::new(),
            listeners: JoinSet::new(),
            started: 0,
            incarnations: BTreeMap::new(),
        }
    }

    /// Starts a worker under this name, which is its worker id.
    ///
    /// # Errors
    /// If one of this name runs, or the application's builder is refused.
    pub fn start(&mut self, name: &str) -> Result<(), WorldError> {
        if self.members.contains_key(name) {
            return Err(WorldError::AlreadyRuns(name.to_owned()));
        }
        let gate = Gate::new();
        let store = FaultyStore::new(Arc::clone(&self.store), self.entropy.fork());
        let now = match &self.stream {
            Stream::Model(kinesis) => kinesis.clock().now(),
            Stream::Given(_) => SystemTime::UNIX_EPOCH + EPOCH,
        };
        let mut builder = Scheduler::builder("app")
            .worker_id(name)
            .lease_store(store.clone())
            .lease_runtime(LeaseRuntime::Shared)
            .clock(TokioClock::new(now))
            .entropy(self.entropy.fork())
            .gate(gate.clone());
        let mut stream = None;
        match &self.stream {
            Stream::Model(kinesis) => {
                let model = MemoryStream::new(kinesis.clone(), STREAM).with_entropy(self.entropy.fork());
                builder = builder.stream(model.clone());
                stream = Some(model);
            }
            Stream::Given(source) => builder = builder.stream(source()),
        }
        let scheduler = (self.application)(name, builder).build().map_err(WorldError::Application)?;
        let handle = scheduler.handle();
        let listener = self.listen(name, handle.events());
        self.started += 1;
        let (id, task_name) = (self.started, name.to_owned());
        let run = gate.guard(Part::Supervisor, scheduler.run());
        let run = self.runs.spawn(async move { (task_name, id, run.await) });
        self.trace.note(format_args!("{name} starts"));
        self.incarnations.insert(name.to_owned(), id);
        let member = Member { handle, gate, store, stream, run, _listener: listener };
        self.members.insert(name.to_owned(), member);
        Ok(())
    }

    fn listen(&mut self, name: &str, mut events: broadcast::Receiver<crate::Event>) -> AbortHandle {
        let (name, trace) = (name.to_owned(), self.trace.clone());
        self.listeners.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => trace.note(format_args!("{name} {event:?}")),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        trace.note(format_args!("{name} {missed} events were missed"));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        })
    }

    /// Ends a worker without warning: nothing is stored, nothing is released.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn crash(&mut self, name: &str) -> Result<(), WorldError> {
        let member = self.take(name)?;
        self.trace.note(format_args!("{name} crashes"));
        member.run.abort();
        Ok(())
    }

    /// Stops a worker in order, as SIGTERM would.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub async fn stop(&mut self, name: &str, deadline: Duration) -> Result<ShutdownReport, WorldError> {
        Ok(self.leave(name, deadline)?.await)
    }

    /// Begins to stop a worker in order, and forgets it; the future says what came of it.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn leave(
        &mut self,
        name: &str,
        deadline: Duration,
    ) -> Result<impl Future<Output = ShutdownReport> + Send + use<>, WorldError> {
        let Member { handle, .. } = self.take(name)?;
        let (trace, name) = (self.trace.clone(), name.to_owned());
        trace.note(format_args!("{name} is to stop within {deadline:?}"));
        Ok(async move {
            let report = handle.shutdown(deadline).await;
            trace.note(format_args!("{name} stopped: {report}"));
            report
        })
    }

    /// Replaces every worker, one after the other: the new one runs before the old one is stopped. The new one is
    /// named as the old one with a number behind it.
    ///
    /// # Errors
    /// As [`World::start`].
    pub async fn deploy(&mut self) -> Result<(), WorldError> {
        for old in self.workers() {
            let base = old.split('#').next().unwrap_or(&old);
            let new = format!("{base}#{}", self.started + 1);
            self.start(&new)?;
            self.handle(&new)?.ready().await;
            self.stop(&old, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Holds every task of a worker, until [`World::wake`]: a process that is suspended or starved.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn stall(&self, name: &str) -> Result<(), WorldError> {
        self.member(name)?.gate.stall();
        self.trace.note(format_args!("{name} is stalled"));
        Ok(())
    }

    /// Holds one task of a worker, until [`World::wake`]: a lost wake-up, a call without end.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn freeze(&self, name: &str, part: Part) -> Result<(), WorldError> {
        self.trace.note(format_args!("{name}: {part} is frozen"));
        self.member(name)?.gate.freeze(part);
        Ok(())
    }

    /// Lets every task of a worker go on.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn wake(&self, name: &str) -> Result<(), WorldError> {
        self.member(name)?.gate.resume();
        self.trace.note(format_args!("{name} wakes"));
        Ok(())
    }

    /// Whether some task of a worker is held.
    #[must_use]
    pub fn is_held(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|member| member.gate.holds_any())
    }

    /// Lets a mishap befall a share of a worker's calls, 0.0 to 1.0, from now on.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn befall(&self, name: &str, mishap: Mishap, share: f64) -> Result<(), WorldError> {
        let member = self.member(name)?;
        self.trace.note(format_args!("{name} suffers {mishap} with {share}"));
        let nowhere = || MemoryStream::new(Kinesis::new(Arc::new(kcl_local::clock::SystemClock)), STREAM);
        let stream = member.stream.clone().unwrap_or_else(nowhere);
        mishap.befall(&member.store, &stream, share);
        Ok(())
    }

    /// Ends every mishap of a worker.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn calm(&self, name: &str) -> Result<(), WorldError> {
        let member = self.member(name)?;
        member.store.clear();
        if let Some(stream) = &member.stream {
            stream.calm();
        }
        self.trace.note(format_args!("{name} suffers nothing more"));
        Ok(())
    }

    /// The model, to put to, reshard and break; its stream is [`STREAM`]. None over a stream of one's own.
    #[must_use]
    pub const fn kinesis(&self) -> Option<&Kinesis> {
        match &self.stream {
            Stream::Model(kinesis) => Some(kinesis),
            Stream::Given(_) => None,
        }
    }

    fn model(&self) -> Result<&Kinesis, WorldError> {
        self.kinesis().ok_or_else(|| WorldError::Stream("the stream is not the world's own".into()))
    }

    /// Puts a record.
    ///
    /// # Errors
    /// If the model refuses it.
    pub fn put(&self, key: &str, data: impl Into<Bytes>) -> Result<(), WorldError> {
        let put = self.model()?.put_record(STREAM, NewRecord::new(key, data));
        put.map(drop).map_err(|error| WorldError::Stream(error.into()))
    }

    /// Splits and merges shards until there are `shards`, at most twice and at least half of what there is.
    ///
    /// # Errors
    /// If the model refuses it.
    pub fn reshard(&self, shards: u32) -> Result<(), WorldError> {
        self.trace.note(format_args!("the stream is to have {shards} shards"));
        let update = self.model()?.update_shard_count(STREAM, shards);
        update.map(drop).map_err(|error| WorldError::Stream(error.into()))
    }

    /// The ids of the open shards, in order.
    ///
    /// # Errors
    /// If the model refuses the call.
    pub fn open_shards(&self) -> Result<Vec<ShardId>, WorldError> {
        let shards = self.model()?.shards(STREAM, ShardFilter::AtLatest);
        let shards = shards.map_err(|error| WorldError::Stream(error.into()))?;
        Ok(shards.into_iter().map(|shard| ShardId::new(shard.shard_id)).collect())
    }

    /// The names of the workers that run.
    #[must_use]
    pub fn workers(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Steers and watches a worker.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn handle(&self, name: &str) -> Result<SchedulerHandle, WorldError> {
        Ok(self.member(name)?.handle.clone())
    }

    /// How many shards a worker processes right now; none if it does not run.
    #[must_use]
    pub fn owned(&self, name: &str) -> usize {
        self.members.get(name).map_or(0, |member| member.handle.snapshot().shards.len())
    }

    /// The lease table.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn leases(&self) -> Result<BTreeMap<ShardId, Lease>, crate::lease::StoreError> {
        let (mut leases, mut token) = (BTreeMap::new(), None::<PageToken>);
        loop {
            let page = self.store.list(token).await?;
            leases.extend(page.leases.into_iter().map(|lease| (lease.shard.clone(), lease)));
            token = page.next;
            if token.is_none() {
                return Ok(leases);
            }
        }
    }

    /// How many unfinished leases each worker owns, as the table says.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn owners(&self) -> Result<BTreeMap<WorkerId, usize>, crate::lease::StoreError> {
        let mut owners = BTreeMap::new();
        for lease in self.leases().await?.into_values().filter(|lease| !lease.is_ended()) {
            if let Some(owner) = lease.owner {
                *owners.entry(owner).or_default() += 1;
            }
        }
        Ok(owners)
    }

    /// What happened so far. Lines can be added.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// If a worker ended by itself.
    pub async fn run_for(&mut self, time: Duration) -> Result<(), WorldError> {
        sleep(time).await;
        self.check()
    }

    /// Lets time pass until `done`; returns how much did.
    ///
    /// # Errors
    /// If it does not come within `limit`, or a worker ended by itself.
    pub async fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<Duration, WorldError> {
        let begun = Instant::now();
        while !done(self) {
            if begun.elapsed() >= limit {
                let state = self.state().await;
                return Err(WorldError::Late { limit, what: what.to_owned(), state });
            }
            self.run_for(LOOK).await?;
        }
        Ok(begun.elapsed())
    }

    /// Looks whether every worker still runs; one that does not is none of this world's any more.
    ///
    /// # Errors
    /// If a worker ended by itself.
    pub fn check(&mut self) -> Result<(), WorldError> {
        while let Some(run) = self.runs.try_join_next() {
            // A worker that was crashed does not join; one that was stopped is no member any more.
            if let Ok((name, id, Err(error))) = run
                && self.incarnations.get(&name) == Some(&id)
                && self.members.remove(&name).is_some()
            {
                self.trace.note(format_args!("{name} ended: {error}"));
                return Err(WorldError::WorkerEnded { name, error });
            }
        }
        Ok(())
    }

    /// Leases, workers and the stages of their shards, for people.
    pub async fn state(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        match self.leases().await {
            Ok(leases) => {
                for lease in leases.values() {
                    let owner = lease.owner.as_ref().map_or("nobody", WorkerId::as_str);
                    let _ = writeln!(
                        text,
                        "{}: owner {owner}, counter {}, checkpoint {}",
                        lease.shard, lease.counter, lease.checkpoint
                    );
                }
            }
            Err(error) => text.push_str(&format!("the lease table cannot be listed: {error}\n")),
        }
        for (name, member) in &self.members {
            let snapshot = member.handle.snapshot();
            let held = if member.gate.holds_any() { ", held" } else { "" };
            let _ = writeln!(text, "{name}: {:?}{held}", snapshot.phase);
            for (shard, state) in snapshot.shards {
                let report = &state.report;
                let _ = write!(
                    text,
                    "  {shard}: {:?} for {:?}, lease good for {:?}",
                    report.stage,
                    report.since.elapsed(),
                    state.valid_for
                );
                if let Some(error) = &report.last_error {
                    let _ = write!(text, ", failed {} times: {error}", report.failures);
                }
                text.push('\n');
            }
        }
        text
    }

    fn member(&self, name: &str) -> Result<&Member, WorldError> {
        self.members.get(name).ok_or_else(|| self.no_such_worker(name))
    }

    fn take(&mut self, name: &str) -> Result<Member, WorldError> {
        match self.members.remove(name) {
            Some(member) => Ok(member),
            None => Err(self.no_such_worker(name)),
        }
    }

    fn no_such_worker(&self, name: &str) -> WorldError {
        WorldError::NoSuchWorker { name: name.to_owned(), running: self.workers() }
    }
}
