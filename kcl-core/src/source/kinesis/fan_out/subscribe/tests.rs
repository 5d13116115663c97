use aws_sdk_kinesis::error::ErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ChildShard, HashKeyRange, Record};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

use super::*;

fn record(number: &str) -> Record {
    Record::builder().sequence_number(number).data(Blob::new([7])).build().unwrap()
}

fn event(continuation: &str) -> aws_sdk_kinesis::types::builders::SubscribeToShardEventBuilder {
    SubscribeToShardEvent::builder()
        .records(record("5"))
        .records(record("6"))
        .continuation_sequence_number(continuation)
        .millis_behind_latest(250)
}

fn child() -> ChildShard {
    let keys = HashKeyRange::builder().starting_hash_key("0").ending_hash_key("9").build().unwrap();
    ChildShard::builder().shard_id("child").parent_shards("shard").hash_key_range(keys).build().unwrap()
}

#[test]
fn an_event_is_turned_over_with_its_continuation() {
    let to = convert_event(event("77").build().unwrap()).unwrap();
    assert_eq!((to.continuation, to.batch.records.len()), (Some(77.into()), 2));
    assert_eq!((to.batch.behind, to.batch.end), (Some(Duration::from_millis(250)), None));
    // A hint that comes early is not the end.
    let early = convert_event(event("77").child_shards(child()).build().unwrap()).unwrap();
    assert_eq!(early.batch.end, None);
}

#[test]
fn without_a_continuation_it_is_the_last_with_children_or_without() {
    let with = convert_event(event("").child_shards(child()).build().unwrap()).unwrap();
    assert_eq!(with.batch.end.unwrap().children.len(), 1);
    let without = convert_event(event("").build().unwrap()).unwrap();
    assert_eq!((without.batch.end, without.continuation), (Some(SourceEnd::default()), None));
}

#[test]
fn an_event_is_taken_whole_or_not_at_all() {
    assert!(convert_event(event("7x").build().unwrap()).unwrap_err().contains("7x"));
    assert!(convert_event(event("7").records(record("x")).build().unwrap()).unwrap_err().contains('x'));
}

fn call() -> Call {
    let config = aws_sdk_kinesis::Config::builder().behavior_version_latest().build();
    let service = Arc::new(Service::new(
        &aws_sdk_kinesis::Client::from_conf(config),
        "orders".into(),
        Duration::from_secs(1),
    ));
    let clients = Clients::new(Arc::clone(&service), None, 1, Duration::from_secs(1));
    let line = Line::default();
    line.lock().request_id = Some("request-7".into());
    Call {
        lent: clients.lend(),
        consumer: None,
        shard: "shard".into(),
        resource: service.shard_resource(&"shard".into()),
        setup: service.setup(),
        from: StartFrom::TrimHorizon,
        line,
    }
}

fn exception(code: &str) -> StreamError {
    let meta = ErrorMetadata::builder().code(code).message("because").build();
    let header = Header::new(":exception-type", HeaderValue::String(code.to_owned().into()));
    let message = Message::new(Vec::new()).add_header(header);
    SdkError::service_error(SubscribeToShardEventStreamError::generic(meta), RawMessage::Decoded(message))
}

#[test]
fn exceptions_in_the_stream_have_the_class_of_their_name() {
    let call = call();
    for (code, expected, kind) in [
        ("ResourceInUseException", Class::InUse, SourceErrorKind::Unavailable),
        ("ResourceNotFoundException", Class::Missing, SourceErrorKind::StreamMissing),
        ("InternalFailureException", Class::Unavailable, SourceErrorKind::Unavailable),
        ("LimitExceededException", Class::Throttled, SourceErrorKind::Throttled),
        ("KMSThrottlingException", Class::Throttled, SourceErrorKind::Throttled),
        ("KMSAccessDeniedException", Class::Denied, SourceErrorKind::Denied),
        ("KMSDisabledException", Class::Denied, SourceErrorKind::Denied),
        ("KMSInvalidStateException", Class::Denied, SourceErrorKind::Denied),
        ("KMSNotFoundException", Class::Denied, SourceErrorKind::Denied),
        ("KMSOptInRequired", Class::Denied, SourceErrorKind::Denied),
        ("InvalidArgumentException", Class::Argument, SourceErrorKind::Invalid),
        ("NeverHeardOfException", Class::Unavailable, SourceErrorKind::Unavailable),
    ] {
        let failure = call.broken(exception(code));
        assert_eq!((failure.class, failure.error.kind()), (expected, kind), "{code}");
        let text = failure.error.to_string();
        for part in ["SubscribeToShard", "stream orders, shard shard", code, "request-7"] {
            assert!(text.contains(part), "{part} is missing in {text:?}");
        }
    }
}

#[test]
fn broken_frames_and_broken_connections_are_told_apart() {
    let call = call();
    let corrupt = StreamError::response_error("a checksum does not fit", RawMessage::Invalid(None));
    assert_eq!(call.broken(corrupt).class, Class::Corrupt);
    let reset = StreamError::dispatch_failure(ConnectorError::io("connection reset".into()));
    let failure = call.broken(reset);
    assert_eq!((failure.class, failure.error.kind()), (Class::Unavailable, SourceErrorKind::Unavailable));
    assert!(failure.error.to_string().contains("request id request-7"), "{}", failure.error);
}

#[test]
fn every_class_of_a_failed_call_has_one_for_subscriptions() {
    for (code, status, expected) in [
        (Some("ResourceInUseException"), 400, Class::InUse),
        (Some("LimitExceededException"), 400, Class::Throttled),
        (Some("ResourceNotFoundException"), 400, Class::Missing),
        (Some("AccessDeniedException"), 400, Class::Denied),
        (Some("ExpiredTokenException"), 400, Class::Denied),
        (Some("InvalidArgumentException"), 400, Class::Argument),
        (Some("ValidationException"), 400, Class::Invalid),
        (Some("InternalFailureException"), 500, Class::Unavailable),
        (None, 500, Class::Unavailable),
        (None, 503, Class::Unavailable),
        (None, 429, Class::Throttled),
        (None, 403, Class::Denied),
    ] {
        assert_eq!(class(answer(code, status)), expected, "{code:?} {status}");
    }
}
