//! What was pushed and not yet asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::source::{SourceBatch, SourceError};

/// How many events wait at most. The service sends a shard's two megabytes per second in a few events.
const MAX_EVENTS: usize = 8;
/// From how many bytes on nothing more is taken. One event may come on top, of 10 MiB at most.
const MAX_BYTES: usize = 2 << 20;

/// The bytes that wait in all buffers of a worker. What is beyond the limit is at most one event of each.
#[derive(Debug)]
pub(crate) struct Pool {
    used: AtomicUsize,
    limit: usize,
}

impl Pool {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    fn is_used_up(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }
}

/// The buffer between the task that drains a subscription and the reader.
#[derive(Debug)]
pub(super) struct Buffer {
    pool: Arc<Pool>,
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<SourceBatch>,
    bytes: usize,
    /// What the reader is to be told after the events.
    error: Option<SourceError>,
    absorbed: Option<(u32, Arc<SourceError>)>,
    gives_life_signs: bool,
}

impl State {
    /// Whether nothing more is taken. A buffer without bytes takes an event whatever the others hold, so that blocked
    /// processors cannot silence other shards.
    fn is_full(&self, pool: &Pool) -> bool {
        let is_over = self.bytes > 0 && pool.is_used_up();
        self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES || is_over || self.error.is_some()
    }

    /// Whether there is room enough for a new subscription.
    fn is_low(&self, pool: &Pool) -> bool {
        let has_room = self.events.len() <= MAX_EVENTS / 2 && self.bytes <= MAX_BYTES / 2;
        has_room && !self.is_full(pool)
    }
}

impl Buffer {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, state: Mutex::default(), filled: Notify::new(), drained: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in. An empty one after an empty one takes its place, so that an idle shard never fills the
    /// buffer of a processor that is busy.
    pub(super) fn push(&self, batch: SourceBatch) {
        let mut state = self.lock();
        let bytes = batch.payload_bytes();
        state.bytes += bytes;
        self.pool.used.fetch_add(bytes, Ordering::Relaxed);
        state.absorbed = None;
        match state.events.back_mut() {
            Some(last) if last.records.is_empty() && batch.records.is_empty() => *last = batch,
            _ => state.events.push_back(batch),
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes in what the reader has to be told. Until it is taken the buffer is full.
    pub(super) fn report(&self, error: SourceError) {
        self.lock().error = Some(error);
        self.filled.notify_one();
    }

    /// Notes a failure that is not reported.
    pub(super) fn absorb(&self, absorbed: Option<(u32, Arc<SourceError>)>) {
        self.lock().absorbed = absorbed;
    }

    /// Says whether the reader gives signs of life while nothing comes.
    pub(super) fn give_life_signs(&self, gives_life_signs: bool) {
        self.lock().gives_life_signs = gives_life_signs;
    }

    pub(super) fn gives_life_signs(&self) -> bool {
        self.lock().gives_life_signs
    }

    pub(super) fn absorbed(&self) -> Option<(u32, Arc<SourceError>)> {
        self.lock().absorbed.clone()
    }

    /// The bytes that wait.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Takes what waits for longest.
    pub(super) fn pop(&self) -> Option<Result<SourceBatch, SourceError>> {
        let mut state = self.lock();
        let item = match state.events.pop_front() {
            Some(batch) => {
                let bytes = batch.payload_bytes();
                state.bytes -= bytes;
                self.pool.used.fetch_sub(bytes, Ordering::Relaxed);
                Ok(batch)
            }
            None => Err(state.error.take()?),
        };
        drop(state);
        self.drained.notify_one();
        Some(item)
    }

    /// Waits until something may have come. Cancel-safe.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn is_full(&self) -> bool {
        self.lock().is_full(&self.pool)
    }

    /// Waits until one more event fits. Cancel-safe.
    pub(super) async fn room(&self) {
        while self.is_full() {
            self.drained.notified().await;
        }
    }

    /// Waits until there is room enough for a new subscription. Cancel-safe.
    pub(super) async fn low(&self) {
        while !self.lock().is_low(&self.pool) {
            self.drained.notified().await;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.pool.used.fetch_sub(state.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{SequenceNumber, SourceRecord};

    fn event(bytes: usize) -> SourceBatch {
        let record = SourceRecord::new(SequenceNumber::from(1_u64), None, None, Bytes::from(vec![0; bytes]));
        SourceBatch::new(vec![record], None, None)
    }

    #[test]
    fn what_all_buffers_hold_is_bounded_and_each_takes_one_event() {
        let pool = Arc::new(Pool::new(1_000));
        let buffers: Vec<Buffer> = (0..4).map(|_| Buffer::new(Arc::clone(&pool))).collect();
        buffers[0].push(event(600));
        assert!(!buffers[0].is_full());
        buffers[1].push(event(600));
        for buffer in &buffers[..2] {
            assert!(buffer.is_full(), "the pool is used up");
        }
        for buffer in &buffers[2..] {
            assert!(!buffer.is_full(), "it holds nothing");
            buffer.push(event(600));
            assert!(buffer.is_full());
        }
        buffers[2].pop();
        assert!(!buffers[2].is_full() && buffers[3].is_full());
        drop(buffers);
        assert_eq!(pool.used.load(Ordering::Relaxed), 0, "what is dropped waits no longer");
    }
}
