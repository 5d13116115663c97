use std::fmt;
use std::time::{Duration, SystemTime};

use tracing::{debug, error, info, warn};

use super::error::{MetadataError, MetadataErrorKind};
use super::lifecycle::{LifecycleAnswer, LifecycleError};
use super::observation::{SpotInterruption, TargetState};

/// Why a worker is shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Auto Scaling terminates the instance.
    Terminating,
    /// Auto Scaling takes the instance out of service, to `Standby` or to the warm pool; it may come back.
    OutOfService(TargetState),
    /// EC2 takes the Spot instance back.
    Spot(SpotInterruption),
    /// EC2 recommends to replace the instance.
    Rebalance,
}

impl Reason {
    /// Whether the instance may take work again afterwards, and so the process is to be started again.
    #[must_use]
    pub const fn may_come_back(&self) -> bool {
        matches!(self, Self::OutOfService(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminating => f.write_str("the instance is being terminated"),
            Self::OutOfService(state) => write!(f, "the instance is being taken out of service ({state})"),
            Self::Spot(notice) => write!(f, "the Spot instance is being taken back ({})", notice.action),
            Self::Rebalance => f.write_str("EC2 recommends to replace the instance"),
        }
    }
}

/// Something that an [`InstanceWatch`](super::InstanceWatch) noticed or did. Each is told, and logged, once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The metadata service answers.
    MetadataAnswers,
    /// The metadata service does not say what it is asked. The worker goes on.
    MetadataTrouble {
        /// What is wrong, and what to do about it.
        error: MetadataError,
        /// Whether it answered before.
        answered_before: bool,
    },
    /// The target state of the instance changed, or is seen for the first time.
    Target(TargetState),
    /// EC2 takes the Spot instance back.
    SpotInterruption(SpotInterruption),
    /// EC2 recommended, at this time, to replace the instance.
    RebalanceRecommended(SystemTime),
    /// The worker takes leases from now on.
    Activated {
        /// Why.
        reason: &'static str,
    },
    /// The worker is shut down, or by an earlier deadline than before.
    ShuttingDown {
        /// Why.
        reason: Reason,
        /// How long it has.
        deadline: Duration,
    },
    /// The worker has ended.
    Drained {
        /// Whether every shard was released in order.
        is_clean: bool,
        /// What came of the shards, as text.
        outcome: String,
    },
    /// The lifecycle hook answers heartbeats, or says that it does not wait.
    HeartbeatAnswered(LifecycleAnswer),
    /// The lifecycle hook cannot be told to wait; it is tried again.
    HeartbeatFailed(LifecycleError),
    /// The lifecycle action is completed with `CONTINUE`, or nobody waits for it.
    LifecycleCompleted(LifecycleAnswer),
    /// The lifecycle action could not be completed; the hook's time-out ends it.
    CompletionFailed(LifecycleError),
}

impl Notice {
    pub(super) fn log(&self) {
        match self {
            Self::MetadataAnswers => info!("instance metadata answers"),
            Self::MetadataTrouble { error, answered_before: false }
                if matches!(error.kind(), MetadataErrorKind::Absent | MetadataErrorKind::Disabled) =>
            {
                info!(%error, "no instance metadata: notices of EC2 and Auto Scaling are not seen");
            }
            Self::MetadataTrouble { error, .. } => {
                warn!(%error, "instance metadata does not answer: notices of EC2 and Auto Scaling are not seen");
            }
            Self::Target(TargetState::Other(state)) => warn!(%state, "unknown target state of this instance"),
            Self::Target(state) => info!(%state, "target state of this instance"),
            Self::SpotInterruption(notice) => info!(action = %notice.action, "spot interruption"),
            Self::RebalanceRecommended(_) => info!("EC2 recommends to replace this instance"),
            Self::Activated { reason } => info!(%reason, "activated"),
            Self::ShuttingDown { reason, deadline } => info!(%reason, ?deadline, "leaving"),
            Self::Drained { is_clean: true, outcome } => info!(%outcome, "drained"),
            Self::Drained { is_clean: false, outcome } => {
                warn!(%outcome, "not everything could be drained; leases that were not released run out");
            }
            Self::HeartbeatAnswered(answer) => debug!(?answer, "lifecycle heartbeat"),
            Self::HeartbeatFailed(error) => {
                warn!(%error, "no lifecycle heartbeat: the hook may end the instance before it is drained");
            }
            Self::LifecycleCompleted(answer) => info!(?answer, "lifecycle action completed"),
            Self::CompletionFailed(error) => {
                error!(%error, "the lifecycle action was not completed: the instance waits for the hook's time-out");
            }
        }
    }
}
