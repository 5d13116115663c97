//! A whole fleet in one process: real schedulers on one runtime, over the model of Kinesis.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kcl_local::kinesis::{Kinesis, NewRecord, ShardFilter};
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::{FaultyStore, Gate, MemoryStream, Mishap, Part};
use crate::entropy::Entropy;
use crate::error::{BoxError, Error};
use crate::lease::{Consistency, Lease, LeaseStore, PageToken};
use crate::model::{ShardId, WorkerId};
use crate::scheduler::{LeaseRuntime, Scheduler, SchedulerBuilder, SchedulerHandle, ShutdownReport};
use crate::source::StreamSource;
use crate::time::TokioClock;

mod error;
mod trace;

pub use error::WorldError;
pub use trace::Trace;

/// The stream of a [`World`].
pub const STREAM: &str = "stream";
/// When a world begins, in seconds since the Unix epoch.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How often a world that runs looks whether what it waits for has come.
const LOOK: Duration = Duration::from_millis(50);
/// How long a deployment gives a worker to stop.
const DEPLOY_DEADLINE: Duration = Duration::from_secs(30);
/// How much longer than its deadline a worker is waited for before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// The lease store of a worker: the world's, with what befalls this worker's calls.
pub type WorldStore = FaultyStore<Arc<dyn LeaseStore>>;

/// Puts to a stream that is not the world's own, and reshards it.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Puts a record.
    ///
    /// # Errors
    /// If the stream does not take it.
    async fn put(&self, key: &str, data: Bytes) -> Result<(), BoxError>;

    /// Asks for `shards` shards. That they are there already when this returns is not expected.
    ///
    /// # Errors
    /// If the stream refuses it.
    async fn reshard(&self, shards: u32) -> Result<(), BoxError>;
}

fn not_ours(what: &str, needed: &'static str) -> WorldError {
    WorldError::NotOurStream { what: what.to_owned(), needed }
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
/// # use std::time::Duration;
/// # use kcl_core::testing::{Recorder, World, WorldError};
/// # use kcl_core::SchedulerBuilder;
/// # async fn example(store: impl kcl_core::lease::LeaseStore) -> Result<(), WorldError> {
/// let processors = Recorder::new();
/// let app = processors.clone();
/// let mut world = World::new(7, 4, store, move |_, worker: SchedulerBuilder| worker.processor(app.clone()))?;
/// world.start("alpha")?;
/// world.start("beta")?;
/// world.put("key", "payload").await?;
/// world.crash("alpha")?;
/// world.run_until(Duration::from_secs(30), "beta has all", |world| world.owned("beta") == 4).await?;
/// # Ok(())
/// # }
/// ```
pub struct World {
    entropy: Entropy,
    store: Arc<dyn LeaseStore>,
    stream: Stream,
    upstream: Option<Box<dyn Upstream>>,
    clock: TokioClock,
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
    /// added; id, stream, lease store, clock, randomness and runtime are there. The wall clock follows tokio's, from
    /// a fixed time in 2023 on.
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
    /// Of the mishaps those of the lease table can befall it. [`World::put`] and [`World::reshard`] need
    /// [`World::with_upstream`]. Everything works in real time as well, which takes as long as it says; then give
    /// the workers the system's clock: `worker.clock(SystemClock)`.
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
            upstream: None,
            clock: TokioClock::new(SystemTime::UNIX_EPOCH + EPOCH),
            application: Box::new(application),
            trace: Trace::new(),
            members: BTreeMap::new(),
            runs: JoinSet::new(),
            listeners: JoinSet::new(),
            started: 0,
            incarnations: BTreeMap::new(),
        }
    }

    /// Says how a stream of one's own is put to and resharded.
    #[must_use]
    pub fn with_upstream(mut self, upstream: impl Upstream) -> Self {
        self.upstream = Some(Box::new(upstream));
        self
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
        let mut builder = Scheduler::builder("app")
            .worker_id(name)
            .lease_store(store.clone())
            .lease_runtime(LeaseRuntime::Shared)
            .clock(self.clock)
            .entropy(self.entropy.fork())
            .gate(gate.clone());
        let mut stream = None;
        match &self.stream {
            Stream::Model(kinesis) => {
                let model = MemoryStream::new(kinesis.clone(), STREAM)
                    .with_entropy(self.entropy.fork())
                    .skipping_idle_polls();
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

    /// What ends a worker without warning, also when [`World::leave`] has forgotten it.
    ///
    /// # Errors
    /// If no worker of this name runs.
    pub fn killer(&self, name: &str) -> Result<AbortHandle, WorldError> {
        Ok(self.member(name)?.run.clone())
    }

    /// Stops a worker in order, as SIGTERM would, and kills it if it does not.
    ///
    /// # Errors
    /// If no worker of this name runs, or it does not stop by the deadline: because it is stalled, for example.
    pub async fn stop(&mut self, name: &str, deadline: Duration) -> Result<ShutdownReport, WorldError> {
        let member = self.member(name)?;
        let (run, gate) = (member.run.clone(), member.gate.clone());
        let stopping = self.leave(name, deadline)?;
        match timeout(deadline.saturating_add(GRACE), stopping).await {
            Ok(report) => Ok(report),
            Err(_) => {
                self.trace.note(format_args!("{name} does not stop and is killed"));
                run.abort();
                Err(WorldError::DidNotStop { name: name.to_owned(), deadline, held: gate.holds_any() })
            }
        }
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
    /// named as the old one with a number behind it. Old ones that are stalled are killed after 30 seconds.
    ///
    /// # Errors
    /// As [`World::start`] and, for workers that are not stalled, as [`World::stop`].
    pub async fn deploy(&mut self) -> Result<(), WorldError> {
        for old in self.workers() {
            let base = old.split('#').next().unwrap_or(&old);
            let new = format!("{base}#{}", self.started + 1);
            self.start(&new)?;
            self.handle(&new)?.ready().await;
            match self.stop(&old, DEPLOY_DEADLINE).await {
                Ok(_) | Err(WorldError::DidNotStop { held: true, .. }) => {}
                Err(error) => return Err(error),
            }
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
        let gate = &self.member(name)?.gate;
        self.trace.note(format_args!("{name}: {part} is frozen"));
        gate.freeze(part);
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
    /// If no worker of this name runs, or it is a mishap of the stream and the stream is not the world's own.
    pub fn befall(&self, name: &str, mishap: Mishap, share: f64) -> Result<(), WorldError> {
        let member = self.member(name)?;
        match (&member.stream, mishap.lease_rule(share)) {
            (_, Some(rule)) => drop(member.store.add(rule)),
            (Some(stream), None) => mishap.befall(&member.store, stream, share),
            (None, None) => return Err(not_ours(mishap.name(), "World::new")),
        }
        self.trace.note(format_args!("{name} suffers {mishap} with {share}"));
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

    /// Puts a record.
    ///
    /// # Errors
    /// If the stream does not take it, or is one's own without [`World::with_upstream`].
    pub async fn put(&self, key: &str, data: impl Into<Bytes>) -> Result<(), WorldError> {
        let put = match (&self.upstream, &self.stream) {
            (Some(upstream), _) => upstream.put(key, data.into()).await,
            (None, Stream::Model(kinesis)) => {
                kinesis.put_record(STREAM, NewRecord::new(key, data)).map(drop).map_err(BoxError::from)
            }
            (None, Stream::Given(_)) => return Err(not_ours("put", "World::with_upstream")),
        };
        put.map_err(WorldError::Stream)
    }

    /// Splits and merges shards until there are `shards`, at most twice and at least half of what there is.
    ///
    /// # Errors
    /// If the stream refuses it, or is one's own without [`World::with_upstream`].
    pub async fn reshard(&self, shards: u32) -> Result<(), WorldError> {
        let update = match (&self.upstream, &self.stream) {
            (Some(upstream), _) => upstream.reshard(shards).await,
            (None, Stream::Model(kinesis)) => {
                kinesis.update_shard_count(STREAM, shards).map(drop).map_err(BoxError::from)
            }
            (None, Stream::Given(_)) => return Err(not_ours("reshard", "World::with_upstream")),
        };
        update.map_err(WorldError::Stream)?;
        self.trace.note(format_args!("the stream is to have {shards} shards"));
        Ok(())
    }

    /// The ids of the open shards of the world's own stream, in order.
    ///
    /// # Errors
    /// If the stream is one's own.
    pub fn open_shards(&self) -> Result<Vec<ShardId>, WorldError> {
        let kinesis = self.kinesis().ok_or_else(|| not_ours("open_shards", "World::new"))?;
        let shards = kinesis.shards(STREAM, ShardFilter::AtLatest);
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

    /// How many shards all workers process right now, together.
    #[must_use]
    pub fn owned_in_all(&self) -> usize {
        self.members.keys().map(|name| self.owned(name)).sum()
    }

    /// The lease table.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn leases(&self) -> Result<BTreeMap<ShardId, Lease>, crate::lease::StoreError> {
        let (mut leases, mut token) = (BTreeMap::new(), None::<PageToken>);
        loop {
            let page = self.store.list(token, Consistency::Eventual).await?;
            leases.extend(
                page.leases.into_iter().map(|lease| (lease.shard.clone(), Arc::unwrap_or_clone(lease))),
            );
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
