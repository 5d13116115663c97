//! Pure decisions: which leases to create, to take or ask for, and to delete. Each carries its reason.
//!
//! Nothing here waits, reads a clock or draws a random number: a plan depends on its input alone, so that
//! workers with the same view come to the same plan, and a plan can be replayed from a log.

mod balance;
mod cleanup;
mod guard;
mod leader;
mod lineage;
mod placement;
mod sync;
#[cfg(test)]
mod world;

pub use balance::{Action, BalanceInput, BalanceLimits, BalanceReason, Decision, LeaseView, plan_balance};
pub use cleanup::{CleanupInput, CleanupPlan, DeleteReason, Deletion, TrimmedLease, leases_to_delete};
pub use guard::{Refusal, RefusalReason, check_table, choices};
pub use leader::{elect_leader, is_leader};
pub use lineage::{Lineage, ParentsDone, ShardGraph, WaitReason, WaitingParent, parents_done};
pub use placement::{
    Holder, Placement, PlacementAction, PlacementDecision, PlacementInput, PlacementLease, PlacementMember,
    PlacementReason, PlacementStrategy, Share, plan_placement,
};
pub use sync::{CreateReason, PlannedLease, SyncInput, SyncPlan, SyncProblem, child_leases, plan_sync};

use crate::model::HashKeyRange;

/// The first and the last hash key of a range.
const fn bounds(range: &HashKeyRange) -> (u128, u128) {
    (range.start(), range.end())
}

/// Whether two ranges share a hash key.
fn overlap(one: &HashKeyRange, other: &HashKeyRange) -> bool {
    let ((one_first, one_last), (other_first, other_last)) = (bounds(one), bounds(other));
    one_first <= other_last && other_first <= one_last
}
