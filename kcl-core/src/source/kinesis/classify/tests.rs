use aws_sdk_kinesis::error::ErrorMetadata;
use aws_sdk_kinesis::operation::get_records::GetRecordsError;

use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::*;

const READY: Setup = Setup { has_signed: true, has_region: true };

fn response(status: u16) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
    response.headers_mut().insert("x-amzn-requestid", "request-7");
    response
}

fn service_error(code: &str, status: u16) -> Failure {
    let meta = ErrorMetadata::builder().code(code).message("because").build();
    let error = SdkError::service_error(GetRecordsError::generic(meta), response(status));
    classify(error, "GetRecords", "stream s, shard 1", READY)
}

fn dispatch(error: ConnectorError, setup: Setup) -> Failure {
    let error: SdkError<GetRecordsError, HttpResponse> = SdkError::dispatch_failure(error);
    classify(error, "GetRecords", "stream s, shard 1", setup)
}

#[test]
fn every_code_has_its_class() {
    use SourceErrorKind::{Denied, Invalid, StreamMissing, Throttled, Unavailable};
    for (code, status, kind) in [
        ("ProvisionedThroughputExceededException", 400, Throttled),
        ("LimitExceededException", 400, Throttled),
        ("KMSThrottlingException", 400, Throttled),
        ("ThrottlingException", 400, Throttled),
        ("InternalFailureException", 500, Unavailable),
        ("InternalFailure", 500, Unavailable),
        ("ServiceUnavailable", 503, Unavailable),
        ("ResourceInUseException", 400, Unavailable),
        ("ExpiredIteratorException", 400, Unavailable),
        ("ExpiredNextTokenException", 400, Unavailable),
        ("AccessDeniedException", 400, Denied),
        ("KMSAccessDeniedException", 400, Denied),
        ("KMSDisabledException", 400, Denied),
        ("KMSInvalidStateException", 400, Denied),
        ("KMSNotFoundException", 400, Denied),
        ("KMSOptInRequired", 400, Denied),
        ("UnrecognizedClientException", 400, Denied),
        ("ExpiredTokenException", 400, Denied),
        ("InvalidSignatureException", 400, Denied),
        ("ResourceNotFoundException", 400, StreamMissing),
        ("InvalidArgumentException", 400, Invalid),
        ("ValidationException", 400, Invalid),
        ("NeverHeardOf", 400, Invalid),
        ("NeverHeardOf", 403, Denied),
        ("NeverHeardOf", 429, Throttled),
        ("NeverHeardOf", 500, Unavailable),
        ("NeverHeardOf", 504, Unavailable),
    ] {
        assert_eq!(service_error(code, status).error.kind(), kind, "{code} {status}");
    }
}

#[test]
fn what_a_reader_settles_itself_is_told_apart() {
    for (code, class) in [
        ("ExpiredIteratorException", Class::ExpiredIterator),
        ("ExpiredNextTokenException", Class::ExpiredToken),
        ("ResourceNotFoundException", Class::NotFound),
        ("InvalidArgumentException", Class::Argument),
    ] {
        assert_eq!(service_error(code, 400).class, class);
    }
}

#[test]
fn no_code_is_listed_twice() {
    let mut codes: Vec<_> = CODES.iter().map(|(code, _)| *code).collect();
    codes.sort_unstable();
    let listed = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), listed);
}

#[test]
fn the_message_names_call_resource_code_and_request() {
    let text = service_error("KMSDisabledException", 400).error.to_string();
    for part in ["GetRecords", "stream s, shard 1", "KMSDisabledException", "because", "400", "request-7"] {
        assert!(text.contains(part), "{part} is missing in {text:?}");
    }
}

#[test]
fn time_outs_and_broken_answers_are_worth_another_try() {
    type Sdk = SdkError<GetRecordsError, HttpResponse>;
    for error in [
        Sdk::timeout_error("slow"),
        Sdk::response_error("cut off", response(200)),
        Sdk::response_error("a page of HTML", response(502)),
        Sdk::dispatch_failure(ConnectorError::timeout("slow".into())),
        Sdk::dispatch_failure(ConnectorError::io("connection reset".into())),
        Sdk::dispatch_failure(ConnectorError::other("connection closed".into(), None)),
    ] {
        let failure = classify(error, "GetRecords", "stream s", READY);
        assert_eq!(failure.class, Class::Unavailable, "{}", failure.error);
    }
    let refused = classify(Sdk::response_error("a page of HTML", response(403)), "GetRecords", "s", READY);
    assert_eq!(refused.class, Class::Denied);
    let malformed = dispatch(ConnectorError::user("no such scheme".into()), READY);
    assert_eq!(malformed.class, Class::Invalid);
    let unbuilt = classify(Sdk::construction_failure("no input"), "GetRecords", "s", READY);
    assert_eq!(unbuilt.class, Class::Invalid);
}

#[test]
fn credentials_that_are_missing_are_told_from_those_that_could_not_be_fetched() {
    let io = || std::io::Error::other("no route");
    for (error, class) in [
        (CredentialsError::not_loaded("nothing in the environment"), Class::Denied),
        (CredentialsError::invalid_configuration(io()), Class::Denied),
        (CredentialsError::unhandled(io()), Class::Denied),
        (CredentialsError::provider_timed_out(std::time::Duration::from_secs(1)), Class::Unavailable),
        (CredentialsError::provider_error(io()), Class::Unavailable),
    ] {
        let failure = dispatch(ConnectorError::other(error.into(), None), READY);
        assert_eq!(failure.class, class, "{}", failure.error);
        assert!(failure.error.to_string().contains("credentials"), "{}", failure.error);
    }
}

#[test]
fn a_client_that_never_signed_lacks_a_region_or_credentials() {
    let error = || ConnectorError::other("untyped".into(), None);
    let no_region = dispatch(error(), Setup { has_signed: false, has_region: false });
    assert_eq!(no_region.class, Class::Denied);
    assert!(no_region.error.to_string().contains("no region"), "{}", no_region.error);
    let unsigned = dispatch(error(), Setup { has_signed: false, has_region: true });
    assert_eq!(unsigned.class, Class::Denied);
    assert!(unsigned.error.to_string().contains("credentials"), "{}", unsigned.error);
}
