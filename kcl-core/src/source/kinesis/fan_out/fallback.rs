//! A reader that polls while it cannot subscribe.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::FallbackConfig;
use crate::source::place::Place;
use crate::source::{ShardReader, SourceBatch, SourceError, SourceErrorKind, StartFrom};
use crate::time::Clock;

/// How long fan-out gets to bring an event when it is tried again.
const TRIAL: Duration = Duration::from_secs(10);

/// Makes the two kinds of readers of a shard.
pub(super) trait Readers: Debug + Send + Sync {
    fn subscribing(&self, from: StartFrom) -> Box<dyn ShardReader>;
    fn polling(&self, from: StartFrom) -> Box<dyn ShardReader>;
}

/// Subscribes, and polls while that fails.
#[derive(Debug)]
pub(super) struct FallbackReader<R> {
    readers: R,
    after: Duration,
    retry_interval: Duration,
    clock: Arc<dyn Clock>,
    /// Where either reader goes on: what the other has read ahead and not returned is read again.
    place: Place,
    /// Reads, or is tried beside the one that polls.
    subscribed: Option<Box<dyn ShardReader>>,
    failing_since: Option<Instant>,
    polled: Option<Polled>,
}

#[derive(Debug)]
struct Polled {
    reader: Box<dyn ShardReader>,
    reason: Arc<SourceError>,
    /// Since when fan-out has not been tried.
    since: Instant,
}

impl<R: Readers> FallbackReader<R> {
    pub(super) fn new(readers: R, config: &FallbackConfig, from: StartFrom, clock: Arc<dyn Clock>) -> Self {
        Self {
            readers,
            after: config.after,
            retry_interval: config.retry_interval.max(Duration::from_secs(1)),
            place: Place::new(from, clock.now()),
            clock,
            subscribed: None,
            failing_since: None,
            polled: None,
        }
    }

    fn subscribed(&mut self) -> &mut Box<dyn ShardReader> {
        let (readers, place, clock) = (&self.readers, &mut self.place, &self.clock);
        self.subscribed.get_or_insert_with(|| readers.subscribing(place.ask(clock.now())))
    }

    /// Moves behind a batch that is returned now.
    fn returned(&mut self, batch: SourceBatch) -> SourceBatch {
        if let Some(last) = batch.records.last() {
            self.place.advance(last.sequence_number);
        }
        batch
    }

    fn fall_back(&mut self, reason: Arc<SourceError>) {
        (self.subscribed, self.failing_since) = (None, None);
        let reader = self.readers.polling(self.place.ask(self.clock.now()));
        self.polled = Some(Polled { reader, reason, since: Instant::now() });
    }

    /// Reads by subscription. Returns nothing once that is given up.
    async fn subscribe(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        match self.subscribed().next().await {
            Ok(batch) => {
                let absorbed = self.subscribed().absorbed_failures().filter(|_| !is_event(&batch));
                match absorbed {
                    None => self.failing_since = None,
                    Some((_, latest)) => {
                        if self.failing_since.get_or_insert_with(Instant::now).elapsed() >= self.after {
                            self.fall_back(latest);
                        }
                    }
                }
                Ok(Some(self.returned(batch)))
            }
            Err(error) if is_of_the_shard(error.kind()) => Err(error),
            Err(error) => {
                self.fall_back(Arc::new(error));
                Ok(None)
            }
        }
    }

    /// Tries to subscribe again, until this time, while nobody polls.
    async fn try_again(&mut self, until: Instant) -> Option<SourceBatch> {
        loop {
            let outcome = timeout_at(until, self.subscribed().next()).await;
            match outcome {
                Ok(Ok(batch)) if is_event(&batch) => {
                    (self.polled, self.failing_since) = (None, None);
                    return Some(self.returned(batch));
                }
                // A sign of life: it waits for its turn.
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return self.keep_polling(Some(error)),
                Err(_) => return self.keep_polling(None),
            }
        }
    }

    fn keep_polling(&mut self, error: Option<SourceError>) -> Option<SourceBatch> {
        self.subscribed = None;
        if let Some(polled) = &mut self.polled {
            polled.since = Instant::now();
            if let Some(error) = error {
                polled.reason = Arc::new(error);
            }
        }
        None
    }
}

/// Whether the service said this, and not the reader to show that it lives.
const fn is_event(batch: &SourceBatch) -> bool {
    batch.behind.is_some() || batch.end.is_some()
}

/// Whether another way of reading would meet the same.
const fn is_of_the_shard(kind: SourceErrorKind) -> bool {
    matches!(
        kind,
        SourceErrorKind::ShardMissing | SourceErrorKind::StreamMissing | SourceErrorKind::PositionUnknown
    )
}

#[async_trait]
impl<R: Readers> ShardReader for FallbackReader<R> {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        loop {
            let batch = match &mut self.polled {
                None => self.subscribe().await?,
                Some(polled) if polled.since.elapsed() < self.retry_interval => {
                    let batch = polled.reader.next().await?;
                    return Ok(self.returned(batch));
                }
                Some(polled) => {
                    let until = polled.since + self.retry_interval + TRIAL;
                    self.try_again(until).await
                }
            };
            if let Some(batch) = batch {
                return Ok(batch);
            }
        }
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        match &self.polled {
            None => self.subscribed.as_ref()?.absorbed_failures(),
            Some(polled) => polled.reader.absorbed_failures(),
        }
    }

    fn fallback(&self) -> Option<Arc<SourceError>> {
        self.polled.as_ref().map(|polled| Arc::clone(&polled.reason))
    }
}

#[cfg(test)]
mod tests;
