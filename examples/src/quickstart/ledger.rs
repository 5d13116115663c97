use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kcl_core::model::Checkpoint;
use kcl_core::{Position, Record, ShardId, WorkerId};

/// A record as the producer makes it: the next number of its partition key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Numbered {
    pub(super) key: String,
    pub(super) number: usize,
}

impl Numbered {
    /// The payload. It repeats the key, so that a record with another's key does not go unnoticed.
    pub(super) fn payload(&self) -> String {
        format!("{} {}", self.key, self.number)
    }

    /// Reads a record back; nothing if it is not what a producer wrote.
    pub(super) fn read(record: &Record) -> Option<Self> {
        let text = std::str::from_utf8(record.data()).ok()?;
        let (key, number) = text.rsplit_once(' ')?;
        let numbered = Self { key: key.to_owned(), number: number.parse().ok()? };
        (record.partition_key() == Some(key)).then_some(numbered)
    }
}

/// Who put and who got what, record by record. Clones share the books.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    keys: BTreeMap<String, Vec<Entry>>,
    /// Every place from which a record was delivered.
    places: BTreeMap<ShardId, BTreeSet<Position>>,
    /// Deliveries, repeated ones too.
    by_worker: BTreeMap<WorkerId, u64>,
    put: u64,
    aggregated: u64,
    delivered: u64,
    duplicates: u64,
    out_of_order: u64,
    unreadable: u64,
    awaited: u64,
}

/// What is known of one number of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    put: bool,
    delivered: bool,
}

impl Books {
    fn entry(&mut self, record: &Numbered) -> &mut Entry {
        let entries = self.keys.entry(record.key.clone()).or_default();
        if entries.len() <= record.number {
            entries.resize(record.number + 1, Entry::default());
        }
        &mut entries[record.number]
    }
}

/// The totals while the scenario runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) put: u64,
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    /// Put, and not delivered yet.
    pub(super) awaited: u64,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the stream acknowledged a record.
    pub(super) fn note_put(&self, record: &Numbered, aggregated: bool) {
        let mut books = self.books();
        let entry = books.entry(record);
        let first = !std::mem::replace(&mut entry.put, true);
        let awaited = !entry.delivered;
        books.put += u64::from(first);
        books.aggregated += u64::from(first && aggregated);
        books.awaited += u64::from(first && awaited);
    }

    /// Notes that a processor was given a record, or something that is none of ours.
    pub(super) fn note_delivery(
        &self,
        worker: &WorkerId,
        shard: &ShardId,
        position: Position,
        record: Option<Numbered>,
    ) {
        let mut books = self.books();
        *books.by_worker.entry(worker.clone()).or_default() += 1;
        books.places.entry(shard.clone()).or_default().insert(position);
        let Some(numbered) = record else {
            books.unreadable += 1;
            return;
        };
        let entry = books.entry(&numbered);
        let first = !std::mem::replace(&mut entry.delivered, true);
        let put = entry.put;
        // A repeat of what was delivered is a duplicate, whatever came between. A number that was never delivered
        // must not come after a higher one.
        let overtaken = first
            && books.keys[&numbered.key].iter().skip(numbered.number + 1).any(|higher| higher.delivered);
        books.duplicates += u64::from(!first);
        books.out_of_order += u64::from(overtaken);
        books.delivered += u64::from(first);
        books.awaited -= u64::from(first && put);
    }

    pub(super) fn totals(&self) -> Totals {
        let books = self.books();
        Totals {
            put: books.put,
            delivered: books.delivered,
            duplicates: books.duplicates,
            awaited: books.awaited,
        }
    }

    /// How many different records of the shard were delivered.
    pub(super) fn delivered_of(&self, shard: &ShardId) -> usize {
        self.books().places.get(shard).map_or(0, BTreeSet::len)
    }

    /// Closes the books over the checkpoints that are stored in the end.
    pub(super) fn close(&self, checkpoints: &BTreeMap<ShardId, Checkpoint>, clean_shutdown: bool) -> Account {
        let books = self.books();
        let covered = |shard: &ShardId, places: &BTreeSet<Position>| match checkpoints.get(shard) {
            Some(Checkpoint::ShardEnd) => places.len(),
            Some(Checkpoint::At(position)) => places.range(..=*position).count(),
            _ => 0,
        };
        let places: usize = books.places.values().map(BTreeSet::len).sum();
        let checkpointed: usize = books.places.iter().map(|(shard, places)| covered(shard, places)).sum();
        Account {
            put: books.put,
            aggregated: books.aggregated,
            delivered: books.delivered,
            duplicates: books.duplicates,
            out_of_order: books.out_of_order,
            unreadable: books.unreadable,
            lost: books.awaited,
            checkpointed: checkpointed as u64,
            not_checkpointed: (places - checkpointed) as u64,
            shards: books.places.len(),
            deliveries: books.by_worker.iter().map(|(worker, count)| (worker.to_string(), *count)).collect(),
            clean_shutdown,
        }
    }
}

/// The closed books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// User records the stream acknowledged.
    pub put: u64,
    /// Those of them that were put inside KPL aggregates.
    pub aggregated: u64,
    /// Different user records delivered.
    pub delivered: u64,
    /// Deliveries of a record that had been delivered before.
    pub duplicates: u64,
    /// First deliveries of a number after a higher one of the same key.
    pub out_of_order: u64,
    /// Records that are not what the producer wrote.
    pub unreadable: u64,
    /// User records put and never delivered.
    pub lost: u64,
    /// Delivered records that a stored checkpoint covers.
    pub checkpointed: u64,
    /// Delivered records that none covers.
    pub not_checkpointed: u64,
    /// Shards from which records were delivered.
    pub shards: usize,
    /// Deliveries by worker, repeated ones too.
    pub deliveries: BTreeMap<String, u64>,
    /// Whether the last worker released every lease in order.
    pub clean_shutdown: bool,
}

impl Account {
    /// What is wrong with it, in words; nothing if all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = [
            (self.put == 0, "nothing was put".to_owned()),
            (self.lost > 0, format!("{} records are lost", self.lost)),
            (self.out_of_order > 0, format!("{} records came out of order", self.out_of_order)),
            (self.unreadable > 0, format!("{} records are not what was put", self.unreadable)),
            (self.not_checkpointed > 0, format!("{} records are not checkpointed", self.not_checkpointed)),
            (!self.clean_shutdown, "the last shutdown was not clean".to_owned()),
        ];
        problems.into_iter().filter(|(is, _)| *is).map(|(_, problem)| problem).collect()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_worker: Vec<_> = self.deliveries.iter().map(|(who, count)| format!("{who} {count}")).collect();
        let again = if self.duplicates > 0 { "delivered again after the kill" } else { "" };
        for (name, count, remark) in [
            ("put", self.put, format!("{} of them in KPL aggregates", self.aggregated)),
            ("delivered", self.delivered, format!("from {} shards; {}", self.shards, by_worker.join(", "))),
            ("duplicates", self.duplicates, again.to_owned()),
            ("out of order", self.out_of_order, String::new()),
            ("lost", self.lost, String::new()),
            ("checkpointed", self.checkpointed, String::new()),
        ] {
            writeln!(f, "{}", format!("  {name:<13}{count:>9}  {remark}").trim_end())?;
        }
        match self.problems().as_slice() {
            [] => f.write_str("Nothing lost, order per key held, everything checkpointed."),
            problems => write!(f, "NOT AS PROMISED: {}.", problems.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sensor-1";

    fn numbered(number: usize) -> Numbered {
        Numbered { key: KEY.to_owned(), number }
    }

    fn at(place: u64) -> Position {
        Position::new(place.into(), 0)
    }

    /// Books in which `put` numbers are acknowledged and `delivered` are given out in this order.
    fn account(put: usize, delivered: &[usize]) -> Account {
        let ledger = Ledger::default();
        for number in 0..put {
            ledger.note_put(&numbered(number), number % 2 == 1);
        }
        let shard = ShardId::from("shardId-000000000000");
        for &number in delivered {
            ledger.note_delivery(&"A".into(), &shard, at(number as u64), Some(numbered(number)));
        }
        ledger.close(&BTreeMap::from([(shard, Checkpoint::ShardEnd)]), true)
    }

    #[test]
    fn a_complete_delivery_has_no_problems() {
        let account = account(4, &[0, 1, 2, 3]);
        assert_eq!(account.problems(), Vec::<String>::new());
        assert_eq!((account.put, account.aggregated, account.checkpointed), (4, 2, 4));
    }

    #[test]
    fn a_record_never_delivered_is_lost() {
        let account = account(4, &[0, 1, 3]);
        assert_eq!((account.lost, account.delivered), (1, 3));
        assert_eq!(account.problems().len(), 1);
    }

    #[test]
    fn a_number_after_a_higher_one_is_out_of_order() {
        let account = account(4, &[0, 2, 1, 3]);
        assert_eq!((account.out_of_order, account.duplicates, account.lost), (1, 0, 0));
        assert_eq!(account.problems().len(), 1);
    }

    #[test]
    fn going_back_over_what_was_delivered_is_duplicates_only() {
        let account = account(4, &[0, 1, 2, 1, 2, 3]);
        assert_eq!((account.out_of_order, account.duplicates, account.delivered), (0, 2, 4));
        assert_eq!(account.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_checkpoint_covers_what_is_at_or_before_it() {
        let ledger = Ledger::default();
        let shard = ShardId::from("shardId-000000000000");
        for number in 0..3 {
            ledger.note_put(&numbered(number), false);
            ledger.note_delivery(&"A".into(), &shard, at(number as u64), Some(numbered(number)));
        }
        let closed = |checkpoint| ledger.close(&BTreeMap::from([(shard.clone(), checkpoint)]), true);
        assert_eq!(closed(Checkpoint::At(at(1))).checkpointed, 2);
        assert_eq!(closed(Checkpoint::At(at(1))).not_checkpointed, 1);
        assert_eq!(closed(Checkpoint::TrimHorizon).not_checkpointed, 3);
        assert_eq!(ledger.close(&BTreeMap::new(), true).problems().len(), 1);
    }

    #[test]
    fn a_record_that_is_none_of_ours_is_a_problem() {
        let ledger = Ledger::default();
        ledger.note_put(&numbered(0), false);
        let shard = ShardId::from("shardId-000000000000");
        ledger.note_delivery(&"A".into(), &shard, at(0), Some(numbered(0)));
        ledger.note_delivery(&"A".into(), &shard, at(1), None);
        let account = ledger.close(&BTreeMap::from([(shard, Checkpoint::ShardEnd)]), true);
        assert_eq!((account.unreadable, account.problems().len()), (1, 1));
    }

    #[test]
    fn a_delivery_may_be_noted_before_the_answer_to_its_put() {
        let ledger = Ledger::default();
        ledger.note_delivery(&"A".into(), &"shardId-0".into(), at(0), Some(numbered(0)));
        ledger.note_put(&numbered(0), false);
        assert_eq!(ledger.totals(), Totals { put: 1, delivered: 1, duplicates: 0, awaited: 0 });
    }
}
