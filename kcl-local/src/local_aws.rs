//! One call that starts everything.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::sdk_config::{SharedTimeSource, TimeSource};

use crate::client::{InProcessClient, PlainHttpClient};
use crate::clock::{Clock, SharedClock, SystemClock, TokioClock};
#[cfg(feature = "cloudwatch")]
use crate::cloudwatch::CloudWatch;
use crate::dynamodb::DynamoDb;
use crate::faults::Faults;
use crate::kinesis::{Kinesis, KinesisOptions};
use crate::server::{Server, ServerOptions};
use crate::services::Services;

/// The region of every configuration handed out.
pub const REGION: &str = "us-east-1";

/// Local Kinesis, DynamoDB (and, with the feature, CloudWatch) with a configuration for the SDK.
///
/// Dropping it stops the sockets: the port refuses connections from then on. The in-process form
/// lives as long as a configuration made from it does.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let aws = kcl_local::LocalAws::start().await?;
/// let kinesis = aws_sdk_kinesis::Client::new(&aws.sdk_config());
/// kinesis.create_stream().stream_name("orders").shard_count(4).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LocalAws {
    services: Services,
    dynamodb: DynamoDb,
    http_client: SharedHttpClient,
    endpoint_url: String,
    server: Option<Box<Server>>,
}

impl LocalAws {
    /// Serves on a free loopback port, on the wall clock.
    ///
    /// # Errors
    /// See [`LocalAwsBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Serves without sockets, on tokio's clock: under a paused one too.
    ///
    /// # Errors
    /// See [`LocalAwsBuilder::in_process`].
    pub fn in_process() -> Result<Self, StartError> {
        Self::builder().in_process()
    }

    /// Starts with the settings to be changed.
    pub fn builder() -> LocalAwsBuilder {
        LocalAwsBuilder::default()
    }

    /// A configuration from which every SDK client can be made, with dummy credentials.
    ///
    /// In process the SDK tells the time by the services' clock, too.
    ///
    /// Retries and timeouts are the SDK's defaults. Its backoff sleeps on tokio's clock but takes
    /// its jitter from an unseeded source: for repeatable tests switch retries off, with
    /// `aws_sdk_….config::Builder::from(&aws.sdk_config()).retry_config(RetryConfig::disabled())`.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::new("local", "local", None, None, "kcl-local");
        let time_source = self.server.is_none().then(|| {
            // The SDK measures how fast bodies flow: under a paused clock it must not do so by the
            // operating system's.
            SharedTimeSource::new(ServiceTime(Arc::clone(self.kinesis().clock())))
        });
        let mut config = SdkConfig::builder();
        config.set_time_source(time_source);
        config
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static(REGION))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(&self.endpoint_url)
            .http_client(self.http_client.clone())
            .build()
    }

    /// The URL of all services. Without sockets it is a placeholder that only
    /// [`sdk_config`](Self::sdk_config) can reach.
    #[must_use]
    pub fn endpoint_url(&self) -> &str {
        &self.endpoint_url
    }

    /// The port that is listened on; `None` without sockets.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.server.as_ref().map(|server| server.address().port())
    }

    /// The server; `None` without sockets.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }

    /// The HTTP client of [`sdk_config`](Self::sdk_config), to be wrapped or put elsewhere.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        self.http_client.clone()
    }

    /// The services, to be called without HTTP.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The Kinesis model.
    #[must_use]
    pub fn kinesis(&self) -> &Kinesis {
        self.services.kinesis()
    }

    /// DynamoDB, for what cannot be asked through its own interface.
    #[must_use]
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }
}

/// The services' clock as the SDK reads it.
#[derive(Debug)]
struct ServiceTime(SharedClock);

impl TimeSource for ServiceTime {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

/// Settings of a [`LocalAws`].
#[derive(Debug, Default)]
#[must_use]
pub struct LocalAwsBuilder {
    clock: Option<SharedClock>,
    kinesis_options: KinesisOptions,
    server_options: ServerOptions,
    faults: Option<Faults>,
}

impl LocalAwsBuilder {
    /// The clock of all services. The default is the wall clock over sockets; in process it starts
    /// at the wall clock's time and then follows tokio's.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How Kinesis behaves: delays, lifetimes, limits. The default enforces no rates.
    ///
    /// They can be changed later by `aws.kinesis().configure(..)`.
    pub fn kinesis_options(mut self, options: KinesisOptions) -> Self {
        self.kinesis_options = options;
        self
    }

    /// The loopback port, by default a free one. Without effect in process.
    pub fn port(mut self, port: u16) -> Self {
        self.server_options.port = port;
        self
    }

    /// The most requests that an HTTP/2 connection carries at a time, by default 200. Without effect in process.
    pub fn max_concurrent_streams(mut self, count: u32) -> Self {
        self.server_options.max_concurrent_streams = count;
        self
    }

    /// Puts a fault layer around the client of the configurations handed out.
    ///
    /// It sits on the caller's side: requests of other clients over a socket do not pass it.
    pub fn faults(mut self, faults: &Faults) -> Self {
        self.faults = Some(faults.clone());
        self
    }

    /// Serves on loopback, on a thread of its own.
    ///
    /// # Errors
    /// The port is taken, or the system has no thread or memory left.
    pub async fn start(self) -> Result<LocalAws, StartError> {
        let (services, dynamodb) = self.services(|| Arc::new(SystemClock))?;
        let server = Server::start_with(services.clone(), self.server_options).await;
        let server = server.map_err(StartError::new)?;
        let endpoint_url = format!("http://{}", server.address());
        let http_client = self.wrap(SharedHttpClient::new(PlainHttpClient::new()));
        Ok(LocalAws { services, dynamodb, http_client, endpoint_url, server: Some(Box::new(server)) })
    }

    /// Serves in process.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn in_process(self) -> Result<LocalAws, StartError> {
        let (services, dynamodb) = self.services(|| Arc::new(TokioClock::new(SystemClock.now())))?;
        let http_client = self.wrap(SharedHttpClient::new(InProcessClient::new(services.clone())));
        let endpoint_url = "http://in-process.invalid".to_owned();
        Ok(LocalAws { services, dynamodb, http_client, endpoint_url, server: None })
    }

    fn services(
        &self,
        default_clock: impl FnOnce() -> SharedClock,
    ) -> Result<(Services, DynamoDb), StartError> {
        let clock = self.clock.clone().unwrap_or_else(default_clock);
        let dynamodb = DynamoDb::new(Arc::clone(&clock)).map_err(StartError::new)?;
        let kinesis = Kinesis::with_options(clock, self.kinesis_options.clone());
        let services = Services::new(kinesis).with_dynamodb(dynamodb.clone());
        #[cfg(feature = "cloudwatch")]
        let services = services.with_cloudwatch(CloudWatch::new());
        Ok((services, dynamodb))
    }

    fn wrap(&self, client: SharedHttpClient) -> SharedHttpClient {
        match &self.faults {
            Some(faults) => faults.wrap(client),
            None => client,
        }
    }
}

/// The local services could not be started.
#[derive(Debug)]
pub struct StartError {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source) }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot start the local services")
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}
