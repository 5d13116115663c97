//! Showing planned writes, asking, and carrying them out one after the other, until one is refused.

use std::fmt;
use std::time::Duration;

use kcl_core::lease::verb::Verdict;
use kcl_core::lease::{FleetChange, FleetWrite, Lease, LeaseStore, StoreError, Write};
use kcl_lease_dynamo::{DynamoLeaseStore, ItemWrite};
use serde::Serialize;
use tokio::time::sleep;

use crate::args::WriteArgs;
use crate::backup::is_same;
use crate::console::Console;
use crate::error::{CliError, CliErrorKind};
use crate::write::{PlannedWrite, unchanged};

/// How often a write is sent before its failure is reported: the same write, until it is answered.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What came of a command that writes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WriteReport {
    /// The table.
    pub table: String,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// What is dangerous about it.
    pub warnings: Vec<String>,
    /// The writes, in their order.
    pub planned: Vec<PlannedWrite>,
    /// How many of them, from the first, were carried out.
    pub written: usize,
    /// What came between, if not all were.
    pub stopped_by: Option<String>,
}

impl fmt::Display for WriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let planned = self.planned.len();
        if planned == 0 {
            return writeln!(f, "nothing to write");
        }
        if self.dry_run {
            return writeln!(f, "dry run: nothing was written");
        }
        writeln!(f, "{} of {planned} writes were carried out", self.written)?;
        if let Some(reason) = &self.stopped_by {
            writeln!(f, "stopped by {}: {reason}", self.planned[self.written.min(planned - 1)].row())?;
        }
        Ok(())
    }
}

/// Shows what would be written, asks, writes. Everything that is written was shown before.
pub(crate) async fn carry_out(
    store: &DynamoLeaseStore,
    planned: Vec<PlannedWrite>,
    warnings: Vec<String>,
    arguments: &WriteArgs,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut report = WriteReport {
        table: store.to_string(),
        dry_run: arguments.dry_run,
        warnings,
        planned,
        written: 0,
        stopped_by: None,
    };
    console.note(format!("in table {store}:"))?;
    for write in &report.planned {
        console.note(write.to_string().trim_end())?;
    }
    for warning in &report.warnings {
        console.note(format!("WARNING: {warning}"))?;
    }
    if report.dry_run || report.planned.is_empty() {
        return console.show(&report);
    }
    if !arguments.yes && !console.confirm()? {
        return Err(CliError::new(CliErrorKind::Refused, "nothing was written: it was not confirmed"));
    }
    let mut failure = None;
    for write in &report.planned {
        match carry_out_one(store, write).await {
            Ok(None) => report.written += 1,
            Ok(Some(met)) => {
                report.stopped_by = Some(met);
                break;
            }
            Err(error) => {
                let unknown =
                    if error.may_have_applied() { "; whether it was applied is not known" } else { "" };
                report.stopped_by = Some(format!("{error}{unknown}"));
                failure = Some(CliError::from(error));
                break;
            }
        }
    }
    console.show(&report)?;
    match (failure, report.stopped_by) {
        (Some(error), _) => Err(error),
        (None, Some(_)) => Err(CliError::new(
            CliErrorKind::LostRace,
            format!(
                "somebody changed a row first; {} of {} writes were carried out",
                report.written,
                report.planned.len()
            ),
        )
        .with_hint("look again, then repeat the command")),
        (None, None) => Ok(()),
    }
}

/// Carries out a write; returns what it met if its condition did not hold.
async fn carry_out_one(store: &DynamoLeaseStore, write: &PlannedWrite) -> Result<Option<String>, StoreError> {
    let mut pause = FIRST_PAUSE;
    let mut sent_before = false;
    for attempt in 1.. {
        match attempt_one(store, write, sent_before).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                sent_before |= error.may_have_applied();
                sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    Ok(None)
}

async fn attempt_one(
    store: &DynamoLeaseStore,
    write: &PlannedWrite,
    sent_before: bool,
) -> Result<Option<String>, StoreError> {
    Ok(match write {
        PlannedWrite::Evict { row, worker, heartbeat } => {
            let change = FleetChange::Remove { worker: worker.clone(), heartbeat: *heartbeat };
            match store.change_fleet(*row, &change).await? {
                FleetWrite::Conflict(Some(row)) if row.live_entry(worker).is_some() => {
                    Some("the member lives: its heartbeat has moved".to_owned())
                }
                // Somebody else removed it: that is what was wanted.
                _ => None,
            }
        }
        PlannedWrite::Update { verb, shown } => {
            let answer = store.update(&verb.shard, &verb.expect, &verb.patch).await?;
            match verb.judge(answer, sent_before) {
                Verdict::InForce(_) => None,
                Verdict::Overwritten(lease) => Some(met(Some(&lease))),
                // A request carries no token; a row that holds it has what was wanted.
                Verdict::Refused(Some(lease)) if sent_before && verb.token().is_none() => {
                    let wanted = verb.patch.apply_to(shown).requested_by;
                    (lease.requested_by != wanted).then(|| met(Some(&lease)))
                }
                Verdict::Refused(lease) => Some(met(lease.as_ref())),
            }
        }
        PlannedWrite::Delete { shown } => match store.delete(&shown.shard, &unchanged(shown)).await? {
            Write::Applied(_) => None,
            Write::Conflict(None) if sent_before => None,
            Write::Conflict(lease) => Some(met(lease.as_ref())),
        },
        PlannedWrite::Put { item, shown, .. } => match store.put_item(item, shown.as_ref()).await? {
            ItemWrite::Applied => None,
            ItemWrite::Conflict(Some(other)) if sent_before && is_same(&other, item) => None,
            ItemWrite::Conflict(Some(_)) => Some("the row is another one now".to_owned()),
            ItemWrite::Conflict(None) => Some("the row is gone".to_owned()),
        },
    })
}

fn met(lease: Option<&Lease>) -> String {
    match lease {
        Some(lease) => format!(
            "the row is another one now: leaseCounter={} leaseOwner={} checkpoint={}",
            lease.counter,
            lease.owner.as_ref().map_or("(absent)", |owner| owner.as_str()),
            lease.checkpoint
        ),
        None => "the row is gone".to_owned(),
    }
}
