use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{GAVE_BYTES, VERSION};
use crate::model::{ShardId, WorkerId};

/// A fleet row: what up to 10 members tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetRow {
    /// The entry of each member; each is written by its member alone (`workers`).
    pub workers: BTreeMap<WorkerId, FleetEntry>,
    /// How many rows there are, a hint for discovery; on the first row only (`rows`).
    pub rows: Option<u32>,
}

impl FleetRow {
    /// The members whose entries are there and not `gone`.
    pub fn live(&self) -> impl Iterator<Item = (&WorkerId, &FleetEntry)> {
        self.workers.iter().filter(|(_, entry)| entry.state != MemberState::Gone)
    }

    /// The entry of this worker, unless it is absent or `gone`.
    #[must_use]
    pub fn live_entry(&self, worker: &WorkerId) -> Option<&FleetEntry> {
        self.workers.get(worker).filter(|entry| entry.state != MemberState::Gone)
    }
}

/// What a member tells of itself. A heartbeat writes it whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetEntry {
    /// The number of the heartbeat; every attempt has its own, larger one (`hb`).
    pub heartbeat: u64,
    /// The member's lease duration, to the millisecond, fixed for the life of its id (`d`).
    pub lease_duration: Duration,
    /// The version of the protocol, fixed for the life of the id (`v`).
    pub version: u32,
    /// How many ownership changes this member has made: takes, gives, creations, ends, deletions (`mv`).
    pub moves: u64,
    /// The leases it gave away last (`gave`).
    pub gave: Gave,
    /// How many unfinished leases it holds (`n`).
    pub leases: u64,
    /// What it processes, in bytes a second (`load`).
    pub load: u64,
    /// The share of its CPU limit it uses, in thousandths, if it is measured (`cpu`).
    pub cpu: Option<u16>,
    /// Its own limits (`cap`, `capLoad`).
    pub limits: MemberLimits,
    /// How many house-keeping passes it has done (`hk`).
    pub housekeeping: u64,
    /// Whether it takes leases (`st`).
    pub state: MemberState,
}

impl FleetEntry {
    /// The entry of a member that has just joined and holds nothing.
    #[must_use]
    pub const fn new(lease_duration: Duration, state: MemberState) -> Self {
        Self {
            heartbeat: 0,
            lease_duration,
            version: VERSION,
            moves: 0,
            gave: Gave::Leases(BTreeMap::new()),
            leases: 0,
            load: 0,
            cpu: None,
            limits: MemberLimits { leases: None, load: None },
            housekeeping: 0,
            state,
        }
    }
}

/// What a member takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberLimits {
    /// So many unfinished leases.
    pub leases: Option<u64>,
    /// So many bytes a second.
    pub load: Option<u64>,
}

/// Whether a member takes leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MemberState {
    /// It takes its share.
    Active,
    /// It takes nothing and gives everything.
    Draining,
    /// It takes nothing.
    Observer,
    /// It has left.
    Gone,
}

impl MemberState {
    /// The state as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Observer => "observer",
            Self::Gone => "gone",
        }
    }

    /// The state that is stored as this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Draining, Self::Observer, Self::Gone].into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// News of leases given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gave {
    /// These leases, by their new owners.
    Leases(BTreeMap<WorkerId, BTreeSet<ShardId>>),
    /// More than an entry can name: whoever may have got one lists the table.
    Many,
}

impl Default for Gave {
    fn default() -> Self {
        Self::Leases(BTreeMap::new())
    }
}

impl Gave {
    /// The news of these gives, in as far as an entry can name them.
    pub fn of<'a>(gives: impl IntoIterator<Item = (&'a ShardId, &'a WorkerId)>) -> Self {
        let mut by_owner: BTreeMap<WorkerId, BTreeSet<ShardId>> = BTreeMap::new();
        for (shard, to) in gives {
            by_owner.entry(to.clone()).or_default().insert(shard.clone());
        }
        let owners = by_owner.iter();
        let bytes: usize = owners
            .map(|(owner, shards)| {
                owner.as_str().len() + shards.iter().map(|shard| shard.as_str().len()).sum::<usize>()
            })
            .sum();
        if bytes > GAVE_BYTES { Self::Many } else { Self::Leases(by_owner) }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Leases(leases) if leases.is_empty())
    }

    /// The leases that `worker` got, as far as they are named.
    pub fn to(&self, worker: &WorkerId) -> impl Iterator<Item = &ShardId> {
        let leases = match self {
            Self::Leases(leases) => leases.get(worker),
            Self::Many => None,
        };
        leases.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_do_not_fit_say_so() {
        let [a, b]: [WorkerId; 2] = ["a".into(), "b".into()];
        let shards: Vec<ShardId> = (0..30).map(|n| format!("shardId-{n:012}").into()).collect();
        let few = Gave::of(shards.iter().take(3).map(|shard| (shard, &a)));
        assert_eq!(few.to(&a).count(), 3);
        assert_eq!(few.to(&b).count(), 0);
        assert!(!few.is_empty());
        assert_eq!(Gave::of(shards.iter().map(|shard| (shard, &a))), Gave::Many);
        assert!(Gave::of(std::iter::empty()).is_empty());
    }

    #[test]
    fn states_are_stored_as_text() {
        for state in [MemberState::Active, MemberState::Draining, MemberState::Observer, MemberState::Gone] {
            assert_eq!(MemberState::parse(state.as_str()), Some(state));
        }
        assert_eq!(MemberState::parse("ACTIVE"), None);
    }

    #[test]
    fn who_is_gone_is_not_live() {
        let [a, b]: [WorkerId; 2] = ["a".into(), "b".into()];
        let mut row = FleetRow::default();
        row.workers.insert(a.clone(), FleetEntry::new(Duration::from_secs(10), MemberState::Active));
        row.workers.insert(b.clone(), FleetEntry::new(Duration::from_secs(10), MemberState::Gone));
        assert!(row.live_entry(&a).is_some());
        assert!(row.live_entry(&b).is_none());
        assert_eq!(row.live().count(), 1);
    }
}
