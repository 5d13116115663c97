//! A local Kinesis, DynamoDB and CloudWatch for tests and first steps.
//!
//! `LocalAws` starts the services and hands out an `SdkConfig` from which
//! every client of the AWS SDK is made:
//!
//! ```
//! # #[cfg(feature = "aws")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let aws = kcl_local::LocalAws::in_process()?;
//! let dynamodb = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
//! assert!(dynamodb.list_tables().send().await?.table_names().is_empty());
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "aws"))]
//! # fn main() {}
//! ```
//!
//! There are two transports over the same services. `LocalAws::in_process` needs no socket and
//! works under tokio's paused clock, so a test can run hours in milliseconds.
//! `LocalAws::start` listens on loopback, for first steps and for clients in any language.
//! `faults::Faults` makes calls fail, on either of them and against AWS itself.
//!
//! | feature | what it adds |
//! |---|---|
//! | (none) | the models and their [`clock`]; the only dependency is `bytes` |
//! | `wire` | the AWS JSON protocol and its event streams: `services::Services` answers a request given as bytes |
//! | `tokio` | a clock that follows tokio's, and subscriptions that can be awaited |
//! | `dynamodb` | DynamoDB, by the `dynoxide-rs` library |
//! | `cloudwatch` | CloudWatch `PutMetricData`, captured for assertions; not in the default set |
//! | `ec2` | the instance metadata service of EC2 and the lifecycle actions of Auto Scaling; not in the default set |
//! | `client` | HTTP clients for the SDK, and the fault layer |
//! | `server` | loopback sockets |
//! | `aws` (default) | `LocalAws` |

#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "ec2")]
pub mod ec2;
pub mod error;
#[cfg(feature = "wire")]
pub mod event_stream;
#[cfg(feature = "client")]
pub mod faults;
pub mod kinesis;
#[cfg(feature = "aws")]
pub mod local_aws;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "wire")]
pub mod services;
#[cfg(feature = "wire")]
pub mod wire;

#[cfg(feature = "aws")]
pub use local_aws::LocalAws;
