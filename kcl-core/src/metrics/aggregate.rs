//! Values on their way: merged by series, every one of them kept.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Datum, Dimension, EnabledDimensions, Metric, MetricEvent, MetricsLevel, Origin};

/// CloudWatch takes values from -2^360 to 2^360, and no others (API reference of `PutMetricData`).
const LARGEST: f64 = 2.348_542_582_773_833_3e108;

/// What tells values apart that are published under different names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) metric: Metric,
    /// `Operation` first.
    pub(super) dimensions: Vec<(Dimension, Box<str>)>,
}

impl Series {
    fn of(datum: &Datum<'_>, enabled: EnabledDimensions, worker: &str) -> Self {
        let own = datum.metric.descriptor().dimensions.iter().copied();
        let dimensions = std::iter::once(Dimension::Operation).chain(own);
        let dimensions = dimensions.filter(|dimension| enabled.has(*dimension)).filter_map(|dimension| {
            let value = datum.dimension(dimension, worker)?;
            Some((dimension, legal(value)))
        });
        Self { metric: datum.metric, dimensions: dimensions.collect() }
    }
}

/// A value of a dimension as CloudWatch takes it: up to 1,024 printable ASCII characters, not all of them spaces, and no
/// colon first.
fn legal(value: &str) -> Box<str> {
    let text: String = value
        .chars()
        .take(1_024)
        .enumerate()
        .map(|(index, c)| match c {
            ':' if index == 0 => '_',
            ' '..='~' => c,
            _ => '_',
        })
        .collect();
    if text.trim().is_empty() { "_".into() } else { text.into() }
}

/// A finite number. In order.
#[derive(Clone, Copy, Debug)]
struct Value(f64);

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Some of the values of a series: each once, with how often it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) series: Series,
    pub(super) values: Vec<(f64, u64)>,
}

impl Piece {
    /// How many values are lost with it: those it stands for, and those it says were lost before.
    #[cfg(feature = "cloudwatch")]
    pub(super) fn weight(&self) -> u64 {
        self.values.iter().map(|(value, count)| weight(self.series.metric, *value) * count).sum()
    }

    /// How many values it stands for.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.values.iter().map(|(_, count)| count).sum()
    }
}

/// Values since the last publication. Holds a bounded number of pieces; what finds no room is counted.
#[derive(Debug)]
pub(super) struct Aggregate {
    level: MetricsLevel,
    enabled: EnabledDimensions,
    /// How many different values make a piece full.
    width: usize,
    capacity: usize,
    open: BTreeMap<Series, BTreeMap<Value, u64>>,
    full: Vec<Piece>,
    /// Values that were not taken, and those that were and could not be published.
    refused: u64,
    unpublished: u64,
}

impl Aggregate {
    pub(super) const fn new(
        level: MetricsLevel,
        enabled: EnabledDimensions,
        width: usize,
        capacity: usize,
    ) -> Self {
        Self {
            level,
            enabled,
            width,
            capacity,
            open: BTreeMap::new(),
            full: Vec::new(),
            refused: 0,
            unpublished: 0,
        }
    }

    pub(super) fn record(&mut self, origin: &Origin, event: &MetricEvent<'_>) {
        event.data(|datum| {
            if datum.metric.descriptor().level <= self.level {
                self.add(Series::of(&datum, self.enabled, origin.worker.as_str()), datum.value);
            }
        });
    }

    fn add(&mut self, series: Series, value: f64) {
        // Zero has two signs, and is to be one value.
        let value = Value(if value == 0.0 { 0.0 } else { value });
        if !value.0.is_finite() || value.0.abs() > LARGEST {
            self.refused += 1;
            return;
        }
        let has_room = self.len() < self.capacity;
        match self.open.get_mut(&series) {
            Some(values) => {
                if let Some(count) = values.get_mut(&value) {
                    *count += 1;
                } else if values.len() < self.width {
                    values.insert(value, 1);
                } else if has_room {
                    let full = std::mem::replace(values, BTreeMap::from([(value, 1)]));
                    self.full.push(piece(series, full));
                } else {
                    self.refused += 1;
                }
            }
            None if has_room => {
                self.open.insert(series, BTreeMap::from([(value, 1)]));
            }
            None => self.refused += 1,
        }
    }

    /// How many pieces wait.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.full.len()
    }

    /// Whether it is better emptied soon.
    #[cfg(feature = "cloudwatch")]
    pub(super) fn is_filling(&self) -> bool {
        self.len() * 2 >= self.capacity
    }

    /// Counts values that were taken and could not be published.
    pub(super) const fn lose(&mut self, values: u64) {
        self.unpublished += values;
    }

    /// Takes everything out, with what tells how many values were lost since the last time; returns also how many of them
    /// were not taken.
    pub(super) fn take(&mut self) -> (Vec<Piece>, u64) {
        let refused = std::mem::take(&mut self.refused);
        let lost = refused + std::mem::take(&mut self.unpublished);
        let mut pieces = std::mem::take(&mut self.full);
        pieces
            .extend(std::mem::take(&mut self.open).into_iter().map(|(series, values)| piece(series, values)));
        if lost > 0 {
            MetricEvent::Dropped { values: lost }.data(|datum| {
                if datum.metric.descriptor().level <= self.level {
                    let series = Series::of(&datum, self.enabled, "");
                    pieces.push(Piece { series, values: vec![(datum.value, 1)] });
                }
            });
        }
        (pieces, refused)
    }
}

fn piece(series: Series, values: BTreeMap<Value, u64>) -> Piece {
    Piece { series, values: values.into_iter().map(|(value, count)| (value.0, count)).collect() }
}

/// For how many values one of this metric counts if it is lost.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was made of a count")]
pub(super) fn weight(metric: Metric, value: f64) -> u64 {
    if metric == Metric::DataDropped { value as u64 } else { 1 }
}

/// What is wrong with a namespace, if anything (CloudWatch, "Namespaces").
pub(super) fn namespace_problem(namespace: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_/#: ".contains(c);
    let problem = if namespace.trim().is_empty() {
        "it is empty"
    } else if namespace.len() > 255 {
        "it is longer than 255 characters"
    } else if namespace.starts_with("AWS/") {
        "AWS/ is reserved for services of AWS"
    } else if namespace.starts_with(':') {
        "it begins with a colon"
    } else if !namespace.chars().all(legal) {
        "it may have letters, digits, and . - _ / # : and spaces"
    } else {
        return None;
    };
    Some(format!("{namespace:?} can be no CloudWatch namespace: {problem}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(index: usize) -> Series {
        let metric = Metric::ALL[index % Metric::ALL.len()];
        Series { metric, dimensions: vec![(Dimension::ShardId, index.to_string().into())] }
    }

    proptest! {
        /// Of what is added nothing is lost uncounted and nothing doubled; sum, minimum and maximum of each series are
        /// those of its values.
        #[test]
        fn merging_keeps_every_value(
            added in proptest::collection::vec((0_usize..6, 0_u32..400), 0..1_500),
            capacity in 1_usize..40,
            width in 1_usize..160,
        ) {
            let mut aggregate = Aggregate::new(MetricsLevel::Detailed, EnabledDimensions::ALL, width, capacity);
            for (index, value) in &added {
                aggregate.add(series(*index), f64::from(*value));
            }
            prop_assert!(aggregate.len() <= capacity);
            let (pieces, lost) = aggregate.take();
            let kept: Vec<&Piece> =
                pieces.iter().filter(|piece| piece.series.metric != Metric::DataDropped).collect();
            let count: u64 = kept.iter().map(|piece| piece.len()).sum();
            prop_assert_eq!(count + lost, added.len() as u64);
            let told = pieces.iter().find(|piece| piece.series.metric == Metric::DataDropped);
            prop_assert_eq!(told.map_or(0.0, |piece| piece.values[0].0), lost as f64);
            for piece in &kept {
                prop_assert!(piece.values.len() <= width);
                prop_assert!(piece.values.is_sorted_by(|one, next| one.0 < next.0), "each value once");
            }
            if lost == 0 {
                for index in 0..6 {
                    let expected: Vec<u32> =
                        added.iter().filter(|(at, _)| *at == index).map(|(_, value)| *value).collect();
                    let found = || kept.iter().filter(|p| p.series == series(index)).flat_map(|p| &p.values);
                    let sum: f64 = found().map(|(value, count)| value * *count as f64).sum();
                    prop_assert!((sum - expected.iter().copied().map(f64::from).sum::<f64>()).abs() < 1e-6);
                    let least = found().map(|(value, _)| *value).reduce(f64::min);
                    let most = found().map(|(value, _)| *value).reduce(f64::max);
                    prop_assert_eq!(least, expected.iter().min().map(|value| f64::from(*value)));
                    prop_assert_eq!(most, expected.iter().max().map(|value| f64::from(*value)));
                }
            }
            prop_assert_eq!(aggregate.take(), (Vec::new(), 0));
        }
    }

    #[test]
    fn what_cloudwatch_would_refuse_is_counted_and_not_sent() {
        let mut aggregate = Aggregate::new(MetricsLevel::Detailed, EnabledDimensions::ALL, 150, 10);
        for value in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e200] {
            aggregate.add(series(0), value);
        }
        aggregate.add(series(0), -0.0);
        aggregate.add(series(0), 0.0);
        let (pieces, lost) = aggregate.take();
        assert_eq!(lost, 4);
        assert_eq!(pieces[0].values, [(0.0, 2)]);
    }

    #[test]
    fn levels_and_dimensions_are_the_kcls_and_operation_stays() {
        let origin = Origin::new("app", "worker:ü");
        let shard = "shardId-1".into();
        let fetched = MetricEvent::Fetched {
            shard: &shard,
            call: super::super::FetchCall::GetRecords,
            took: std::time::Duration::from_millis(7),
            ok: true,
        };
        let taken = |level, enabled, events: &[MetricEvent<'_>]| {
            let mut aggregate = Aggregate::new(level, enabled, 150, 100);
            events.iter().for_each(|event| aggregate.record(&origin, event));
            aggregate.take().0
        };
        let everything = &[fetched, fetched, MetricEvent::Lost(&crate::lease::LossReason::Expired)];
        assert!(taken(MetricsLevel::None, EnabledDimensions::ALL, everything).is_empty());
        let summary = taken(MetricsLevel::Summary, EnabledDimensions::ALL, everything);
        let names: Vec<_> = summary.iter().map(|piece| piece.series.metric).collect();
        assert_eq!(names, [Metric::LostLeases, Metric::LeasesLost]);
        let worker = (Dimension::WorkerIdentifier, "worker:_".into());
        assert_eq!(summary[0].series.dimensions, [(Dimension::Operation, "RenewAllLeases".into()), worker]);
        let none = EnabledDimensions::parse("").unwrap();
        let merged = taken(MetricsLevel::Detailed, none, everything);
        assert!(merged.iter().all(|piece| piece.series.dimensions.len() == 1));
        assert_eq!(merged[0].len(), 2);
    }

    #[test]
    fn unknown_names_and_namespaces_are_refused_with_what_there_is() {
        let error = "DETAIL".parse::<MetricsLevel>().unwrap_err().to_string();
        assert_eq!(error, "unknown metrics level \"DETAIL\": choose of NONE, SUMMARY, DETAILED");
        assert_eq!("summary".parse(), Ok(MetricsLevel::Summary));
        let error = EnabledDimensions::parse("Operation,Shard").unwrap_err().to_string();
        assert!(
            error.contains("unknown metrics dimension \"Shard\"") && error.contains("ShardId"),
            "{error}"
        );
        assert_eq!(EnabledDimensions::parse("Operation, StreamId"), EnabledDimensions::parse(""));
        assert_eq!(EnabledDimensions::parse("ShardId,ALL"), Ok(EnabledDimensions::ALL));
        for bad in ["", "  ", "AWS/Kinesis", ":orders", "orders*", "bestellungen-ü", &"x".repeat(256)] {
            assert!(namespace_problem(bad).is_some(), "{bad}");
        }
        for good in ["orders-app", "Team/orders app", "a", &"x".repeat(255)] {
            assert_eq!(namespace_problem(good), None);
        }
    }
}
