//! Incident 19: what a KPL aggregate holds, and what of it is lost: nothing.

use bytes::Bytes;
use kcl_core::Entropy;
use kpl_aggregation::{
    DamagePolicy, Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy, UserRecords,
};
use md5::{Digest as _, Md5};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const AGGREGATES: u64 = 20_000;

/// A user record as it is written.
#[derive(Clone, Debug)]
struct Written {
    key: u64,
    hash_key: Option<u64>,
    data: Vec<u8>,
}

/// An aggregate as it is written.
#[derive(Clone, Debug)]
struct Message {
    keys: Vec<String>,
    hash_keys: Vec<String>,
    records: Vec<Written>,
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

impl Message {
    /// Mostly sound, with keys that belong to other shards, and now and then an index that is none.
    fn draw(entropy: &Entropy) -> Self {
        let below = |most: u64| usize::try_from(entropy.below(most)).expect("small");
        let keys: Vec<String> = (0..1 + below(4)).map(|_| format!("key-{}", entropy.below(1000))).collect();
        let hash_keys: Vec<String> = (0..below(4))
            .map(|_| (u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64())).to_string())
            .collect();
        let index = |table: usize| {
            let beyond = u64::from(entropy.below(60) == 0);
            entropy.below(table as u64 + beyond)
        };
        let records = (0..below(8)).map(|_| Written {
            key: index(keys.len()),
            hash_key: (!hash_keys.is_empty() && entropy.below(2) == 0).then(|| index(hash_keys.len())),
            data: (0..below(12)).map(|_| entropy.next_u64().to_le_bytes()[0]).collect(),
        });
        let records = records.collect();
        Self { keys, hash_keys, records }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.keys.iter().for_each(|key| bytes(&mut out, 1, key.as_bytes()));
        self.hash_keys.iter().for_each(|key| bytes(&mut out, 2, key.as_bytes()));
        for record in &self.records {
            let mut one = Vec::new();
            varint(&mut one, 1 << 3);
            varint(&mut one, record.key);
            if let Some(hash_key) = record.hash_key {
                varint(&mut one, 2 << 3);
                varint(&mut one, hash_key);
            }
            bytes(&mut one, 3, &record.data);
            bytes(&mut out, 3, &one);
        }
        out
    }

    /// Whether a user record lies in the range: none if it names a key that is not there.
    fn is_inside(&self, record: &Written, range: (u128, u128)) -> Option<bool> {
        let at = |table: &[String], index: u64| table.get(usize::try_from(index).ok()?).cloned();
        let key = at(&self.keys, record.key)?;
        let hash = match record.hash_key {
            Some(index) => at(&self.hash_keys, index)?.parse().ok()?,
            None => u128::from_be_bytes(Md5::digest(key).into()),
        };
        Some((range.0..=range.1).contains(&hash))
    }
}

/// The sub-sequence numbers that the Java KCL 3.5.1 delivers of a sound frame: it stops at a record it cannot read and
/// keeps what came before, and it drops everything if a record before that lies outside. These are the rules that the
/// vectors of `kpl-aggregation` show, which it made; nothing of the library is used.
fn as_java(message: &Message, range: (u128, u128)) -> Vec<u64> {
    let mut kept = Vec::new();
    for (sub, record) in (0..).zip(&message.records) {
        match message.is_inside(record, range) {
            None => break,
            Some(false) => return Vec::new(),
            Some(true) => kept.push(sub),
        }
    }
    kept
}

fn opened(outcome: Deaggregated) -> Option<UserRecords> {
    match outcome {
        Deaggregated::Aggregate(records) => Some(records),
        Deaggregated::Plain(_) => None,
    }
}

/// Checks each record against what was written, and that it is a slice of what was read; returns their numbers.
fn taken(message: &Message, data: &Bytes, records: UserRecords) -> Vec<u64> {
    let mut numbers = Vec::new();
    for record in records {
        let written = &message.records[usize::try_from(record.sub_sequence_number).expect("small")];
        assert_eq!(record.data, written.data);
        assert_eq!(record.partition_key, message.keys[usize::try_from(written.key).expect("small")]);
        let hash_key =
            written.hash_key.map(|index| &*message.hash_keys[usize::try_from(index).expect("small")]);
        assert_eq!(record.explicit_hash_key.as_deref(), hash_key);
        let (whole, part) = (data.as_ptr_range(), record.data.as_ptr_range());
        assert!(record.data.is_empty() || whole.start <= part.start && part.end <= whole.end, "no copy");
        numbers.push(record.sub_sequence_number);
    }
    numbers
}

/// A fifth of the criterion's hundred thousand, to last seconds.
#[test]
fn incident_19_generated_aggregates_are_read_as_java_reads_them_and_by_default_nothing_is_dropped_uncounted()
{
    let entropy = Entropy::seeded(19);
    let (mut sound, mut damaged, mut foreign, mut broken) = (0, 0, 0, 0);
    for number in 0..AGGREGATES {
        let message = Message::draw(&entropy);
        let body = message.encode();
        if body.is_empty() {
            continue;
        }
        let digest: [u8; 16] = Md5::digest(&body).into();
        let mut frame = [&MAGIC[..], &body, &digest].concat();
        let half = u128::MAX / 2;
        let range =
            [(0, u128::MAX), (0, half), (half + 1, u128::MAX)][usize::try_from(number % 3).expect("small")];
        let reader = Deaggregator::new().range(HashKeyRange::new(range.0, range.1).expect("in order"));
        let java = reader.out_of_range(OutOfRangePolicy::DropAggregate).damage(DamagePolicy::KeepPrefix);

        if number % 10 == 0 {
            // A digest that does not fit: the record is no aggregate, and is delivered as it is.
            let place = usize::try_from(entropy.below(frame.len() as u64 - 4)).expect("small") + 4;
            frame[place] ^= 1 << entropy.below(8);
            let data = Bytes::from(frame);
            assert!(opened(reader.deaggregate(&data)).is_none() && opened(java.deaggregate(&data)).is_none());
            broken += 1;
            continue;
        }
        let data = Bytes::from(frame);
        let records = opened(java.deaggregate(&data)).expect("the digest fits");
        assert_eq!(taken(&message, &data, records), as_java(&message, range), "{message:?} {range:?}");

        let inside: Option<Vec<bool>> =
            message.records.iter().map(|record| message.is_inside(record, range)).collect();
        let records = opened(reader.deaggregate(&data));
        let Some(inside) = inside else {
            // Where Java drops the rest of it without a word the record is delivered whole.
            assert!(records.is_none(), "{message:?}");
            damaged += 1;
            continue;
        };
        let records = records.expect("every index is one of its table");
        let (total, dropped) = (records.total(), records.dropped_out_of_range());
        let kept: Vec<u64> = (0..).zip(&inside).filter(|(_, inside)| **inside).map(|(sub, _)| sub).collect();
        assert_eq!(taken(&message, &data, records), kept);
        assert_eq!((total, dropped), (inside.len() as u64, (inside.len() - kept.len()) as u64));
        (sound, foreign) = (sound + 1, foreign + u64::from(dropped > 0));
    }
    println!(
        "{sound} sound, {foreign} of them with records of other shards, {damaged} damaged, {broken} broken"
    );
    assert!([sound, foreign, damaged, broken].iter().all(|count| *count > AGGREGATES / 50));
}
