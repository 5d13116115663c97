//! What must hold of a configuration as a whole.

use std::time::Duration;

use super::configuration::Configuration;
use super::key::DIMENSIONS;
use super::parts::{BillingChoice, CheckpointChoice, RetrievalMode};
use crate::model::WorkerId;
use crate::scheduler::worker_id_problem;
use crate::source::name::StreamName;

impl Configuration {
    /// Every problem: the key, and what must hold.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Problems::default();
        self.check_names(&mut problems);
        self.check_retrieval(&mut problems);
        self.check_table(&mut problems);
        let (policy, interval) = (self.checkpoint.policy, self.checkpoint.interval);
        let every = policy == CheckpointChoice::Every;
        problems.require(
            !every || interval.is_some(),
            "checkpoint.interval",
            "is required with checkpoint.policy Every",
        );
        problems.require(
            every || interval.is_none(),
            "checkpoint.interval",
            "has no effect unless checkpoint.policy is Every",
        );
        problems.require(interval != Some(Duration::ZERO), "checkpoint.interval", "must be above zero");
        problems.require(self.on_error.after_failures > 0, "onError.afterFailures", "must be at least 1");
        let metrics = &self.metrics;
        let known = |name: &String| DIMENSIONS.contains(&name.as_str());
        problems.require(
            metrics.enabled_dimensions.iter().all(known),
            "metrics.enabledDimensions",
            "holds a dimension that metrics do not have",
        );
        problems.require(
            !metrics.namespace.as_deref().is_some_and(|name| name.starts_with("AWS/")),
            "metrics.namespace",
            "must not begin with AWS/, which is reserved",
        );
        for (setting, rule) in self.settings.problems() {
            problems.0.push((setting_key(setting), rule.to_owned()));
        }
        problems.0
    }

    fn check_names(&self, problems: &mut Problems) {
        problems.require(
            !self.application.trim().is_empty(),
            "application",
            "is required: the application's name",
        );
        if self.stream.trim().is_empty() {
            problems.add("stream", "is required: the stream's name or ARN");
        } else {
            match StreamName::parse(&self.stream) {
                Err(problem) => problems.add("stream", &problem),
                Ok(stream) => {
                    let of_arn = stream.arn().and_then(|arn| arn.split(':').nth(3));
                    if let (Some(of_arn), Some(region)) = (of_arn, self.region.as_deref())
                        && of_arn != region
                    {
                        let text = format!(
                            "is {region}, but the stream's ARN is in {of_arn}: calls would go astray"
                        );
                        problems.add("region", &text);
                    }
                }
            }
        }
        if let Some(problem) =
            self.worker_id.as_ref().and_then(|id| worker_id_problem(&WorkerId::new(id.clone())))
        {
            problems.add("workerId", &problem);
        }
        let endpoints = &self.endpoints;
        for (key, url) in [
            ("endpoints.kinesis", &endpoints.kinesis),
            ("endpoints.dynamodb", &endpoints.dynamodb),
            ("endpoints.cloudwatch", &endpoints.cloudwatch),
        ] {
            let Some(url) = url else { continue };
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            match rest {
                None | Some("") => problems.add(key, "is a URL that begins with http:// or https://"),
                Some(rest) if rest.split('/').next().is_some_and(|host| host.contains('@')) => {
                    problems.add(key, "must not hold a name or a password");
                }
                Some(_) => {}
            }
        }
    }

    fn check_retrieval(&self, problems: &mut Problems) {
        let (polling, fan_out) = (&self.retrieval.polling, &self.retrieval.fan_out);
        problems.require(
            polling.min_interval <= polling.max_interval,
            "retrieval.polling.maxInterval",
            "must be at least retrieval.polling.minInterval",
        );
        let arn = fan_out.consumer_arn.as_deref();
        problems.require(
            arn.is_none_or(|arn| arn.starts_with("arn:") && arn.contains(":stream/") && arn.contains("/consumer/")),
            "retrieval.fanOut.consumerArn",
            "is the ARN of a consumer: arn:<partition>:kinesis:<region>:<account>:stream/<stream>/consumer/<name>:<time>",
        );
        problems.require(
            arn.is_none() || fan_out.consumer_name.is_none(),
            "retrieval.fanOut.consumerName",
            "and consumerArn exclude each other",
        );
        problems.require(
            arn.is_none() || !fan_out.managed,
            "retrieval.fanOut.managed",
            "has no effect with consumerArn: only a consumer that is given by its name is deregistered",
        );
        if self.retrieval.mode == RetrievalMode::Polling {
            for (is_set, key) in [
                (fan_out.consumer_name.is_some(), "retrieval.fanOut.consumerName"),
                (arn.is_some(), "retrieval.fanOut.consumerArn"),
                (fan_out.managed, "retrieval.fanOut.managed"),
                (fan_out.fallback.enabled, "retrieval.fanOut.fallback.enabled"),
            ] {
                problems.require(!is_set, key, "has no effect while retrieval.mode is Polling");
            }
        }
    }

    fn check_table(&self, problems: &mut Problems) {
        let table = &self.lease_table;
        let name = self.table_name();
        let is_name = (3..=255).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if !name.is_empty() && !is_name && !name.starts_with("arn:") {
            let rule = "a table has a name of 3 to 255 of a-z, A-Z, 0-9, '_', '-' and '.'";
            let text = match table.name {
                Some(_) => rule.to_owned(),
                None => format!("is required, since the application's name names no table: {rule}"),
            };
            problems.add("leaseTable.name", &text);
        }
        let provisioned = table.billing == BillingChoice::Provisioned;
        for (capacity, key) in [
            (table.read_capacity, "leaseTable.readCapacity"),
            (table.write_capacity, "leaseTable.writeCapacity"),
        ] {
            problems.require(
                !provisioned || capacity.is_some(),
                key,
                "is required with leaseTable.billing Provisioned",
            );
            problems.require(
                provisioned || capacity.is_none(),
                key,
                "has no effect unless leaseTable.billing is Provisioned",
            );
        }
        if !table.create {
            for (is_set, key) in [
                (provisioned, "leaseTable.billing"),
                (table.point_in_time_recovery, "leaseTable.pointInTimeRecovery"),
                (table.deletion_protection, "leaseTable.deletionProtection"),
                (table.kms_key.is_some(), "leaseTable.kmsKey"),
                (!table.tags.is_empty(), "leaseTable.tags"),
            ] {
                problems.require(!is_set, key, "has no effect while leaseTable.create is false");
            }
        }
        problems.require(
            table.look_for_java_leader || table.coordinator_table.is_none(),
            "leaseTable.coordinatorTable",
            "has no effect while leaseTable.lookForJavaLeader is false",
        );
        problems.require(
            !table.request_timeout.is_zero() && table.request_timeout <= self.settings.lease_duration / 3,
            "leaseTable.requestTimeout",
            "must be above zero and at most a third of the lease duration, so that a renewal can be repeated",
        );
    }
}

/// The key of a setting, by the name of its field.
pub(crate) fn setting_key(field: &str) -> String {
    let mut key = "settings.".to_owned();
    for (place, word) in field.split('_').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if place > 0 => key.push(first.to_ascii_uppercase()),
            first => key.extend(first),
        }
        key.push_str(letters.as_str());
    }
    key
}

#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, key: &str, message: &str) {
        self.0.push((key.to_owned(), message.to_owned()));
    }

    fn require(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            self.add(key, message);
        }
    }
}
