//! The reader at the end of a subscription.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, debug_span};

use super::buffer::{Buffer, Pool};
use super::course::Course;
use super::pump::Pump;
use super::slot::Slot;
use super::{FanOutTimeouts, Subscriber, Turns};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::ShardId;
use crate::source::{ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom};
use crate::time::Clock;

/// How long [`ShardReader::next`] waits before it returns an empty batch as a sign of life, if there is one.
const LIFE_SIGN: Duration = Duration::from_secs(2);

/// Reads one shard by subscribing to it.
///
/// A task of its own drains the subscription, from the first call of [`ShardReader::next`] on. Dropping the reader
/// closes the subscription before the drop returns.
#[derive(Debug)]
pub(crate) struct FanOutReader {
    buffer: Arc<Buffer>,
    slot: Slot,
    /// Before it runs.
    pump: Option<Pump>,
    task: JoinSet<()>,
    resource: String,
    end: Option<SourceEnd>,
}

/// What all readers of a worker have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) turns: Arc<Turns>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) timeouts: FanOutTimeouts,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

impl FanOutReader {
    /// Creates a reader that has not subscribed yet. `resource` is how errors name the shard.
    pub(crate) fn new(
        subscriber: Arc<dyn Subscriber>,
        shard: &ShardId,
        resource: String,
        from: StartFrom,
        shared: &Shared,
        entropy: Entropy,
    ) -> Self {
        let (buffer, slot) = (Arc::new(Buffer::new(Arc::clone(&shared.pool))), Slot::default());
        buffer.give_life_signs(true);
        let pump = Pump {
            subscriber,
            shard: shard.clone(),
            resource: resource.clone(),
            course: Course::new(from, shared.clock.now(), Instant::now(), entropy),
            timeouts: shared.timeouts.in_range(),
            turns: Arc::clone(&shared.turns),
            clock: Arc::clone(&shared.clock),
            buffer: Arc::clone(&buffer),
            slot: slot.clone(),
            metrics: shared.metrics.clone(),
        };
        Self { buffer, slot, pump: Some(pump), task: JoinSet::new(), resource, end: None }
    }

    /// The bytes that wait in the buffer.
    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.bytes()
    }

    fn broken(&self) -> SourceError {
        let message = "the task that reads the shard ended before the shard did: report it";
        SourceError::new(SourceErrorKind::Invalid, "SubscribeToShard", self.resource.clone(), message)
    }
}

#[async_trait]
impl ShardReader for FanOutReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        if let Some(end) = &self.end {
            return Ok(SourceBatch::new(Vec::new(), None, Some(end.clone())));
        }
        if let Some(pump) = self.pump.take() {
            // It lives longer than the call it is started in.
            self.task.spawn(pump.run().instrument(debug_span!("subscriptions")));
        }
        let mut life_sign = Instant::now() + LIFE_SIGN;
        loop {
            if let Some(item) = self.buffer.pop() {
                let batch = item?;
                self.end.clone_from(&batch.end);
                return Ok(batch);
            }
            if timeout_at(life_sign, self.buffer.filled()).await.is_err() {
                // It ends in order only once the end of the shard is in the buffer.
                if self.task.is_empty() || self.task.try_join_next().is_some() {
                    return Err(self.broken());
                }
                if self.buffer.gives_life_signs() {
                    return Ok(SourceBatch::default());
                }
                life_sign = Instant::now() + LIFE_SIGN;
            }
        }
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        self.buffer.absorbed()
    }
}

impl Drop for FanOutReader {
    fn drop(&mut self) {
        self.slot.shut();
    }
}
