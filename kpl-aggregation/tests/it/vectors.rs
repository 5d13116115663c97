//! Every vector whose outcome was recorded from the Java KCL 3.5.1.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kpl_aggregation::{DamagePolicy, Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy, UserRecord};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    data_b64: String,
    shard_start: String,
    shard_end: String,
    /// How many records came out, then one line per record.
    kcl351: Vec<String>,
}

impl Vector {
    fn data(&self) -> Bytes {
        STANDARD.decode(&self.data_b64).unwrap().into()
    }

    fn outcome(&self, out_of_range: OutOfRangePolicy, damage: DamagePolicy) -> Outcome {
        let range = HashKeyRange::parse(&self.shard_start, &self.shard_end).unwrap();
        let settings = Deaggregator::new().range(range).out_of_range(out_of_range).damage(damage);
        match settings.deaggregate(&self.data()) {
            Deaggregated::Plain(_) => Outcome::Plain,
            Deaggregated::Aggregate(records) => {
                let total = records.total();
                let dropped = records.dropped_out_of_range() + records.dropped_damaged();
                let lines: Vec<_> = records.map(|record| line(&record)).collect();
                assert_eq!(
                    lines.len() as u64 + dropped,
                    total,
                    "{}: every record is accounted for",
                    self.name
                );
                Outcome::Records(lines)
            }
        }
    }

    /// The Java column. Of a plain record it shows the outer key and the data in a form that cannot be read back, so
    /// only its being plain and single is compared.
    fn java(&self) -> Outcome {
        let (count, lines) = self.kcl351.split_first().unwrap();
        if lines.first().is_some_and(|line| line.starts_with("[agg=false sub=0 pk=OUTER ehk=null data=")) {
            assert_eq!(count, "1", "{}", self.name);
            return Outcome::Plain;
        }
        assert_eq!(count, &lines.len().to_string(), "{}", self.name);
        Outcome::Records(lines.to_vec())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Plain,
    Records(Vec<String>),
}

/// Shows a record the way the Java column does.
fn line(record: &UserRecord) -> String {
    let key = STANDARD.encode(record.partition_key.as_bytes());
    let hash_key = record.explicit_hash_key.as_deref().unwrap_or("null");
    let data = str::from_utf8(&record.data).unwrap();
    format!("[agg=true sub={} pk={key} ehk={hash_key} data={data}]", record.sub_sequence_number)
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../vectors/deaggregation.json")).unwrap();
    assert_eq!(vectors.len(), 36);
    vectors
}

#[test]
fn incident_19_java_policies_give_the_java_outcome_for_every_vector() {
    for vector in vectors() {
        let ours = vector.outcome(OutOfRangePolicy::DropAggregate, DamagePolicy::KeepPrefix);
        assert_eq!(ours, vector.java(), "{}", vector.name);
    }
}

/// Where the default policies part from the Java KCL, and what the aggregate becomes instead.
fn default_divergences() -> BTreeMap<&'static str, (Outcome, &'static str)> {
    let in_range = Outcome::Records(vec!["[agg=true sub=1 pk=YQ== ehk=0 data=r1]".to_owned()]);
    BTreeMap::from([
        ("pk_index_out_of_range_mid", (Outcome::Plain, "Java loses the records from the damaged one on")),
        ("pk_index_out_of_range_first", (Outcome::Plain, "Java loses the whole aggregate")),
        ("empty_pk_table", (Outcome::Plain, "Java loses the whole aggregate")),
        ("pk_index_2pow64-1", (Outcome::Plain, "Java loses the whole aggregate")),
        ("ehk_index_out_of_range", (Outcome::Plain, "Java loses the records from the damaged one on")),
        ("ehk_not_number", (Outcome::Plain, "Java loses the whole aggregate")),
        ("ehk_empty_string", (Outcome::Plain, "Java loses the whole aggregate")),
        ("ehk_leading_space", (Outcome::Plain, "Java loses the whole aggregate")),
        ("low_half_first_out", (in_range, "Java loses the record that is inside along with the one outside")),
    ])
}

#[test]
fn default_policies_part_from_java_only_where_java_loses_records() {
    let mut expected = default_divergences();
    for vector in vectors() {
        let ours = vector.outcome(OutOfRangePolicy::default(), DamagePolicy::default());
        match expected.remove(vector.name.as_str()) {
            Some((outcome, reason)) => {
                assert_ne!(ours, vector.java(), "{}: {reason}", vector.name);
                assert_eq!(ours, outcome, "{}: {reason}", vector.name);
            }
            None => assert_eq!(ours, vector.java(), "{}", vector.name),
        }
    }
    assert!(expected.is_empty(), "vectors not found: {:?}", expected.keys());
}

#[test]
fn keep_policy_loses_no_record_of_any_vector() {
    for vector in vectors() {
        let settings = Deaggregator::new().out_of_range(OutOfRangePolicy::Keep);
        if let Deaggregated::Aggregate(records) = settings.deaggregate(&vector.data()) {
            let total = records.total();
            assert_eq!(records.count() as u64, total, "{}", vector.name);
        }
    }
}
