//! The lease table as it was seen: every row, as it is stored and as it is understood.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, TableDescription};
use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{ForeignRow, Lease, LeaseTable, PageToken, UnreadableRow};
use kcl_lease_dynamo::{Item, StoredRow};
use serde::Serialize;
use tokio::time::Instant;

use crate::access::{Access, patiently};
use crate::error::{CliError, CliErrorKind};

/// What the keys of lease rows are called.
const KEY: &str = "leaseKey";

/// How many rows of a table of another kind are looked at.
const SAMPLE: i32 = 3;

/// What is known of the table itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableShape {
    /// Names of the secondary indexes.
    pub indexes: BTreeSet<String>,
    /// Units a second that the table serves, read and write; none if it is on demand.
    pub provisioned: Option<(u64, u64)>,
    /// How many bytes it takes, as of the last count of the service (about every six hours).
    pub bytes: Option<u64>,
}

/// A row.
#[derive(Clone, Debug)]
pub struct TableRow {
    /// As it is stored.
    pub item: Item,
    /// As it is understood.
    pub row: StoredRow,
}

/// The rows of a lease table as one strongly consistent listing showed them.
#[derive(Clone, Debug)]
pub struct TableView {
    /// The table.
    pub table: String,
    /// What is known of the table itself; none if it may not be described.
    pub shape: Option<TableShape>,
    /// The rows, by key.
    pub rows: BTreeMap<String, TableRow>,
    /// When the listing was asked for.
    pub sent: Instant,
    /// When its answer was complete.
    pub arrived: Instant,
}

impl TableView {
    /// Arranges rows. For tests, and for files that hold a table.
    #[must_use]
    pub fn new(table: impl Into<String>, items: impl IntoIterator<Item = Item>) -> Self {
        let rows = items.into_iter().map(|item| {
            let key = item.get(KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
            let row = StoredRow::read(&item);
            (key, TableRow { item, row })
        });
        let now = Instant::now();
        Self { table: table.into(), shape: None, rows: rows.collect(), sent: now, arrived: now }
    }

    /// The leases that can be read, by key.
    #[must_use]
    pub fn leases(&self) -> LeaseTable {
        self.rows
            .values()
            .filter_map(|row| match &row.row {
                StoredRow::Lease(lease) => Some((lease.shard.clone(), Arc::new((**lease).clone()))),
                _ => None,
            })
            .collect()
    }

    /// The fleet rows.
    pub fn fleet_rows(&self) -> impl Iterator<Item = (FleetRowKey, &FleetRow)> {
        self.rows.values().filter_map(|row| match &row.row {
            StoredRow::Fleet(key, row) => Some((*key, row)),
            _ => None,
        })
    }

    /// The rows of other kinds.
    pub fn foreign(&self) -> impl Iterator<Item = &ForeignRow> {
        self.rows.values().filter_map(|row| match &row.row {
            StoredRow::Foreign(row) => Some(row),
            _ => None,
        })
    }

    /// The rows that cannot be understood.
    pub fn unreadable(&self) -> impl Iterator<Item = &UnreadableRow> {
        self.rows.values().filter_map(|row| match &row.row {
            StoredRow::Unreadable(row) => Some(row),
            _ => None,
        })
    }

    /// The streams that rows name.
    #[must_use]
    pub fn streams(&self) -> BTreeSet<String> {
        self.leases().values().filter_map(|lease| Some(lease.stream.as_ref()?.arn.clone())).collect()
    }

    /// Whether rows are of several streams, as only the Java KCL writes them: their keys are no ids of shards.
    #[must_use]
    pub fn has_several_streams(&self) -> bool {
        self.rows
            .values()
            .any(|row| matches!(row.row, StoredRow::Lease(_)) && row.item.contains_key("streamName"))
    }

    /// The lease of a key.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn lease(&self, key: &str) -> Result<&Lease, CliError> {
        let hint = "kcl leases list shows the rows there are";
        match self.rows.get(key).map(|row| &row.row) {
            Some(StoredRow::Lease(lease)) => Ok(lease),
            Some(StoredRow::Unreadable(row)) => Err(CliError::new(
                CliErrorKind::Invalid,
                format!("the row cannot be understood: key={key} reason={:?}", row.reason),
            )
            .with_hint("correct the row, or delete it: workers then create it anew, without its checkpoint")),
            Some(_) => Err(CliError::new(CliErrorKind::Missing, format!("the row is no lease: key={key}"))
                .with_hint(hint)),
            None => Err(CliError::new(CliErrorKind::Missing, format!("there is no such lease: key={key}"))
                .with_hint(hint)),
        }
    }

    /// Refuses a table that holds something, of which nothing is known to be a KCL's.
    ///
    /// # Errors
    /// If no row is a lease, a fleet row or a row of Java's coordinator.
    pub fn check_kind(&self) -> Result<(), CliError> {
        let is_known = |row: &TableRow| match &row.row {
            StoredRow::Lease(_) | StoredRow::Fleet(..) => true,
            StoredRow::Foreign(row) => crate::signs::is_entity_of_java(&row.entity_type),
            _ => false,
        };
        if self.rows.is_empty() || self.rows.values().any(is_known) {
            return Ok(());
        }
        let sample: Vec<&Item> = self.rows.values().take(SAMPLE as usize).map(|row| &row.item).collect();
        Err(foreign_table(&self.table, "its key is leaseKey, but none of its rows is a lease", &sample))
    }
}

/// A table of another kind: says what is seen of it.
fn foreign_table(table: &str, why: &str, sample: &[&Item]) -> CliError {
    let rows: Vec<String> = sample
        .iter()
        .map(|item| {
            let mut names: Vec<&str> = item.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!("{{{}}}", names.join(", "))
        })
        .collect();
    let seen =
        if rows.is_empty() { "it holds no rows".to_owned() } else { format!("rows like {}", rows.join(" ")) };
    CliError::new(CliErrorKind::ForeignTable, format!("{table} is not a lease table: {why}; {seen}"))
        .with_hint("nothing was touched; give the application's own table: --application or --table")
}

/// What the keys of a table are, if they are not those of a lease table.
fn other_key(description: &TableDescription) -> Option<String> {
    let types = description.attribute_definitions();
    let keys: Vec<String> = description
        .key_schema()
        .iter()
        .map(|key| {
            let name = key.attribute_name();
            let kind = types
                .iter()
                .find(|a| a.attribute_name() == name)
                .map_or("?", |a| a.attribute_type().as_str());
            format!("{name} ({kind}, {})", key.key_type())
        })
        .collect();
    let is_lease_key = matches!(description.key_schema(), [key]
        if key.attribute_name() == KEY && *key.key_type() == KeyType::Hash)
        && types.iter().any(|a| a.attribute_name() == KEY && *a.attribute_type() == ScalarAttributeType::S);
    (!is_lease_key).then(|| format!("its key is {}, not leaseKey (S, HASH)", keys.join(", ")))
}

fn shape(description: &TableDescription) -> TableShape {
    let units =
        |units: Option<i64>| units.and_then(|units| u64::try_from(units).ok()).filter(|units| *units > 0);
    TableShape {
        indexes: description
            .global_secondary_indexes()
            .iter()
            .filter_map(|index| index.index_name().map(str::to_owned))
            .collect(),
        provisioned: description
            .provisioned_throughput()
            .and_then(|t| Some((units(t.read_capacity_units())?, units(t.write_capacity_units())?))),
        bytes: description.table_size_bytes().and_then(|bytes| u64::try_from(bytes).ok()),
    }
}

/// Describes the table, if that is allowed, and refuses one of another kind. Reads only.
///
/// # Errors
/// If there is no table, it is of another kind, or cannot be reached.
pub(crate) async fn describe(access: &Access) -> Result<Option<TableShape>, CliError> {
    let (store, table) = (access.store()?, access.table()?);
    let description = match patiently(|| store.describe()).await {
        Ok(Some(description)) => description,
        Ok(None) => {
            return Err(CliError::new(
                CliErrorKind::Missing,
                format!("there is no table {table} in this account and region"),
            )
            .with_hint(
                "check --application (the table's default name), --table, --region and the account; workers \
                 create the table when they first start",
            ));
        }
        // What the rows are says the rest.
        Err(error) if error.kind() == CliErrorKind::Denied => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(why) = other_key(&description) {
        let sample = access.dynamodb().scan().table_name(table).limit(SAMPLE).send().await;
        let sample = sample.map(|answer| answer.items.unwrap_or_default()).unwrap_or_default();
        return Err(foreign_table(table, &why, &sample.iter().collect::<Vec<_>>()));
    }
    Ok(Some(shape(&description)))
}

/// Looks at the whole table. Reads only.
///
/// # Errors
/// If there is no table, it is of another kind, or cannot be reached.
pub(crate) async fn observe(access: &Access) -> Result<TableView, CliError> {
    let shape = describe(access).await?;
    let mut view = look(access).await?;
    view.shape = shape;
    view.check_kind()?;
    Ok(view)
}

/// Lists the rows again.
pub(crate) async fn look(access: &Access) -> Result<TableView, CliError> {
    let (store, table) = (access.store()?, access.table()?);
    let sent = Instant::now();
    let (mut items, mut next): (Vec<Item>, Option<PageToken>) = (Vec::new(), None);
    loop {
        let page = patiently(|| store.items(next.clone())).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if let Some(other) = items.iter().find(|item| !item.get(KEY).is_some_and(|key| key.is_s())) {
        return Err(foreign_table(table, "its rows have no leaseKey", &[other]));
    }
    Ok(TableView { sent, arrived: Instant::now(), ..TableView::new(table, items) })
}
