use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::StalledStreamProtectionConfig;
use aws_sdk_autoscaling::config::retry::RetryConfig;
use aws_sdk_autoscaling::config::timeout::TimeoutConfig;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};

use super::instance::Instance;
use super::lifecycle::{LifecycleAnswer, LifecycleError, LifecycleErrorKind, LifecycleHook};
use crate::error::Chain;

/// How long one call may take, fetching credentials included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the service says if no hook waits for the instance. It has no error code of its own.
const NOT_WAITING: &str = "No active Lifecycle Action";

/// The termination hook of an Auto Scaling group, by `RecordLifecycleActionHeartbeat` and `CompleteLifecycleAction`.
///
/// The worker needs these two rights on the group and nothing else of Auto Scaling. The action is completed with
/// `CONTINUE`; on termination that and `ABANDON` both let the instance go, and `ABANDON` would skip other hooks.
#[derive(Clone, Debug)]
pub struct AutoScalingHook {
    client: Client,
    group: String,
    hook: String,
    instance: String,
}

impl AutoScalingHook {
    /// The hook of this name, of the group of this name, for `instance`.
    ///
    /// Region, endpoint, credentials and connections are the client's; its retries are switched off, since the watch
    /// retries, and each call has five seconds.
    #[must_use]
    pub fn new(
        client: &Client,
        group: impl Into<String>,
        hook: impl Into<String>,
        instance: &Instance,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CALL_TIMEOUT)
            .operation_attempt_timeout(CALL_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = client
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self {
            client: Client::from_conf(config),
            group: group.into(),
            hook: hook.into(),
            instance: instance.id.clone(),
        }
    }

    fn answer<T, E>(
        &self,
        operation: &str,
        outcome: Result<T, SdkError<E>>,
    ) -> Result<LifecycleAnswer, LifecycleError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = match outcome {
            Ok(_) => return Ok(LifecycleAnswer::Done),
            Err(error) => error,
        };
        let code = error.code().unwrap_or_default();
        let message = error.message().unwrap_or_default();
        if code == "ValidationError" && message.contains(NOT_WAITING) {
            return Ok(LifecycleAnswer::NotWaiting);
        }
        let (kind, remedy) = match code {
            "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "ResourceContention" => {
                (LifecycleErrorKind::Throttled, String::new())
            }
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                (LifecycleErrorKind::Denied, format!("; allow autoscaling:{operation} on the group"))
            }
            "ExpiredToken"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => {
                (LifecycleErrorKind::Denied, "; check the credentials".to_owned())
            }
            "ValidationError" => (
                LifecycleErrorKind::Invalid,
                "; check the names of group and hook, and the region".to_owned(),
            ),
            _ if matches!(error, SdkError::ConstructionFailure(_)) => {
                (LifecycleErrorKind::Invalid, "; check region and credentials of the client".to_owned())
            }
            _ => (LifecycleErrorKind::Unavailable, String::new()),
        };
        let Self { group, hook, instance, .. } = self;
        let cause = match error.as_service_error() {
            Some(_) if !code.is_empty() => format!("{code}: {message}"),
            _ => Chain(&error).to_string(),
        };
        Err(LifecycleError::new(
            kind,
            format!("{operation} of hook {hook} of group {group} for {instance} failed: {cause}{remedy}"),
        ))
    }
}

#[async_trait]
impl LifecycleHook for AutoScalingHook {
    async fn heartbeat(&self) -> Result<LifecycleAnswer, LifecycleError> {
        let call = self
            .client
            .record_lifecycle_action_heartbeat()
            .auto_scaling_group_name(&self.group)
            .lifecycle_hook_name(&self.hook)
            .instance_id(&self.instance)
            .send();
        self.answer("RecordLifecycleActionHeartbeat", Box::pin(call).await)
    }

    async fn complete(&self) -> Result<LifecycleAnswer, LifecycleError> {
        let call = self
            .client
            .complete_lifecycle_action()
            .auto_scaling_group_name(&self.group)
            .lifecycle_hook_name(&self.hook)
            .instance_id(&self.instance)
            .lifecycle_action_result("CONTINUE")
            .send();
        self.answer("CompleteLifecycleAction", Box::pin(call).await)
    }
}
