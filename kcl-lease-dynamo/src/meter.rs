//! Counts what calls consume.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};
use kcl_core::lease::{StoreOperation, StoreUsage};

use crate::schema::Item;
use crate::store::DynamoLeaseStore;

/// What a store and its clones have counted.
pub(crate) type Meter = Arc<Mutex<StoreUsage>>;

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0)
}

impl DynamoLeaseStore {
    pub(crate) fn count_read(&self, operation: StoreOperation, capacity: Option<&ConsumedCapacity>) {
        self.count(operation, units(capacity), 0.0);
    }

    pub(crate) fn count_write(&self, operation: StoreOperation, capacity: Option<&ConsumedCapacity>) {
        self.count(operation, 0.0, units(capacity));
    }

    /// A refused write consumes what it would have by the size of the item it met. The service does not say how much in
    /// that case, so it is computed.
    #[allow(clippy::cast_precision_loss, reason = "an item has no more than 400 KB")]
    pub(crate) fn count_refused(&self, operation: StoreOperation, item: Option<&Item>) {
        let bytes = item.map_or(1, item_bytes);
        self.count(operation, 0.0, bytes.div_ceil(1024).max(1) as f64);
    }

    fn count(&self, operation: StoreOperation, read: f64, write: f64) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).count(operation, read, write);
    }
}

/// The size of an item, by the rules of the `DynamoDB` developer guide.
pub(crate) fn item_bytes(item: &Item) -> usize {
    map_bytes(item)
}

fn map_bytes(map: &HashMap<String, AttributeValue>) -> usize {
    map.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => number_bytes(digits),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::M(map) => 3 + map.len() + map_bytes(map),
        AttributeValue::L(list) => 3 + list.len() + list.iter().map(value_bytes).sum::<usize>(),
        _ => 1,
    }
}

/// Two digits to a byte, and one more.
fn number_bytes(digits: &str) -> usize {
    digits.trim_start_matches('-').trim_matches('0').len().div_ceil(2).max(1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_documented_rules() {
        let item = HashMap::from([
            ("leaseKey".to_owned(), AttributeValue::S("shardId-000000000000".into())),
            ("leaseCounter".to_owned(), AttributeValue::N("1234".into())),
            (
                "m".to_owned(),
                AttributeValue::M(HashMap::from([("a".to_owned(), AttributeValue::S("b".into()))])),
            ),
        ]);
        assert_eq!(item_bytes(&item), (8 + 20) + (12 + 3) + (1 + 3 + 1 + 2));
    }
}
