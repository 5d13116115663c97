//! What the services charge: a TOML file that a person can edit.

use serde::{Deserialize, Serialize};

use crate::error::{CliError, CliErrorKind};

/// The file that stands for prices unless another is given. It says where its figures hold.
pub const DEFAULT_PRICES: &str = include_str!("prices.toml");

/// Prices in US dollars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Prices {
    /// Where they hold.
    pub region: String,
    /// Since when.
    pub as_of: String,
    /// DynamoDB.
    pub dynamodb: DynamoDbPrices,
    /// CloudWatch.
    pub cloudwatch: CloudWatchPrices,
    /// Kinesis Data Streams.
    pub kinesis: KinesisPrices,
}

/// Prices of DynamoDB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DynamoDbPrices {
    /// A million write request units, on demand.
    pub million_write_units: f64,
    /// A million read request units, on demand.
    pub million_read_units: f64,
    /// A write capacity unit for an hour.
    pub write_unit_hour: f64,
    /// A read capacity unit for an hour.
    pub read_unit_hour: f64,
    /// A GB for a month.
    pub gb_month: f64,
}

/// Prices of CloudWatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CloudWatchPrices {
    /// A custom metric for a month, by how many there are.
    pub metric_steps: Vec<Step>,
    /// A thousand requests.
    pub thousand_requests: f64,
}

/// The price of metrics up to some number of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Step {
    /// So many in all; none: without end.
    pub up_to: Option<u64>,
    /// For each of them.
    pub price: f64,
}

/// Prices of Kinesis Data Streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KinesisPrices {
    /// A provisioned shard for an hour.
    pub shard_hour: f64,
    /// A fan-out consumer on a shard for an hour.
    pub fan_out_shard_hour: f64,
    /// A GB read through fan-out.
    pub fan_out_gb: f64,
}

impl Prices {
    /// Reads a file of prices.
    ///
    /// # Errors
    /// If something is missing, unknown, negative or not a number; says what and where.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let invalid = |message: String| {
            CliError::new(CliErrorKind::Invalid, message)
                .with_hint("kcl cost --print-prices prints a file to start from")
        };
        let prices: Self =
            toml::from_str(text).map_err(|error| invalid(format!("the price file: {error}")))?;
        let Self { dynamodb: d, cloudwatch: c, kinesis: k, .. } = &prices;
        let all = [
            d.million_write_units,
            d.million_read_units,
            d.write_unit_hour,
            d.read_unit_hour,
            d.gb_month,
            c.thousand_requests,
            k.shard_hour,
            k.fan_out_shard_hour,
            k.fan_out_gb,
        ];
        let mut all = all.into_iter().chain(c.metric_steps.iter().map(|step| step.price));
        if let Some(bad) = all.find(|price| !price.is_finite() || *price < 0.0) {
            return Err(invalid(format!("the price file has a price below 0: {bad}")));
        }
        let ends: Vec<u64> = c.metric_steps.iter().map_while(|step| step.up_to).collect();
        if ends.len() + 1 != c.metric_steps.len() || !ends.is_sorted_by(|one, next| one < next) {
            return Err(invalid(
                "the price file: metric_steps must grow, and the last one alone has no up_to".into(),
            ));
        }
        Ok(prices)
    }

    /// What so many custom metrics cost a month.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 metrics")]
    pub fn metrics(&self, count: u64) -> f64 {
        let (mut before, mut sum) = (0, 0.0);
        for step in &self.cloudwatch.metric_steps {
            let up_to = step.up_to.unwrap_or(u64::MAX).min(count);
            sum += up_to.saturating_sub(before) as f64 * step.price;
            before = before.max(up_to);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_charged_by_steps() {
        let prices = Prices::parse(DEFAULT_PRICES).unwrap();
        assert!((prices.metrics(10) - 3.0).abs() < 1e-9);
        assert!((prices.metrics(10_000) - 3_000.0).abs() < 1e-9);
        assert!((prices.metrics(12_000) - 3_200.0).abs() < 1e-9);
        assert!((prices.metrics(1_000_001) - (3_000.0 + 24_000.0 + 37_500.0 + 0.02)).abs() < 1e-6);
    }

    #[test]
    fn a_file_with_mistakes_says_where() {
        for (from, to, part) in [
            ("gb_month = 0.25", "", "gb_month"),
            ("gb_month = 0.25", "gb_month = -1", "below 0"),
            ("gb_month = 0.25", "gb_month = \"cheap\"", "gb_month"),
            ("gb_month = 0.25", "gb_month = 0.25\ngb_moth = 1", "gb_moth"),
            ("    { price = 0.02 },\n", "", "metric_steps"),
            ("up_to = 250_000", "up_to = 1", "metric_steps"),
        ] {
            let error = Prices::parse(&DEFAULT_PRICES.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(part), "{to:?}: {error}");
        }
    }
}
