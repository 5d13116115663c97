//! The error of the scheduler.

use std::error::Error as StdError;
use std::fmt;

use crate::lease::{StoreError, StoreErrorKind};
use crate::source::{SourceError, SourceErrorKind};

/// Any error, as callbacks return it.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What an [`Error`] is about, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The settings make no sense; the message lists every problem.
    Config,
    /// Credentials, region or rights are missing or wrong.
    Denied,
    /// The stream or the lease table does not exist.
    Missing,
    /// A service could not be reached, or did not answer in time.
    Unavailable,
    /// The lease table holds what this application must not work on: another stream's leases, live Java KCL 3.x
    /// leadership, another table's schema, or a checkpoint its shard does not know.
    Refused,
    /// A processor asked for the scheduler to stop.
    Processor,
    /// A bug in this library.
    Bug,
}

/// Why a scheduler could not start or had to stop.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the error is about.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, remedy) = match error.kind() {
            StoreErrorKind::Throttled => {
                (ErrorKind::Unavailable, "raise the table's capacity or switch it to on-demand")
            }
            StoreErrorKind::Unavailable => {
                (ErrorKind::Unavailable, "check region, endpoint and network, then start again")
            }
            StoreErrorKind::Denied => {
                (ErrorKind::Denied, "check the credentials, the region, and that they may make this call")
            }
            StoreErrorKind::TableMissing => {
                (ErrorKind::Missing, "create the table, or let the store create it")
            }
            StoreErrorKind::TableForeign => {
                (ErrorKind::Refused, "use another application or table name: this is not a lease table")
            }
            StoreErrorKind::Invalid => (ErrorKind::Bug, "report this with the cause below"),
        };
        Self::new(kind, format!("{} on {} failed: {remedy}", error.operation(), error.resource()))
            .with_source(error)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        let (kind, remedy) = match error.kind() {
            SourceErrorKind::Throttled | SourceErrorKind::Unavailable => {
                (ErrorKind::Unavailable, "check region, endpoint and network, then start again")
            }
            SourceErrorKind::Denied => {
                (ErrorKind::Denied, "check the credentials, the region, and that they may make this call")
            }
            SourceErrorKind::StreamMissing | SourceErrorKind::ShardMissing => {
                (ErrorKind::Missing, "check the stream's name or ARN, the account and the region")
            }
            SourceErrorKind::PositionUnknown => (
                ErrorKind::Refused,
                "the lease table belongs to another stream, or the stream was re-created",
            ),
            SourceErrorKind::Invalid => (ErrorKind::Bug, "report this with the cause below"),
        };
        Self::new(kind, format!("{} on {} failed: {remedy}", error.operation(), error.resource()))
            .with_source(error)
    }
}

/// Prints an error with all its causes, for logs.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
