//! The closed table of keys.

use super::position;
use super::text::{bytes_text, time_text};

/// No upper limit.
const ANY: u64 = i64::MAX as u64;
/// The longest duration, in milliseconds: a year. Longer ones are mistakes, and deadlines would overflow.
const YEAR: u64 = 365 * 86_400_000;

/// What a value is. Durations are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    Number { least: u64, most: u64 },
    Bytes { least: u64 },
    Time { least: u64, most: u64 },
    Choice(&'static [&'static str]),
    Position,
    Names(&'static [&'static str]),
    Tags,
}

impl Kind {
    /// What is allowed, for messages and the documentation.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number { least, most: ANY } => format!("a number from {least}"),
            Self::Number { least, most } => format!("a number from {least} to {most}"),
            Self::Bytes { least } => format!("bytes from {}", bytes_text(least)),
            Self::Time { least, most } => format!("a time from {} to {}", time_text(least), time_text(most)),
            Self::Choice(choices) => choices.join(", "),
            Self::Position => position::FORMS.to_owned(),
            Self::Names(names) => format!("a list of {}", names.join(", ")),
            Self::Tags => "a table of texts".to_owned(),
        }
    }
}

/// Whether a key has a value when nobody gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
    Defaulted,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The path, as it is written in TOML.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) presence: Presence,
}

impl Key {
    /// The environment variable, without the prefix: `retrieval.fanOut.bufferBytes` is `RETRIEVAL__FAN_OUT__BUFFER_BYTES`.
    pub(super) fn variable(&self) -> String {
        let mut name = String::with_capacity(self.path.len() + 8);
        for letter in self.path.chars() {
            match letter {
                '.' => name.push_str("__"),
                letter => {
                    if letter.is_ascii_uppercase() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_uppercase());
                }
            }
        }
        name
    }
}

const fn must(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, presence: Presence::Required }
}

const fn may(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, presence: Presence::Optional }
}

const fn has(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, presence: Presence::Defaulted }
}

const fn number(least: u64, most: u64) -> Kind {
    Kind::Number { least, most }
}

const fn time(least: u64, most: u64) -> Kind {
    Kind::Time { least, most }
}

const fn bytes(least: u64) -> Kind {
    Kind::Bytes { least }
}

/// The dimensions of the KCL's metrics, and the word for all of them.
pub(super) const DIMENSIONS: &[&str] = &["ALL", "Operation", "ShardId", "StreamId", "WorkerIdentifier"];

/// Every key, in the order of the documentation and of files that are written.
pub(super) const KEYS: &[Key] = &[
    must("application", Kind::Text),
    must("stream", Kind::Text),
    may("workerId", Kind::Text),
    may("region", Kind::Text),
    has("initialPosition", Kind::Position),
    has("coordination", Kind::Choice(&["Fleet", "PerLease"])),
    has("takeover", Kind::Choice(&["Refuse", "Wait"])),
    has("startMode", Kind::Choice(&["Active", "Standby"])),
    has("foreignLeases", Kind::Choice(&["Refuse", "Adopt", "Reset"])),
    may("endpoints.kinesis", Kind::Text),
    may("endpoints.dynamodb", Kind::Text),
    may("endpoints.cloudwatch", Kind::Text),
    has("placement.strategy", Kind::Choice(&["Count", "Load"])),
    has("placement.deadBand", number(1, 100)),
    has("placement.damping", number(1, 100)),
    has("checkpoint.policy", Kind::Choice(&["Manual", "AfterBatch", "Every"])),
    may("checkpoint.interval", time(1, YEAR)),
    has("onError.action", Kind::Choice(&["Retry", "ReleaseLease", "StopScheduler", "Skip"])),
    has("onError.afterFailures", number(1, u32::MAX as u64)),
    has("retrieval.mode", Kind::Choice(&["Polling", "FanOut"])),
    has("retrieval.polling.minInterval", time(1, 10_000)),
    has("retrieval.polling.maxInterval", time(1, 60_000)),
    has("retrieval.polling.fetchRecords", number(1, 10_000)),
    has("retrieval.polling.callTimeout", time(100, 300_000)),
    may("retrieval.fanOut.consumerName", Kind::Text),
    may("retrieval.fanOut.consumerArn", Kind::Text),
    has("retrieval.fanOut.managed", Kind::Flag),
    has("retrieval.fanOut.subscriptionsPerConnection", number(1, 100)),
    has("retrieval.fanOut.bufferBytes", bytes(0)),
    has("retrieval.fanOut.timeouts.open", time(1_000, 300_000)),
    has("retrieval.fanOut.timeouts.firstEvent", time(1_000, 300_000)),
    has("retrieval.fanOut.timeouts.inactivity", time(1_000, 300_000)),
    has("retrieval.fanOut.fallback.enabled", Kind::Flag),
    has("retrieval.fanOut.fallback.after", time(0, YEAR)),
    has("retrieval.fanOut.fallback.retryInterval", time(1_000, YEAR)),
    may("leaseTable.name", Kind::Text),
    has("leaseTable.create", Kind::Flag),
    has("leaseTable.billing", Kind::Choice(&["OnDemand", "Provisioned"])),
    may("leaseTable.readCapacity", number(1, u32::MAX as u64)),
    may("leaseTable.writeCapacity", number(1, u32::MAX as u64)),
    has("leaseTable.pointInTimeRecovery", Kind::Flag),
    has("leaseTable.deletionProtection", Kind::Flag),
    may("leaseTable.kmsKey", Kind::Text),
    has("leaseTable.tags", Kind::Tags),
    has("leaseTable.requestTimeout", time(50, 200_000)),
    has("leaseTable.consistentLists", Kind::Flag),
    has("leaseTable.lookForJavaLeader", Kind::Flag),
    may("leaseTable.coordinatorTable", Kind::Text),
    has("metrics.level", Kind::Choice(&["None", "Summary", "Detailed"])),
    has("metrics.enabledDimensions", Kind::Names(DIMENSIONS)),
    has("metrics.bufferTime", time(1_000, 3_600_000)),
    has("metrics.maxQueueSize", number(1, ANY)),
    may("metrics.namespace", Kind::Text),
    has("settings.leaseDuration", time(1_000, 600_000)),
    has("settings.leaseSafetyMargin", time(1, 200_000)),
    has("settings.leaseScanInterval", time(1, 270_000)),
    may("settings.maxLeases", number(1, ANY)),
    may("settings.maxLoad", number(1, ANY)),
    has("settings.maxRequests", number(0, ANY)),
    has("settings.maxLeaseWrites", number(1, ANY)),
    has("settings.shardSyncInterval", time(1_000, YEAR)),
    has("settings.endedLeaseRetention", time(0, YEAR)),
    has("settings.parentPollInterval", time(1, YEAR)),
    has("settings.shardBufferBytes", bytes(1)),
    has("settings.workerBufferBytes", bytes(1)),
    has("settings.batchRecords", number(1, ANY)),
    has("settings.batchBytes", bytes(1)),
    has("settings.outOfRange", Kind::Choice(&["DropRecord", "DropAggregate", "Keep"])),
    has("settings.deliverEmptyBatches", Kind::Flag),
    has("settings.retryInitial", time(1, YEAR)),
    has("settings.retryMax", time(1, YEAR)),
    has("settings.callbackLimit", time(1, YEAR)),
    has("settings.stallTimeout", time(15_000, YEAR)),
    has("settings.startTimeout", time(1, YEAR)),
    has("settings.shutdownDeadline", time(0, YEAR)),
];

/// The key of this path.
pub(super) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether this is a section: keys lie below it.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The candidate that is spelt most like `word`, if any is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-', '.', ' '], "").to_ascii_lowercase();
    // Long words cost the square of their length, and are no misspelt keys.
    let word = plain(&word.chars().take(100).collect::<String>());
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, &plain(candidate));
    let (distance, nearest) = candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + nearest.len() / 5).then_some(nearest)
}
