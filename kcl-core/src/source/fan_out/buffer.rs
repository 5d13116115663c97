//! What was pushed and not yet asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::source::{SourceBatch, SourceError};

/// How many events wait at most. The service sends a shard's two megabytes per second in a few events.
const MAX_EVENTS: usize = 8;
/// From how many bytes on nothing more is taken. One event may come on top, of 10 MiB at most.
const MAX_BYTES: usize = 2 << 20;

/// The buffer between the task that drains a subscription and the reader.
#[derive(Debug, Default)]
pub(super) struct Buffer {
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
    fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES || self.error.is_some()
    }

    /// Whether there is room enough for a new subscription.
    fn is_low(&self) -> bool {
        self.events.len() <= MAX_EVENTS / 2 && self.bytes <= MAX_BYTES / 2 && self.error.is_none()
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in. An empty one after an empty one takes its place, so that an idle shard never fills the
    /// buffer of a processor that is busy.
    pub(super) fn push(&self, batch: SourceBatch) {
        let mut state = self.lock();
        state.bytes += batch.payload_bytes();
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
                state.bytes -= batch.payload_bytes();
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
        self.lock().is_full()
    }

    /// Waits until one more event fits. Cancel-safe.
    pub(super) async fn room(&self) {
        while self.is_full() {
            self.drained.notified().await;
        }
    }

    /// Waits until there is room enough for a new subscription. Cancel-safe.
    pub(super) async fn low(&self) {
        while !self.lock().is_low() {
            self.drained.notified().await;
        }
    }
}
