//! Subscriptions, step by step on a clock that the test moves.

use std::time::Duration;

use kcl_local::kinesis::{
    IteratorStart, KinesisOptions, Limits, NewRecord, SequenceNumber, Step, Subscription, SubscriptionEvent,
};

use super::support::{HALF, STREAM, World, code, id};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A world with one shard and one consumer, given by its ARN.
fn world_with(change: impl FnOnce(&mut KinesisOptions)) -> (World, String) {
    let mut options = KinesisOptions::default();
    change(&mut options);
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    let arn = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    (world, arn)
}

fn world() -> (World, String) {
    world_with(|_| {})
}

fn event(subscription: &mut Subscription) -> SubscriptionEvent {
    match subscription.try_next().unwrap() {
        Step::Event(event) => event,
        other => panic!("no event but {other:?}"),
    }
}

fn texts(event: &SubscriptionEvent) -> Vec<String> {
    event.records.iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()).collect()
}

/// How long the subscription waits from now on.
fn wait(world: &World, subscription: &mut Subscription) -> Duration {
    match subscription.try_next().unwrap() {
        Step::Wait(until) => until.duration_since(world.now()).unwrap(),
        other => panic!("no wait but {other:?}"),
    }
}

fn after(number: SequenceNumber) -> IteratorStart {
    IteratorStart::AfterSequenceNumber(number)
}

#[test]
fn records_come_once_each_and_as_they_are_put() {
    let (world, arn) = world();
    world.put("a");
    let mut horizon = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::TrimHorizon).unwrap();
    world.put("b");
    assert_eq!(texts(&event(&mut horizon)), ["a", "b"]);
    assert!(matches!(horizon.try_next().unwrap(), Step::Wait(_)));
    world.put("c");
    let last = event(&mut horizon);
    assert_eq!((texts(&last), last.millis_behind_latest), (vec!["c".to_owned()], 0));
    assert_eq!(last.child_shards, []);
}

#[test]
fn every_start_begins_where_an_iterator_does() {
    let (world, arn) = world();
    let placed: Vec<_> = ["a", "b", "c"].map(|text| world.put(text)).into();
    let at = world.now() - 2 * MILLI;
    let second = placed[1].sequence_number;
    let starts = [
        IteratorStart::TrimHorizon,
        IteratorStart::Latest,
        IteratorStart::AtSequenceNumber(second),
        IteratorStart::AfterSequenceNumber(second),
        IteratorStart::AtTimestamp(at),
    ];
    for start in starts {
        let expected = world.texts_from(0, start);
        let mut subscription = world.subscribe_to_shard(&arn, &id(0), &start).unwrap();
        let seen = match subscription.try_next().unwrap() {
            Step::Event(event) => texts(&event),
            _ => Vec::new(),
        };
        assert_eq!(seen, expected, "{start:?}");
        world.advance(5 * SECOND);
    }
    let refused = |start| code(world.subscribe_to_shard(&arn, &id(0), &start));
    let foreign = SequenceNumber::from_limbs([1, 2, 3]);
    assert_eq!(refused(after(foreign)), "InvalidArgumentException");
    assert_eq!(refused(IteratorStart::AtTimestamp(world.now() + SECOND)), "InvalidArgumentException");
    let elsewhere = world.subscribe_to_shard(&arn, &id(7), &IteratorStart::Latest);
    assert_eq!(code(elsewhere), "ResourceNotFoundException");
    let junk = world.subscribe_to_shard("junk", &id(0), &IteratorStart::Latest);
    assert_eq!(code(junk), "ValidationException");
}

#[test]
fn a_call_within_five_seconds_is_refused_and_a_later_one_takes_over() {
    let (world, arn) = world();
    let subscribe = || world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest);
    let mut first = subscribe().unwrap();
    world.advance(5 * SECOND - MILLI);
    assert_eq!(code(subscribe()), "ResourceInUseException");
    assert!(matches!(first.try_next().unwrap(), Step::Wait(_)), "the first goes on");
    world.advance(MILLI);
    let mut second = subscribe().unwrap();
    assert_eq!(code(first.try_next()), "ResourceInUseException");
    assert_eq!(first.try_next().unwrap(), Step::End, "after an error nothing comes");
    drop(first);
    world.put("a");
    assert_eq!(texts(&event(&mut second)), ["a"]);
}

#[test]
fn a_subscription_that_was_closed_still_holds_its_five_seconds() {
    let (world, arn) = world();
    let subscribe = || world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest);
    drop(subscribe().unwrap());
    assert_eq!(code(subscribe()), "ResourceInUseException");
    world.advance(5 * SECOND);
    subscribe().unwrap();
}

#[test]
fn consumers_and_shards_do_not_stand_in_each_others_way() {
    let world = World::with_shards(2);
    let one = world.register_stream_consumer(STREAM, "one").unwrap().arn;
    let two = world.register_stream_consumer(STREAM, "two").unwrap().arn;
    let mut subscriptions = Vec::new();
    for arn in [&one, &two] {
        for shard in 0..2 {
            subscriptions.push(world.subscribe_to_shard(arn, &id(shard), &IteratorStart::Latest).unwrap());
        }
    }
    let placed = world.put("a");
    for (index, subscription) in subscriptions.iter_mut().enumerate() {
        let gets_it = placed.shard_id.as_ref() == id(index as u32 % 2);
        assert_eq!(matches!(subscription.try_next().unwrap(), Step::Event(_)), gets_it);
    }
}

#[test]
fn calls_are_counted_per_consumer_and_shard() {
    let (world, arn) = world_with(|options| options.limits.subscribe = Limits::aws().subscribe);
    let subscribe = || world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest);
    let _held = subscribe().unwrap();
    assert_eq!(code(subscribe()), "LimitExceededException");
    world.advance(SECOND);
    assert_eq!(code(subscribe()), "ResourceInUseException");
}

#[test]
fn a_consumer_that_is_not_active_cannot_subscribe() {
    let (world, arn) = world_with(|options| {
        options.consumer_create_delay = 10 * SECOND;
        options.consumer_delete_delay = 10 * SECOND;
    });
    let subscribe = || world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest);
    assert_eq!(code(subscribe()), "ResourceInUseException");
    world.advance(10 * SECOND);
    subscribe().unwrap();
    world.deregister_stream_consumer(&arn).unwrap();
    assert_eq!(code(subscribe()), "ResourceInUseException");
    world.advance(10 * SECOND);
    assert_eq!(code(subscribe()), "ResourceNotFoundException");
}

#[test]
fn a_session_ends_after_its_length_whatever_waits() {
    let (world, arn) = world();
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    world.advance(300 * SECOND - MILLI);
    assert_eq!(event(&mut subscription).records, []);
    assert_eq!(wait(&world, &mut subscription), MILLI);
    world.advance(MILLI);
    world.put("a");
    assert_eq!(subscription.try_next().unwrap(), Step::End);
    assert_eq!(subscription.try_next().unwrap(), Step::End);
}

#[test]
fn heartbeats_come_when_nothing_else_does_and_tell_where_to_go_on() {
    let (world, arn) = world();
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        assert_eq!(wait(&world, &mut subscription), 5 * SECOND);
        world.advance(5 * SECOND);
        let beat = event(&mut subscription);
        assert_eq!((beat.records.len(), beat.millis_behind_latest), (0, 0));
        numbers.push(beat.continuation.unwrap());
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");

    world.advance(3 * SECOND);
    let first = world.put("a").sequence_number;
    assert!(first > numbers[2], "the number of a heartbeat is below what comes after it");
    let with_record = event(&mut subscription).continuation.unwrap();
    assert!(with_record > first, "and above what came before it");
    assert_eq!(wait(&world, &mut subscription), 5 * SECOND, "a record puts the heartbeat off");
    let second = world.put("b").sequence_number;
    assert!(with_record < second);

    for (number, expected) in
        [(numbers[0], vec!["a", "b"]), (numbers[2], vec!["a", "b"]), (with_record, vec!["b"])]
    {
        assert_eq!(world.texts_from(0, after(number)), expected, "after {number}");
        assert_eq!(world.texts_from(0, IteratorStart::AtSequenceNumber(number)), expected, "at {number}");
    }
    let text = with_record.to_string();
    assert_eq!((text.len(), text.parse()), (56, Ok(with_record)), "it looks like any sequence number");
}

#[test]
fn events_are_cut_by_records_and_by_bytes() {
    let (world, arn) = world_with(|options| {
        options.subscriptions.event_records = 3;
        options.subscriptions.event_bytes = 20;
    });
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::TrimHorizon).unwrap();
    for text in ["1", "2", "3", "4", "seventeen bytes..", "far more than twenty bytes of text", "5"] {
        world.put(text);
    }
    let mut events = Vec::new();
    let mut behind = Vec::new();
    while let Step::Event(event) = subscription.try_next().unwrap() {
        events.push(texts(&event));
        behind.push(event.millis_behind_latest);
    }
    let expected = [
        vec!["1", "2", "3"],
        vec!["4"],
        vec!["seventeen bytes.."],
        vec!["far more than twenty bytes of text"],
        vec!["5"],
    ];
    assert_eq!(events, expected);
    assert_eq!(behind, [5, 4, 3, 2, 0]);
}

#[test]
fn records_are_pushed_after_the_propagation_delay() {
    let (world, arn) = world_with(|options| options.subscriptions.propagation_delay = 70 * MILLI);
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    world.put("a");
    assert_eq!(wait(&world, &mut subscription), 69 * MILLI);
    world.advance(39 * MILLI);
    world.put("b");
    world.advance(28 * MILLI);
    assert_eq!(wait(&world, &mut subscription), MILLI);
    world.advance(MILLI);
    assert_eq!(texts(&event(&mut subscription)), ["a"]);
    world.split(0, HALF);
    assert_eq!(wait(&world, &mut subscription), 40 * MILLI);
    world.advance(40 * MILLI);
    assert_eq!(texts(&event(&mut subscription)), ["b"]);
    assert_eq!(wait(&world, &mut subscription), 30 * MILLI, "the end of the shard takes as long");
    world.advance(30 * MILLI);
    assert_eq!(event(&mut subscription).child_shards.len(), 2);
}

#[test]
fn the_end_of_a_shard_comes_with_its_children_and_no_continuation() {
    let (world, arn) = world();
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    let last = world.put("a").sequence_number;
    assert_eq!(texts(&event(&mut subscription)), ["a"]);
    world.split(0, HALF);
    let end = event(&mut subscription);
    assert_eq!((end.records.len(), end.continuation), (0, None));
    let children: Vec<_> = end.child_shards.iter().map(|child| child.shard_id.to_string()).collect();
    assert_eq!(children, [id(1), id(2)]);
    assert_eq!(subscription.try_next().unwrap(), Step::End);

    let end = world.describe(0).ending_sequence_number.unwrap();
    for start in [IteratorStart::Latest, after(last), after(end), IteratorStart::TrimHorizon] {
        world.advance(5 * SECOND);
        let mut again = world.subscribe_to_shard(&arn, &id(0), &start).unwrap();
        let page = event(&mut again);
        let is_all = start == IteratorStart::TrimHorizon;
        assert_eq!((page.records.len(), page.continuation), (usize::from(is_all), None), "{start:?}");
        assert_eq!(page.child_shards.len(), 2, "{start:?}");
        assert_eq!(again.try_next().unwrap(), Step::End, "{start:?}");
    }
}

#[test]
fn the_end_of_a_shard_can_be_told_without_its_children() {
    let (world, arn) = world_with(|options| options.subscriptions.hide_children = true);
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    world.split(0, HALF);
    let end = event(&mut subscription);
    assert_eq!((end.continuation, end.child_shards), (None, Vec::new()));
    assert_eq!(subscription.try_next().unwrap(), Step::End);
}

#[test]
fn a_reshard_under_way_is_waited_for() {
    let (world, arn) = world_with(|options| options.reshard_delay = 2 * SECOND);
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    world.split(0, HALF);
    assert_eq!(wait(&world, &mut subscription), 2 * SECOND);
    world.advance(2 * SECOND);
    assert_eq!(event(&mut subscription).child_shards.len(), 2);
}

#[test]
fn two_mebibytes_a_second_are_pushed_per_consumer_and_shard() {
    let (world, arn) =
        world_with(|options| options.limits.subscription_bytes = Limits::aws().subscription_bytes);
    let other = world.register_stream_consumer(STREAM, "other").unwrap().arn;
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::TrimHorizon).unwrap();
    for _ in 0..60 {
        let record = NewRecord::new("k", vec![0; (1 << 20) - 1]);
        world.put_record(STREAM, record).unwrap();
    }
    let (start, mut pushed) = (world.now(), 0);
    while pushed < 60 {
        match subscription.try_next().unwrap() {
            Step::Event(event) => pushed += event.records.len(),
            Step::Wait(until) => world.advance(until.duration_since(world.now()).unwrap()),
            Step::End => panic!("the session lasts longer"),
            _ => unreachable!(),
        }
    }
    let took = world.now().duration_since(start).unwrap();
    assert!((28 * SECOND..=30 * SECOND).contains(&took), "60 MiB in {took:?}");
    let mut other = world.subscribe_to_shard(&other, &id(0), &IteratorStart::TrimHorizon).unwrap();
    assert_eq!(event(&mut other).records.len(), 1, "another consumer has an allowance of its own");
}

#[test]
fn deregistration_ends_the_subscriptions_of_the_consumer_alone() {
    let (world, arn) = world_with(|options| options.consumer_delete_delay = SECOND);
    let other = world.register_stream_consumer(STREAM, "other").unwrap().arn;
    let mut ended = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    let mut kept = world.subscribe_to_shard(&other, &id(0), &IteratorStart::Latest).unwrap();
    world.deregister_stream_consumer(&arn).unwrap();
    world.put("a");
    assert_eq!(code(ended.try_next()), "ResourceNotFoundException");
    assert_eq!(texts(&event(&mut kept)), ["a"]);
}

#[test]
fn a_subscription_of_a_former_registration_does_not_live_on_in_the_next() {
    let (world, arn) = world();
    let mut former = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
    world.deregister_stream_consumer(&arn).unwrap();
    let again = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    let mut latter = world.subscribe_to_shard(&again, &id(0), &IteratorStart::Latest).unwrap();
    assert_eq!(code(former.try_next()), "ResourceNotFoundException");
    drop(former);
    world.put("a");
    assert_eq!(texts(&event(&mut latter)), ["a"]);
}

#[test]
fn the_deletion_of_the_stream_ends_its_subscriptions_at_once() {
    for delay in [Duration::ZERO, 10 * SECOND] {
        let (world, arn) = world_with(|options| options.delete_delay = delay);
        let mut subscription = world.subscribe_to_shard(&arn, &id(0), &IteratorStart::Latest).unwrap();
        world.put("a");
        world.delete_stream_and_consumers(STREAM).unwrap();
        assert_eq!(code(subscription.try_next()), "ResourceNotFoundException");
    }
}

#[test]
fn what_retention_has_removed_is_passed_over() {
    let (world, arn) = world();
    let first = world.put("a").sequence_number;
    world.advance(10 * SECOND);
    world.put("b");
    world.set_retention(STREAM, 5 * SECOND).unwrap();
    let mut subscription = world.subscribe_to_shard(&arn, &id(0), &after(first)).unwrap();
    assert_eq!(texts(&event(&mut subscription)), ["b"]);
}
