//! De-aggregation: from one record of the stream to the user records in it.

use bytes::Bytes;

use crate::{
    error::{Damage, PlainReason, RecordFault},
    hash_key::{HashKeyRange, WrittenHashKey, partition_key_hash},
    user_records::{KeyTexts, UserRecords},
    wire::{self, Entry, Layout},
};

/// What becomes of user records whose hash key lies outside of the shard's range.
///
/// They come about when a shard is split or merged after the producer chose it for an aggregate, and when a producer
/// puts records of several shards into one aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OutOfRangePolicy {
    /// Drops every record of an aggregate that has one outside, as the Java KCL does.
    ///
    /// Loses records with a KPL of 0.15.11 or later, which sends only those outside again.
    DropAggregate,
    /// Drops the records outside and keeps the others.
    ///
    /// Right with a recent KPL; with an older one, which sends all records again, some arrive twice.
    #[default]
    DropRecord,
    /// Keeps all records, and hashes nothing. For producers that mix keys on purpose.
    Keep,
}

/// What becomes of a sound aggregate with a user record that cannot be read: an index beyond its table, or an explicit
/// hash key that is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DamagePolicy {
    /// Takes the whole aggregate as a plain record, with [`PlainReason::DamagedRecord`], so that nothing is lost.
    #[default]
    PassThrough,
    /// Keeps the records before the damaged one and drops the rest, counted, as the Java KCL does (uncounted).
    KeepPrefix,
}

/// What a record of the stream turned out to be.
#[derive(Debug, Clone)]
#[must_use]
pub enum Deaggregated {
    /// The record is to be taken as it is.
    Plain(PlainReason),
    /// The record is an aggregate of these user records (possibly none).
    Aggregate(UserRecords),
}

/// De-aggregates one record with the default [`DamagePolicy`].
///
/// `range` is the range of the shard the record was read from; `None` stands for the full range.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use kpl_aggregation::{Deaggregated, OutOfRangePolicy, PlainReason, deaggregate};
///
/// let record = Bytes::from_static(b"hello");
/// let outcome = deaggregate(&record, None, OutOfRangePolicy::default());
/// assert!(matches!(outcome, Deaggregated::Plain(PlainReason::NoMagic)));
/// ```
pub fn deaggregate(data: &Bytes, range: Option<&HashKeyRange>, policy: OutOfRangePolicy) -> Deaggregated {
    let range = range.copied().unwrap_or(HashKeyRange::FULL);
    Deaggregator::new().range(range).out_of_range(policy).deaggregate(data)
}

/// De-aggregates the records of one shard.
///
/// Holds only settings, no state: one can serve any number of records and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deaggregator {
    range: HashKeyRange,
    out_of_range: OutOfRangePolicy,
    damage: DamagePolicy,
}

impl Default for Deaggregator {
    fn default() -> Self {
        Self::new()
    }
}

impl Deaggregator {
    /// Starts with the full range, [`OutOfRangePolicy::DropRecord`] and [`DamagePolicy::PassThrough`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            range: HashKeyRange::FULL,
            out_of_range: OutOfRangePolicy::DropRecord,
            damage: DamagePolicy::PassThrough,
        }
    }

    /// Sets the range of the shard. Default: [`HashKeyRange::FULL`].
    ///
    /// Also with the full range, an explicit hash key such as `-1` or 2^128 lies outside, as in the Java KCL.
    #[must_use]
    pub const fn range(mut self, range: HashKeyRange) -> Self {
        self.range = range;
        self
    }

    /// Sets what becomes of records outside of the range. Default: [`OutOfRangePolicy::DropRecord`].
    #[must_use]
    pub const fn out_of_range(mut self, policy: OutOfRangePolicy) -> Self {
        self.out_of_range = policy;
        self
    }

    /// Sets what becomes of damaged records. Default: [`DamagePolicy::PassThrough`].
    #[must_use]
    pub const fn damage(mut self, policy: DamagePolicy) -> Self {
        self.damage = policy;
        self
    }

    /// Tells a plain record from an aggregate, and opens the aggregate.
    ///
    /// One level only: a user record that is itself an aggregate stays as it is. No payload is copied. What a policy
    /// leaves out is counted in the [`UserRecords`].
    pub fn deaggregate(&self, data: &Bytes) -> Deaggregated {
        match self.open(data) {
            Ok(records) => Deaggregated::Aggregate(records),
            Err(reason) => Deaggregated::Plain(reason),
        }
    }

    fn open(&self, data: &Bytes) -> Result<UserRecords, PlainReason> {
        let (body, mut layout) = wire::read(data)?;
        let mut entries = std::mem::take(&mut layout.entries);
        let total = entries.len() as u64;

        let mut judge = Judge::new(&body, &layout, self);
        let mut damage: Option<Damage> = None;
        let mut outside = 0_u64;
        entries.retain(|entry| {
            let aggregate_dropped = outside > 0 && self.out_of_range == OutOfRangePolicy::DropAggregate;
            // Passing damage through takes a look at every record; with the prefix rule whatever comes first
            // decides, as in the Java KCL.
            if damage.is_some() || (aggregate_dropped && self.damage == DamagePolicy::KeepPrefix) {
                return false;
            }
            match judge.is_inside(entry) {
                Ok(true) => !aggregate_dropped,
                Ok(false) => {
                    outside += 1;
                    false
                }
                Err(fault) => {
                    damage =
                        Some(Damage { sub_sequence_number: u64::from(entry.sub_sequence_number), fault });
                    false
                }
            }
        });
        if let (Some(damage), DamagePolicy::PassThrough) = (damage, self.damage) {
            return Err(PlainReason::DamagedRecord(damage));
        }
        if outside > 0 && self.out_of_range == OutOfRangePolicy::DropAggregate {
            entries.clear();
            outside = total;
        }
        let Layout { partition_keys, explicit_hash_keys, .. } = layout;
        let partition_keys = KeyTexts::new(&body, partition_keys, entries.len());
        let explicit_hash_keys = KeyTexts::new(&body, explicit_hash_keys, entries.len());
        Ok(UserRecords {
            body,
            partition_keys,
            explicit_hash_keys,
            entries: entries.into_iter(),
            total,
            dropped_out_of_range: outside,
            damage,
        })
    }
}

/// Checks user records against the tables and the range; reads and hashes each table entry at most once.
struct Judge<'a> {
    body: &'a [u8],
    layout: &'a Layout,
    range: HashKeyRange,
    keeps_all: bool,
    partition_keys: Vec<Option<bool>>,
    explicit_hash_keys: Vec<Option<WrittenHashKey>>,
}

impl<'a> Judge<'a> {
    fn new(body: &'a [u8], layout: &'a Layout, settings: &Deaggregator) -> Self {
        Self {
            body,
            layout,
            range: settings.range,
            keeps_all: settings.out_of_range == OutOfRangePolicy::Keep,
            partition_keys: Vec::new(),
            explicit_hash_keys: Vec::new(),
        }
    }

    /// Tells whether the record lies in the range, or what is wrong with it.
    #[inline]
    fn is_inside(&mut self, entry: &Entry) -> Result<bool, RecordFault> {
        let partition_keys = &self.layout.partition_keys;
        let Some(span) = partition_keys.get(entry.partition_key.place()) else {
            return Err(self.index_fault(entry));
        };
        if entry.explicit_hash_key.is_present() {
            return self.is_written_inside(entry);
        }
        if self.keeps_all || self.range.is_full() {
            return Ok(true);
        }
        self.partition_keys.resize(partition_keys.len(), None);
        let known = &mut self.partition_keys[entry.partition_key.place()];
        Ok(*known.get_or_insert_with(|| {
            let bytes = span.of(self.body);
            let hash = match std::str::from_utf8(bytes) {
                Ok(_) => partition_key_hash(bytes),
                Err(_) => partition_key_hash(wire::repaired(bytes).as_bytes()),
            };
            self.range.contains(hash)
        }))
    }

    fn is_written_inside(&mut self, entry: &Entry) -> Result<bool, RecordFault> {
        let explicit_hash_keys = &self.layout.explicit_hash_keys;
        let Some(span) = explicit_hash_keys.get(entry.explicit_hash_key.place()) else {
            return Err(self.index_fault(entry));
        };
        self.explicit_hash_keys.resize(explicit_hash_keys.len(), None);
        let known = &mut self.explicit_hash_keys[entry.explicit_hash_key.place()];
        match known.get_or_insert_with(|| WrittenHashKey::read(span.of(self.body))) {
            WrittenHashKey::NotANumber => Err(RecordFault::ExplicitHashKeyText),
            WrittenHashKey::Key(hash) => Ok(self.keeps_all || self.range.contains(*hash)),
            WrittenHashKey::Beyond => Ok(self.keeps_all),
        }
    }

    /// Tells which index of the record lies beyond its table, and what it is with all its bits.
    #[cold]
    fn index_fault(&self, entry: &Entry) -> RecordFault {
        let partition_keys = self.layout.partition_keys.len();
        let explicit_hash_keys = self.layout.explicit_hash_keys.len();
        let raw =
            wire::raw_record(self.body, entry.sub_sequence_number).expect("the message was read before");
        match raw.explicit_hash_key {
            Some(index) if entry.partition_key.place() < partition_keys => {
                RecordFault::ExplicitHashKeyIndex { index, entries: explicit_hash_keys }
            }
            _ => RecordFault::PartitionKeyIndex { index: raw.partition_key, entries: partition_keys },
        }
    }
}
