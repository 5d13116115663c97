//! Metrics: what a scheduler measures, and who is told.
//!
//! [`Metric`] is the closed catalogue, with operation, name, unit, level and dimensions; the KCL's wherever the KCL has
//! the metric. [`MetricEvent`]s are what happens; [`MetricEvent::data`] says which metrics an event comes to. A
//! [`MetricsSink`] is told each event; several may be given to
//! [`SchedulerBuilder::metrics`](crate::SchedulerBuilder::metrics). Without one nothing is measured.
//!
//! Nothing is told by record: at most once for each batch, answer or write. Whatever is sampled is so every
//! [`SAMPLE_INTERVAL`].

#[cfg(any(feature = "cloudwatch", feature = "emf"))]
mod aggregate;
mod catalogue;
#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
#[cfg(feature = "emf")]
pub mod emf;
mod event;
#[cfg(feature = "metrics-facade")]
pub mod facade;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use catalogue::{
    Descriptor, Dimension, EnabledDimensions, Kind, Metric, MetricsLevel, Unit, UnknownName,
};
pub use event::{Datum, FetchCall, LeaseMove, LeaseWrite, MetricEvent, PlanFigures, Stalled};

use crate::model::WorkerId;

/// How often gauges are sampled.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// Completes when a sink is to publish what it has and end.
pub type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whose metrics they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The application.
    pub application: String,
    /// The worker, by the id its builder was given.
    pub worker: WorkerId,
}

impl Origin {
    /// Creates an origin, for tests of sinks.
    pub fn new(application: impl Into<String>, worker: impl Into<WorkerId>) -> Self {
        Self { application: application.into(), worker: worker.into() }
    }
}

/// Is told what happens.
#[async_trait]
pub trait MetricsSink: fmt::Debug + Send + Sync + 'static {
    /// Takes an event. Called on the threads that deliver records and renew leases: must not block, wait or call
    /// anybody; what is to be sent is sent by [`MetricsSink::run`].
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>);

    /// Does what recording must not, for as long as the scheduler runs: a task of its own, on the runtime of the
    /// scheduler. Once `ending` completes it publishes what is left and returns; what is not done by the deadline of
    /// the shutdown is dropped. Default: waits for the end.
    async fn run(&self, ending: Ending) {
        ending.await;
    }
}

#[async_trait]
impl<S: MetricsSink + ?Sized> MetricsSink for Arc<S> {
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>) {
        (**self).record(origin, event);
    }

    async fn run(&self, ending: Ending) {
        (**self).run(ending).await;
    }
}

/// Tells events to the sinks of a scheduler. Clones tell the same ones. Without sinks it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    origin: Origin,
    sinks: Vec<Arc<dyn MetricsSink>>,
}

impl Metrics {
    pub(crate) fn new(origin: Origin, sinks: Vec<Arc<dyn MetricsSink>>) -> Self {
        Self((!sinks.is_empty()).then(|| Arc::new(Told { origin, sinks })))
    }

    /// Tells nobody.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether anybody is told.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells an event.
    pub fn record(&self, event: &MetricEvent<'_>) {
        if let Some(told) = &self.0 {
            for sink in &told.sinks {
                sink.record(&told.origin, event);
            }
        }
    }

    pub(crate) fn sinks(&self) -> &[Arc<dyn MetricsSink>] {
        self.0.as_ref().map_or(&[], |told| &told.sinks)
    }
}
