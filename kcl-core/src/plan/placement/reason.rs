use std::fmt;

use crate::model::WorkerId;

/// Why a lease is taken or given away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlacementReason {
    /// The lease is free and this is its share of the free ones.
    Free,
    /// Its owner is gone and this is its share of what it left.
    OwnerGone {
        /// The owner.
        owner: WorkerId,
    },
    /// Nobody took it for two seconds.
    LeftOver,
    /// It waits for a parent and goes to whoever processes that.
    WaitsForParent,
    /// This worker is draining or observes: it gives everything away.
    TakesNothing,
    /// This worker has more than its share.
    Imbalance {
        /// How many leases this worker has.
        has: u64,
        /// How many the receiver has.
        theirs: u64,
    },
    /// This worker processes more than its share.
    Load {
        /// What this worker processes, in bytes a second.
        has: u64,
        /// What the receiver processes, in bytes a second.
        theirs: u64,
    },
}

impl fmt::Display for PlacementReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("it is free"),
            Self::OwnerGone { owner } => write!(f, "its owner {owner} is gone"),
            Self::LeftOver => f.write_str("nobody took it"),
            Self::WaitsForParent => f.write_str("it waits for a parent"),
            Self::TakesNothing => f.write_str("this worker takes nothing"),
            Self::Imbalance { has, theirs } => write!(f, "this worker has {has} and the other {theirs}"),
            Self::Load { has, theirs } => {
                write!(f, "this worker processes {has} B/s and the other {theirs} B/s")
            }
        }
    }
}
