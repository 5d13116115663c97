use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::Entropy;
use crate::fleet::{FleetRow, FleetRowKey};
use crate::lease::{
    Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore, PageToken, Patch,
    Prepared, StoreError, StoreErrorKind, StoreOperation, StoreUsage, Write,
};
use crate::model::ShardId;

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request takes this long to arrive, and the answer this long to come back; the call succeeds unless
    /// another rule says otherwise. Drawn evenly from the ranges.
    Delay {
        /// Time before the call is made.
        before: Range<Duration>,
        /// Time after the call was made.
        after: Range<Duration>,
    },
    /// The call fails with this kind of error and does nothing. `Throttled` says so to the caller,
    /// `Unavailable` leaves open whether it did.
    Refuse(StoreErrorKind),
    /// The call is made, then its answer is lost: an `Unavailable` error that may have applied, and has.
    LoseAnswer,
    /// The call fails at once, as [`LoseAnswer`](Self::LoseAnswer), and a write is made this much later. Other
    /// calls fail and are not made.
    LandLate {
        /// How much later; drawn evenly from the range.
        delay: Range<Duration>,
    },
    /// Nothing happens for this long, then the call fails without having been made; the caller cannot know.
    Hang(Duration),
    /// A listing or an eventually consistent read is answered as it was last answered since there is a rule of this
    /// kind, if that was not longer ago than this. Consistent reads and writes are not touched.
    Stale(Duration),
}

/// When a [`Fault`] strikes.
#[derive(Clone, Debug)]
pub struct FaultRule {
    fault: Fault,
    operations: Option<BTreeSet<StoreOperation>>,
    shards: Option<BTreeSet<ShardId>>,
    probability: f64,
    times: Option<u64>,
}

impl FaultRule {
    /// A fault that strikes every call.
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self { fault, operations: None, shards: None, probability: 1.0, times: None }
    }

    /// Only these operations.
    #[must_use]
    pub fn on(mut self, operations: impl IntoIterator<Item = StoreOperation>) -> Self {
        self.operations = Some(operations.into_iter().collect());
        self
    }

    /// Only calls about these shards; `prepare`, `list` and calls about fleet rows are about none.
    #[must_use]
    pub fn shards(mut self, shards: impl IntoIterator<Item = ShardId>) -> Self {
        self.shards = Some(shards.into_iter().collect());
        self
    }

    /// Only this share of the calls, from 0 (none) to 1 (every one, the default).
    #[must_use]
    pub const fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Only so many times.
    #[must_use]
    pub const fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn is_about(&self, operation: StoreOperation, shard: Option<&ShardId>) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&operation))
            && self.shards.as_ref().is_none_or(|shards| shard.is_some_and(|shard| shards.contains(shard)))
            && self.times != Some(0)
    }
}

/// Names a rule of a [`FaultyStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u64);

/// A lease store over another one, with faults on demand.
///
/// Rules can be added and removed at run time, and all switched off and on. Every rule that is about a call is
/// asked, in the order of addition; delays add up, and of the other faults the first that strikes decides.
/// Rules draw from one seeded source, so that the same calls in the same order meet the same faults. All
/// waiting follows tokio's clock.
///
/// A write whose request takes time is on its way once it is made: it lands though its caller has given up, was
/// stalled or has crashed meanwhile, as on a network.
///
/// # Clone
/// Clones share rules, counters and the store.
pub struct FaultyStore<S> {
    inner: Arc<S>,
    faults: Arc<Mutex<Faults>>,
    late: TaskTracker,
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), faults: Arc::clone(&self.faults), late: self.late.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: fmt::Display> fmt::Display for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[derive(Debug)]
struct Faults {
    entropy: Entropy,
    enabled: bool,
    rules: BTreeMap<FaultId, FaultRule>,
    last_id: u64,
    calls: BTreeMap<StoreOperation, u64>,
    strikes: BTreeMap<StoreOperation, u64>,
    pages: BTreeMap<Option<String>, (Instant, LeasePage)>,
    rows: BTreeMap<ShardId, (Instant, Option<Lease>)>,
    fleet_rows: BTreeMap<FleetRowKey, (Instant, Option<FleetRow>)>,
}

/// What was decided about one call.
#[derive(Debug, Default)]
struct Fate {
    before: Duration,
    after: Duration,
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    Refuse(StoreErrorKind),
    LoseAnswer,
    LandLate(Duration),
    Hang(Duration),
    Stale(Duration),
}

impl Faults {
    /// Whether an answer may be given again later.
    fn remembers(&self) -> bool {
        self.rules.values().any(|rule| matches!(rule.fault, Fault::Stale(_)))
    }

    fn decide(&mut self, operation: StoreOperation, shard: Option<&ShardId>) -> Fate {
        *self.calls.entry(operation).or_default() += 1;
        let mut fate = Fate::default();
        if !self.enabled {
            return fate;
        }
        let entropy = &self.entropy;
        for rule in self.rules.values_mut().filter(|rule| rule.is_about(operation, shard)) {
            if entropy.unit() >= rule.probability {
                continue;
            }
            let end = match &rule.fault {
                Fault::Delay { before, after } => {
                    fate.before += draw(entropy, before);
                    fate.after += draw(entropy, after);
                    None
                }
                _ if fate.end.is_some() => continue,
                Fault::Refuse(kind) => Some(End::Refuse(*kind)),
                Fault::LoseAnswer => Some(End::LoseAnswer),
                Fault::LandLate { delay } => Some(End::LandLate(draw(entropy, delay))),
                Fault::Hang(limit) => Some(End::Hang(*limit)),
                Fault::Stale(age) => Some(End::Stale(*age)),
            };
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            *self.strikes.entry(operation).or_default() += 1;
            if end.is_some() {
                fate.end = end;
            }
        }
        fate
    }
}

fn draw(entropy: &Entropy, range: &Range<Duration>) -> Duration {
    range.start + range.end.saturating_sub(range.start).mul_f64(entropy.unit())
}

impl<S: LeaseStore> FaultyStore<S> {
    /// Wraps a store; there are no faults yet. `entropy` decides which calls they strike.
    pub fn new(inner: S, entropy: Entropy) -> Self {
        let faults = Faults {
            entropy,
            enabled: true,
            rules: BTreeMap::new(),
            last_id: 0,
            calls: BTreeMap::new(),
            strikes: BTreeMap::new(),
            pages: BTreeMap::new(),
            rows: BTreeMap::new(),
            fleet_rows: BTreeMap::new(),
        };
        Self { inner: Arc::new(inner), faults: Arc::new(Mutex::new(faults)), late: TaskTracker::new() }
    }

    /// The store underneath.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Adds a rule behind those there are.
    pub fn add(&self, rule: FaultRule) -> FaultId {
        let mut faults = self.lock();
        faults.last_id += 1;
        let id = FaultId(faults.last_id);
        faults.rules.insert(id, rule);
        id
    }

    /// Removes a rule and says whether it was there.
    pub fn remove(&self, id: FaultId) -> bool {
        self.lock().rules.remove(&id).is_some()
    }

    /// Removes every rule.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// Switches all rules off or on. On at first.
    pub fn set_enabled(&self, enabled: bool) {
        self.lock().enabled = enabled;
    }

    /// How often an operation was called, struck or not.
    #[must_use]
    pub fn calls(&self, operation: StoreOperation) -> u64 {
        self.lock().calls.get(&operation).copied().unwrap_or_default()
    }

    /// How often a fault, delays included, struck an operation.
    #[must_use]
    pub fn strikes(&self, operation: StoreOperation) -> u64 {
        self.lock().strikes.get(&operation).copied().unwrap_or_default()
    }

    /// Waits until every late write has landed. Calls made meanwhile can add more.
    pub async fn settle(&self) {
        self.late.close();
        self.late.wait().await;
        self.late.reopen();
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, operation: StoreOperation, kind: StoreErrorKind, message: &str) -> StoreError {
        StoreError::new(kind, operation.name(), self.inner.to_string(), format!("injected fault: {message}"))
    }

    fn unanswered(&self, operation: StoreOperation) -> StoreError {
        self.error(operation, StoreErrorKind::Unavailable, "no answer")
    }

    /// Lets a read meet its fate. `stale` is an answer that was given before, if there is one not older than
    /// asked for.
    async fn meet<T>(
        &self,
        operation: StoreOperation,
        shard: Option<&ShardId>,
        stale: impl FnOnce(&Faults, Duration) -> Option<T> + Send,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        let Fate { before, after, end } = self.lock().decide(operation, shard);
        pause(before).await;
        let answer = match end {
            None => call.await,
            Some(End::Refuse(kind)) => Err(self.error(operation, kind, "refused")),
            Some(End::LoseAnswer) => call.await.and_then(|_| Err(self.unanswered(operation))),
            Some(End::LandLate(_)) => Err(self.unanswered(operation)),
            Some(End::Hang(limit)) => {
                sleep(limit).await;
                Err(self.unanswered(operation))
            }
            Some(End::Stale(age)) => {
                let stale = stale(&self.lock(), age);
                match stale {
                    Some(answer) => Ok(answer),
                    None => call.await,
                }
            }
        };
        pause(after).await;
        answer
    }

    async fn meet_write<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        shard: Option<&ShardId>,
        write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Fate { before, after, end } = self.lock().decide(operation, shard);
        let answer = match end {
            Some(End::Refuse(kind)) => {
                pause(before).await;
                Err(self.error(operation, kind, "refused"))
            }
            Some(End::LandLate(delay)) => {
                // Nobody is left to hear what becomes of a late write.
                drop(self.send(before + delay, write));
                pause(before).await;
                Err(self.unanswered(operation))
            }
            Some(End::Hang(limit)) => {
                pause(before + limit).await;
                Err(self.unanswered(operation))
            }
            Some(End::LoseAnswer) => {
                let sent = self.send(before, write);
                sent.await.and_then(|_| Err(self.unanswered(operation)))
            }
            None | Some(End::Stale(_)) if before.is_zero() => write.await,
            None | Some(End::Stale(_)) => self.send(before, write).await,
        };
        pause(after).await;
        answer
    }

    /// Sends a write on its way, which it goes whether or not the answer is waited for.
    fn send<T: Send + 'static>(
        &self,
        before: Duration,
        write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let (answer, answered) = oneshot::channel();
        self.late.spawn(async move {
            pause(before).await;
            // The caller may have gone.
            let _ = answer.send(write.await);
        });
        async move { answered.await.expect("the write is sent whole, and nothing aborts it") }
    }
}

/// Returns what was remembered at a time not longer ago than `age`.
fn recent<T: Clone>(remembered: Option<&(Instant, T)>, age: Duration) -> Option<T> {
    remembered.filter(|(at, _)| at.elapsed() <= age).map(|(_, answer)| answer.clone())
}

/// Waits, but does not give way if there is nothing to wait for.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LeaseStore> LeaseStore for FaultyStore<S> {
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.meet(StoreOperation::Prepare, None, |_, _| None, self.inner.prepare()).await
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        let token = page.as_ref().map(|PageToken(text)| text.clone());
        let stale = |faults: &Faults, age| match consistency {
            Consistency::Strong => None,
            Consistency::Eventual => recent(faults.pages.get(&token), age),
        };
        let call = async {
            let listed = self.inner.list(page, consistency).await?;
            let mut faults = self.lock();
            if faults.remembers() {
                faults.pages.insert(token.clone(), (Instant::now(), listed.clone()));
            }
            Ok(listed)
        };
        self.meet(StoreOperation::List, None, stale, call).await
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        let stale = |faults: &Faults, age| match consistency {
            Consistency::Strong => None,
            Consistency::Eventual => recent(faults.rows.get(shard), age),
        };
        let call = async {
            let row = self.inner.get(shard, consistency).await?;
            let mut faults = self.lock();
            if faults.remembers() {
                faults.rows.insert(shard.clone(), (Instant::now(), row.clone()));
            }
            Ok(row)
        };
        self.meet(StoreOperation::Get, Some(shard), stale, call).await
    }

    async fn create(&self, lease: &Lease) -> Result<Write, StoreError> {
        let (inner, owned) = (Arc::clone(&self.inner), lease.clone());
        let write = async move { inner.create(&owned).await };
        self.meet_write(StoreOperation::Create, Some(&lease.shard), write).await
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        let (inner, owned) = (Arc::clone(&self.inner), (shard.clone(), expect.clone(), patch.clone()));
        let write = async move { inner.update(&owned.0, &owned.1, &owned.2).await };
        self.meet_write(StoreOperation::Update, Some(shard), write).await
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        let (inner, owned) = (Arc::clone(&self.inner), (shard.clone(), expect.clone()));
        let write = async move { inner.delete(&owned.0, &owned.1).await };
        self.meet_write(StoreOperation::Delete, Some(shard), write).await
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        let stale = |faults: &Faults, age| match consistency {
            Consistency::Strong => None,
            Consistency::Eventual => recent(faults.fleet_rows.get(&row), age),
        };
        let call = async {
            let read = self.inner.fleet_row(row, consistency).await?;
            let mut faults = self.lock();
            if faults.remembers() {
                faults.fleet_rows.insert(row, (Instant::now(), read.clone()));
            }
            Ok(read)
        };
        self.meet(StoreOperation::FleetRow, None, stale, call).await
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        let (inner, change) = (Arc::clone(&self.inner), change.clone());
        let write = async move { inner.change_fleet(row, &change).await };
        self.meet_write(StoreOperation::ChangeFleet, None, write).await
    }

    fn usage(&self) -> StoreUsage {
        self.inner.usage()
    }
}
