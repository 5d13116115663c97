//! The closed table of keys of the Java KCL's `.properties` files, as of KCL 3.5.1.

/// How Java writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Form {
    Text,
    /// A whole number; Java takes its default for 0 and for what is no number.
    Number,
    /// Milliseconds, the same.
    Millis,
    Seconds,
    Flag,
    /// A word whose case does not matter.
    Word,
    Names,
}

/// What comes of a key.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Rule {
    /// Becomes this setting.
    Takes { path: &'static str, form: Form, note: &'static str },
    /// `initialPositionInStream`.
    Position,
    /// `initialPositionInStreamExtended`.
    Epoch,
    /// `retrievalMode`.
    Mode,
    /// Where credentials come from.
    Credentials,
    /// Has no meaning here.
    Without { why: &'static str, instead: &'static str },
}

impl Rule {
    /// The setting it becomes.
    pub(in super::super) const fn path(&self) -> Option<&'static str> {
        match self {
            Self::Takes { path, .. } => Some(path),
            Self::Position | Self::Epoch => Some("initialPosition"),
            Self::Mode => Some("retrieval.mode"),
            Self::Credentials | Self::Without { .. } => None,
        }
    }
}

/// Which way of reading a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Group {
    General,
    /// With one of these and no `retrievalMode` Java polls. May be written with the prefix `pollingConfig.`.
    Polling,
    FanOut,
}

#[derive(Clone, Copy, Debug)]
pub(in super::super) struct JavaKey {
    pub(in super::super) name: &'static str,
    pub(in super::super) group: Group,
    pub(in super::super) rule: Rule,
}

const fn takes(name: &'static str, path: &'static str, form: Form) -> JavaKey {
    noting(name, path, form, "")
}

const fn noting(name: &'static str, path: &'static str, form: Form, note: &'static str) -> JavaKey {
    JavaKey { name, group: Group::General, rule: Rule::Takes { path, form, note } }
}

const fn special(name: &'static str, rule: Rule) -> JavaKey {
    JavaKey { name, group: Group::General, rule }
}

const fn without(name: &'static str, why: &'static str, instead: &'static str) -> JavaKey {
    JavaKey { name, group: Group::General, rule: Rule::Without { why, instead } }
}

const fn of(group: Group, key: JavaKey) -> JavaKey {
    JavaKey { group, ..key }
}

const DAEMON: &str = "there is no MultiLang daemon: a processor is Rust code in this process";
const RETRIES: &str = "retries have one owner here and need no numbers";
const METRICS_TABLE: &str = "there is no table of worker metrics";
const COORDINATOR_TABLE: &str = "there is no coordinator table; Java's is only looked at";
const LOAD: &str = "workers do not report metrics through a table";
const BY_LOAD: &str = "in a fleet: placement.strategy = \"Load\"";
const MIGRATION: &str = "there is nothing to migrate: everything is in the lease table";

/// Every key. Those of nested client builders are in [`CLIENTS`].
pub(in super::super) const JAVA_KEYS: &[JavaKey] = &[
    without("executableName", DAEMON, "implement RecordProcessor (docs/migrating.md)"),
    without("processingLanguage", DAEMON, "leave it out"),
    without("maxActiveThreads", "consumers are tasks, not threads", "leave it out"),
    takes("applicationName", "application", Form::Text),
    takes("streamName", "stream", Form::Text),
    noting("streamArn", "stream", Form::Text, "Java uses only its name; here account and region count, too"),
    takes("tableName", "leaseTable.name", Form::Text),
    takes("workerId", "workerId", Form::Text),
    takes("workerIdentifier", "workerId", Form::Text),
    takes("regionName", "region", Form::Text),
    takes("kinesisEndpoint", "endpoints.kinesis", Form::Text),
    takes("dynamoDBEndpoint", "endpoints.dynamodb", Form::Text),
    special("AwsCredentialsProvider", Rule::Credentials),
    special("AwsCredentialsProviderDynamoDB", Rule::Credentials),
    special("AwsCredentialsProviderCloudWatch", Rule::Credentials),
    special("initialPositionInStream", Rule::Position),
    special("initialPositionInStreamExtended", Rule::Epoch),
    special("retrievalMode", Rule::Mode),
    without(
        "validateSequenceNumberBeforeCheckpointing",
        "it has no effect in KCL 3.x; here a position that was not delivered is always an error",
        "leave it out",
    ),
    noting("shutdownGraceMillis", "settings.shutdownDeadline", Form::Millis, "used by run_until"),
    noting(
        "timeoutInSeconds",
        "settings.callbackLimit",
        Form::Seconds,
        "Java ends the whole process after it; here the callback is given up and the lease released",
    ),
    noting("failoverTimeMillis", "settings.leaseDuration", Form::Millis, "must be the same on all workers"),
    without(
        "leaseAssignmentIntervalMillis",
        "it is the period of a leader of KCL 3.x, and there is no leader",
        "settings.leaseScanInterval says how often the lease table is listed",
    ),
    without(
        "enablePriorityLeaseAssignment",
        "leases of dead workers are always shared out at once",
        "leave it out",
    ),
    takes("leaseTableDeletionProtectionEnabled", "leaseTable.deletionProtection", Form::Flag),
    takes("leaseTablePitrEnabled", "leaseTable.pointInTimeRecovery", Form::Flag),
    noting(
        "shardSyncIntervalMillis",
        "settings.shardSyncInterval",
        Form::Millis,
        "ends of shards are acted on at once",
    ),
    without(
        "cleanupLeasesUponShardCompletion",
        "leases of ended shards always go once their children are under way (Java takes false for its default, true)",
        "settings.endedLeaseRetention says how long they are kept at least",
    ),
    without(
        "ignoreUnexpectedChildShards",
        "it is for DynamoDB Streams, which are not read here",
        "leave it out",
    ),
    takes("maxLeasesForWorker", "settings.maxLeases", Form::Number),
    noting(
        "maxLeasesToStealAtOneTime",
        "settings.maxRequests",
        Form::Number,
        "leases are asked for, and stolen only from who does not answer",
    ),
    without(
        "initialLeaseTableReadCapacity",
        "KCL 3.x creates the table on demand whatever this says",
        "leaseTable.billing = \"Provisioned\" with readCapacity and writeCapacity",
    ),
    without(
        "initialLeaseTableWriteCapacity",
        "KCL 3.x creates the table on demand whatever this says",
        "leaseTable.billing = \"Provisioned\" with readCapacity and writeCapacity",
    ),
    without("leaseTableScanTotalSegments", "the table is listed page by page", "leave it out"),
    noting(
        "maxLeaseRenewalThreads",
        "settings.maxLeaseWrites",
        Form::Number,
        "writes under way at a time; there are no threads",
    ),
    without("listShardsBackoffTimeInMillis", RETRIES, "leave it out"),
    without("maxListShardsRetryAttempts", RETRIES, "leave it out"),
    takes("callProcessRecordsEvenForEmptyRecordList", "settings.deliverEmptyBatches", Form::Flag),
    takes("parentShardPollIntervalMillis", "settings.parentPollInterval", Form::Millis),
    without(
        "shardPrioritization",
        "parents come before children, and shards do not wait for others",
        "leave it out",
    ),
    without(
        "skipShardSyncAtWorkerInitializationIfLeasesExist",
        "shards and leases are compared at every start, so that no shard is forgotten",
        "leave it out",
    ),
    without(
        "schedulerInitializationBackoffTimeMillis",
        RETRIES,
        "settings.startTimeout says how long a start is tried",
    ),
    without(
        "clientVersionConfig",
        "workers of KCL 3.x have protocols of their own",
        "coordination = \"PerLease\" works beside KCL 2.x and its compatible mode (docs/migrating.md)",
    ),
    without("migrateAllEntitiesToLeaseTable", MIGRATION, "leave it out"),
    without("tableMigrationCompleteBakeTimeSeconds", MIGRATION, "leave it out"),
    noting(
        "taskBackoffTimeMillis",
        "settings.retryInitial",
        Form::Millis,
        "the first delay; it grows up to settings.retryMax",
    ),
    without(
        "logWarningForTaskAfterMillis",
        "stalls are found by settings.stallTimeout and callbacks limited by settings.callbackLimit",
        "those two",
    ),
    takes("metricsBufferTimeMillis", "metrics.bufferTime", Form::Millis),
    takes("metricsMaxQueueSize", "metrics.maxQueueSize", Form::Number),
    takes("metricsLevel", "metrics.level", Form::Word),
    takes("metricsEnabledDimensions", "metrics.enabledDimensions", Form::Names),
    of(
        Group::Polling,
        without(
            "retryGetRecordsInSeconds",
            "it has no effect in KCL 3.x",
            "retrieval.polling.callTimeout limits a call",
        ),
    ),
    of(Group::Polling, without("maxGetRecordsThreadPool", "it has no effect in KCL 3.x", "leave it out")),
    of(
        Group::Polling,
        noting(
            "idleTimeBetweenReadsInMillis",
            "retrieval.polling.minInterval",
            Form::Millis,
            "at the tip of a shard; behind it there is no idle time",
        ),
    ),
    of(
        Group::Polling,
        without(
            "millisBehindLatestThresholdForReducedTps",
            "the pace adapts to the shard's limits by itself",
            "retrieval.polling.minInterval",
        ),
    ),
    of(Group::Polling, takes("maxRecords", "retrieval.polling.fetchRecords", Form::Number)),
    of(Group::FanOut, takes("fanoutConfig.consumerArn", "retrieval.fanOut.consumerArn", Form::Text)),
    of(Group::FanOut, takes("fanoutConfig.consumerName", "retrieval.fanOut.consumerName", Form::Text)),
    of(Group::FanOut, without("fanoutConfig.maxDescribeStreamSummaryRetries", RETRIES, "leave it out")),
    of(Group::FanOut, without("fanoutConfig.maxDescribeStreamConsumerRetries", RETRIES, "leave it out")),
    of(Group::FanOut, without("fanoutConfig.registerStreamConsumerRetries", RETRIES, "leave it out")),
    of(Group::FanOut, without("fanoutConfig.retryBackoffMillis", RETRIES, "leave it out")),
    without(
        "gracefulLeaseHandoffTimeoutMillis",
        "a lease is handed over when the running callback has ended",
        "settings.callbackLimit limits that",
    ),
    without("isGracefulLeaseHandoffEnabled", "leases are always handed over in order", "leave it out"),
    without("inMemoryWorkerMetricsCaptureFrequencyMillis", LOAD, BY_LOAD),
    without("workerMetricsReporterFreqInMillis", LOAD, BY_LOAD),
    without("noOfPersistedMetricsPerWorkerMetrics", LOAD, BY_LOAD),
    without("disableWorkerMetrics", LOAD, "placement.strategy = \"Count\", the default"),
    without(
        "maxThroughputPerHostKBps",
        LOAD,
        "in a fleet balanced by load: settings.maxLoad, in bytes a second",
    ),
    without("dampeningPercentage", LOAD, "in a fleet: placement.strategy = \"Load\" and placement.damping"),
    without(
        "reBalanceThresholdPercentage",
        LOAD,
        "in a fleet: placement.strategy = \"Load\" and placement.deadBand",
    ),
    without("allowThroughputOvershoot", LOAD, BY_LOAD),
    without("varianceBalancingFrequency", LOAD, BY_LOAD),
    without("workerMetricsEMAAlpha", LOAD, BY_LOAD),
    without("staleWorkerMetricsEntryCleanupDuration", LOAD, "leave it out"),
    without("workerMetricsTableName", METRICS_TABLE, "leave it out"),
    without("workerMetricsBillingMode", METRICS_TABLE, "leave it out"),
    without("workerMetricsReadCapacity", METRICS_TABLE, "leave it out"),
    without("workerMetricsWriteCapacity", METRICS_TABLE, "leave it out"),
    without("workerMetricsPointInTimeRecoveryEnabled", METRICS_TABLE, "leave it out"),
    without("workerMetricsDeletionProtectionEnabled", METRICS_TABLE, "leave it out"),
    without("workerMetricsTags", METRICS_TABLE, "leave it out"),
    noting(
        "coordinatorStateTableName",
        "leaseTable.coordinatorTable",
        Form::Text,
        "where to look for a live leader of Java KCL 3.0 to 3.4",
    ),
    without("coordinatorStateBillingMode", COORDINATOR_TABLE, "leave it out"),
    without("coordinatorStateReadCapacity", COORDINATOR_TABLE, "leave it out"),
    without("coordinatorStateWriteCapacity", COORDINATOR_TABLE, "leave it out"),
    without("coordinatorStatePointInTimeRecoveryEnabled", COORDINATOR_TABLE, "leave it out"),
    without("coordinatorStateDeletionProtectionEnabled", COORDINATOR_TABLE, "leave it out"),
    without("coordinatorStateTags", COORDINATOR_TABLE, "leave it out"),
    takes("kinesisClient.endpointOverride", "endpoints.kinesis", Form::Text),
    takes("dynamoDbClient.endpointOverride", "endpoints.dynamodb", Form::Text),
    takes("cloudWatchClient.endpointOverride", "endpoints.cloudwatch", Form::Text),
];

/// The client builders whose properties can be set by paths.
const CLIENTS: [&str; 3] = ["kinesisClient.", "dynamoDbClient.", "cloudWatchClient."];

const CLIENT_PROPERTY: JavaKey = without(
    "(a property of a client)",
    "clients of the SDK are made by the program",
    "set it on the client's builder in code",
);

/// The prefix that polling keys may have.
const POLLING_PREFIX: &str = "pollingConfig.";

const CREDENTIALS: &str = "awscredentialsprovider";

/// What Java understands by a key.
pub(super) fn java_key(name: &str) -> Option<JavaKey> {
    let find = |name: &str| JAVA_KEYS.iter().find(|key| key.name == name).copied();
    if let Some(key) = find(name) {
        return Some(key);
    }
    if let Some(rest) = name.strip_prefix(POLLING_PREFIX) {
        return find(rest).filter(|key| key.group == Group::Polling);
    }
    if CLIENTS.iter().any(|client| name.strip_prefix(client).is_some_and(|rest| !rest.is_empty())) {
        return Some(CLIENT_PROPERTY);
    }
    // Java matches the beginning of these without regard to case: AWSCredentialsProvider is the spelling of KCL 2.x.
    let start = name.get(..CREDENTIALS.len())?;
    if start.eq_ignore_ascii_case(CREDENTIALS) {
        return find(&format!("AwsCredentialsProvider{}", &name[CREDENTIALS.len()..]));
    }
    None
}

/// The keys that become this setting.
#[cfg(test)]
pub(in super::super) fn java_names(path: &str) -> Vec<String> {
    let keys = JAVA_KEYS.iter().filter(|key| key.rule.path() == Some(path));
    keys.map(|key| key.name.to_owned()).collect()
}
