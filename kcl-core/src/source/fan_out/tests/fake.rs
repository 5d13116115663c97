//! A shard that can be subscribed to, and does as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::entropy::Entropy;
use crate::model::{ChildShard, SequenceNumber, SourceRecord};
use crate::source::fan_out::reader::Shared;
use crate::source::fan_out::{
    Class, Event, Failure, FanOutReader, FanOutTimeouts, Pool, Signal, Subscriber, Subscription, Turns,
};
use crate::source::{ShardReader, SourceBatch, SourceEnd, SourceError, SourceErrorKind, StartFrom};
use crate::time::TokioClock;

pub(super) const SECOND: Duration = Duration::from_secs(1);
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
const HEARTBEAT: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(300);

/// What becomes of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It fails instead of opening.
    Refuse(Class),
    /// It never opens.
    NeverOpen,
    /// It opens, brings so many events, and fails.
    FailAfter(usize, Class),
    /// It opens, brings so many events, and then nothing more.
    SilentAfter(usize),
    /// It opens, brings so many events, and ends.
    EndAfter(usize),
}

/// The service, as far as one shard sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Service(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    open: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    records: Vec<SourceRecord>,
    arrivals: Vec<Instant>,
    closed: Option<Vec<ChildShard>>,
    pub(super) acts: VecDeque<Act>,
    /// What the second look finds; nothing wrong by default.
    pub(super) finding: Option<SourceErrorKind>,
    /// Each subscription asked for.
    pub(super) asked: Vec<(Instant, StartFrom)>,
    /// When the latest was taken, whether or not it was asked for too soon.
    taken: Option<Instant>,
    pub(super) condemned: usize,
    pub(super) prepared: usize,
    pub(super) unprepared: usize,
    pub(super) events: usize,
}

impl Service {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub(super) fn then(&self, acts: impl IntoIterator<Item = Act>) {
        self.lock().acts.extend(acts);
    }

    /// Puts records of so many bytes with the next numbers, ten apart. Returns their numbers.
    pub(super) fn put(&self, count: usize, bytes: usize) -> Vec<u64> {
        let mut state = self.lock();
        let numbers: Vec<u64> = (0..count).map(|at| (state.records.len() + at + 1) as u64 * 10).collect();
        for number in &numbers {
            state.records.push(SourceRecord::new((*number).into(), None, None, Bytes::from(vec![7; bytes])));
            state.arrivals.push(Instant::now());
        }
        drop(state);
        self.0.changed.notify_waiters();
        numbers
    }

    pub(super) fn close(&self, children: Vec<ChildShard>) {
        self.lock().closed = Some(children);
        self.0.changed.notify_waiters();
    }

    /// How many subscriptions were asked for, and how many events with records or the end were sent.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.asked.len(), state.events)
    }

    /// How many subscriptions are open, or opening, now.
    pub(super) fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    pub(super) fn reader(&self, from: StartFrom) -> FanOutReader {
        self.reader_with(from, FanOutTimeouts::default(), &Arc::new(Turns::new(Entropy::seeded(1))), 1)
    }

    pub(super) fn reader_with(
        &self,
        from: StartFrom,
        timeouts: FanOutTimeouts,
        turns: &Arc<Turns>,
        seed: u64,
    ) -> FanOutReader {
        let shared = Shared {
            turns: Arc::clone(turns),
            pool: Arc::new(Pool::new(crate::source::BUFFER_BYTES)),
            timeouts,
            clock: Arc::new(TokioClock::new(SystemTime::UNIX_EPOCH + EPOCH)),
            metrics: crate::metrics::Metrics::none(),
        };
        let subscriber = Arc::new(self.clone());
        FanOutReader::new(
            subscriber,
            &"shard".into(),
            "the shard".into(),
            from,
            &shared,
            Entropy::seeded(seed),
        )
    }

    fn first_at_or_after(&self, from: StartFrom) -> usize {
        let state = self.lock();
        let number = |record: &SourceRecord| record.sequence_number;
        match from {
            StartFrom::TrimHorizon => 0,
            StartFrom::Latest => state.records.len(),
            // Records arrive by tokio's clock, and times are told by one that began with it.
            StartFrom::AtTimestamp(time) => {
                let ago = (SystemTime::UNIX_EPOCH + EPOCH).duration_since(time).unwrap_or_default();
                if ago > Duration::ZERO { 0 } else { state.records.len() }
            }
            StartFrom::AtSequence(at) => state.records.partition_point(|record| number(record) < at),
            StartFrom::AfterSequence(after) => {
                state.records.partition_point(|record| number(record) <= after)
            }
        }
    }

    /// Takes the call, or refuses it.
    fn take(&self, act: Option<Act>) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(Act::Refuse(class)) = act {
            return Err(failure(class));
        }
        let mut state = self.lock();
        if state.taken.is_some_and(|taken| now.duration_since(taken) < HEARTBEAT) {
            return Err(failure(Class::InUse));
        }
        state.taken = Some(now);
        Ok(())
    }
}

pub(super) fn failure(class: Class) -> Failure {
    let kind = match class {
        Class::Throttled => SourceErrorKind::Throttled,
        Class::Denied => SourceErrorKind::Denied,
        Class::Invalid | Class::Argument => SourceErrorKind::Invalid,
        Class::Missing => SourceErrorKind::StreamMissing,
        _ => SourceErrorKind::Unavailable,
    };
    let error = SourceError::new(kind, "SubscribeToShard", "the shard", format!("{class:?} as told"));
    Failure { class, error }
}

/// Counts an open subscription while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Stage {
    service: Service,
    from: StartFrom,
    act: Option<Act>,
    at: usize,
    /// The number that the next subscription would go on after.
    continuation: u64,
    events: usize,
    opened: Option<Instant>,
    is_over: bool,
    _open: Open,
}

impl Stage {
    async fn next(&mut self) -> Option<Result<Signal, Failure>> {
        if self.is_over {
            return None;
        }
        let Some(opened) = self.opened else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.act == Some(Act::NeverOpen) {
                std::future::pending::<()>().await;
            }
            if let Err(failure) = self.service.take(self.act) {
                self.is_over = true;
                return Some(Err(failure));
            }
            self.opened = Some(Instant::now());
            self.at = self.service.first_at_or_after(self.from);
            return Some(Ok(Signal::Opened));
        };
        match self.act {
            Some(Act::FailAfter(events, class)) if self.events == events => {
                self.is_over = true;
                return Some(Err(failure(class)));
            }
            Some(Act::SilentAfter(events)) if self.events == events => std::future::pending().await,
            Some(Act::EndAfter(events)) if self.events == events => return None,
            _ => {}
        }
        let beat = (Instant::now() + HEARTBEAT).min(opened + SESSION);
        let service = self.service.clone();
        loop {
            let changed = service.0.changed.notified();
            if let Some(event) = self.event() {
                return Some(Ok(Signal::Event(event)));
            }
            if timeout_at(beat, changed).await.is_err() {
                break;
            }
        }
        if Instant::now() >= opened + SESSION {
            return None;
        }
        self.events += 1;
        let continuation = Some(self.continuation.into());
        Some(Ok(Signal::Event(Event { batch: SourceBatch::default(), continuation })))
    }

    /// Up to three records at a time, and the end.
    fn event(&mut self) -> Option<Event> {
        let mut state = self.service.lock();
        let records: Vec<_> = state.records.iter().skip(self.at).take(3).cloned().collect();
        let is_last = self.at + records.len() == state.records.len();
        let end = if is_last { state.closed.clone().map(|children| SourceEnd { children }) } else { None };
        if records.is_empty() && end.is_none() {
            return None;
        }
        self.at += records.len();
        self.events += 1;
        state.events += 1;
        // As the service does, a number a little above that of the last record.
        self.continuation = self.at as u64 * 10 + 3;
        let continuation = end.is_none().then(|| SequenceNumber::from(self.continuation));
        Some(Event { batch: SourceBatch::new(records, None, end), continuation })
    }
}

#[async_trait]
impl Subscriber for Service {
    async fn prepare(&self) -> Result<(), Failure> {
        sleep_until(Instant::now() + Duration::from_millis(1)).await;
        let mut state = self.lock();
        state.prepared += 1;
        if state.unprepared > 0 {
            state.unprepared -= 1;
            return Err(failure(Class::Unavailable));
        }
        Ok(())
    }

    fn subscribe(&self, from: StartFrom) -> Subscription {
        let mut state = self.lock();
        state.asked.push((Instant::now(), from));
        let act = state.acts.pop_front();
        let number = match from {
            StartFrom::AfterSequence(number) => number.limbs()[2],
            _ => 1,
        };
        let stage = Stage {
            service: self.clone(),
            from,
            act,
            at: 0,
            continuation: number,
            events: 0,
            opened: None,
            is_over: false,
            _open: Open::new(&self.0.open),
        };
        let signals = unfold(stage, async |mut stage| Some((stage.next().await?, stage)));
        let service = self.clone();
        Subscription { signals: signals.boxed(), condemn: Box::new(move || service.lock().condemned += 1) }
    }

    async fn look_again(&self, failure: Failure) -> Failure {
        let finding = self.lock().finding;
        match finding {
            None => Failure { class: Class::Unavailable, ..failure },
            Some(kind) => {
                let error = SourceError::new(kind, "DescribeStreamConsumer", "the shard", "not there");
                Failure { class: Class::Gone, error }
            }
        }
    }
}

/// Reads so many records, and says their numbers.
pub(super) async fn read(reader: &mut FanOutReader, count: usize) -> Vec<u64> {
    let (start, mut read) = (Instant::now(), Vec::new());
    while read.len() < count {
        assert!(start.elapsed() < SECOND * 600, "{count} records do not come: {read:?}");
        read.extend(numbers(&reader.next().await.unwrap()));
    }
    read
}

pub(super) fn numbers(batch: &SourceBatch) -> Vec<u64> {
    batch.records.iter().map(|record| record.sequence_number.limbs()[2]).collect()
}
