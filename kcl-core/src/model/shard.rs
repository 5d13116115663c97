use super::{HashKeyRange, SequenceNumber, ShardId};

/// A shard as `ListShards` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The shard's id.
    pub id: ShardId,
    /// The shard it was split from, or one of the two it was merged from.
    pub parent: Option<ShardId>,
    /// The other shard it was merged from.
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys it takes, inclusive at both ends.
    pub hash_key_range: HashKeyRange,
    /// The smallest sequence number a record of the shard can have.
    pub starting_sequence_number: SequenceNumber,
    /// The largest sequence number of the shard; present once the shard is closed.
    pub ending_sequence_number: Option<SequenceNumber>,
}

impl Shard {
    /// The ids of its parents: none, one (split) or two (merge).
    pub fn parents(&self) -> impl Iterator<Item = &ShardId> {
        self.parent.iter().chain(&self.adjacent_parent)
    }

    /// Whether the shard still takes records.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }
}

/// A child named with the last records of a closed shard (`ChildShard` of `GetRecords`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildShard {
    /// The child's id.
    pub id: ShardId,
    /// The ids of its parents: one after a split, two after a merge.
    pub parents: Vec<ShardId>,
    /// The hash keys it takes.
    pub hash_key_range: HashKeyRange,
}

impl From<&Shard> for ChildShard {
    fn from(shard: &Shard) -> Self {
        Self {
            id: shard.id.clone(),
            parents: shard.parents().cloned().collect(),
            hash_key_range: shard.hash_key_range,
        }
    }
}
