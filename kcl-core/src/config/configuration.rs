//! The whole configuration.

use serde::{Deserialize, Serialize};

use super::parts::{
    CheckpointConfiguration, EndpointConfiguration, ErrorConfiguration, LeaseTableConfiguration,
    MetricsConfiguration, PlacementConfiguration, RetrievalConfiguration,
};
use super::position;
use crate::model::InitialPosition;
use crate::scheduler::{Coordination, ForeignLeases, StartMode, Takeover};
use crate::settings::Settings;

/// Everything about a worker that is data. Start from [`Configuration::new`] or a
/// [`ConfigurationLoader`](super::ConfigurationLoader), and change what you need.
///
/// Serialised, durations are in milliseconds, names in camel case, `initialPosition` a text; missing fields have their
/// defaults, unknown ones are refused. [`to_toml`](Self::to_toml) writes durations as people do, and the loader takes
/// both. Nothing here is a secret: credentials come with the SDK's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Configuration {
    /// The application's name. Required.
    pub application: String,
    /// The stream's name or ARN. Required.
    pub stream: String,
    /// This worker's id. Default: a random UUID.
    pub worker_id: Option<String>,
    /// The region of the SDK's clients. Default: what the SDK finds.
    pub region: Option<String>,
    /// Where the services are, if not where the SDK finds them.
    pub endpoints: EndpointConfiguration,
    /// Where to start on shards without a checkpoint. Default: with the oldest record.
    #[serde(with = "position")]
    pub initial_position: InitialPosition,
    /// How workers agree on who processes what. Default: as a fleet.
    pub coordination: Coordination,
    /// What to do beside workers that coordinate in another way. Default: refuse.
    pub takeover: Takeover,
    /// Whether the worker takes leases from the start. Default: it does.
    pub start_mode: StartMode,
    /// What to do with leases that do not belong to the stream. Default: refuse.
    pub foreign_leases: ForeignLeases,
    /// How leases are shared out in a fleet.
    pub placement: PlacementConfiguration,
    /// Who stores checkpoints, and when.
    pub checkpoint: CheckpointConfiguration,
    /// What a failed callback means.
    pub on_error: ErrorConfiguration,
    /// How shards are read.
    pub retrieval: RetrievalConfiguration,
    /// The lease table.
    pub lease_table: LeaseTableConfiguration,
    /// What is sent to CloudWatch.
    pub metrics: MetricsConfiguration,
    /// The numbers.
    pub settings: Settings,
}

impl Configuration {
    /// The defaults for an application and the name or ARN of its stream.
    #[must_use]
    pub fn new(application: impl Into<String>, stream: impl Into<String>) -> Self {
        Self { application: application.into(), stream: stream.into(), ..Self::default() }
    }

    /// The name of the lease table: its own, or the application's.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.lease_table.name.as_deref().unwrap_or(&self.application)
    }

    /// The CloudWatch namespace: its own, or the application's name.
    #[must_use]
    pub fn metrics_namespace(&self) -> &str {
        self.metrics.namespace.as_deref().unwrap_or(&self.application)
    }
}
