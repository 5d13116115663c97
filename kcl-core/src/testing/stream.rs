//! A stream in memory: the model of `kcl-local` as a source, without the wire.

mod subscriber;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytestring::ByteString;
use kcl_local::error::ApiError;
use kcl_local::kinesis::{self as model, GetRecordsOutput, IteratorStart, Kinesis, StoredRecord};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::subscriber::FanOut;
use crate::entropy::Entropy;
use crate::model::{ChildShard, HashKeyRange, SequenceNumber, Shard, ShardId, SourceRecord, StreamIdentity};
use crate::source::{
    ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom, StreamSource,
};

/// How often a reader polls that leaves out polls.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// What a [`MemoryStream`] is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StreamCall {
    /// [`StreamSource::identity`].
    Identity,
    /// [`StreamSource::list_shards`].
    List,
    /// [`StreamSource::open`].
    Open,
    /// A read by a [`ShardReader`]: each one made, also those whose failure the reader absorbs.
    Read,
    /// A subscription by a [`ShardReader`], if there is a consumer: each one opened, or refused.
    Subscribe,
}

impl StreamCall {
    const fn operation(self) -> &'static str {
        match self {
            Self::Identity => "DescribeStreamSummary",
            Self::List => "ListShards",
            Self::Open => "GetShardIterator",
            Self::Read => "GetRecords",
            Self::Subscribe => "SubscribeToShard",
        }
    }
}

/// A stream of a [`Kinesis`] model as a source, with hooks that make it behave badly.
///
/// Readers poll at an even pace in tokio's time, paused or not, and at once while more is waiting. With a consumer
/// ([`MemoryStream::with_consumer`]) they subscribe instead, as readers of Kinesis do by fan-out. Clones share the model and the hooks; hooks take effect on open readers at once. Puts, splits, expired iterators and
/// deletions are made on the model itself.
#[derive(Clone, Debug)]
pub struct MemoryStream {
    kinesis: Kinesis,
    name: String,
    poll_interval: Duration,
    fetch_records: u32,
    hooks: Arc<Mutex<Hooks>>,
    entropy: Entropy,
    news: Option<Arc<News>>,
    fan_out: Option<Arc<FanOut>>,
}

/// What tells readers that wait at the tip that there may be something.
#[derive(Debug, Default)]
struct News {
    changes: AtomicU64,
    told: Notify,
}

#[derive(Debug, Default)]
struct Hooks {
    hide_children: bool,
    behind: Option<Duration>,
    latency: Duration,
    disturbance: f64,
    missing: f64,
    hanging: (f64, Duration),
    stale_listing: (f64, Duration),
    listed: Option<(Instant, Vec<Shard>)>,
    /// Tells the calls that hang.
    calm: Arc<Notify>,
    failures: BTreeMap<StreamCall, Vec<Planned>>,
    calls: BTreeMap<StreamCall, u64>,
}

#[derive(Debug)]
struct Planned {
    shard: Option<ShardId>,
    kind: SourceErrorKind,
    count: u32,
}

impl MemoryStream {
    /// Creates a source of the stream `name` of `kinesis`, which need not exist yet.
    #[must_use]
    pub fn new(kinesis: Kinesis, name: impl Into<String>) -> Self {
        Self {
            kinesis,
            name: name.into(),
            poll_interval: Duration::from_millis(200),
            fetch_records: 10_000,
            hooks: Arc::default(),
            entropy: Entropy::seeded(0),
            news: None,
            fan_out: None,
        }
    }

    /// Has shards read by subscriptions of the consumer of this name, registered if it is missing. The reader is the
    /// one that reads Kinesis by fan-out; only the wire is left out.
    #[must_use]
    pub fn with_consumer(mut self, name: impl Into<String>) -> Self {
        self.fan_out = Some(Arc::new(FanOut::new(name.into(), &self)));
        self
    }

    /// Sets the time between two reads of a shard that has nothing new. Default 200 ms.
    #[must_use]
    pub const fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets the most records of one read, 1 to 10,000. Default 10,000.
    #[must_use]
    pub const fn with_fetch_records(mut self, records: u32) -> Self {
        self.fetch_records = records;
        self
    }

    /// Sets what latencies and disturbances are drawn from. Default: seed 0.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Leaves out polls that would find nothing: a reader at the tip polls when the model has changed, at the moment
    /// it would have, or every four seconds. For simulations of hours; polls that are left out are not counted.
    #[must_use]
    pub fn skipping_idle_polls(mut self) -> Self {
        let news: Arc<News> = Arc::default();
        let told = Arc::downgrade(&news);
        self.kinesis.on_change(move || {
            if let Some(news) = told.upgrade() {
                news.changes.fetch_add(1, Ordering::Relaxed);
                news.told.notify_waiters();
            }
        });
        self.news = Some(news);
        self
    }

    /// The model, to put to, reshard and break.
    #[must_use]
    pub const fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// Whether the end of a shard names no children.
    pub fn hide_children(&self, hide: bool) {
        self.hooks().hide_children = hide;
    }

    /// Makes every batch claim to be this far behind the tip; `None` restores the truth.
    pub fn claim_behind(&self, behind: Option<Duration>) {
        self.hooks().behind = behind;
    }

    /// Makes every call take between half of `around` and `around` and a half.
    pub fn set_latency(&self, around: Duration) {
        self.hooks().latency = around;
    }

    /// Makes reads fail in passing with this probability, 0.0 to 1.0: throttled, unavailable, iterator expired.
    pub fn disturb(&self, probability: f64) {
        self.hooks().disturbance = probability;
    }

    /// Makes the service deny the shard with this probability, 0.0 to 1.0, whenever it is opened or read.
    pub fn deny_shards(&self, probability: f64) {
        self.hooks().missing = probability;
    }

    /// Makes calls take this much longer with this probability, 0.0 to 1.0, before they are answered.
    pub fn hang(&self, probability: f64, time: Duration) {
        self.hooks().hanging = (probability, time);
    }

    /// Makes listings repeat the one before with this probability, 0.0 to 1.0, if that is not older than `age`.
    pub fn list_stale(&self, probability: f64, age: Duration) {
        self.hooks().stale_listing = (probability, age);
    }

    /// Ends everything that was set up to go wrong, planned failures and calls that hang included.
    pub fn calm(&self) {
        let mut hooks = self.hooks();
        let calls = std::mem::take(&mut hooks.calls);
        hooks.calm.notify_waiters();
        let (latency, listed) = (hooks.latency, hooks.listed.take());
        *hooks = Hooks { calls, latency, listed, ..Hooks::default() };
    }

    /// Makes the next `count` calls of this kind fail, on any shard.
    ///
    /// A reader absorbs `Throttled` and `Unavailable`, as the contract of [`ShardReader::next`] says.
    pub fn fail(&self, call: StreamCall, kind: SourceErrorKind, count: u32) {
        self.plan(call, Planned { shard: None, kind, count });
    }

    /// Makes the next `count` calls of this kind on `shard` fail.
    pub fn fail_shard(&self, call: StreamCall, shard: &ShardId, kind: SourceErrorKind, count: u32) {
        self.plan(call, Planned { shard: Some(shard.clone()), kind, count });
    }

    /// How many calls of this kind were made.
    #[must_use]
    pub fn calls(&self, call: StreamCall) -> u64 {
        self.hooks().calls.get(&call).copied().unwrap_or_default()
    }

    fn plan(&self, call: StreamCall, planned: Planned) {
        self.hooks().failures.entry(call).or_default().push(planned);
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resource(&self, shard: Option<&ShardId>) -> String {
        match shard {
            Some(shard) => format!("stream {}, shard {shard}", self.name),
            None => format!("stream {}", self.name),
        }
    }

    /// Counts the call and takes its time and its failure, if one is planned.
    async fn begin(&self, call: StreamCall, shard: Option<&ShardId>) -> Result<(), SourceError> {
        let failure = {
            let mut hooks = self.hooks();
            *hooks.calls.entry(call).or_default() += 1;
            let planned = hooks.failures.entry(call).or_default();
            let matching = |planned: &Planned| planned.shard.as_ref().is_none_or(|on| Some(on) == shard);
            let at = planned.iter().position(|planned| planned.count > 0 && matching(planned));
            at.map(|at| {
                planned[at].count -= 1;
                planned[at].kind
            })
        };
        self.travel().await;
        let failure = failure.or(self.suffer(shard).await);
        match failure {
            Some(kind) => Err(SourceError::new(kind, call.operation(), self.resource(shard), "planned")),
            None => Ok(()),
        }
    }

    /// Takes the time for which a call hangs, if it does, and says whether the shard is denied.
    async fn suffer(&self, shard: Option<&ShardId>) -> Option<SourceErrorKind> {
        let (share, time) = self.hooks().hanging;
        if self.strikes(share) {
            let calm = Arc::clone(&self.hooks().calm);
            // In time, or when it is calm.
            let _ = timeout(time, calm.notified()).await;
        }
        let share = self.hooks().missing;
        (shard.is_some() && self.strikes(share)).then_some(SourceErrorKind::ShardMissing)
    }

    /// Whether something of this probability happens now.
    fn strikes(&self, probability: f64) -> bool {
        probability > 0.0 && self.entropy.unit() < probability
    }

    fn changes(&self) -> u64 {
        self.news.as_ref().map_or(0, |news| news.changes.load(Ordering::Relaxed))
    }

    /// Whether a poll can only say what the model says.
    fn is_honest(&self) -> bool {
        let hooks = self.hooks();
        hooks.disturbance <= 0.0
            && hooks.missing <= 0.0
            && hooks.hanging.0 <= 0.0
            && hooks.failures.values().flatten().all(|planned| planned.count == 0)
    }

    /// Half the way of a call, there or back.
    async fn travel(&self) {
        let latency = self.hooks().latency;
        if !latency.is_zero() {
            sleep(self.entropy.jitter(latency / 2)).await;
        }
    }

    fn error(
        &self,
        call: StreamCall,
        shard: Option<&ShardId>,
        at_sequence: bool,
        error: ApiError,
    ) -> SourceError {
        let kind = match error.code.as_str() {
            "ProvisionedThroughputExceededException" | "LimitExceededException" => SourceErrorKind::Throttled,
            "ExpiredIteratorException" | "ExpiredNextTokenException" => SourceErrorKind::Unavailable,
            "ResourceInUseException" => SourceErrorKind::Unavailable,
            "ResourceNotFoundException" => match self.kinesis.describe_stream_summary(&self.name) {
                Ok(_) if shard.is_some() => SourceErrorKind::ShardMissing,
                _ => SourceErrorKind::StreamMissing,
            },
            "InvalidArgumentException" if at_sequence => SourceErrorKind::PositionUnknown,
            _ if error.status >= 500 => SourceErrorKind::Unavailable,
            _ => SourceErrorKind::Invalid,
        };
        SourceError::new(kind, call.operation(), self.resource(shard), error.to_string()).with_source(error)
    }

    fn iterator(&self, shard: &ShardId, from: StartFrom) -> Result<String, SourceError> {
        let start = start(from);
        let at_sequence = matches!(from, StartFrom::AtSequence(_) | StartFrom::AfterSequence(_));
        self.kinesis
            .get_shard_iterator(&self.name, shard.as_str(), &start)
            .map_err(|error| self.error(StreamCall::Open, Some(shard), at_sequence, error))
    }

    /// Says whether the next read is to fail in passing, and how.
    fn draw_disturbance(&self) -> Option<SourceErrorKind> {
        let probability = self.hooks().disturbance;
        if !self.strikes(probability) {
            return None;
        }
        Some(if self.entropy.below(2) == 0 {
            SourceErrorKind::Throttled
        } else {
            SourceErrorKind::Unavailable
        })
    }
}

#[async_trait]
impl StreamSource for MemoryStream {
    async fn identity(&self) -> Result<StreamIdentity, SourceError> {
        self.begin(StreamCall::Identity, None).await?;
        let summary = self
            .kinesis
            .describe_stream_summary(&self.name)
            .map_err(|error| self.error(StreamCall::Identity, None, false, error))?;
        self.travel().await;
        let created = summary.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let created_millis = u64::try_from(created.as_millis()).unwrap_or(u64::MAX);
        Ok(StreamIdentity { arn: summary.arn, created_millis })
    }

    async fn list_shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.begin(StreamCall::List, None).await?;
        let (share, age) = self.hooks().stale_listing;
        if self.strikes(share)
            && let Some((at, shards)) = self.hooks().listed.clone()
            && at.elapsed() <= age
        {
            return Ok(shards);
        }
        let shards = self
            .kinesis
            .shards(&self.name, model::ShardFilter::FromTrimHorizon)
            .map_err(|error| self.error(StreamCall::List, None, false, error))?;
        let shards: Vec<Shard> = shards.iter().map(shard).collect();
        self.hooks().listed = Some((Instant::now(), shards.clone()));
        self.travel().await;
        Ok(shards)
    }

    async fn open(&self, shard: &ShardId, from: StartFrom) -> Result<Box<dyn ShardReader>, SourceError> {
        self.begin(StreamCall::Open, Some(shard)).await?;
        if let Some(fan_out) = &self.fan_out {
            return Ok(fan_out.open(self, shard, from));
        }
        let iterator = self.iterator(shard, from)?;
        let opened = self.kinesis.clock().now();
        self.travel().await;
        Ok(Box::new(MemoryReader {
            stream: self.clone(),
            shard: shard.clone(),
            // Asked for again, "latest" would be a later place.
            again: if from == StartFrom::Latest { StartFrom::AtTimestamp(opened) } else { from },
            iterator: Some(iterator),
            next_read: Instant::now(),
            failures: 0,
            latest: None,
            end: None,
            seen: None,
        }))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Reads one shard of a [`MemoryStream`].
#[derive(Debug)]
struct MemoryReader {
    stream: MemoryStream,
    shard: ShardId,
    /// Where to begin again without the iterator.
    again: StartFrom,
    iterator: Option<String>,
    next_read: Instant,
    failures: u32,
    latest: Option<Arc<SourceError>>,
    end: Option<SourceEnd>,
    /// The state of the model in which a poll found nothing.
    seen: Option<u64>,
}

impl MemoryReader {
    /// Waits while a poll would find nothing, if such polls are left out, and moves the next one to when it would
    /// have been.
    async fn await_news(&mut self) {
        let (Some(news), Some(seen)) = (&self.stream.news, self.seen) else { return };
        if !self.stream.is_honest() {
            return;
        }
        let interval = self.stream.poll_interval;
        let beat = self.next_read + HEARTBEAT.saturating_sub(interval);
        let mut told = pin!(news.told.notified());
        told.as_mut().enable();
        if news.changes.load(Ordering::Relaxed) == seen {
            // Either is reason to poll.
            let _ = timeout_at(beat, told).await;
        }
        while self.next_read < Instant::now() {
            self.next_read += interval.max(Duration::from_millis(1));
        }
    }

    /// Reads a page. Changes nothing but the iterator, which the same call can always make again.
    async fn read(&mut self) -> Result<GetRecordsOutput, SourceError> {
        let call = StreamCall::Read;
        self.stream.begin(call, Some(&self.shard)).await?;
        if let Some(kind) = self.stream.draw_disturbance() {
            self.iterator = None;
            let resource = self.stream.resource(Some(&self.shard));
            return Err(SourceError::new(kind, call.operation(), resource, "disturbed"));
        }
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => self.stream.iterator(&self.shard, self.again)?,
        };
        let page = self
            .stream
            .kinesis
            .get_records(&iterator, Some(self.stream.fetch_records))
            .map_err(|error| self.stream.error(call, Some(&self.shard), false, error))?;
        self.iterator = Some(iterator);
        self.stream.travel().await;
        Ok(page)
    }

    fn accept(&mut self, page: GetRecordsOutput) -> SourceBatch {
        let (hide_children, behind) = {
            let hooks = self.stream.hooks();
            (hooks.hide_children, hooks.behind)
        };
        if page.millis_behind_latest > 0 {
            self.next_read = Instant::now();
        }
        let end = page.next_iterator.is_none().then(|| SourceEnd {
            children: if hide_children { Vec::new() } else { page.child_shards.iter().map(child).collect() },
        });
        let records: Vec<_> = page.records.into_iter().map(record).collect();
        if let Some(last) = records.last() {
            self.again = StartFrom::AfterSequence(last.sequence_number);
        }
        self.iterator = page.next_iterator;
        self.end.clone_from(&end);
        (self.failures, self.latest) = (0, None);
        let behind = behind.unwrap_or(Duration::from_millis(page.millis_behind_latest));
        SourceBatch::new(records, Some(behind), end)
    }
}

#[async_trait]
impl ShardReader for MemoryReader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        if let Some(end) = &self.end {
            return Ok(SourceBatch::new(Vec::new(), None, Some(end.clone())));
        }
        self.await_news().await;
        sleep_until(self.next_read).await;
        let changes = self.stream.changes();
        self.next_read = Instant::now() + self.stream.poll_interval;
        self.seen = None;
        match self.read().await {
            Ok(page) => {
                let at_tip = page.records.is_empty() && page.millis_behind_latest == 0;
                self.seen = (at_tip && page.next_iterator.is_some()).then_some(changes);
                Ok(self.accept(page))
            }
            Err(error) if error.is_retryable() => {
                self.failures = self.failures.saturating_add(1);
                self.latest = Some(Arc::new(error));
                Ok(SourceBatch::default())
            }
            Err(error) => Err(error),
        }
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        self.latest.as_ref().map(|latest| (self.failures, Arc::clone(latest)))
    }
}

const fn number(number: model::SequenceNumber) -> SequenceNumber {
    SequenceNumber::from_limbs(number.limbs())
}

fn range(range: model::HashKeyRange) -> HashKeyRange {
    HashKeyRange::new(range.start, range.end).expect("the model keeps its ranges in order")
}

fn start(from: StartFrom) -> IteratorStart {
    let number = |number: SequenceNumber| model::SequenceNumber::from_limbs(number.limbs());
    match from {
        StartFrom::TrimHorizon => IteratorStart::TrimHorizon,
        StartFrom::Latest => IteratorStart::Latest,
        StartFrom::AtTimestamp(time) => IteratorStart::AtTimestamp(time),
        StartFrom::AtSequence(at) => IteratorStart::AtSequenceNumber(number(at)),
        StartFrom::AfterSequence(after) => IteratorStart::AfterSequenceNumber(number(after)),
    }
}

fn shard(shard: &model::ShardDescription) -> Shard {
    Shard {
        id: ShardId::new(Arc::clone(&shard.shard_id)),
        parent: shard.parent_shard_id.clone().map(ShardId::new),
        adjacent_parent: shard.adjacent_parent_shard_id.clone().map(ShardId::new),
        hash_key_range: range(shard.hash_key_range),
        starting_sequence_number: number(shard.starting_sequence_number),
        ending_sequence_number: shard.ending_sequence_number.map(number),
    }
}

fn child(child: &model::ChildShard) -> ChildShard {
    ChildShard {
        id: ShardId::new(Arc::clone(&child.shard_id)),
        parents: child.parent_shards.iter().cloned().map(ShardId::new).collect(),
        hash_key_range: range(child.hash_key_range),
    }
}

fn record(record: StoredRecord) -> SourceRecord {
    SourceRecord::new(
        number(record.sequence_number),
        Some(record.arrival),
        Some(ByteString::from(&*record.partition_key)),
        record.data,
    )
}

#[cfg(test)]
mod tests;
