//! Where the absence of a member is looked up, while fleet rows come and go (R3, ids, R8).
//!
//! A worker joins one of two rows; another, in the first row, lowers the number of rows when it has seen the second
//! one empty; an observer has read a lease that the worker owns, and judges whether the worker is gone.

use stateright::{Model, Property};

/// The rule that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// R3: the owner is looked up in the first row only.
    FirstRowOnly,
    /// R3: the owner is looked up in as many rows as the first one says there are.
    HintedRows,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::FirstRowOnly, Self::HintedRows];

    /// The name for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstRowOnly => "first-row-only",
            Self::HintedRows => "hinted-rows",
        }
    }
}

/// Where the joiner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Joiner {
    Out,
    /// It has read how many rows there are.
    Knows(u8),
    /// It is in this row, which its id names, and owns the lease.
    In(u8),
    /// It has left this row.
    Left(u8),
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// How many rows the first one says there are.
    hint: u8,
    joiner: Joiner,
    /// The house-keeper has seen the second row empty.
    seen_empty: bool,
    /// The observer has read the lease and knows the owner's row; then the rows it has looked at without finding it.
    observer: Option<(u8, [bool; 2])>,
    /// How many rows the observer believes in.
    believed: u8,
    /// The observer took somebody living for gone.
    mistaken: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The joiner reads how many rows there are.
    ReadHint,
    /// The joiner joins a row and takes the lease.
    Join(u8),
    /// The joiner leaves.
    Leave,
    /// The house-keeper looks at the second row.
    LookForEmpty,
    /// The house-keeper lowers the number of rows.
    Shrink,
    /// Somebody raises the number of rows.
    Grow,
    /// The observer reads the lease.
    ReadLease,
    /// The observer looks at a row.
    Look(u8),
    /// The observer judges.
    Judge,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The rule that is removed, if any.
    pub broken: Option<Broken>,
}

impl Model for Rows {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            hint: 2,
            joiner: Joiner::Out,
            seen_empty: false,
            observer: None,
            believed: 1,
            mistaken: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.joiner {
            Joiner::Out => actions.push(Action::ReadHint),
            Joiner::Knows(rows) => actions.extend((0..rows).map(Action::Join)),
            Joiner::In(_) => actions.extend([Action::Leave, Action::ReadLease]),
            Joiner::Left(_) => actions.push(Action::ReadLease),
        }
        actions.push(Action::LookForEmpty);
        if state.seen_empty {
            actions.push(Action::Shrink);
        }
        actions.push(Action::Grow);
        if state.observer.is_some() {
            actions.extend([Action::Look(0), Action::Look(1), Action::Judge]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::ReadHint => next.joiner = Joiner::Knows(state.hint),
            Action::Join(row) => next.joiner = Joiner::In(row),
            Action::Leave => {
                if let Joiner::In(row) = state.joiner {
                    next.joiner = Joiner::Left(row);
                }
            }
            Action::LookForEmpty => next.seen_empty = state.joiner != Joiner::In(1),
            Action::Shrink => (next.hint, next.seen_empty) = (1, false),
            Action::Grow => next.hint = 2,
            Action::ReadLease => {
                if let Joiner::In(row) | Joiner::Left(row) = state.joiner {
                    next.observer = Some((row, [false; 2]));
                    next.believed = 2;
                }
            }
            Action::Look(row) => {
                let found = state.joiner == Joiner::In(row);
                next.observer.as_mut()?.1[usize::from(row)] = !found;
                if row == 0 {
                    next.believed = state.hint;
                }
            }
            Action::Judge => {
                let (row, without) = state.observer?;
                let gone = match self.broken {
                    None => without[usize::from(row)],
                    Some(Broken::FirstRowOnly) => without[0],
                    Some(Broken::HintedRows) => {
                        without[..usize::from(state.believed)].iter().all(|&without| without)
                    }
                };
                next.mistaken = gone && matches!(state.joiner, Joiner::In(_));
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("ROW", |_, state: &State| !state.mistaken),
            Property::sometimes("found gone", |_, state: &State| {
                let found = state.observer.is_some_and(|(row, without)| without[usize::from(row)]);
                found && matches!(state.joiner, Joiner::Left(_))
            }),
        ]
    }
}
