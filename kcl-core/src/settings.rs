//! The numbers of a scheduler, apart from its components.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What to do with aggregated records whose key hashes outside the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OutOfRange {
    /// Drop those records and keep the others of the aggregate.
    #[default]
    DropRecord,
    /// Drop the whole aggregate, as the Java KCL does.
    DropAggregate,
    /// Keep them.
    Keep,
}

/// The numbers of a scheduler. Start from the default and change what you need.
///
/// [`SchedulerBuilder::build`](crate::SchedulerBuilder::build) checks them together and lists every problem.
/// Serialised, durations are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Settings {
    /// How long a lease lasts without renewal. Default 10 s, range 1 s to 10 min. Shorter finds dead workers
    /// sooner and renews more often (every third of it). Must be the same on all workers of an application.
    #[doc(alias = "failoverTimeMillis")]
    #[serde(with = "millis")]
    pub lease_duration: Duration,
    /// How long before its end a lease counts as no longer valid for its holder. Default 1 s; at most a third
    /// of the lease duration. Covers differences of clock rates and the time from check to call.
    #[serde(with = "millis")]
    pub lease_safety_margin: Duration,
    /// How often the lease table is listed while other workers hold leases. Default 4 s; at most 0.45 of the
    /// lease duration, or a dead worker is found late.
    #[doc(alias = "leaseAssignmentIntervalMillis")]
    #[serde(with = "millis")]
    pub lease_scan_interval: Duration,
    /// The most leases this worker holds. Default: no limit.
    #[doc(alias = "maxLeasesForWorker")]
    pub max_leases: usize,
    /// The most payload bytes a second this worker takes on, by the throughput of its leases, where leases are shared
    /// out by load. Default: no limit.
    pub max_load: Option<u64>,
    /// The most leases this worker asks others for, or gives away for balance, at a time. Default 16.
    #[doc(alias = "maxLeasesToStealAtOneTime")]
    pub max_requests: usize,
    /// How many lease writes are under way at a time. Default 32.
    #[doc(alias = "maxLeaseRenewalThreads")]
    pub max_lease_writes: usize,
    /// How often the stream's shards are compared with the leases. Default 60 s. Ends of shards are acted on at
    /// once whatever this says.
    #[doc(alias = "leasesRecoveryAuditorExecutionFrequencyMillis")]
    #[serde(with = "millis")]
    pub shard_sync_interval: Duration,
    /// How long the lease of an ended shard is kept after its end was first seen. Default 15 min.
    #[serde(with = "millis")]
    pub ended_lease_retention: Duration,
    /// How often a child whose parent is processed by another worker looks whether it has ended. Default 1 s.
    #[doc(alias = "parentShardPollIntervalMillis")]
    #[serde(with = "millis")]
    pub parent_poll_interval: Duration,
    /// The payload bytes read ahead for one shard. Default 16 MiB.
    #[doc(alias = "maxByteSize")]
    pub shard_buffer_bytes: usize,
    /// The payload bytes read ahead for all shards of the worker. Default 256 MiB.
    pub worker_buffer_bytes: usize,
    /// The most user records of a delivered batch, counted after de-aggregation. Default 10,000.
    pub batch_records: usize,
    /// The most payload bytes of a delivered batch, counted after de-aggregation; a larger single record is
    /// delivered alone. Default 10 MiB.
    pub batch_bytes: usize,
    /// What to do with aggregated records whose key hashes outside the shard. Default: drop those records.
    pub out_of_range: OutOfRange,
    /// Whether `process_records` is also called without records, as a tick. Default no.
    #[doc(alias = "callProcessRecordsEvenForEmptyRecordList")]
    pub deliver_empty_batches: bool,
    /// The first delay after a failed callback. Default 100 ms.
    #[doc(alias = "taskBackoffTimeMillis")]
    #[serde(with = "millis")]
    pub retry_initial: Duration,
    /// The largest delay after failed callbacks. Default 30 s.
    #[serde(with = "millis")]
    pub retry_max: Duration,
    /// How long one callback may take before it is given up and the lease released. Default 15 min.
    #[serde(with = "millis")]
    pub callback_limit: Duration,
    /// How long a shard may go without any sign of life outside callbacks before its reader is rebuilt; after
    /// twice this the lease is given up. Default 60 s.
    #[serde(with = "millis")]
    pub stall_timeout: Duration,
    /// How long `run()` tries to start before it returns the error. Default 25 s.
    #[serde(with = "millis")]
    pub start_timeout: Duration,
    /// How long `run_until` waits for shards to drain. Default 30 s.
    #[serde(with = "millis")]
    pub shutdown_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(10),
            lease_safety_margin: Duration::from_secs(1),
            lease_scan_interval: Duration::from_secs(4),
            max_leases: usize::MAX,
            max_load: None,
            max_requests: 16,
            max_lease_writes: 32,
            shard_sync_interval: Duration::from_secs(60),
            ended_lease_retention: Duration::from_secs(15 * 60),
            parent_poll_interval: Duration::from_secs(1),
            shard_buffer_bytes: 16 << 20,
            worker_buffer_bytes: 256 << 20,
            batch_records: 10_000,
            batch_bytes: 10 << 20,
            out_of_range: OutOfRange::default(),
            deliver_empty_batches: false,
            retry_initial: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            callback_limit: Duration::from_secs(15 * 60),
            stall_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(25),
            shutdown_deadline: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// Every problem of these settings: the name of the setting, and what must hold.
    pub(crate) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let duration = self.lease_duration;
        let second = Duration::from_secs(1);
        let rules = [
            (
                (second..=Duration::from_secs(600)).contains(&duration),
                "lease_duration",
                "must be between 1 s and 10 min",
            ),
            (
                !self.lease_safety_margin.is_zero() && self.lease_safety_margin <= duration / 3,
                "lease_safety_margin",
                "must be above zero and at most a third of the lease duration",
            ),
            (
                !self.lease_scan_interval.is_zero() && self.lease_scan_interval <= duration.mul_f64(0.45),
                "lease_scan_interval",
                "must be above zero and at most 0.45 of the lease duration",
            ),
            (self.max_leases > 0, "max_leases", "must be at least 1"),
            (self.max_lease_writes > 0, "max_lease_writes", "must be at least 1"),
            (
                self.shard_sync_interval >= second,
                "shard_sync_interval",
                "must be at least 1 s (ListShards is limited)",
            ),
            (!self.parent_poll_interval.is_zero(), "parent_poll_interval", "must be above zero"),
            (self.shard_buffer_bytes > 0, "shard_buffer_bytes", "must be above zero"),
            (
                self.worker_buffer_bytes >= self.shard_buffer_bytes,
                "worker_buffer_bytes",
                "must be at least the shard's buffer bytes",
            ),
            (self.batch_records > 0, "batch_records", "must be at least 1"),
            (self.batch_bytes > 0, "batch_bytes", "must be above zero"),
            (
                !self.retry_initial.is_zero() && self.retry_initial <= self.retry_max,
                "retry_initial",
                "must be above zero and at most the largest delay (retry max)",
            ),
            (!self.callback_limit.is_zero(), "callback_limit", "must be above zero"),
            (
                self.stall_timeout >= Duration::from_secs(15),
                "stall_timeout",
                "must be at least 15 s (a quiet shard shows life every few seconds)",
            ),
            (!self.start_timeout.is_zero(), "start_timeout", "must be above zero"),
        ];
        rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, name, rule)| (name, rule)).collect()
    }
}

/// Durations, serialised as milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }

    /// A duration that may be missing.
    #[cfg(feature = "config")]
    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        #[allow(clippy::ref_option, reason = "serde passes the field")]
        pub(crate) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(Settings::default().problems(), []);
    }

    #[test]
    fn every_problem_is_listed() {
        let settings = Settings {
            lease_duration: Duration::ZERO,
            max_lease_writes: 0,
            batch_records: 0,
            retry_initial: Duration::from_secs(60),
            ..Settings::default()
        };
        assert!(settings.problems().len() >= 5, "{:?}", settings.problems());
    }

    #[test]
    fn settings_survive_being_serialised() {
        let settings = Settings { lease_duration: Duration::from_millis(12_345), ..Settings::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert!(text.contains("\"leaseDuration\":12345"), "{text}");
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert!(
            serde_json::from_str::<Settings>("{\"leaseDurations\": 1}").is_err(),
            "unknown names are refused"
        );
    }
}
