//! Point-in-time recovery: a switch per table.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DynamoDb;
use super::api::{Refusal, encode, parse};

/// The days AWS keeps when the caller does not say.
const DEFAULT_DAYS: u32 = 35;

/// Since when, and for how many days, each table could be restored.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    enabled: BTreeMap<String, (SystemTime, u32)>,
}

impl Recovery {
    pub(super) fn is_enabled(&self, table: &str) -> bool {
        self.enabled.contains_key(table)
    }

    pub(super) fn forget(&mut self, table: &str) {
        self.enabled.remove(table);
    }
}

/// Any request that names a table.
#[derive(Deserialize)]
pub(super) struct TableRequest {
    #[serde(rename = "TableName")]
    pub(super) table_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateRequest {
    table_name: String,
    point_in_time_recovery_specification: Specification,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Specification {
    point_in_time_recovery_enabled: bool,
    recovery_period_in_days: Option<u32>,
}

impl DynamoDb {
    pub(super) fn update_continuous_backups(&self, body: &[u8]) -> Result<Bytes, Refusal> {
        let request: UpdateRequest = parse(body)?;
        self.require_table(&request.table_name)?;
        let wanted = request.point_in_time_recovery_specification;
        let days = wanted.recovery_period_in_days.unwrap_or(DEFAULT_DAYS);
        if !(1..=DEFAULT_DAYS).contains(&days) {
            let message = format!("RecoveryPeriodInDays must be between 1 and {DEFAULT_DAYS}, was {days}");
            return Err(Refusal::new("com.amazon.coral.validate#ValidationException", &message));
        }
        if wanted.point_in_time_recovery_enabled {
            let now = self.clock.now();
            let mut recovery = self.recovery();
            let entry = recovery.enabled.entry(request.table_name.clone()).or_insert((now, days));
            entry.1 = days;
        } else {
            self.recovery().forget(&request.table_name);
        }
        encode(&self.continuous_backups(&request.table_name))
    }

    pub(super) fn describe_continuous_backups(&self, body: &[u8]) -> Result<Bytes, Refusal> {
        let request: TableRequest = parse(body)?;
        self.require_table(&request.table_name)?;
        encode(&self.continuous_backups(&request.table_name))
    }

    fn require_table(&self, table: &str) -> Result<(), Refusal> {
        if self.database.get_table_metadata(table)?.is_some() {
            return Ok(());
        }
        let kind = "com.amazonaws.dynamodb.v20120810#TableNotFoundException";
        Err(Refusal::new(kind, &format!("Table not found: {table}")))
    }

    fn continuous_backups(&self, table: &str) -> Value {
        let recovery = match self.recovery().enabled.get(table) {
            Some((since, days)) => json!({
                "PointInTimeRecoveryStatus": "ENABLED",
                "RecoveryPeriodInDays": days,
                "EarliestRestorableDateTime": epoch_seconds(*since),
                "LatestRestorableDateTime": epoch_seconds(self.clock.now()),
            }),
            None => json!({ "PointInTimeRecoveryStatus": "DISABLED" }),
        };
        json!({
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "ENABLED",
                "PointInTimeRecoveryDescription": recovery,
            }
        })
    }
}

fn epoch_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
