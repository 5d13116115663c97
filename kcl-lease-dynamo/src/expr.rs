//! Expectations and patches as DynamoDB expressions.

#![allow(clippy::disallowed_types, reason = "the SDK takes maps of this type")]

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use kcl_core::lease::{Change, Expectation, OwnerExpectation, OwnerSwitches, Patch};

use crate::schema::{self, Item, LEASE, name};

/// A condition, perhaps an update, and the names and values they refer to.
///
/// Every attribute is named by a placeholder, so that no name can collide with a reserved word. An attribute
/// `x` is `#x`, the value it is set to `:x`, the value it is compared with `:expected_x`.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, AttributeValue>,
    conditions: Vec<String>,
    sets: Vec<String>,
    removes: Vec<String>,
    adds: Vec<String>,
}

impl Expression {
    /// The condition that no row with the key exists.
    pub(crate) fn no_row() -> Self {
        let mut expression = Self::default();
        let key = expression.name(name::KEY);
        expression.conditions.push(format!("attribute_not_exists({key})"));
        expression
    }

    /// The condition that the row is a lease and meets `expect`.
    pub(crate) fn expecting(expect: &Expectation) -> Self {
        let mut expression = Self::default();
        expression.expect(expect);
        expression
    }

    /// As [`expecting`](Self::expecting), and the update that `patch` asks for.
    pub(crate) fn patching(expect: &Expectation, patch: &Patch) -> Self {
        let mut expression = Self::expecting(expect);
        expression.patch(patch);
        expression
    }

    pub(crate) fn condition(&self) -> String {
        self.conditions.join(" AND ")
    }

    /// The update; none if nothing is to be changed.
    pub(crate) fn update(&self) -> Option<String> {
        let clauses: Vec<_> = [("SET", &self.sets), ("REMOVE", &self.removes), ("ADD", &self.adds)]
            .into_iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(clause, parts)| format!("{clause} {}", parts.join(", ")))
            .collect();
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    pub(crate) fn names(&self) -> HashMap<String, String> {
        self.names.clone().into_iter().collect()
    }

    /// The values; none if the expressions refer to none, because DynamoDB refuses an empty map.
    pub(crate) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone().into_iter().collect())
    }

    fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#{attribute}");
        self.names.insert(placeholder.clone(), attribute.to_owned());
        placeholder
    }

    fn equals(&mut self, attribute: &str, value: AttributeValue) -> String {
        let name = self.name(attribute);
        let placeholder = format!(":expected_{attribute}");
        self.values.insert(placeholder.clone(), value);
        format!("{name} = {placeholder}")
    }

    fn absent(&mut self, attribute: &str) -> String {
        let name = self.name(attribute);
        format!("attribute_not_exists({name})")
    }

    fn absent_or(&mut self, attribute: &str, value: AttributeValue) -> String {
        format!("({} OR {})", self.absent(attribute), self.equals(attribute, value))
    }

    fn expect(&mut self, expect: &Expectation) {
        let key = self.name(name::KEY);
        self.conditions.push(format!("attribute_exists({key})"));
        let is_lease = self.absent_or(name::ENTITY_TYPE, schema::text(LEASE));
        self.conditions.push(is_lease);

        let mut conditions = Vec::new();
        if let Some(counter) = expect.counter {
            conditions.push(self.equals(name::COUNTER, schema::number(counter)));
        }
        match &expect.owner {
            OwnerExpectation::Any => {}
            OwnerExpectation::Absent => conditions.push(self.absent(name::OWNER)),
            OwnerExpectation::Is(owner) => {
                conditions.push(self.equals(name::OWNER, schema::text(owner.as_str())));
            }
        }
        if let Some(checkpoint) = expect.checkpoint {
            let [(sequence_name, sequence), (sub_name, sub_sequence)] = schema::checkpoint(checkpoint);
            conditions.push(self.equals(sequence_name, sequence));
            // A missing sub-sequence number reads as 0, and beside a sentinel it means nothing.
            match checkpoint.position() {
                Some(position) if position.sub_sequence == 0 => {
                    conditions.push(self.absent_or(sub_name, sub_sequence));
                }
                Some(_) => conditions.push(self.equals(sub_name, sub_sequence)),
                None => {}
            }
        }
        if let Some(me) = &expect.unrequested_but_by {
            conditions.push(self.absent_or(name::REQUEST, schema::text(me.as_str())));
        }
        self.conditions.extend(conditions);
    }

    fn set(&mut self, attribute: &str, value: AttributeValue) {
        let name = self.name(attribute);
        let placeholder = format!(":{attribute}");
        self.sets.push(format!("{name} = {placeholder}"));
        self.values.insert(placeholder, value);
    }

    fn remove(&mut self, attribute: &str) {
        let name = self.name(attribute);
        self.removes.push(name);
    }

    fn set_or_remove(&mut self, attribute: &str, value: Option<AttributeValue>) {
        match value {
            Some(value) => self.set(attribute, value),
            None => self.remove(attribute),
        }
    }

    fn change<T: AsRef<str>>(&mut self, attribute: &str, change: &Change<T>) {
        match change {
            Change::Keep => {}
            Change::Set(value) => self.set(attribute, schema::text(value.as_ref())),
            Change::Remove => self.remove(attribute),
        }
    }

    fn patch(&mut self, patch: &Patch) {
        if let Some(counter) = patch.counter {
            self.set(name::COUNTER, schema::number(counter));
        }
        self.change(name::OWNER, &patch.owner);
        for (name, value) in patch.checkpoint.map(schema::checkpoint).into_iter().flatten() {
            self.set(name, value);
        }
        match patch.start_timestamp {
            Change::Keep => {}
            Change::Set(at) => self.set(name::START_TIMESTAMP, schema::millis(at)),
            Change::Remove => self.remove(name::START_TIMESTAMP),
        }
        match &patch.pending {
            Change::Keep => {}
            Change::Set(pending) => {
                self.set(name::PENDING, schema::text(pending.position.sequence.to_string()));
                self.set(name::PENDING_SUB, schema::number(pending.position.sub_sequence));
                self.set_or_remove(name::PENDING_STATE, pending.state.as_ref().map(schema::bytes));
            }
            Change::Remove => {
                for attribute in [name::PENDING, name::PENDING_SUB, name::PENDING_STATE] {
                    self.remove(attribute);
                }
            }
        }
        match patch.owner_switches {
            OwnerSwitches::Keep => {}
            OwnerSwitches::Increment => {
                let name = self.name(name::OWNER_SWITCHES);
                self.values.insert(":one".to_owned(), schema::number(1));
                self.adds.push(format!("{name} :one"));
            }
            OwnerSwitches::Reset => self.set(name::OWNER_SWITCHES, schema::number(0)),
            OwnerSwitches::Set(switches) => self.set(name::OWNER_SWITCHES, schema::number(switches)),
        }
        if let Some(children) = &patch.children {
            self.set_or_remove(name::CHILDREN, schema::set(children));
        }
        for (name, value) in patch.hash_key_range.map(schema::hash_keys).into_iter().flatten() {
            self.set(name, value);
        }
        if let Some(token) = patch.token {
            self.set(name::TOKEN, schema::text(token.to_string()));
        }
        self.change(name::REQUEST, &patch.requested_by);
        if patch.clear_checkpoint_owner {
            self.remove(name::CHECKPOINT_OWNER);
        }
    }
}

#[cfg(test)]
mod tests;
