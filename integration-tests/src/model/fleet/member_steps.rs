//! The steps of members: join, heartbeat, view, evict, leave.

use super::state::{
    Entry, IDS, LEASES, Message, MessageKind, Mode, NONE, Pending, Presence, Sight, State, Worker,
};
use super::{Action, Fleet, rules};
use crate::model::broken::Broken;

/// What a copy of a heartbeat says: its number is in the entry.
const LANDED: u8 = 1;
/// The number in the entry is a later one.
const PASSED: u8 = 2;

impl Fleet {
    pub(super) fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => self.tick(state),
            Action::JoinSend(worker, row) => self.join_send(state, worker, row),
            Action::JoinLand(worker) => self.join_land(state, worker),
            Action::JoinAnswer(worker) => {
                let it = &mut state.workers[worker];
                it.mode = Mode::In;
                it.valid = it.pending_age;
                it.pending = Pending::None;
            }
            Action::JoinAbandon(worker) => {
                let it = &mut state.workers[worker];
                *it = Worker { callbacks: it.callbacks, ..Worker::OUT };
            }
            Action::JoinRepeat(worker) => state.workers[worker].pending_age = 0,
            Action::BeatSend(worker) => {
                let it = &mut state.workers[worker];
                it.pending = Pending::Sent;
                it.pending_age = 0;
            }
            Action::BeatLand(worker) => self.beat_land(state, worker),
            Action::BeatLandTwice(worker) => {
                let id = state.workers[worker].me;
                self.beat_land(state, worker);
                if state.workers[worker].pending == Pending::Landed {
                    state.post(Message {
                        kind: MessageKind::Beat,
                        id,
                        argument: LANDED,
                        ..Message::default()
                    });
                }
            }
            Action::BeatAnswer(worker) => {
                let from_answer = self.is(Broken::ValidFromAnswer);
                let it = &mut state.workers[worker];
                it.valid = if from_answer { 0 } else { it.valid.min(it.pending_age) };
                it.pending = Pending::None;
                if self.is(Broken::SameNumber) {
                    it.mark = 0;
                }
            }
            Action::BeatLose(worker) => {
                let it = &mut state.workers[worker];
                if self.is(Broken::SameNumber) && it.pending == Pending::Landed {
                    it.mark = 1;
                }
                it.pending = Pending::None;
            }
            Action::BeatLeave(worker) => {
                state.workers[worker].pending = Pending::None;
                let id = state.workers[worker].me;
                state.post(Message { kind: MessageKind::Beat, id, ..Message::default() });
            }
            Action::View(worker, row) => self.view(state, worker, row),
            Action::ViewAsk(worker, row) => {
                let live = state.live(row);
                let it = &mut state.workers[worker];
                it.mark = 1;
                if self.is(Broken::EvidenceAskedBefore) {
                    it.seen = live;
                }
            }
            Action::ViewArrive(worker) => {
                let it = &mut state.workers[worker];
                for view in it.views.iter_mut().filter(|view| view.known && view.owner != NONE) {
                    view.absent |= it.seen & (1 << view.owner) == 0;
                }
                (it.seen, it.mark) = (0, 0);
            }
            Action::Evict(_, id) => self.evict(state, id),
            Action::EvictLate(_, id) => {
                state.post(Message { kind: MessageKind::Evict, id, ..Message::default() });
            }
            Action::Leave(worker) => self.leave(state, worker),
            Action::DeleteRow(worker) => {
                for entry in &mut state.entries {
                    entry.presence = Presence::Absent;
                }
                state.workers[worker].mode = self.mode_after_life();
            }
            Action::Crash(worker) => {
                state.workers[worker] = Worker { mode: self.mode_after_life(), ..Worker::OUT }
            }
            Action::Land(place) => self.land(state, place),
            Action::Lose(place) => state.bag[place] = Message::default(),
            _ => self.lease_step(state, action),
        }
    }

    fn mode_after_life(&self) -> Mode {
        if self.config.rejoin { Mode::Out } else { Mode::Down }
    }

    fn tick(&self, state: &mut State) {
        let validity = self.validity();
        for (worker, rate) in state.workers[..self.config.workers].iter_mut().zip(self.config.rates) {
            if worker.mode == Mode::In {
                worker.valid = validity.min(worker.valid + rate);
            }
            if worker.pending != Pending::None {
                worker.pending_age = validity.min(worker.pending_age + rate);
            }
            for sight in &mut worker.sights {
                sight.fresh = false;
            }
            if self.is(Broken::StampAtSend) && worker.mark == 1 {
                worker.mark = 2;
            }
        }
    }

    fn join_send(&self, state: &mut State, worker: usize, row: u8) {
        let again = state.workers[worker].me;
        let id = if again == NONE { state.unused_id() } else { Some(again) };
        let Some(id) = id else { return };
        let it = &mut state.workers[worker];
        (it.mode, it.me, it.pending, it.pending_age) = (Mode::Joining, id, Pending::Sent, 0);
        state.entries[usize::from(id)].row = row;
    }

    fn join_land(&self, state: &mut State, worker: usize) {
        state.workers[worker].pending = Pending::Landed;
        let me = state.workers[worker].me;
        let entry = &mut state.entries[usize::from(me)];
        if rules::join_applies(*entry) {
            if entry.moved {
                // Numbers begin again below those that were seen.
                for other in &mut state.workers {
                    other.sights[usize::from(me)] = Sight::default();
                }
            }
            *entry = Entry { presence: Presence::Live, row: entry.row, moved: false };
        }
    }

    fn beat_land(&self, state: &mut State, worker: usize) {
        let it = state.workers[worker];
        let entry = state.entry(it.me);
        if self.is(Broken::SameNumber) && it.mark == 1 && entry.is_live() {
            // The number is in the entry already: nothing changes, and yet the answer says that it is.
            state.workers[worker].pending = Pending::Landed;
        } else if rules::beat_applies(entry, true) {
            state.workers[worker].pending = Pending::Landed;
            self.number_changed(state, it.me);
        } else if rules::refusal_is_eviction(entry) {
            let me = if self.is(Broken::SameId) { it.me } else { NONE };
            let mut out = Worker { mode: self.mode_after_life(), me, callbacks: it.callbacks, ..Worker::OUT };
            for lease in 0..LEASES {
                out.drop_hold(lease);
            }
            state.workers[worker] = out;
        }
    }

    /// The number of an entry is a new one: nobody has seen it yet, and evictions under way ask for another.
    fn number_changed(&self, state: &mut State, id: u8) {
        if self.is(Broken::BeatUnconditionally) {
            return Self::number_changed_beside_copy(state, id);
        }
        for worker in &mut state.workers {
            let sight = &mut worker.sights[usize::from(id)];
            sight.old = sight.known;
            if !self.keeps_old_sightings() {
                *sight = Sight::default();
            }
        }
        for message in &mut state.bag {
            if message.id == id && matches!(message.kind, MessageKind::Evict | MessageKind::Beat) {
                *message = Message::default();
            }
        }
        if self.is(Broken::SameId) {
            state.entries[usize::from(id)].moved = true;
        }
    }

    /// The same, where a copy of an earlier heartbeat may bring its number back: sightings of that one are kept.
    fn number_changed_beside_copy(state: &mut State, id: u8) {
        let is_copy = |message: &&mut Message| message.kind == MessageKind::Beat && message.id == id;
        let copy =
            state.bag.iter_mut().find(is_copy).map(|copy| std::mem::replace(&mut copy.argument, PASSED));
        for worker in &mut state.workers {
            let sight = &mut worker.sights[usize::from(id)];
            match copy {
                Some(LANDED) if sight.known => sight.old = true,
                Some(_) if sight.old => {}
                _ => *sight = Sight::default(),
            }
        }
    }

    /// A copy lands: its number is the one in the entry, or is so again.
    fn copy_landed(state: &mut State, copy: Message) {
        if copy.argument == PASSED {
            for worker in &mut state.workers {
                let sight = &mut worker.sights[usize::from(copy.id)];
                *sight = if sight.old { Sight { old: false, ..*sight } } else { Sight::default() };
            }
        }
    }

    fn view(&self, state: &mut State, worker: usize, row: u8) {
        let (entries, live) = (state.entries, state.live(row));
        let (patience, rate) = (self.patience(), self.config.rates[worker]);
        let it = &mut state.workers[worker];
        let own_row = entries[usize::from(it.me)].row;
        for id in (0..IDS).filter(|&id| id != usize::from(it.me) && live & (1 << id) != 0) {
            let first = !it.sights[id].known;
            it.sights[id] = rules::view(it.sights[id], patience, rate);
            if first && self.is(Broken::StampAtSend) && it.mark == 2 {
                (it.sights[id].still, it.sights[id].fresh) = (1, true);
            }
        }
        for view in it.views.iter_mut().filter(|view| view.known && view.owner != NONE) {
            let entry = entries[usize::from(view.owner)];
            let counts = if self.is(Broken::OwnRowOnly) {
                row == own_row && (entry.row != row || rules::proves_gone(entry))
            } else {
                entry.row == row && rules::proves_gone(entry)
            };
            view.absent |= counts;
        }
        match self.broken {
            Some(Broken::StampAtSend) => it.mark = 0,
            Some(Broken::OldEvidence) => (it.mark, it.seen) = (1, live),
            _ => {}
        }
    }

    fn evict(&self, state: &mut State, id: u8) {
        let same = true;
        if rules::evict_applies(state.entry(id), same) {
            state.entries[usize::from(id)].presence = Presence::Absent;
        }
    }

    fn leave(&self, state: &mut State, worker: usize) {
        let it = state.workers[worker];
        let row = state.entry(it.me).row;
        state.entries[usize::from(it.me)].presence = match state.entry(it.me).presence {
            Presence::Live => Presence::Gone,
            presence => presence,
        };
        for message in state.bag.iter_mut().filter(|message| message.id == it.me) {
            if matches!(message.kind, MessageKind::Evict | MessageKind::Beat) {
                *message = Message::default();
            }
        }
        let last = self.is(Broken::DeleteUnconditionally) && state.live(row) == 0;
        let mode = if last { Mode::Deleting } else { self.mode_after_life() };
        state.workers[worker] = Worker { mode, callbacks: it.callbacks, ..Worker::OUT };
    }

    fn land(&self, state: &mut State, place: usize) {
        let message = std::mem::take(&mut state.bag[place]);
        match message.kind {
            MessageKind::Beat if message.argument != 0 => Self::copy_landed(state, message),
            MessageKind::Beat => {
                if rules::beat_applies(state.entry(message.id), true) {
                    self.number_changed(state, message.id);
                }
            }
            MessageKind::Evict => self.evict(state, message.id),
            MessageKind::None => {}
            _ => self.land_on_lease(state, message),
        }
    }
}

impl State {
    pub(super) fn post(&mut self, message: Message) {
        if let Some(place) = self.bag.iter_mut().find(|place| place.kind == MessageKind::None) {
            *place = message;
        }
    }

    fn unused_id(&self) -> Option<u8> {
        let used = self.references();
        (0..IDS as u8).find(|&id| used & (1 << id) == 0)
    }

    /// Whether this worker has an unsettled write on this lease.
    pub(super) fn is_unsettled(&self, worker: usize, lease: usize) -> bool {
        self.workers.get(worker).is_some_and(|it| it.holds[lease].state.unsettled())
    }
}
