//! The closed list of what is measured.

use std::fmt;

/// In what a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Things.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The name CloudWatch has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::Bytes => "Bytes",
        }
    }
}

/// How values of a metric belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Each value adds to a sum.
    Counter,
    /// 1 for a success, 0 for a failure.
    Outcome,
    /// Each value says how it is at the moment.
    Gauge,
    /// Each value is a duration or a size; what matters is how they are distributed.
    Distribution,
}

/// How much is published. Ordered: a metric is published if its own level is at most the chosen one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricsLevel {
    /// Nothing.
    None,
    /// What a dashboard and alarms need.
    Summary,
    /// Everything, as the KCL does unless told otherwise.
    #[default]
    Detailed,
}

impl MetricsLevel {
    /// The KCL's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Summary => "SUMMARY",
            Self::Detailed => "DETAILED",
        }
    }
}

impl std::str::FromStr for MetricsLevel {
    type Err = UnknownName;

    /// Reads the KCL's name, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let all = [Self::None, Self::Summary, Self::Detailed];
        all.into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| UnknownName::new("metrics level", text, all.map(Self::name)))
    }
}

/// A level or a dimension that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {text:?}: choose of {choices}")]
pub struct UnknownName {
    what: &'static str,
    text: String,
    choices: String,
}

impl UnknownName {
    pub(super) fn new(
        what: &'static str,
        text: &str,
        choices: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let choices = choices.into_iter().collect::<Vec<_>>().join(", ");
        Self { what, text: text.trim().to_owned(), choices }
    }
}

/// What tells values of one metric apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dimension {
    /// What was done; part of every metric, and never left out.
    Operation,
    /// The shard.
    ShardId,
    /// The worker, by the id its builder was given.
    WorkerIdentifier,
    /// The call of a service, or the callback.
    Call,
    /// Why.
    Cause,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 5] =
        [Self::Operation, Self::ShardId, Self::WorkerIdentifier, Self::Call, Self::Cause];

    /// Its name; the KCL's where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operation => "Operation",
            Self::ShardId => "ShardId",
            Self::WorkerIdentifier => "WorkerIdentifier",
            Self::Call => "Call",
            Self::Cause => "Cause",
        }
    }
}

/// The dimensions that are published; values that differ in others alone are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnabledDimensions(u8);

impl EnabledDimensions {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);

    /// These, and [`Dimension::Operation`] in any case: metrics of different operations share names.
    #[must_use]
    pub fn of(dimensions: impl IntoIterator<Item = Dimension>) -> Self {
        let bits = dimensions.into_iter().fold(0, |bits, dimension| bits | 1 << dimension as u8);
        Self(bits | 1 << Dimension::Operation as u8)
    }

    /// Reads names as the KCL's `metricsEnabledDimensions` lists them, with commas between; `ALL` stands for all.
    ///
    /// `StreamId`, which the KCL sets for an application of many streams, is known and means nothing here.
    ///
    /// # Errors
    /// If one is unknown; it says which there are.
    pub fn parse(list: &str) -> Result<Self, UnknownName> {
        let mut dimensions = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Dimension::ALL.into_iter().find(|dimension| dimension.name() == name) {
                Some(dimension) => dimensions.push(dimension),
                None if name == "ALL" => return Ok(Self::ALL),
                None if name == "StreamId" => {}
                None => {
                    let names = Dimension::ALL.into_iter().map(Dimension::name);
                    return Err(UnknownName::new(
                        "metrics dimension",
                        name,
                        names.chain(["StreamId", "ALL"]),
                    ));
                }
            }
        }
        Ok(Self::of(dimensions))
    }

    /// Whether this dimension is published.
    #[must_use]
    pub const fn has(self, dimension: Dimension) -> bool {
        self.0 & (1 << dimension as u8) != 0
    }
}

impl Default for EnabledDimensions {
    fn default() -> Self {
        Self::ALL
    }
}

/// What there is to know about a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// The value of its dimension `Operation`.
    pub operation: &'static str,
    /// Its name, in CloudWatch.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// How its values belong together.
    pub kind: Kind,
    /// From which level on it is published.
    pub level: MetricsLevel,
    /// Its dimensions besides `Operation`.
    pub dimensions: &'static [Dimension],
    /// Its name in the style of Prometheus, if it is told there.
    pub prometheus: Option<&'static str>,
    /// Whether operation and name are the KCL's.
    pub is_of_kcl: bool,
    /// What it says, and when it is told.
    pub when: &'static str,
}

macro_rules! catalogue {
    ($($variant:ident: $origin:ident $operation:literal $name:literal, $kind:ident $unit:ident $level:ident [$($dimension:ident)*], $prometheus:expr, $when:literal;)*) => {
        /// A metric. There are no others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Metric {
            $(#[doc = concat!("`", $operation, "` `", $name, "`: ", $when)] $variant,)*
        }

        impl Metric {
            /// Every metric, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What there is to know about it.
            #[must_use]
            pub const fn descriptor(self) -> &'static Descriptor {
                match self {
                    $(Self::$variant => &Descriptor {
                        operation: $operation,
                        name: $name,
                        unit: Unit::$unit,
                        kind: Kind::$kind,
                        level: MetricsLevel::$level,
                        dimensions: &[$(Dimension::$dimension,)*],
                        prometheus: $prometheus,
                        is_of_kcl: catalogue!(@$origin),
                        when: $when,
                    },)*
                }
            }
        }
    };
    (@kcl) => { true };
    (@own) => { false };
}

// KCL 3.5.1's names, and after them those of our own. `docs/metrics.md` has the same as a table.
catalogue! {
    InitializeSuccess: kcl "Scheduler:Initialize" "Initialize.Success", Outcome Count Summary [], Some("kcl_starts_total"), "each start of a scheduler: whether it got to run";
    InitializeTime: kcl "InitializeTask" "RecordProcessor.initialize.Time", Distribution Milliseconds Summary [], Some("kcl_initialize_seconds"), "each call of initialize";
    RecordsProcessed: kcl "ProcessTask" "RecordsProcessed", Counter Count Summary [ShardId], Some("kcl_records_processed_total"), "each delivery: user records acknowledged, 0 if it failed";
    DataBytesProcessed: kcl "ProcessTask" "DataBytesProcessed", Counter Bytes Summary [ShardId], Some("kcl_processed_bytes_total"), "each delivery: payload bytes acknowledged, 0 if it failed";
    MillisBehindLatest: kcl "ProcessTask" "MillisBehindLatest", Gauge Milliseconds Summary [ShardId], Some("kcl_behind_latest_seconds"), "each answer of the source that says so";
    ProcessSuccess: kcl "ProcessTask" "Success", Outcome Count Summary [ShardId], Some("kcl_deliveries_total"), "each delivery: whether process_records returned Ok";
    ProcessTime: kcl "ProcessTask" "Time", Distribution Milliseconds Summary [ShardId], None, "each delivery, as the next; the KCL's also has its own work in it";
    ProcessRecordsTime: kcl "ProcessTask" "RecordProcessor.processRecords.Time", Distribution Milliseconds Summary [ShardId], Some("kcl_process_records_seconds"), "each call of process_records";
    GetRecordsSuccess: kcl "ProcessTask" "KinesisDataFetcher.getRecords.Success", Outcome Count Detailed [ShardId], Some("kcl_get_records_total"), "each GetRecords";
    GetRecordsTime: kcl "ProcessTask" "KinesisDataFetcher.getRecords.Time", Distribution Milliseconds Detailed [ShardId], Some("kcl_get_records_seconds"), "each GetRecords";
    GetShardIteratorSuccess: kcl "ProcessTask" "KinesisDataFetcher.getShardIterator.Success", Outcome Count Detailed [ShardId], Some("kcl_get_shard_iterator_total"), "each GetShardIterator";
    GetShardIteratorTime: kcl "ProcessTask" "KinesisDataFetcher.getShardIterator.Time", Distribution Milliseconds Detailed [ShardId], Some("kcl_get_shard_iterator_seconds"), "each GetShardIterator";
    ExpiredIterator: kcl "ProcessTask" "ExpiredIterator", Counter Count Summary [], Some("kcl_expired_iterators_total"), "each iterator that had expired; a new one is asked for";
    UpdateLeaseSuccess: kcl "ProcessTask" "UpdateLease.Success", Outcome Count Detailed [ShardId], Some("kcl_checkpoints_total"), "each checkpoint, prepared ones too, that takes a write";
    UpdateLeaseTime: kcl "ProcessTask" "UpdateLease.Time", Distribution Milliseconds Detailed [ShardId], Some("kcl_checkpoint_seconds"), "each checkpoint, from the call to its answer";
    ApplicationMillisBehindLatest: kcl "ApplicationTracker" "MillisBehindLatest", Gauge Milliseconds Summary [], None, "with the one of the shard; take the maximum";
    ShutdownTime: kcl "ShutdownTask" "RecordProcessor.shutdown.Time", Distribution Milliseconds Summary [], Some("kcl_shutdown_seconds"), "each call of shard_ended, lease_lost or shutdown_requested; the KCL leaves out the last";
    ChildLeaseSuccess: kcl "ShutdownTask" "CreateLease.Success", Outcome Count Detailed [], Some("kcl_child_leases_created_total"), "each write of a child's lease at the end of its parent";
    ChildLeaseTime: kcl "ShutdownTask" "CreateLease.Time", Distribution Milliseconds Detailed [], Some("kcl_create_child_lease_seconds"), "each write of a child's lease at the end of its parent";
    SyncShardsSuccess: kcl "ShardSyncTask" "SyncShards.Success", Outcome Count Detailed [], None, "each comparison of shards and leases, as Success";
    SyncCreateLeaseSuccess: kcl "ShardSyncTask" "CreateLease.Success", Outcome Count Detailed [], Some("kcl_leases_created_total"), "each lease that a comparison of shards and leases creates";
    ShardSyncSuccess: kcl "ShardSyncTask" "Success", Outcome Count Summary [], Some("kcl_shard_syncs_total"), "each comparison of shards and leases by whoever keeps house";
    ShardSyncTime: kcl "ShardSyncTask" "Time", Distribution Milliseconds Summary [], Some("kcl_shard_sync_seconds"), "each comparison, with its writes";
    IsLeader: kcl "LeaderDecider" "LeaderDecider:IsLeader", Gauge Count Detailed [], Some("kcl_is_housekeeper"), "sampled: 1 if this worker keeps house";
    LostLeases: kcl "RenewAllLeases" "LostLeases", Counter Count Summary [WorkerIdentifier], None, "each lease lost against one's will: taken, expired, deleted, evicted";
    CurrentLeases: kcl "RenewAllLeases" "CurrentLeases", Gauge Count Summary [WorkerIdentifier], Some("kcl_leases_held"), "sampled: leases whose consumers run";
    RenewSuccess: kcl "RenewAllLeases" "Success", Outcome Count Summary [WorkerIdentifier], Some("kcl_renewals_total"), "Fleet: each heartbeat, which renews all; PerLease: each renewal";
    RenewTime: kcl "RenewAllLeases" "Time", Distribution Milliseconds Summary [WorkerIdentifier], Some("kcl_renewal_seconds"), "with Success";
    RenewLeaseSuccess: kcl "RenewAllLeases" "RenewLease.Success", Outcome Count Detailed [WorkerIdentifier], None, "PerLease: each renewal";
    RenewLeaseTime: kcl "RenewAllLeases" "RenewLease.Time", Distribution Milliseconds Detailed [WorkerIdentifier], None, "PerLease: each renewal";
    ListLeasesSuccess: kcl "TakeLeases" "ListLeases.Success", Outcome Count Detailed [WorkerIdentifier], Some("kcl_lease_listings_total"), "each page of a listing of the lease table";
    ListLeasesTime: kcl "TakeLeases" "ListLeases.Time", Distribution Milliseconds Detailed [WorkerIdentifier], Some("kcl_lease_listing_seconds"), "each page of a listing of the lease table";
    TakeLeaseSuccess: kcl "TakeLeases" "TakeLease.Success", Outcome Count Detailed [WorkerIdentifier], Some("kcl_lease_acquisitions_total"), "each write that is to get a lease";
    TakeLeaseTime: kcl "TakeLeases" "TakeLease.Time", Distribution Milliseconds Detailed [WorkerIdentifier], Some("kcl_lease_acquisition_seconds"), "each write that is to get a lease";
    TakenLeases: kcl "TakeLeases" "TakenLeases", Counter Count Summary [WorkerIdentifier], None, "each lease taken or stolen";
    UntakenLeases: kcl "TakeLeases" "UntakenLeases", Counter Count Summary [WorkerIdentifier], None, "each write to get a lease that failed or came too late";
    ExpiredLeases: kcl "TakeLeases" "ExpiredLeases", Gauge Count Summary [WorkerIdentifier], Some("kcl_leases_free"), "PerLease, each plan: unfinished leases without a live owner";
    LeaseSpillover: kcl "TakeLeases" "LeaseSpillover", Gauge Count Summary [WorkerIdentifier], Some("kcl_lease_spillover"), "PerLease, each plan: leases of this worker's share that max_leases leaves to others";
    NumWorkers: kcl "TakeLeases" "NumWorkers", Gauge Count Summary [WorkerIdentifier], Some("kcl_workers"), "PerLease, each plan: workers that own live leases, and this one";
    LeasesToTake: kcl "TakeLeases" "LeasesToTake", Gauge Count Detailed [WorkerIdentifier], Some("kcl_leases_to_take"), "PerLease, each plan: leases it takes, steals or asks for";
    NeededLeases: kcl "TakeLeases" "NeededLeases", Gauge Count Detailed [WorkerIdentifier], Some("kcl_leases_needed"), "PerLease, each plan: what this worker lacks of its share";
    TotalLeases: kcl "TakeLeases" "TotalLeases", Gauge Count Detailed [WorkerIdentifier], Some("kcl_leases"), "PerLease, each plan: unfinished leases";
    TakeLeasesSuccess: kcl "TakeLeases" "Success", Outcome Count Summary [WorkerIdentifier], None, "as ListLeases.Success, on which a plan rests";
    TakeLeasesTime: kcl "TakeLeases" "Time", Distribution Milliseconds Summary [WorkerIdentifier], None, "as ListLeases.Time";
    FleetTotalLeases: kcl "LeaseAssignmentManager" "TotalLeases", Gauge Count Summary [], Some("kcl_fleet_leases"), "Fleet, sampled by whoever keeps house: unfinished leases";
    FleetNumWorkers: kcl "LeaseAssignmentManager" "NumWorkers", Gauge Count Summary [], Some("kcl_fleet_workers"), "Fleet, sampled by whoever keeps house: members";
    FleetExpiredLeases: kcl "LeaseAssignmentManager" "ExpiredLeases", Gauge Count Summary [], Some("kcl_fleet_leases_free"), "Fleet, sampled by whoever keeps house: unfinished leases without an owner that is a member";
    LeasesReassigned: kcl "LeaseAssignmentManager" "NumOfLeasesReassignment", Counter Count Summary [], Some("kcl_leases_given_total"), "each lease this worker gave to another";

    CallbackFailures: own "ProcessTask" "CallbackFailures", Counter Count Summary [Call], Some("kcl_callback_failures_total"), "each callback that returned an error, panicked or overran";
    CallbackRetries: own "ProcessTask" "CallbackRetries", Counter Count Summary [Call], Some("kcl_callback_retries_total"), "each time the error policy has a failed callback called again";
    RecordsSkipped: own "ProcessTask" "RecordsSkipped", Counter Count Summary [], Some("kcl_records_skipped_total"), "each batch the error policy passed over: its records";
    RecordsOutOfRange: own "ProcessTask" "RecordsOutOfRange", Counter Count Summary [], Some("kcl_records_out_of_range_total"), "records of aggregates dropped because they belong to another shard";
    DamagedAggregates: own "ProcessTask" "DamagedAggregates", Counter Count Summary [], Some("kcl_damaged_aggregates_total"), "each damaged aggregate, delivered whole";
    HolesFound: own "ProcessTask" "HolesFound", Counter Count Summary [], Some("kcl_holes_found_total"), "each time records may have expired before they were read";
    CheckpointAge: own "ProcessTask" "CheckpointAge", Gauge Milliseconds Summary [ShardId], Some("kcl_checkpoint_age_seconds"), "sampled: for how long what was delivered waits for the checkpoint to move; 0 if all is stored";
    ApplicationCheckpointAge: own "ApplicationTracker" "CheckpointAge", Gauge Milliseconds Summary [], None, "with the one of the shard; take the maximum";
    ShardBufferBytes: own "ProcessTask" "BufferBytes", Gauge Bytes Detailed [ShardId], Some("kcl_shard_buffer_bytes"), "sampled: payload bytes read ahead";
    WorkerBufferBytes: own "Worker" "BufferBytes", Gauge Bytes Summary [WorkerIdentifier], Some("kcl_buffer_bytes"), "sampled: payload bytes read ahead for all shards";
    TimeSinceRenewal: own "Worker" "TimeSinceRenewal", Gauge Milliseconds Summary [WorkerIdentifier], Some("kcl_since_renewal_seconds"), "sampled: how long ago the lease renewed longest ago was renewed";
    FencedShards: own "Worker" "FencedShards", Gauge Count Summary [WorkerIdentifier], Some("kcl_fenced_shards"), "sampled: shards whose lease cannot be proven valid";
    Stalls: own "Worker" "Stalls", Counter Count Summary [Cause], Some("kcl_stalls_total"), "each time a source or a consumer showed no sign of life";
    LeaseMoves: own "Worker" "LeaseMoves", Counter Count Summary [Cause], Some("kcl_lease_moves_total"), "each lease this worker got: adopted (given to it, or its own from before), taken or stolen";
    LeasesLost: own "Worker" "LeasesLost", Counter Count Summary [Cause], Some("kcl_leases_lost_total"), "each lease no longer held";
    HandOverTime: own "Worker" "HandOver.Time", Distribution Milliseconds Summary [], Some("kcl_hand_over_seconds"), "each lease given to a worker, from the last callback of process_records to the stored hand-over";
    SubscriptionsEnded: own "FanOut" "SubscriptionsEnded", Counter Count Summary [Cause], Some("kcl_subscriptions_ended_total"), "each subscription that ended, or could not be opened; the reader subscribes again";
    FallbacksStarted: own "FanOut" "FallbacksStarted", Counter Count Summary [], Some("kcl_fallbacks_started_total"), "each shard that is polled from now on, since it cannot be subscribed to";
    FallbacksEnded: own "FanOut" "FallbacksEnded", Counter Count Summary [], Some("kcl_fallbacks_ended_total"), "each shard that is subscribed to again";
    Throttles: own "ServiceCalls" "Throttles", Counter Count Summary [Call], Some("kcl_throttles_total"), "each call of Kinesis or of the lease store that was throttled";
    CallFailures: own "ServiceCalls" "CallFailures", Counter Count Summary [Call], Some("kcl_call_failures_total"), "each call that failed for another reason; a refused condition is no failure";
    TableRequests: own "LeaseTable" "RequestsPerMinute", Gauge Count Summary [], Some("kcl_lease_table_requests_per_minute"), "each minute: requests to the lease table by this worker";
    TableReadUnits: own "LeaseTable" "ReadUnitsPerMinute", Gauge Count Summary [], Some("kcl_lease_table_read_units_per_minute"), "each minute: read units consumed by this worker";
    TableWriteUnits: own "LeaseTable" "WriteUnitsPerMinute", Gauge Count Summary [], Some("kcl_lease_table_write_units_per_minute"), "each minute: write units consumed by this worker";
    DataDropped: own "Metrics" "DataDropped", Counter Count Summary [], Some("kcl_metrics_dropped_total"), "each publication: values an adapter lost, for want of room or because CloudWatch refused them";
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Descriptor { operation, name, .. } = self.descriptor();
        write!(f, "{operation}/{name}")
    }
}
