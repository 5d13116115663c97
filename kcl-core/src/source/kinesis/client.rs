//! The client as this crate uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::result::ConnectorError;

/// The longest time to open a connection, unless the client's owner chose one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What the client's configuration proved to be good for.
///
/// The SDK reports a missing credentials provider or region in the same untyped way as a connector's unknown
/// error. Both faults are in the configuration, so a client that has signed one request has neither.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    signed: Arc<AtomicBool>,
}

impl Readiness {
    pub(super) fn has_signed(&self) -> bool {
        self.signed.load(Ordering::Relaxed)
    }
}

/// Copies `client` with our own retries and time-outs.
pub(super) fn adopt(client: &Client, call_timeout: Duration, readiness: &Readiness) -> Client {
    let config = client.config();
    let theirs = config.timeout_config();
    let mut timeouts = TimeoutConfig::builder()
        .connect_timeout(theirs.and_then(TimeoutConfig::connect_timeout).unwrap_or(CONNECT_TIMEOUT))
        .operation_attempt_timeout(call_timeout)
        .disable_operation_timeout();
    timeouts.set_read_timeout(theirs.and_then(TimeoutConfig::read_timeout));
    let config = config
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build())
        // The time-out of the attempt bounds the reading of the body too. The protection would add nothing but
        // false alarms when the runtime is busy and the body waits to be read.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .interceptor(Watch { readiness: readiness.clone() })
        .build();
    Client::from_conf(config)
}

/// Notes that requests get signed, and closes connections whose calls time out.
#[derive(Debug)]
struct Watch {
    readiness: Readiness,
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "KinesisStreamWatch"
    }

    fn read_after_signing(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.readiness.signed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A connection that swallowed a call may be dead without knowing it, and HTTP/2 would put every further call
    /// on it. The SDK takes a connection out of use after errors the service answers with, not after time-outs.
    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let timed_out = context.output_or_error().and_then(Result::err).is_some_and(|error| {
            error.is_timeout_error() || error.as_connector_error().is_some_and(ConnectorError::is_timeout)
        });
        if timed_out
            && let Some(connection) = cfg.load::<CaptureSmithyConnection>().and_then(|capture| capture.get())
        {
            connection.poison();
        }
        Ok(())
    }
}
