//! `export` and `import`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use kcl_core::lease::LeaseStore;
use kcl_core::model::ShardId;
use kcl_lease_dynamo::{StoredRow, TableMode, TableSettings};

use super::{evictions, judged};
use crate::access::Access;
use crate::args::ImportArgs;
use crate::backup::{Backup, plan_import};
use crate::console::Console;
use crate::error::{CliError, CliErrorKind};
use crate::execute::carry_out;
use crate::observation::Observation;
use crate::table::TableView;
use crate::text::time_text;
use crate::write::PlannedWrite;

pub(super) async fn export(
    output: Option<&Path>,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let view = Observation::of_table(access).await?.view;
    let backup = Backup::of(&view, time_text(access.now()))?;
    let mut text = serde_json::to_string_pretty(&backup)
        .map_err(|error| CliError::new(CliErrorKind::Output, "no JSON").with_source(error))?;
    text.push('\n');
    match output {
        None => console.print(&text),
        Some(path) => {
            write_whole(path, text.as_bytes())?;
            console.note(format!("{} rows of {} are in {}", backup.items.len(), view.table, path.display()))
        }
    }
}

/// Writes a file so that there is a whole one or none: a half one would look like a table with fewer rows.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(CliErrorKind::Output, format!("cannot write {}", path.display())).with_source(error)
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = std::fs::File::create(&partial).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

pub(super) async fn import(
    arguments: &ImportArgs,
    access: &Access,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let text = std::fs::read_to_string(&arguments.file).map_err(|error| {
        CliError::new(CliErrorKind::Missing, format!("cannot read {}", arguments.file.display()))
            .with_source(error)
    })?;
    let backup = Backup::parse(&text)?;
    let rows = backup.rows()?;
    let table = access.table()?;
    if backup.table != table {
        console.note(format!("note: the file was made of the table {}, not of {table}", backup.table))?;
    }
    let mut observation = match Observation::of_table(access).await {
        Err(error) if error.kind() == CliErrorKind::Missing && arguments.create_table => {
            console.note(format!("the table {table} is created, on demand"))?;
            if arguments.write.dry_run {
                let plan = plan_import(rows, &TableView::new(table, []), false, arguments.with_fleet);
                return carry_out(&access.store()?, plan.writes, Vec::new(), &arguments.write, console).await;
            }
            if !arguments.write.yes && !console.confirm()? {
                return Err(CliError::new(
                    CliErrorKind::Refused,
                    "nothing was written: it was not confirmed",
                ));
            }
            let mode = TableMode::CreateIfMissing(TableSettings::new());
            access.store()?.with_table_mode(mode).prepare().await?;
            Observation::of_table(access).await?
        }
        observation => observation?,
    };
    let plan = plan_import(rows.clone(), &observation.view, arguments.overwrite, arguments.with_fleet);
    let replaced = |plan: &crate::backup::ImportPlan, view: &TableView| -> BTreeSet<ShardId> {
        let rows = plan.writes.iter().map(PlannedWrite::row);
        rows.filter(|key| view.rows.get(key).is_some_and(|row| matches!(row.row, StoredRow::Lease(_))))
            .map(ShardId::from)
            .collect()
    };
    let shards = replaced(&plan, &observation.view);
    let mut warnings = judged(&mut observation, &shards, &arguments.write, access, console).await?;
    // What was shown is what was seen last.
    let plan = plan_import(rows, &observation.view, arguments.overwrite, arguments.with_fleet);
    if !plan.unchanged.is_empty() {
        console.note(format!("{} rows are there already, as in the file", plan.unchanged.len()))?;
    }
    if !plan.kept.is_empty() {
        warnings.push(format!(
            "{} rows are there and differ from the file; they stay as they are (--overwrite replaces them): {}",
            plan.kept.len(),
            plan.kept.join(", ")
        ));
    }
    if !plan.left_out.is_empty() {
        console.note(format!("{} fleet rows of the file are left out", plan.left_out.len()))?;
    }
    let leases = observation.view.leases();
    let mut planned =
        evictions(&observation, shards.iter().filter_map(|shard| leases.get(shard).map(|lease| &**lease)));
    planned.extend(plan.writes);
    carry_out(&access.store()?, planned, warnings, &arguments.write, console).await
}
