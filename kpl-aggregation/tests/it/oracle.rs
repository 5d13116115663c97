//! A second opinion: messages written and read by prost's own derived code.

use bytes::Bytes;
use kpl_aggregation::{Aggregator, Deaggregator, OutOfRangePolicy};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use crate::support::{aggregate, framed};

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
    #[prost(message, repeated, tag = "4")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
struct Tag {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

fn record(keys: usize, hash_keys: usize) -> impl Strategy<Value = Record> {
    let tag = ("\\PC{0,5}", option::of("\\PC{0,5}")).prop_map(|(key, value)| Tag { key, value });
    let hash_key = if hash_keys == 0 { Just(None).boxed() } else { option::of(0..hash_keys as u64).boxed() };
    (0..keys as u64, hash_key, vec(any::<u8>(), 0..200), vec(tag, 0..3)).prop_map(
        |(partition_key_index, explicit_hash_key_index, data, tags)| Record {
            partition_key_index,
            explicit_hash_key_index,
            data: data.into(),
            tags,
        },
    )
}

fn aggregated_record() -> impl Strategy<Value = AggregatedRecord> {
    (vec("\\PC{0,20}", 1..200), vec(any::<u128>().prop_map(|key| key.to_string()), 0..200)).prop_flat_map(
        |(partition_key_table, explicit_hash_key_table)| {
            let record = record(partition_key_table.len(), explicit_hash_key_table.len());
            vec(record, 0..50).prop_map(move |records| AggregatedRecord {
                partition_key_table: partition_key_table.clone(),
                explicit_hash_key_table: explicit_hash_key_table.clone(),
                records,
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_written_by_prost_are_read_alike(message in aggregated_record()) {
        let data = framed(&message.encode_to_vec());
        prop_assume!(data.len() > 20);
        let settings = Deaggregator::new().out_of_range(OutOfRangePolicy::Keep);
        let read: Vec<_> = aggregate(settings.deaggregate(&data))
            .map(|r| (r.sub_sequence_number, r.partition_key.to_string(), r.explicit_hash_key.map(|k| k.to_string()), r.data))
            .collect();
        let written: Vec<_> = message.records.iter().zip(0..).map(|(record, sub)| (
            sub,
            message.partition_key_table[record.partition_key_index as usize].clone(),
            record.explicit_hash_key_index.map(|index| message.explicit_hash_key_table[index as usize].clone()),
            record.data.clone(),
        )).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn messages_written_here_are_read_and_written_alike_by_prost(message in aggregated_record()) {
        let mut aggregator = Aggregator::new();
        let mut offered = Vec::new();
        for record in &message.records {
            let key = format!("k{}", record.partition_key_index);
            let hash_key = record.explicit_hash_key_index.map(u128::from);
            prop_assert_eq!(aggregator.add(key.clone(), hash_key, record.data.clone()).unwrap(), None);
            offered.push((key, hash_key.map(|k| k.to_string()), record.data.clone()));
        }
        prop_assume!(offered.len() > 1);
        let data = aggregator.finish().unwrap().data;
        let body = data.slice(4..data.len() - 16);
        let read = AggregatedRecord::decode(body.clone()).unwrap();
        prop_assert_eq!(read.encode_to_vec(), body.to_vec(), "the canonical encoding");
        let read: Vec<_> = read.records.iter().map(|record| (
            read.partition_key_table[record.partition_key_index as usize].clone(),
            record.explicit_hash_key_index.map(|index| read.explicit_hash_key_table[index as usize].clone()),
            record.data.clone(),
        )).collect();
        prop_assert_eq!(read, offered);
    }
}
