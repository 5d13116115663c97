use super::state::{HoldState, IDS, MessageKind, Mode, NONE, Pending, State};
use super::{Fleet, rules};
use crate::model::broken::Broken;

/// A step. The first number is the worker, then what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick passes for everybody.
    Tick,
    /// Sends a join for a fleet row under a new id.
    JoinSend(usize, u8),
    /// The join lands.
    JoinLand(usize),
    /// The join is answered.
    JoinAnswer(usize),
    /// The join is abandoned with its id (R10).
    JoinAbandon(usize),
    /// Variant: the join is repeated under the same id.
    JoinRepeat(usize),
    /// Sends a heartbeat with a new number.
    BeatSend(usize),
    /// The heartbeat lands; if it is refused, the worker learns it.
    BeatLand(usize),
    /// Variant: the heartbeat lands, and a copy of it is on the wire that lands later.
    BeatLandTwice(usize),
    /// The heartbeat is answered.
    BeatAnswer(usize),
    /// The heartbeat, or its answer, is lost.
    BeatLose(usize),
    /// The worker stops to wait for the heartbeat, which may land later.
    BeatLeave(usize),
    /// Reads a fleet row.
    View(usize, u8),
    /// Variant: a view of a fleet row is asked for or served; it arrives later.
    ViewAsk(usize, u8),
    /// Variant: the view that was served arrives.
    ViewArrive(usize),
    /// Removes the entry of an id.
    Evict(usize, u8),
    /// The same without an answer.
    EvictLate(usize, u8),
    /// Leaves (R7).
    Leave(usize),
    /// Variant: deletes the fleet row.
    DeleteRow(usize),
    /// The process dies.
    Crash(usize),
    /// Reads a lease row.
    Read(usize, usize),
    /// Takes a lease.
    Take(usize, usize),
    /// The same without an answer.
    TakeLate(usize, usize),
    /// Adopts a lease that is in its name (R5).
    Adopt(usize, usize),
    /// A callback begins.
    Begin(usize, usize),
    /// A callback returns.
    Return(usize, usize),
    /// Starts no more deliveries of a lease.
    Stop(usize, usize),
    /// Delivers again.
    Resume(usize, usize),
    /// Gives a lease to an id.
    Give(usize, usize, u8),
    /// The same without an answer.
    GiveLate(usize, usize, u8),
    /// Frees a lease.
    Release(usize, usize),
    /// The same without an answer.
    ReleaseLate(usize, usize),
    /// Stores the next position.
    Checkpoint(usize, usize),
    /// The same without an answer.
    CheckpointLate(usize, usize),
    /// Repeats the unanswered write on a lease until it is answered (R10).
    Repeat(usize, usize),
    /// Fences a lease with an unanswered write (R10).
    Fence(usize, usize),
    /// Variant: takes a lease that reads unchanged for one on which nothing was written.
    Settle(usize, usize),
    /// A message lands.
    Land(usize),
    /// A message is lost.
    Lose(usize),
}

impl Fleet {
    pub(super) fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        for worker in 0..self.config.workers {
            match state.workers[worker].mode {
                Mode::Out => {
                    actions.extend((0..self.config.rows).map(|row| Action::JoinSend(worker, row)));
                    self.callbacks(state, worker, actions);
                }
                Mode::Joining => {
                    self.joining(state, worker, actions);
                    self.callbacks(state, worker, actions);
                }
                Mode::In => self.member(state, worker, actions),
                Mode::Deleting => actions.push(Action::DeleteRow(worker)),
                Mode::Down => {}
            }
        }
        for (place, message) in state.bag.iter().enumerate() {
            if message.kind != MessageKind::None {
                actions.extend([Action::Land(place), Action::Lose(place)]);
            }
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.bag.iter().filter(|message| message.kind != MessageKind::None).count() < self.config.in_flight
    }

    fn joining(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let it = &state.workers[worker];
        actions.push(match it.pending {
            Pending::Landed => Action::JoinAnswer(worker),
            _ => Action::JoinLand(worker),
        });
        if self.is(Broken::RepeatedJoin) {
            actions.push(Action::JoinRepeat(worker));
        } else if self.config.lost_beats && self.config.rejoin {
            actions.push(Action::JoinAbandon(worker));
        }
        if self.config.crash {
            actions.push(Action::Crash(worker));
        }
    }

    fn callbacks(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        for lease in 0..self.config.leases {
            if !state.workers[worker].callbacks[lease].is_idle() {
                actions.push(Action::Return(worker, lease));
            }
        }
    }

    fn member(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let it = &state.workers[worker];
        match it.pending {
            Pending::None => actions.push(Action::BeatSend(worker)),
            Pending::Sent => actions.push(Action::BeatLand(worker)),
            Pending::Landed => actions.push(Action::BeatAnswer(worker)),
        }
        if self.is(Broken::BeatUnconditionally) && it.pending == Pending::Sent && self.has_room(state) {
            actions.push(Action::BeatLandTwice(worker));
        }
        if it.pending != Pending::None && self.config.lost_beats {
            actions.push(Action::BeatLose(worker));
            if it.pending == Pending::Sent && self.has_room(state) && !self.is(Broken::SameNumber) {
                actions.push(Action::BeatLeave(worker));
            }
        }
        for row in 0..self.config.rows {
            if !self.is(Broken::StampAtSend) || it.mark > 0 {
                actions.push(Action::View(worker, row));
            }
            let asks = self.is(Broken::StampAtSend) || self.is(Broken::EvidenceAskedBefore);
            if asks && it.mark == 0 {
                actions.push(Action::ViewAsk(worker, row));
            }
        }
        if self.is(Broken::EvidenceAskedBefore) && it.mark > 0 {
            actions.push(Action::ViewArrive(worker));
        }
        for id in (0..IDS as u8).filter(|&id| id != it.me) {
            let sight = it.sights[usize::from(id)];
            let is_asked_for = !sight.old || self.is(Broken::EvictUnconditionally);
            if rules::is_dead(sight, self.patience()) && is_asked_for && state.entry(id).is_live() {
                actions.push(Action::Evict(worker, id));
                if self.config.late_writes && self.has_room(state) {
                    actions.push(Action::EvictLate(worker, id));
                }
            }
        }
        if self.config.leave && it.holds.iter().all(|hold| hold.state == HoldState::None) {
            actions.push(Action::Leave(worker));
        }
        if self.config.crash {
            actions.push(Action::Crash(worker));
        }
        self.callbacks(state, worker, actions);
        for lease in 0..self.config.leases {
            self.idle_lease(state, worker, lease, actions);
            self.held_lease(state, worker, lease, actions);
        }
    }

    fn idle_lease(&self, state: &State, worker: usize, lease: usize, actions: &mut Vec<Action>) {
        let it = &state.workers[worker];
        let view = it.views[lease];
        if it.holds[lease].state != HoldState::None {
            if self.is(Broken::StartWithoutAdopting) && !view.known {
                actions.push(Action::Read(worker, lease));
            }
            return;
        }
        if !view.known || view.old {
            actions.push(Action::Read(worker, lease));
        }
        if !view.known || !(it.is_free_for(lease) || self.is(Broken::RestartBesideOld)) {
            return;
        }
        // What asks for a counter that has passed is refused, which tells no more than another read.
        if view.owner == it.me {
            if !view.old || self.is(Broken::StartWithoutAdopting) {
                actions.push(Action::Adopt(worker, lease));
            }
        } else if view.old && !self.is(Broken::TakeUnconditionally) {
        } else if view.owner == NONE || self.is_absent(state, worker, lease) {
            actions.push(Action::Take(worker, lease));
            if self.config.late_writes && self.has_room(state) {
                actions.push(Action::TakeLate(worker, lease));
            }
        }
    }

    /// R3: whether the worker may believe that the owner it has seen is gone.
    fn is_absent(&self, state: &State, worker: usize, lease: usize) -> bool {
        let it = &state.workers[worker];
        let view = it.views[lease];
        match self.broken {
            Some(Broken::NoEvidence) => true,
            Some(Broken::OldEvidence) => it.mark > 0 && it.seen & (1 << view.owner) == 0,
            _ => view.absent,
        }
    }

    fn held_lease(&self, state: &State, worker: usize, lease: usize, actions: &mut Vec<Action>) {
        let it = &state.workers[worker];
        let hold = it.holds[lease];
        let late = self.config.late_writes && self.has_room(state);
        if self.config.callbacks && self.may_start(it, lease) && !it.callbacks[lease].present {
            actions.push(Action::Begin(worker, lease));
        }
        match hold.state {
            HoldState::None => {}
            HoldState::Active | HoldState::Stopped => {
                if hold.position < self.config.positions {
                    actions.push(Action::Checkpoint(worker, lease));
                    if late && hold.state == HoldState::Active && hold.current {
                        actions.push(Action::CheckpointLate(worker, lease));
                    }
                }
                if !self.config.moves {
                } else if hold.state == HoldState::Active && !self.is(Broken::GiveWithoutStopping) {
                    actions.push(Action::Stop(worker, lease));
                } else if it.callbacks[lease].is_idle() {
                    self.moves(state, worker, lease, late && hold.current, actions);
                }
            }
            _ => {
                actions.extend([Action::Repeat(worker, lease), Action::Fence(worker, lease)]);
                let reads = self.is(Broken::SettleByReading) && hold.state != HoldState::Checkpointing
                    || self.is(Broken::RecognisedByCounter) && hold.state == HoldState::Checkpointing;
                if reads && hold.current {
                    actions.push(Action::Settle(worker, lease));
                }
            }
        }
    }

    fn moves(&self, state: &State, worker: usize, lease: usize, late: bool, actions: &mut Vec<Action>) {
        let it = &state.workers[worker];
        if it.holds[lease].state == HoldState::Stopped {
            actions.push(Action::Resume(worker, lease));
        }
        actions.push(Action::Release(worker, lease));
        if late {
            actions.push(Action::ReleaseLate(worker, lease));
        }
        for id in (0..IDS as u8).filter(|&id| id != it.me && state.entry(id).is_live()) {
            actions.push(Action::Give(worker, lease, id));
            if late {
                actions.push(Action::GiveLate(worker, lease, id));
            }
        }
    }
}
