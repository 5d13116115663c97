//! De-aggregation beside MD5 over the same bytes, which is its floor, and aggregation.
//!
//! `cargo bench -p kpl-aggregation`. Throughput is in bytes of the aggregate.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kpl_aggregation::{Aggregator, Deaggregated, Deaggregator, HashKeyRange, OutOfRangePolicy};
use md5::{Digest, Md5};

/// Data per user record, in bytes, and how they are called.
const SIZES: [(&str, usize); 3] = [("100B", 100), ("1KiB", 1024), ("40KB", 40_000)];

/// Partition keys in a cycle: as many as records (`u64::MAX`: each its own), or few.
const FEW_KEYS: u64 = 16;

fn aggregate(size: usize, keys: u64, hash_keys: bool) -> Bytes {
    let mut aggregator = Aggregator::new();
    let data = Bytes::from(vec![0x5A; size]);
    for i in 0_u64.. {
        let key = format!("partition-key-{:06}", i % keys);
        let hash_key = hash_keys.then_some(u128::from(i % keys) << 64);
        if let Some(full) = aggregator.add(key, hash_key, data.clone()).expect("it fits") {
            return full.data;
        }
    }
    unreachable!("the loop ends with a full aggregate")
}

fn read_all(settings: &Deaggregator, data: &Bytes) -> usize {
    match settings.deaggregate(data) {
        Deaggregated::Plain(reason) => unreachable!("{reason}"),
        Deaggregated::Aggregate(records) => records.map(|record| black_box(&record).data.len()).sum(),
    }
}

fn deaggregation(criterion: &mut Criterion) {
    let full = Deaggregator::new();
    // All hash keys but one, so that each must be looked at.
    let range = HashKeyRange::new(0, u128::MAX - 1).expect("0 is the least");
    let filter = full.range(range).out_of_range(OutOfRangePolicy::DropRecord);
    let mut group = criterion.benchmark_group("deaggregate");
    for (name, size) in SIZES {
        for (keys_name, keys) in [("few_keys", FEW_KEYS), ("own_keys", u64::MAX)] {
            let name = format!("{name}/{keys_name}");
            let data = aggregate(size, keys, false);
            let with_hash_keys = aggregate(size, keys, true);
            group.throughput(Throughput::Bytes(data.len() as u64));
            group.bench_with_input(BenchmarkId::new("md5", &name), &data, |b, data| {
                b.iter(|| Md5::digest(black_box(data)));
            });
            group.bench_with_input(BenchmarkId::new("full_range", &name), &data, |b, data| {
                b.iter(|| read_all(&full, black_box(data)));
            });
            group.bench_with_input(BenchmarkId::new("shard_range", &name), &data, |b, data| {
                b.iter(|| read_all(&filter, black_box(data)));
            });
            group.throughput(Throughput::Bytes(with_hash_keys.len() as u64));
            group.bench_with_input(BenchmarkId::new("hash_keys", &name), &with_hash_keys, |b, data| {
                b.iter(|| read_all(&filter, black_box(data)));
            });
        }
    }
    group.finish();
}

fn aggregation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregate");
    for (name, size) in SIZES {
        let keys: Vec<_> = (0..FEW_KEYS).map(|i| format!("partition-key-{i:06}")).collect();
        let keys: Vec<bytestring::ByteString> = keys.into_iter().map(Into::into).collect();
        let payload = Bytes::from(vec![0x5A; size]);
        let sample = aggregate(size, FEW_KEYS, false);
        group.throughput(Throughput::Bytes(sample.len() as u64));
        group.bench_with_input(BenchmarkId::new("md5", name), &sample, |b, data| {
            b.iter(|| Md5::digest(black_box(data)));
        });
        group.bench_function(BenchmarkId::new("add_and_finish", name), |b| {
            let mut aggregator = Aggregator::new();
            b.iter(|| {
                for key in keys.iter().cycle() {
                    let full = aggregator.add(key.clone(), None, payload.clone()).expect("it fits");
                    if let Some(full) = full {
                        return full;
                    }
                }
                unreachable!("the loop ends with a full aggregate")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, deaggregation, aggregation);
criterion_main!(benches);
