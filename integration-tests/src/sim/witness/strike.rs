//! Blows that fall on a certain request of a certain worker to the lease table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kcl_core::ShardId;
use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{
    Change, Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore, PageToken,
    Patch, Prepared, StoreError, StoreErrorKind, StoreOperation, StoreUsage, Write,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::sim::judge::{Judge, Life};

/// How long it takes to learn that there will be no answer.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// How long an answer stays out for a caller that does not give up.
const SILENCE: Duration = Duration::from_secs(30);
/// When a late write lands that no read comes before.
const LATEST: Duration = Duration::from_secs(3);

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The worker dies before the request leaves it.
    KilledBefore,
    /// The request does what it asks for, and the worker dies before it learns of it.
    KilledAfter,
    /// The request does what it asks for; its answer is lost, and the caller is told so at once.
    AnswerLost,
    /// The request does what it asks for, and nothing is ever heard of it.
    Silence,
    /// The request gets no answer. If it writes, it lands right after the worker's next look at the same rows; until
    /// then nothing else that the worker writes there arrives, or is answered.
    Late,
}

impl Blow {
    /// Every blow.
    pub const ALL: [Self; 5] =
        [Self::KilledBefore, Self::KilledAfter, Self::AnswerLost, Self::Silence, Self::Late];

    /// Whether the worker is dead afterwards.
    #[must_use]
    pub const fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::KilledAfter)
    }
}

/// Which request is struck, counted from when this is asked for, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// How many requests are spared.
    pub after: usize,
    /// What befalls the next one.
    pub blow: Blow,
}

/// A request of a worker that somebody was to strike.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was made.
    pub at: Duration,
    /// What it asks for.
    pub operation: StoreOperation,
    /// What it was about, for people.
    pub what: String,
    /// Whether it was the one that was struck.
    pub struck: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.4} {}", self.at.as_secs_f64(), self.what)
    }
}

#[derive(Debug, Default)]
struct State {
    armed: BTreeMap<String, (Strike, usize)>,
    requests: Vec<Request>,
    /// The dead: nothing leaves them any more.
    dead: BTreeSet<Life>,
    /// Those of them that the world has yet to clear away.
    killed: Vec<Life>,
}

/// The blows of a run. Clones are the same.
#[derive(Clone, Debug)]
pub struct Strikes {
    begun: Instant,
    state: Arc<Mutex<State>>,
    fatal: Arc<Notify>,
    late: TaskTracker,
}

impl Default for Strikes {
    fn default() -> Self {
        Self { begun: Instant::now(), state: Arc::default(), fatal: Arc::default(), late: TaskTracker::new() }
    }
}

impl Strikes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Strikes a worker; its requests are counted from now on, or from its start.
    pub fn arm(&self, worker: &str, strike: Strike) {
        self.state().armed.insert(worker.to_owned(), (strike, 0));
    }

    /// The requests of those who were to be struck.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Completes when somebody has died whom [`Strikes::killed`] names.
    pub async fn fatal(&self) {
        self.fatal.notified().await;
    }

    /// Those who died since this was asked last.
    #[must_use]
    pub fn killed(&self) -> Vec<Life> {
        std::mem::take(&mut self.state().killed)
    }

    fn kill(&self, life: &Life) {
        let mut state = self.state();
        state.dead.insert(life.clone());
        state.killed.push(life.clone());
        drop(state);
        self.fatal.notify_one();
    }

    fn is_dead(&self, life: &Life) -> bool {
        self.state().dead.contains(life)
    }

    /// Whether a worker's requests are counted.
    fn counts(&self, life: &Life) -> bool {
        let state = self.state();
        state.armed.contains_key(&life.worker) || state.dead.contains(life)
    }

    fn meet(&self, life: &Life, operation: StoreOperation, what: &str) -> Option<Blow> {
        let mut state = self.state();
        let (strike, count) = state.armed.get_mut(&life.worker)?;
        let blow = (*count == strike.after).then_some(strike.blow);
        *count += 1;
        let request =
            Request { at: self.begun.elapsed(), operation, what: what.to_owned(), struck: blow.is_some() };
        state.requests.push(request);
        blow
    }
}

/// A store of one life whose requests can be struck.
#[derive(Clone, Debug)]
pub struct Struck<S> {
    inner: S,
    life: Life,
    judge: Judge,
    strikes: Strikes,
    waiting: Arc<Mutex<Waiting>>,
}

/// Late writes that wait.
#[derive(Debug, Default)]
struct Waiting {
    /// For a look at leases, and at fleet rows.
    looks: [Vec<oneshot::Sender<()>>; 2],
    /// What they are about.
    about: BTreeSet<String>,
}

impl<S: LeaseStore + Clone> Struck<S> {
    /// Over a store of one life.
    pub fn new(inner: S, life: Life, judge: Judge, strikes: Strikes) -> Self {
        Self { inner, life, judge, strikes, waiting: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, operation: StoreOperation) -> StoreError {
        let resource = self.inner.to_string();
        StoreError::new(StoreErrorKind::Unavailable, operation.name(), resource, "injected fault: no answer")
    }

    async fn die<T>(&self) -> T {
        self.strikes.kill(&self.life);
        std::future::pending().await
    }

    fn meet(&self, operation: StoreOperation, what: &str) -> Option<Blow> {
        let blow = self.strikes.meet(&self.life, operation, what)?;
        self.judge.say(format!("{} is struck at {what}: {blow:?}", self.life));
        Some(blow)
    }

    async fn request<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        (about, what): (String, String),
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.strikes.is_dead(&self.life) {
            return std::future::pending().await;
        }
        let fleet = usize::from(matches!(operation, StoreOperation::FleetRow | StoreOperation::ChangeFleet));
        let is_write = StoreOperation::WRITES.contains(&operation);
        // Dropped with the answer, which lets the late writes land.
        let _looking = if is_write { Vec::new() } else { std::mem::take(&mut self.waiting().looks[fleet]) };
        match self.meet(operation, &what) {
            None if is_write && self.waiting().about.contains(&about) => {
                sleep(ROUND_TRIP).await;
                Err(self.lost(operation))
            }
            None => {
                let answer = call.await;
                if self.strikes.is_dead(&self.life) { std::future::pending().await } else { answer }
            }
            Some(Blow::KilledBefore) => self.die().await,
            Some(Blow::KilledAfter) => {
                drop(call.await);
                self.die().await
            }
            Some(Blow::AnswerLost) => {
                drop(call.await);
                Err(self.lost(operation))
            }
            Some(Blow::Silence) => {
                drop(call.await);
                sleep(SILENCE).await;
                Err(self.lost(operation))
            }
            Some(Blow::Late) => {
                if is_write {
                    let (look, looked) = oneshot::channel();
                    let mut waiting = self.waiting();
                    waiting.looks[fleet].push(look);
                    waiting.about.insert(about.clone());
                    drop(waiting);
                    let this = self.clone();
                    self.strikes.late.spawn(async move {
                        let after = timeout(LATEST, looked).await.map_or("nothing", |_| "a look");
                        let landed = call.await.is_ok();
                        this.waiting().about.remove(&about);
                        let life = &this.life;
                        this.judge.say(format!("{life}: the late {what} arrives after {after}: {landed}"));
                    });
                }
                sleep(ROUND_TRIP).await;
                Err(self.lost(operation))
            }
        }
    }
}

impl<S: fmt::Display> fmt::Display for Struck<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What an update is for.
fn purpose(patch: &Patch) -> &'static str {
    match (&patch.owner, &patch.checkpoint) {
        (Change::Set(_), _) => "owner",
        (Change::Remove, _) => "release",
        (Change::Keep, Some(_)) => "checkpoint",
        (Change::Keep, None) => "fence",
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LeaseStore + Clone> LeaseStore for Struck<S> {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.prepare().await;
        }
        let inner = self.inner.clone();
        let call = async move { inner.prepare().await };
        self.request(StoreOperation::Prepare, (String::new(), "prepare".to_owned()), call).await
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.list(page, consistency).await;
        }
        let inner = self.inner.clone();
        let call = async move { inner.list(page, consistency).await };
        self.request(StoreOperation::List, (String::new(), "list".to_owned()), call).await
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.get(shard, consistency).await;
        }
        let (inner, key) = (self.inner.clone(), shard.clone());
        let call = async move { inner.get(&key, consistency).await };
        self.request(StoreOperation::Get, (shard.to_string(), format!("get {shard}")), call).await
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.create(lease).await;
        }
        let (inner, row) = (self.inner.clone(), lease.clone());
        let call = async move { inner.create(&row).await };
        self.request(
            StoreOperation::Create,
            (lease.shard.to_string(), format!("create {}", lease.shard)),
            call,
        )
        .await
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.update(shard, expect, patch).await;
        }
        let (inner, key, expected, patched) =
            (self.inner.clone(), shard.clone(), expect.clone(), patch.clone());
        let call = async move { inner.update(&key, &expected, &patched).await };
        self.request(
            StoreOperation::Update,
            (shard.to_string(), format!("{} of {shard}", purpose(patch))),
            call,
        )
        .await
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.delete(shard, expect).await;
        }
        let (inner, key, expected) = (self.inner.clone(), shard.clone(), expect.clone());
        let call = async move { inner.delete(&key, &expected).await };
        self.request(StoreOperation::Delete, (shard.to_string(), format!("delete {shard}")), call).await
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.fleet_row(row, consistency).await;
        }
        let inner = self.inner.clone();
        let call = async move { inner.fleet_row(row, consistency).await };
        self.request(StoreOperation::FleetRow, (row.to_string(), format!("look at {row}")), call).await
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        if !self.strikes.counts(&self.life) {
            return self.inner.change_fleet(row, change).await;
        }
        let what = match change {
            FleetChange::Create => format!("create {row}"),
            FleetChange::Join { .. } => format!("join {row}"),
            FleetChange::Beat { entry, .. } => format!("beat {} as {}", entry.heartbeat, entry.state),
            FleetChange::Remove { .. } => "remove a member".to_owned(),
            FleetChange::Rows(rows) => format!("raise rows to {rows}"),
            FleetChange::DeleteEmpty => format!("delete {row}"),
            other => format!("{other:?}"),
        };
        let (inner, owned) = (self.inner.clone(), change.clone());
        let call = async move { inner.change_fleet(row, &owned).await };
        self.request(StoreOperation::ChangeFleet, (row.to_string(), what), call).await
    }

    fn usage(&self) -> StoreUsage {
        self.inner.usage()
    }
}
