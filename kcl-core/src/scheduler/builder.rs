use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpointer::CheckpointPolicy;
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind};
use crate::gate::Gate;
use crate::lease::LeaseStore;
use crate::metrics::MetricsSink;
use crate::model::{InitialPosition, WorkerId};
use crate::processor::{AlwaysRetry, ErrorPolicy, RecordProcessorFactory};
use crate::settings::Settings;
use crate::source::StreamSource;
use crate::time::{Clock, SystemClock};

use super::Scheduler;
use super::coordination::Way;
use crate::load::LoadSource;
use crate::plan::PlacementStrategy;

/// What to do when the lease table holds leases that do not belong to the stream: of another stream, of an
/// earlier stream of the same name, or with checkpoints the shards do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ForeignLeases {
    /// Refuse to start, and say what was found.
    #[default]
    Refuse,
    /// Work on the table as it is. A checkpoint its shard does not know is refused all the same.
    Adopt,
    /// Delete those leases and start over at the initial position.
    Reset,
}

/// How the workers of an application agree on who processes what. All workers must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Coordination {
    /// Our own protocol: one small write per worker every third of the lease duration renews all its leases, planned
    /// moves are hand-overs, the lease table is written only when something happens. Not beside Java workers.
    #[default]
    Fleet,
    /// The protocol of the Java KCL 2.x, beside whose workers it works: each lease is renewed by a write of its own.
    PerLease,
}

/// What to do if workers that coordinate in another way work on the lease table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Takeover {
    /// Refuse to work, with an error.
    #[default]
    Refuse,
    /// Take nothing until they are gone.
    Wait,
}

/// Whether a worker takes leases from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartMode {
    /// It does.
    #[default]
    Active,
    /// It takes nothing until [`SchedulerHandle::activate`](crate::SchedulerHandle::activate) is called.
    Standby,
}

/// Where lease writes are driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseRuntime {
    /// On an OS thread of their own, so that processors that block every thread of the runtime cannot delay
    /// renewals. The lease store's client must not share connections with the runtime: give it its own.
    #[default]
    OwnThread,
    /// On the runtime `run()` is called on. For tests under a paused clock.
    Shared,
}

/// Builds a [`Scheduler`]. Made by [`Scheduler::builder`].
pub struct SchedulerBuilder {
    pub(super) application: String,
    pub(super) worker: Option<WorkerId>,
    pub(super) source: Option<Arc<dyn StreamSource>>,
    pub(super) store: Option<Arc<dyn LeaseStore>>,
    pub(super) factory: Option<Arc<dyn RecordProcessorFactory>>,
    pub(super) error_policy: Arc<dyn ErrorPolicy>,
    pub(super) checkpoint_policy: CheckpointPolicy,
    pub(super) initial: InitialPosition,
    pub(super) foreign: ForeignLeases,
    pub(super) runtime: LeaseRuntime,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Entropy,
    pub(super) gate: Gate,
    pub(super) way: Way,
    /// What is wrong with the configuration that was given, by its keys; none if none was given.
    #[cfg(feature = "config")]
    configured: Option<Vec<(String, String)>>,
    pub(super) metrics: Vec<Arc<dyn MetricsSink>>,
    #[cfg(feature = "http")]
    pub(super) endpoint: Option<crate::http::Endpoint>,
}

impl std::fmt::Debug for SchedulerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerBuilder")
            .field("application", &self.application)
            .field("worker", &self.worker)
            .field("source", &self.source)
            .field("store", &self.store)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl SchedulerBuilder {
    pub(super) fn new(application: String) -> Self {
        Self {
            application,
            worker: None,
            source: None,
            store: None,
            factory: None,
            error_policy: Arc::new(AlwaysRetry),
            checkpoint_policy: CheckpointPolicy::default(),
            initial: InitialPosition::default(),
            foreign: ForeignLeases::default(),
            runtime: LeaseRuntime::default(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            entropy: Entropy::default(),
            gate: Gate::default(),
            way: Way {
                coordination: Coordination::default(),
                takeover: Takeover::default(),
                start: StartMode::default(),
                placement: PlacementStrategy::default(),
                load: None,
            },
            #[cfg(feature = "config")]
            configured: None,
            metrics: Vec::new(),
            #[cfg(feature = "http")]
            endpoint: None,
        }
    }

    /// Takes over everything that a configuration says, the application included. Later calls go on from there.
    ///
    /// [`build`](Self::build) then reports what is wrong with it by the names of its keys. The stream and the lease store
    /// it describes are made by `KinesisStream::configured` and `DynamoLeaseStore::configured`.
    #[cfg(feature = "config")]
    #[must_use]
    pub fn configure(mut self, configuration: &crate::config::Configuration) -> Self {
        self.application.clone_from(&configuration.application);
        self.worker = configuration.worker_id.clone().map(WorkerId::new);
        self.error_policy = Arc::new(configuration.error_policy());
        self.checkpoint_policy = configuration.checkpoint_policy();
        self.initial = configuration.initial_position;
        self.foreign = configuration.foreign_leases;
        self.way.coordination = configuration.coordination;
        self.way.takeover = configuration.takeover;
        self.way.start = configuration.start_mode;
        self.way.placement = configuration.placement_strategy();
        self.settings = configuration.settings.clone();
        // Of these build() judges what is set by then.
        let judged = |key: &str| key.starts_with("settings.") || matches!(key, "application" | "workerId");
        let problems = configuration.problems().into_iter().filter(|(key, _)| !judged(key)).collect();
        self.configured = Some(problems);
        self
    }

    /// How workers agree on who processes what. Default: [`Coordination::Fleet`].
    #[must_use]
    pub const fn coordination(mut self, coordination: Coordination) -> Self {
        self.way.coordination = coordination;
        self
    }

    /// What to do if workers that coordinate in another way work on the lease table. Default: refuse to.
    #[must_use]
    pub const fn takeover(mut self, takeover: Takeover) -> Self {
        self.way.takeover = takeover;
        self
    }

    /// Whether the worker takes leases from the start. Default: it does.
    #[must_use]
    pub const fn start_mode(mut self, start: StartMode) -> Self {
        self.way.start = start;
        self
    }

    /// By what leases are shared out in a fleet. Default: by their number.
    #[must_use]
    pub const fn placement(mut self, strategy: PlacementStrategy) -> Self {
        self.way.placement = strategy;
        self
    }

    /// What says how busy this host is, for [`PlacementStrategy::Load`]. Default: nothing.
    #[must_use]
    pub fn load_source(mut self, load: impl LoadSource) -> Self {
        self.way.load = Some(Arc::new(load));
        self
    }

    /// The stream to read. Required.
    #[must_use]
    pub fn stream(mut self, source: impl StreamSource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Where leases are kept. Required.
    #[must_use]
    pub fn lease_store(mut self, store: impl LeaseStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Makes the processors: a [`RecordProcessorFactory`] or a closure `Fn(&ShardContext) -> P`. Required.
    #[must_use]
    pub fn processor(mut self, factory: impl RecordProcessorFactory) -> Self {
        self.factory = Some(Arc::new(factory));
        self
    }

    /// This worker's id, unique among all that run. Default: a random UUID.
    ///
    /// In a fleet the id is what the ids of the worker's memberships begin with; each membership adds a UUID and the
    /// row it is in. With [`Coordination::PerLease`] a worker that is started again under its old id goes on with its
    /// leases at once.
    #[must_use]
    #[doc(alias = "workerIdentifier")]
    pub fn worker_id(mut self, worker: impl Into<WorkerId>) -> Self {
        self.worker = Some(worker.into());
        self
    }

    /// Where to start on shards the application has no checkpoint for. Default: with the oldest record.
    #[must_use]
    #[doc(alias = "initialPositionInStream")]
    pub const fn initial_position(mut self, initial: InitialPosition) -> Self {
        self.initial = initial;
        self
    }

    /// What a failed callback means. Default: the same call again, without end ([`AlwaysRetry`]).
    #[must_use]
    pub fn error_policy(mut self, policy: impl ErrorPolicy) -> Self {
        self.error_policy = Arc::new(policy);
        self
    }

    /// Who stores checkpoints, and when. Default: the processor.
    #[must_use]
    pub const fn checkpoint_policy(mut self, policy: CheckpointPolicy) -> Self {
        self.checkpoint_policy = policy;
        self
    }

    /// What to do with leases that do not belong to the stream. Default: refuse to start.
    #[must_use]
    pub const fn foreign_leases(mut self, foreign: ForeignLeases) -> Self {
        self.foreign = foreign;
        self
    }

    /// Where lease writes are driven. Default: on a thread of their own.
    #[must_use]
    pub const fn lease_runtime(mut self, runtime: LeaseRuntime) -> Self {
        self.runtime = runtime;
        self
    }

    /// Has metrics told to `sink`, too: see [`metrics`](crate::metrics). Default: nothing is measured.
    #[must_use]
    pub fn metrics(mut self, sink: impl MetricsSink) -> Self {
        self.metrics.push(Arc::new(sink));
        self
    }

    /// The numbers.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The wall clock. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The source of randomness. Default: seeded by the operating system.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// An HTTP endpoint for probes, scrapers and people. Default: none.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn endpoint(mut self, endpoint: crate::http::Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// The gate that holds this worker's tasks when told to. Default: one nobody switches. Needs
    /// [`LeaseRuntime::Shared`] to hold the lease side, too.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Checks everything and builds the scheduler. Calls nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with every problem, one to a line.
    pub fn build(self) -> Result<Scheduler, Error> {
        let mut problems: Vec<_> =
            self.settings.problems().iter().map(|(name, rule)| self.cite(name, rule)).collect();
        if self.application.trim().is_empty() {
            problems.push("the application must have a name".to_owned());
        }
        if let Some(worker) = &self.worker {
            problems.extend(worker_id_problem(worker));
        }
        #[cfg(feature = "config")]
        for (key, problem) in self.configured.iter().flatten() {
            problems.push(format!("{key} {problem}"));
        }
        #[cfg(feature = "http")]
        problems.extend(self.endpoint.as_ref().and_then(crate::http::Endpoint::problem));
        if let CheckpointPolicy::Every(interval) = self.checkpoint_policy
            && interval.is_zero()
        {
            problems.push("the checkpoint interval must be above zero".to_owned());
        }
        let worker = self.worker.clone().unwrap_or_else(|| WorkerId::new(self.entropy.uuid().to_string()));
        match (self.source.clone(), self.store.clone(), self.factory.clone()) {
            (Some(source), Some(store), Some(factory)) if problems.is_empty() => {
                Ok(Scheduler::new(self, worker, source, store, factory))
            }
            (source, store, factory) => {
                let missing = [
                    (source.is_none(), "a stream is missing: call stream()"),
                    (store.is_none(), "a lease store is missing: call lease_store()"),
                    (factory.is_none(), "a processor is missing: call processor()"),
                ];
                problems.extend(missing.iter().filter(|(is, _)| *is).map(|(_, text)| (*text).to_owned()));
                let list = problems.join("\n- ");
                Err(Error::new(ErrorKind::Config, format!("the configuration makes no sense:\n- {list}")))
            }
        }
    }

    /// A problem of a setting: by its key if it came with a configuration.
    fn cite(&self, setting: &str, rule: &str) -> String {
        #[cfg(feature = "config")]
        if self.configured.is_some() {
            return format!("{} {rule}", crate::config::setting_key(setting));
        }
        format!("{setting} {rule}")
    }
}

/// What is wrong with a worker's id, if anything is.
pub(crate) fn worker_id_problem(worker: &WorkerId) -> Option<String> {
    // Keys of other rows a lease table can hold (Java KCL 3.5, and our own fleet rows).
    let taken = ["Leader", "Migration3.0", "TableMigration3.5"];
    let text = worker.as_str();
    if text.trim().is_empty() {
        return Some("the worker id must not be empty".to_owned());
    }
    (taken.contains(&text) || text.starts_with("shardId-") || text.starts_with("kcl:fleet:"))
        .then(|| format!("the worker id {text:?} is the key of another kind of row; choose another"))
}
