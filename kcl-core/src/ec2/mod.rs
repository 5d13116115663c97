//! Life and death of a worker on EC2, by the instance metadata service and Auto Scaling.
//!
//! [`Imds`] speaks IMDSv2. [`Imds::instance`] says which instance this is, for the worker's id. [`InstanceWatch`] looks
//! every few seconds at where Auto Scaling is taking the instance and at Spot notices, turns them into shutdowns, keeps
//! the [`LifecycleHook`] waiting while shards drain, and completes the lifecycle action when they have. Off EC2 it says
//! so once and is quiet. `examples/ec2-autoscaling` has everything around it.

mod auto_scaling;
mod course;
mod error;
mod imds;
mod instance;
mod lifecycle;
mod notice;
mod observation;
mod settings;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

pub use auto_scaling::AutoScalingHook;
pub use error::{MetadataError, MetadataErrorKind};
pub use imds::Imds;
pub use instance::Instance;
pub use lifecycle::{LifecycleAnswer, LifecycleError, LifecycleErrorKind, LifecycleHook};
pub use notice::{Notice, Reason};
pub use observation::{SpotInterruption, TargetState};
pub use settings::{ActivateWhen, InstanceSettings, OnRebalance};
pub use transport::{MetadataAnswer, MetadataRequest, MetadataTransport, TransportError};
pub use watch::{InstanceReport, InstanceWatch};
