use crate::error::BoxError;

/// What kind of failure a store met; says what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store asks to slow down. Nothing was applied.
    Throttled,
    /// No answer, a broken connection, or an error of the service.
    Unavailable,
    /// The credentials are missing, wrong, or lack the right.
    Denied,
    /// The table does not exist.
    TableMissing,
    /// The table exists but is not a lease table (wrong key schema).
    TableForeign,
    /// The store's settings cannot be right: a name no table can have, settings of the table that are refused.
    Misconfigured,
    /// The request was refused as invalid, or the answer could not be understood.
    Invalid,
}

/// A failed call of a lease store. A lost race is not an error, see [`Write`](super::Write).
#[derive(Debug, thiserror::Error)]
#[error("{operation} on {resource} failed: {message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    operation: &'static str,
    resource: String,
    message: String,
    may_have_applied: bool,
    #[source]
    source: Option<BoxError>,
}

impl StoreError {
    /// Creates an error of `operation` (the service's name of the call) on `resource` (the table).
    ///
    /// It counts as possibly applied iff `kind` is [`StoreErrorKind::Unavailable`]; see
    /// [`with_may_have_applied`](Self::with_may_have_applied).
    pub fn new(
        kind: StoreErrorKind,
        operation: &'static str,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            resource: resource.into(),
            message: message.into(),
            may_have_applied: matches!(kind, StoreErrorKind::Unavailable),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says whether the call may have been applied although it failed.
    #[must_use]
    pub const fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.may_have_applied = may_have_applied;
        self
    }

    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The service's name of the call, for example `UpdateItem`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// What the call was about, as a rule the table.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// What went wrong, without call and resource.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_source(self) -> Option<BoxError> {
        self.source
    }

    /// Whether the write may have been applied, or may still be: repeat it until it is answered, or fence it.
    #[must_use]
    pub const fn may_have_applied(&self) -> bool {
        self.may_have_applied
    }

    /// Whether the same call can succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Throttled | StoreErrorKind::Unavailable)
    }
}
