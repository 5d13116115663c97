//! Entry point of a fuzz target, a law that holds for any bytes. Also run by the crate's own tests.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use kcl_local::clock::ManualClock;
use kcl_local::kinesis::{Kinesis, KinesisOptions};
use kcl_local::services::Services;
use kcl_local::wire::{AwsBody, AwsRequest};
use serde_json::{Value, json};

/// The most requests of one session.
const REQUESTS: usize = 16;

/// Takes the lines for requests: the operation and, behind a blank, the body. `$ITERATOR`, `$TOKEN` and
/// `$CONSUMER` in a body stand for the last iterator, paging token and consumer's ARN that were handed out.
pub fn requests(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(session(&text), session(&text), "the same requests get the same answers");
}

fn session(text: &str) -> Vec<(u16, Value)> {
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    let mut options = KinesisOptions::default();
    options.limits.open_shards = Some(50);
    let kinesis = Kinesis::with_options(Arc::<ManualClock>::clone(&clock), options);
    kinesis.create_stream("orders", 2).expect("there is room for two shards");
    let services = Services::new(kinesis);
    let (mut iterator, mut token, mut consumer) = (String::new(), String::new(), String::new());
    let requests = text.lines().take(REQUESTS).map(|line| {
        let (operation, body) = line.split_once(' ').unwrap_or((line, ""));
        let body =
            body.replace("$ITERATOR", &iterator).replace("$TOKEN", &token).replace("$CONSUMER", &consumer);
        let (status, answer) = call(&services, operation, body);
        let text = |member: &str| answer[member].as_str().map(str::to_owned);
        iterator =
            text("ShardIterator").or(text("NextShardIterator")).unwrap_or(std::mem::take(&mut iterator));
        token = text("NextToken").unwrap_or(std::mem::take(&mut token));
        if let Some(arn) = answer["Consumer"]["ConsumerARN"].as_str() {
            arn.clone_into(&mut consumer);
        }
        clock.advance(Duration::from_millis(100));
        (status, answer)
    });
    requests.collect()
}

/// Sends a request. The answer is JSON, and an error says which and why; nothing is the service's own failure.
fn call(services: &Services, operation: &str, body: String) -> (u16, Value) {
    let target = format!("Kinesis_20131202.{operation}");
    let header = |name| (name == "x-amz-target").then_some(target.as_str());
    let answer = services.handle(&AwsRequest::new("/", header, body.into()));
    let value: Value = match answer.body {
        AwsBody::Whole(body) => serde_json::from_slice(&body).expect("answers are JSON"),
        AwsBody::Events(mut events) => {
            let first = events.poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(first, Poll::Ready(Some(_))), "a stream answers at once that it is open");
            json!({})
        }
        _ => unreachable!("there are no other bodies"),
    };
    assert!(value.is_object(), "{value}");
    let code = value["__type"].as_str();
    match answer.status {
        200 => assert_eq!(code, None),
        400 => {
            assert!(code.is_some_and(|code| code.ends_with("Exception")), "{value}");
            assert!(value["message"].as_str().is_some_and(|message| !message.is_empty()), "{value}");
        }
        status => unreachable!("{status}: {value}"),
    }
    (answer.status, value)
}
