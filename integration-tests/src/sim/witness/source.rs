//! The stream, seen where it is asked and where its answers arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kcl_core::model::{Shard, StreamIdentity};
use kcl_core::source::{ShardReader, SourceBatch, SourceError, StartFrom, StreamSource};
use kcl_core::{Position, ShardId};

use crate::sim::judge::{Judge, Life};

/// A stream of which the judge sees every call and every answer.
#[derive(Debug)]
pub struct WatchedSource {
    inner: Arc<dyn StreamSource>,
    life: Life,
    judge: Judge,
    readers: AtomicU64,
}

impl WatchedSource {
    /// Watches the calls of one life.
    pub fn new(inner: impl StreamSource, life: Life, judge: Judge) -> Self {
        Self { inner: Arc::new(inner), life, judge, readers: AtomicU64::new(0) }
    }
}

#[async_trait]
impl StreamSource for WatchedSource {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        self.judge.calls(&self.life, "identity");
        self.inner.identity().await
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.judge.calls(&self.life, "list_shards");
        self.inner.list_shards().await
    }

    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        self.judge.calls(&self.life, "open");
        let inner = self.inner.open(shard, from).await?;
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        let (life, judge) = (self.life.clone(), self.judge.clone());
        Ok(Box::new(WatchedReader { inner, life, judge, number, shard: shard.clone() }))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

#[derive(Debug)]
struct WatchedReader {
    inner: Box<dyn ShardReader>,
    life: Life,
    judge: Judge,
    number: u64,
    shard: ShardId,
}

#[async_trait]
impl ShardReader for WatchedReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        self.judge.calls(&self.life, "next");
        let batch = self.inner.next().await?;
        if !batch.records.is_empty() {
            let read = |record: &kcl_core::model::SourceRecord| {
                (Position::new(record.sequence_number, 0), record.data.len())
            };
            let records: Vec<_> = batch.records.iter().map(read).collect();
            self.judge.fetched(&self.life, self.number, &self.shard, &records);
        }
        Ok(batch)
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        self.inner.absorbed_failures()
    }
}
