//! Fleet rows as items: encoding, decoding, and the one request each change is.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use kcl_core::fleet::{FleetEntry, FleetRow, FleetRowKey, Gave, MEMBERS_PER_ROW, MemberState};
use kcl_core::lease::{FleetChange, FleetWrite, StoreError, StoreOperation};
use kcl_core::model::{ShardId, WorkerId};

use crate::classify::Call;
use crate::meter::Counted;
use crate::schema::{self, Item, number, text};
use crate::store::DynamoLeaseStore;

/// The `entityType` of fleet rows.
pub(crate) const FLEET: &str = "FLEET";

/// The names of the attributes, of the row and of an entry.
mod name {
    pub(super) const WORKERS: &str = "workers";
    pub(super) const ROWS: &str = "rows";
    pub(super) const HEARTBEAT: &str = "hb";
    pub(super) const DURATION: &str = "d";
    pub(super) const VERSION: &str = "v";
    pub(super) const MOVES: &str = "mv";
    pub(super) const GAVE: &str = "gave";
    pub(super) const LEASES: &str = "n";
    pub(super) const LOAD: &str = "load";
    pub(super) const CPU: &str = "cpu";
    pub(super) const CAP: &str = "cap";
    pub(super) const CAP_LOAD: &str = "capLoad";
    pub(super) const HOUSEKEEPING: &str = "hk";
    pub(super) const STATE: &str = "st";
}

/// What stands for more gives than an entry can name.
const MANY: &str = "*";

/// An entry as it is stored.
fn to_value(entry: &FleetEntry) -> AttributeValue {
    let mut item = HashMap::new();
    let mut put = |name: &str, value: AttributeValue| {
        item.insert(name.to_owned(), value);
    };
    put(name::HEARTBEAT, number(entry.heartbeat));
    put(name::DURATION, number(entry.lease_duration.as_millis()));
    put(name::VERSION, number(entry.version));
    put(name::MOVES, number(entry.moves));
    put(name::LEASES, number(entry.leases));
    put(name::LOAD, number(entry.load));
    put(name::HOUSEKEEPING, number(entry.housekeeping));
    put(name::STATE, text(entry.state.as_str()));
    match &entry.gave {
        Gave::Many => put(name::GAVE, text(MANY)),
        Gave::Leases(leases) if leases.is_empty() => {}
        Gave::Leases(leases) => {
            let sets = leases.iter().filter_map(|(to, shards)| Some((to.to_string(), schema::set(shards)?)));
            put(name::GAVE, AttributeValue::M(sets.collect()));
        }
    }
    if let Some(cpu) = entry.cpu {
        put(name::CPU, number(cpu));
    }
    for (name, limit) in [(name::CAP, entry.limits.leases), (name::CAP_LOAD, entry.limits.load)] {
        if let Some(limit) = limit {
            put(name, number(limit));
        }
    }
    AttributeValue::M(item)
}

/// The number an attribute holds, if it holds one.
fn count(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn read_gave(value: Option<&AttributeValue>) -> Gave {
    match value {
        None => Gave::default(),
        Some(AttributeValue::M(sets)) => {
            let shards = |value: &AttributeValue| -> BTreeSet<ShardId> {
                value
                    .as_ss()
                    .map(|texts| texts.iter().map(|t| ShardId::from(t.as_str())).collect())
                    .unwrap_or_default()
            };
            Gave::Leases(sets.iter().map(|(to, set)| (WorkerId::new(to.clone()), shards(set))).collect())
        }
        // Whoever reads something else looks at the table itself.
        Some(_) => Gave::Many,
    }
}

/// Reads an entry. What a newer version added is passed over; without heartbeat or duration nothing can be said.
fn read_entry(value: &AttributeValue) -> Result<FleetEntry, &'static str> {
    let item = value.as_m().map_err(|_| "it is not a map")?;
    let heartbeat = count(item, name::HEARTBEAT).ok_or("hb is missing or not a number")?;
    let duration = count(item, name::DURATION).ok_or("d is missing or not a number")?;
    let state = item.get(name::STATE).and_then(|state| state.as_s().ok());
    // A state of a newer version takes nothing, as far as this one knows.
    let state = state.and_then(|state| MemberState::parse(state)).unwrap_or(MemberState::Observer);
    let mut entry = FleetEntry::new(Duration::from_millis(duration), state);
    entry.heartbeat = heartbeat;
    entry.version = count(item, name::VERSION).and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
    entry.moves = count(item, name::MOVES).unwrap_or(0);
    entry.gave = read_gave(item.get(name::GAVE));
    entry.leases = count(item, name::LEASES).unwrap_or(0);
    entry.load = count(item, name::LOAD).unwrap_or(0);
    entry.cpu = count(item, name::CPU).and_then(|cpu| u16::try_from(cpu).ok());
    entry.limits.leases = count(item, name::CAP);
    entry.limits.load = count(item, name::CAP_LOAD);
    entry.housekeeping = count(item, name::HOUSEKEEPING).unwrap_or(0);
    Ok(entry)
}

/// Reads a fleet row.
pub(crate) fn read(item: &Item) -> Result<FleetRow, String> {
    let kind = item.get(schema::name::ENTITY_TYPE).and_then(|kind| kind.as_s().ok());
    if kind.map(String::as_str) != Some(FLEET) {
        return Err(format!("the key is taken by a row of another kind: entity_type={kind:?}"));
    }
    let workers = match item.get(name::WORKERS) {
        Some(AttributeValue::M(workers)) => workers,
        _ => return Err("workers is missing or not a map".to_owned()),
    };
    let mut row = FleetRow::default();
    row.workers = workers
        .iter()
        .map(|(id, value)| match read_entry(value) {
            Ok(entry) => Ok((WorkerId::new(id.clone()), entry)),
            Err(problem) => Err(format!("the entry of {id} cannot be read: {problem}")),
        })
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    row.rows = count(item, name::ROWS).and_then(|rows| u32::try_from(rows).ok());
    Ok(row)
}

/// The item of a row without members.
fn empty(key: FleetRowKey) -> Item {
    HashMap::from([
        (schema::name::KEY.to_owned(), schema::key(&key.to_string())),
        (schema::name::ENTITY_TYPE.to_owned(), text(FLEET)),
        (name::WORKERS.to_owned(), AttributeValue::M(HashMap::new())),
    ])
}

/// Condition, update, names and values of a change that is an update.
struct Update {
    condition: &'static str,
    update: &'static str,
    worker: Option<WorkerId>,
    values: Vec<(&'static str, AttributeValue)>,
}

impl Update {
    fn of(change: &FleetChange) -> Option<Self> {
        let (condition, update, worker, values) = match change {
            FleetChange::Join { worker, entry } => (
                "#t = :t AND attribute_not_exists(#w.#x) AND size(#w) < :m",
                "SET #w.#x = :e",
                Some(worker.clone()),
                vec![(":e", to_value(entry)), (":m", number(MEMBERS_PER_ROW))],
            ),
            FleetChange::Beat { worker, entry } => (
                "#t = :t AND #w.#x.#h < :n",
                "SET #w.#x = :e",
                Some(worker.clone()),
                vec![(":e", to_value(entry)), (":n", number(entry.heartbeat))],
            ),
            FleetChange::Remove { worker, heartbeat } => (
                "#t = :t AND #w.#x.#h = :n",
                "REMOVE #w.#x",
                Some(worker.clone()),
                vec![(":n", number(heartbeat))],
            ),
            FleetChange::Rows(rows) => (
                "#t = :t AND (attribute_not_exists(#r) OR #r < :n)",
                "SET #r = :n",
                None,
                vec![(":n", number(rows))],
            ),
            _ => return None,
        };
        // A row of another kind under the key is refused, whatever it looks like.
        let values = values.into_iter().chain([(":t", text(FLEET))]).collect();
        Some(Self { condition, update, worker, values })
    }

    fn names(&self) -> HashMap<String, String> {
        let used = |alias: &str| {
            let found = |text: &str| {
                text.match_indices(alias).any(|(at, _)| {
                    !text[at + alias.len()..].starts_with(|next: char| next.is_ascii_alphanumeric())
                })
            };
            found(self.condition) || found(self.update)
        };
        let worker = self.worker.as_ref().map_or("", WorkerId::as_str);
        [
            ("#t", schema::name::ENTITY_TYPE),
            ("#w", name::WORKERS),
            ("#r", name::ROWS),
            ("#h", name::HEARTBEAT),
            ("#x", worker),
        ]
        .into_iter()
        .filter(|(alias, _)| used(alias))
        .map(|(alias, name)| (alias.to_owned(), name.to_owned()))
        .collect()
    }
}

impl DynamoLeaseStore {
    pub(crate) async fn read_fleet_row(
        &self,
        key: FleetRowKey,
        consistent: bool,
    ) -> Result<Option<FleetRow>, StoreError> {
        let item = self.read(StoreOperation::FleetRow, &key.to_string(), consistent).await?;
        let call = self.call("GetItem", &self.table);
        item.as_ref().map(|item| readable(&call, key, item)).transpose()
    }

    pub(crate) async fn write_fleet_row(
        &self,
        key: FleetRowKey,
        change: &FleetChange,
    ) -> Result<FleetWrite, StoreError> {
        match Update::of(change) {
            Some(update) => self.update_fleet_row(key, &update).await,
            None if *change == FleetChange::Create => self.create_fleet_row(key).await,
            None => self.delete_fleet_row(key).await,
        }
    }

    async fn update_fleet_row(&self, key: FleetRowKey, update: &Update) -> Result<FleetWrite, StoreError> {
        let call = self.call("UpdateItem", &self.table);
        let mut counted = self.counted(StoreOperation::ChangeFleet, &call);
        let values = update.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(schema::name::KEY, schema::key(&key.to_string()))
            .condition_expression(update.condition)
            .update_expression(update.update)
            .set_expression_attribute_names(Some(update.names()))
            .set_expression_attribute_values(Some(values.collect()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let answer = request.send().await;
        let error = match answer {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return applied(&call, key, answer.attributes());
            }
            Err(error) => error,
        };
        let Some(UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        self.refused(&call, &mut counted, key, failed.item()).await
    }

    async fn create_fleet_row(&self, key: FleetRowKey) -> Result<FleetWrite, StoreError> {
        let call = self.call("PutItem", &self.table);
        let mut counted = self.counted(StoreOperation::ChangeFleet, &call);
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(empty(key)))
            .condition_expression("attribute_not_exists(#k)")
            .expression_attribute_names("#k", schema::name::KEY)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return Ok(FleetWrite::Applied(Some(FleetRow::default())));
            }
            Err(error) => error,
        };
        let Some(PutItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        self.refused(&call, &mut counted, key, failed.item()).await
    }

    async fn delete_fleet_row(&self, key: FleetRowKey) -> Result<FleetWrite, StoreError> {
        let call = self.call("DeleteItem", &self.table);
        let mut counted = self.counted(StoreOperation::ChangeFleet, &call);
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(schema::name::KEY, schema::key(&key.to_string()))
            .condition_expression("#t = :t AND size(#w) = :none")
            .expression_attribute_names("#t", schema::name::ENTITY_TYPE)
            .expression_attribute_names("#w", name::WORKERS)
            .expression_attribute_values(":t", text(FLEET))
            .expression_attribute_values(":none", number(0))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return Ok(FleetWrite::Applied(None));
            }
            Err(error) => error,
        };
        let Some(DeleteItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        self.refused(&call, &mut counted, key, failed.item()).await
    }

    /// What a refused change met.
    async fn refused(
        &self,
        call: &Call<'_>,
        counted: &mut Counted,
        key: FleetRowKey,
        item: Option<&Item>,
    ) -> Result<FleetWrite, StoreError> {
        let item = self.conflict(call, counted, StoreOperation::FleetRow, &key.to_string(), item).await?;
        let row = item.as_ref().map(|item| readable(call, key, item)).transpose()?;
        Ok(FleetWrite::Conflict(row))
    }
}

fn readable(call: &Call<'_>, key: FleetRowKey, item: &Item) -> Result<FleetRow, StoreError> {
    read(item).map_err(|problem| call.invalid(format!("the fleet row {key} cannot be read: {problem}")))
}

/// The row that a change left.
fn applied(call: &Call<'_>, key: FleetRowKey, item: Option<&Item>) -> Result<FleetWrite, StoreError> {
    match item.map(|item| readable(call, key, item)) {
        Some(Ok(row)) => Ok(FleetWrite::Applied(Some(row))),
        Some(Err(error)) => Err(error.with_may_have_applied(true)),
        None => Err(call.invalid("written, but the answer has no row").with_may_have_applied(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::item_bytes;

    fn typical(number: u128) -> (WorkerId, FleetEntry) {
        let id = WorkerId::new(format!("i-0123456789abcdef0:00000000-0000-0000-0000-{number:012}:f3"));
        let mut entry = FleetEntry::new(Duration::from_secs(10), MemberState::Active);
        (entry.heartbeat, entry.moves, entry.leases, entry.load) = (123_456, 789, 50, 12_345_678);
        entry.cpu = Some(345);
        (id, entry)
    }

    fn stored(members: impl IntoIterator<Item = (WorkerId, FleetEntry)>) -> Item {
        let mut item = empty(FleetRowKey(3));
        let workers = members.into_iter().map(|(id, entry)| (id.to_string(), to_value(&entry))).collect();
        item.insert(name::WORKERS.to_owned(), AttributeValue::M(workers));
        item
    }

    #[test]
    fn a_full_row_of_typical_members_is_written_for_two_units() {
        let bytes = item_bytes(&stored((0..MEMBERS_PER_ROW as u128).map(typical)));
        println!("a full row: {bytes} bytes");
        assert!(bytes <= 2_048, "{bytes}");
    }

    #[test]
    fn an_entry_of_a_newer_version_is_read_as_far_as_it_is_understood() {
        let (id, entry) = typical(1);
        let mut item = stored([(id.clone(), entry)]);
        let Some(AttributeValue::M(workers)) = item.get_mut(name::WORKERS) else { unreachable!() };
        let Some(AttributeValue::M(entry)) = workers.get_mut(id.as_str()) else { unreachable!() };
        entry.insert(name::STATE.to_owned(), text("hibernating"));
        entry.insert("mood".to_owned(), text("good"));
        let read_back = read(&item).unwrap();
        assert_eq!(read_back.workers[&id].state, MemberState::Observer);
        let Some(AttributeValue::M(workers)) = item.get_mut(name::WORKERS) else { unreachable!() };
        let Some(AttributeValue::M(entry)) = workers.get_mut(id.as_str()) else { unreachable!() };
        entry.remove(name::HEARTBEAT);
        let problem = read(&item).unwrap_err();
        assert!(problem.contains(id.as_str()) && problem.contains("hb"), "{problem}");
    }
}
