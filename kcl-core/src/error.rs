//! The error of the scheduler.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

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

const REACH: &str = "check region, endpoint and network, then start again";
const REPORT: &str = "this should not happen: report it";

/// Why a scheduler could not start or had to stop.
///
/// Displayed, it names the call, the resource, what went wrong and the remedy. `Debug`, which a `main` that
/// returns it prints, adds the causes.
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

    /// The same error, with what came of it in front.
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.message.insert_str(0, context);
        self
    }

    /// What the error is about.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, Chain(self))
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
        let Self { kind, message, .. } = Self::of_store(&error);
        Self { kind, message, source: error.into_source() }
    }
}

impl From<Arc<StoreError>> for Error {
    fn from(error: Arc<StoreError>) -> Self {
        Arc::try_unwrap(error).map_or_else(|shared| Self::of_store(&shared), Self::from)
    }
}

impl Error {
    fn of_store(error: &StoreError) -> Self {
        let (kind, remedy) = match error.kind() {
            StoreErrorKind::Throttled => {
                (ErrorKind::Unavailable, "raise the table's capacity or switch it to on-demand")
            }
            StoreErrorKind::Unavailable => (ErrorKind::Unavailable, REACH),
            StoreErrorKind::Denied => (ErrorKind::Denied, "check credentials, region and rights"),
            StoreErrorKind::TableMissing => {
                (ErrorKind::Missing, "create the table or let the store create it, and check the region")
            }
            StoreErrorKind::TableForeign => {
                (ErrorKind::Refused, "use another application name, or another name for the lease table")
            }
            StoreErrorKind::Misconfigured => (ErrorKind::Config, "correct the lease store's settings"),
            StoreErrorKind::Invalid => (ErrorKind::Bug, REPORT),
        };
        let message = format!(
            "{} on lease table {} failed: {}; {remedy}",
            error.operation(),
            error.resource(),
            error.message()
        );
        Self::new(kind, message)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        let (kind, remedy) = match error.kind() {
            SourceErrorKind::Throttled => (
                ErrorKind::Unavailable,
                "too many programs of this account make this call: wait, or make them fewer",
            ),
            SourceErrorKind::Unavailable => (ErrorKind::Unavailable, REACH),
            SourceErrorKind::Denied => (ErrorKind::Denied, "check credentials, region and rights"),
            SourceErrorKind::StreamMissing | SourceErrorKind::ShardMissing => {
                (ErrorKind::Missing, "check the stream's name or ARN, the account and the region")
            }
            SourceErrorKind::ConsumerMissing => {
                (ErrorKind::Missing, "register the consumer, or give the application a consumer's name")
            }
            SourceErrorKind::Misconfigured => (ErrorKind::Config, "correct the stream's name or ARN"),
            SourceErrorKind::PositionUnknown => (
                ErrorKind::Refused,
                "the lease table belongs to another stream, or the stream was re-created",
            ),
            SourceErrorKind::Invalid => (ErrorKind::Bug, REPORT),
        };
        let message =
            format!("{} on {} failed: {}; {remedy}", error.operation(), error.resource(), error.message());
        Self { kind, message, source: error.into_source() }
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
