//! The error answer of a local service.

use std::fmt;

/// An error as AWS services report it: an HTTP status, a code and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// The HTTP status, 400 or 500 in almost all cases.
    pub status: u16,
    /// The error code, for example `ResourceNotFoundException`.
    pub code: String,
    /// The message for people.
    pub message: String,
}

impl ApiError {
    /// Creates a client error (HTTP 400).
    #[must_use]
    pub fn client(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.into(), message: message.into() }
    }

    /// Creates a server error (HTTP 500, `InternalFailure`).
    #[must_use]
    pub fn server(message: impl Into<String>) -> Self {
        Self { status: 500, code: "InternalFailure".into(), message: message.into() }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}
