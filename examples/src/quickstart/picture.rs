use std::collections::BTreeMap;
use std::time::Duration;

use kcl_core::fleet::worker_of;
use kcl_core::{ShardId, Snapshot, Stage};

use super::ledger::{Ledger, Totals};

/// The fleet at one moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) elapsed: Duration,
    pub(super) totals: Totals,
    pub(super) rows: Vec<Row>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) shard: ShardId,
    pub(super) owner: Option<String>,
    pub(super) stage: &'static str,
    pub(super) records: usize,
    pub(super) behind: Option<Duration>,
    pub(super) ended: bool,
}

impl Picture {
    /// Puts together what the living workers show. The table of the last of them names the shards nobody works on.
    pub(super) fn of(elapsed: Duration, snapshots: &[Snapshot], ledger: &Ledger) -> Self {
        let mut rows = BTreeMap::new();
        for (shard, lease) in snapshots.iter().flat_map(|snapshot| &*snapshot.leases) {
            let owner = lease.owner.as_ref().map(|owner| worker_of(owner).to_owned());
            let owned_by_the_living =
                snapshots.iter().any(|one| owner.as_deref() == Some(one.worker.as_str()));
            let ended = lease.is_ended();
            let stage = match (&owner, owned_by_the_living) {
                _ if ended => "ended",
                (None, _) => "free",
                (Some(_), true) => "starting",
                (Some(_), false) => "its worker is dead",
            };
            let records = ledger.delivered_of(shard);
            let owner = owner.filter(|_| !ended);
            rows.insert(shard, Row { shard: shard.clone(), owner, stage, records, behind: None, ended });
        }
        for snapshot in snapshots {
            for (shard, state) in &snapshot.shards {
                let Some(row) = rows.get_mut(shard) else { continue };
                if state.report.stage == Stage::Done {
                    continue;
                }
                row.owner = Some(snapshot.worker.to_string());
                row.stage =
                    if state.handing_over_to.is_some() { "handing over" } else { name(state.report.stage) };
                row.behind = state.report.millis_behind.map(Duration::from_millis);
            }
        }
        Self { elapsed, totals: ledger.totals(), rows: rows.into_values().collect() }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::WaitingForParents => "waits for parents",
        Stage::Initializing => "initializing",
        Stage::Fetching => "reading",
        Stage::Delivering => "processing",
        Stage::Retrying => "retrying",
        Stage::Fenced => "fenced",
        Stage::Paused => "paused",
        Stage::Ending => "ending",
        Stage::Draining => "draining",
        Stage::Losing => "losing",
        Stage::Done => "done",
        _ => "other",
    }
}

/// A shard as people call it.
pub(super) fn short(shard: &ShardId) -> String {
    format!("shard {}", number(shard))
}

/// The number at the end of a shard's id, without zeros before it.
pub(super) fn number(shard: &ShardId) -> &str {
    let digits = shard.as_str().trim_start_matches("shardId-").trim_start_matches('0');
    if digits.is_empty() { "0" } else { digits }
}
