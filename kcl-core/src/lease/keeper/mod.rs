//! The keeper of held leases: decides every write on their rows, one at a time per lease.
//!
//! A synchronous state machine. Its driver (the coordination loop) performs the attempts it asks for and brings
//! back the answers; nothing here waits or calls a store.
//!
//! Rules: validity counts from before the confirmed attempt was sent (L-1); a write that was not answered is
//! repeated, the same, until it is (L-2); a lease is renewed only while its consumer keeps its promise to show
//! life (L-3); a checkpoint is a renewal, so renewals that one makes superfluous are not sent.

mod answers;
mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::held::{Ending, Held};
use super::handle::{Command, EndShard, Liveness, Proof};
use super::verb::{Verb, Verdict};
use super::{AttemptToken, Lease, LeaseHandle, LossReason, Phase, StoreError, Write};
use crate::checkpointer::CheckpointError;
use crate::entropy::Entropy;
use crate::metrics::{LeaseWrite, MetricEvent, Metrics};
use crate::model::{InitialPosition, ShardId, StreamIdentity, WorkerId};
use crate::plant::{Plant, planted};
use crate::retry::Backoff;

type Answer = oneshot::Sender<Result<(), CheckpointError>>;

/// The durations and limits a keeper works with.
#[derive(Clone, Debug)]
pub(crate) struct KeeperSettings {
    pub(crate) lease_duration: Duration,
    pub(crate) safety_margin: Duration,
    pub(crate) max_writes: usize,
    /// How long a consumer may take from acquisition to its first promise.
    pub(crate) first_promise: Duration,
    /// What the leases of children say of stream and start.
    pub(crate) stream: StreamIdentity,
    pub(crate) initial: InitialPosition,
    /// What proves that held leases are valid, and so whether each is renewed.
    pub(crate) proof: Proof,
}

impl KeeperSettings {
    /// How long after a confirmed write the next renewal is due.
    pub(crate) fn renewal_interval(&self) -> Duration {
        self.lease_duration / 3
    }

    /// For how long an attempt is waited for that comes after so many failures of the same write.
    ///
    /// What keeps a lease is sent again soon at first, so that six attempts fit between the time it is due and the end of
    /// the lease: a few answers that never come lose nothing. A table that is slow throughout is waited for later on,
    /// and by whatever is not pressed for time.
    fn time_out(&self, goal: &Goal, failures: u32) -> Duration {
        let part = match (goal, failures) {
            (Goal::Renew | Goal::Checkpoint(_), 0) => 20,
            (Goal::Renew | Goal::Checkpoint(_), 1) => 13,
            (Goal::Renew | Goal::Checkpoint(_), 2) => 9,
            _ => 6,
        };
        self.lease_duration / part
    }
}

/// How a lease is acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquisition {
    /// The row names this worker already: fence it.
    Adopt,
    /// The lease is free or its holder is dead.
    Take,
    /// The holder may be alive and will notice only when its validity ends: own the row, but start after that.
    Steal,
}

/// A write to be sent.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Update(Verb),
    Create(Lease),
}

/// One attempt of a write; the driver answers it through [`Keeper::answered`].
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) shard: ShardId,
    /// Distinguishes it from other attempts on the same row.
    pub(crate) number: u64,
    pub(crate) call: Call,
    /// For how long its answer is waited for; without one it has failed.
    pub(crate) time_out: Duration,
}

/// What happened to leases; for events, logs and the next plan.
#[derive(Debug)]
pub(crate) enum Outcome {
    Acquired {
        shard: ShardId,
        how: Acquisition,
        reason: String,
    },
    /// A lease was given up: this is the row as it was left.
    GivenUp(Lease),
    /// A row was seen, as an answer to a write.
    Seen(Lease),
    /// A row is gone.
    Gone(ShardId),
    Lost {
        shard: ShardId,
        reason: LossReason,
    },
    Ended {
        row: Lease,
    },
    WriteFailed {
        shard: ShardId,
        failures: u32,
        error: Arc<StoreError>,
    },
}

#[derive(Debug)]
enum Goal {
    Acquire,
    CreateChild,
    Renew,
    Checkpoint(Vec<Answer>),
    Release { answers: Vec<Answer>, reason: LossReason },
    End(Vec<Answer>),
}

#[derive(Debug)]
struct Operation {
    goal: Goal,
    call: Call,
    /// When the first attempt was sent.
    first_sent: Option<Instant>,
    /// Whether an attempt went without an answer, so that the write may have landed or may still land.
    unanswered: bool,
    /// The number of the attempt that is under way.
    in_flight: Option<u64>,
    failures: u32,
}

#[derive(Debug)]
struct Slot {
    state: State,
    operation: Option<Operation>,
    due: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    Acquiring {
        how: Acquisition,
        reason: String,
        /// The shards whose ends wait for this row to be created; none if there is a row already.
        parents: BTreeSet<ShardId>,
    },
    Held(Box<Held>),
}

/// The keeper. See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    me: WorkerId,
    settings: KeeperSettings,
    entropy: Entropy,
    commands: mpsc::Sender<Command>,
    slots: BTreeMap<ShardId, Slot>,
    schedule: BTreeSet<(Instant, ShardId)>,
    in_flight: usize,
    attempts: u64,
    incarnations: u64,
    outcomes: Vec<Outcome>,
    changed: bool,
    /// Leases that are not held any more whose consumers have not ended yet.
    ending: BTreeMap<ShardId, Arc<Liveness>>,
    metrics: Metrics,
}

impl Keeper {
    pub(crate) const fn new(
        me: WorkerId,
        settings: KeeperSettings,
        entropy: Entropy,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            me,
            settings,
            entropy,
            commands,
            slots: BTreeMap::new(),
            schedule: BTreeSet::new(),
            in_flight: 0,
            attempts: 0,
            incarnations: 0,
            outcomes: Vec::new(),
            changed: false,
            ending: BTreeMap::new(),
            metrics: Metrics::none(),
        }
    }

    /// Has the answers of writes told.
    pub(crate) fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Tells of an answered write.
    fn tell(&self, goal: &Goal, took: Duration, ok: bool) {
        let write = match goal {
            Goal::Acquire => LeaseWrite::Acquire,
            Goal::CreateChild => LeaseWrite::CreateChild,
            Goal::Renew => LeaseWrite::Renew,
            // Told by those who asked for them.
            Goal::Checkpoint(_) | Goal::Release { .. } | Goal::End(_) => return,
        };
        self.metrics.record(&MetricEvent::LeaseWritten { write, took, ok });
    }

    /// The rows of the leases held, as last confirmed.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Lease> {
        self.slots.values().filter_map(|slot| match &slot.state {
            State::Held(held) => Some(&held.row),
            State::Acquiring { .. } => None,
        })
    }

    /// Whether no lease is held and none is being acquired.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a lease is held or being acquired.
    pub(crate) fn writes_on(&self, shard: &ShardId) -> bool {
        self.slots.contains_key(shard)
    }

    /// Whether a lease is being acquired.
    pub(crate) fn is_acquiring(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot.state, State::Acquiring { .. }))
    }

    /// Whether a lease is held for which no successor was named.
    pub(crate) fn without_successor(&self) -> bool {
        self.slots.values().any(|slot| matches!(&slot.state, State::Held(held) if held.give_to.is_none()))
    }

    /// What the consumers of held leases have processed under them, in bytes.
    pub(crate) fn processed(&self) -> impl Iterator<Item = (ShardId, u64)> {
        self.slots.iter().filter_map(|(shard, slot)| match &slot.state {
            State::Held(held) => Some((shard.clone(), held.liveness.processed())),
            State::Acquiring { .. } => None,
        })
    }

    /// The shards this keeper writes on: those held and those being acquired.
    pub(crate) fn busy(&self) -> BTreeSet<ShardId> {
        self.slots.keys().cloned().collect()
    }

    /// The shards whose leases are not held any more and whose consumers have not ended yet. Nobody takes or adopts
    /// their leases in this process meanwhile (R5).
    pub(crate) fn ending(&mut self) -> impl Iterator<Item = &ShardId> {
        self.ending.retain(|_, liveness| liveness.runs());
        self.ending.keys()
    }

    /// Goes on under another id. Nothing may be held or being acquired.
    pub(crate) fn rename(&mut self, me: WorkerId) {
        debug_assert!(self.is_idle(), "leases are held under the id that is given up");
        self.me = me;
    }

    /// Asks the consumer of a held lease to hand it over to `to`, or, with none, not to.
    pub(crate) fn hand_over(&mut self, shard: &ShardId, to: Option<(WorkerId, u64)>) {
        let me = self.me.clone();
        if let Some(Slot { state: State::Held(held), .. }) = self.slots.get_mut(shard) {
            let (receiver, switches) = to.unzip();
            held.give_to = receiver;
            held.switches = switches.unwrap_or(0);
            held.show_request(&me);
        }
    }

    /// The leases that are being handed over on this worker's own account, and to whom.
    pub(crate) fn giving(&self) -> impl Iterator<Item = (&ShardId, &WorkerId)> {
        self.slots.iter().filter_map(|(shard, slot)| match &slot.state {
            State::Held(held) => held.give_to.as_ref().map(|to| (shard, to)),
            State::Acquiring { .. } => None,
        })
    }

    /// Tells consumers that a proof they lacked is there again.
    pub(crate) fn wake_all(&mut self) {
        for slot in self.slots.values_mut() {
            if let State::Held(held) = &mut slot.state {
                held.standing.send_modify(|_| {});
            }
        }
    }

    /// The handles consumers may run on by `now`, if they changed since the last call.
    pub(crate) fn take_changed_handles(&mut self, now: Instant) -> Option<BTreeMap<ShardId, LeaseHandle>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let held = self.slots.iter().filter_map(|(shard, slot)| match &slot.state {
            State::Held(held) if held.announce_at <= now => Some((shard.clone(), held.handle.clone())),
            State::Held(_) => {
                // Announced later: the wake-up at that time looks again.
                self.changed = true;
                None
            }
            State::Acquiring { .. } => None,
        });
        Some(held.collect())
    }

    /// What happened since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// When [`Keeper::due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.in_flight >= self.settings.max_writes {
            return None;
        }
        let write = self.schedule.first().map(|(due, _)| *due);
        let announcement = self
            .changed
            .then(|| {
                self.slots.values().filter_map(|slot| match &slot.state {
                    State::Held(held) => Some(held.announce_at),
                    State::Acquiring { .. } => None,
                })
            })
            .into_iter()
            .flatten()
            .filter(|at| *at > Instant::now())
            .min();
        write.into_iter().chain(announcement).min()
    }

    /// Starts to acquire a lease, unless it is held or being acquired.
    pub(crate) fn acquire(&mut self, row: &Lease, how: Acquisition, reason: String, now: Instant) {
        if self.slots.contains_key(&row.shard) {
            return;
        }
        let token = self.token();
        let verb = match how {
            Acquisition::Adopt => Verb::renew(row, token),
            Acquisition::Take | Acquisition::Steal => Verb::take(row, &self.me, token),
        };
        let state = State::Acquiring { how, reason, parents: BTreeSet::new() };
        self.insert(row.shard.clone(), state, Operation::new(Goal::Acquire, Call::Update(verb)), now);
        if planted(Plant::AdoptWithoutFence)
            && how == Acquisition::Adopt
            && let Some(slot) = self.slots.get_mut(&row.shard)
        {
            slot.operation = None;
            self.acquired(&row.shard, row.clone(), now, now);
        }
    }

    /// Takes note of a row that a listing showed.
    pub(crate) fn note_row(&mut self, row: &Lease) {
        let me = &self.me;
        // A listing may be older than the last write; only the request, which is never withdrawn while this worker owns
        // the lease, is taken from it.
        if row.requested_by.is_none() || !row.is_owned_by(me) {
            return;
        }
        if let Some(Slot { state: State::Held(held), .. }) = self.slots.get_mut(&row.shard)
            && row.counter <= held.row.counter
        {
            held.row.requested_by.clone_from(&row.requested_by);
            held.show_request(me);
        }
    }

    /// Carries out a consumer's request. `Read` is not for the keeper.
    pub(crate) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Checkpoint { shard, incarnation, update, answer } => {
                match self.held_mut(&shard, incarnation) {
                    Some(held) => held.checkpoints.push((update, answer)),
                    None => return refuse(answer),
                }
                self.schedule_at(&shard, now);
            }
            Command::Release { shard, answer, .. } if planted(Plant::LeaveWithoutRelease) => {
                self.drop_slot(&shard, LossReason::Released);
                accept(answer);
            }
            Command::Release { shard, incarnation, checkpoint, to, answer } => {
                match self.held_mut(&shard, incarnation) {
                    Some(held) => held.release = Some((checkpoint, to, answer)),
                    None => return refuse(answer),
                }
                self.schedule_at(&shard, now);
            }
            Command::End { shard, incarnation, end, answer } => {
                self.begin_end(&shard, incarnation, end, answer, now);
            }
            Command::Read { .. } => {}
        }
    }

    /// Stops renewing and forgets every lease; consumers see them as lost.
    pub(crate) fn abandon_all(&mut self, reason: &LossReason) {
        let shards: Vec<ShardId> = self.slots.keys().cloned().collect();
        for shard in shards {
            self.drop_slot(&shard, reason.clone());
        }
    }

    /// The attempts to be sent now, oldest due first, at most as many as may be under way.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        while self.in_flight < self.settings.max_writes {
            let Some((due, shard)) = self.schedule.first().cloned() else { break };
            if due > now {
                break;
            }
            self.schedule.remove(&(due, shard.clone()));
            if let Some(slot) = self.slots.get_mut(&shard) {
                slot.due = None;
            }
            if let Some(attempt) = self.start(&shard, now) {
                self.in_flight += 1;
                attempts.push(attempt);
            }
        }
        attempts
    }

    /// Takes the answer of an attempt that was sent at `sent`.
    pub(crate) fn answered(
        &mut self,
        (shard, attempt): (&ShardId, u64),
        result: Result<Write, Arc<StoreError>>,
        sent: Instant,
        now: Instant,
    ) {
        let Some(slot) = self.slots.get_mut(shard) else { return };
        // An answer that comes after its lease was dropped says nothing about a later hold of it.
        let Some(operation) = slot.operation.as_mut().filter(|o| o.in_flight == Some(attempt)) else {
            return;
        };
        self.in_flight -= 1;
        operation.in_flight = None;
        match result {
            Err(error) => {
                if let Some(operation) = self.slots.get(shard).and_then(|slot| slot.operation.as_ref()) {
                    self.tell(&operation.goal, now - sent, false);
                }
                self.failed(shard, error, sent, now);
            }
            Ok(write) => {
                let repeated = operation.unanswered;
                let verdict = match &operation.call {
                    Call::Update(verb) => verb.judge(write, repeated),
                    Call::Create(lease) => judge_create(lease, write, repeated),
                };
                // The answered attempt wrote the row no earlier than it was sent; a row recognised by its token
                // may have been written by any earlier attempt.
                let first = operation.first_sent.unwrap_or(sent);
                slot.backoff.reset();
                let Some(operation) = slot.operation.take() else { return };
                self.tell(&operation.goal, now - sent, matches!(verdict, Verdict::InForce(_)));
                match verdict {
                    Verdict::InForce(row) => {
                        let written_after = if repeated { first } else { sent };
                        let written_after =
                            if planted(Plant::ValidityFromAnswer) { now } else { written_after };
                        self.confirmed(shard, operation.goal, row, written_after, now);
                    }
                    Verdict::Overwritten(row) => self.overwritten(shard, operation.goal, row, now),
                    Verdict::Refused(row) => self.refused(shard, operation.goal, row, now),
                }
            }
        }
    }

    fn start(&mut self, shard: &ShardId, now: Instant) -> Option<Attempt> {
        let token = self.token();
        let slot = self.slots.get_mut(shard)?;
        if slot.operation.is_none() {
            let State::Held(held) = &mut slot.state else { return None };
            let proof = (&self.settings.proof, self.settings.renewal_interval());
            slot.operation = held.next_operation(token, now, proof);
            if slot.operation.is_none() {
                let next = held.next_renewal;
                self.schedule_at(shard, next);
                return None;
            }
        }
        let operation = slot.operation.as_mut()?;
        if operation.in_flight.is_some() {
            return None;
        }
        self.attempts += 1;
        let number = self.attempts;
        operation.in_flight = Some(number);
        operation.first_sent.get_or_insert(now);
        let time_out = self.settings.time_out(&operation.goal, operation.failures);
        Some(Attempt { shard: shard.clone(), number, call: operation.call.clone(), time_out })
    }

    fn begin_end(&mut self, shard: &ShardId, incarnation: u64, end: EndShard, answer: Answer, now: Instant) {
        let me = self.me.clone();
        let token = self.token();
        let Some(held) = self.held_mut(shard, incarnation) else { return refuse(answer) };
        if let Some(ending) = held.end.as_mut() {
            ending.answers.push(answer);
            return;
        }
        let row = held.row.clone();
        let children =
            crate::plan::child_leases(&row, &end.children, &me, self.settings.initial, &self.settings.stream);
        let ids: BTreeSet<ShardId> = children.iter().map(|child| child.shard.clone()).collect();
        let mut without_lease = BTreeSet::new();
        let mut to_create = Vec::new();
        for mut child in children {
            child.token = Some(token);
            match self.slots.get_mut(&child.shard).map(|slot| &mut slot.state) {
                // The other parent of a merge ends at the same time: its creation is waited for by both.
                Some(State::Acquiring { parents, .. }) if !parents.is_empty() => {
                    parents.insert(shard.clone());
                    without_lease.insert(child.shard);
                }
                Some(State::Acquiring { .. } | State::Held(_)) => {}
                None => {
                    without_lease.insert(child.shard.clone());
                    to_create.push(child);
                }
            }
        }
        if planted(Plant::ParentBeforeChildren) {
            without_lease.clear();
        }
        let ready = without_lease.is_empty();
        if let Some(held) = self.held_mut(shard, incarnation) {
            held.end = Some(Ending { children: ids, without_lease, answers: vec![answer] });
        }
        for child in to_create {
            let state = State::Acquiring {
                how: Acquisition::Take,
                reason: format!("child of {shard}"),
                parents: BTreeSet::from([shard.clone()]),
            };
            let operation = Operation::new(Goal::CreateChild, Call::Create(child.clone()));
            self.insert(child.shard, state, operation, now);
        }
        if ready {
            self.schedule_at(shard, now);
        }
    }

    fn token(&self) -> AttemptToken {
        AttemptToken(self.entropy.uuid())
    }

    fn held_mut(&mut self, shard: &ShardId, incarnation: u64) -> Option<&mut Held> {
        match self.slots.get_mut(shard).map(|slot| &mut slot.state) {
            Some(State::Held(held)) if held.handle.incarnation() == incarnation && !held.handle.is_lost() => {
                Some(held)
            }
            _ => None,
        }
    }

    fn insert(&mut self, shard: ShardId, state: State, operation: Operation, now: Instant) {
        let cap = self.settings.lease_duration / 10;
        let backoff = Backoff::new(Duration::from_millis(50).min(cap), cap, self.entropy.clone());
        let slot = Slot { state, operation: Some(operation), due: None, backoff };
        self.slots.insert(shard.clone(), slot);
        self.schedule_at(&shard, now);
    }

    /// Moves the slot's wake-up to `at`, or leaves an earlier one.
    fn schedule_at(&mut self, shard: &ShardId, at: Instant) {
        let Some(slot) = self.slots.get_mut(shard) else { return };
        if slot.operation.as_ref().is_some_and(|operation| operation.in_flight.is_some()) {
            return;
        }
        if let Some(due) = slot.due {
            if due <= at {
                return;
            }
            self.schedule.remove(&(due, shard.clone()));
        }
        slot.due = Some(at);
        self.schedule.insert((at, shard.clone()));
    }

    fn remove(&mut self, shard: &ShardId) -> Option<Slot> {
        let slot = self.slots.remove(shard)?;
        if let Some(due) = slot.due {
            self.schedule.remove(&(due, shard.clone()));
        }
        Some(slot)
    }

    /// Forgets a lease and tells whoever holds a handle.
    fn drop_slot(&mut self, shard: &ShardId, reason: LossReason) {
        let Some(slot) = self.remove(shard) else { return };
        if slot.operation.as_ref().is_some_and(|operation| operation.in_flight.is_some()) {
            // The answer will find no slot, or another attempt in it; its place is given back here.
            self.in_flight -= 1;
        }
        if let State::Held(held) = slot.state {
            if held.liveness.runs() {
                self.ending.insert(shard.clone(), Arc::clone(&held.liveness));
            }
            held.standing.send_modify(|standing| standing.phase = Phase::Lost(reason.clone()));
            for (_, answer) in held.checkpoints {
                refuse(answer);
            }
            if let Some((_, _, answer)) = held.release {
                refuse(answer);
            }
            if let Some(ending) = held.end {
                ending.answers.into_iter().for_each(refuse);
            }
            self.changed = true;
            self.outcomes.push(Outcome::Lost { shard: shard.clone(), reason });
        }
    }
}

impl Operation {
    const fn new(goal: Goal, call: Call) -> Self {
        Self { goal, call, first_sent: None, unanswered: false, in_flight: None, failures: 0 }
    }
}

fn judge_create(lease: &Lease, answer: Write, sent_before: bool) -> Verdict {
    match answer {
        Write::Applied(row) => Verdict::InForce(row),
        Write::Conflict(Some(row)) if sent_before && row.token.is_some() && row.token == lease.token => {
            if row.counter == lease.counter { Verdict::InForce(row) } else { Verdict::Overwritten(row) }
        }
        Write::Conflict(row) => Verdict::Refused(row),
    }
}

// A consumer that no longer waits for its answer has none to miss.
fn accept(answer: Answer) {
    let _ = answer.send(Ok(()));
}

fn refuse(answer: Answer) {
    let _ = answer.send(Err(CheckpointError::LeaseLost));
}
