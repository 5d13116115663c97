//! What is wrong with a lease table, for a person or for a job that runs each hour. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::console::Columns;
use crate::coverage::Gap;
use crate::signs::Signs;
use crate::status::{Problem, Seen, Stage, Status, problems_text};

/// The outcome of an audit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Audit {
    /// The lease table.
    pub table: String,
    /// The stream's ARN, if it is known.
    pub stream: Option<String>,
    /// Whose table it is, and what shows it.
    pub fleet: Signs,
    /// How many rows of each kind there are: `lease`, `fleet`, `unreadable`, and foreign ones by their `entityType`.
    pub rows: BTreeMap<String, usize>,
    /// How many shards and leases are in each stage.
    pub stages: BTreeMap<String, usize>,
    /// Hash keys that nobody works on.
    pub holes: Vec<Gap>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Audit {
    /// Makes the report.
    #[must_use]
    pub fn of(seen: &Seen<'_>) -> Self {
        let status = Status::of(seen);
        let mut rows: BTreeMap<String, usize> = BTreeMap::new();
        rows.insert("lease".into(), seen.view.leases().len());
        rows.insert("fleet".into(), seen.view.fleet_rows().count());
        rows.insert("unreadable".into(), seen.view.unreadable().count());
        for row in seen.view.foreign() {
            *rows.entry(row.entity_type.clone()).or_default() += 1;
        }
        let mut stages: BTreeMap<String, usize> = BTreeMap::new();
        for shard in &status.shards {
            *stages.entry(shard.stage.to_string()).or_default() += 1;
        }
        let mut notes = status.notes;
        if status.shards.iter().any(|shard| shard.stage == Stage::Free) {
            notes.push("free leases are taken within seconds by workers that run".into());
        }
        Self {
            table: status.table,
            stream: status.stream,
            fleet: status.fleet,
            rows,
            stages,
            holes: status.holes,
            problems: status.problems,
            notes,
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {}: {}", self.table, self.fleet.kind)?;
        for evidence in &self.fleet.evidence {
            writeln!(f, "  {evidence}")?;
        }
        if let Some(stream) = &self.stream {
            writeln!(f, "stream {stream}")?;
        }
        for (heading, counts) in [("ROWS", &self.rows), ("STAGE", &self.stages)] {
            let mut columns = Columns::headed([heading, "COUNT"]);
            for (kind, count) in counts.iter().filter(|(_, count)| **count > 0) {
                columns.row([kind.clone(), count.to_string()]);
            }
            write!(f, "\n{columns}")?;
        }
        if self.stream.is_some() && self.holes.is_empty() {
            writeln!(f, "\nunfinished leases cover every hash key")?;
        }
        problems_text(f, &self.problems)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
