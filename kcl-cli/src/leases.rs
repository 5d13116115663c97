//! Leases as they are stored, for `leases list`, `leases show` and `checkpoint show`.

use std::collections::BTreeMap;
use std::fmt;

use kcl_core::lease::Lease;
use serde::Serialize;
use serde_json::Value;

use crate::console::Columns;
use crate::liveness::Standing;
use crate::status::{millis_text, or_dash, shortened};
use crate::stream::Position;
use crate::text::time_text;

/// A lease row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeaseReport {
    /// The row's key: the shard's id.
    pub shard: String,
    /// `leaseOwner`.
    pub owner: Option<String>,
    /// `leaseCounter`.
    pub counter: u64,
    /// `checkpoint`.
    pub checkpoint: String,
    /// `checkpointSubSequenceNumber`.
    pub sub_sequence_number: u64,
    /// `pendingCheckpoint`.
    pub pending_checkpoint: Option<String>,
    /// `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: u64,
    /// `parentShardId`.
    pub parents: Vec<String>,
    /// `childShardIds`.
    pub children: Vec<String>,
    /// `startingHashKey`.
    pub first_hash_key: Option<String>,
    /// `endingHashKey`.
    pub last_hash_key: Option<String>,
    /// `startTimestampMillis`, as RFC 3339 writes it.
    pub start_timestamp: Option<String>,
    /// `streamIdentity`.
    pub stream: Option<String>,
    /// `handOverRequest`.
    pub requested_by: Option<String>,
    /// `checkpointOwner`.
    pub checkpoint_owner: Option<String>,
}

impl From<&Lease> for LeaseReport {
    fn from(lease: &Lease) -> Self {
        Self {
            shard: lease.shard.to_string(),
            owner: lease.owner.as_ref().map(ToString::to_string),
            counter: lease.counter,
            checkpoint: lease.checkpoint.sequence_text(),
            sub_sequence_number: lease.checkpoint.sub_sequence(),
            pending_checkpoint: lease.pending.as_ref().map(|pending| pending.position.to_string()),
            owner_switches: lease.owner_switches,
            parents: lease.parents.iter().map(ToString::to_string).collect(),
            children: lease.children.iter().map(ToString::to_string).collect(),
            first_hash_key: lease.hash_key_range.map(|range| range.start().to_string()),
            last_hash_key: lease.hash_key_range.map(|range| range.end().to_string()),
            start_timestamp: lease.start_timestamp.map(time_text),
            stream: lease.stream.as_ref().map(ToString::to_string),
            requested_by: lease.requested_by.as_ref().map(ToString::to_string),
            checkpoint_owner: lease.checkpoint_owner.as_ref().map(ToString::to_string),
        }
    }
}

/// A row that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableReport {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Every lease of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeaseList {
    /// The table.
    pub table: String,
    /// The leases, in the order of keys.
    pub leases: Vec<LeaseReport>,
    /// Rows that cannot be understood.
    pub unreadable: Vec<UnreadableReport>,
}

impl fmt::Display for LeaseList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns =
            Columns::headed(["LEASE", "OWNER", "COUNTER", "CHECKPOINT", "SWITCHES", "ASKED FOR BY"]);
        for lease in &self.leases {
            let asked_by =
                lease.requested_by.as_ref().or(lease.checkpoint_owner.as_ref().and(lease.owner.as_ref()));
            columns.row([
                lease.shard.clone(),
                or_dash(lease.owner.as_ref()),
                lease.counter.to_string(),
                shortened(&lease.checkpoint),
                lease.owner_switches.to_string(),
                or_dash(asked_by),
            ]);
        }
        write!(f, "{columns}")?;
        for row in &self.unreadable {
            writeln!(f, "UNREADABLE {}: {}", row.key, row.reason)?;
        }
        Ok(())
    }
}

/// One lease, with its row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeaseDetail {
    /// The lease.
    pub lease: LeaseReport,
    /// What is known of its owner.
    pub standing: Standing,
    /// Every attribute of the row, in DynamoDB's JSON.
    pub attributes: BTreeMap<String, Value>,
}

impl fmt::Display for LeaseDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: owner is {}: {}\n",
            self.lease.shard,
            self.standing.word(),
            self.standing.evidence()
        )?;
        let mut columns = Columns::headed(["ATTRIBUTE", "TYPE", "VALUE"]);
        for (name, value) in &self.attributes {
            let (kind, value) = match value.as_object().and_then(|object| object.iter().next()) {
                Some((kind, Value::String(text))) => (kind.clone(), text.clone()),
                Some((kind, value)) => (kind.clone(), value.to_string()),
                None => ("?".to_owned(), value.to_string()),
            };
            columns.row([name.clone(), kind, value]);
        }
        write!(f, "{columns}")
    }
}

/// How far a lease got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The row's key: the shard's id.
    pub shard: String,
    /// The checkpoint: a sequence number or a sentinel.
    pub checkpoint: String,
    /// The place inside an aggregate.
    pub sub_sequence_number: u64,
    /// A prepared checkpoint.
    pub pending_checkpoint: Option<String>,
    /// The time that LATEST or AT_TIMESTAMP stands for.
    pub start_timestamp: Option<String>,
    /// The owner.
    pub owner: Option<String>,
    /// Lag and age, if they were looked at.
    #[serde(flatten)]
    pub position: Option<Position>,
}

impl CheckpointReport {
    /// Makes the report of a lease.
    #[must_use]
    pub fn of(lease: &Lease, position: Option<&Position>) -> Self {
        let report = LeaseReport::from(lease);
        Self {
            shard: report.shard,
            checkpoint: report.checkpoint,
            sub_sequence_number: report.sub_sequence_number,
            pending_checkpoint: report.pending_checkpoint,
            start_timestamp: report.start_timestamp,
            owner: report.owner,
            position: position.cloned(),
        }
    }
}

/// How far leases got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointList {
    /// The table.
    pub table: String,
    /// The checkpoints, in the order of keys.
    pub checkpoints: Vec<CheckpointReport>,
}

impl fmt::Display for CheckpointList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns =
            Columns::headed(["LEASE", "CHECKPOINT", "SUB", "STANDS FOR", "LAG", "CHECKPOINT AGE", "NOTE"]);
        for report in &self.checkpoints {
            let position = report.position.as_ref();
            columns.row([
                report.shard.clone(),
                report.checkpoint.clone(),
                report.sub_sequence_number.to_string(),
                or_dash(report.start_timestamp.as_ref()),
                millis_text(position.and_then(|position| position.lag_millis)),
                millis_text(position.and_then(|position| position.checkpoint_age_millis)),
                or_dash(position.and_then(|position| position.note.as_ref())),
            ]);
        }
        write!(f, "{columns}")
    }
}
