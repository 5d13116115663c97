//! Entry points of the fuzz targets, each a law that holds for any bytes. Also run by the crate's own tests.

mod answers;

pub use answers::answers;

use std::cmp::Ordering;
use std::sync::OnceLock;

use aws_sdk_kinesis::config::BehaviorVersion;
use aws_sdk_kinesis::{Client, Config};
use futures_util::FutureExt;
use kcl_core::model::{Checkpoint, Position, SequenceNumber};
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::source::{SourceErrorKind, StartFrom, StreamSource};
use kcl_core::{ErrorKind, Scheduler, Settings};

/// 2^192 - 1.
const LARGEST: &str = "6277101735386680763835789423207666416102355444464034512895";

/// Takes the bytes for two numbers: by their limbs, and as two lines of text.
pub fn sequence_number(bytes: &[u8]) {
    let [first, second] = limbs(bytes).map(SequenceNumber::from_limbs);
    let texts = [first, second].map(|number| number.to_string());
    for (number, text) in [first, second].into_iter().zip(&texts) {
        assert_eq!(parse(text), Some(number), "what is printed is read");
    }
    assert_eq!(first.cmp(&second), numeric(&texts[0], &texts[1]));

    let [first, second, _, _] = lines(bytes);
    if let (Some(one), Some(other)) = (parse(&first), parse(&second)) {
        assert_eq!(one.cmp(&other), numeric(&first, &second));
    }
}

fn limbs(bytes: &[u8]) -> [[u64; 3]; 2] {
    let mut numbers = [[0; 3]; 2];
    for (limb, eight) in numbers.as_flattened_mut().iter_mut().zip(bytes.as_chunks().0) {
        *limb = u64::from_be_bytes(*eight);
    }
    numbers
}

/// The first lines; what is not UTF-8 is replaced.
fn lines(bytes: &[u8]) -> [String; 4] {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(str::to_owned);
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

/// The order of two canonical decimal texts as numbers.
fn numeric(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn is_canonical(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && numeric(text, LARGEST).is_le()
}

/// Reads a number, and compares the outcome with the definition and with a second implementation.
fn parse(text: &str) -> Option<SequenceNumber> {
    match text.parse::<SequenceNumber>() {
        Ok(number) => {
            assert!(is_canonical(text), "{text:?} was read as {number}");
            assert_eq!(number.to_string(), text);
            assert_eq!(SequenceNumber::from_limbs(number.limbs()), number);
            let second: kcl_local::kinesis::SequenceNumber = text.parse().expect("it is canonical");
            assert_eq!(number.limbs(), second.limbs());
            Some(number)
        }
        Err(error) => {
            assert!(!is_canonical(text), "{text:?} was refused: {error}");
            assert_presentable(&error.to_string());
            None
        }
    }
}

/// Errors go to logs, whatever stood in the text they are about.
fn assert_presentable(message: &str) {
    assert!(!message.is_empty() && !message.contains('\n') && message.len() < 2_000, "{message:?}");
}

/// Takes the lines for the two attributes of two checkpoints.
pub fn checkpoint(bytes: &[u8]) {
    let [sequence, sub_sequence, other_sequence, other_sub_sequence] = lines(bytes);
    let one = read_checkpoint(&sequence, &sub_sequence);
    let other = read_checkpoint(&other_sequence, &other_sub_sequence);
    if let (Some(one), Some(other)) = (one, other) {
        let numbers = || numeric(&one.sequence_text(), &other.sequence_text());
        let order = rank(one).cmp(&rank(other)).then_with(|| match (one, other) {
            (Checkpoint::At(one), Checkpoint::At(other)) => {
                numbers().then(one.sub_sequence.cmp(&other.sub_sequence))
            }
            _ => Ordering::Equal,
        });
        assert_eq!(one.cmp(&other), order);
    }
}

fn read_checkpoint(sequence: &str, sub_sequence: &str) -> Option<Checkpoint> {
    let sub_sequence = sub_sequence.parse().unwrap_or_default();
    let checkpoint = Checkpoint::from_parts(sequence, sub_sequence);
    let plain = sequence.parse::<Checkpoint>();
    match checkpoint {
        Ok(checkpoint) => {
            assert_eq!(checkpoint.sequence_text(), sequence);
            let again = Checkpoint::from_parts(&checkpoint.sequence_text(), checkpoint.sub_sequence());
            assert_eq!(again.as_ref(), Ok(&checkpoint));
            match checkpoint.position() {
                Some(position) => {
                    let number = parse(sequence).expect("a position is a number");
                    assert_eq!(position, Position::new(number, sub_sequence));
                    assert_eq!(plain, Ok(Position::new(number, 0).into()));
                    assert_eq!(checkpoint.to_string(), format!("{sequence}/{sub_sequence}"));
                }
                None => {
                    assert_eq!(plain, Ok(checkpoint));
                    assert_eq!((checkpoint.to_string().as_str(), checkpoint.sub_sequence()), (sequence, 0));
                }
            }
            Some(checkpoint)
        }
        Err(error) => {
            assert!(!is_canonical(sequence));
            assert_eq!(plain, Err(error.clone()));
            assert_presentable(&error.to_string());
            None
        }
    }
}

/// The Java KCL's order of what is no position, and of all positions among them.
fn rank(checkpoint: Checkpoint) -> u8 {
    match checkpoint {
        Checkpoint::AtTimestamp => 0,
        Checkpoint::TrimHorizon => 1,
        Checkpoint::Latest => 2,
        Checkpoint::At(_) => 3,
        Checkpoint::ShardEnd => 4,
    }
}

/// Takes the bytes for settings in JSON.
pub fn settings(bytes: &[u8]) {
    let Ok(settings) = serde_json::from_slice::<Settings>(bytes) else { return };
    let text = serde_json::to_string(&settings).expect("numbers and names can be written");
    let again: Settings = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(again, settings);

    // Whatever the numbers, they are checked, and every problem is on a line of its own.
    let error =
        Scheduler::builder("orders-app").settings(settings).build().expect_err("components are missing");
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    let (_, problems) = text.split_once('\n').expect("problems are listed");
    assert!(problems.lines().all(|line| line.starts_with("- ") && line.len() > 10), "{text}");
    assert!(problems.lines().count() >= 3, "{text}");
}

/// Takes the bytes for a stream's name or ARN.
pub fn stream_name(bytes: &[u8]) {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    let client = CLIENT.get_or_init(|| {
        Client::from_conf(Config::builder().behavior_version(BehaviorVersion::latest()).build())
    });
    let text = String::from_utf8_lossy(bytes);
    let stream = KinesisStream::new(client.clone(), text.as_ref());
    let opened = stream.open(&"shardId-000000000000".into(), StartFrom::TrimHorizon).now_or_never();
    match (opened.expect("nothing is called"), name_in(&text)) {
        (Ok(_), Some(name)) => assert_eq!(stream.name(), name),
        (Err(error), None) => {
            assert_eq!(error.kind(), SourceErrorKind::Misconfigured);
            assert_eq!(stream.name(), text);
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        (outcome, name) => unreachable!("{text:?} is {name:?} but {outcome:?}"),
    }
}

/// The name in a stream's name or ARN, by another way than the crate's.
fn name_in(text: &str) -> Option<&str> {
    let name = if text.starts_with("arn:") {
        let parts: Vec<&str> = text.split(':').collect();
        let [_, partition, "kinesis", region, account, resource] = parts[..] else { return None };
        if [partition, region, account].contains(&"") {
            return None;
        }
        resource.strip_prefix("stream/")?
    } else {
        text
    };
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    ((1..=128).contains(&name.len()) && name.chars().all(is_part)).then_some(name)
}
