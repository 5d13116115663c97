//! The end of a shard and the start of its children (R9, R5b), above leases that have one owner at a time.
//!
//! Any worker may die between any two steps; its leases are then taken by others, who begin where the row says.

use stateright::{Model, Property};

const WORKERS: usize = 3;

/// The rule that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// R9: who creates the children starts them before `SHARD_END` is stored.
    StartBeforeEnd,
    /// R5b: children are started once one parent is at `SHARD_END`.
    NoGate,
    /// R9: `SHARD_END` is stored before the children are created.
    EndBeforeChildren,
    /// R5b: the owner of a child learns of the end of those parents alone that it ends itself.
    NoWatch,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::StartBeforeEnd, Self::NoGate, Self::EndBeforeChildren, Self::NoWatch];

    /// The name for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartBeforeEnd => "start-before-end",
            Self::NoGate => "no-gate",
            Self::EndBeforeChildren => "end-before-children",
            Self::NoWatch => "no-watch",
        }
    }

    /// The property that must fall.
    #[must_use]
    pub const fn property(self) -> &'static str {
        match self {
            Self::EndBeforeChildren => "CHILD",
            Self::NoWatch => "WAY",
            _ => "S-1",
        }
    }
}

/// How far the owner of a parent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Parent {
    /// It reads, or is about to.
    Reading,
    /// It has processed the last record; the row does not say so yet.
    AtEnd,
    /// The row is at `SHARD_END`.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Child {
    owner: usize,
    started: bool,
    /// Which parents its owner has seen at `SHARD_END`.
    seen: [bool; 2],
}

/// A state: who owns what, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    alive: [bool; WORKERS],
    parents: Vec<(usize, Parent)>,
    children: Vec<Option<Child>>,
}

/// A step. Leases are numbered, parents first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The owner of a parent processes its last record.
    ReachEnd(usize),
    /// The owner of a parent creates the lease of a child, owned by itself, if it is absent.
    Create(usize, usize),
    /// The owner of a parent stores `SHARD_END`.
    End(usize),
    /// The owner of a child reads the row of a parent.
    Watch(usize, usize),
    /// The owner of a child starts it.
    Start(usize),
    /// A worker gets a lease: its owner gave it, or died.
    Move(usize, usize),
    /// A worker dies.
    Die(usize),
}

/// The model: a merge has two parents, a split two children.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// How many parents: 1 or 2.
    pub parents: usize,
    /// How many children.
    pub children: usize,
    /// The rule that is removed, if any.
    pub broken: Option<Broken>,
}

impl Split {
    /// Two shards become one.
    pub const MERGE: Self = Self { parents: 2, children: 1, broken: None };
    /// One shard becomes two.
    pub const SPLIT: Self = Self { parents: 1, children: 2, broken: None };

    fn may_start(&self, state: &State, child: &Child) -> bool {
        let seen = &child.seen[..self.parents];
        match self.broken {
            Some(Broken::StartBeforeEnd) => {
                seen.iter().all(|&seen| seen)
                    || state
                        .parents
                        .iter()
                        .any(|&(owner, phase)| owner == child.owner && phase == Parent::AtEnd)
            }
            Some(Broken::NoGate) => seen.iter().any(|&seen| seen),
            _ => seen.iter().all(|&seen| seen),
        }
    }

    /// Whether all children start if nobody else dies and leases leave the dead alone: no step of those that are left
    /// prevents another, so it does not matter in which order they are taken.
    fn has_a_way_out(&self, state: &State) -> bool {
        let mut state = state.clone();
        let mut actions = Vec::new();
        loop {
            if state.children.iter().all(|child| child.is_some_and(|child| child.started)) {
                return true;
            }
            actions.clear();
            self.actions(&state, &mut actions);
            let helps = |action: &Action| match *action {
                Action::Die(_) => false,
                Action::Move(lease, _) => state.owner(lease, self.parents).is_some_and(|it| !state.alive[it]),
                _ => true,
            };
            let mut next =
                actions.iter().filter(|action| helps(action)).map(|&it| self.next_state(&state, it));
            let Some(next) = next.find_map(|next| next) else { return false };
            state = next;
        }
    }
}

impl State {
    fn owner(&self, lease: usize, parents: usize) -> Option<usize> {
        match lease.checked_sub(parents) {
            None => Some(self.parents[lease].0),
            Some(child) => self.children[child].map(|child| child.owner),
        }
    }
}

impl Model for Split {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            alive: [true; WORKERS],
            parents: (0..self.parents).map(|parent| (parent, Parent::Reading)).collect(),
            children: vec![None; self.children],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let created = state.children.iter().all(Option::is_some);
        for (parent, &(owner, phase)) in state.parents.iter().enumerate() {
            match phase {
                Parent::Reading if state.alive[owner] => actions.push(Action::ReachEnd(parent)),
                Parent::AtEnd if state.alive[owner] => {
                    let absent = (0..self.children).filter(|&child| state.children[child].is_none());
                    actions.extend(absent.map(|child| Action::Create(parent, child)));
                    if created || self.broken == Some(Broken::EndBeforeChildren) {
                        actions.push(Action::End(parent));
                    }
                }
                _ => {}
            }
            if phase != Parent::Ended {
                actions.extend((0..WORKERS).filter(|&to| to != owner).map(|to| Action::Move(parent, to)));
            }
        }
        for (index, child) in state.children.iter().enumerate() {
            let Some(child) = child else { continue };
            if state.alive[child.owner] {
                if self.broken != Some(Broken::NoWatch) {
                    actions.extend((0..self.parents).map(|parent| Action::Watch(index, parent)));
                }
                if !child.started && self.may_start(state, child) {
                    actions.push(Action::Start(index));
                }
            }
            let others = (0..WORKERS).filter(|&to| to != child.owner);
            actions.extend(others.map(|to| Action::Move(self.parents + index, to)));
        }
        if state.alive.iter().filter(|&&alive| alive).count() > 1 {
            actions.extend((0..WORKERS).filter(|&worker| state.alive[worker]).map(Action::Die));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::ReachEnd(parent) => next.parents[parent].1 = Parent::AtEnd,
            Action::Create(parent, child) => {
                let owner = next.parents[parent].0;
                next.children[child] = Some(Child { owner, started: false, seen: [false; 2] });
            }
            Action::End(parent) => {
                let owner = next.parents[parent].0;
                next.parents[parent].1 = Parent::Ended;
                let children = next.children.iter_mut().flatten();
                children.filter(|child| child.owner == owner).for_each(|child| child.seen[parent] = true);
            }
            Action::Watch(child, parent) => {
                let ended = next.parents[parent].1 == Parent::Ended;
                next.children[child].as_mut()?.seen[parent] |= ended;
            }
            Action::Start(child) => next.children[child].as_mut()?.started = true,
            Action::Move(lease, to) => {
                if !next.alive[to] {
                    return None;
                }
                if lease < self.parents {
                    next.parents[lease] = (to, Parent::Reading);
                } else {
                    let moved = Child { owner: to, started: false, seen: [false; 2] };
                    next.children[lease - self.parents] = Some(moved);
                }
            }
            Action::Die(worker) => {
                next.alive[worker] = false;
                let children = next.children.iter_mut().flatten();
                children.filter(|child| child.owner == worker).for_each(|child| child.started = false);
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("S-1", |_, state: &State| {
                let started = state.children.iter().flatten().any(|child| child.started);
                !started || state.parents.iter().all(|&(_, phase)| phase == Parent::Ended)
            }),
            Property::always("CHILD", |_, state: &State| {
                let ended = state.parents.iter().any(|&(_, phase)| phase == Parent::Ended);
                !ended || state.children.iter().all(Option::is_some)
            }),
            Property::always("WAY", |model: &Self, state: &State| model.has_a_way_out(state)),
            Property::sometimes("children start", |_, state: &State| {
                state.children.iter().all(|child| child.is_some_and(|child| child.started))
            }),
        ]
    }
}
