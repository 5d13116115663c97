use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::lease::{LossReason, StoreOperation, StoreUsage};
use crate::model::ShardId;
use crate::processor::Callback;

/// The rows of the table of metrics, as the code would write them.
fn table() -> Vec<String> {
    let row = |metric: &Metric| {
        let Descriptor { operation, name, unit, level, dimensions, prometheus, is_of_kcl, when, .. } =
            *metric.descriptor();
        let dimensions: Vec<&str> = dimensions.iter().map(|dimension| dimension.name()).collect();
        let prometheus = prometheus.map_or("-".to_owned(), |name| format!("`{name}`"));
        let whose = if is_of_kcl { "KCL" } else { "own" };
        format!(
            "| `{operation}` | `{name}` | {whose} | {} | {} | {} | {prometheus} | {when} |",
            unit.name(),
            level.name(),
            if dimensions.is_empty() { "-".to_owned() } else { dimensions.join(", ") },
        )
    };
    Metric::ALL.iter().map(row).collect()
}

#[test]
fn the_documentation_has_every_metric_and_no_other() {
    let page = include_str!("../../../docs/metrics.md");
    let documented: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.split('|').count() == 10).collect();
    let expected = table();
    for line in &expected {
        assert!(
            documented.contains(&line.as_str()),
            "missing in docs/metrics.md, all of:\n{}",
            expected.join("\n")
        );
    }
    for line in &documented {
        assert!(
            expected.iter().any(|row| row == line),
            "in docs/metrics.md and not in the catalogue: {line}"
        );
    }
    assert_eq!(documented, expected, "the order is that of the catalogue");
}

#[test]
fn no_two_metrics_have_the_same_operation_and_name() {
    let names: BTreeSet<String> = Metric::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), Metric::ALL.len());
}

/// Events of every kind, so that every metric is among what they come to.
fn every_event(take: &mut dyn FnMut(&MetricEvent<'_>)) {
    let shard: ShardId = "shardId-000000000000".into();
    let (took, ok) = (Duration::from_micros(12_345), true);
    let mut usage = StoreUsage::default();
    usage.count(StoreOperation::List, 2.5, 0.0);
    let callbacks = [
        Callback::Initialize,
        Callback::ProcessRecords,
        Callback::ShardEnded,
        Callback::ShutdownRequested,
        Callback::LeaseLost,
    ];
    for callback in callbacks {
        take(&MetricEvent::CallbackReturned { callback, took });
        take(&MetricEvent::CallbackFailed { callback });
        take(&MetricEvent::CallbackRetried { callback });
    }
    let losses = [
        LossReason::Taken { by: None },
        LossReason::Expired,
        LossReason::Deleted,
        LossReason::Stalled,
        LossReason::Released,
        LossReason::Evicted,
        LossReason::Ended,
    ];
    losses.iter().for_each(|reason| take(&MetricEvent::Lost(reason)));
    for event in [
        MetricEvent::Started { ok },
        MetricEvent::Delivered { shard: &shard, records: 3, bytes: 70, took, ok },
        MetricEvent::Skipped { records: 4 },
        MetricEvent::OpenedUp { out_of_range: 1, damaged: 2, hole: true },
        MetricEvent::Behind { shard: &shard, behind: took },
        MetricEvent::Fetched { shard: &shard, call: FetchCall::GetRecords, took, ok },
        MetricEvent::Fetched { shard: &shard, call: FetchCall::GetShardIterator, took, ok },
        MetricEvent::IteratorExpired,
        MetricEvent::CallFailed { call: "GetRecords", throttled: true },
        MetricEvent::CallFailed { call: "UpdateItem", throttled: false },
        MetricEvent::Checkpointed { shard: &shard, took, ok },
        MetricEvent::SubscriptionEnded { cause: "silent" },
        MetricEvent::Fallback { started: true },
        MetricEvent::Fallback { started: false },
        MetricEvent::Stall(Stalled::Source),
        MetricEvent::Stall(Stalled::Consumer),
        MetricEvent::LeaseWritten { write: LeaseWrite::Acquire, took, ok: false },
        MetricEvent::LeaseWritten { write: LeaseWrite::CreateChild, took, ok },
        MetricEvent::LeaseWritten { write: LeaseWrite::Renew, took, ok },
        MetricEvent::Heartbeat { took, ok },
        MetricEvent::Moved(LeaseMove::Adopted),
        MetricEvent::Moved(LeaseMove::Taken),
        MetricEvent::Moved(LeaseMove::Stolen),
        MetricEvent::Gave,
        MetricEvent::HandedOver { took },
        MetricEvent::Listed { took, ok },
        MetricEvent::Planned(PlanFigures::default()),
        MetricEvent::Synced { took, created: 2, ok },
        MetricEvent::WorkerSample {
            leases: 1,
            since_renewal: Some(took),
            fenced: 0,
            buffer_bytes: 9,
            housekeeper: true,
        },
        MetricEvent::ShardSample { shard: &shard, checkpoint_age: took, buffer_bytes: 9 },
        MetricEvent::FleetSample { leases: 1, free: 0, workers: 1 },
        MetricEvent::TableMinute(&usage),
        MetricEvent::Dropped { values: 5 },
    ] {
        take(&event);
    }
}

#[test]
fn events_come_to_every_metric_with_just_the_dimensions_of_the_catalogue() {
    let mut found: BTreeMap<Metric, f64> = BTreeMap::new();
    every_event(&mut |event| {
        event.data(|datum| {
            let dimensions = datum.metric.descriptor().dimensions;
            assert_eq!(datum.shard.is_some(), dimensions.contains(&Dimension::ShardId), "{}", datum.metric);
            let labelled = dimensions.contains(&Dimension::Call) || dimensions.contains(&Dimension::Cause);
            assert_eq!(datum.label.is_some(), labelled, "{}", datum.metric);
            assert!(datum.value >= 0.0);
            *found.entry(datum.metric).or_default() += datum.value;
        });
    });
    let missing: Vec<_> = Metric::ALL.iter().filter(|metric| !found.contains_key(metric)).collect();
    assert!(missing.is_empty(), "nothing tells {missing:?}");
    assert!((found[&Metric::ProcessTime] - 12.3).abs() < 1e-9, "milliseconds, to a tenth");
    assert!((found[&Metric::TableReadUnits] - 2.5).abs() < 1e-9);
    assert!((found[&Metric::LostLeases] - 4.0).abs() < 1e-9, "what was given up or ended is not lost");
    assert!((found[&Metric::TakenLeases] - 2.0).abs() < 1e-9);
}

#[test]
fn a_delivery_that_failed_processed_nothing() {
    let shard: ShardId = "shard".into();
    let event =
        MetricEvent::Delivered { shard: &shard, records: 3, bytes: 70, took: Duration::ZERO, ok: false };
    event.data(|datum| assert!(datum.value == 0.0, "{datum:?}"));
}
