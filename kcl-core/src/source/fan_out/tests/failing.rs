//! Every class of failure at every moment of a subscription.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::fake::*;
use crate::source::fan_out::Class;
use crate::source::{ShardReader, SourceErrorKind, StartFrom};

const CLASSES: [Class; 8] = [
    Class::InUse,
    Class::Throttled,
    Class::Unavailable,
    Class::Corrupt,
    Class::Missing,
    Class::Denied,
    Class::Argument,
    Class::Invalid,
];

/// What the reader says of a class of failure: nothing, or an error of this kind.
fn reported(class: Class) -> Option<SourceErrorKind> {
    match class {
        Class::InUse | Class::Throttled | Class::Unavailable | Class::Corrupt | Class::Missing => None,
        Class::Denied => Some(SourceErrorKind::Denied),
        Class::Argument => Some(SourceErrorKind::PositionUnknown),
        Class::Invalid => Some(SourceErrorKind::Invalid),
        Class::Silent | Class::Gone => unreachable!("what comes of waiting, and of a second look"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_at_each_moment_is_absorbed_or_reported_and_nothing_is_lost() {
    for class in CLASSES {
        for (moment, act) in [
            ("open", Act::Refuse(class)),
            ("first event", Act::FailAfter(0, class)),
            ("between events", Act::FailAfter(2, class)),
        ] {
            let service = Service::default();
            service.then([act]);
            let expected = service.put(12, 10);
            let mut reader = service.reader(StartFrom::AtSequence(10.into()));
            let (start, mut got, mut errors) = (Instant::now(), Vec::new(), Vec::new());
            let (mut most, mut silent_since, mut longest) = (0, Instant::now(), Duration::ZERO);
            while got.len() < expected.len() {
                match reader.next().await {
                    Ok(batch) => got.extend(numbers(&batch)),
                    Err(error) => errors.push(error.kind()),
                }
                most = most.max(reader.absorbed_failures().map_or(0, |(count, _)| count));
                longest = longest.max(silent_since.elapsed());
                silent_since = Instant::now();
            }
            let case = format!("{class:?} at {moment}");
            assert_eq!(got, expected, "{case}");
            assert_eq!(errors, Vec::from_iter(reported(class)), "{case}");
            assert!(start.elapsed() < SECOND * 8, "{case}: {:?}", start.elapsed());
            assert!(longest < SECOND * 4, "{case}: no sign of life for {longest:?}");
            assert!(reader.absorbed_failures().is_none(), "{case}: over");
            assert_eq!(service.lock().condemned, usize::from(class == Class::Corrupt), "{case}");
            let _ = most;
        }
        // After the end nothing is asked, so nothing can fail.
        let service = Service::default();
        service.put(2, 10);
        service.close(Vec::new());
        service.then([Act::FailAfter(1, class)]);
        let mut reader = service.reader(StartFrom::TrimHorizon);
        assert!(reader.next().await.unwrap().end.is_some());
        sleep(SECOND * 30).await;
        assert!(reader.next().await.unwrap().end.is_some());
        assert!(reader.absorbed_failures().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_at_any_moment_is_found_in_time() {
    for act in [Act::NeverOpen, Act::SilentAfter(0), Act::SilentAfter(2)] {
        let service = Service::default();
        service.then([act]);
        let expected = service.put(12, 10);
        let mut reader = service.reader(StartFrom::TrimHorizon);
        let start = Instant::now();
        assert_eq!(read(&mut reader, 12).await, expected, "{act:?}");
        assert!(start.elapsed() <= SECOND * 21, "{act:?}: {:?}", start.elapsed());
        assert_eq!(service.lock().condemned, 1, "nothing more is asked of that connection");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_again_and_again_is_no_sign_of_life_and_is_reported() {
    for act in [Act::NeverOpen, Act::SilentAfter(0)] {
        let service = Service::default();
        service.then([act; 6]);
        let mut reader = service.reader(StartFrom::Latest);
        for _ in 0..2 {
            let start = Instant::now();
            let error = reader.next().await.unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Unavailable);
            let text = error.to_string();
            assert!(text.contains("the shard") && text.contains("within 1"), "{text}");
            assert!(
                start.elapsed() < SECOND * 60,
                "before the consumer loses patience: {:?}",
                start.elapsed()
            );
        }
        timeout(SECOND * 20, reader.next()).await.expect("the service is back").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_until_an_event_comes() {
    let service = Service::default();
    service.then([Act::Refuse(Class::Unavailable); 6]);
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let mut counts = Vec::new();
    while service.lock().asked.len() < 7 {
        reader.next().await.unwrap();
        if let Some((count, latest)) = reader.absorbed_failures() {
            assert!(latest.to_string().contains("Unavailable as told"), "{latest}");
            counts.push(count);
        }
    }
    assert!(counts.is_sorted() && counts.last().is_some_and(|count| *count >= 5), "{counts:?}");
    let expected = service.put(1, 10);
    assert_eq!(read(&mut reader, 1).await, expected);
    assert!(reader.absorbed_failures().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_at_once_again_and_again_is_not_taken_for_progress() {
    let service = Service::default();
    service.then([Act::EndAfter(0); 1_000]);
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let start = Instant::now();
    while start.elapsed() < SECOND * 600 {
        reader.next().await.unwrap();
    }
    let asked = service.lock().asked.len();
    assert!(asked < 130, "{asked} subscriptions in ten minutes");
    let (count, latest) = reader.absorbed_failures().unwrap();
    assert!(count > 10 && latest.to_string().contains("at once"), "{latest}");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_what_the_second_look_says() {
    for kind in
        [SourceErrorKind::ShardMissing, SourceErrorKind::StreamMissing, SourceErrorKind::ConsumerMissing]
    {
        for act in [Act::Refuse(Class::Missing), Act::FailAfter(1, Class::Missing)] {
            let service = Service::default();
            let expected = service.put(3, 10);
            service.lock().finding = Some(kind);
            service.then([act]);
            let mut reader = service.reader(StartFrom::TrimHorizon);
            let mut got = Vec::new();
            let error = loop {
                match reader.next().await {
                    Ok(batch) => {
                        assert!(batch.end.is_none(), "what is missing is never the end of a shard");
                        got.extend(numbers(&batch));
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), kind);
            if got.is_empty() {
                got = read(&mut reader, 3).await;
            }
            assert_eq!(got, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_yet_to_come_for_the_service_is_waited_for() {
    let service = Service::default();
    service.then([Act::FailAfter(0, Class::Unavailable), Act::Refuse(Class::Argument)]);
    let mut reader = service.reader(StartFrom::Latest);
    let expected = {
        let _ = timeout(Duration::from_millis(100), reader.next()).await;
        service.put(1, 10)
    };
    assert_eq!(read(&mut reader, 1).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_be_had_is_waited_for() {
    let service = Service::default();
    service.lock().unprepared = 5;
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let expected = service.put(1, 10);
    assert_eq!(read(&mut reader, 1).await, expected);
    assert_eq!(service.counts().0, 1);
    assert_eq!(service.lock().prepared, 6);
}
