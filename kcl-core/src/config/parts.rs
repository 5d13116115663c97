//! The sections of a [`Configuration`](super::Configuration).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::millis;
use crate::source::{BUFFER_BYTES, FanOutTimeouts, PollingConfig, SUBSCRIPTIONS_PER_CONNECTION};

/// Where the services are, if not where the SDK finds them. URLs with `http://` or `https://`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct EndpointConfiguration {
    /// Kinesis.
    pub kinesis: Option<String>,
    /// DynamoDB.
    pub dynamodb: Option<String>,
    /// CloudWatch.
    pub cloudwatch: Option<String>,
}

/// By what leases are balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PlacementChoice {
    /// By their number.
    #[default]
    Count,
    /// By what they process.
    Load,
}

/// How leases are shared out in a fleet: [`PlacementStrategy`](crate::plan::PlacementStrategy) as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlacementConfiguration {
    /// By what. Default: by their number.
    pub strategy: PlacementChoice,
    /// With `Load`: how far from the mean a member's load may be, in percent of it, before leases move. Default 15.
    pub dead_band: u8,
    /// With `Load`: which part of the difference is moved at once, in percent. Default 50.
    pub damping: u8,
}

impl Default for PlacementConfiguration {
    fn default() -> Self {
        Self { strategy: PlacementChoice::default(), dead_band: 15, damping: 50 }
    }
}

/// Who stores checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckpointChoice {
    /// The processor.
    #[default]
    Manual,
    /// The library, after each batch.
    AfterBatch,
    /// The library, at an interval.
    Every,
}

/// Who stores checkpoints, and when: [`CheckpointPolicy`](crate::CheckpointPolicy) as data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct CheckpointConfiguration {
    /// Who. Default: the processor.
    pub policy: CheckpointChoice,
    /// With `Every`, and only then: the interval.
    #[serde(with = "millis::option")]
    pub interval: Option<Duration>,
}

/// What to do about a callback that goes on failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureAction {
    /// Call it again, without end.
    #[default]
    Retry,
    /// Give the lease up.
    ReleaseLease,
    /// Stop the scheduler.
    StopScheduler,
    /// Go on after the batch: **its records are lost to this application**. Counted and reported.
    Skip,
}

/// The error policy as data. For a dead-letter hook, or decisions by the error itself, give the builder an
/// [`ErrorPolicy`](crate::ErrorPolicy).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct ErrorConfiguration {
    /// What to do once a callback has failed so often. Default: call it again.
    pub action: FailureAction,
    /// How many failures in a row that takes; before, the call is repeated. Default 1: at once.
    pub after_failures: u32,
}

impl Default for ErrorConfiguration {
    fn default() -> Self {
        Self { action: FailureAction::default(), after_failures: 1 }
    }
}

/// How shards are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RetrievalMode {
    /// By `GetRecords`.
    #[default]
    Polling,
    /// By `SubscribeToShard`. Needs the feature `fan-out`.
    FanOut,
}

/// How shards are read, with all numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct RetrievalConfiguration {
    /// By what call. Default: polling.
    pub mode: RetrievalMode,
    /// How shards are polled, also while fan-out has failed.
    pub polling: PollingConfig,
    /// How shards are subscribed to.
    pub fan_out: FanOutConfiguration,
}

/// How shards are read by enhanced fan-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct FanOutConfiguration {
    /// The name of the registered consumer. Default: the application.
    pub consumer_name: Option<String>,
    /// The consumer's ARN, in place of the name. Then nothing is registered.
    pub consumer_arn: Option<String>,
    /// Whether `KinesisStream::deregister_consumer` may deregister the consumer. Default no.
    pub managed: bool,
    /// How many subscriptions share one HTTP/2 connection at most. Default 16.
    pub subscriptions_per_connection: usize,
    /// The payload bytes that wait in the buffers of all shards of the worker. Default 64 MiB.
    pub buffer_bytes: usize,
    /// When a subscription counts as dead.
    pub timeouts: FanOutTimeouts,
    /// Whether, and when, a shard is polled instead.
    pub fallback: FallbackConfiguration,
}

impl Default for FanOutConfiguration {
    fn default() -> Self {
        Self {
            consumer_name: None,
            consumer_arn: None,
            managed: false,
            subscriptions_per_connection: SUBSCRIPTIONS_PER_CONNECTION,
            buffer_bytes: BUFFER_BYTES,
            timeouts: FanOutTimeouts::default(),
            fallback: FallbackConfiguration::default(),
        }
    }
}

/// Whether, and when, a shard is polled because it cannot be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct FallbackConfiguration {
    /// Whether. Default no.
    pub enabled: bool,
    /// How long fan-out must have failed. Default 30 s.
    #[serde(with = "millis")]
    pub after: Duration,
    /// How long the shard is polled before fan-out is tried again. Default 60 s.
    #[serde(with = "millis")]
    pub retry_interval: Duration,
}

impl Default for FallbackConfiguration {
    fn default() -> Self {
        Self { enabled: false, after: Duration::from_secs(30), retry_interval: Duration::from_secs(60) }
    }
}

/// How a table that is created is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BillingChoice {
    /// By request.
    #[default]
    OnDemand,
    /// By capacity that is reserved.
    Provisioned,
}

/// The lease table. A lease store of another kind takes from it what it can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeaseTableConfiguration {
    /// Its name or ARN. Default: the application.
    pub name: Option<String>,
    /// Whether it is created if it does not exist. Default yes.
    pub create: bool,
    /// How a new table is paid for. Default: on demand.
    pub billing: BillingChoice,
    /// With `Provisioned`, and only then: the read capacity units.
    pub read_capacity: Option<u32>,
    /// With `Provisioned`, and only then: the write capacity units.
    pub write_capacity: Option<u32>,
    /// Whether the table's past can be restored. Default no.
    pub point_in_time_recovery: bool,
    /// Whether a new table refuses to be deleted. Default no.
    pub deletion_protection: bool,
    /// The KMS key a new table is encrypted with (id, ARN or alias). Default: the key DynamoDB owns.
    pub kms_key: Option<String>,
    /// The tags of a new table.
    pub tags: BTreeMap<String, String>,
    /// How long one call may take. Default 2 s; at most a third of the lease duration.
    #[serde(with = "millis")]
    pub request_timeout: Duration,
    /// Whether listings see every write that was answered before, for twice the price. Default no.
    pub consistent_lists: bool,
    /// Whether to look for a live leader of the Java KCL 3.0 to 3.4 before working. Default yes.
    pub look_for_java_leader: bool,
    /// The table in which that leader is elected. Default: the application's name with `-CoordinatorState`.
    pub coordinator_table: Option<String>,
}

impl Default for LeaseTableConfiguration {
    fn default() -> Self {
        Self {
            name: None,
            create: true,
            billing: BillingChoice::default(),
            read_capacity: None,
            write_capacity: None,
            point_in_time_recovery: false,
            deletion_protection: false,
            kms_key: None,
            tags: BTreeMap::new(),
            request_timeout: Duration::from_secs(2),
            consistent_lists: false,
            look_for_java_leader: true,
            coordinator_table: None,
        }
    }
}

/// Which metrics are sent to CloudWatch, by the levels of the KCL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MetricsChoice {
    /// None.
    #[default]
    None,
    /// Those that alarms need.
    Summary,
    /// All.
    Detailed,
}

/// What is sent to CloudWatch, under the names of the KCL. Data for the adapter that sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct MetricsConfiguration {
    /// How much. Default: nothing.
    pub level: MetricsChoice,
    /// The dimensions that are kept: `ALL`, or some of `Operation`, `ShardId`, `StreamId`, `WorkerIdentifier`.
    /// Default `ALL`.
    pub enabled_dimensions: Vec<String>,
    /// How long data are gathered before they are sent. Default 10 s.
    #[serde(with = "millis")]
    pub buffer_time: Duration,
    /// How many metrics wait to be sent at most. Default 10,000.
    pub max_queue_size: usize,
    /// The CloudWatch namespace. Default: the application.
    pub namespace: Option<String>,
}

impl Default for MetricsConfiguration {
    fn default() -> Self {
        Self {
            level: MetricsChoice::default(),
            enabled_dimensions: vec!["ALL".to_owned()],
            buffer_time: Duration::from_secs(10),
            max_queue_size: 10_000,
            namespace: None,
        }
    }
}
