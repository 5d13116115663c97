use std::sync::Mutex;
use std::time::SystemTime;

use tokio::time::sleep;

use super::*;
use crate::model::{SequenceNumber, SourceRecord};
use crate::time::TokioClock;

const SECOND: Duration = Duration::from_secs(1);

/// A shard that gets a record each second, and says by which way it can be read.
#[derive(Clone, Debug)]
struct Shard(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    begun: Instant,
    subscribing: Mood,
    read: Vec<(bool, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Failing(SourceErrorKind),
    Denied,
}

#[derive(Debug)]
struct Reader {
    shard: Shard,
    polls: bool,
    next: u64,
    absorbed: Option<(u32, Arc<SourceError>)>,
}

fn error(kind: SourceErrorKind) -> SourceError {
    SourceError::new(kind, "SubscribeToShard", "the shard", "as told")
}

#[async_trait]
impl ShardReader for Reader {
    async fn next(&mut self) -> Result<SourceBatch, SourceError> {
        sleep(Duration::from_millis(500)).await;
        let state = self.shard.0.lock().unwrap();
        if !self.polls {
            match state.subscribing {
                Mood::Well => self.absorbed = None,
                Mood::Denied => return Err(error(SourceErrorKind::Denied)),
                Mood::Failing(kind) => {
                    let count = self.absorbed.as_ref().map_or(0, |(count, _)| *count);
                    self.absorbed = Some((count + 1, Arc::new(error(kind))));
                    return Ok(SourceBatch::default());
                }
            }
        }
        let now = state.begun.elapsed().as_secs();
        let records = (self.next..now)
            .map(|number| SourceRecord::new(number.into(), None, None, bytes::Bytes::new()))
            .collect();
        self.next = self.next.max(now);
        Ok(SourceBatch::new(records, Some(Duration::ZERO), None))
    }

    fn absorbed_failures(&self) -> Option<(u32, Arc<SourceError>)> {
        self.absorbed.clone()
    }
}

impl Shard {
    fn reader(&self, polls: bool, from: StartFrom) -> Box<dyn ShardReader> {
        let next = match from {
            StartFrom::AfterSequence(number) => number.limbs()[2] + 1,
            _ => 0,
        };
        Box::new(Reader { shard: self.clone(), polls, next, absorbed: None })
    }
}

impl Readers for Shard {
    fn subscribing(&self, from: StartFrom) -> Box<dyn ShardReader> {
        self.reader(false, from)
    }

    fn polling(&self, from: StartFrom) -> Box<dyn ShardReader> {
        self.reader(true, from)
    }
}

fn shard() -> (Shard, FallbackReader<Shard>) {
    let state = State { begun: Instant::now(), subscribing: Mood::Well, read: Vec::new() };
    let shard = Shard(Arc::new(Mutex::new(state)));
    let clock = Arc::new(TokioClock::new(SystemTime::UNIX_EPOCH));
    let reader =
        FallbackReader::new(shard.clone(), &FallbackConfig::default(), StartFrom::TrimHorizon, clock);
    (shard, reader)
}

/// Reads for so many seconds, and says how long the reader polled.
async fn read(shard: &Shard, reader: &mut FallbackReader<Shard>, seconds: u32) -> Duration {
    let (begun, mut polled, mut last) = (Instant::now(), Duration::ZERO, Instant::now());
    while begun.elapsed() < SECOND * seconds {
        let batch = reader.next().await.unwrap();
        let polls = reader.fallback().is_some();
        polled += if polls { last.elapsed() } else { Duration::ZERO };
        last = Instant::now();
        let number = |number: SequenceNumber| number.limbs()[2];
        let read = batch.records.iter().map(|record| (polls, number(record.sequence_number)));
        shard.0.lock().unwrap().read.extend(read);
    }
    polled
}

fn assert_complete(shard: &Shard) {
    let state = shard.0.lock().unwrap();
    let read: Vec<u64> = state.read.iter().map(|(_, number)| *number).collect();
    let expected: Vec<u64> = (0..read.len() as u64).collect();
    assert_eq!(read, expected, "in order, each once");
    assert!(state.begun.elapsed().as_secs() - read.len() as u64 <= 15);
}

#[tokio::test(start_paused = true)]
async fn what_waiting_does_not_cure_is_polled_at_once_until_it_is_over() {
    let (shard, mut reader) = shard();
    assert_eq!(read(&shard, &mut reader, 10).await, Duration::ZERO);
    shard.0.lock().unwrap().subscribing = Mood::Denied;
    let polled = read(&shard, &mut reader, 100).await;
    assert!(polled >= SECOND * 98, "{polled:?}");
    assert_eq!(reader.fallback().unwrap().kind(), SourceErrorKind::Denied);
    shard.0.lock().unwrap().subscribing = Mood::Well;
    read(&shard, &mut reader, 62).await;
    assert!(reader.fallback().is_none(), "tried again every minute");
    assert_eq!(read(&shard, &mut reader, 10).await, Duration::ZERO);
    assert_complete(&shard);
}

#[tokio::test(start_paused = true)]
async fn failures_that_may_pass_are_waited_for_first() {
    let (shard, mut reader) = shard();
    read(&shard, &mut reader, 5).await;
    shard.0.lock().unwrap().subscribing = Mood::Failing(SourceErrorKind::Unavailable);
    assert_eq!(read(&shard, &mut reader, 29).await, Duration::ZERO);
    assert!(read(&shard, &mut reader, 300).await > SECOND * 240);
    assert!(reader.absorbed_failures().is_none(), "the shard is read");
    shard.0.lock().unwrap().subscribing = Mood::Well;
    read(&shard, &mut reader, 80).await;
    assert!(reader.fallback().is_none());
    assert_complete(&shard);
}

#[tokio::test(start_paused = true)]
async fn what_polling_would_meet_too_is_reported() {
    for kind in
        [SourceErrorKind::ShardMissing, SourceErrorKind::StreamMissing, SourceErrorKind::PositionUnknown]
    {
        assert!(is_of_the_shard(kind));
    }
    for kind in [SourceErrorKind::Denied, SourceErrorKind::ConsumerMissing, SourceErrorKind::Unavailable] {
        assert!(!is_of_the_shard(kind));
    }
}
