use std::fmt;

/// What is wrong with the instance metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MetadataErrorKind {
    /// `AWS_EC2_METADATA_DISABLED` says not to ask.
    Disabled,
    /// Nothing answers at the endpoint: not an EC2 instance, most likely.
    Absent,
    /// A connection was made and no answer came in time.
    Slow,
    /// `401` with a fresh token, or `403`.
    Refused,
    /// It answers that it cannot answer (`429`, `5xx`), or breaks off.
    Failing,
    /// An answer that makes no sense.
    Odd,
}

/// The instance metadata service did not say what it was asked.
///
/// Displayed, it names the request, what went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataError {
    kind: MetadataErrorKind,
    message: String,
}

impl MetadataError {
    pub(super) fn new(kind: MetadataErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> MetadataErrorKind {
        self.kind
    }
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MetadataError {}
