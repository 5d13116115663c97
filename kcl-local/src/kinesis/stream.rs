//! One stream: its shards, its status, and the changes it goes through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::ApiError;

use super::bucket::Bucket;
use super::consumer::Consumers;
use super::errors::shard_not_found;
use super::hash_key::HashKeyRange;
use super::instant;
use super::reshard::Change;
use super::shard::{ChildShard, Shard, ShardDescription, shard_index};

/// What a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamStatus {
    /// It is being made and takes no calls yet.
    Creating,
    /// It is being deleted and takes no calls any more.
    Deleting,
    /// It takes all calls.
    Active,
    /// It takes reads and writes, but no second change.
    Updating,
}

impl fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "CREATING",
            Self::Deleting => "DELETING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
        })
    }
}

/// Who decides on the number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamMode {
    /// The user does.
    Provisioned,
    /// The service does: splits and merges by the user are refused.
    OnDemand,
}

impl fmt::Display for StreamMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        })
    }
}

/// A stream as `DescribeStreamSummary` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// The name.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// What the stream is doing.
    pub status: StreamStatus,
    /// Who decides on the number of shards.
    pub mode: StreamMode,
    /// When the stream was created, in whole milliseconds.
    pub created: SystemTime,
    /// The retention in hours, rounded up.
    pub retention_hours: u32,
    /// The number of open shards.
    pub open_shards: usize,
    /// The number of registered consumers.
    pub consumers: usize,
    /// The largest record (data and partition key) it takes, in KiB.
    pub max_record_kib: u32,
}

#[derive(Debug)]
pub(crate) struct Stream {
    /// Unlike the name, never used again after deletion.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) account: String,
    pub(crate) mode: StreamMode,
    pub(crate) status: StreamStatus,
    pub(crate) created: u64,
    /// Milliseconds.
    pub(crate) retention: u64,
    pub(crate) max_record_kib: u32,
    pub(crate) tags: BTreeMap<String, String>,
    /// What becomes of the stream, and when.
    pub(crate) pending: Option<(u64, Change)>,
    /// Iterators issued before this one are expired.
    pub(crate) oldest_iterator: u64,
    pub(crate) list_shards: Bucket,
    pub(crate) shards: BTreeMap<u32, Shard>,
    /// The open shards by the start of their range.
    pub(crate) open: BTreeMap<u128, u32>,
    pub(crate) next_shard: u32,
    pub(crate) consumers: Consumers,
    /// Records put to shards that have expired.
    pub(crate) expired_total: u64,
}

impl Stream {
    pub(crate) fn add_shard(&mut self, range: HashKeyRange, parents: Vec<u32>, epoch: u64, now: u64) -> u32 {
        let index = self.next_shard;
        self.next_shard += 1;
        self.shards.insert(index, Shard::new(index, range, parents, epoch, now));
        self.open.insert(range.start, index);
        index
    }

    /// Drops the closed shards whose last possible record has run out of retention.
    pub(crate) fn expire_shards(&mut self, now: u64) {
        if self.open.len() == self.shards.len() {
            // Each call comes through here: those of a stream that was never resharded stop here.
            return;
        }
        let retention = self.retention;
        let expired_total = &mut self.expired_total;
        self.shards.retain(|_, shard| {
            let expired = shard.closed_at().is_some_and(|at| at.saturating_add(retention) <= now);
            if expired {
                *expired_total += shard.total();
            }
            !expired
        });
    }

    /// Drops everything retention has run out for.
    pub(crate) fn expire(&mut self, now: u64) {
        self.expire_shards(now);
        for shard in self.shards.values_mut() {
            shard.trim(self.retention, now);
        }
    }

    /// The shard with this id, trimmed to retention.
    pub(crate) fn shard(&mut self, id: &str, now: u64) -> Result<&mut Shard, ApiError> {
        self.expire_shards(now);
        let found = shard_index(id).and_then(|index| self.shards.get_mut(&index));
        let shard = found.ok_or_else(|| shard_not_found(id, &self.name, &self.account))?;
        shard.trim(self.retention, now);
        Ok(shard)
    }

    /// The open shard that takes `hash_key`, trimmed to retention.
    pub(crate) fn route(&mut self, hash_key: u128, now: u64) -> &mut Shard {
        let owner = self.open.range(..=hash_key).next_back();
        let shard = owner.and_then(|(_, index)| self.shards.get_mut(index));
        let shard = shard.expect("open shards tile the hash-key space and are never dropped");
        shard.trim(self.retention, now);
        shard
    }

    pub(crate) fn describe_shard(&self, shard: &Shard) -> ShardDescription {
        let mut parents = shard.parents.iter().map(|parent| super::shard::shard_id(*parent));
        ShardDescription {
            shard_id: Arc::clone(&shard.id),
            parent_shard_id: parents.next(),
            adjacent_parent_shard_id: parents.next(),
            hash_key_range: shard.range,
            starting_sequence_number: shard.starting(),
            ending_sequence_number: shard.ending(),
        }
    }

    pub(crate) fn children_of(&self, shard: u32) -> Vec<ChildShard> {
        let children = self.shards.get(&shard).into_iter().flat_map(|shard| &shard.children);
        let children = children.filter_map(|child| self.shards.get(child));
        children
            .map(|child| ChildShard {
                shard_id: Arc::clone(&child.id),
                parent_shards: child.parents.iter().map(|parent| super::shard::shard_id(*parent)).collect(),
                hash_key_range: child.range,
            })
            .collect()
    }

    pub(crate) fn summary(&self) -> StreamSummary {
        StreamSummary {
            name: self.name.clone(),
            arn: self.arn.clone(),
            status: self.status,
            mode: self.mode,
            created: instant(self.created),
            retention_hours: u32::try_from(self.retention.div_ceil(3_600_000)).unwrap_or(u32::MAX),
            open_shards: self.open.len(),
            consumers: self.consumers.registered.len(),
            max_record_kib: self.max_record_kib,
        }
    }
}
