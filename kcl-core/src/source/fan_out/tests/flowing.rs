//! What flows, in order, once, within bounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::fake::*;
use crate::entropy::Entropy;
use crate::model::{ChildShard, HashKeyRange};
use crate::source::fan_out::{Class, FanOutTimeouts, Turns};
use crate::source::{ShardReader, SourceEnd, StartFrom};

/// The bound of the buffer and one event.
const MOST_BYTES: usize = (2 << 20) + 3 * (1 << 20);

#[tokio::test(start_paused = true)]
async fn the_ends_after_five_minutes_are_invisible() {
    let service = Service::default();
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let (start, mut expected, mut got) = (Instant::now(), Vec::new(), Vec::new());
    let mut longest = Duration::ZERO;
    while start.elapsed() < SECOND * 1_800 {
        expected.extend(service.put(1, 10));
        let put = Instant::now();
        while got.len() < expected.len() {
            let batch = reader.next().await.unwrap();
            assert!(reader.absorbed_failures().is_none());
            got.extend(numbers(&batch));
        }
        longest = longest.max(put.elapsed());
        sleep(Duration::from_millis(70)).await;
    }
    assert_eq!(got, expected);
    assert!(longest < SECOND, "{longest:?}");
    let asked = service.lock().asked.clone();
    assert!((7..=8).contains(&asked.len()), "the first ends early, the others after five minutes: {asked:?}");
    assert!(service.open() == 1);
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_readers_that_start_together_are_spread() {
    let turns = Arc::new(Turns::new(Entropy::seeded(1)));
    let services: Vec<Service> = (0..100).map(|_| Service::default()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, service) in (0u64..).zip(&services) {
        let mut reader = service.reader_with(StartFrom::Latest, FanOutTimeouts::default(), &turns, seed);
        tasks.spawn(async move {
            loop {
                reader.next().await.unwrap();
            }
        });
    }
    let start = Instant::now();
    sleep(SECOND * 1_200).await;
    let mut seconds = vec![0; 1_200];
    for service in &services {
        for (at, _) in &service.lock().asked {
            seconds[at.duration_since(start).as_secs() as usize] += 1;
        }
    }
    let busiest = seconds[400..].iter().max().unwrap();
    assert!(*busiest <= 5, "100 subscriptions per five minutes, spread: {busiest} in a second");
}

#[tokio::test(start_paused = true)]
async fn a_buffer_that_is_full_ends_the_subscription_until_there_is_room() {
    let service = Service::default();
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let expected = service.put(60, 1 << 20);
    assert_eq!(read(&mut reader, 3).await, expected[..3]);
    sleep(SECOND * 3).await;
    assert_eq!(service.open(), 0, "nobody takes what comes");
    let (asked, events) = service.counts();
    for _ in 0..600 {
        sleep(SECOND).await;
        assert!(reader.buffered_bytes() <= MOST_BYTES, "{}", reader.buffered_bytes());
    }
    assert_eq!((service.counts(), service.open()), ((asked, events), 0));
    assert_eq!(read(&mut reader, 57).await, expected[3..]);
    let asked = service.lock().asked.clone();
    assert!(asked.is_sorted_by(|a, b| b.0.duration_since(a.0) >= SECOND * 5), "{asked:?}");
    assert!(reader.absorbed_failures().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_processor_of_a_shard_with_little_traffic_keeps_its_subscription() {
    let service = Service::default();
    let mut reader = service.reader(StartFrom::TrimHorizon);
    let mut expected = service.put(1, 10);
    assert_eq!(read(&mut reader, 1).await, expected);
    sleep(SECOND).await;
    let life = service.lock().asked.len();
    for _ in 0..4 {
        sleep(SECOND * 7).await;
        expected = service.put(1, 10);
        sleep(SECOND * 20).await;
        assert_eq!(read(&mut reader, 1).await, expected);
        assert_eq!((service.open(), reader.absorbed_failures().is_none()), (1, true));
    }
    assert!(service.lock().asked.len() <= life + 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reader_closes_the_subscription_before_it_returns() {
    for time in [0, 5, 500, 60_000] {
        let service = Service::default();
        service.put(100, 1 << 18);
        let mut reader = service.reader(StartFrom::TrimHorizon);
        let _ = timeout(Duration::from_millis(10), reader.next()).await;
        sleep(Duration::from_millis(time)).await;
        drop(reader);
        assert_eq!(service.open(), 0, "after {time} ms");
        let asked = service.lock().asked.len();
        sleep(SECOND * 60).await;
        assert_eq!((service.open(), service.lock().asked.len()), (0, asked));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_first_call() {
    let service = Service::default();
    let _reader = service.reader(StartFrom::TrimHorizon);
    sleep(SECOND * 60).await;
    assert_eq!(service.counts(), (0, 0));
    assert_eq!(service.lock().prepared, 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_with_its_children_or_without_and_comes_again() {
    let child =
        ChildShard { id: "child".into(), parents: vec!["shard".into()], hash_key_range: HashKeyRange::FULL };
    for children in [vec![child], Vec::new()] {
        for records in [0, 7] {
            let service = Service::default();
            let expected = service.put(records, 10);
            service.close(children.clone());
            let mut reader = service.reader(StartFrom::TrimHorizon);
            let mut got = Vec::new();
            let end = loop {
                let batch = reader.next().await.unwrap();
                got.extend(numbers(&batch));
                if let Some(end) = batch.end {
                    break end;
                }
            };
            assert_eq!((got, &end), (expected, &SourceEnd { children: children.clone() }));
            let again = reader.next().await.unwrap();
            assert_eq!((again.records.len(), again.end), (0, Some(end)));
            sleep(SECOND * 60).await;
            assert_eq!((service.open(), service.lock().asked.len()), (0, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_is_kept_until_an_event_came_and_then_followed() {
    for from in
        [StartFrom::TrimHorizon, StartFrom::AtSequence(20.into()), StartFrom::AfterSequence(10.into())]
    {
        let service = Service::default();
        let all = service.put(5, 10);
        let expected = if from == StartFrom::TrimHorizon { all } else { all[1..].to_vec() };
        service.then([
            Act::Refuse(Class::Unavailable),
            Act::FailAfter(0, Class::Unavailable),
            Act::EndAfter(0),
            Act::FailAfter(1, Class::Unavailable),
        ]);
        let mut reader = service.reader(from);
        assert_eq!(read(&mut reader, expected.len()).await, expected);
        let asked: Vec<StartFrom> = service.lock().asked.iter().map(|(_, from)| *from).collect();
        assert_eq!(asked[..4], [from; 4]);
        let after = if from == StartFrom::TrimHorizon { 33 } else { 43 };
        assert_eq!(asked[4..], [StartFrom::AfterSequence(after.into())]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_event_moves_the_place_too() {
    let service = Service::default();
    let mut reader = service.reader(StartFrom::Latest);
    service.then([Act::FailAfter(1, Class::Unavailable)]);
    let first = timeout(SECOND * 20, async {
        while service.lock().asked.len() < 2 {
            reader.next().await.unwrap();
        }
    });
    first.await.unwrap();
    assert!(matches!(service.lock().asked[1].1, StartFrom::AfterSequence(_)));
}

#[tokio::test(start_paused = true)]
async fn a_latest_start_that_fails_loses_nothing_that_was_put_meanwhile() {
    let service = Service::default();
    let mut reader = service.reader(StartFrom::Latest);
    service.then([Act::FailAfter(0, Class::Unavailable), Act::Refuse(Class::Unavailable)]);
    let _ = timeout(Duration::from_millis(100), reader.next()).await;
    let expected = service.put(2, 10);
    assert_eq!(read(&mut reader, 2).await, expected);
    let asked = service.lock().asked.clone();
    assert_eq!(asked[0].1, StartFrom::Latest);
    assert!(matches!(asked[1].1, StartFrom::AtTimestamp(_)), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn disturbed_and_cancelled_reads_lose_and_repeat_nothing() {
    for seed in 0..40 {
        let service = Service::default();
        let entropy = Entropy::seeded(seed);
        let classes = [Class::Unavailable, Class::InUse, Class::Throttled, Class::Corrupt, Class::Missing];
        service.then((0..60).map(|_| {
            let class = classes[entropy.below(5) as usize];
            let events = entropy.below(4) as usize;
            match entropy.below(6) {
                0 => Act::Refuse(class),
                1 => Act::NeverOpen,
                2 => Act::SilentAfter(events),
                3 => Act::EndAfter(events),
                _ => Act::FailAfter(events, class),
            }
        }));
        let turns = Arc::new(Turns::new(entropy.fork()));
        let mut reader = service.reader_with(StartFrom::TrimHorizon, FanOutTimeouts::default(), &turns, seed);
        let (start, mut expected, mut got) = (Instant::now(), Vec::new(), Vec::new());
        while expected.len() < 200 || got.len() < expected.len() {
            assert!(start.elapsed() < SECOND * 7_200, "seed {seed}: the records do not come");
            if expected.len() < 200 {
                expected.extend(service.put(entropy.below(4) as usize, 10));
            }
            let patience = Duration::from_millis(entropy.below(4_000));
            // Three silences in a row are an error; the reader may be asked again all the same.
            if let Ok(Ok(batch)) = timeout(patience, reader.next()).await {
                got.extend(numbers(&batch));
            }
        }
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_turn_gives_signs_of_life() {
    let turns = Arc::new(Turns::new(Entropy::seeded(1)));
    let crowd = Service::default();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        turns.slow_down();
    }
    for seed in 0..20 {
        let service = Service::default();
        let mut reader = service.reader_with(StartFrom::Latest, FanOutTimeouts::default(), &turns, seed);
        tasks.spawn(async move {
            loop {
                reader.next().await.unwrap();
            }
        });
    }
    sleep(SECOND).await;
    let mut last = crowd.reader_with(StartFrom::Latest, FanOutTimeouts::default(), &turns, 7);
    while crowd.lock().asked.is_empty() {
        timeout(SECOND * 8, last.next()).await.expect("a sign of life").unwrap();
    }
}
