//! Metrics as log lines in CloudWatch's embedded metric format, for who has logs collected anyway.
//!
//! ```
//! use kcl_core::metrics::emf::EmfSink;
//!
//! # fn example(builder: kcl_core::SchedulerBuilder) -> Result<(), kcl_core::Error> {
//! // To standard output, as a Lambda function or a container with the awslogs driver does it:
//! let metrics = EmfSink::builder("orders-app").writer(std::io::stdout())?;
//! // Or by a closure, one line at a time:
//! let metrics = EmfSink::builder("orders-app").lines(|line| tracing::info!(target: "emf", "{line}"))?;
//! let builder = builder.metrics(metrics);
//! # Ok(())
//! # }
//! ```
//!
//! Every ten seconds a few lines are written, one JSON object each, with all values since. Nothing is called.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde_json::{Map, Number, Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::aggregate::{Aggregate, Piece, namespace_problem, weight};
use super::{Dimension, EnabledDimensions, Ending, MetricEvent, MetricsLevel, MetricsSink, Origin};
use crate::error::{Error, ErrorKind};
use crate::time::{Clock, SystemClock};

/// The most metrics of a directive, and the most values of a metric (embedded metric format, "Specification").
const MAX_METRICS: usize = 100;
const MAX_VALUES: usize = 100;
/// How many pieces wait at most.
const CAPACITY: usize = 10_000;

type Out = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// How lines are made. Made by [`EmfSink::builder`].
#[derive(Debug)]
pub struct EmfBuilder {
    namespace: String,
    level: MetricsLevel,
    dimensions: EnabledDimensions,
    flush_interval: Duration,
    clock: Arc<dyn Clock>,
}

impl EmfBuilder {
    /// The namespace. Default: the application's name.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How much is written. Default: [`MetricsLevel::Detailed`].
    #[must_use]
    pub const fn level(mut self, level: MetricsLevel) -> Self {
        self.level = level;
        self
    }

    /// By what metrics are told apart. Default: all.
    #[must_use]
    pub const fn dimensions(mut self, dimensions: EnabledDimensions) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// How often lines are written. Default 10 s; above zero.
    #[must_use]
    pub const fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// The wall clock that lines are stamped by. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes a sink that writes lines to `out`, in a task of the scheduler: it should be quick, as standard output or a
    /// file is.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a namespace that CloudWatch would not take, or an interval of zero.
    pub fn writer(self, mut out: impl Write + Send + 'static) -> Result<EmfSink, Error> {
        self.build(Box::new(move |line| {
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
            out.flush()
        }))
    }

    /// Makes a sink that hands each line, without its end, to `take`, in a task of the scheduler.
    ///
    /// # Errors
    /// As [`EmfBuilder::writer`].
    pub fn lines(self, mut take: impl FnMut(&str) + Send + 'static) -> Result<EmfSink, Error> {
        self.build(Box::new(move |line| {
            take(line);
            Ok(())
        }))
    }

    fn build(self, out: Out) -> Result<EmfSink, Error> {
        let zero = self.flush_interval.is_zero().then(|| "the flush interval must be above zero".to_owned());
        if let Some(problem) = namespace_problem(&self.namespace).or(zero) {
            return Err(Error::new(ErrorKind::Config, problem));
        }
        let aggregate = Aggregate::new(self.level, self.dimensions, MAX_VALUES, CAPACITY);
        Ok(EmfSink {
            namespace: self.namespace,
            flush_interval: self.flush_interval,
            clock: self.clock,
            aggregate: Mutex::new(aggregate),
            out: Mutex::new(out),
            is_failing: AtomicBool::new(false),
        })
    }
}

/// Writes metrics as lines in the embedded metric format.
pub struct EmfSink {
    namespace: String,
    flush_interval: Duration,
    clock: Arc<dyn Clock>,
    aggregate: Mutex<Aggregate>,
    out: Mutex<Out>,
    is_failing: AtomicBool,
}

impl fmt::Debug for EmfSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmfSink").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl EmfSink {
    /// Starts to build a sink for an application, which is the namespace too unless another is set.
    #[must_use]
    pub fn builder(application: impl Into<String>) -> EmfBuilder {
        EmfBuilder {
            namespace: application.into(),
            level: MetricsLevel::default(),
            dimensions: EnabledDimensions::default(),
            flush_interval: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        }
    }

    fn aggregate(&self) -> MutexGuard<'_, Aggregate> {
        self.aggregate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let (pieces, _) = self.aggregate().take();
        let lines = lines(&self.namespace, self.clock.now(), pieces);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut failed, mut lost) = (None, 0);
        for (line, values) in &lines {
            // A writer that fails is not asked again before the next time.
            if failed.is_none() {
                failed = out(line).err();
            }
            lost += if failed.is_some() { *values } else { 0 };
        }
        let was_failing = self.is_failing.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(error) => {
                self.aggregate().lose(lost);
                if !was_failing {
                    warn!(%error, "metrics cannot be written and are dropped");
                }
            }
            None if was_failing => info!("metrics can be written again"),
            None => {}
        }
    }
}

#[async_trait]
impl MetricsSink for EmfSink {
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>) {
        self.aggregate().record(origin, event);
    }

    async fn run(&self, mut ending: Ending) {
        let mut next = Instant::now() + self.flush_interval;
        loop {
            let is_ending = tokio::select! {
                biased;
                () = &mut ending => true,
                () = sleep_until(next) => false,
            };
            next = Instant::now() + self.flush_interval;
            self.write();
            if is_ending {
                return;
            }
        }
    }
}

/// One directive in the making: metrics that have all their dimensions in common.
#[derive(Default)]
struct Line {
    metrics: Vec<Value>,
    values: Map<String, Value>,
    count: u64,
}

/// The lines that say what the pieces do, each with how many values it has.
fn lines(namespace: &str, at: SystemTime, pieces: Vec<Piece>) -> Vec<(String, u64)> {
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    let mut groups: BTreeMap<Vec<(Dimension, Box<str>)>, Vec<Line>> = BTreeMap::new();
    for piece in pieces {
        let of = piece.series.metric;
        let metric = of.descriptor();
        let lines = groups.entry(piece.series.dimensions).or_default();
        // The format has no counts: a value that came often stands there often.
        let all: Vec<f64> = piece
            .values
            .iter()
            .flat_map(|(value, count)| std::iter::repeat_n(*value, usize::try_from(*count).unwrap_or(0)))
            .collect();
        for values in all.chunks(MAX_VALUES) {
            let fits =
                |line: &Line| line.metrics.len() < MAX_METRICS && !line.values.contains_key(metric.name);
            let index = lines.iter().position(fits).unwrap_or(lines.len());
            if index == lines.len() {
                lines.push(Line::default());
            }
            let Some(line) = lines.get_mut(index) else { continue };
            let number = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
            let told = match values {
                [value] => number(*value),
                values => values.iter().copied().map(number).collect(),
            };
            line.metrics.push(json!({ "Name": metric.name, "Unit": metric.unit.name() }));
            line.values.insert(metric.name.to_owned(), told);
            line.count += values.iter().map(|value| weight(of, *value)).sum::<u64>();
        }
    }
    let line = |dimensions: &[(Dimension, Box<str>)], line: Line| {
        let Line { metrics, mut values, count } = line;
        let names: Vec<&str> = dimensions.iter().map(|(dimension, _)| dimension.name()).collect();
        let directive = json!({ "Namespace": namespace, "Dimensions": [names], "Metrics": metrics });
        values.insert("_aws".to_owned(), json!({ "Timestamp": millis, "CloudWatchMetrics": [directive] }));
        for (dimension, value) in dimensions {
            values.insert(dimension.name().to_owned(), Value::from(&**value));
        }
        (Value::Object(values).to_string(), count)
    };
    groups
        .into_iter()
        .flat_map(|(dimensions, lines)| {
            lines.into_iter().map(|told| line(&dimensions, told)).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::aggregate::Series;
    use crate::metrics::{Descriptor, Metric, Unit};

    fn text<'a>(value: &'a Value, key: &str) -> &'a str {
        value[key].as_str().unwrap()
    }

    /// Checks a line against the rules of the format and returns its values by metric and dimensions.
    fn check(line: &str) -> Vec<(String, Vec<f64>)> {
        assert!(!line.contains('\n') && line.len() < 256 << 10);
        let object: Value = serde_json::from_str(line).unwrap();
        let aws = object["_aws"].as_object().unwrap();
        assert_eq!(aws.len(), 2, "no other members");
        assert_eq!(aws["Timestamp"], 1_700_000_000_250_u64);
        let [directive] = aws["CloudWatchMetrics"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(text(directive, "Namespace"), "orders-app");
        let [set] = directive["Dimensions"].as_array().unwrap().as_slice() else { panic!() };
        let set = set.as_array().unwrap();
        assert!((1..=30).contains(&set.len()));
        let dimensions: Vec<&str> = set.iter().map(|name| text(&object, name.as_str().unwrap())).collect();
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!((1..=MAX_METRICS).contains(&metrics.len()));
        assert_eq!(
            object.as_object().unwrap().len(),
            1 + set.len() + metrics.len(),
            "nothing stands for two"
        );
        let values = metrics.iter().map(|metric| {
            assert!(["Count", "Milliseconds", "Bytes"].contains(&text(metric, "Unit")));
            let name = text(metric, "Name");
            let values = match &object[name] {
                Value::Array(values) => values.iter().map(|value| value.as_f64().unwrap()).collect(),
                value => vec![value.as_f64().unwrap()],
            };
            assert!((1..=MAX_VALUES).contains(&values.len()));
            (format!("{name} {dimensions:?}"), values)
        });
        values.collect()
    }

    proptest! {
        #[test]
        fn lines_are_valid_and_have_every_value_once(
            pieces in proptest::collection::vec(
                (0_usize..Metric::ALL.len() - 1, 0_u8..3, proptest::collection::vec((0_u16..500, 1_u64..90), 1..100)),
                0..150,
            ),
        ) {
            let mut expected: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            let pieces: Vec<Piece> = pieces.into_iter().map(|(metric, shard, values)| {
                let metric = Metric::ALL[metric];
                let Descriptor { operation, name, .. } = metric.descriptor();
                let dimensions = vec![
                    (Dimension::Operation, (*operation).into()),
                    (Dimension::ShardId, shard.to_string().into()),
                ];
                let values: Vec<(f64, u64)> =
                    values.into_iter().map(|(value, count)| (f64::from(value) / 10.0, count)).collect();
                let key = format!("{name} {:?}", [*operation, &shard.to_string()]);
                let all = values.iter().flat_map(|(value, count)| std::iter::repeat_n(*value, *count as usize));
                expected.entry(key).or_default().extend(all);
                Piece { series: Series { metric, dimensions }, values }
            }).collect();
            let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
            let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for (line, count) in lines("orders-app", at, pieces) {
                let values = check(&line);
                prop_assert_eq!(values.iter().map(|(_, values)| values.len() as u64).sum::<u64>(), count);
                for (key, values) in values {
                    found.entry(key).or_default().extend(values);
                }
            }
            for values in found.values_mut().chain(expected.values_mut()) {
                values.sort_by(f64::total_cmp);
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn no_metric_has_the_name_of_a_dimension() {
        for metric in Metric::ALL {
            let Descriptor { name, unit, .. } = metric.descriptor();
            assert!(Dimension::ALL.iter().all(|dimension| dimension.name() != *name) && *name != "_aws");
            assert!(matches!(unit, Unit::Count | Unit::Milliseconds | Unit::Bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_come_every_interval_and_at_the_end_and_a_writer_that_fails_costs_its_values_alone() {
        #[derive(Clone, Default)]
        struct Paper(Arc<Mutex<(Vec<u8>, bool)>>);
        impl Write for Paper {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                let mut paper = self.0.lock().unwrap();
                if paper.1 {
                    return Err(io::Error::other("no paper"));
                }
                paper.0.extend_from_slice(text);
                Ok(text.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let paper = Paper::default();
        let sink = EmfSink::builder("orders-app").writer(paper.clone()).unwrap();
        let origin = Origin::new("orders-app", "w");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let steps = async {
            let told = || String::from_utf8(std::mem::take(&mut paper.0.lock().unwrap().0)).unwrap();
            sink.record(&origin, &MetricEvent::Gave);
            tokio::time::sleep(Duration::from_millis(10_001)).await;
            let lines = told();
            assert_eq!(lines.lines().count(), 1);
            assert!(lines.contains("\"NumOfLeasesReassignment\":1.0"), "{lines}");
            paper.0.lock().unwrap().1 = true;
            sink.record(&origin, &MetricEvent::Gave);
            sink.record(&origin, &MetricEvent::Gave);
            tokio::time::sleep(Duration::from_secs(10)).await;
            paper.0.lock().unwrap().1 = false;
            drop(end);
            told()
        };
        let ending = async {
            let _ = ended.await;
        };
        let (_, left) = tokio::join!(sink.run(Box::pin(ending)), steps);
        assert_eq!(left, "");
        let last = String::from_utf8(paper.0.lock().unwrap().0.clone()).unwrap();
        assert!(last.contains("\"DataDropped\":2.0"), "{last}");
    }

    #[test]
    fn a_namespace_that_is_none_is_refused() {
        let error = EmfSink::builder("AWS/orders").lines(|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("reserved"), "{error}");
    }
}
