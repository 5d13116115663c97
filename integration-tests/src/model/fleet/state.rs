use std::fmt;

/// The most workers a configuration can have.
pub const WORKERS: usize = 3;
/// The most leases a configuration can have.
pub const LEASES: usize = 2;
/// How many ids there are at a time. An id that nothing refers to any more is used for the next join attempt, which
/// no worker can tell from a fresh one.
pub const IDS: usize = 7;
/// No id, no worker.
pub const NONE: u8 = u8::MAX;

/// The entry of an id in its fleet row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// Not there.
    #[default]
    Absent,
    /// There.
    Live,
    /// There, and the member has left.
    Gone,
}

/// An entry, and the row its id names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Whether it is there.
    pub presence: Presence,
    /// The fleet row.
    pub row: u8,
    /// Whether its number is not that of its join any more. Kept only where ids are used again.
    pub moved: bool,
}

impl Entry {
    /// Whether the member counts as living.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.presence == Presence::Live
    }
}

/// A lease row. The counter is not kept: see [`Hold::current`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseRow {
    /// The owner's id, or [`NONE`].
    pub owner: u8,
    /// The checkpoint.
    pub checkpoint: u8,
    /// The worker whose unanswered write left the row as it is, or [`NONE`]: its token.
    pub token: u8,
}

/// What a message does when it lands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// There is no message.
    #[default]
    None,
    /// A heartbeat of `id`, with a number above that of its entry.
    Beat,
    /// Removes the entry of `id`; its number is the one that stood still.
    Evict,
    /// Takes the lease for `id`.
    Take,
    /// Gives the lease of `id` to `argument`.
    Give,
    /// Frees the lease of `id`.
    Release,
    /// Stores the position `argument` in the lease of `id`.
    Checkpoint,
}

/// A write on its way that nobody waits for any more. One whose condition cannot hold any more is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// What it does.
    pub kind: MessageKind,
    /// The id it is about.
    pub id: u8,
    /// The lease it is about.
    pub lease: u8,
    /// What else it says.
    pub argument: u8,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// It runs and is no member.
    #[default]
    Out,
    /// It has sent a join.
    Joining,
    /// It is a member, as far as it knows.
    In,
    /// It left as the last one and is about to delete the fleet row.
    Deleting,
    /// It is gone and does not come back.
    Down,
}

/// A join or heartbeat that may still be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pending {
    /// There is none.
    #[default]
    None,
    /// It is on its way.
    Sent,
    /// It has landed; the answer is on its way.
    Landed,
}

/// What a worker has seen of a member (R2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sight {
    /// Whether it has seen the number that is in the entry.
    pub known: bool,
    /// For how many ticks that number is proven to have stood still.
    pub still: u8,
    /// Whether the last view was in this tick.
    pub fresh: bool,
    /// Whether the number it saw is not in the entry any more. Dropped unless evictions have no condition.
    pub old: bool,
}

/// What a worker that does not hold a lease knows of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseView {
    /// Whether it knows anything.
    pub known: bool,
    /// Whether the counter it saw is not in the row any more. Dropped unless some write does not ask for it.
    pub old: bool,
    /// The owner it saw.
    pub owner: u8,
    /// Whether it has evidence that the owner is gone (R3).
    pub absent: bool,
}

/// What a worker does with a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldState {
    /// It does not hold it.
    #[default]
    None,
    /// It delivers.
    Active,
    /// It starts no more deliveries, in order to move the lease.
    Stopped,
    /// It delivers, and a checkpoint is not answered.
    Checkpointing,
    /// A give is not answered.
    Giving,
    /// A release is not answered.
    Releasing,
}

impl HoldState {
    /// Whether it delivers.
    #[must_use]
    pub const fn delivers(self) -> bool {
        matches!(self, Self::Active | Self::Checkpointing)
    }

    /// Whether a write of it is not settled (R10).
    #[must_use]
    pub const fn unsettled(self) -> bool {
        matches!(self, Self::Checkpointing | Self::Giving | Self::Releasing)
    }
}

/// The hold of a worker on a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    /// What it does with it.
    pub state: HoldState,
    /// Whether the counter it last wrote is still in the row.
    pub current: bool,
    /// The checkpoint it believes to be in the row.
    pub position: u8,
    /// What the unsettled write says.
    pub argument: u8,
}

/// The callbacks of a lease in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Callbacks {
    /// One of the present hold runs.
    pub present: bool,
    /// One of a hold that is lost still runs.
    pub earlier: bool,
}

impl Callbacks {
    /// Whether none runs.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        !self.present && !self.earlier
    }

    /// Whether two run.
    #[must_use]
    pub const fn is_double(self) -> bool {
        self.present && self.earlier
    }
}

/// A worker: one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    /// Where it is in its life.
    pub mode: Mode,
    /// Its id, or [`NONE`].
    pub me: u8,
    /// How many ticks ago the last confirmed attempt was sent, up to the validity.
    pub valid: u8,
    /// The join or heartbeat under way.
    pub pending: Pending,
    /// How many ticks ago that was sent, up to the validity.
    pub pending_age: u8,
    /// What it has seen of each id.
    pub sights: [Sight; IDS],
    /// What it knows of each lease.
    pub views: [LeaseView; LEASES],
    /// What it holds.
    pub holds: [Hold; LEASES],
    /// The callbacks that run.
    pub callbacks: [Callbacks; LEASES],
    /// For variants alone: ids seen alive in the last view, or in one that was served and has not arrived.
    pub seen: u8,
    /// For variants alone: a view was asked for or served, an unanswered number has landed.
    pub mark: u8,
}

/// What went wrong in a step, if it does not show in the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bad {
    /// Nothing.
    #[default]
    Nothing,
    /// A checkpoint moved back, or one was reported as stored that was not.
    Checkpoint,
}

/// A state of the world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The workers.
    pub workers: [Worker; WORKERS],
    /// The lease rows.
    pub leases: [LeaseRow; LEASES],
    /// The entries by id.
    pub entries: [Entry; IDS],
    /// The messages on their way.
    pub bag: [Message; 2],
    /// What went wrong.
    pub bad: Bad,
}

impl State {
    /// Nobody is a member and the leases are free.
    #[must_use]
    pub fn initial() -> Self {
        Self {
            workers: [Worker::OUT; WORKERS],
            leases: [LeaseRow { owner: NONE, checkpoint: 0, token: NONE }; LEASES],
            entries: [Entry::default(); IDS],
            bag: [Message::default(); 2],
            bad: Bad::Nothing,
        }
    }

    /// The entry of `id`; nobody's is absent.
    #[must_use]
    pub fn entry(&self, id: u8) -> Entry {
        self.entries.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// The ids that live in `row`, as bits.
    #[must_use]
    pub fn live(&self, row: u8) -> u8 {
        (0..IDS)
            .filter(|&id| self.entries[id].is_live() && self.entries[id].row == row)
            .map(|id| 1 << id)
            .sum()
    }
}

impl Worker {
    /// A process that is no member.
    pub const OUT: Self = Self {
        mode: Mode::Out,
        me: NONE,
        valid: 0,
        pending: Pending::None,
        pending_age: 0,
        sights: [Sight { known: false, still: 0, fresh: false, old: false }; IDS],
        views: [LeaseView { known: false, old: false, owner: 0, absent: false }; LEASES],
        holds: [Hold { state: HoldState::None, current: false, position: 0, argument: 0 }; LEASES],
        callbacks: [Callbacks { present: false, earlier: false }; LEASES],
        seen: 0,
        mark: 0,
    };

    /// Whether it may take or adopt this lease: it does not hold it, and no callback of an earlier hold runs (R5).
    #[must_use]
    pub fn is_free_for(&self, lease: usize) -> bool {
        self.holds[lease].state == HoldState::None && self.callbacks[lease].is_idle()
    }

    /// Gives up its hold on a lease; a callback goes on until it returns.
    pub(crate) fn drop_hold(&mut self, lease: usize) {
        self.holds[lease] = Hold::default();
        let callbacks = &mut self.callbacks[lease];
        callbacks.earlier |= std::mem::take(&mut callbacks.present);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::normal::describe(self, f)
    }
}
