//! Counts what calls consume.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};
use kcl_core::lease::{StoreOperation, StoreUsage};

use crate::classify::Call;
use crate::client::Witness;
use crate::schema::Item;
use crate::store::DynamoLeaseStore;

/// What a store and its clones have counted.
pub(crate) type Meter = Arc<Mutex<StoreUsage>>;

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0)
}

/// A request that is being made: counted when this is dropped, also if the call is given up, if it was sent.
#[derive(Debug)]
pub(crate) struct Counted {
    meter: Meter,
    operation: StoreOperation,
    witness: Witness,
    read: f64,
    write: f64,
}

impl Counted {
    /// What the service says a read consumed.
    pub(crate) fn read(&mut self, capacity: Option<&ConsumedCapacity>) {
        self.read = units(capacity);
    }

    /// What the service says a write consumed.
    pub(crate) fn wrote(&mut self, capacity: Option<&ConsumedCapacity>) {
        self.write = units(capacity);
    }

    /// A refused write consumes what it would have by the size of the item it met. The service does not say how much in
    /// that case, so it is computed.
    #[allow(clippy::cast_precision_loss, reason = "an item has no more than 400 KB")]
    pub(crate) fn refused(&mut self, item: Option<&Item>) {
        self.write = item.map_or(0, item_bytes).div_ceil(1024).max(1) as f64;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.witness.saw_it_sent() {
            let mut usage = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
            usage.count(self.operation, self.read, self.write);
        }
    }
}

impl DynamoLeaseStore {
    /// Begins to count the request of a call.
    pub(crate) fn counted(&self, operation: StoreOperation, call: &Call<'_>) -> Counted {
        let (meter, witness) = (Arc::clone(&self.meter), call.witness.clone());
        Counted { meter, operation, witness, read: 0.0, write: 0.0 }
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
        AttributeValue::Ns(numbers) => numbers.iter().map(|digits| number_bytes(digits)).sum(),
        AttributeValue::Bs(sets) => sets.iter().map(|bytes| bytes.as_ref().len()).sum(),
        _ => 1,
    }
}

/// Two significant digits to a byte, on each side of the point; one more, and one for the sign.
fn number_bytes(digits: &str) -> usize {
    let magnitude = digits.trim_start_matches('-');
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let (mut whole, mut fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if fraction.is_empty() {
        whole = whole.trim_end_matches('0');
    } else if whole.is_empty() {
        fraction = fraction.trim_start_matches('0');
    }
    let sign = usize::from(digits.starts_with('-'));
    whole.len().div_ceil(2) + fraction.len().div_ceil(2) + 1 + sign
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
    #[test]
    fn a_number_takes_a_byte_for_two_digits_that_count() {
        for (digits, bytes) in
            [("0", 1), ("7", 2), ("-42", 3), ("1000", 2), ("1001", 3), ("12.345678", 5), ("0.001", 2)]
        {
            assert_eq!(number_bytes(digits), bytes, "{digits}");
        }
    }
}
