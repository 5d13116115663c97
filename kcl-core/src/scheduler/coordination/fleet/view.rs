use std::collections::BTreeMap;
use std::time::Duration;

use crate::fleet::{MemberLimits, MemberState};
use crate::lease::ProvisionedUnits;
use crate::model::{ShardId, WorkerId};
use crate::plan::Share;

/// What a member shows of its fleet.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// The id under which this worker is a member now; none while it joins.
    pub member: Option<WorkerId>,
    /// The members, this one included.
    pub members: BTreeMap<WorkerId, MemberSnapshot>,
    /// What each has and should have, by the last plan.
    pub shares: BTreeMap<WorkerId, Share>,
    /// What this worker decided last about each lease, and why; the newest 100.
    pub decisions: BTreeMap<ShardId, String>,
    /// A worker that is not a member and works on the same table: nothing is taken while it does.
    pub foreign_owner: Option<WorkerId>,
    /// What the lease table is provisioned with and what its members need at rest, in units a second, if that is more.
    pub too_small: Option<(ProvisionedUnits, ProvisionedUnits)>,
}

/// What is seen of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberSnapshot {
    /// Whether it takes leases.
    pub state: MemberState,
    /// How many unfinished leases it says it holds.
    pub leases: u64,
    /// What it says it processes, in bytes a second.
    pub load: u64,
    /// The share of its CPU limit it says it uses, in thousandths.
    pub cpu: Option<u16>,
    /// Its own limits.
    pub limits: MemberLimits,
    /// How long ago its heartbeat was last seen to move.
    pub moved_ago: Duration,
}
