//! The core model: members with their heartbeats, and the leases they take and move.
//!
//! Any step of any worker may come between any two of another, so a worker may pause at each point, in particular
//! between reading a row and writing to it. Time is a step that ages everybody by one tick of one second.
//!
//! The state keeps no heartbeat numbers and no lease counters, only what the conditions of the writes compare: whether
//! a number or a counter that somebody remembers is still the one in the row. Numbers and counters only grow, so what
//! is not equal once is never equal again, and runs are not bounded in length.

mod actions;
mod config;
mod lease_steps;
mod member_steps;
mod normal;
pub mod rules;
mod state;

pub use actions::Action;
pub use config::Config;
pub use state::{
    Bad, Callbacks, Entry, Hold, HoldState, IDS, LEASES, LeaseRow, LeaseView, Message, MessageKind, Mode,
    NONE, Pending, Presence, Sight, State, WORKERS, Worker,
};

use stateright::{Model, Property};

use super::broken::Broken;

/// The rules within the bounds of a configuration, with at most one of them removed.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// The bounds.
    pub config: Config,
    /// The rule that is removed, if any.
    pub broken: Option<Broken>,
}

impl Fleet {
    /// The unbroken rules within the bounds of `config`.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, broken: None }
    }

    /// The rules without the one that `broken` names.
    #[must_use]
    pub const fn without(config: Config, broken: Broken) -> Self {
        Self { config, broken: Some(broken) }
    }

    pub(crate) fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// R1: whether this worker may start a delivery of this lease now.
    #[must_use]
    pub fn may_start(&self, worker: &Worker, lease: usize) -> bool {
        worker.mode == Mode::In
            && worker.holds[lease].state.delivers()
            && rules::is_valid(worker.valid, self.validity())
    }

    fn starters<'a>(&'a self, state: &'a State, lease: usize) -> impl Iterator<Item = &'a Worker> {
        state.workers.iter().filter(move |worker| self.may_start(worker, lease))
    }

    fn all_starters(&self, state: &State, holds: impl Fn(&Worker, usize) -> bool) -> bool {
        (0..self.config.leases).all(|lease| self.starters(state, lease).all(|worker| holds(worker, lease)))
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.enabled(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action);
        self.normalise(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("L-1", |model: &Self, state: &State| {
                (0..model.config.leases).all(|lease| model.starters(state, lease).count() <= 1)
            }),
            Property::always("OWN", |model: &Self, state: &State| {
                model.all_starters(state, |worker, lease| state.leases[lease].owner == worker.me)
            }),
            Property::always("MEM", |model: &Self, state: &State| {
                model.all_starters(state, |worker, _| state.entry(worker.me).is_live())
            }),
            Property::always("CK", |_, state: &State| state.bad != Bad::Checkpoint),
            Property::always("DBL", |_, state: &State| {
                state
                    .workers
                    .iter()
                    .all(|worker| worker.callbacks.iter().all(|callback| !callback.is_double()))
            }),
            Property::sometimes("two members", |_, state: &State| {
                state.workers.iter().filter(|worker| worker.mode == Mode::In).count() > 1
            }),
            Property::sometimes("a lease whose owner is gone", |_, state: &State| {
                state.leases.iter().any(|row| row.owner != NONE && !state.entry(row.owner).is_live())
            }),
            Property::sometimes(
                "a lease that was lost and is delivered by another",
                |model: &Self, state: &State| {
                    let lost =
                        |it: &Worker| it.holds.iter().any(|hold| hold.state.delivers() && !hold.current);
                    let delivered =
                        (0..model.config.leases).any(|lease| model.starters(state, lease).count() > 0);
                    delivered && state.workers.iter().any(lost)
                },
            ),
        ]
    }
}
