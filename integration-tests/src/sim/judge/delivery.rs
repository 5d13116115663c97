//! D-1: every record put is delivered and acknowledged, in order for each key.

use std::collections::BTreeMap;
use std::time::Duration;

use kcl_core::{Position, Record, ShardId};

use super::{Finding, Promise};
use crate::sim::history::Instance;

#[derive(Debug, Default)]
pub(super) struct Delivery {
    keys: BTreeMap<String, Key>,
    in_hand: BTreeMap<Instance, Vec<(Position, String, u64)>>,
    delivered: u64,
}

#[derive(Debug, Default)]
struct Key {
    /// What was put, by counter.
    records: Vec<Put>,
    /// The next counter that nobody was handed yet.
    next: u64,
}

#[derive(Debug)]
struct Put {
    at: Duration,
    acknowledged: bool,
}

impl Key {
    /// The records between the last one handed over and `counter`.
    fn skipped(&self, counter: u64) -> &[Put] {
        let index = |counter: u64| usize::try_from(counter).unwrap_or(usize::MAX).min(self.records.len());
        self.records.get(index(self.next)..index(counter)).unwrap_or_default()
    }
}

/// The key and the counter of a payload; what follows a space is padding.
fn parse(payload: &[u8]) -> Option<(&str, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (key, counter) = text.split(' ').next()?.split_once(':')?;
    Some((key, counter.parse().ok()?))
}

impl Delivery {
    /// Counts records that are put; returns the counter of the first.
    pub(super) fn put(&mut self, key: &str, count: u64, now: Duration) -> u64 {
        let key = self.keys.entry(key.to_owned()).or_default();
        let first = key.records.len() as u64;
        key.records.extend((0..count).map(|_| Put { at: now, acknowledged: false }));
        first
    }

    /// Each key's counters must come in order the first time; later deliveries repeat. What was put by `expired`
    /// may be missing.
    pub(super) fn deliver(
        &mut self,
        shard: &ShardId,
        records: &[Record],
        expired: Option<Duration>,
    ) -> Finding {
        self.delivered += records.len() as u64;
        let mut finding = None;
        for record in records {
            let known =
                parse(record.data()).and_then(|(key, counter)| Some((self.keys.get_mut(key)?, key, counter)));
            let Some((known, key, counter)) = known else {
                let seen = format!("{shard} delivers a record nobody put: {:?}", record.data());
                return Some((Promise::D1, seen));
            };
            let skipped = known.skipped(counter);
            let excused = expired.is_some_and(|expired| skipped.iter().all(|put| put.at <= expired));
            if !skipped.is_empty() && !excused && finding.is_none() {
                let seen = format!(
                    "{shard} delivers {key}:{counter} although {key}:{} was never delivered",
                    known.next
                );
                finding = Some((Promise::D1, seen));
            }
            known.next = known.next.max(counter + 1);
        }
        finding
    }

    pub(super) fn in_hand(&mut self, instance: Instance, records: &[Record]) {
        let parsed = records.iter().filter_map(|record| {
            let (key, counter) = parse(record.data())?;
            Some((record.position(), key.to_owned(), counter))
        });
        self.in_hand.insert(instance, parsed.collect());
    }

    pub(super) fn acknowledge(&mut self, instance: Instance) {
        for (_, key, counter) in self.in_hand.remove(&instance).unwrap_or_default() {
            self.mark(&key, counter);
        }
    }

    /// The processor says itself that everything up to here is done.
    pub(super) fn acknowledge_through(&mut self, instance: Instance, position: Position) {
        let records = self.in_hand.get(&instance).cloned().unwrap_or_default();
        for (_, key, counter) in records.iter().filter(|(at, ..)| *at <= position) {
            self.mark(key, *counter);
        }
    }

    fn mark(&mut self, key: &str, counter: u64) {
        let index = usize::try_from(counter).unwrap_or(usize::MAX);
        if let Some(put) = self.keys.get_mut(key).and_then(|key| key.records.get_mut(index)) {
            put.acknowledged = true;
        }
    }

    /// What was put and never acknowledged, but for what was put by `expired`.
    pub(super) fn missing(&self, expired: Option<Duration>) -> Vec<String> {
        self.unacknowledged(|put| expired.is_none_or(|expired| put > expired))
    }

    /// What was put at such times and never acknowledged.
    pub(super) fn unacknowledged(&self, is_asked: impl Fn(Duration) -> bool) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, key) in &self.keys {
            for (counter, put) in key.records.iter().enumerate() {
                if !put.acknowledged && is_asked(put.at) {
                    missing.push(format!("{name}:{counter}"));
                }
            }
        }
        missing
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.keys.values().map(|key| key.records.len() as u64).sum(), self.delivered)
    }
}
