//! Metrics to Amazon CloudWatch, under the KCL's names.
//!
//! ```no_run
//! use kcl_core::metrics::cloudwatch::CloudWatchSink;
//! use kcl_core::metrics::{EnabledDimensions, MetricsLevel};
//!
//! # fn example(client: aws_sdk_cloudwatch::Client, builder: kcl_core::SchedulerBuilder) -> Result<(), kcl_core::Error> {
//! let metrics = CloudWatchSink::builder(client, "orders-app")
//!     .level(MetricsLevel::Summary)
//!     .dimensions(EnabledDimensions::ALL)
//!     .build()?;
//! let builder = builder.metrics(metrics);
//! # Ok(())
//! # }
//! ```
//!
//! Values are merged by metric and dimensions and published every ten seconds as distributions (`Values` and `Counts`),
//! so that percentiles can be had, up to 1,000 data in a call. Needs the right to `cloudwatch:PutMetricData`.
//!
//! What CloudWatch does to a worker is nothing: a call that fails is made once more, then its values are dropped and
//! counted in `DataDropped`, with one warning when it begins and one line when it is over.

mod pack;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::StalledStreamProtectionConfig;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::put_metric_data::PutMetricDataError;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension as SdkDimension, MetricDatum, StandardUnit};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use self::pack::pack;
use super::aggregate::{Aggregate, Piece, namespace_problem};
use super::{EnabledDimensions, Ending, MetricEvent, MetricsLevel, MetricsSink, Origin, Unit};
use crate::entropy::Entropy;
use crate::error::{Chain, Error, ErrorKind};
use crate::retry::Backoff;
use crate::time::{Clock, SystemClock};

/// The most values of a datum (API reference of `PutMetricData`).
const MAX_VALUES: usize = 150;
/// The delay before a failed call is made once more.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How metrics are published. Made by [`CloudWatchSink::builder`].
#[derive(Debug)]
pub struct CloudWatchBuilder {
    client: Client,
    namespace: String,
    level: MetricsLevel,
    dimensions: EnabledDimensions,
    flush_interval: Duration,
    max_queue: usize,
    call_timeout: Duration,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl CloudWatchBuilder {
    /// The namespace. Default: the application's name.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How much is published. Default: [`MetricsLevel::Detailed`], as with the KCL.
    #[must_use]
    #[doc(alias = "metricsLevel")]
    pub const fn level(mut self, level: MetricsLevel) -> Self {
        self.level = level;
        self
    }

    /// By what metrics are told apart. Default: all. Without [`Dimension::ShardId`](super::Dimension) the number of
    /// metrics, and with it the bill, does not grow with the shards.
    #[must_use]
    #[doc(alias = "metricsEnabledDimensions")]
    pub const fn dimensions(mut self, dimensions: EnabledDimensions) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// How often metrics are published. Default 10 s; above zero. They are published earlier if the queue fills up.
    #[must_use]
    #[doc(alias = "metricsBufferTimeMillis")]
    pub const fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// How many data wait at most, of up to 150 different values each. Default 10,000; above zero. Values that find no
    /// room are dropped and counted.
    #[must_use]
    #[doc(alias = "metricsMaxQueueSize")]
    pub const fn max_queue(mut self, data: usize) -> Self {
        self.max_queue = data;
        self
    }

    /// How long one call may take. Default 5 s; above zero.
    #[must_use]
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The wall clock that data are stamped by. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The source of jitter.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Checks everything and makes the sink. Calls nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with every problem: a namespace that CloudWatch would not take, a number that is zero.
    pub fn build(self) -> Result<CloudWatchSink, Error> {
        let zero = [
            (self.flush_interval.is_zero(), "the flush interval must be above zero"),
            (self.call_timeout.is_zero(), "the time-out of a call must be above zero"),
            (self.max_queue == 0, "the queue must have room for something"),
        ];
        let zero = zero.iter().filter(|(is, _)| *is).map(|(_, text)| (*text).to_owned());
        let problems: Vec<String> = namespace_problem(&self.namespace).into_iter().chain(zero).collect();
        if !problems.is_empty() {
            let list = problems.join("\n- ");
            return Err(Error::new(
                ErrorKind::Config,
                format!("metrics cannot go to CloudWatch like this:\n- {list}"),
            ));
        }
        let config = self.client.config().to_builder().retry_config(RetryConfig::disabled());
        let config = config.stalled_stream_protection(StalledStreamProtectionConfig::disabled()).build();
        let aggregate = Aggregate::new(self.level, self.dimensions, MAX_VALUES, self.max_queue);
        Ok(CloudWatchSink {
            client: Client::from_conf(config),
            namespace: self.namespace,
            flush_interval: self.flush_interval,
            call_timeout: self.call_timeout,
            clock: self.clock,
            entropy: self.entropy,
            aggregate: Mutex::new(aggregate),
            filling: Notify::new(),
            is_failing: AtomicBool::new(false),
            is_dropping: AtomicBool::new(false),
        })
    }
}

/// Publishes metrics to CloudWatch. Schedulers may share one in an `Arc`.
///
/// The client is copied with the SDK's retries switched off.
#[derive(Debug)]
pub struct CloudWatchSink {
    client: Client,
    namespace: String,
    flush_interval: Duration,
    call_timeout: Duration,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    /// Locked to merge an event or to take everything, never across a call.
    aggregate: Mutex<Aggregate>,
    filling: Notify,
    is_failing: AtomicBool,
    is_dropping: AtomicBool,
}

/// A failed call.
struct Failure {
    text: String,
    is_passing: bool,
}

impl CloudWatchSink {
    /// Starts to build a sink for an application, which is the namespace too unless another is set.
    #[must_use]
    pub fn builder(client: Client, application: impl Into<String>) -> CloudWatchBuilder {
        CloudWatchBuilder {
            client,
            namespace: application.into(),
            level: MetricsLevel::default(),
            dimensions: EnabledDimensions::default(),
            flush_interval: Duration::from_secs(10),
            max_queue: 10_000,
            call_timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
            entropy: Entropy::default(),
        }
    }

    /// A sink as a configuration says; none if its level is [`MetricsChoice::None`](crate::config::MetricsChoice).
    ///
    /// # Errors
    /// As [`CloudWatchBuilder::build`], and for a dimension that metrics do not have.
    #[cfg(feature = "config")]
    pub fn configured(
        client: Client,
        configuration: &crate::config::Configuration,
    ) -> Result<Option<Self>, Error> {
        use crate::config::MetricsChoice;
        let metrics = &configuration.metrics;
        let level = match metrics.level {
            MetricsChoice::None => return Ok(None),
            MetricsChoice::Summary => MetricsLevel::Summary,
            MetricsChoice::Detailed => MetricsLevel::Detailed,
        };
        let dimensions = EnabledDimensions::parse(&metrics.enabled_dimensions.join(","))
            .map_err(|error| Error::new(ErrorKind::Config, format!("metrics.enabledDimensions: {error}")))?;
        Self::builder(client, &configuration.application)
            .namespace(configuration.metrics_namespace())
            .level(level)
            .dimensions(dimensions)
            .flush_interval(metrics.buffer_time)
            .max_queue(metrics.max_queue_size)
            .build()
            .map(Some)
    }

    fn aggregate(&self) -> MutexGuard<'_, Aggregate> {
        self.aggregate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(&self) {
        let (pieces, refused) = self.aggregate().take();
        // While CloudWatch fails that was said already.
        if !self.is_failing() && self.is_dropping.swap(refused > 0, Ordering::Relaxed) != (refused > 0) {
            if refused > 0 {
                warn!(refused, "metrics come faster than they are published: values are dropped");
            } else {
                info!("no more metrics are dropped");
            }
        }
        let at = self.clock.now();
        for call in pack(pieces) {
            self.put(call, at).await;
        }
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Publishes pieces of one call, or loses them.
    async fn put(&self, pieces: Vec<Piece>, at: SystemTime) {
        let mut backoff = Backoff::new(RETRY_DELAY, RETRY_DELAY, self.entropy.clone());
        let failure = loop {
            let failure = match self.call(&pieces, at).await {
                Ok(()) => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        info!(namespace = self.namespace, "metrics reach CloudWatch again");
                    }
                    return;
                }
                Err(failure) => failure,
            };
            // While CloudWatch is known to fail one attempt is enough to see whether it still does.
            if !failure.is_passing || backoff.attempts() > 0 || self.is_failing() {
                break failure;
            }
            sleep(backoff.next_delay()).await;
        };
        self.aggregate().lose(pieces.iter().map(Piece::weight).sum());
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            warn!(
                namespace = self.namespace,
                error = failure.text,
                "metrics do not reach CloudWatch and are dropped; nothing else is affected"
            );
        }
    }

    async fn call(&self, pieces: &[Piece], at: SystemTime) -> Result<(), Failure> {
        let data = pieces.iter().map(|piece| datum(piece, at)).collect();
        let call = self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
        match timeout(self.call_timeout, Box::pin(call.send())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => {
                let text = format!("no answer within {:?}", self.call_timeout);
                Err(Failure { text, is_passing: true })
            }
        }
    }
}

impl Failure {
    fn of(error: &SdkError<PutMetricDataError>) -> Self {
        let is_passing = match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code().unwrap_or_default();
                status >= 500 || status == 429 || code.contains("Throttl") || code == "RequestLimitExceeded"
            }
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) | SdkError::DispatchFailure(_) => true,
            _ => false,
        };
        Self { text: Chain(error).to_string(), is_passing }
    }
}

#[allow(clippy::cast_precision_loss, reason = "no count gets near 2^53")]
fn datum(piece: &Piece, at: SystemTime) -> MetricDatum {
    let metric = piece.series.metric.descriptor();
    let dimensions = piece.series.dimensions.iter();
    let dimensions =
        dimensions.map(|(name, value)| SdkDimension::builder().name(name.name()).value(&**value).build());
    let (values, counts) = piece.values.iter().map(|(value, count)| (*value, *count as f64)).unzip();
    MetricDatum::builder()
        .metric_name(metric.name)
        .set_dimensions(Some(dimensions.collect()))
        .timestamp(DateTime::from(at))
        .set_values(Some(values))
        .set_counts(Some(counts))
        .unit(match metric.unit {
            Unit::Count => StandardUnit::Count,
            Unit::Milliseconds => StandardUnit::Milliseconds,
            Unit::Bytes => StandardUnit::Bytes,
        })
        .build()
}

#[async_trait]
impl MetricsSink for CloudWatchSink {
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>) {
        let mut aggregate = self.aggregate();
        aggregate.record(origin, event);
        if aggregate.is_filling() {
            self.filling.notify_one();
        }
    }

    async fn run(&self, mut ending: Ending) {
        let mut next = Instant::now() + self.flush_interval;
        loop {
            let is_ending = tokio::select! {
                biased;
                () = &mut ending => true,
                () = sleep_until(next) => false,
                () = self.filling.notified() => false,
            };
            next = Instant::now() + self.flush_interval;
            self.publish().await;
            if is_ending {
                return;
            }
        }
    }
}
