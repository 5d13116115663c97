//! The reader that polls one shard.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use tokio::time::{Instant, sleep_until};

use super::PollingConfig;
use super::classify::{Class, Failure};
use super::convert;
use super::pace::Pace;
use super::service::Service;
use crate::entropy::Entropy;
use crate::model::ShardId;
use crate::retry::Backoff;
use crate::source::place::Place;
use crate::source::{ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom};
use crate::time::Clock;

/// How long [`ShardReader::next`] waits or retries before it returns an empty batch as a sign of life.
const LIFE_SIGN: Duration = Duration::from_secs(2);

/// Iterators last five minutes; one that has lain about for this long is not tried any more.
const ITERATOR_LIFE: Duration = Duration::from_secs(270);

/// The delays after failures other than throttling.
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Polls one shard.
///
/// State changes only between awaits: a dropped call leaves the iterator and the place as they were, and only
/// counts as made for the pace.
#[derive(Debug)]
pub(super) struct PollingReader {
    service: Arc<Service>,
    shard: ShardId,
    limit: i32,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    place: Place,
    iterator: Option<Iterator>,
    pace: Pace,
    backoff: Backoff,
    failures: Failures,
    end: Option<SourceEnd>,
}

#[derive(Debug)]
struct Iterator {
    token: String,
    born: Instant,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    latest: Option<Arc<SourceError>>,
    expired: u32,
    refused: u32,
}

impl PollingReader {
    pub(super) fn new(
        service: Arc<Service>,
        shard: ShardId,
        from: StartFrom,
        config: &PollingConfig,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Self {
        Self {
            service,
            shard,
            limit: i32::try_from(config.fetch_records.clamp(1, 10_000)).unwrap_or(10_000),
            place: Place::new(from, clock.now()),
            clock,
            iterator: None,
            pace: Pace::new(config, Instant::now()),
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX, entropy.fork()),
            entropy,
            failures: Failures::default(),
            end: None,
        }
    }

    /// Makes one call, and the one for an iterator if there is none. Returns nothing if a failure was absorbed.
    async fn attempt(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if self.iterator.as_ref().is_none_or(|iterator| iterator.born.elapsed() >= ITERATOR_LIFE) {
            self.iterator = None;
            let from = self.place.ask(self.clock.now());
            let born = Instant::now();
            match self.service.shard_iterator(&self.shard, from).await {
                Ok(token) => self.iterator = Some(Iterator { token, born }),
                Err(failure) => return self.no_iterator(failure).await.map(|()| None),
            }
        }
        let Some(iterator) = &self.iterator else { return Ok(None) };
        self.pace.called(Instant::now());
        match self.service.records(&self.shard, &iterator.token, self.limit).await {
            Ok(answer) => self.accept(answer).map(Some),
            Err(failure) => self.no_records(failure).await.map(|()| None),
        }
    }

    /// Takes an answer over, whole or not at all.
    fn accept(&mut self, answer: GetRecordsOutput) -> Result<SourceBatch, SourceError> {
        let records: Result<Vec<_>, _> = answer.records.into_iter().map(convert::record).collect();
        let records = records.map_err(|problem| {
            Failure::invalid("GetRecords", &self.service.shard_resource(&self.shard), problem).error
        });
        let records = records.inspect_err(|_| self.retry_later())?;
        let behind = answer
            .millis_behind_latest
            .map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or_default()));
        let end = match answer.next_shard_iterator {
            Some(token) => {
                self.iterator = Some(Iterator { token, born: Instant::now() });
                None
            }
            None => Some(SourceEnd { children: convert::children(answer.child_shards) }),
        };
        if let Some(last) = records.last() {
            self.place.advance(last.sequence_number);
        }
        self.end.clone_from(&end);
        self.failures = Failures::default();
        self.backoff.reset();
        let batch = SourceBatch::new(records, behind, end);
        let keys = batch.records.iter().filter_map(|record| record.partition_key.as_ref());
        let bytes = batch.payload_bytes() + keys.map(|key| key.len()).sum::<usize>();
        let more = behind.map_or(!batch.records.is_empty(), |behind| !behind.is_zero());
        self.pace.answered(Instant::now(), bytes, more, self.entropy.unit());
        Ok(batch)
    }

    async fn no_records(&mut self, failure: Failure) -> Result<(), SourceError> {
        match failure.class {
            Class::Throttled => {
                self.pace.throttled(Instant::now(), self.entropy.unit());
                self.count(failure.error);
                Ok(())
            }
            Class::ExpiredIterator => {
                self.iterator = None;
                self.failures.expired += 1;
                let repeated = self.failures.expired > 1;
                self.count(failure.error);
                if repeated {
                    self.retry_later();
                }
                Ok(())
            }
            // The iterator itself is refused. A new one settles that, or it was not the iterator's fault.
            Class::Argument if self.failures.refused == 0 => {
                self.iterator = None;
                self.failures.refused += 1;
                self.count(failure.error);
                Ok(())
            }
            _ => self.settle(failure).await,
        }
    }

    async fn no_iterator(&mut self, failure: Failure) -> Result<(), SourceError> {
        match failure.class {
            Class::Argument if self.place.is_at_sequence() => {
                self.retry_later();
                let resource = self.service.shard_resource(&self.shard);
                let message = "the shard does not know the sequence number it was asked for; correct the checkpoint of its \
                               lease, or delete the lease to start over";
                let kind = SourceErrorKind::PositionUnknown;
                Err(SourceError::new(kind, "GetShardIterator", resource, message).with_source(failure.error))
            }
            // The service's clock has not reached the time of the opening yet. It will.
            Class::Argument if self.place.is_at_latest() => {
                self.absorb(failure.error);
                Ok(())
            }
            _ => self.settle(failure).await,
        }
    }

    /// Absorbs what waiting cures and returns the rest.
    async fn settle(&mut self, failure: Failure) -> Result<(), SourceError> {
        match failure.class {
            Class::Throttled
            | Class::Unavailable
            | Class::InUse
            | Class::ExpiredIterator
            | Class::ExpiredToken => {
                self.absorb(failure.error);
                Ok(())
            }
            Class::NotFound => self.look_again(failure.error).await,
            Class::Denied | Class::Argument | Class::Invalid => {
                self.retry_later();
                Err(failure.error)
            }
        }
    }

    /// "Not found" may mean the stream, the shard, or neither: a replica that lags, a stream about to become
    /// active. The listing decides.
    async fn look_again(&mut self, error: SourceError) -> Result<(), SourceError> {
        let listing = self.service.list_shards().await;
        self.iterator = None;
        match listing {
            Ok(shards) if shards.iter().any(|shard| shard.id == self.shard) => {
                self.absorb(error);
                Ok(())
            }
            Ok(_) => {
                self.retry_later();
                let resource = self.service.shard_resource(&self.shard);
                let message = "the stream exists and does not list the shard (any more)";
                let kind = SourceErrorKind::ShardMissing;
                Err(SourceError::new(kind, error.operation(), resource, message).with_source(error))
            }
            Err(listing) if listing.is_retryable() => {
                self.absorb(listing);
                Ok(())
            }
            Err(listing) => {
                self.retry_later();
                Err(listing)
            }
        }
    }

    fn absorb(&mut self, error: SourceError) {
        self.count(error);
        self.retry_later();
    }

    fn count(&mut self, error: SourceError) {
        tracing::debug!(%error, shard = %self.shard, failures = self.failures.count + 1, "absorbed a failure");
        self.failures.count = self.failures.count.saturating_add(1);
        self.failures.latest = Some(Arc::new(error));
    }

    fn retry_later(&mut self) {
        let delay = self.backoff.next_delay();
        self.pace.postpone(Instant::now() + delay);
    }
}

#[async_trait]
impl ShardReader for PollingReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        if let Some(end) = &self.end {
            return Ok(SourceBatch::new(Vec::new(), None, Some(end.clone())));
        }
        let life_sign = Instant::now() + LIFE_SIGN;
        loop {
            let ready = self.pace.ready();
            sleep_until(ready.min(life_sign)).await;
            if ready > life_sign {
                return Ok(SourceBatch::default());
            }
            if let Some(batch) = self.attempt().await? {
                return Ok(batch);
            }
        }
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        self.failures.latest.as_ref().map(|latest| (self.failures.count, Arc::clone(latest)))
    }
}
