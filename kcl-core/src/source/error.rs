use crate::error::BoxError;

/// What kind of failure a source met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// The service asks to slow down.
    Throttled,
    /// No answer in time, a broken connection, or an error of the service.
    Unavailable,
    /// The credentials are missing, wrong, or lack the right (KMS rights included).
    Denied,
    /// The stream does not exist.
    StreamMissing,
    /// The stream exists, the shard does not (any more).
    ShardMissing,
    /// The stream exists, the registered consumer that was to read it does not (any more).
    ConsumerMissing,
    /// The source's settings cannot be right: a name no stream can have.
    Misconfigured,
    /// The shard does not know the position it was asked for.
    PositionUnknown,
    /// The request was refused as invalid, or the answer could not be understood.
    Invalid,
}

/// A failed call of a source.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on {resource} failed: {message}")]
pub struct SourceError {
    kind: SourceErrorKind,
    operation: &'static str,
    resource: String,
    message: String,
    #[source]
    source: Option<BoxError>,
}

impl SourceError {
    /// Creates an error of `operation` (the service's name of the call) on `resource` (stream or shard).
    pub fn new(
        kind: SourceErrorKind,
        operation: &'static str,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, operation, resource: resource.into(), message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> SourceErrorKind {
        self.kind
    }

    /// The service's name of the call, for example `GetRecords`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// What the call was about: a stream or a shard.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// What went wrong, without call and resource.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Lays a refusal of the request at the door of the settings.
    #[cfg(feature = "kinesis")]
    pub(crate) fn or_misconfigured(mut self) -> Self {
        if self.kind == SourceErrorKind::Invalid {
            self.kind = SourceErrorKind::Misconfigured;
        }
        self
    }

    pub(crate) fn into_source(self) -> Option<BoxError> {
        self.source
    }

    /// Whether the same call can succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, SourceErrorKind::Throttled | SourceErrorKind::Unavailable)
    }
}
