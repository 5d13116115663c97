//! What is tested: a processor that adds up what each customer ordered. In a crate of your own it is in `src/`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kcl_core::{BoxError, Checkpointer, RecordBatch, RecordProcessor};

/// What was ordered, in cents, by customer and number of the order. Clones share it.
///
/// Stands for your database: delivery is at least once, so what comes twice must count once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    orders: BTreeMap<(String, u64), u64>,
    deliveries: usize,
}

impl Totals {
    fn add(&self, customer: &str, number: u64, cents: u64) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        books.orders.insert((customer.to_owned(), number), cents);
        books.deliveries += 1;
    }

    /// How many orders there are.
    pub(crate) fn orders(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).orders.len()
    }

    /// How often an order was delivered, repetitions included.
    pub(crate) fn deliveries(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).deliveries
    }

    /// What a customer ordered, in cents.
    pub(crate) fn of(&self, customer: &str) -> u64 {
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        books.orders.iter().filter(|((name, _), _)| name == customer).map(|(_, cents)| cents).sum()
    }
}

/// Adds orders up. A record's key is the customer, its payload the number of the order and the cents.
#[derive(Clone, Debug)]
pub(crate) struct Totaller {
    pub(crate) totals: Totals,
}

#[async_trait]
impl RecordProcessor for Totaller {
    async fn process_records(&mut self, batch: RecordBatch, _: &Checkpointer) -> Result<(), BoxError> {
        for record in batch.records() {
            let customer = record.partition_key().ok_or("an order without a customer")?;
            let (number, cents) =
                str::from_utf8(record.data())?.split_once(' ').ok_or("an order without cents")?;
            self.totals.add(customer, number.parse()?, cents.parse()?);
        }
        Ok(())
    }
}
