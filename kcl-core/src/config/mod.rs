//! The configuration of a worker as data: TOML, environment variables, and `.properties` files of the Java KCL.
//!
//! Feature `config`. A [`Configuration`] holds everything about a worker that is data; components (the stream, the lease
//! store, the processor, a load source) remain code. [`ConfigurationLoader`] puts it together in layers, each over the
//! last: defaults, TOML, environment variables, values given by the program. It lists every problem at once, with file
//! and line or variable. [`convert_properties`] makes one of a `.properties` file, with a report of every key in it.
//! `docs/configuration.md` in the repository has every key with its variable, default and range.
//!
//! ```
//! use kcl_core::config::ConfigurationLoader;
//!
//! # fn main() -> Result<(), kcl_core::config::ConfigurationError> {
//! let configuration = ConfigurationLoader::new()
//!     .toml("consumer.toml", "application = 'orders-app'\nstream = 'orders'\nsettings.leaseDuration = '20s'")
//!     .variables([("KCL_SETTINGS__MAX_LEASES", "8")])
//!     .set("workerId", "worker-1")
//!     .load()?;
//! assert_eq!(configuration.settings.max_leases, 8);
//! # Ok(())
//! # }
//! ```
//!
//! `Configuration::scheduler` then begins a `SchedulerBuilder`; `KinesisStream::configured` and
//! `kcl_lease_dynamo::DynamoLeaseStore::configured` make the usual stream and lease store of it.

mod apply;
mod check;
mod configuration;
mod key;
mod loader;
mod parts;
mod position;
mod problem;
mod properties;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod write;

pub(crate) use check::setting_key;
pub use configuration::Configuration;
pub use loader::ConfigurationLoader;
pub use parts::{
    BillingChoice, CheckpointChoice, CheckpointConfiguration, EndpointConfiguration, ErrorConfiguration,
    FailureAction, FallbackConfiguration, FanOutConfiguration, LeaseTableConfiguration, MetricsChoice,
    MetricsConfiguration, PlacementChoice, PlacementConfiguration, RetrievalConfiguration, RetrievalMode,
};
pub use problem::{ConfigurationError, Origin, Problem};
pub use properties::{
    Assumption, Conversion, PropertiesReport, PropertyEntry, PropertyTreatment, convert_properties,
};
