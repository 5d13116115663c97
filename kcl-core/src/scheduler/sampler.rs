//! Looks at what only a look can tell: gauges.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::coordination::TableView;
use super::report::Running;
use crate::consumer::Stage;
use crate::metrics::{MetricEvent, Metrics, SAMPLE_INTERVAL};
use crate::settings::Settings;

/// Samples every [`SAMPLE_INTERVAL`], if anybody is told.
pub(super) struct Sampler {
    metrics: Metrics,
    next: Instant,
    /// For how long a renewal proves a lease.
    validity: Duration,
}

impl Sampler {
    pub(super) fn new(metrics: Metrics, settings: &Settings) -> Self {
        let validity = settings.lease_duration.saturating_sub(settings.lease_safety_margin);
        Self { metrics, next: Instant::now() + SAMPLE_INTERVAL, validity }
    }

    /// Waits until it is time. Cancel-safe.
    pub(super) async fn due(&self) {
        if !self.metrics.is_on() {
            std::future::pending::<()>().await;
        }
        sleep_until(self.next).await;
    }

    pub(super) fn sample(&mut self, running: &Running, table: &TableView) {
        let now = Instant::now();
        self.next = now + SAMPLE_INTERVAL;
        let (mut oldest, mut fenced, mut buffered) = (None, 0, 0);
        for (shard, running) in running.iter() {
            let report = running.report.borrow().clone();
            let since = (now + self.validity).saturating_duration_since(running.handle.valid_until());
            oldest = oldest.max(Some(since));
            fenced += usize::from(!running.handle.may_deliver());
            buffered += report.buffered_bytes;
            // The report is as old as the callback that runs.
            let in_callback = (report.stage == Stage::Delivering).then_some(report.since);
            let age = report.unstored_since.or(in_callback).map(|since| now.saturating_duration_since(since));
            self.metrics.record(&MetricEvent::ShardSample {
                shard,
                checkpoint_age: age.unwrap_or_default(),
                buffer_bytes: report.buffered_bytes,
            });
        }
        self.metrics.record(&MetricEvent::WorkerSample {
            leases: running.len(),
            since_renewal: oldest,
            fenced,
            buffer_bytes: buffered,
            housekeeper: table.leader,
        });
        if let Some(fleet) = table.fleet.as_ref().filter(|_| table.leader) {
            let unfinished = || table.leases.values().filter(|lease| !lease.is_ended());
            let is_member = |owner| fleet.members.contains_key(owner);
            self.metrics.record(&MetricEvent::FleetSample {
                leases: unfinished().count(),
                free: unfinished().filter(|lease| !lease.owner.as_ref().is_some_and(is_member)).count(),
                workers: fleet.members.len(),
            });
        }
    }
}
