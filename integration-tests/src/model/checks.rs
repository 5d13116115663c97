//! The runs of the unbroken rules.

use super::broken::Broken;
use super::fleet::Config;

/// A run of the core model: what it is about, its bounds, and how many states it goes to if not to the last.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// The bounds.
    pub config: Config,
    /// So many states, repeats included; none: all there are.
    pub states: Option<usize>,
}

const fn all(name: &'static str, config: Config) -> Check {
    Check { name, config, states: None }
}

const fn some(name: &'static str, config: Config, states: usize) -> Check {
    Check { name, config, states: Some(states) }
}

const MOVES: Config = Config::MOVES;
const LATE: Config = Config::LATE;

/// The runs that are made each time, within minutes.
pub const CHECKS: [Check; 16] = [
    all("2 workers", Config::SMALL),
    all("moves, rejoin, lost beats", MOVES),
    all("moves, lost beats, no symmetry", Config { symmetry: false, rejoin: false, ..MOVES }),
    all("with crash and leave", Config { crash: true, leave: true, ..MOVES }),
    all("with a beat in flight", Config { in_flight: 1, ..MOVES }),
    all("D = 3, as production counts", Config { duration: 3, ..MOVES }),
    all("clocks that differ, moves, lost beats", Config::DRIFT),
    all("clocks that differ, rejoin", Config { moves: false, rejoin: true, ..Config::DRIFT }),
    all("2 fleet rows, rejoin", Config { rows: 2, moves: false, ..MOVES }),
    all("checkpoints to 2, callbacks", Config { positions: 2, callbacks: true, ..MOVES }),
    all("late writes", LATE),
    all("late writes, crash, lost beats", Config { crash: true, lost_beats: true, ..LATE }),
    all("late writes, checkpoints, callbacks", Config { positions: 1, callbacks: true, ..LATE }),
    some(
        "late writes, rejoin, crash, leave",
        Config { crash: true, leave: true, in_flight: 1, late_writes: true, ..MOVES },
        8_000_000,
    ),
    some("2 leases, moves", Config { leases: 2, rejoin: false, ..MOVES }, 8_000_000),
    some("3 workers, moves", Config { workers: 3, rejoin: false, ..MOVES }, 6_000_000),
];

/// The runs that go as far as time allows.
pub const EXPLORATIONS: [Check; 4] = [
    all("3 workers, moves, crash", Config { workers: 3, crash: true, rejoin: false, ..MOVES }),
    all(
        "late writes, rejoin, crash, leave, checkpoints",
        Config { crash: true, leave: true, in_flight: 2, late_writes: true, positions: 1, ..MOVES },
    ),
    all("2 leases, rejoin, crash", Config { leases: 2, crash: true, ..MOVES }),
    all(
        "3 workers, late writes, crash",
        Config { workers: 3, crash: true, rejoin: false, late_writes: true, in_flight: 1, ..MOVES },
    ),
];

/// The different bounds in which variants are refuted.
#[must_use]
pub fn refutation_bounds() -> Vec<Config> {
    let mut bounds: Vec<Config> = Vec::new();
    for config in Broken::ALL.map(Broken::config) {
        if !bounds.contains(&config) {
            bounds.push(config);
        }
    }
    bounds
}
