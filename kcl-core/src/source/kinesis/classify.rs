//! What a failed call means.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;

use crate::source::{SourceError, SourceErrorKind};

/// What to do about a failed call. Finer than [`SourceErrorKind`]: what a reader settles by itself is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Slow down.
    Throttled,
    /// Try again.
    Unavailable,
    /// Somebody else is at it: the stream or the consumer is being created or deleted, the shard is subscribed to.
    InUse,
    /// Somebody has to grant or configure something.
    Denied,
    /// The stream or the shard is not there; which of them takes a second look.
    NotFound,
    /// Ask for a new iterator.
    ExpiredIterator,
    /// List from the start.
    ExpiredToken,
    /// An argument has the right form and does not fit: a foreign sequence number, a mangled iterator.
    Argument,
    /// The request or the answer is wrong.
    Invalid,
}

impl Class {
    /// What the class is to a caller who cannot look further.
    pub(super) const fn kind(self) -> SourceErrorKind {
        match self {
            Self::Throttled => SourceErrorKind::Throttled,
            Self::Unavailable | Self::InUse | Self::ExpiredIterator | Self::ExpiredToken => {
                SourceErrorKind::Unavailable
            }
            Self::Denied => SourceErrorKind::Denied,
            Self::NotFound => SourceErrorKind::StreamMissing,
            Self::Argument | Self::Invalid => SourceErrorKind::Invalid,
        }
    }
}

/// A failed call.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) error: SourceError,
}

impl Failure {
    /// An answer that came and is of no use.
    pub(super) fn invalid(operation: &'static str, resource: &str, problem: impl Into<String>) -> Self {
        let error = SourceError::new(SourceErrorKind::Invalid, operation, resource, problem);
        Self { class: Class::Invalid, error }
    }
}

/// What is known about the client that made the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Whether it has ever signed a request.
    pub(super) has_signed: bool,
    /// Whether it has a region.
    pub(super) has_region: bool,
}

/// Every error code the service and its front door answer with, as far as they do not follow from the status.
/// Sources: the API reference of the operations called here and "Common errors" of the Kinesis API.
const CODES: &[(&str, Class)] = &[
    ("ProvisionedThroughputExceededException", Class::Throttled),
    ("LimitExceededException", Class::Throttled),
    ("KMSThrottlingException", Class::Throttled),
    ("Throttling", Class::Throttled),
    ("ThrottlingException", Class::Throttled),
    ("ThrottledException", Class::Throttled),
    ("RequestThrottled", Class::Throttled),
    ("RequestThrottledException", Class::Throttled),
    ("RequestLimitExceeded", Class::Throttled),
    ("TooManyRequestsException", Class::Throttled),
    ("BandwidthLimitExceeded", Class::Throttled),
    ("SlowDown", Class::Throttled),
    ("InternalFailure", Class::Unavailable),
    ("InternalFailureException", Class::Unavailable),
    ("InternalServerError", Class::Unavailable),
    ("ServiceUnavailable", Class::Unavailable),
    ("ServiceUnavailableException", Class::Unavailable),
    ("RequestTimeout", Class::Unavailable),
    ("RequestTimeoutException", Class::Unavailable),
    ("ResourceInUseException", Class::InUse),
    ("AccessDeniedException", Class::Denied),
    ("KMSAccessDeniedException", Class::Denied),
    ("KMSDisabledException", Class::Denied),
    ("KMSInvalidStateException", Class::Denied),
    ("KMSNotFoundException", Class::Denied),
    ("KMSOptInRequired", Class::Denied),
    ("ExpiredTokenException", Class::Denied),
    ("IncompleteSignature", Class::Denied),
    ("IncompleteSignatureException", Class::Denied),
    ("InvalidClientTokenId", Class::Denied),
    ("InvalidSignatureException", Class::Denied),
    ("MissingAuthenticationToken", Class::Denied),
    ("MissingAuthenticationTokenException", Class::Denied),
    ("NotAuthorized", Class::Denied),
    ("OptInRequired", Class::Denied),
    ("RequestExpired", Class::Denied),
    ("SignatureDoesNotMatch", Class::Denied),
    ("UnrecognizedClientException", Class::Denied),
    ("ResourceNotFoundException", Class::NotFound),
    ("ExpiredIteratorException", Class::ExpiredIterator),
    ("ExpiredNextTokenException", Class::ExpiredToken),
    ("InvalidArgumentException", Class::Argument),
    ("ValidationException", Class::Invalid),
    ("ValidationError", Class::Invalid),
    ("SerializationException", Class::Invalid),
    ("UnknownOperationException", Class::Invalid),
];

/// The class of an error answer.
pub(super) fn answer(code: Option<&str>, status: u16) -> Class {
    let listed = CODES.iter().find(|(listed, _)| Some(*listed) == code).map(|(_, class)| *class);
    listed.unwrap_or(match status {
        429 => Class::Throttled,
        408 | 500.. => Class::Unavailable,
        401 | 403 => Class::Denied,
        _ => Class::Invalid,
    })
}

/// Turns an error of the SDK into a failure that names the call, the resource and the request.
pub(super) fn classify<E>(
    error: SdkError<E, HttpResponse>,
    operation: &'static str,
    resource: &str,
    setup: Setup,
) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (class, message) = match &error {
        SdkError::ServiceError(service) => {
            let (code, status) = (service.err().code(), service.raw().status().as_u16());
            let detail = service.err().message().unwrap_or("the service gave no reason");
            (answer(code, status), format!("{}: {detail} (HTTP {status})", code.unwrap_or("unnamed error")))
        }
        SdkError::TimeoutError(_) => (Class::Unavailable, "no answer in time".to_owned()),
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            let class = if status < 400 { Class::Unavailable } else { answer(None, status) };
            (class, format!("the answer could not be read: {} (HTTP {status})", chain(&error)))
        }
        SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
            Some(connector) => not_sent(connector, setup),
            None => (Class::Unavailable, chain(&error)),
        },
        _ => (Class::Invalid, format!("the request could not be built: {}", chain(&error))),
    };
    let request = error.request_id().map(|id| format!(", request id {id}")).unwrap_or_default();
    let error =
        SourceError::new(class.kind(), operation, resource, format!("{message}{request}")).with_source(error);
    Failure { class, error }
}

/// A request that was not sent, or got no answer.
fn not_sent(error: &ConnectorError, setup: Setup) -> (Class, String) {
    if error.is_timeout() || error.is_io() {
        return (Class::Unavailable, format!("no connection or no answer: {}", chain(error)));
    }
    if error.is_user() {
        return (Class::Invalid, format!("the request could not be sent: {}", chain(error)));
    }
    let credentials = links(error).find_map(|link| link.downcast_ref::<CredentialsError>());
    match credentials {
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
            (Class::Unavailable, format!("the credentials could not be fetched: {}", chain(error)))
        }
        Some(_) => (Class::Denied, format!("no credentials: {}", chain(error))),
        None if setup.has_signed => (Class::Unavailable, format!("no connection: {}", chain(error))),
        None if !setup.has_region => {
            let remedy = "set AWS_REGION, or a region in the client's configuration";
            (Class::Denied, format!("no region: {remedy} ({})", chain(error)))
        }
        None => {
            let remedy = "give the client a credentials provider";
            (Class::Denied, format!("the request could not be signed: {remedy} ({})", chain(error)))
        }
    }
}

/// The error and its causes.
pub(super) fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |link| (*link).source())
}

/// The error and its causes in one line; a cause that only repeats the one before it is left out.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for link in links(error) {
        let link = link.to_string();
        if text.is_empty() {
            text = link;
        } else if !text.ends_with(&link) {
            text = format!("{text}: {link}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
