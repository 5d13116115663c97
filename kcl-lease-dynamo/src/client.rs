//! The SDK client as the store uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Builder, ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::error::BoxError;

/// How long a call may take that prepares the table: the first of them also opens the connection and fetches
/// credentials, which can take seconds and happens once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rebuilds the user's client: same region, endpoint, credentials and connections; no retries, one time-out.
///
/// Retries belong to the caller, which alone knows whether a write may be repeated. Protection against stalled
/// streams is switched off because the time-out bounds every call with its answer, which is at most one page;
/// the protection would only add a second clock to it.
pub(crate) fn rebuild(client: &Client, time_out: Duration) -> Client {
    let config = client
        .config()
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(time_outs(time_out))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn time_outs(time_out: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(time_out)
        .read_timeout(time_out)
        .operation_attempt_timeout(time_out)
        .operation_timeout(time_out)
        .build()
}

/// What a call overrides that may take longer than others.
pub(crate) fn patiently(time_out: Duration) -> Builder {
    Builder::new().timeout_config(time_outs(time_out.max(PATIENCE)))
}

/// Learns whether a request left: what failed before that was not applied for sure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    sent: Arc<AtomicBool>,
}

impl Witness {
    pub(crate) fn saw_it_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }
}

impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    /// When: after signing, right before the request is handed to the connection.
    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.sent.store(true, Ordering::Release);
        Ok(())
    }
}
