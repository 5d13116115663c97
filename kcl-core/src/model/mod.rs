//! The vocabulary: ids, sequence numbers, checkpoints, hash-key ranges, shards and records.

mod checkpoint;
mod id;
mod record;
mod sequence_number;
mod shard;
mod stream;

pub use checkpoint::{Checkpoint, InvalidCheckpoint, Position};
pub use id::{ShardId, WorkerId};
pub use kpl_aggregation::HashKeyRange;
pub use record::{Record, SourceRecord};
pub use sequence_number::{InvalidSequenceNumber, SequenceNumber};
pub use shard::{ChildShard, Shard};
pub use stream::{InitialPosition, StreamIdentity};
