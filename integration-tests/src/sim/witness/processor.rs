//! The application of a run: processors that behave as badly as the plan says, and tell the judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kcl_core::{
    BoxError, Callback, Checkpointer, Entropy, Position, RecordBatch, RecordProcessor, ShardContext,
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::sim::history::Instance;
use crate::sim::judge::{Judge, Life};

/// When processors checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoints {
    /// After each batch.
    EachBatch,
    /// After one in four batches.
    Rarely,
    /// Never, but for what the library does.
    Never,
    /// In the middle of batches, also of aggregates, and now and then at an older position.
    Inside,
    /// From a task of its own, up to ten seconds after the batch was acknowledged.
    Late,
    /// In two steps.
    Prepared,
}

/// How processors behave.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// The share of calls that fail.
    pub fail: f64,
    /// The share of calls that panic.
    pub panic: f64,
    /// How long a call takes at most.
    pub slowness: Duration,
    /// The share of calls that take as long as `blocked`.
    pub block: f64,
    /// How long such a call takes.
    pub blocked: Duration,
    /// The share of calls that do not return.
    pub hang: f64,
    /// The share of calls that do not return and keep the runtime busy.
    pub spin: f64,
    /// When they checkpoint.
    pub checkpoints: Checkpoints,
    /// Whether `shutdown_requested` checkpoints.
    pub checkpoints_at_shutdown: bool,
}

/// The application of a run: how its processors behave, until they are told to behave well.
#[derive(Clone, Debug)]
pub struct Manners {
    judge: Judge,
    conduct: Conduct,
    well: Arc<AtomicBool>,
    /// Wakes in the order of waiting, as a `watch` would not.
    better: Arc<Notify>,
    late: TaskTracker,
}

impl Manners {
    /// Processors that behave like this.
    #[must_use]
    pub fn new(judge: &Judge, conduct: &Conduct) -> Self {
        Self {
            judge: judge.clone(),
            conduct: conduct.clone(),
            well: Arc::default(),
            better: Arc::default(),
            late: TaskTracker::new(),
        }
    }

    /// From now on processors do nothing wrong and take no time; those that block or hang go on.
    pub fn behave(&self) {
        self.well.store(true, Ordering::Relaxed);
        self.better.notify_waiters();
    }

    /// A processor of one life for a shard.
    #[must_use]
    pub fn processor(&self, life: &Life, shard: &ShardContext, entropy: Entropy) -> Witness {
        Witness {
            instance: self.judge.create(life, shard),
            judge: self.judge.clone(),
            manners: self.clone(),
            entropy,
            older: shard.checkpoint.position(),
        }
    }

    fn behaves(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Completes when processors are to behave well.
    async fn better(&self) {
        while !self.behaves() {
            self.better.notified().await;
        }
    }
}

/// A processor that tells the judge.
#[derive(Debug)]
pub struct Witness {
    judge: Judge,
    instance: Instance,
    manners: Manners,
    entropy: Entropy,
    older: Option<Position>,
}

/// Tells the judge how a callback ended, whatever way it did.
struct Running<'a> {
    judge: &'a Judge,
    instance: Instance,
    callback: Callback,
    ended: bool,
}

impl Running<'_> {
    fn end(mut self, result: &Result<(), BoxError>) {
        self.ended = true;
        let outcome = if result.is_ok() { "done" } else { "failed" };
        self.judge.end(self.instance, self.callback, outcome);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = if std::thread::panicking() { "panicked" } else { "dropped" };
            self.judge.end(self.instance, self.callback, outcome);
        }
    }
}

impl Witness {
    fn running(&self, callback: Callback) -> Running<'_> {
        Running { judge: &self.judge, instance: self.instance, callback, ended: false }
    }

    fn strikes(&self, share: f64) -> bool {
        share > 0.0 && !self.manners.behaves() && self.entropy.unit() < share
    }

    async fn take_time(&self) {
        let conduct = &self.manners.conduct;
        if !conduct.slowness.is_zero() && !self.manners.behaves() {
            tokio::time::sleep(conduct.slowness.mul_f64(self.entropy.unit())).await;
        }
        if self.strikes(conduct.block) {
            // In time, or when all is to be well.
            let _ = tokio::time::timeout(conduct.blocked, self.manners.better()).await;
        }
        if self.strikes(conduct.hang) {
            self.manners.better().await;
        }
        if self.strikes(conduct.spin) {
            loop {
                tokio::task::yield_now().await;
            }
        }
    }

    fn misbehave(&self) -> Result<(), BoxError> {
        if self.strikes(self.manners.conduct.panic) {
            // A panic like any other, but for the hook, which would fill the log.
            std::panic::resume_unwind(Box::new("a panic as planned"));
        }
        if self.strikes(self.manners.conduct.fail) { Err("a failure as planned".into()) } else { Ok(()) }
    }

    async fn checkpoint_at(&self, checkpointer: &Checkpointer, position: Position) -> Result<(), BoxError> {
        let answer = checkpointer.checkpoint_at(position).await;
        self.judge.checkpointed(self.instance, Some(position), answer.as_ref().copied());
        Ok(answer?)
    }

    async fn checkpoint(&mut self, batch: &RecordBatch, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        let Some(last) = batch.records().last().map(|record| record.position()) else { return Ok(()) };
        match self.manners.conduct.checkpoints {
            Checkpoints::Never => {}
            Checkpoints::Rarely if self.entropy.below(4) > 0 => {}
            Checkpoints::EachBatch | Checkpoints::Rarely => {
                self.judge.claim(self.instance, last);
                let answer = checkpointer.checkpoint().await;
                self.judge.checkpointed(self.instance, Some(last), answer.as_ref().copied());
                answer?;
            }
            Checkpoints::Inside => {
                let count = batch.records().len() as u64;
                let index = usize::try_from(self.entropy.below(count)).unwrap_or_default();
                let position = batch.records()[index].position();
                self.judge.claim(self.instance, position);
                self.checkpoint_at(checkpointer, position).await?;
                if let Some(older) = self.older.filter(|_| self.entropy.below(4) == 0) {
                    self.checkpoint_at(checkpointer, older).await?;
                }
                self.older = Some(position);
            }
            Checkpoints::Late => {
                let (judge, instance, checkpointer) =
                    (self.judge.clone(), self.instance, checkpointer.clone());
                let delay = Duration::from_secs(10).mul_f64(self.entropy.unit());
                self.manners.late.spawn(async move {
                    tokio::time::sleep(delay).await;
                    judge.claim(instance, last);
                    let answer = checkpointer.checkpoint_at(last).await;
                    judge.checkpointed(instance, Some(last), answer.as_ref().copied());
                });
            }
            Checkpoints::Prepared => {
                self.judge.claim(self.instance, last);
                let prepared = checkpointer.prepare(None).await?;
                let answer = prepared.commit().await;
                self.judge.checkpointed(self.instance, prepared.position(), answer.as_ref().copied());
                answer?;
            }
        }
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.judge.drop_processor(self.instance);
    }
}

#[async_trait]
impl RecordProcessor for Witness {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), BoxError> {
        self.judge.begin(self.instance, Callback::Initialize, 0, &[]);
        let running = self.running(Callback::Initialize);
        self.take_time().await;
        let result = self.misbehave();
        running.end(&result);
        result
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), BoxError> {
        self.judge.in_hand(self.instance, batch.records());
        self.judge.begin(self.instance, Callback::ProcessRecords, batch.attempt(), batch.records());
        let (judge, instance) = (self.judge.clone(), self.instance);
        let running = Running { judge: &judge, instance, callback: Callback::ProcessRecords, ended: false };
        self.take_time().await;
        let early = self.entropy.below(2) == 0;
        let result = async {
            if early {
                self.misbehave()?;
            }
            self.checkpoint(&batch, checkpointer).await?;
            if early { Ok(()) } else { self.misbehave() }
        };
        let result = result.await;
        running.end(&result);
        result
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        self.judge.begin(self.instance, Callback::ShardEnded, 0, &[]);
        let running = self.running(Callback::ShardEnded);
        self.take_time().await;
        let mut result = self.misbehave();
        if result.is_ok() && self.manners.conduct.checkpoints == Checkpoints::EachBatch {
            result = checkpointer.checkpoint().await.map_err(BoxError::from);
        }
        running.end(&result);
        result
    }

    async fn lease_lost(&mut self) -> Result<(), BoxError> {
        self.judge.begin(self.instance, Callback::LeaseLost, 0, &[]);
        let running = self.running(Callback::LeaseLost);
        let result = self.misbehave();
        running.end(&result);
        result
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), BoxError> {
        self.judge.begin(self.instance, Callback::ShutdownRequested, 0, &[]);
        let running = self.running(Callback::ShutdownRequested);
        let mut result = self.misbehave();
        if result.is_ok() && self.manners.conduct.checkpoints_at_shutdown {
            result = checkpointer.checkpoint().await.map_err(BoxError::from);
        }
        running.end(&result);
        result
    }
}
