//! A processor that notes every call and does as it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::checkpointer::Checkpointer;
use crate::error::BoxError;
use crate::model::{Position, ShardId};
use crate::processor::{Callback, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardContext};

/// How a recorded call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallOutcome {
    /// It runs, or was dropped before its end.
    Running,
    /// It returned `Ok`.
    Done,
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
}

/// One call of a callback.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The shard.
    pub shard: ShardId,
    /// Which processor was called; each one the factory made has another number, from 0.
    pub instance: u64,
    /// The callback.
    pub callback: Callback,
    /// [`RecordBatch::attempt`]; 0 for other callbacks.
    pub attempt: u32,
    /// The positions of the batch.
    pub positions: Vec<Position>,
    /// The payloads of the batch, slices of what was delivered.
    pub payloads: Vec<Bytes>,
    /// When it began.
    pub began: Instant,
    /// When it ended, unless it runs or was dropped.
    pub ended: Option<Instant>,
    /// How it ended.
    pub outcome: CallOutcome,
}

/// What a [`Rule`] makes a call do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Returns an error.
    Fail,
    /// Panics.
    Panic,
    /// Takes this long.
    Delay(Duration),
    /// Never returns.
    Hang,
    /// Calls [`Checkpointer::checkpoint`] and returns its error, if any.
    Checkpoint,
    /// Calls [`Checkpointer::checkpoint_at`] and returns its error, if any.
    CheckpointAt(Position),
}

/// Makes some calls do something.
#[derive(Clone, Debug)]
pub struct Rule {
    callback: Callback,
    shard: Option<ShardId>,
    position: Option<Position>,
    after: u32,
    times: u32,
    action: Action,
}

impl Rule {
    /// Makes each call of `callback` do `action`.
    #[must_use]
    pub const fn on(callback: Callback, action: Action) -> Self {
        Self { callback, shard: None, position: None, after: 0, times: u32::MAX, action }
    }

    /// Only for this shard.
    #[must_use]
    pub fn shard(mut self, shard: impl Into<ShardId>) -> Self {
        self.shard = Some(shard.into());
        self
    }

    /// Only for batches that hold this record.
    #[must_use]
    pub const fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// Only the calls after the first `calls` that match.
    #[must_use]
    pub const fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// Only this many calls.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    fn applies(&mut self, call: &Call) -> bool {
        let matches = self.callback == call.callback
            && self.shard.as_ref().is_none_or(|shard| *shard == call.shard)
            && self.position.is_none_or(|position| call.positions.contains(&position));
        if !matches || self.times == 0 {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// A factory of processors that note every call in one shared log. Clones share the log and the rules.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    rules: Mutex<Vec<Rule>>,
    instances: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Creates a recorder without rules: every call succeeds at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule. All rules that apply to a call are obeyed in the order they were added.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        self.add(rule);
        self
    }

    /// Adds a rule; see [`Recorder::with`].
    pub fn add(&self, rule: Rule) {
        locked(&self.shared.rules).push(rule);
    }

    /// Forgets every rule. Calls that hang already go on to.
    pub fn clear_rules(&self) {
        locked(&self.shared.rules).clear();
    }

    /// Every call so far, in the order they began.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.shared.calls).clone()
    }

    /// The callbacks called so far, in order.
    #[must_use]
    pub fn callbacks(&self) -> Vec<Callback> {
        locked(&self.shared.calls).iter().map(|call| call.callback).collect()
    }

    /// How often `callback` was called.
    #[must_use]
    pub fn count(&self, callback: Callback) -> usize {
        locked(&self.shared.calls).iter().filter(|call| call.callback == callback).count()
    }

    /// The records of `shard` in acknowledged batches, in order of delivery, duplicates included.
    #[must_use]
    pub fn acknowledged(&self, shard: &str) -> Vec<Position> {
        locked(&self.shared.calls)
            .iter()
            .filter(|call| call.shard.as_str() == shard && call.outcome == CallOutcome::Done)
            .flat_map(|call| call.positions.iter().copied())
            .collect()
    }

    /// Every breach of what a processor may rely on (P-1, and D-1 within the life of one processor), in words:
    /// serial callbacks in legal order; records in order; a failed batch again, as it was, before any other.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut instances: BTreeMap<u64, Vec<Call>> = BTreeMap::new();
        for call in self.calls() {
            instances.entry(call.instance).or_default().push(call);
        }
        let mut violations = Vec::new();
        for (instance, calls) in instances {
            for pair in calls.windows(2) {
                if let [before, call] = pair
                    && let Err(breach) = follows(before, call)
                {
                    violations.push(format!("{} processor {instance}: {breach}", call.shard));
                }
            }
            if let Some(first) = calls.first()
                && first.callback != Callback::Initialize
            {
                violations.push(format!("{} processor {instance}: not initialised first", first.shard));
            }
            let mut last = None;
            for call in calls.iter().filter(|call| call.attempt == 0) {
                for position in &call.positions {
                    if Some(*position) <= last {
                        violations
                            .push(format!("{} processor {instance}: {position} after {last:?}", call.shard));
                    }
                    last = last.max(Some(*position));
                }
            }
        }
        violations
    }
}

/// Whether `call` may come after `before` on the same processor.
fn follows(before: &Call, call: &Call) -> Result<(), String> {
    use Callback::{Initialize, LeaseLost, ProcessRecords, ShardEnded, ShutdownRequested};
    let (succeeded, then) = (before.outcome == CallOutcome::Done, call.callback);
    if before.outcome == CallOutcome::Running {
        return Err(format!("{then} while {} runs or after it was dropped", before.callback));
    }
    let legal = match before.callback {
        Initialize if succeeded => then != Initialize,
        Initialize => then == Initialize,
        ProcessRecords => then != Initialize,
        ShardEnded if succeeded => false,
        ShardEnded => matches!(then, ShardEnded | ShutdownRequested | LeaseLost),
        ShutdownRequested if succeeded => then == LeaseLost,
        ShutdownRequested => matches!(then, ShutdownRequested | LeaseLost),
        LeaseLost => false,
    };
    if !legal {
        return Err(format!("{then} after {} (succeeded: {succeeded})", before.callback));
    }
    if before.callback == ProcessRecords && then == ProcessRecords {
        let is_retry = call.attempt == before.attempt + 1 && call.positions == before.positions;
        let is_next = call.attempt == 0;
        if (succeeded && !is_next) || (!succeeded && !is_retry) {
            return Err(format!(
                "batch {:?} attempt {} after {:?} attempt {} (succeeded: {succeeded})",
                call.positions.first(),
                call.attempt,
                before.positions.first(),
                before.attempt
            ));
        }
    }
    if before.callback == ProcessRecords && then == ShardEnded && !succeeded {
        return Err("shard_ended although the last batch was not acknowledged".into());
    }
    Ok(())
}

impl RecordProcessorFactory for Recorder {
    fn create(&self, shard: &ShardContext) -> Box<dyn RecordProcessor> {
        Box::new(RecordingProcessor {
            shared: Arc::clone(&self.shared),
            shard: shard.shard.clone(),
            instance: self.shared.instances.fetch_add(1, Ordering::Relaxed),
        })
    }
}

/// A processor made by a [`Recorder`].
#[derive(Debug)]
struct RecordingProcessor {
    shared: Arc<Shared>,
    shard: ShardId,
    instance: u64,
}

/// Notes the panic of a call while it unwinds.
struct Running<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Running<'_> {
    fn end(&self, outcome: CallOutcome) {
        if let Some(call) = locked(&self.shared.calls).get_mut(self.index) {
            call.outcome = outcome;
            call.ended = Some(Instant::now());
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(CallOutcome::Panicked);
        }
    }
}

impl RecordingProcessor {
    async fn call(
        &self,
        callback: Callback,
        batch: Option<&RecordBatch>,
        checkpointer: Option<&Checkpointer>,
    ) -> Result<(), BoxError> {
        let records = batch.map_or(&[][..], RecordBatch::records);
        let call = Call {
            shard: self.shard.clone(),
            instance: self.instance,
            callback,
            attempt: batch.map_or(0, RecordBatch::attempt),
            positions: records.iter().map(|record| record.position()).collect(),
            payloads: records.iter().map(|record| record.data().clone()).collect(),
            began: Instant::now(),
            ended: None,
            outcome: CallOutcome::Running,
        };
        let actions: Vec<Action> = locked(&self.shared.rules)
            .iter_mut()
            .filter_map(|rule| rule.applies(&call).then(|| rule.action.clone()))
            .collect();
        let index = {
            let mut calls = locked(&self.shared.calls);
            calls.push(call);
            calls.len() - 1
        };
        let running = Running { shared: &self.shared, index };
        let result = obey(actions, checkpointer).await;
        running.end(if result.is_ok() { CallOutcome::Done } else { CallOutcome::Failed });
        result
    }
}

async fn obey(actions: Vec<Action>, checkpointer: Option<&Checkpointer>) -> Result<(), BoxError> {
    for action in actions {
        match action {
            Action::Fail => return Err("failed as told".into()),
            #[allow(clippy::panic, reason = "a processor that panics is what was asked for")]
            Action::Panic => panic!("panicked as told"),
            Action::Delay(delay) => sleep(delay).await,
            Action::Hang => std::future::pending().await,
            Action::Checkpoint => match checkpointer {
                Some(checkpointer) => checkpointer.checkpoint().await?,
                None => return Err("this callback has no checkpointer".into()),
            },
            Action::CheckpointAt(position) => match checkpointer {
                Some(checkpointer) => checkpointer.checkpoint_at(position).await?,
                None => return Err("this callback has no checkpointer".into()),
            },
        }
    }
    Ok(())
}

#[async_trait]
impl RecordProcessor for RecordingProcessor {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), BoxError> {
        self.call(Callback::Initialize, None, None).await
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        self.call(Callback::ProcessRecords, Some(&batch), Some(checkpointer)).await
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        self.call(Callback::ShardEnded, None, Some(checkpointer)).await
    }

    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        self.call(Callback::LeaseLost, None, None).await
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        self.call(Callback::ShutdownRequested, None, Some(checkpointer)).await
    }
}
