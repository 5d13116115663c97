//! Watches a run and says which promise it breaks, if any.
//!
//! Each promise of the README is judged in a file of its own, from the same few facts: what was put, which
//! callbacks began and ended, what landed in the lease table, what was asked of the services. The judge knows the
//! truth (the rows, the stream) and shares no decision with the library.

mod callbacks;
mod checkpoints;
mod coverage;
mod delivery;
mod leases;
mod lineage;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kcl_core::lease::{Expectation, FleetChange, Lease, Patch};
use kcl_core::model::{Checkpoint, HashKeyRange};
use kcl_core::testing::STREAM;
use kcl_core::{Callback, Event, Position, ShardContext, ShardId};
use kcl_local::kinesis::{Kinesis, ShardFilter};
use tokio::time::Instant;

use self::callbacks::Callbacks;
use self::checkpoints::Checkpoints;
use self::delivery::Delivery;
use self::leases::Leases;
use self::memory::Memory;
use super::history::{Entry, History, Instance};

/// A promise of the README, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Everything is delivered, in order; nothing is skipped.
    D1,
    /// The checkpoint never passes what was acknowledged and never goes back.
    D2,
    /// No delivery starts under a lease that is not provably valid.
    L1,
    /// Only the holder's writes land.
    L2,
    /// An owned shard is never silent.
    L3,
    /// No child before its parents; children have leases before that.
    S1,
    /// The hash keys are always covered.
    S2,
    /// Callbacks are serial and in legal order.
    P1,
    /// With faults over, everything is owned, balanced and at rest.
    B1,
    /// A shutdown ends by its deadline, and nothing is called afterwards.
    X1,
    /// Memory stays within its budget.
    M1,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::D1 => "D-1",
            Self::D2 => "D-2",
            Self::L1 => "L-1",
            Self::L2 => "L-2",
            Self::L3 => "L-3",
            Self::S1 => "S-1",
            Self::S2 => "S-2",
            Self::P1 => "P-1",
            Self::B1 => "B-1",
            Self::X1 => "X-1",
            Self::M1 => "M-1",
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The promise.
    pub promise: Promise,
    /// When.
    pub at: Duration,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {:.4} s: {}", self.promise, self.at.as_secs_f64(), self.seen)
    }
}

/// What a check found: nothing, or a promise and what breaks it.
pub(super) type Finding = Option<(Promise, String)>;

/// What the judge has to know of the run beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Whether the run reaches back to the oldest record, so that every hash key is promised (S-2).
    pub from_trim_horizon: bool,
    /// Whether every write is seen when it lands, and not only when it is answered.
    pub sees_landings: bool,
    /// How long the stream keeps records, if so short that some may expire before they are read: losing those is
    /// no breach.
    pub retention: Option<Duration>,
    /// How long a consumer may be silent before its lease must not be renewed (L-3).
    pub patience: Duration,
    /// Whether nothing happens for which a worker might rightly be held for dead by the others.
    pub nobody_is_evicted: bool,
    /// The payload that may be read ahead for a shard, but for one answer (M-1).
    pub shard_bytes: usize,
}

/// One life of a worker: from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Its worker id.
    pub worker: String,
    /// The number of the life, unique in the run.
    pub number: u64,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.worker, self.number)
    }
}

/// A shard of the stream, as it truly is.
#[derive(Clone, Debug)]
pub(super) struct TrueShard {
    pub(super) parents: Vec<ShardId>,
    pub(super) open: bool,
    /// What it takes of the hash keys; for messages.
    pub(super) range: HashKeyRange,
}

/// A write on the lease table.
#[derive(Clone, Copy, Debug)]
pub enum Landing<'a> {
    /// A row was created.
    Create,
    /// A row was changed.
    Update(&'a Expectation, &'a Patch),
    /// A row was deleted.
    Delete(&'a Expectation),
}

#[derive(Debug)]
struct State {
    begun: Instant,
    terms: Terms,
    kinesis: Kinesis,
    history: History,
    breach: Option<Breach>,
    /// The stream's shards; those that expired stay known.
    shards: BTreeMap<ShardId, TrueShard>,
    /// The rows of the lease table.
    rows: BTreeMap<ShardId, Lease>,
    /// The shards of which a row was seen that says that they have ended.
    ended: BTreeSet<ShardId>,
    /// Lives by number, with the length of a lease by their own clock, and whether they have ended.
    lives: BTreeMap<u64, (Life, Duration, bool)>,
    /// Whether the hash keys were covered once.
    covered: bool,
    instances: Instance,
    callbacks: Callbacks,
    delivery: Delivery,
    checkpoints: Checkpoints,
    leases: Leases,
    memory: Memory,
}

/// The judge of one run. Clones are the same judge.
#[derive(Clone, Debug)]
pub struct Judge(Arc<Mutex<State>>);

impl Judge {
    /// A judge of what happens from now on.
    #[must_use]
    pub fn new(kinesis: Kinesis, terms: Terms) -> Self {
        let judge = Self(Arc::new(Mutex::new(State {
            begun: Instant::now(),
            terms,
            kinesis,
            history: History::default(),
            breach: None,
            shards: BTreeMap::new(),
            rows: BTreeMap::new(),
            ended: BTreeSet::new(),
            lives: BTreeMap::new(),
            covered: false,
            instances: 0,
            callbacks: Callbacks::default(),
            delivery: Delivery::default(),
            checkpoints: Checkpoints::default(),
            leases: Leases::default(),
            memory: Memory::default(),
        })));
        judge.stream_changed();
        judge
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first broken promise.
    #[must_use]
    pub fn breach(&self) -> Option<Breach> {
        self.state().breach.clone()
    }

    /// What happened.
    #[must_use]
    pub fn history(&self) -> History {
        self.state().history.clone()
    }

    /// Takes note of what the world did.
    pub fn say(&self, text: impl Into<String>) {
        self.state().push(Entry::Said(text.into()));
    }

    /// Takes note of a promise that the world itself found broken.
    pub fn find(&self, promise: Promise, seen: impl Into<String>) {
        self.state().check(Some((promise, seen.into())));
    }

    /// Takes note that shards were split or merged.
    pub fn stream_changed(&self) {
        let mut state = self.state();
        let Ok(listed) = state.kinesis.shards(STREAM, ShardFilter::FromTrimHorizon) else { return };
        for shard in listed {
            let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
            let (start, end) = (shard.hash_key_range.start, shard.hash_key_range.end);
            let truth = TrueShard {
                parents: parents.into_iter().flatten().map(ShardId::new).collect(),
                open: shard.ending_sequence_number.is_none(),
                range: HashKeyRange::new(start, end).unwrap_or(HashKeyRange::FULL),
            };
            state.shards.insert(ShardId::new(shard.shard_id), truth);
        }
    }

    /// The payloads of the next `count` records of a key.
    #[must_use]
    pub fn put(&self, key: &str, count: u64, aggregated: bool) -> Vec<String> {
        let mut state = self.state();
        let now = state.now();
        let first = state.delivery.put(key, count, now);
        let last = first + count - 1;
        state.push(Entry::Put { key: key.to_owned(), first, last, aggregated });
        (first..=last).map(|counter| format!("{key}:{counter}")).collect()
    }

    /// Takes note that a worker starts; `lease_duration` and `margin` are what its settings say, as they pass by its
    /// clock, in true time.
    #[must_use]
    pub fn live(&self, worker: &str, lease_duration: Duration, margin: Duration) -> Life {
        let mut state = self.state();
        let number = state.lives.len() as u64 + 1;
        let life = Life { worker: worker.to_owned(), number };
        state.lives.insert(number, (life.clone(), lease_duration, false));
        if state.terms.sees_landings {
            state.leases.live(&life, lease_duration.saturating_sub(margin));
        }
        state.push(Entry::Said(format!("{life} starts, lease {lease_duration:?} by its clock")));
        life
    }

    /// Takes note that a worker's run is over: nothing may be called for it any more.
    pub fn over(&self, life: &Life) {
        let mut state = self.state();
        if let Some(known) = state.lives.get_mut(&life.number) {
            known.2 = true;
        }
        state.leases.over(life);
        state.push(Entry::Said(format!("{life} is over")));
    }

    /// Takes note of a call to a service.
    pub fn calls(&self, life: &Life, call: &str) {
        let mut state = self.state();
        if state.lives.get(&life.number).is_some_and(|(_, _, over)| *over) {
            state.check(Some((Promise::X1, format!("{life} calls {call} although its run is over"))));
        }
    }

    /// Takes note of an event a worker reported.
    pub fn reported(&self, life: &Life, event: &Event) {
        let mut state = self.state();
        if matches!(event, Event::DataLoss { .. }) && state.terms.retention.is_none() {
            let seen = format!("{life} reports a loss where nothing expires: {event:?}");
            state.check(Some((Promise::D1, seen)));
        }
        if matches!(event, Event::FleetEvicted { .. }) && state.terms.nobody_is_evicted {
            state.check(Some((Promise::B1, format!("{life} was healthy and is removed: {event:?}"))));
        }
        state.push(Entry::Said(format!("{life} reports {event:?}")));
    }

    /// Takes note of a change of a fleet row that landed.
    pub fn fleet_landed(&self, life: &Life, change: &FleetChange) {
        let mut state = self.state();
        let now = state.now();
        match change {
            FleetChange::Join { worker, .. } => {
                state.push(Entry::Said(format!("{life} joins as {worker}")));
                state.leases.joins(life, worker);
            }
            FleetChange::Beat { worker, entry } => {
                state.push(Entry::Said(format!(
                    "{life} beats {} as {worker}: {}, {} leases, {} moves, {} passes, gave {:?}",
                    entry.heartbeat, entry.state, entry.leases, entry.moves, entry.housekeeping, entry.gave
                )));
                let finding = state.leases.beats(life, worker, now);
                state.check(finding);
            }
            FleetChange::Remove { worker, heartbeat } => {
                state.push(Entry::Said(format!("{life} removes {worker} at {heartbeat}")));
            }
            other => state.push(Entry::Said(format!("{life} changes the fleet: {other:?}"))),
        }
    }

    /// Takes note that a worker was suspended for longer than its leases last, of which no time here tells.
    pub fn suspends(&self, life: &Life) {
        self.state().leases.suspend(life);
    }

    /// Takes note that a processor was made; returns its number.
    #[must_use]
    pub fn create(&self, life: &Life, context: &ShardContext) -> Instance {
        let mut state = self.state();
        state.instances += 1;
        let instance = state.instances;
        state.callbacks.create(instance, life.clone(), context);
        instance
    }

    /// Takes note that a processor is gone.
    pub fn drop_processor(&self, instance: Instance) {
        self.state().callbacks.gone(instance);
    }

    /// How many processors of a life are there still.
    #[must_use]
    pub fn processors_of(&self, life: &Life) -> usize {
        self.state().callbacks.of(life)
    }

    /// Takes note that a callback begins.
    pub fn begin(&self, instance: Instance, callback: Callback, attempt: u32, records: &[kcl_core::Record]) {
        let mut state = self.state();
        let Some((life, shard)) = state.callbacks.whose(instance) else { return };
        let batch = match records {
            [first, .., last] | [first @ last] => Some((first.position(), last.position(), records.len())),
            [] => None,
        };
        state.push(Entry::Began {
            instance,
            worker: life.to_string(),
            shard: shard.clone(),
            callback,
            attempt,
            batch,
        });
        let now = state.now();
        let finding = state.callbacks.begin(instance, callback, attempt, batch);
        state.check(finding);
        if matches!(callback, Callback::Initialize | Callback::ProcessRecords | Callback::ShardEnded) {
            let finding = state.parents_before(&shard);
            state.check(finding);
            let lease = state.lives.get(&life.number).map_or(Duration::ZERO, |(_, lease, _)| *lease);
            let finding = state.leases.starts(&life, &shard, now, lease);
            state.check(finding);
        }
        if callback == Callback::ProcessRecords {
            let expired = state.terms.retention.and_then(|retention| now.checked_sub(retention));
            let finding = state.delivery.deliver(&shard, records, expired);
            state.check(finding);
        }
    }

    /// Takes note that a callback ended.
    pub fn end(&self, instance: Instance, callback: Callback, outcome: &'static str) {
        let mut state = self.state();
        state.push(Entry::Ended { instance, callback, outcome });
        let Some((_, shard)) = state.callbacks.whose(instance) else { return };
        if outcome == "done" {
            match callback {
                Callback::ProcessRecords => {
                    if let Some((_, last, _)) = state.callbacks.batch_of(instance) {
                        state.checkpoints.acknowledge(&shard, last);
                    }
                    state.delivery.acknowledge(instance);
                }
                Callback::ShardEnded => state.checkpoints.finish(&shard),
                _ => {}
            }
        }
        state.callbacks.end(instance, callback, outcome == "done");
    }

    /// Remembers the records of the batch in hand, to be acknowledged with it.
    pub fn in_hand(&self, instance: Instance, records: &[kcl_core::Record]) {
        self.state().delivery.in_hand(instance, records);
    }

    /// Takes note that a processor declares everything up to `position` as processed.
    pub fn claim(&self, instance: Instance, position: Position) {
        let mut state = self.state();
        if let Some((_, shard)) = state.callbacks.whose(instance) {
            state.checkpoints.acknowledge(&shard, position);
            state.delivery.acknowledge_through(instance, position);
        }
    }

    /// Takes note of the answer to a checkpoint.
    pub fn checkpointed(
        &self,
        instance: Instance,
        position: Option<Position>,
        answer: Result<(), &kcl_core::CheckpointError>,
    ) {
        let mut state = self.state();
        let text = answer.map_or_else(ToString::to_string, |()| "stored".to_owned());
        state.push(Entry::Checkpointed { instance, position, answer: text });
        let Some((_, shard)) = state.callbacks.whose(instance) else { return };
        if answer.is_ok() && state.terms.sees_landings {
            let finding = position.and_then(|position| state.checkpoints.is_stored(&shard, position));
            state.check(finding);
        }
    }

    /// Takes note that payload was read ahead for a shard.
    pub fn fetched(&self, life: &Life, reader: u64, shard: &ShardId, records: &[(Position, usize)]) {
        let mut state = self.state();
        state.memory.fetch(life, reader, records);
        let passed = state.checkpoints.passed(shard);
        let limit = state.terms.shard_bytes;
        let finding = state.memory.check(life, reader, shard, passed, limit);
        state.check(finding);
    }

    /// Takes note that a write landed in the lease table; `row` is what it left (for a delete: what it removed).
    pub fn landed(&self, life: &Life, landing: Landing<'_>, row: &Lease) {
        let mut state = self.state();
        let call = match landing {
            Landing::Create => "create",
            Landing::Update(_, patch) if patch.counter.is_none() => "request",
            Landing::Update(..) => "update",
            Landing::Delete(_) => "delete",
        };
        state.push(Entry::Wrote { worker: life.to_string(), call, row: Box::new(row.clone()) });
        let now = state.now();
        let before = state.rows.get(&row.shard).cloned();
        let finding = state.leases.lands(life, landing, before.as_ref(), row, now);
        state.check(finding);
        if let Landing::Delete(_) = landing {
            state.rows.remove(&row.shard);
            state.checkpoints.forget(&row.shard);
            return;
        }
        let finding = state.checkpoints.store(&row.shard, before.map(|row| row.checkpoint), row.checkpoint);
        state.check(finding);
        state.rows.insert(row.shard.clone(), row.clone());
        if row.is_ended() {
            state.ended.insert(row.shard.clone());
            let finding = state.children_have_leases(&row.shard);
            state.check(finding);
        }
    }

    /// Takes note of a row that a worker was shown, where landings are not seen: what has ended stays so.
    pub fn shown(&self, row: &Lease) {
        if row.is_ended() {
            self.state().ended.insert(row.shard.clone());
        }
    }

    /// Takes note that a worker holds a lease whose write was answered now, where landings are not seen.
    pub fn answered(&self, life: &Life, row: &Lease) {
        let mut state = self.state();
        state.push(Entry::Wrote { worker: life.to_string(), call: "answered", row: Box::new(row.clone()) });
        let now = state.now();
        if row.is_ended() {
            state.ended.insert(row.shard.clone());
        }
        state.leases.answered(life, row, now);
    }

    /// Compares with the rows as they are, where landings are not seen.
    pub fn look_at_rows(&self, rows: BTreeMap<ShardId, Lease>) {
        let mut state = self.state();
        for (shard, row) in &rows {
            let before = state.rows.get(shard).map(|row| row.checkpoint);
            let finding = state.checkpoints.store(shard, before, row.checkpoint);
            state.check(finding);
            if row.checkpoint == Checkpoint::ShardEnd && before != Some(Checkpoint::ShardEnd) {
                state.rows.insert(shard.clone(), row.clone());
                state.rows.extend(rows.iter().map(|(shard, row)| (shard.clone(), row.clone())));
                let finding = state.children_have_leases(shard);
                state.check(finding);
            }
        }
        state.rows = rows;
    }

    /// Takes note that an operator deleted a row.
    pub fn operator_deleted(&self, shard: &ShardId) {
        let mut state = self.state();
        state.rows.remove(shard);
        state.ended.remove(shard);
        state.checkpoints.forget(shard);
        state.push(Entry::Said(format!("an operator deletes the row of {shard}")));
    }

    /// Takes note that the consumer of a shard is held from now on, or no longer.
    pub fn freezes(&self, life: &Life, shard: &ShardId) {
        let mut state = self.state();
        let (now, patience) = (state.now(), state.terms.patience);
        state.leases.freeze(life, shard, now, patience);
    }

    /// Takes note that nothing of a worker is held any more.
    pub fn thaws(&self, life: &Life) {
        self.state().leases.thaw(life);
    }

    /// Checks that the rows cover the hash keys (S-2).
    pub fn check_coverage(&self) {
        let mut state = self.state();
        if !state.terms.from_trim_horizon {
            return;
        }
        let finding = state.uncovered();
        if state.covered {
            state.check(finding);
        } else {
            // The first workers are still making the leases.
            state.covered = finding.is_none() && !state.rows.is_empty();
        }
    }

    /// The rows of the lease table, as landed.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<ShardId, Lease> {
        self.state().rows.clone()
    }

    /// How many records were put and not acknowledged yet; those that expired unread do not count.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let state = self.state();
        let expired = state.terms.retention.and_then(|retention| state.now().checked_sub(retention));
        state.delivery.missing(expired)
    }

    /// What was put before a time and is not acknowledged.
    #[must_use]
    pub fn unacknowledged_before(&self, before: Duration) -> Vec<String> {
        self.state().delivery.unacknowledged(|put| put < before)
    }

    /// How often records were put and delivered.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.state().delivery.counts()
    }

    /// Whether a row names this life of a worker because it wrote so itself.
    #[must_use]
    pub fn is_kept_by(&self, shard: &ShardId, life: &Life) -> bool {
        let state = self.state();
        state.rows.get(shard).is_some_and(|row| !row.is_ended() && state.leases.kept(row, life))
    }

    /// Who owned each unfinished lease when.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<ShardId, Option<String>> {
        let state = self.state();
        let unfinished = state.rows.values().filter(|row| !row.is_ended());
        let owner = |row: &Lease| row.owner.as_ref().map(|owner| state.leases.name_of(owner));
        unfinished.map(|row| (row.shard.clone(), owner(row))).collect()
    }

    /// Unfinished leases that somebody has asked for.
    #[must_use]
    pub fn requests(&self) -> Vec<ShardId> {
        let state = self.state();
        let asked = state.rows.values().filter(|row| !row.is_ended() && row.requested_by.is_some());
        asked.map(|row| row.shard.clone()).collect()
    }

    /// Closed shards whose leases are not finished.
    #[must_use]
    pub fn closed_and_unfinished(&self) -> Vec<ShardId> {
        let state = self.state();
        let closed = state.shards.iter().filter(|(_, truth)| !truth.open);
        closed
            .map(|(shard, _)| shard)
            .filter(|shard| state.rows.get(*shard).is_some_and(|row| !row.is_ended()))
            .cloned()
            .collect()
    }

    /// The shards whose parents' ends are stored or out of the table: those whose leases can do work.
    #[must_use]
    pub fn startable(&self) -> BTreeSet<ShardId> {
        let state = self.state();
        let unfinished = state.rows.values().filter(|row| !row.is_ended());
        unfinished
            .filter(|row| row.parents.iter().all(|p| state.rows.get(p).is_none_or(Lease::is_ended)))
            .map(|row| row.shard.clone())
            .collect()
    }
}

impl State {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn push(&mut self, entry: Entry) {
        let now = self.now();
        self.history.push(now, entry);
    }

    fn check(&mut self, finding: Finding) {
        if let Some((promise, seen)) = finding
            && self.breach.is_none()
        {
            let breach = Breach { promise, at: self.now(), seen };
            self.push(Entry::Said(breach.to_string()));
            self.breach = Some(breach);
        }
    }
}
