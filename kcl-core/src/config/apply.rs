//! Giving a configuration to what it configures.

use super::configuration::Configuration;
use super::parts::{CheckpointChoice, FailureAction, PlacementChoice};
use crate::checkpointer::CheckpointPolicy;
use crate::plan::PlacementStrategy;
use crate::processor::{ErrorPolicy, OnError, ProcessorFailure};
use crate::scheduler::{Scheduler, SchedulerBuilder};

impl Configuration {
    /// Begins a scheduler with everything in this configuration. What is missing are the components: the stream, the
    /// lease store, the processor.
    pub fn scheduler(&self) -> SchedulerBuilder {
        Scheduler::builder(&self.application).configure(self)
    }

    /// The checkpoint policy.
    #[must_use]
    pub fn checkpoint_policy(&self) -> CheckpointPolicy {
        match (self.checkpoint.policy, self.checkpoint.interval) {
            (CheckpointChoice::AfterBatch, _) => CheckpointPolicy::AfterBatch,
            (CheckpointChoice::Every, Some(interval)) => CheckpointPolicy::Every(interval),
            // An interval that is missing is reported by build().
            (CheckpointChoice::Manual | CheckpointChoice::Every, _) => CheckpointPolicy::Manual,
        }
    }

    /// How leases are shared out.
    #[must_use]
    pub const fn placement_strategy(&self) -> PlacementStrategy {
        let placement = &self.placement;
        match placement.strategy {
            PlacementChoice::Count => PlacementStrategy::Count,
            PlacementChoice::Load => {
                PlacementStrategy::Load { dead_band: placement.dead_band, damping: placement.damping }
            }
        }
    }

    /// The error policy.
    #[must_use]
    pub fn error_policy(&self) -> impl ErrorPolicy + use<> {
        let on_error = self.on_error.clone();
        move |failure: &ProcessorFailure<'_>| {
            if failure.failures < on_error.after_failures {
                return OnError::Retry;
            }
            match on_error.action {
                FailureAction::Retry => OnError::Retry,
                FailureAction::ReleaseLease => OnError::ReleaseLease,
                FailureAction::StopScheduler => OnError::StopScheduler,
                FailureAction::Skip => OnError::Skip,
            }
        }
    }
}

#[cfg(feature = "kinesis")]
mod kinesis {
    use super::super::configuration::Configuration;
    use super::super::parts::RetrievalMode;
    use super::super::problem::ConfigurationError;
    #[cfg(not(feature = "fan-out-without-tls"))]
    use super::super::problem::{Origin, Problem};
    #[cfg(feature = "fan-out-without-tls")]
    use crate::source::kinesis::{FallbackConfig, FanOutConfig, FanOutConsumer};
    use crate::source::kinesis::{KinesisStream, Retrieval};

    impl KinesisStream {
        /// Creates the source that a configuration describes, by a client made for its region and endpoint.
        ///
        /// # Errors
        /// If it asks for enhanced fan-out and this program was built without the feature `fan-out`.
        pub fn configured(
            client: aws_sdk_kinesis::Client,
            configuration: &Configuration,
        ) -> Result<Self, ConfigurationError> {
            let retrieval = configuration.retrieval()?;
            Ok(Self::new(client, &configuration.stream).with_retrieval(retrieval))
        }
    }

    impl Configuration {
        /// How shards are read.
        ///
        /// # Errors
        /// If it is by enhanced fan-out and this program was built without the feature `fan-out`.
        pub fn retrieval(&self) -> Result<Retrieval, ConfigurationError> {
            match self.retrieval.mode {
                RetrievalMode::Polling => Ok(Retrieval::Polling(self.retrieval.polling.clone())),
                #[cfg(feature = "fan-out-without-tls")]
                RetrievalMode::FanOut => Ok(Retrieval::FanOut(self.fan_out())),
                #[cfg(not(feature = "fan-out-without-tls"))]
                RetrievalMode::FanOut => {
                    let message =
                        "is FanOut, but this program was built without the feature fan-out of kcl-core";
                    let problem = Problem::new(Origin::Program, "retrieval.mode", message);
                    Err(ConfigurationError::new(vec![problem]))
                }
            }
        }

        #[cfg(feature = "fan-out-without-tls")]
        fn fan_out(&self) -> FanOutConfig {
            let ours = &self.retrieval.fan_out;
            let name = || ours.consumer_name.as_ref().unwrap_or(&self.application).clone();
            let consumer = match &ours.consumer_arn {
                Some(arn) => FanOutConsumer::Arn(arn.clone()),
                None if ours.managed => FanOutConsumer::Managed(name()),
                None => FanOutConsumer::Named(name()),
            };
            let mut config = FanOutConfig::new(consumer);
            config.timeouts = ours.timeouts.clone();
            config.subscriptions_per_connection = ours.subscriptions_per_connection;
            config.buffer_bytes = ours.buffer_bytes;
            config.fallback = ours.fallback.enabled.then(|| FallbackConfig {
                after: ours.fallback.after,
                retry_interval: ours.fallback.retry_interval,
                polling: self.retrieval.polling.clone(),
            });
            config
        }
    }
}
