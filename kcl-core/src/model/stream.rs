use std::fmt;
use std::time::SystemTime;

use super::Checkpoint;

/// Which stream this is: a stream deleted and created again under its old name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamIdentity {
    /// The stream's ARN.
    pub arn: String,
    /// When the stream was created, in milliseconds since the Unix epoch (`StreamCreationTimestamp`).
    pub created_millis: u64,
}

impl fmt::Display for StreamIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.arn, self.created_millis)
    }
}

/// Where an application starts on shards it has no checkpoint for.
///
/// Shards that are born by resharding later start at their beginning whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitialPosition {
    /// With the oldest record the stream still holds.
    #[default]
    TrimHorizon,
    /// With records put after the lease was created.
    Latest,
    /// With the first record that arrived at or after this time.
    AtTimestamp(SystemTime),
}

impl InitialPosition {
    /// The sentinel that a lease created under this position carries.
    #[must_use]
    pub const fn sentinel(self) -> Checkpoint {
        match self {
            Self::TrimHorizon => Checkpoint::TrimHorizon,
            Self::Latest => Checkpoint::Latest,
            Self::AtTimestamp(_) => Checkpoint::AtTimestamp,
        }
    }
}
