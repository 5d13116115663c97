//! OB-2: neither data nor partition keys are logged, at any level, whatever goes wrong.

use std::time::Duration;

use integration_tests::aws::{Aws, STREAM};
use kcl_core::Callback;
use kcl_core::testing::{Action, Rule as Told};
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::kinesis::NewRecord;
use kcl_local::wire::Service;
use tracing::level_filters::LevelFilter;

use super::capture::Log;

const DATA: &str = "the-data-of-a-customer";
const KEY: &str = "the-key-of-a-customer";

/// `text` as it would look in a log: plain, in base64, and as a list of bytes.
fn shapes(text: &str) -> [String; 3] {
    let bytes = text.bytes().take(9).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    // The first nine bytes are twelve letters of base64 whatever follows.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let coded = text.as_bytes()[..9].chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(LETTERS[bits >> shift & 63]))
    });
    [text.to_owned(), coded.collect(), bytes]
}

#[tokio::test(start_paused = true)]
async fn records_are_not_logged_at_any_level() {
    let (log, _guard) = Log::keep(LevelFilter::TRACE);
    let aws = Aws::in_process().with_stream(2);
    let kinesis = aws.local.kinesis().clone();
    for _ in 0..20 {
        kinesis.put_record(STREAM, NewRecord::new(KEY, DATA)).unwrap();
    }
    // A damaged aggregate: the magic number, the text, and no digest.
    let damaged = [&[0xF3, 0x89, 0x9A, 0xC2], DATA.as_bytes(), &[0; 16]].concat();
    kinesis.put_record(STREAM, NewRecord::new(KEY, damaged)).unwrap();
    aws.recorder.add(Told::on(Callback::ProcessRecords, Action::Fail).times(3));
    for service in [Service::Kinesis, Service::DynamoDb] {
        let refused = Fault::Fail(Seen::Error(errors::internal_server_error()));
        aws.faults.add(Rule::on_every_operation(service, refused).with_probability(0.1));
    }
    let scheduler = aws.builder().build().unwrap();
    let run = scheduler.run_until(tokio::time::sleep(Duration::from_secs(60)));
    run.await.unwrap();
    assert!(aws.recorder.count(Callback::ProcessRecords) > 3);
    let lines = log.lines();
    assert!(lines.len() > 100, "{} lines", lines.len());
    assert!(lines.iter().any(|line| line.message.contains("delivered damaged aggregates")), "{lines:#?}");
    for line in &lines {
        let text = format!("{line:?}");
        for shape in shapes(DATA).iter().chain(&shapes(KEY)) {
            assert!(!text.contains(shape), "{shape}: {text}");
        }
    }
}
