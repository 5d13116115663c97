//! The steps on leases: read, take, adopt, give, release, checkpoint, and how writes without an answer are settled.

use super::state::{Bad, Hold, HoldState, LeaseView, Message, MessageKind, NONE, State};
use super::{Action, Fleet};
use crate::model::broken::Broken;

impl Fleet {
    pub(super) fn lease_step(&self, state: &mut State, action: Action) {
        match action {
            Action::Read(worker, lease) => {
                let owner = state.leases[lease].owner;
                state.workers[worker].views[lease] =
                    LeaseView { known: true, old: false, owner, absent: false };
            }
            Action::Take(worker, lease) => {
                let me = state.workers[worker].me;
                self.write(state, lease, |row| row.owner = me);
                self.hold(state, worker, lease, true);
            }
            Action::TakeLate(worker, lease) => {
                state.send(worker, lease, MessageKind::Take, 0);
                state.workers[worker].views[lease] = LeaseView::default();
            }
            Action::Adopt(worker, lease) => {
                let current = !state.workers[worker].views[lease].old;
                if !self.is(Broken::StartWithoutAdopting) {
                    self.write(state, lease, |_| {});
                }
                self.hold(state, worker, lease, current);
            }
            Action::Begin(worker, lease) => state.workers[worker].callbacks[lease].present = true,
            Action::Return(worker, lease) => {
                let callbacks = &mut state.workers[worker].callbacks[lease];
                if callbacks.earlier { callbacks.earlier = false } else { callbacks.present = false }
            }
            Action::Stop(worker, lease) => state.workers[worker].holds[lease].state = HoldState::Stopped,
            Action::Resume(worker, lease) => state.workers[worker].holds[lease].state = HoldState::Active,
            Action::Give(worker, lease, to) => self.give(state, worker, lease, to),
            Action::Release(worker, lease) => self.give(state, worker, lease, NONE),
            Action::GiveLate(worker, lease, to) => {
                state.send(worker, lease, MessageKind::Give, to);
                state.unsettle(worker, lease, HoldState::Giving, to);
            }
            Action::ReleaseLate(worker, lease) => {
                state.send(worker, lease, MessageKind::Release, 0);
                state.unsettle(worker, lease, HoldState::Releasing, NONE);
            }
            Action::Checkpoint(worker, lease) => self.checkpoint(state, worker, lease),
            Action::CheckpointLate(worker, lease) => {
                let position = state.workers[worker].holds[lease].position + 1;
                state.send(worker, lease, MessageKind::Checkpoint, position);
                state.unsettle(worker, lease, HoldState::Checkpointing, position);
            }
            Action::Repeat(worker, lease) => self.repeat(state, worker, lease),
            Action::Fence(worker, lease) => self.fence(state, worker, lease),
            Action::Settle(worker, lease) => {
                let hold = &mut state.workers[worker].holds[lease];
                if hold.state == HoldState::Checkpointing {
                    // "Not applied": the next checkpoint goes beyond that one, with the same counter.
                    hold.argument = self.config.positions.min(hold.argument + 1);
                } else {
                    hold.state = HoldState::Active;
                }
            }
            _ => {}
        }
    }

    /// A write that is applied: the counter of the row is a new one. What others know of the old one is of no use to
    /// them any more, and what is under way and asks for it will be refused.
    fn write(&self, state: &mut State, lease: usize, change: impl FnOnce(&mut super::state::LeaseRow)) {
        let row = &mut state.leases[lease];
        row.token = NONE;
        change(row);
        for worker in &mut state.workers {
            worker.holds[lease].current = false;
            let view = &mut worker.views[lease];
            view.old = view.known;
            if !self.keeps_old_views() {
                *view = LeaseView::default();
            }
        }
        for message in state.bag.iter_mut().filter(|message| usize::from(message.lease) == lease) {
            let unconditional =
                message.kind == MessageKind::Checkpoint && self.is(Broken::CheckpointUnconditionally);
            if !matches!(message.kind, MessageKind::None | MessageKind::Beat | MessageKind::Evict)
                && !unconditional
            {
                *message = Message::default();
            }
        }
    }

    /// A take or an adoption was answered as applied.
    fn hold(&self, state: &mut State, worker: usize, lease: usize, current: bool) {
        let position = state.leases[lease].checkpoint;
        let it = &mut state.workers[worker];
        it.holds[lease] = Hold { state: HoldState::Active, current, position, argument: 0 };
        if !self.is(Broken::StartWithoutAdopting) {
            it.views[lease] = LeaseView::default();
        }
    }

    fn give(&self, state: &mut State, worker: usize, lease: usize, to: u8) {
        let hold = state.workers[worker].holds[lease];
        if hold.current {
            self.write(state, lease, |row| row.owner = to);
        }
        let goes_on = self.is(Broken::GiveWithoutStopping) && hold.state == HoldState::Active && hold.current;
        if !goes_on {
            state.workers[worker].drop_hold(lease);
        }
    }

    fn checkpoint(&self, state: &mut State, worker: usize, lease: usize) {
        let hold = state.workers[worker].holds[lease];
        if hold.current || self.is(Broken::CheckpointUnconditionally) {
            let position = hold.position + 1;
            self.store(state, lease, position);
            let hold = &mut state.workers[worker].holds[lease];
            (hold.current, hold.position) = (true, position);
        } else {
            state.workers[worker].drop_hold(lease);
        }
    }

    fn store(&self, state: &mut State, lease: usize, position: u8) {
        if position < state.leases[lease].checkpoint {
            state.bad = Bad::Checkpoint;
        }
        self.write(state, lease, |row| row.checkpoint = position);
    }

    fn repeat(&self, state: &mut State, worker: usize, lease: usize) {
        let hold = state.workers[worker].holds[lease];
        let mine = state.leases[lease].token == worker as u8;
        if !hold.current && !mine {
            state.workers[worker].drop_hold(lease);
            return;
        }
        match hold.state {
            HoldState::Checkpointing => {
                if hold.current {
                    self.store(state, lease, hold.argument);
                } else if state.leases[lease].checkpoint != hold.argument {
                    state.bad = Bad::Checkpoint;
                }
                let state_after =
                    Hold { state: HoldState::Active, current: true, position: hold.argument, argument: 0 };
                state.workers[worker].holds[lease] = state_after;
                state.leases[lease].token = NONE;
            }
            _ => {
                if hold.current {
                    self.write(state, lease, |row| row.owner = hold.argument);
                }
                state.workers[worker].drop_hold(lease);
            }
        }
    }

    fn fence(&self, state: &mut State, worker: usize, lease: usize) {
        let hold = state.workers[worker].holds[lease];
        if !hold.current {
            state.workers[worker].drop_hold(lease);
            return;
        }
        self.write(state, lease, |_| {});
        let after =
            if hold.state == HoldState::Checkpointing { HoldState::Active } else { HoldState::Stopped };
        state.workers[worker].holds[lease] =
            Hold { state: after, current: true, position: hold.position, argument: 0 };
    }

    /// A write on a lease that nobody waits for lands. Its condition holds, or it would have been forgotten.
    pub(super) fn land_on_lease(&self, state: &mut State, message: Message) {
        let lease = usize::from(message.lease);
        match message.kind {
            MessageKind::Take => self.write(state, lease, |row| row.owner = message.id),
            MessageKind::Give => self.write(state, lease, |row| row.owner = message.argument),
            MessageKind::Release => self.write(state, lease, |row| row.owner = NONE),
            _ => self.store(state, lease, message.argument),
        }
        let sender = state.workers.iter().position(|worker| worker.me == message.id);
        if let Some(sender) = sender.filter(|&sender| state.is_unsettled(sender, lease)) {
            state.leases[lease].token = sender as u8;
        }
    }
}

impl State {
    fn send(&mut self, worker: usize, lease: usize, kind: MessageKind, argument: u8) {
        let id = self.workers[worker].me;
        self.post(Message { kind, id, lease: lease as u8, argument });
    }

    fn unsettle(&mut self, worker: usize, lease: usize, state: HoldState, argument: u8) {
        let hold = &mut self.workers[worker].holds[lease];
        (hold.state, hold.argument) = (state, argument);
    }
}
