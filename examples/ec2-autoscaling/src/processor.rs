//! What this worker does with records: put your own code here.

use async_trait::async_trait;
use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor, ShardContext, ShardId};
use tracing::{debug, info};

/// Counts records and bytes, and checkpoints after each batch.
pub(crate) struct Tally {
    shard: ShardId,
    records: u64,
    bytes: u64,
}

impl Tally {
    pub(crate) fn for_shard(context: &ShardContext) -> Self {
        Self { shard: context.shard.clone(), records: 0, bytes: 0 }
    }
}

#[async_trait]
impl RecordProcessor for Tally {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        for record in batch.records() {
            self.records += 1;
            self.bytes += record.data().len() as u64;
        }
        debug!(shard = %self.shard, records = batch.records().len(), "processed");
        checkpointer.checkpoint().await?;
        Ok(())
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        info!(shard = %self.shard, records = self.records, bytes = self.bytes, "handed on");
        checkpointer.checkpoint().await?;
        Ok(())
    }
}
