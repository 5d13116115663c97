//! The services a command talks to, and patience with them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use kcl_core::lease::StoreError;
use kcl_core::source::kinesis::{KinesisStream, PollingConfig};
use kcl_core::{Clock, SystemClock};
use kcl_lease_dynamo::{DynamoLeaseStore, TableMode};
use tokio::time::sleep;

use crate::args::Connection;
use crate::error::{CliError, usage};

/// How long one call may take. A tool runs from far away and has nobody's lease to renew.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How often a call is made before its failure is reported, and the first pause.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Where the services are, and which table and stream are meant.
#[derive(Clone, Debug)]
pub struct Access {
    config: SdkConfig,
    connection: Connection,
    clock: Arc<dyn Clock>,
}

impl Access {
    /// Takes region, credentials and endpoint from `connection`, the environment and the usual files.
    pub async fn from_environment(connection: Connection) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &connection.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &connection.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &connection.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        Self::new(loader.load().await, connection)
    }

    /// Knows no service: for commands that ask none. Looks for nothing, which could take its time without a network.
    #[must_use]
    pub fn nowhere(connection: Connection) -> Self {
        Self::new(SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build(), connection)
    }

    /// Uses a configuration as it is.
    #[must_use]
    pub fn new(config: SdkConfig, connection: Connection) -> Self {
        Self { config, connection, clock: Arc::new(SystemClock) }
    }

    /// Sets the wall clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The time.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The name of the lease table.
    pub(crate) fn table(&self) -> Result<&str, CliError> {
        let Connection { table, application, .. } = &self.connection;
        table.as_deref().or(application.as_deref()).ok_or_else(|| {
            usage("which application?")
                .with_hint("give --application NAME, or --table NAME if the table's name differs")
        })
    }

    /// The application, for show.
    pub(crate) fn application(&self) -> Option<&str> {
        self.connection.application.as_deref()
    }

    /// The lease duration that the workers are configured with.
    pub(crate) const fn lease_duration(&self) -> Duration {
        self.connection.lease_duration
    }

    /// The stream that was named.
    pub(crate) fn stream_name(&self) -> Option<&str> {
        self.connection.stream.as_deref()
    }

    /// The lease table. It is never created by this store.
    pub(crate) fn store(&self) -> Result<DynamoLeaseStore, CliError> {
        let store = DynamoLeaseStore::new(aws_sdk_dynamodb::Client::new(&self.config), self.table()?)
            .with_request_timeout(CALL_LIMIT)
            .with_table_mode(TableMode::MustExist);
        // Java names its coordinator's table after the application, not after the lease table.
        Ok(match self.application() {
            Some(application) => {
                store.with_legacy_coordinator_table(format!("{application}-CoordinatorState"))
            }
            None => store,
        })
    }

    /// The client itself, for tables that are no lease tables.
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    /// A stream, read a record at a time.
    pub(crate) fn stream(&self, name_or_arn: &str) -> KinesisStream {
        let mut polling = PollingConfig::default();
        polling.fetch_records = 1;
        KinesisStream::new(aws_sdk_kinesis::Client::new(&self.config), name_or_arn).with_polling(polling)
    }
}

/// Makes a read until it succeeds, a few times at most; waits in between if that can help.
pub(crate) async fn patiently<T, E, F>(mut call: impl FnMut() -> F) -> Result<T, CliError>
where
    E: Into<CliError> + Retryable,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error) if error.can_be_retried() => sleep(pause).await,
            outcome => return outcome.map_err(Into::into),
        }
        pause *= 2;
    }
    call().await.map_err(Into::into)
}

/// A failure that may pass by itself.
pub(crate) trait Retryable {
    fn can_be_retried(&self) -> bool;
}

impl Retryable for StoreError {
    fn can_be_retried(&self) -> bool {
        self.is_retryable()
    }
}

impl Retryable for kcl_core::source::SourceError {
    fn can_be_retried(&self) -> bool {
        self.is_retryable()
    }
}
