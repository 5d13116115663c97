//! Compact copies of the rules production runs on, in whole ticks of a worker's own clock. `tests/model.rs` compares them with
//! `kcl_core::fleet::rules` and `FleetChange::apply_to` over all small inputs.

use super::state::{Entry, Presence, Sight};

/// R1: whether a delivery may start `age` after the confirmed heartbeat was sent.
#[must_use]
pub const fn is_valid(age: u8, validity: u8) -> bool {
    age < validity
}

/// R2: takes note of a view that shows the number already known, or another one.
///
/// Of the time since the previous view at most a third of the duration counts, and at least what the observer's clock
/// advances in a tick, the grain of this model: with a duration of three such steps that is the rule itself, with two it
/// finds a member dead earlier than the rule.
#[must_use]
pub const fn view(sight: Sight, limit: u8, rate: u8) -> Sight {
    if !sight.known || sight.old {
        return Sight { known: true, still: 0, fresh: true, old: false };
    }
    let since = if sight.fresh { 0 } else { rate };
    let still = if sight.still + since > limit { limit } else { sight.still + since };
    Sight { known: true, still, fresh: true, old: false }
}

/// R2: whether the member may be evicted.
#[must_use]
pub const fn is_dead(sight: Sight, patience: u8) -> bool {
    sight.known && sight.still >= patience
}

/// *join*: `attribute_not_exists(workers.me)`.
#[must_use]
pub fn join_applies(entry: Entry) -> bool {
    entry.presence == Presence::Absent
}

/// *heartbeat*: `workers.me.hb < :n`, where `newer` says that this holds of the numbers.
#[must_use]
pub fn beat_applies(entry: Entry, newer: bool) -> bool {
    entry.presence != Presence::Absent && newer
}

/// *evict*: `workers.X.hb` is the number that stood still, where `same` says that this holds of the numbers.
#[must_use]
pub fn evict_applies(entry: Entry, same: bool) -> bool {
    entry.presence != Presence::Absent && same
}

/// R1: whether a refused heartbeat means that its sender was evicted.
#[must_use]
pub fn refusal_is_eviction(entry: Entry) -> bool {
    !entry.is_live()
}

/// R3: whether a view of the row that the owner's id names, asked for after the lease was seen, proves it gone.
#[must_use]
pub fn proves_gone(entry: Entry) -> bool {
    !entry.is_live()
}
