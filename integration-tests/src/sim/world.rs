//! The world of one run: a fleet of real schedulers, what happens to it, and what must be true in the end.

mod application;
mod steps;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use kcl_core::lease::LeaseStore;
use kcl_core::testing::{STREAM, World as Fleet, WorldError};
use kcl_core::{Entropy, ErrorKind, InitialPosition, ShardOutcome, ShutdownReport};
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::kinesis::{Kinesis, ShardFilter};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::application::Application;
use super::history::History;
use super::judge::{Breach, Judge, Life, Promise, Terms};
use super::plan::{Plan, PlanError, Step, Wire, Wishes};
use super::scenario::Scenario;
use super::seat::{Cloud, Seat};
use super::seed::Seed;
use super::witness::{Manners, Request, Strikes};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// When worlds begin, since the Unix epoch.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How often the world is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long workers may take to stop.
const DEADLINE: Duration = Duration::from_secs(30);

/// Something on the agenda.
#[derive(Debug)]
enum Act {
    /// A step of the plan.
    Step(Step),
    /// Everything of a worker goes on, if it still lives this life.
    Wake(Life),
    /// A worker is cut off from the lease table, if it still lives this life.
    Cut(Life),
    /// Nothing befalls a worker any more, if it still lives this life.
    Calm(Life),
    /// A pause of a worker is over.
    Resume(Life),
    /// A worker stops, if it still lives this life.
    Leave(Life),
    /// A worker of this name starts.
    Start(String),
}

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// What the run was like.
    pub plan: Plan,
    /// The promise that was broken, if any.
    pub breach: Option<Breach>,
    /// What happened.
    pub history: History,
    /// How many records were put, and how many deliveries there were.
    pub records: (u64, u64),
    /// How much virtual time passed.
    pub took: Duration,
    /// Leases, workers and the stages of their shards at the end.
    pub state: String,
    /// The requests to the lease table of those who were to be struck, since then.
    pub requests: Vec<Request>,
}

/// A worker's shutdown that is over.
type Left = (Life, Duration, ShutdownReport);

/// A fleet under test. Needs a current-thread runtime with a paused clock; see [`super::run`].
pub struct World {
    plan: Plan,
    rng: Rng,
    begun: Instant,
    judge: Judge,
    kinesis: Kinesis,
    fleet: Fleet,
    seats: Rc<RefCell<BTreeMap<String, Seat>>>,
    agenda: BTreeMap<(Duration, u64), Act>,
    acts: u64,
    named: u64,
    leaving: JoinSet<Left>,
    /// What ends those that are leaving at once.
    killers: BTreeMap<Life, AbortHandle>,
    strikes: Strikes,
    table: Arc<dyn LeaseStore>,
    left: Vec<Life>,
    listeners: JoinSet<()>,
    manners: Manners,
    look_every: Duration,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl World {
    /// The world that this seed makes.
    ///
    /// # Errors
    /// None but those of [`World::of`].
    pub fn new(seed: u64) -> Result<Self, PlanError> {
        Ok(Self::of(Plan::draw(Seed(seed), Scenario::Any, Wishes::default())?))
    }

    /// The world of a plan.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn of(plan: Plan) -> Self {
        crate::log::init();
        let mut rng = Rng::with_seed(plan.seed.0 ^ 0x9e37_79b9_7f4a_7c15);
        let clock = kcl_local::clock::TokioClock::new(SystemTime::UNIX_EPOCH + EPOCH);
        let page = NonZeroUsize::try_from(plan.page_size).unwrap_or(NonZeroUsize::MAX);
        let rows = MemoryLeaseStore::new().with_page_size(page);
        let cloud = match plan.wire {
            Wire::Model => Cloud::model(Kinesis::new(Arc::new(clock)), rows),
            Wire::Sdk => Cloud::sdk(Arc::new(clock)),
        };
        let kinesis = cloud.kinesis().clone();
        kinesis.create_stream(STREAM, plan.shards).expect("the plan's stream is one the model takes");
        if let Some(retention) = plan.retention {
            kinesis.set_retention(STREAM, retention).expect("the stream exists");
        }
        let terms = Terms {
            from_trim_horizon: plan.initial == InitialPosition::TrimHorizon && plan.retention.is_none(),
            sees_landings: plan.wire == Wire::Model,
            retention: plan.retention,
            patience: plan.patience(),
            nobody_is_evicted: plan.scenario == Scenario::TableOutages,
            shard_bytes: plan.settings.shard_buffer_bytes,
        };
        let judge = Judge::new(kinesis.clone(), terms);
        let seats: Rc<RefCell<BTreeMap<String, Seat>>> = Rc::default();
        let manners = Manners::new(&judge, &plan.conduct);
        let seed = rng.u64(..);
        let store = cloud.rows();
        let (table, strikes) = (Arc::clone(&store), Strikes::default());
        let application = Application {
            plan: plan.clone(),
            judge: judge.clone(),
            cloud,
            seats: Rc::clone(&seats),
            entropy: Entropy::seeded(rng.u64(..)),
            manners: manners.clone(),
            strikes: strikes.clone(),
        };
        let source = kcl_core::testing::MemoryStream::new(kinesis.clone(), STREAM);
        let fleet = Fleet::over(
            seed,
            move || source.clone(),
            store,
            move |name, builder| application.seat(name, builder),
        );
        let mut world = Self {
            rng,
            begun: Instant::now(),
            judge,
            kinesis,
            fleet,
            seats,
            agenda: BTreeMap::new(),
            acts: 0,
            named: 0,
            leaving: JoinSet::new(),
            killers: BTreeMap::new(),
            strikes,
            table,
            left: Vec::new(),
            listeners: JoinSet::new(),
            manners,
            look_every: if plan.rest_traffic { LOOK } else { LOOK * 4 },
            plan,
        };
        for (at, step) in world.plan.steps.clone() {
            world.at(at, Act::Step(step));
        }
        world
    }

    /// Runs to the end, or to the first broken promise.
    pub async fn run(mut self) -> Verdict {
        self.play().await;
        self.verdict().await
    }

    /// What is the case now, for a run that is cut off.
    pub async fn verdict(self) -> Verdict {
        Verdict {
            breach: self.judge.breach(),
            history: self.judge.history(),
            records: self.judge.counts(),
            took: self.begun.elapsed(),
            state: self.fleet.state().await,
            requests: self.strikes.requests(),
            plan: self.plan,
        }
    }

    /// The judge.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Runs; ends early when a promise is broken.
    pub async fn play(&mut self) {
        for _ in 0..self.plan.workers {
            let name = self.next_name();
            self.start(&name);
        }
        if self.plan.initial == InitialPosition::Latest {
            // Nothing is promised of what is put before there are leases.
            self.wait(SECOND * 120, "every shard has an owner", |world| world.unowned().is_empty()).await;
        }
        let beginning = self.now();
        while let Some(((at, _), act)) = self.agenda.pop_first() {
            if !self.pass_until(beginning + at).await {
                return;
            }
            self.act(act).await;
        }
        if self.pass_until(beginning + self.plan.storm).await {
            self.come_to_rest().await;
        }
    }

    /// After the last fault: everything is delivered, owned and balanced in time; then nothing moves; then everything
    /// stops in order.
    async fn come_to_rest(&mut self) {
        self.calm_down().await;
        let limit = self.plan.recovery();
        let calm = "everything is delivered, owned by workers that run, and balanced";
        // What the faults did may show only when leases run out.
        let settling = self.plan.settings.lease_duration.mul_f64(1.5);
        let (mut owners, mut since) = (self.judge.owners(), self.now());
        let settled = self.wait(limit, calm, move |world| {
            let (found, now) = (world.judge.owners(), world.now());
            if world.unsettled().is_some() || found != owners {
                (owners, since) = (found, now);
            }
            now - since >= settling
        });
        if !settled.await {
            return;
        }
        let owners = self.judge.owners();
        let end = self.now() + self.plan.rest;
        while self.now() < end {
            if self.plan.rest_traffic {
                self.put(2, 1, 0);
            }
            if !self.pass_until(self.now() + SECOND * 2).await {
                return;
            }
            let moved = self.judge.owners();
            if moved != owners {
                self.judge.find(Promise::B1, format!("leases move at rest: {owners:?} became {moved:?}"));
                return;
            }
        }
        if !self.wait(limit, "what was put at rest is delivered", |world| world.unsettled().is_none()).await {
            return;
        }
        for life in self.lives() {
            self.leave(&life);
        }
        self.wait(DEADLINE + SECOND, "every worker has stopped", |world| world.leaving.is_empty()).await;
        self.pass_until(self.now() + SECOND * 10).await;
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn at(&mut self, at: Duration, act: Act) {
        self.acts += 1;
        self.agenda.insert((at, self.acts), act);
    }

    /// Lets time pass, looking now and then; returns whether every promise is kept so far.
    async fn pass_until(&mut self, end: Duration) -> bool {
        loop {
            let left = end.saturating_sub(self.now());
            let is_struck = tokio::select! {
                biased;
                // Who is dead must not run on until the next look.
                () = self.strikes.fatal() => true,
                () = tokio::time::sleep(left.min(self.look_every)) => false,
            };
            for life in self.strikes.killed() {
                self.crash(&life).await;
            }
            if is_struck {
                continue;
            }
            self.look().await;
            if self.judge.breach().is_some() {
                return false;
            }
            if left <= self.look_every {
                return true;
            }
        }
    }

    /// Lets time pass until `done`; that it does not come in time breaks a promise.
    async fn wait(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now() + limit;
        while !done(self) {
            if self.now() >= end {
                let missing = self.judge.missing();
                let (promise, unsettled) = if missing.is_empty() {
                    (Promise::B1, self.unsettled().unwrap_or_default())
                } else {
                    let some = &missing[..missing.len().min(5)];
                    (Promise::D1, format!("{} records are not acknowledged: {some:?}", missing.len()))
                };
                self.judge.find(promise, format!("not within {limit:?}: {what}; {unsettled}"));
                return false;
            }
            if !self.pass_until(self.now() + LOOK).await {
                return false;
            }
        }
        true
    }

    /// What is not as it must be at rest.
    fn unsettled(&self) -> Option<String> {
        let missing = self.judge.missing();
        if !missing.is_empty() {
            return Some(format!("{} records are missing", missing.len()));
        }
        let unread = self.judge.closed_and_unfinished();
        if !unread.is_empty() {
            return Some(format!("closed and not read to the end: {unread:?}"));
        }
        let unowned = self.unowned();
        if !unowned.is_empty() {
            return Some(format!("nobody who runs owns {unowned:?}"));
        }
        let asked = self.judge.requests();
        if !asked.is_empty() {
            return Some(format!("asked for and not handed over: {asked:?}"));
        }
        let startable = self.judge.startable();
        let mut counts: BTreeMap<String, usize> =
            self.fleet.workers().into_iter().map(|name| (name, 0)).collect();
        for (shard, owner) in self.judge.owners() {
            if let Some(count) = owner.and_then(|owner| counts.get_mut(&owner))
                && startable.contains(&shard)
            {
                *count += 1;
            }
        }
        let (most, least) = (counts.values().max()?, counts.values().min()?);
        (most - least > 1).then(|| format!("not balanced: {counts:?}"))
    }

    /// Unfinished leases and open shards that no running worker owns.
    fn unowned(&self) -> Vec<String> {
        let workers = self.fleet.workers();
        let owners = self.judge.owners();
        let is_owned = |owner: &Option<String>| owner.as_ref().is_some_and(|owner| workers.contains(owner));
        let unowned = owners.iter().filter(|(_, owner)| !is_owned(owner)).map(|(shard, _)| shard.to_string());
        let rows = self.judge.rows();
        let open = self.kinesis.shards(STREAM, ShardFilter::AtLatest).unwrap_or_default();
        let without = open.iter().filter(|shard| !rows.contains_key(&*shard.shard_id));
        unowned.chain(without.map(|shard| shard.shard_id.to_string())).collect()
    }

    async fn look(&mut self) {
        if self.plan.wire == Wire::Sdk {
            match self.fleet.leases().await {
                Ok(rows) => self.judge.look_at_rows(rows),
                // There is no table before the first worker has made it.
                Err(error) => tracing::debug!(%error, "no table yet"),
            }
        }
        self.judge.check_coverage();
        for life in std::mem::take(&mut self.left) {
            let there = self.judge.processors_of(&life);
            if there > 0 {
                self.judge.find(Promise::X1, format!("{life} has stopped, and {there} processors are left"));
            }
        }
        while let Some(left) = self.leaving.try_join_next() {
            match left {
                Ok(left) => self.has_left(left),
                Err(error) => self.judge.find(Promise::X1, format!("a shutdown failed: {error}")),
            }
        }
        while let Err(WorldError::WorkerEnded { name, error }) = self.fleet.check() {
            let Some(seat) = self.seats.borrow_mut().remove(&name) else { continue };
            self.judge.over(&seat.life);
            let excused =
                error.kind() == ErrorKind::Unavailable && self.now() < self.plan.storm + SECOND * 60;
            if excused {
                // Whatever keeps workers running starts it again.
                self.judge.say(format!("{} ended and will be started again: {error}", seat.life));
                let at = self.now() + SECOND;
                self.at(at, Act::Start(name));
            } else {
                self.judge.find(Promise::B1, format!("{} ended by itself: {error}", seat.life));
            }
        }
    }

    fn has_left(&mut self, (life, took, report): Left) {
        self.killers.remove(&life);
        self.judge.over(&life);
        self.judge.say(format!("{life} has stopped after {took:?}: {report:?}"));
        if took > DEADLINE {
            self.judge.find(Promise::X1, format!("{life} took {took:?} to stop, {DEADLINE:?} were given"));
        }
        for (shard, outcome) in &report.shards {
            if self.judge.is_kept_by(shard, &life) && matches!(outcome, ShardOutcome::Released) {
                self.judge.find(Promise::X1, format!("{life} says it released {shard}, and still owns it"));
            }
        }
        self.left.push(life);
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Step(step) => self.step(step).await,
            Act::Wake(life) => {
                if self.lives().contains(&life) {
                    self.judge.thaws(&life);
                    self.must(|fleet| fleet.wake(&life.worker));
                    self.judge.say(format!("{life} wakes"));
                }
            }
            Act::Cut(life) => {
                if self.lives().contains(&life) {
                    self.judge.say(format!("{life} is cut off from the lease table"));
                    if let Some(seat) = self.seats.borrow().get(&life.worker) {
                        seat.befall(kcl_core::testing::Mishap::NoLeases, 1.0);
                    }
                }
            }
            Act::Calm(life) => {
                if self.lives().contains(&life) {
                    self.judge.say(format!("{life} suffers nothing more"));
                    if let Some(seat) = self.seats.borrow().get(&life.worker) {
                        seat.calm();
                    }
                }
            }
            Act::Resume(life) => {
                if self.lives().contains(&life)
                    && let Ok(handle) = self.fleet.handle(&life.worker)
                {
                    self.judge.say(format!("{life} is resumed"));
                    handle.resume(None).await;
                }
            }
            Act::Leave(life) => {
                if self.lives().contains(&life) {
                    self.leave(&life);
                }
            }
            Act::Start(name) => {
                if !self.fleet.workers().contains(&name) {
                    self.start(&name);
                }
            }
        }
    }

    /// Puts something on the agenda for so much later, but not after the storm.
    fn at_end_of(&mut self, time: Duration, act: Act) {
        let at = (self.now() + time).min(self.plan.storm);
        self.at(at, act);
    }

    /// Ends every fault, and sees to it that somebody runs.
    async fn calm_down(&mut self) {
        self.manners.behave();
        for life in self.lives() {
            if let Some(seat) = self.seats.borrow().get(&life.worker) {
                seat.calm();
            }
            self.judge.thaws(&life);
            self.must(|fleet| fleet.wake(&life.worker));
            if let Ok(handle) = self.fleet.handle(&life.worker) {
                handle.resume(None).await;
            }
        }
        if self.fleet.workers().is_empty() {
            let name = self.next_name();
            self.start(&name);
        }
        self.judge.say("faults are over");
    }

    /// Those that run and are not leaving.
    fn lives(&self) -> Vec<Life> {
        let seats = self.seats.borrow();
        self.fleet.workers().iter().filter_map(|name| Some(seats.get(name)?.life.clone())).collect()
    }

    fn anyone(&mut self) -> Option<Life> {
        let lives = self.lives();
        (!lives.is_empty()).then(|| lives[self.rng.usize(..lives.len())].clone())
    }

    /// Somebody who is not the last.
    fn spare(&mut self) -> Option<Life> {
        if self.fleet.workers().len() > 1 { self.anyone() } else { None }
    }

    fn next_name(&mut self) -> String {
        self.named += 1;
        format!("w{}", self.named)
    }

    fn start(&mut self, name: &str) {
        self.must(|fleet| fleet.start(name));
        let Ok(handle) = self.fleet.handle(name) else { return };
        let Some(life) = self.seats.borrow().get(name).map(|seat| seat.life.clone()) else { return };
        let (mut events, judge) = (handle.events(), self.judge.clone());
        self.listeners.spawn(async move {
            while let Ok(event) = events.recv().await {
                judge.reported(&life, &event);
            }
        });
    }

    async fn crash(&mut self, life: &Life) {
        self.judge.say(format!("{life} crashes"));
        match self.killers.remove(life) {
            Some(leaving) => leaving.abort(),
            None => self.must(|fleet| fleet.crash(&life.worker)),
        }
        self.seats.borrow_mut().remove(&life.worker);
        // Its tasks go when the runtime gets to them.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.judge.over(life);
    }

    fn leave(&mut self, life: &Life) {
        if self.fleet.is_held(&life.worker) {
            // Nothing can be asked of a worker that does not run; it is asked again later.
            let at = self.now() + SECOND;
            return self.at(at, Act::Leave(life.clone()));
        }
        self.judge.say(format!("{life} is to stop"));
        if let Ok(killer) = self.fleet.killer(&life.worker) {
            self.killers.insert(life.clone(), killer);
        }
        let Ok(left) = self.fleet.leave(&life.worker, DEADLINE) else { return };
        self.seats.borrow_mut().remove(&life.worker);
        let (life, begun) = (life.clone(), Instant::now());
        self.leaving.spawn(async move {
            let report = left.await;
            (life, begun.elapsed(), report)
        });
    }

    /// Does something with the model, which must succeed.
    fn model<T>(&self, call: impl FnOnce(&Kinesis) -> Result<T, kcl_local::error::ApiError>) {
        if let Err(error) = call(&self.kinesis) {
            self.judge.find(Promise::B1, format!("the simulator is wrong: the model refuses {error}"));
        }
    }

    /// Does something with the fleet, which must succeed.
    fn must(&mut self, call: impl FnOnce(&mut Fleet) -> Result<(), WorldError>) {
        if let Err(error) = call(&mut self.fleet) {
            self.judge.find(Promise::B1, format!("the simulator is wrong: {error}"));
        }
    }
}
