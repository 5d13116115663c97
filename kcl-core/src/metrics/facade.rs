//! Metrics to the `metrics` crate, and by its recorders to Prometheus and others, in the style of Prometheus.
//!
//! ```
//! use kcl_core::metrics::facade::MetricsFacade;
//!
//! # fn example(builder: kcl_core::SchedulerBuilder) {
//! // First the recorder of your choice, then the sink, which describes its metrics to it.
//! let builder = builder.metrics(MetricsFacade::new());
//! # }
//! ```
//!
//! With `metrics-exporter-prometheus` (`default-features = false`, no listener of its own) the text of `/metrics` is a
//! function away, for whatever serves it:
//!
//! ```text
//! let recorder = metrics_exporter_prometheus::PrometheusBuilder::new()
//!     // Gauges of shards that went to other workers end after a while.
//!     .idle_timeout(MetricKindMask::ALL, Some(Duration::from_secs(300)))
//!     .set_buckets(&[0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0])?
//!     .install_recorder()?;
//! let text = move || recorder.render(); // and run_upkeep() now and then
//! ```
//!
//! Names begin with `kcl_`, times are in seconds. Every metric has the label `application`; those with dimensions have
//! `shard`, `worker`, `call` and `cause`; successes and failures are one counter with the label `outcome`.

use metrics::{Label, SharedString};

use super::{Descriptor, Dimension, EnabledDimensions, Kind, Metric, MetricEvent, MetricsSink, Origin, Unit};

/// Hands metrics to the recorder that is installed for the `metrics` crate.
#[derive(Clone, Copy, Debug)]
pub struct MetricsFacade {
    dimensions: EnabledDimensions,
}

impl MetricsFacade {
    /// Describes every metric to the recorder that is installed by now, and creates the sink.
    #[must_use]
    pub fn new() -> Self {
        describe();
        Self { dimensions: EnabledDimensions::ALL }
    }

    /// Sets which dimensions become labels. Default: all.
    #[must_use]
    pub const fn dimensions(mut self, dimensions: EnabledDimensions) -> Self {
        self.dimensions = dimensions;
        self
    }
}

impl Default for MetricsFacade {
    fn default() -> Self {
        Self::new()
    }
}

const fn unit(unit: Unit) -> metrics::Unit {
    match unit {
        Unit::Count => metrics::Unit::Count,
        Unit::Milliseconds => metrics::Unit::Seconds,
        Unit::Bytes => metrics::Unit::Bytes,
    }
}

fn describe() {
    for metric in Metric::ALL {
        let descriptor = metric.descriptor();
        let (Some(name), unit, when) = (descriptor.prometheus, unit(descriptor.unit), descriptor.when) else {
            continue;
        };
        match descriptor.kind {
            Kind::Counter | Kind::Outcome => metrics::describe_counter!(name, unit, when),
            Kind::Gauge => metrics::describe_gauge!(name, unit, when),
            Kind::Distribution => metrics::describe_histogram!(name, unit, when),
        }
    }
}

const fn label(dimension: Dimension) -> Option<&'static str> {
    match dimension {
        // Part of the name.
        Dimension::Operation => None,
        Dimension::ShardId => Some("shard"),
        Dimension::WorkerIdentifier => Some("worker"),
        Dimension::Call => Some("call"),
        Dimension::Cause => Some("cause"),
    }
}

impl MetricsSink for MetricsFacade {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole and small")]
    fn record(&self, origin: &Origin, event: &MetricEvent<'_>) {
        event.data(|datum| {
            let Descriptor { kind, unit, dimensions, prometheus, .. } = datum.metric.descriptor();
            let Some(name) = *prometheus else { return };
            let owned = |text: &str| SharedString::from(text.to_owned());
            let mut labels = Vec::with_capacity(dimensions.len() + 2);
            labels.push(Label::new("application", owned(&origin.application)));
            for dimension in dimensions.iter().filter(|dimension| self.dimensions.has(**dimension)) {
                let value = datum.dimension(*dimension, origin.worker.as_str());
                if let (Some(label), Some(value)) = (label(*dimension), value) {
                    labels.push(Label::new(label, owned(value)));
                }
            }
            let value = if *unit == Unit::Milliseconds { datum.value / 1_000.0 } else { datum.value };
            match kind {
                Kind::Counter => metrics::counter!(name, labels).increment(value as u64),
                Kind::Outcome => {
                    let outcome = if value > 0.0 { "success" } else { "failure" };
                    labels.push(Label::from_static_parts("outcome", outcome));
                    metrics::counter!(name, labels).increment(1);
                }
                Kind::Gauge => metrics::gauge!(name, labels).set(value),
                Kind::Distribution => metrics::histogram!(name, labels).record(value),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    };

    use super::*;

    /// Keeps what it is told, by name and labels.
    #[derive(Clone, Debug, Default)]
    struct Book {
        described: Arc<Mutex<BTreeMap<String, metrics::Unit>>>,
        told: Arc<Mutex<BTreeMap<String, f64>>>,
    }

    struct Line(Book, String);

    impl Line {
        fn of(book: &Book, key: &Key) -> Arc<Self> {
            let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
            let labels: Vec<String> = labels.collect();
            Arc::new(Self(book.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
        }

        fn add(&self, value: f64) {
            *self.0.told.lock().unwrap().entry(self.1.clone()).or_default() += value;
        }
    }

    impl CounterFn for Line {
        fn increment(&self, value: u64) {
            self.add(value as f64);
        }
        fn absolute(&self, _: u64) {}
    }

    impl GaugeFn for Line {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, value: f64) {
            self.add(value);
        }
    }

    impl HistogramFn for Line {
        fn record(&self, value: f64) {
            self.add(value);
        }
    }

    impl Recorder for Book {
        fn describe_counter(&self, name: KeyName, unit: Option<metrics::Unit>, _: SharedString) {
            self.described.lock().unwrap().insert(name.as_str().to_owned(), unit.unwrap());
        }
        fn describe_gauge(&self, name: KeyName, unit: Option<metrics::Unit>, text: SharedString) {
            self.describe_counter(name, unit, text);
        }
        fn describe_histogram(&self, name: KeyName, unit: Option<metrics::Unit>, text: SharedString) {
            self.describe_counter(name, unit, text);
        }
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Line::of(self, key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Line::of(self, key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Line::of(self, key))
        }
    }

    #[test]
    fn a_recorder_is_told_names_labels_and_seconds() {
        let book = Book::default();
        let shard = "s-1".into();
        metrics::with_local_recorder(&book, || {
            let (sink, origin) = (MetricsFacade::new(), Origin::new("app", "w"));
            let took = Duration::from_millis(250);
            for ok in [true, true, false] {
                let delivered = MetricEvent::Delivered { shard: &shard, records: 3, bytes: 70, took, ok };
                sink.record(&origin, &delivered);
            }
            sink.record(&origin, &MetricEvent::CallFailed { call: "GetRecords", throttled: true });
            sink.record(&origin, &MetricEvent::Heartbeat { took, ok: true });
            let bare = sink.dimensions(EnabledDimensions::of([]));
            bare.record(&origin, &MetricEvent::Behind { shard: &shard, behind: Duration::from_secs(2) });
        });
        let described = book.described.lock().unwrap();
        let expected: BTreeSet<&str> =
            Metric::ALL.iter().filter_map(|metric| metric.descriptor().prometheus).collect();
        assert_eq!(described.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
        assert_eq!(described["kcl_process_records_seconds"], metrics::Unit::Seconds);
        let told = book.told.lock().unwrap();
        let expected = [
            ("kcl_behind_latest_seconds{application=app}", 2.0),
            ("kcl_deliveries_total{application=app,shard=s-1,outcome=failure}", 1.0),
            ("kcl_deliveries_total{application=app,shard=s-1,outcome=success}", 2.0),
            ("kcl_process_records_seconds{application=app,shard=s-1}", 0.75),
            ("kcl_processed_bytes_total{application=app,shard=s-1}", 140.0),
            ("kcl_records_processed_total{application=app,shard=s-1}", 6.0),
            ("kcl_renewal_seconds{application=app,worker=w}", 0.25),
            ("kcl_renewals_total{application=app,worker=w,outcome=success}", 1.0),
            ("kcl_throttles_total{application=app,call=GetRecords}", 1.0),
        ];
        assert_eq!(*told, expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    }

    #[test]
    fn names_are_unique_and_in_the_style_of_prometheus() {
        let mut names = BTreeSet::new();
        for metric in Metric::ALL {
            let Descriptor { prometheus, unit, kind, .. } = metric.descriptor();
            let Some(name) = prometheus else { continue };
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("kcl_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            let counts = matches!(kind, Kind::Counter | Kind::Outcome);
            assert_eq!(name.ends_with("_total"), counts, "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Milliseconds, "{name}");
            assert_eq!(name.contains("_bytes"), *unit == Unit::Bytes, "{name}");
        }
    }
}
