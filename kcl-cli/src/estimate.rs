//! How many shards a stream needs, by the limits of Kinesis Data Streams. Pure.
//!
//! Limits of a shard ("Quotas and limits" of the developer guide): writes 1 MB and 1,000 records a second; reads of all
//! polling consumers together 2 MB and 5 `GetRecords` calls a second; a fan-out consumer has 2 MB a second of its own.

use std::fmt;

use serde::Serialize;

use crate::console::Columns;

const MEGABYTE: f64 = 1_048_576.0;
const WRITE_BYTES: f64 = MEGABYTE;
const WRITE_RECORDS: f64 = 1_000.0;
const READ_BYTES: f64 = 2.0 * MEGABYTE;
const CALLS: f64 = 5.0;

/// Bytes of the largest record, key included.
const LARGEST_RECORD: f64 = 10.0 * MEGABYTE;

/// What the number depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EstimateInput {
    /// Bytes of a record as it is put, partition key included.
    pub record_bytes: f64,
    /// Records put a second, at the peak.
    pub records_per_second: f64,
    /// Applications that poll.
    pub polling_consumers: u64,
    /// Applications with enhanced fan-out.
    pub fan_out_consumers: u64,
    /// The share of a shard that stays unused, in percent: keys are never spread evenly, and who falls behind must catch up.
    pub headroom_percent: f64,
}

/// A limit, and how many shards it asks for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Need {
    /// The limit.
    pub limit: &'static str,
    /// What is needed, a second.
    pub needed: String,
    /// What a shard gives, a second.
    pub per_shard: &'static str,
    /// So many shards.
    pub shards: u64,
}

/// How many shards, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// What it was made for.
    pub input: EstimateInput,
    /// How many shards, headroom included.
    pub shards: u64,
    /// Each limit.
    pub needs: Vec<Need>,
    /// How often each polling consumer can call a shard, a second.
    pub calls_per_consumer: Option<f64>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Estimate {
    /// Makes the estimate.
    ///
    /// # Errors
    /// If the input makes no sense, in words.
    pub fn of(input: EstimateInput) -> Result<Self, String> {
        if !(0.0..100.0).contains(&input.headroom_percent) {
            return Err("the headroom is 0 or more and below 100 percent".into());
        }
        if input.record_bytes > LARGEST_RECORD {
            return Err("a record has at most 10 MB, its partition key included".into());
        }
        if input.record_bytes <= 0.0 || input.records_per_second <= 0.0 {
            return Err("give a record size and a rate above 0".into());
        }
        let usable = 1.0 - input.headroom_percent / 100.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let shards = |needed: f64, per_shard: f64| (needed / (per_shard * usable)).ceil().max(1.0) as u64;
        #[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 consumers")]
        let polling = input.polling_consumers as f64;
        let bytes = input.record_bytes * input.records_per_second;
        let mega = |bytes: f64| format!("{:.2} MB", bytes / MEGABYTE);
        let mut needs = vec![
            Need {
                limit: "bytes written",
                needed: mega(bytes),
                per_shard: "1 MB",
                shards: shards(bytes, WRITE_BYTES),
            },
            Need {
                limit: "records written",
                needed: format!("{:.0}", input.records_per_second),
                per_shard: "1,000",
                shards: shards(input.records_per_second, WRITE_RECORDS),
            },
        ];
        if input.polling_consumers > 0 {
            needs.push(Need {
                limit: "bytes polled, all consumers",
                needed: mega(bytes * polling),
                per_shard: "2 MB",
                shards: shards(bytes * polling, READ_BYTES),
            });
        }
        if input.fan_out_consumers > 0 {
            needs.push(Need {
                limit: "bytes pushed, each consumer",
                needed: mega(bytes),
                per_shard: "2 MB",
                shards: shards(bytes, READ_BYTES),
            });
        }
        let most = needs.iter().map(|need| need.shards).max().unwrap_or(1);
        let calls_per_consumer = (input.polling_consumers > 0).then(|| CALLS / polling);
        let mut notes = Vec::new();
        if let Some(calls) = calls_per_consumer.filter(|calls| *calls < CALLS) {
            notes.push(format!(
                "polling consumers share 5 calls a second and shard: each waits {:.1} s between calls, and a record \
                 that long in the worst case, whatever the number of shards",
                1.0 / calls
            ));
        }
        if input.polling_consumers > 5 {
            notes.push("with more than 5 polling consumers fan-out is worth a thought (kcl cost)".to_owned());
        }
        if input.record_bytes < 1_024.0 && needs[1].shards > needs[0].shards {
            notes.push(
                "the number of records decides: aggregated by the KPL, or put together in some other way, they need \
                 fewer shards"
                    .to_owned(),
            );
        }
        if input.record_bytes > WRITE_BYTES {
            notes.push(
                "records above 1 MB must be allowed on the stream, and use up a shard's second at once"
                    .to_owned(),
            );
        }
        notes.push(
            "counts the mean; a hot partition key is bound to one shard, whatever their number".to_owned(),
        );
        Ok(Self { input, shards: most, needs, calls_per_consumer, notes })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} shards, of which {} % stay unused\n", self.shards, self.input.headroom_percent)?;
        let mut columns = Columns::headed(["LIMIT", "NEEDED A SECOND", "A SHARD GIVES", "SHARDS"]);
        for need in &self.needs {
            columns.row([
                need.limit.to_owned(),
                need.needed.clone(),
                need.per_shard.to_owned(),
                need.shards.to_string(),
            ]);
        }
        write!(f, "{columns}")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(record_bytes: f64, rate: f64, polling: u64, fan_out: u64) -> Estimate {
        Estimate::of(EstimateInput {
            record_bytes,
            records_per_second: rate,
            polling_consumers: polling,
            fan_out_consumers: fan_out,
            headroom_percent: 0.0,
        })
        .unwrap()
    }

    #[test]
    fn the_tightest_limit_decides() {
        assert_eq!(estimate(1_024.0, 1_000.0, 1, 0).shards, 1);
        assert_eq!(estimate(1_024.0, 1_001.0, 1, 0).shards, 2);
        assert_eq!(estimate(100.0, 10_000.0, 1, 0).shards, 10);
        assert_eq!(estimate(1_048_576.0, 10.0, 1, 0).shards, 10);
        assert_eq!(estimate(1_048_576.0, 10.0, 3, 0).shards, 15);
        assert_eq!(estimate(1_048_576.0, 10.0, 0, 3).shards, 10);
    }

    #[test]
    fn headroom_asks_for_more() {
        let input = EstimateInput { headroom_percent: 50.0, ..estimate(1_024.0, 1_000.0, 1, 0).input };
        assert_eq!(Estimate::of(input).unwrap().shards, 2);
        assert!(Estimate::of(EstimateInput { headroom_percent: 100.0, ..input }).is_err());
        assert!(Estimate::of(EstimateInput { record_bytes: 0.0, ..input }).is_err());
        assert!(Estimate::of(EstimateInput { record_bytes: 2e7, ..input }).is_err());
    }

    #[test]
    fn consumers_that_poll_share_the_calls() {
        let calls = estimate(1_024.0, 10.0, 4, 0).calls_per_consumer.unwrap();
        assert!((calls - 1.25).abs() < 1e-9);
        assert_eq!(estimate(1_024.0, 10.0, 0, 4).calls_per_consumer, None);
    }
}
