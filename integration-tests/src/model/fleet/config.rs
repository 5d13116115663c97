use super::{Fleet, WORKERS};
use crate::model::broken::Broken;

/// The bounds of a run, and which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many workers.
    pub workers: usize,
    /// How many leases.
    pub leases: usize,
    /// How many fleet rows members may join.
    pub rows: u8,
    /// The lease duration D, as each worker's own clock counts. Eviction is as tight as it may be: at D.
    pub duration: u8,
    /// By how much each worker's clock advances in a tick.
    pub rates: [u8; WORKERS],
    /// The margin ε: validity ends so long before D.
    pub margin: u8,
    /// How many writes may be on their way without an answer to come, heartbeats included.
    pub in_flight: usize,
    /// Whether heartbeats or their answers are lost; with [`Config::in_flight`] they are also delayed.
    pub lost_beats: bool,
    /// Whether takes, gives, releases, evictions and checkpoints may land late or never.
    pub late_writes: bool,
    /// Whether processes crash.
    pub crash: bool,
    /// Whether members leave (R7).
    pub leave: bool,
    /// Whether the crashed, evicted and departed join again, under new ids.
    pub rejoin: bool,
    /// Whether leases are given (R4) and released.
    pub moves: bool,
    /// How many positions above the first a checkpoint can have; none: no checkpoints.
    pub positions: u8,
    /// Whether callbacks are followed.
    pub callbacks: bool,
    /// Whether states that differ only by the names of workers and ids count as one.
    pub symmetry: bool,
}

impl Config {
    /// Two workers, one lease, and evictions, takes and adoptions as the only news.
    pub const SMALL: Self = Self {
        workers: 2,
        leases: 1,
        rows: 1,
        duration: 2,
        rates: [1; WORKERS],
        margin: 0,
        in_flight: 0,
        lost_beats: false,
        late_writes: false,
        crash: false,
        leave: false,
        rejoin: false,
        moves: false,
        positions: 0,
        callbacks: false,
        symmetry: true,
    };

    /// With moves, lost heartbeats and members that join again.
    pub const MOVES: Self = Self { moves: true, rejoin: true, lost_beats: true, ..Self::SMALL };

    /// With clocks of which one runs twice as fast as the other (ρ = 1/3), and the margin that asks for: 2ρD/(1 + ρ).
    pub const DRIFT: Self = Self {
        duration: 4,
        rates: [1, 2, 1],
        margin: 2,
        moves: true,
        lost_beats: true,
        symmetry: false,
        ..Self::SMALL
    };

    /// With moves and one write that lands late or never.
    pub const LATE: Self = Self { late_writes: true, in_flight: 1, moves: true, ..Self::SMALL };
}

impl Fleet {
    /// For how long since it was sent, by its sender's clock, a confirmed heartbeat lets deliveries start (R1).
    pub(crate) fn validity(&self) -> u8 {
        let margin = if self.is(Broken::MarginWithoutDrift) { 0 } else { self.config.margin };
        self.config.duration - margin + u8::from(self.is(Broken::MarginTooSmall))
    }

    /// For how long, by its observer's clock, a member must stand still to be dead (R2).
    pub(crate) fn patience(&self) -> u8 {
        self.config.duration - u8::from(self.is(Broken::OtherDuration))
    }

    /// Whether views of a lease are kept once its counter has changed: only a write that does not ask for the counter
    /// can tell them from none.
    pub(crate) fn keeps_old_views(&self) -> bool {
        self.is(Broken::TakeUnconditionally) || self.is(Broken::StartWithoutAdopting)
    }

    /// Whether sightings are kept once the member has moved: only an unconditional eviction can tell.
    pub(crate) fn keeps_old_sightings(&self) -> bool {
        self.is(Broken::EvictUnconditionally)
    }
}
