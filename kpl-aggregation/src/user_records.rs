//! The user records of one aggregate.

use std::{iter::FusedIterator, vec};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    error::Damage,
    wire::{Entry, KeyIndex, Span, text},
};

/// One record as its producer put it, taken out of an aggregate.
///
/// Key, hash key and data share the buffer of the aggregate, so a record that is kept keeps the whole aggregate in
/// memory; copy the data (`Bytes::copy_from_slice`) to keep a few of many for long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserRecord {
    /// Position in the aggregate, from 0. It does not depend on what a policy dropped, so that a checkpoint on it
    /// means the same record ever after.
    pub sub_sequence_number: u64,
    /// The partition key. What is not UTF-8 in it is replaced by U+FFFD, and only then it is a copy.
    pub partition_key: ByteString,
    /// The explicit hash key as written (`+5` and `0005` stay so), if the producer gave one.
    pub explicit_hash_key: Option<ByteString>,
    /// The data.
    pub data: Bytes,
}

/// Yields the user records of an aggregate, in their order, and tells what was left out.
///
/// `total` = records yielded in all + [`dropped_out_of_range`](Self::dropped_out_of_range) +
/// [`dropped_damaged`](Self::dropped_damaged). An aggregate may hold no records at all; the reader's position moves
/// past it all the same.
#[derive(Debug, Clone)]
pub struct UserRecords {
    pub(crate) body: Bytes,
    pub(crate) partition_keys: KeyTexts,
    pub(crate) explicit_hash_keys: KeyTexts,
    /// Only entries whose indexes are known to lie in the tables.
    pub(crate) entries: vec::IntoIter<Entry>,
    pub(crate) total: u64,
    pub(crate) dropped_out_of_range: u64,
    pub(crate) damage: Option<Damage>,
}

impl UserRecords {
    /// Returns the number of user records in the aggregate, those left out included.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Returns how many were left out because their hash key lies outside of the range.
    #[must_use]
    pub const fn dropped_out_of_range(&self) -> u64 {
        self.dropped_out_of_range
    }

    /// Returns how many were left out because they, or one before them, could not be read.
    ///
    /// Always 0 under [`DamagePolicy::PassThrough`](crate::DamagePolicy::PassThrough).
    #[must_use]
    pub fn dropped_damaged(&self) -> u64 {
        self.damage.map_or(0, |damage| self.total - damage.sub_sequence_number)
    }

    /// Returns what was wrong with the first record that could not be read, if there was one.
    ///
    /// Always `None` under [`DamagePolicy::PassThrough`](crate::DamagePolicy::PassThrough), and where
    /// [`OutOfRangePolicy::DropAggregate`](crate::OutOfRangePolicy::DropAggregate) dropped the aggregate first.
    #[must_use]
    pub const fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// Skips the records up to and including this sub-sequence number, and returns how many that were.
    ///
    /// For resuming inside an aggregate after a checkpoint.
    pub fn skip_through(&mut self, sub_sequence_number: u64) -> usize {
        let rest = self.entries.as_slice();
        let skipped =
            rest.partition_point(|entry| u64::from(entry.sub_sequence_number) <= sub_sequence_number);
        if let Some(last) = skipped.checked_sub(1) {
            self.entries.nth(last);
        }
        skipped
    }
}

impl Iterator for UserRecords {
    type Item = UserRecord;

    #[inline]
    fn next(&mut self) -> Option<UserRecord> {
        let entry = self.entries.next()?;
        let key = entry.explicit_hash_key;
        Some(UserRecord {
            sub_sequence_number: u64::from(entry.sub_sequence_number),
            partition_key: self.partition_keys.get(&self.body, entry.partition_key),
            explicit_hash_key: key.is_present().then(|| self.explicit_hash_keys.get(&self.body, key)),
            data: entry.data.share(&self.body),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for UserRecords {}
impl FusedIterator for UserRecords {}

/// The texts of a key table.
#[derive(Debug, Clone)]
pub(crate) enum KeyTexts {
    /// Where the texts lie: for keys that are used about once each, checked for UTF-8 when used.
    Spans(Vec<Span>),
    /// The texts: for keys that are used again and again, checked once.
    Checked(Vec<ByteString>),
}

/// Greatest length of a key that the service takes: 256 characters of four bytes.
const MAX_KEY_LEN: usize = 1024;

impl KeyTexts {
    /// Chooses the form by the number of records that use the table.
    ///
    /// Keys longer than any real one are checked once in any case: to check one of megabytes for each of a hundred
    /// thousand records would take minutes.
    pub(crate) fn new(body: &Bytes, spans: Vec<Span>, records: usize) -> Self {
        if records / 4 >= spans.len() || spans.iter().any(|span| span.len() > MAX_KEY_LEN) {
            Self::Checked(spans.into_iter().map(|span| text(body, span)).collect())
        } else {
            Self::Spans(spans)
        }
    }

    /// Returns a text. Entries with an index beyond its table were sorted out, so the index is a place in this table.
    #[inline]
    fn get(&self, body: &Bytes, index: KeyIndex) -> ByteString {
        match self {
            Self::Spans(spans) => text(body, spans[index.place()]),
            Self::Checked(texts) => texts[index.place()].clone(),
        }
    }
}
