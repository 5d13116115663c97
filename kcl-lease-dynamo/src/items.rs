//! Rows as they are stored, for tools that show, copy and restore whole tables.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{ForeignRow, Lease, PageToken, StoreError, StoreOperation, UnreadableRow};

use crate::fleet;
use crate::schema::{self, Row, name};
use crate::store::DynamoLeaseStore;

/// A row with every attribute it has, known or not.
pub type Item = HashMap<String, AttributeValue>;

/// A page of rows as they are stored.
#[derive(Clone, Debug, Default)]
pub struct ItemPage {
    /// The rows.
    pub items: Vec<Item>,
    /// Where the next page begins; none on the last.
    pub next: Option<PageToken>,
}

/// What a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoredRow {
    /// A lease.
    Lease(Box<Lease>),
    /// A fleet row, in which members of a fleet tell of themselves.
    Fleet(FleetRowKey, FleetRow),
    /// A row of another kind.
    Foreign(ForeignRow),
    /// A row that is meant to be a lease or a fleet row and cannot be understood.
    Unreadable(UnreadableRow),
}

impl StoredRow {
    /// Reads a row of any kind.
    #[must_use]
    pub fn read(item: &Item) -> Self {
        let foreign = match schema::read(item) {
            Row::Lease(lease) => return Self::Lease(lease),
            Row::Unreadable(row) => return Self::Unreadable(row),
            Row::Foreign(row) => row,
        };
        match FleetRowKey::parse(&foreign.key) {
            Some(key) if foreign.entity_type == fleet::FLEET => match fleet::read(item) {
                Ok(row) => Self::Fleet(key, row),
                Err(reason) => Self::Unreadable(UnreadableRow { key: foreign.key, reason }),
            },
            _ => Self::Foreign(foreign),
        }
    }
}

/// The outcome of a conditional write of a whole row.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub enum ItemWrite {
    /// The row is stored.
    Applied,
    /// The row that is there is not the one that was expected, and stays as it is.
    Conflict(Option<Item>),
}

/// The condition that a row still has every attribute of `shown`, with names and values for it.
fn unchanged(shown: &Item) -> (String, HashMap<String, String>, Item) {
    let mut attributes: Vec<_> = shown.iter().collect();
    attributes.sort_by_key(|(name, _)| *name);
    let (mut clauses, mut names, mut values) = (Vec::new(), HashMap::new(), Item::new());
    for (index, (name, value)) in attributes.into_iter().enumerate() {
        clauses.push(format!("#a{index} = :v{index}"));
        names.insert(format!("#a{index}"), name.clone());
        values.insert(format!(":v{index}"), value.clone());
    }
    (clauses.join(" AND "), names, values)
}

impl DynamoLeaseStore {
    /// Returns a page of rows as they are stored, of every kind; reads strongly consistent.
    ///
    /// # Errors
    /// Those of [`LeaseStore::list`](kcl_core::lease::LeaseStore::list).
    pub async fn items(&self, page: Option<PageToken>) -> Result<ItemPage, StoreError> {
        let (answer, next) = self.scan(page, true).await?;
        Ok(ItemPage { items: answer.items.unwrap_or_default(), next })
    }

    /// Stores a row whole: where there is none, or in place of one that is still as it was `shown`.
    ///
    /// Attributes that were added since are not noticed and lost, so a row of a running application is to be changed
    /// by [`LeaseStore::update`](kcl_core::lease::LeaseStore::update) instead.
    ///
    /// # Errors
    /// Those of [`LeaseStore::create`](kcl_core::lease::LeaseStore::create). A repeat of a write that may have been
    /// applied meets its own row.
    pub async fn put_item(&self, item: &Item, shown: Option<&Item>) -> Result<ItemWrite, StoreError> {
        let call = self.call("PutItem", &self.table);
        let mut counted = self.counted(StoreOperation::Create, &call);
        let (condition, names, values) = match shown {
            Some(shown) => unchanged(shown),
            None => {
                let names = HashMap::from([("#k".to_owned(), name::KEY.to_owned())]);
                ("attribute_not_exists(#k)".to_owned(), names, Item::new())
            }
        };
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values((!values.is_empty()).then_some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return Ok(ItemWrite::Applied);
            }
            Err(error) => error,
        };
        let Some(PutItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        let Some(AttributeValue::S(key)) = item.get(name::KEY) else {
            return Ok(ItemWrite::Conflict(None));
        };
        let met = self.conflict(&call, &mut counted, StoreOperation::Get, key, failed.item()).await?;
        Ok(ItemWrite::Conflict(met))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{number, text};

    #[test]
    fn rows_of_every_kind_are_told_apart() {
        let item = |attributes: &[(&str, AttributeValue)]| -> Item {
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let fleet = [
            ("leaseKey", text("kcl:fleet:3")),
            ("entityType", text("FLEET")),
            ("workers", AttributeValue::M(Item::new())),
        ];
        assert_eq!(StoredRow::read(&item(&fleet)), StoredRow::Fleet(FleetRowKey(3), FleetRow::default()));
        assert!(
            matches!(StoredRow::read(&item(&fleet[..2])), StoredRow::Unreadable(row) if row.key == "kcl:fleet:3")
        );
        let leader = [("leaseKey", text("Leader")), ("entityType", text("LEADER"))];
        assert!(
            matches!(StoredRow::read(&item(&leader)), StoredRow::Foreign(row) if row.entity_type == "LEADER")
        );
        let lease = [
            ("leaseKey", text("shardId-0")),
            ("leaseCounter", number(1)),
            ("ownerSwitchesSinceCheckpoint", number(0)),
            ("checkpoint", text("LATEST")),
        ];
        assert!(matches!(StoredRow::read(&item(&lease)), StoredRow::Lease(lease) if lease.counter == 1));
    }

    #[test]
    fn the_condition_names_every_attribute() {
        let shown = Item::from([("b".to_owned(), number(1)), ("a".to_owned(), text("x"))]);
        let (condition, names, values) = unchanged(&shown);
        assert_eq!(condition, "#a0 = :v0 AND #a1 = :v1");
        assert_eq!((names["#a0"].as_str(), &values[":v1"]), ("a", &number(1)));
    }
}
