//! Errors of the SDK as errors of the store.

use std::error::Error as StdError;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use kcl_core::lease::{StoreError, StoreErrorKind};

use crate::client::Witness;

/// A call that is being made.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: &'static str,
    pub(crate) table: &'a str,
    pub(crate) has_region: bool,
    pub(crate) witness: Witness,
}

/// What can be said about a failure.
struct Verdict {
    kind: StoreErrorKind,
    may_have_applied: bool,
    message: String,
}

impl Call<'_> {
    /// Judges a failure.
    pub(crate) fn failed<E>(&self, error: SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let verdict = self.judge(&error);
        let request = error.request_id().map(|id| format!(", request id {id}")).unwrap_or_default();
        let source: Box<dyn StdError + Send + Sync> = match error {
            SdkError::ServiceError(context) => Box::new(context.into_err()),
            other => Box::new(other),
        };
        StoreError::new(verdict.kind, self.operation, self.table, verdict.message + &request)
            .with_may_have_applied(verdict.may_have_applied)
            .with_source(source)
    }

    /// An answer, or a row, that makes no sense.
    pub(crate) fn invalid(&self, message: impl Into<String>) -> StoreError {
        StoreError::new(StoreErrorKind::Invalid, self.operation, self.table, message)
    }

    fn judge<E: ProvideErrorMetadata + StdError + 'static>(&self, error: &SdkError<E>) -> Verdict {
        let sent = self.witness.saw_it_sent();
        let unavailable = |message: &str, may_have_applied| Verdict {
            kind: StoreErrorKind::Unavailable,
            may_have_applied,
            message: message.to_owned(),
        };
        match error {
            SdkError::ServiceError(context) => {
                judge_answer(self.operation, context.err(), context.raw().status().as_u16())
            }
            SdkError::TimeoutError(_) if sent => unavailable("no answer before the time-out", true),
            SdkError::TimeoutError(_) => unavailable("not sent before the time-out", false),
            SdkError::ResponseError(_) => unavailable("the answer could not be read", true),
            SdkError::DispatchFailure(_) if sent => {
                let refused = find::<io::Error>(error)
                    .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
                if refused {
                    unavailable("the connection was refused", false)
                } else {
                    unavailable("the connection failed before the answer", true)
                }
            }
            _ => self.judge_unsent(error),
        }
    }

    /// Nothing was sent: the client is not set up, or its credentials could not be fetched.
    fn judge_unsent<E: StdError + 'static>(&self, error: &SdkError<E>) -> Verdict {
        let (kind, message) = if !self.has_region {
            (StoreErrorKind::Denied, "the client has no region; set one, for example in AWS_REGION")
        } else {
            match find::<CredentialsError>(error) {
                Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                    (StoreErrorKind::Unavailable, "the credentials could not be fetched")
                }
                Some(_) => (StoreErrorKind::Denied, "no usable credentials were found; configure some"),
                None if matches!(error, SdkError::ConstructionFailure(_)) => {
                    (StoreErrorKind::Invalid, "the request could not be built")
                }
                None => (
                    StoreErrorKind::Denied,
                    "the request could not be signed or addressed; check credentials, region and endpoint",
                ),
            }
        };
        Verdict { kind, may_have_applied: false, message: message.to_owned() }
    }
}

/// Judges an error answer of the service by its code, which is what the service says it means.
fn judge_answer<E: ProvideErrorMetadata>(operation: &str, error: &E, status: u16) -> Verdict {
    let code = error.code().unwrap_or("unknown error");
    let said = match error.message() {
        Some(message) => format!("{code}: {message}"),
        None => code.to_owned(),
    };
    let verdict = |kind, may_have_applied, message| Verdict { kind, may_have_applied, message };
    match code {
        // The two conflicts mean that somebody else's write was in the way: nothing was applied, try again.
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TransactionConflictException"
        | "ReplicatedWriteConflictException" => verdict(StoreErrorKind::Throttled, false, said),
        "ResourceInUseException" | "ContinuousBackupsUnavailableException" => {
            verdict(StoreErrorKind::Unavailable, false, said)
        }
        "ResourceNotFoundException" | "TableNotFoundException" => verdict(
            StoreErrorKind::TableMissing,
            false,
            format!("the table does not exist in this account and region ({said})"),
        ),
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => verdict(
            StoreErrorKind::Denied,
            false,
            format!("access denied; allow dynamodb:{operation} on the table ({said})"),
        ),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired" => verdict(
            StoreErrorKind::Denied,
            false,
            format!("the credentials are not accepted; check them, the region and the clock ({said})"),
        ),
        _ if status == 401 || status == 403 => verdict(StoreErrorKind::Denied, false, said),
        _ if status == 429 => verdict(StoreErrorKind::Throttled, false, said),
        _ if status >= 500 => verdict(StoreErrorKind::Unavailable, true, said),
        _ => verdict(StoreErrorKind::Invalid, false, said),
    }
}

/// The first cause of a type.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
