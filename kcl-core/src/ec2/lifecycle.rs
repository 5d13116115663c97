use std::fmt;
use std::fmt::Debug;

use async_trait::async_trait;

/// What Auto Scaling answered about a lifecycle action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleAnswer {
    /// It was done.
    Done,
    /// No hook waits for this instance: there is none, it does not wait yet, or it was completed before.
    NotWaiting,
}

/// What is wrong with a call about a lifecycle action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleErrorKind {
    /// Too many calls.
    Throttled,
    /// Auto Scaling could not be reached, or did not answer in time. The call may have been carried out.
    Unavailable,
    /// The right is missing.
    Denied,
    /// There is no such group, hook or instance.
    Invalid,
}

/// A call about a lifecycle action failed.
#[derive(Debug, Clone)]
pub struct LifecycleError {
    kind: LifecycleErrorKind,
    message: String,
}

impl LifecycleError {
    /// Creates an error; `message` says which call failed and how.
    #[must_use]
    pub fn new(kind: LifecycleErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> LifecycleErrorKind {
        self.kind
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, LifecycleErrorKind::Throttled | LifecycleErrorKind::Unavailable)
    }
}

impl fmt::Display for LifecycleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LifecycleError {}

/// The lifecycle action that keeps a terminating instance waiting. [`AutoScalingHook`](super::AutoScalingHook) is that
/// of an Auto Scaling group.
///
/// # Contract
/// One call each, without retries, that ends within a few seconds. A hook that does not wait is an answer, not an
/// error. The caller gives up by dropping the future.
#[async_trait]
pub trait LifecycleHook: Debug + Send + Sync + 'static {
    /// Makes the hook's time-out begin anew.
    async fn heartbeat(&self) -> Result<LifecycleAnswer, LifecycleError>;

    /// Lets the instance go on to where it is going.
    async fn complete(&self) -> Result<LifecycleAnswer, LifecycleError>;
}
