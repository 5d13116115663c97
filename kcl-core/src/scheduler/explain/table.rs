//! Shards of which only the lease table and the stream's listing are known.

use super::super::health::ProblemKind;
use super::super::report::{SchedulerPhase, Snapshot};
use super::{Activity, Cause, Explanation, ParentWait, TakeOutlook};
use crate::lease::Lease;
use crate::model::ShardId;
use crate::settings::Settings;

pub(super) fn explain(to: &mut Explanation, snapshot: &Snapshot, settings: &Settings) {
    to.cause = if let Some(lease) = snapshot.leases.get(&to.shard) {
        of_lease(lease, snapshot, settings)
    } else if let Some(reason) = snapshot.unreadable.get(to.shard.as_str()) {
        Cause::Unreadable(reason.clone())
    } else if let Some(listed) = snapshot.listed_shards.iter().find(|listed| listed.id == to.shard) {
        Cause::NoLease { parents: listed.parents().filter_map(|parent| wait_for(parent, snapshot)).collect() }
    } else {
        Cause::Unknown { listed_ago: snapshot.shards_listed_ago }
    };
    if let Cause::NoConsumer { held_for } = to.cause {
        to.activity = Activity::Waiting;
        if held_for >= settings.stall_timeout {
            (to.activity, to.problem) = (Activity::NotProcessing, Some(ProblemKind::ConsumerSilent));
        }
    }
}

fn of_lease(lease: &Lease, snapshot: &Snapshot, settings: &Settings) -> Cause {
    if lease.is_ended() {
        return Cause::Ended { children: lease.children.iter().cloned().collect() };
    }
    let seen = snapshot.owners.get(&lease.shard).filter(|seen| seen.owner == lease.owner);
    let seen_for = seen.map(|seen| snapshot.at.saturating_duration_since(seen.since));
    let outlook = || outlook(lease, snapshot, settings);
    match &lease.owner {
        None => Cause::Free { seen_for, outlook: outlook() },
        Some(owner) if owner == snapshot.owner_id() => {
            Cause::NoConsumer { held_for: seen_for.unwrap_or_default() }
        }
        Some(owner) => match snapshot.expired.get(&lease.shard) {
            Some(since) => Cause::Expired {
                worker: owner.clone(),
                expired_for: snapshot.at.saturating_duration_since(*since),
                outlook: outlook(),
            },
            None => Cause::LeasedBy {
                worker: owner.clone(),
                seen_for,
                member: snapshot.fleet.as_ref().map(|fleet| fleet.members.contains_key(owner)),
                asked_for_by: lease.requested_by.clone(),
                parents: unfinished_parents(lease, snapshot),
            },
        },
    }
}

fn outlook(lease: &Lease, snapshot: &Snapshot, settings: &Settings) -> TakeOutlook {
    if snapshot.phase == SchedulerPhase::Stopping {
        return TakeOutlook::Stopping;
    }
    if let Some(fleet) = &snapshot.fleet {
        if fleet.member.is_none() {
            return TakeOutlook::NotAMember;
        }
        if let Some(owner) = &fleet.foreign_owner {
            return TakeOutlook::ForeignOwner(owner.clone());
        }
    }
    if !snapshot.taking {
        return TakeOutlook::Standby;
    }
    if let Some(until) = snapshot.given_up.get(&lease.shard)
        && *until > snapshot.at
    {
        return TakeOutlook::LeftToOthers(*until - snapshot.at);
    }
    if let Some(decision) = snapshot.fleet.as_ref().and_then(|fleet| fleet.decisions.get(&lease.shard)) {
        return TakeOutlook::Decided(decision.clone());
    }
    if snapshot.shards.len() >= settings.max_leases {
        return TakeOutlook::Full(settings.max_leases);
    }
    TakeOutlook::Soon
}

/// The parents of a shard of which nothing is processed yet that have not ended, as far as the table shows.
pub(super) fn unfinished_parents(lease: &Lease, snapshot: &Snapshot) -> Vec<ParentWait> {
    if lease.checkpoint.is_real() {
        return Vec::new();
    }
    lease.parents.iter().filter_map(|parent| wait_for(parent, snapshot)).collect()
}

/// A parent without a row has ended unless the stream still lists it: its row is yet to come then.
fn wait_for(parent: &ShardId, snapshot: &Snapshot) -> Option<ParentWait> {
    let row = snapshot.leases.get(parent);
    let is_listed = || snapshot.listed_shards.iter().any(|listed| listed.id == *parent);
    match row {
        Some(row) if row.is_ended() => None,
        None if !is_listed() => None,
        row => Some(ParentWait {
            shard: parent.clone(),
            checkpoint: row.map(|row| row.checkpoint),
            owner: row.and_then(|row| row.owner.clone()),
        }),
    }
}
