//! The normal form of a state: what nobody can tell apart is made equal, so that the state space is finite.

use std::fmt;

use super::Fleet;
use super::state::{
    Entry, HoldState, IDS, LEASES, MessageKind, Mode, NONE, Pending, Sight, State, WORKERS, Worker,
};
use crate::model::broken::Broken;

/// The orders of up to three workers.
const ORDERS: [[usize; WORKERS]; 6] = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl State {
    /// The ids that something refers to, as bits. An entry that nothing else refers to changes nothing for anybody:
    /// its id owns no lease and never will.
    pub(super) fn references(&self) -> u8 {
        let ids = self.workers.iter().flat_map(|worker| {
            let views = worker.views.iter().filter(|view| view.known).map(|view| view.owner);
            let holds =
                worker.holds.iter().filter(|hold| hold.state == HoldState::Giving).map(|hold| hold.argument);
            std::iter::once(worker.me).chain(views).chain(holds)
        });
        let messages =
            self.bag.iter().filter(|message| message.kind != MessageKind::None).flat_map(|message| {
                let to = if message.kind == MessageKind::Give { message.argument } else { NONE };
                [message.id, to]
            });
        ids.chain(messages)
            .chain(self.leases.iter().map(|lease| lease.owner))
            .filter(|&id| id != NONE)
            .fold(0, |bits, id| bits | 1 << id)
    }

    /// The state with workers in this order and ids in the order in which they are met.
    fn renamed(&self, order: [usize; WORKERS]) -> Self {
        let mut names = Names { new: [NONE; IDS], next: 0 };
        let mut renamed = *self;
        for (place, &worker) in renamed.workers.iter_mut().zip(&order) {
            *place = self.workers[worker];
            place.me = names.of(place.me);
        }
        for lease in &mut renamed.leases {
            lease.owner = names.of(lease.owner);
            lease.token =
                order.iter().position(|&old| old as u8 == lease.token).map_or(NONE, |new| new as u8);
        }
        for message in renamed.bag.iter_mut().filter(|message| message.kind != MessageKind::None) {
            message.id = names.of(message.id);
            if message.kind == MessageKind::Give {
                message.argument = names.of(message.argument);
            }
        }
        for worker in &mut renamed.workers {
            for view in worker.views.iter_mut().filter(|view| view.known) {
                view.owner = names.of(view.owner);
            }
            for hold in worker.holds.iter_mut().filter(|hold| hold.state == HoldState::Giving) {
                hold.argument = names.of(hold.argument);
            }
        }
        for id in (0..IDS as u8).filter(|&id| self.entry(id).is_live()) {
            names.of(id);
        }
        renamed.entries = [Entry::default(); IDS];
        for worker in &mut renamed.workers {
            let (sights, seen) = (std::mem::take(&mut worker.sights), std::mem::take(&mut worker.seen));
            for (old, &new) in names.new.iter().enumerate().filter(|(_, new)| **new != NONE) {
                worker.sights[usize::from(new)] = sights[old];
                worker.seen |= (seen >> old & 1) << new;
            }
        }
        for (old, &new) in names.new.iter().enumerate().filter(|(_, new)| **new != NONE) {
            renamed.entries[usize::from(new)] = self.entries[old];
        }
        renamed.bag.sort_unstable();
        renamed
    }
}

struct Names {
    new: [u8; IDS],
    next: u8,
}

impl Names {
    fn of(&mut self, old: u8) -> u8 {
        if old == NONE {
            return NONE;
        }
        let new = &mut self.new[usize::from(old)];
        if *new == NONE {
            *new = self.next;
            self.next += 1;
        }
        *new
    }
}

impl Fleet {
    pub(super) fn normalise(&self, state: &mut State) {
        for index in 0..self.config.workers {
            let token_of = |lease: usize| state.leases[lease].token == index as u8;
            let tokens: [bool; LEASES] = std::array::from_fn(token_of);
            let worker = &mut state.workers[index];
            if matches!(worker.mode, Mode::Down | Mode::Deleting) {
                *worker = Worker { mode: worker.mode, ..Worker::OUT };
            }
            if worker.pending == Pending::None {
                worker.pending_age = 0;
            }
            for (lease, token) in tokens.into_iter().enumerate() {
                if token && !worker.holds[lease].state.unsettled() {
                    state.leases[lease].token = NONE;
                }
            }
        }
        // Where nobody joins again there are few ids, and a lease may be given to a member that has crashed.
        let kept =
            if self.config.rejoin { 0 } else { (0..self.config.rows).map(|row| state.live(row)).sum() };
        let used = state.references() | kept;
        for id in 0..IDS {
            let used = used & (1 << id) != 0;
            if !used {
                state.entries[id] = Entry::default();
            }
            let forgotten = !used || !state.entries[id].is_live() && !self.is(Broken::SameId);
            for worker in &mut state.workers {
                if forgotten {
                    worker.sights[id] = Sight::default();
                }
                if !used {
                    worker.seen &= !(1 << id);
                }
            }
            if forgotten {
                for message in state.bag.iter_mut().filter(|message| usize::from(message.id) == id) {
                    if matches!(message.kind, MessageKind::Beat | MessageKind::Evict) {
                        *message = super::Message::default();
                    }
                }
            }
        }
        state.bag.sort_unstable();
        if self.config.symmetry {
            let orders = &ORDERS[..[1, 1, 2, 6][self.config.workers]];
            let least = orders.iter().map(|&order| state.renamed(order)).min();
            *state = least.unwrap_or(*state);
        }
    }
}

pub(super) fn describe(state: &State, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (lease, row) in state.leases.iter().enumerate() {
        write!(f, "lease {lease}: {} at {}; ", Id(row.owner), row.checkpoint)?;
    }
    for (id, entry) in state.entries.iter().enumerate().filter(|(_, entry)| **entry != Entry::default()) {
        write!(f, "{}: {:?} in row {}; ", Id(id as u8), entry.presence, entry.row)?;
    }
    for message in state.bag.iter().filter(|message| message.kind != MessageKind::None) {
        write!(f, "{:?} of {} on its way; ", message.kind, Id(message.id))?;
    }
    for (index, worker) in state.workers.iter().enumerate().filter(|(_, worker)| **worker != Worker::OUT) {
        write!(f, "\n      worker {index} is {:?} as {}", worker.mode, Id(worker.me))?;
        write!(f, ", confirmed attempt {} ticks old", worker.valid)?;
        if worker.pending != Pending::None {
            write!(f, ", pending {:?} {} ticks old", worker.pending, worker.pending_age)?;
        }
        for (id, sight) in worker.sights.iter().enumerate().filter(|(_, sight)| sight.known) {
            write!(f, ", saw {} still for {}", Id(id as u8), sight.still)?;
        }
        for (lease, view) in worker.views.iter().enumerate().filter(|(_, view)| view.known) {
            let (old, gone) = (if view.old { "once " } else { "" }, if view.absent { " (gone)" } else { "" });
            write!(f, ", read lease {lease}: {old}{}{gone}", Id(view.owner))?;
        }
        for (lease, hold) in worker.holds.iter().enumerate().filter(|(_, hold)| hold.state != HoldState::None)
        {
            let lost = if hold.current { "" } else { ", counter passed" };
            write!(f, ", lease {lease} {:?} at {}{lost}", hold.state, hold.position)?;
        }
        for (lease, callbacks) in worker.callbacks.iter().enumerate().filter(|(_, c)| !c.is_idle()) {
            write!(f, ", callbacks of {lease}: {callbacks:?}")?;
        }
    }
    Ok(())
}

struct Id(u8);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NONE => f.write_str("nobody"),
            id => write!(f, "m{id}"),
        }
    }
}
