//! What can go wrong, with a remedy and an exit code.

use kcl_core::BoxError;
use kcl_core::lease::{StoreError, StoreErrorKind};
use kcl_core::source::{SourceError, SourceErrorKind};

/// What kind of failure it is. The name is the field `kind` of the JSON form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CliErrorKind {
    /// The arguments make no sense together, or a value cannot be understood.
    Usage,
    /// The credentials are missing, wrong, or lack a right.
    Denied,
    /// The table, stream, lease or file does not exist.
    Missing,
    /// The table is not a lease table. Nothing was touched.
    ForeignTable,
    /// The service asks to slow down.
    Throttled,
    /// No answer, or an error of the service.
    Unavailable,
    /// The tool refuses to write because it may not be safe. Nothing was written.
    Refused,
    /// Somebody else changed a row first, so that not everything was written.
    LostRace,
    /// An answer, a row or a file cannot be understood.
    Invalid,
    /// The terminal or a file cannot be written.
    Output,
}

impl CliErrorKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::ForeignTable => "foreign-table",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::LostRace => "lost-race",
            Self::Invalid => "invalid",
            Self::Output => "output",
        }
    }
}

/// A failed command: what happened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    kind: CliErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<BoxError>,
}

impl CliError {
    /// Creates an error.
    pub fn new(kind: CliErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> CliErrorKind {
        self.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The causes, the nearest first.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (kind, hint) = match error.kind() {
            StoreErrorKind::Throttled => (
                CliErrorKind::Throttled,
                "the table is throttled; wait, or raise its capacity: a provisioned table needs 0.6 write and 1 read \
                 units a second for each worker of a fleet",
            ),
            StoreErrorKind::Unavailable => {
                (CliErrorKind::Unavailable, "check network and endpoint, then try again")
            }
            StoreErrorKind::Denied => (
                CliErrorKind::Denied,
                "check AWS_PROFILE, AWS_REGION and the rights; docs/cli.md lists those each command needs",
            ),
            StoreErrorKind::TableMissing => (
                CliErrorKind::Missing,
                "check --application (the table's default name), --table, --region and the account; workers create \
                 the table when they first start",
            ),
            StoreErrorKind::TableForeign => {
                (CliErrorKind::ForeignTable, "give the application's own table: --application or --table")
            }
            StoreErrorKind::Misconfigured => (CliErrorKind::Usage, "check --application and --table"),
            _ => (CliErrorKind::Invalid, "kcl audit says which rows cannot be understood"),
        };
        Self::new(kind, error.to_string()).with_hint(hint).with_source(error)
    }
}

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> Self {
        let (kind, hint) = match error.kind() {
            SourceErrorKind::Throttled => (
                CliErrorKind::Throttled,
                "the stream is throttled: ListShards allows 1,000 calls a second, GetRecords 5 for each shard with \
                 the consumers that run",
            ),
            SourceErrorKind::Unavailable => {
                (CliErrorKind::Unavailable, "check network and endpoint, then try again")
            }
            SourceErrorKind::Denied => (
                CliErrorKind::Denied,
                "check AWS_PROFILE, AWS_REGION and the rights; docs/cli.md lists those each command needs",
            ),
            SourceErrorKind::StreamMissing | SourceErrorKind::ShardMissing => {
                (CliErrorKind::Missing, "check --stream, --region and the account")
            }
            SourceErrorKind::Misconfigured => (CliErrorKind::Usage, "check --stream"),
            _ => (CliErrorKind::Invalid, "the stream gave an answer that makes no sense; try again"),
        };
        Self::new(kind, error.to_string()).with_hint(hint).with_source(error)
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(CliErrorKind::Output, "cannot write the output").with_source(error)
    }
}

/// Arguments that make no sense.
pub(crate) fn usage(message: impl Into<String>) -> CliError {
    CliError::new(CliErrorKind::Usage, message)
}
