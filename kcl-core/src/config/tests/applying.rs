use std::time::Duration;

use super::super::Configuration;
use super::super::parts::{CheckpointChoice, FailureAction, PlacementChoice};
use crate::checkpointer::CheckpointPolicy;
use crate::error::ErrorKind;
use crate::plan::PlacementStrategy;

#[test]
fn build_names_problems_by_their_keys() {
    let mut configuration = Configuration::new("orders-app", "");
    configuration.settings.lease_duration = Duration::ZERO;
    configuration.checkpoint.policy = CheckpointChoice::Every;
    configuration.worker_id = Some("Leader".to_owned());
    let error = configuration.scheduler().build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let said = error.to_string();
    for part in [
        "settings.leaseDuration must be",
        "settings.leaseSafetyMargin must be",
        "stream is required",
        "checkpoint.interval is required with checkpoint.policy Every",
        "\"Leader\" is the key of another kind of row",
        "a lease store is missing",
    ] {
        assert_eq!(said.matches(part).count(), 1, "{part}: {said}");
    }
    let settings = crate::Settings { lease_duration: Duration::ZERO, ..crate::Settings::default() };
    let said = crate::Scheduler::builder("orders-app").settings(settings).build().unwrap_err().to_string();
    assert!(said.contains("- lease_duration must be"), "{said}");
}

#[test]
fn choices_become_policies() {
    let mut configuration = Configuration::new("orders-app", "orders");
    assert_eq!(configuration.checkpoint_policy(), CheckpointPolicy::Manual);
    configuration.checkpoint.policy = CheckpointChoice::Every;
    configuration.checkpoint.interval = Some(Duration::from_secs(5));
    assert_eq!(configuration.checkpoint_policy(), CheckpointPolicy::Every(Duration::from_secs(5)));
    assert_eq!(configuration.placement_strategy(), PlacementStrategy::Count);
    configuration.placement.strategy = PlacementChoice::Load;
    assert_eq!(configuration.placement_strategy(), PlacementStrategy::Load { dead_band: 15, damping: 50 });
}

#[test]
fn failures_are_retried_until_there_are_enough_of_them() {
    use crate::processor::{Callback, ErrorPolicy, OnError, ProcessorFailure};
    let mut configuration = Configuration::new("orders-app", "orders");
    let shard = shard();
    let error: crate::BoxError = "broken".into();
    let decide = |configuration: &Configuration, failures| {
        configuration.error_policy().on_error(&ProcessorFailure {
            shard: &shard,
            callback: Callback::ProcessRecords,
            failures,
            error: &error,
            panicked: false,
            batch: None,
        })
    };
    assert_eq!(decide(&configuration, 1_000), OnError::Retry, "by default nothing is ever skipped (D-1)");
    configuration.on_error.action = FailureAction::Skip;
    configuration.on_error.after_failures = 3;
    assert_eq!(
        [1, 2, 3, 4].map(|count| decide(&configuration, count)),
        [OnError::Retry, OnError::Retry, OnError::Skip, OnError::Skip]
    );
}

#[cfg(feature = "fan-out-without-tls")]
#[test]
fn fan_out_has_the_same_defaults_as_data_and_in_code() {
    use super::super::parts::RetrievalMode;
    use crate::source::kinesis::{FallbackConfig, FanOutConfig, FanOutConsumer, Retrieval};
    let mut configuration = Configuration::new("orders-app", "orders");
    assert_eq!(configuration.retrieval().unwrap(), Retrieval::default());
    configuration.retrieval.mode = RetrievalMode::FanOut;
    let mut expected = FanOutConfig::new(FanOutConsumer::Named("orders-app".to_owned()));
    assert_eq!(configuration.retrieval().unwrap(), Retrieval::FanOut(expected.clone()));
    let fan_out = &mut configuration.retrieval.fan_out;
    (fan_out.managed, fan_out.consumer_name) = (true, Some("other".to_owned()));
    fan_out.fallback.enabled = true;
    expected.consumer = FanOutConsumer::Managed("other".to_owned());
    expected.fallback = Some(FallbackConfig::default());
    assert_eq!(configuration.retrieval().unwrap(), Retrieval::FanOut(expected));
}

fn shard() -> crate::ShardContext {
    crate::ShardContext {
        stream: crate::model::StreamIdentity {
            arn: "arn:aws:kinesis:eu-west-1:1:stream/orders".to_owned(),
            created_millis: 0,
        },
        shard: crate::ShardId::new("shardId-000000000000"),
        hash_key_range: None,
        checkpoint: crate::model::Checkpoint::TrimHorizon,
        pending: None,
    }
}
