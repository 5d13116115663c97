//! What an EC2 instance in an Auto Scaling group sees: its metadata service and the lifecycle actions of its group.
//!
//! [`Imds`] speaks IMDSv2: a session token by `PUT`, values by `GET` with the token. [`AutoScaling`] speaks the query
//! protocol of `RecordLifecycleActionHeartbeat` and `CompleteLifecycleAction`. Both are models that answer a
//! [`Message`]; [`Server`] puts one on a loopback socket, `InProcess` (feature `client`) under an SDK client.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kcl_local::ec2::{Imds, Server};
//!
//! let imds = Imds::default();
//! let server = Server::start(imds.clone()).await?;
//! println!("AWS_EC2_METADATA_SERVICE_ENDPOINT={}", server.endpoint());
//! imds.set("autoscaling/target-lifecycle-state", "Terminated");
//! # Ok(())
//! # }
//! ```

mod auto_scaling;
mod imds;
#[cfg(feature = "client")]
mod in_process;
mod server;

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;

pub use auto_scaling::{AutoScaling, LifecycleCall, Refusal};
pub use imds::{Imds, Mood};
#[cfg(feature = "client")]
pub use in_process::InProcess;
pub use server::Server;

/// An HTTP request, as the models see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The method, in capitals.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// The headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
}

/// An HTTP answer of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }
}

/// A model that answers requests.
pub trait Service: Clone + Debug + Send + Sync + 'static {
    /// Answers a request; none if it is never answered.
    fn answer(&self, message: &Message) -> Option<Answer>;
}
