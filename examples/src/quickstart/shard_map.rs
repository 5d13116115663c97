use std::collections::BTreeMap;

use aws_sdk_kinesis::Client;
use kcl_core::BoxError;
use kpl_aggregation::{HashKeyRange, partition_key_hash};

/// Which shard takes which hash keys, as the stream last said.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardMap {
    shards: BTreeMap<String, MappedShard>,
}

#[derive(Clone, Copy, Debug)]
struct MappedShard {
    range: HashKeyRange,
    open: bool,
}

impl ShardMap {
    /// Asks the stream. One page is enough: it holds a thousand shards.
    pub(super) async fn load(client: &Client, stream: &str) -> Result<Self, BoxError> {
        let listed = client.list_shards().stream_name(stream).send().await?;
        let mut shards = BTreeMap::new();
        for shard in listed.shards() {
            let range = shard.hash_key_range().ok_or("a shard without hash keys")?;
            let range = HashKeyRange::parse(range.starting_hash_key(), range.ending_hash_key())?;
            let open =
                shard.sequence_number_range().is_none_or(|range| range.ending_sequence_number().is_none());
            shards.insert(shard.shard_id().to_owned(), MappedShard { range, open });
        }
        Ok(Self { shards })
    }

    /// The hash keys of a shard, open or closed.
    pub(super) fn range(&self, shard: &str) -> Option<HashKeyRange> {
        self.shards.get(shard).map(|shard| shard.range)
    }

    /// The open shards with their hash keys, lowest first.
    pub(super) fn open(&self) -> Vec<(&str, HashKeyRange)> {
        let open = self.shards.iter().filter(|(_, shard)| shard.open);
        let mut open: Vec<_> = open.map(|(id, shard)| (id.as_str(), shard.range)).collect();
        open.sort_by_key(|(_, range)| range.start());
        open
    }

    /// The open shard that takes this partition key.
    pub(super) fn shard_of(&self, partition_key: &str) -> Option<&str> {
        let hash = partition_key_hash(partition_key.as_bytes());
        self.open().into_iter().find(|(_, range)| range.contains(hash)).map(|(shard, _)| shard)
    }
}
