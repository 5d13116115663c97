use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use kcl_core::BoxError;
use kpl_aggregation::{AggregatedRecord, Aggregator, partition_key_hash};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, Numbered};
use super::shard_map::ShardMap;

/// How often something is written.
const INTERVAL: Duration = Duration::from_millis(50);
/// How many partition keys there are, and how many of them are written at a time.
const KEYS: usize = 64;
const KEYS_AT_A_TIME: usize = 8;
/// How many records of one key go into an aggregate at most.
const RUN: usize = 3;
/// How often a put is repeated before it counts as a failure of the scenario.
const ATTEMPTS: u32 = 40;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Writes records, plain and aggregated, and notes those the stream acknowledged.
///
/// It waits until all records of a key are acknowledged before it writes the key's next, so the counters of a key
/// are in order in the stream.
#[derive(Debug)]
pub(super) struct Producer {
    client: Client,
    stream: String,
    ledger: Ledger,
    random: fastrand::Rng,
    next: Vec<usize>,
    shards: ShardMap,
}

impl Producer {
    pub(super) async fn new(
        client: Client,
        stream: &str,
        ledger: Ledger,
        seed: u64,
    ) -> Result<Self, BoxError> {
        let shards = ShardMap::load(&client, stream).await?;
        let random = fastrand::Rng::with_seed(seed);
        Ok(Self { client, stream: stream.to_owned(), ledger, random, next: vec![0; KEYS], shards })
    }

    /// Writes until `stop`, and then until everything begun is acknowledged.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            if self.random.bool() {
                let records = self.draw(1);
                self.put_plain(records).await?;
            } else {
                let records = self.draw(RUN);
                self.put_aggregated(records).await?;
            }
        }
    }

    /// The next records of some keys, at most `run` of each.
    fn draw(&mut self, run: usize) -> Vec<Numbered> {
        let keys = self.random.choose_multiple(0..KEYS, KEYS_AT_A_TIME);
        let mut records = Vec::new();
        for key in keys {
            for _ in 0..self.random.usize(1..=run) {
                records.push(Numbered { key: format!("sensor-{key:02}"), number: self.next[key] });
                self.next[key] += 1;
            }
        }
        records
    }

    /// Puts records with `PutRecords`, the refused ones again until none is left. A key must occur once only: the
    /// service may refuse a record and take a later one of the same call.
    async fn put_plain(&self, mut waiting: Vec<Numbered>) -> Result<(), BoxError> {
        for pause in pauses() {
            let entries = waiting.iter().map(|record| {
                PutRecordsRequestEntry::builder()
                    .partition_key(&record.key)
                    .data(Blob::new(record.payload()))
                    .build()
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            let call = self.client.put_records().stream_name(&self.stream).set_records(Some(entries));
            if let Some(answer) = transient_as_none(call.send().await)? {
                let mut results = answer.records().iter();
                waiting.retain(|record| {
                    let taken = results.next().is_some_and(|result| result.error_code().is_none());
                    if taken {
                        self.ledger.note_put(record, false);
                    }
                    !taken
                });
            }
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(format!("{} records were refused {ATTEMPTS} times", waiting.len()).into())
    }

    /// Puts records in one aggregate per shard, as the KPL does.
    ///
    /// A shard that was split or merged meanwhile can put an aggregate into a shard that some of its keys do not
    /// belong to. Consumers drop those user records, so they are put again, in an aggregate for the right shard.
    async fn put_aggregated(&mut self, mut waiting: Vec<Numbered>) -> Result<(), BoxError> {
        for pause in pauses() {
            let mut groups: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
            for record in std::mem::take(&mut waiting) {
                let shard = self.shards.shard_of(&record.key).ok_or("no open shard takes a key")?;
                groups.entry(shard.to_owned()).or_default().push(record);
            }
            for group in groups.into_values() {
                waiting.extend(self.put_group(group).await?);
            }
            if waiting.is_empty() {
                return Ok(());
            }
            self.shards = ShardMap::load(&self.client, &self.stream).await?;
            tokio::time::sleep(pause).await;
        }
        Err(format!("{} records were refused {ATTEMPTS} times", waiting.len()).into())
    }

    /// Puts records of one shard and returns those that must be put again.
    async fn put_group(&mut self, mut records: Vec<Numbered>) -> Result<Vec<Numbered>, BoxError> {
        let mut aggregator = Aggregator::new();
        let mut aggregates = Vec::new();
        for record in &records {
            aggregates.extend(aggregator.add(record.key.clone(), None, record.payload())?);
        }
        aggregates.extend(aggregator.finish());
        let mut again = Vec::new();
        for aggregate in aggregates {
            let rest = records.split_off(aggregate.count);
            let packed = std::mem::replace(&mut records, rest);
            let Some(shard) = self.put_aggregate(&aggregate).await? else {
                // What follows waits with it, or a key could be overtaken by itself.
                again.extend(packed);
                again.append(&mut records);
                break;
            };
            if self.shards.range(&shard).is_none() {
                self.shards = ShardMap::load(&self.client, &self.stream).await?;
            }
            let range = self.shards.range(&shard).ok_or("a record landed in a shard that is not listed")?;
            for record in packed {
                if range.contains(partition_key_hash(record.key.as_bytes())) {
                    self.ledger.note_put(&record, aggregate.is_aggregate);
                } else {
                    again.push(record);
                }
            }
        }
        Ok(again)
    }

    /// Puts one aggregate and returns the shard it landed in; nothing if it should be put again.
    async fn put_aggregate(&self, aggregate: &AggregatedRecord) -> Result<Option<String>, BoxError> {
        let call = self
            .client
            .put_record()
            .stream_name(&self.stream)
            .partition_key(aggregate.partition_key.to_string())
            .data(Blob::new(aggregate.data.clone()));
        Ok(transient_as_none(call.send().await)?.map(|answer| answer.shard_id().to_owned()))
    }
}

/// The growing pauses between attempts.
fn pauses() -> impl Iterator<Item = Duration> {
    (0..ATTEMPTS).map(|attempt| (FIRST_PAUSE * 2u32.pow(attempt.min(8))).min(LONGEST_PAUSE))
}

/// Turns throttles, errors of the service and lost answers into `None`.
fn transient_as_none<T, E, R>(result: Result<T, SdkError<E, R>>) -> Result<Option<T>, BoxError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    const TRANSIENT: [&str; 8] = [
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "KMSThrottlingException",
        "InternalFailure",
        "InternalServerError",
        "InternalFailureException",
        "ServiceUnavailable",
    ];
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_)) => {
            Ok(None)
        }
        Err(error) => match error.code() {
            Some(code) if TRANSIENT.contains(&code) => Ok(None),
            _ => Err(error.into()),
        },
    }
}
