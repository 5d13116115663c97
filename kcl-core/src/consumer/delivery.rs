//! From answers of the source to batches for the processor.
//!
//! De-aggregates lazily, one batch at a time. Payloads are slices of the buffers they arrived in.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use std::vec;

use kpl_aggregation::{Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy, UserRecords};

use super::budget::Reservation;
use crate::model::{Position, Record, SequenceNumber, SourceRecord};
use crate::settings::{OutOfRange, Settings};
use crate::source::{SourceBatch, SourceEnd};

/// One answer of the source, with the budget it takes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) batch: SourceBatch,
    pub(super) reservation: Reservation,
}

/// The next records for the processor, and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) records: Vec<Record>,
    /// The payloads of the records.
    pub(super) bytes: usize,
    /// How far the shard is processed once the records are. Also set without records, if what there was had
    /// nothing to deliver.
    pub(super) cover: Option<Position>,
    pub(super) behind: Option<Duration>,
    /// The answers that are used up. They free their budget on drop.
    pub(super) spent: Vec<Reservation>,
    /// User records dropped because they belong to other shards.
    pub(super) out_of_range: u64,
    /// Records that look like aggregates and are damaged.
    pub(super) damaged: Vec<(Position, String)>,
    /// The first record read, if it shows that the record of the checkpoint is gone.
    pub(super) hole_before: Option<SequenceNumber>,
}

#[derive(Debug)]
struct Opened {
    records: vec::IntoIter<SourceRecord>,
    behind: Option<Duration>,
    end: Option<SourceEnd>,
    reservation: Reservation,
}

#[derive(Debug)]
struct Aggregate {
    sequence: SequenceNumber,
    arrival: Option<SystemTime>,
    records: UserRecords,
    /// The position of its last user record, dropped ones included.
    last: Position,
}

/// Cuts answers into batches.
#[derive(Debug)]
pub(super) struct Delivery {
    deaggregator: Deaggregator,
    max_records: usize,
    max_bytes: usize,
    /// Everything up to here was processed before.
    resume: Option<Position>,
    /// The last record taken from an answer.
    last: Option<SequenceNumber>,
    answers: VecDeque<Opened>,
    aggregate: Option<Aggregate>,
    /// A record that did not fit the last batch.
    held: Option<Record>,
    end: Option<SourceEnd>,
}

impl Delivery {
    pub(super) fn new(settings: &Settings, range: Option<HashKeyRange>, resume: Option<Position>) -> Self {
        let policy = match settings.out_of_range {
            OutOfRange::DropRecord => OutOfRangePolicy::DropRecord,
            OutOfRange::DropAggregate => OutOfRangePolicy::DropAggregate,
            OutOfRange::Keep => OutOfRangePolicy::Keep,
        };
        Self {
            deaggregator: Deaggregator::new().range(range.unwrap_or(HashKeyRange::FULL)).out_of_range(policy),
            max_records: settings.batch_records,
            max_bytes: settings.batch_bytes,
            resume,
            last: None,
            answers: VecDeque::new(),
            aggregate: None,
            held: None,
            end: None,
        }
    }

    pub(super) fn push(&mut self, answer: Answer) {
        let SourceBatch { records, behind, end } = answer.batch;
        self.answers.push_back(Opened {
            records: records.into_iter(),
            behind,
            end,
            reservation: answer.reservation,
        });
    }

    /// Whether there is nothing left to cut.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.aggregate.is_none() && self.held.is_none()
    }

    /// Whether the answers at hand can fill a batch.
    pub(super) fn fills_a_batch(&self) -> bool {
        let records: usize = self.answers.iter().map(|answer| answer.records.len()).sum();
        let bytes: usize = self.answers.iter().map(|answer| answer.reservation.bytes()).sum();
        records >= self.max_records || bytes >= self.max_bytes
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        (self.aggregate, self.held, self.end) = (None, None, None);
    }

    /// The end of the shard, once everything before it is cut.
    pub(super) fn take_end(&mut self) -> Option<SourceEnd> {
        if self.is_empty() { self.end.take() } else { None }
    }

    /// Takes the next batch, up to the limits. A larger single record comes alone.
    pub(super) fn cut(&mut self) -> Cut {
        let mut cut = Cut::default();
        let expected: usize = self.answers.iter().map(|answer| answer.records.len()).sum();
        cut.records.reserve(expected.min(self.max_records));
        while cut.records.len() < self.max_records {
            let Some(record) = self.next_record(&mut cut) else { break };
            let bytes = cut.bytes.saturating_add(record.data.len());
            if bytes > self.max_bytes && !cut.records.is_empty() {
                self.held = Some(record);
                break;
            }
            cut.bytes = bytes;
            cut.cover = Some(record.position);
            cut.records.push(record);
        }
        cut
    }

    fn next_record(&mut self, cut: &mut Cut) -> Option<Record> {
        if let Some(record) = self.held.take() {
            return Some(record);
        }
        loop {
            if let Some(aggregate) = &mut self.aggregate {
                if let Some(user) = aggregate.records.next() {
                    return Some(Record {
                        position: Position::new(aggregate.sequence, user.sub_sequence_number),
                        arrival: aggregate.arrival,
                        partition_key: Some(user.partition_key),
                        explicit_hash_key: user.explicit_hash_key,
                        data: user.data,
                        aggregated: true,
                    });
                }
                cut.cover = cut.cover.max(Some(aggregate.last));
                self.aggregate = None;
            }
            let answer = self.answers.front_mut()?;
            cut.behind = answer.behind;
            if let Some(record) = answer.records.next() {
                if let Some(record) = self.open(record, cut) {
                    return Some(record);
                }
            } else if let Some(answer) = self.answers.pop_front() {
                let mut reservation = answer.reservation;
                reservation.hand_over();
                cut.spent.push(reservation);
                self.end = answer.end;
            }
        }
    }

    /// Looks at the next record of the stream: a plain one is returned, an aggregate opened, one that was
    /// processed or read before passed over.
    fn open(&mut self, source: SourceRecord, cut: &mut Cut) -> Option<Record> {
        let sequence = source.sequence_number;
        if self.last.is_some_and(|last| sequence <= last) {
            return None;
        }
        if let Some(resume) = self.resume {
            if sequence < resume.sequence {
                return None;
            }
            if self.last.is_none() && sequence > resume.sequence {
                cut.hole_before = Some(sequence);
            }
        }
        self.last = Some(sequence);
        let position = Position::new(sequence, 0);
        let resume = self.resume.filter(|resume| resume.sequence == sequence);
        match self.deaggregator.deaggregate(&source.data) {
            Deaggregated::Plain(reason) => {
                if resume.is_some() {
                    return None;
                }
                if reason.is_damaged() {
                    cut.damaged.push((position, reason.to_string()));
                }
                Some(Record {
                    position,
                    arrival: source.arrival,
                    partition_key: source.partition_key,
                    explicit_hash_key: None,
                    data: source.data,
                    aggregated: false,
                })
            }
            Deaggregated::Aggregate(mut records) => {
                if let Some(resume) = resume {
                    records.skip_through(resume.sub_sequence);
                } else {
                    // Counted once per hold of the lease, and not again for a half that was processed before.
                    cut.out_of_range += records.dropped_out_of_range();
                }
                let last = Position::new(sequence, records.total().saturating_sub(1));
                self.aggregate = Some(Aggregate { sequence, arrival: source.arrival, records, last });
                None
            }
        }
    }
}
