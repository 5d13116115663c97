//! Runs one callback: whatever it does, an outcome comes back.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span, info_span};

use super::report::note;
use super::{CallbackReport, ShardReport};
use crate::error::BoxError;
use crate::metrics::{MetricEvent, Metrics};
use crate::processor::{
    Callback, ErrorPolicy, OnError, ProcessorFailure, RecordProcessor, RecordProcessorFactory, ShardContext,
};

/// How a callback ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It returned `Ok`.
    Done,
    /// It returned an error or panicked.
    Failed(Failure),
    /// It did not end in time and was dropped midway; the processor must not be called again.
    Overran,
}

/// What a callback failed with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: BoxError,
    pub(super) panicked: bool,
}

/// The error that stands for a panic.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
struct Panicked(String);

impl Failure {
    fn from_panic(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "(the panic carries no text)".to_owned());
        Self { error: Box::new(Panicked(message)), panicked: true }
    }
}

/// Shows that a callback runs, until dropped.
#[derive(Debug)]
pub(super) struct Shown<'a>(&'a watch::Sender<ShardReport>);

impl<'a> Shown<'a> {
    fn new(report: &'a watch::Sender<ShardReport>, name: &'static str) -> Self {
        let shown = CallbackReport { name, since: Instant::now() };
        note(report, |report| report.callback = Some(shown));
        Self(report)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        note(self.0, |report| report.callback = None);
    }
}

/// Runs the callback of this name for at most `limit`, in a span of its own, so that what it logs names it, and shows it in
/// the report meanwhile.
///
/// A callback that blocks its thread beyond `limit` and then returns has returned: what it did is done.
pub(super) async fn run(
    report: &watch::Sender<ShardReport>,
    (name, span): (&'static str, Span),
    limit: Duration,
    callback: impl Future<Output = Result<(), BoxError>>,
) -> Outcome {
    let _shown = Shown::new(report, name);
    match timeout(limit, AssertUnwindSafe(callback).catch_unwind()).instrument(span).await {
        Ok(Ok(Ok(()))) => Outcome::Done,
        Ok(Ok(Err(error))) => Outcome::Failed(Failure { error, panicked: false }),
        Ok(Err(payload)) => Outcome::Failed(Failure::from_panic(&*payload)),
        Err(_) => Outcome::Overran,
    }
}

/// The names of spans are fixed when the program is built.
fn named(callback: Callback) -> (&'static str, Span) {
    match callback {
        Callback::Initialize => ("initialize", info_span!("initialize")),
        Callback::ProcessRecords => ("process_records", info_span!("process_records")),
        Callback::ShardEnded => ("shard_ended", info_span!("shard_ended")),
        Callback::ShutdownRequested => ("shutdown_requested", info_span!("shutdown_requested")),
        Callback::LeaseLost => ("lease_lost", info_span!("lease_lost")),
    }
}

/// The same, in the callback's span, and how long it took is told.
pub(super) async fn timed(
    metrics: &Metrics,
    report: &watch::Sender<ShardReport>,
    which: Callback,
    limit: Duration,
    callback: impl Future<Output = Result<(), BoxError>>,
) -> Outcome {
    let begun = Instant::now();
    let outcome = run(report, named(which), limit, callback).await;
    metrics.record(&MetricEvent::CallbackReturned { callback: which, took: begun.elapsed() });
    outcome
}

/// Makes a processor.
pub(super) fn create(
    factory: &dyn RecordProcessorFactory,
    shard: &ShardContext,
) -> Result<Box<dyn RecordProcessor>, Failure> {
    catch_unwind(AssertUnwindSafe(|| factory.create(shard))).map_err(|payload| Failure::from_panic(&*payload))
}

/// Asks the policy; one that panics is taken to say nothing, which is to retry.
pub(super) fn decide(policy: &dyn ErrorPolicy, failure: &ProcessorFailure<'_>) -> OnError {
    catch_unwind(AssertUnwindSafe(|| policy.on_error(failure))).unwrap_or(OnError::Retry)
}
