//! Registering, describing and deregistering consumers.

use std::time::{Duration, UNIX_EPOCH};

use kcl_local::kinesis::{ConsumerRef, ConsumerStatus, KinesisOptions, Limits};

use super::support::{STREAM, World, code};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const SECOND: Duration = Duration::from_secs(1);

fn slow_world() -> World {
    let mut options = KinesisOptions::default();
    options.consumer_create_delay = 10 * SECOND;
    options.consumer_delete_delay = 20 * SECOND;
    let world = World::new(options);
    world.create_stream(STREAM, 1).unwrap();
    world
}

#[test]
fn a_consumer_is_found_by_its_arn_and_by_stream_and_name() {
    let world = World::with_shards(1);
    let registered = world.register_stream_consumer(STREAM, "audit").unwrap();
    assert_eq!(registered.arn, format!("{ARN}/consumer/audit:1700000000"));
    assert_eq!(registered.status, ConsumerStatus::Creating, "the answer to the registration");
    assert_eq!(registered.created, UNIX_EPOCH + 1_700_000_000 * SECOND);
    assert_eq!(registered.stream_arn, ARN);

    let by_arn = world.describe_stream_consumer(&registered.arn).unwrap();
    assert_eq!(by_arn.status, ConsumerStatus::Active);
    assert_eq!(world.describe_stream_consumer(ConsumerRef::named(ARN, "audit")).unwrap(), by_arn);
    let all = ConsumerRef::new(Some(ARN), Some("audit"), Some(&registered.arn));
    assert_eq!(world.describe_stream_consumer(all).unwrap(), by_arn);
    assert_eq!(world.describe_stream_summary(STREAM).unwrap().consumers, 1);
}

#[test]
fn references_that_contradict_themselves_or_name_nothing_are_refused() {
    let world = World::with_shards(1);
    let arn = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    let refused = |consumer: ConsumerRef<'_>| code(world.describe_stream_consumer(consumer));
    assert_eq!(refused(ConsumerRef::new(Some(ARN), Some("other"), Some(&arn))), "InvalidArgumentException");
    assert_eq!(refused(ConsumerRef::new(Some(ARN), None, None)), "InvalidArgumentException");
    assert_eq!(refused(ConsumerRef::default()), "InvalidArgumentException");
    assert_eq!(refused(ConsumerRef::named(ARN, "other")), "ResourceNotFoundException");
    assert_eq!(refused(ConsumerRef::from(format!("{arn}0").as_str())), "ResourceNotFoundException");
    assert_eq!(refused(ConsumerRef::from(ARN)), "ValidationException");
    assert_eq!(code(world.register_stream_consumer("nowhere", "audit")), "ResourceNotFoundException");
    assert_eq!(code(world.register_stream_consumer(STREAM, "a b")), "ValidationException");
}

#[test]
fn a_name_is_taken_until_the_consumer_is_gone_and_then_makes_another_arn() {
    let world = World::with_shards(1);
    let first = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    assert_eq!(code(world.register_stream_consumer(STREAM, "audit")), "ResourceInUseException");
    world.deregister_stream_consumer(&first).unwrap();
    assert_eq!(code(world.deregister_stream_consumer(&first)), "ResourceNotFoundException");
    let second = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    assert_ne!(first, second, "in the same second");
    assert_eq!(code(world.describe_stream_consumer(&first)), "ResourceNotFoundException");
}

#[test]
fn registration_and_deregistration_take_the_time_that_is_set() {
    let world = slow_world();
    let arn = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    let status = || world.describe_stream_consumer(&arn).unwrap().status;
    assert_eq!(status(), ConsumerStatus::Creating);
    assert_eq!(code(world.deregister_stream_consumer(&arn)), "ResourceInUseException");
    world.advance(10 * SECOND);
    assert_eq!(status(), ConsumerStatus::Active);

    world.deregister_stream_consumer(&arn).unwrap();
    world.advance(19 * SECOND);
    assert_eq!(status(), ConsumerStatus::Deleting);
    world.deregister_stream_consumer(&arn).unwrap();
    assert_eq!(code(world.register_stream_consumer(STREAM, "audit")), "ResourceInUseException");
    world.advance(SECOND);
    assert_eq!(code(world.describe_stream_consumer(&arn)), "ResourceNotFoundException");
}

#[test]
fn a_stream_has_at_most_twenty_consumers_and_five_at_a_time_that_are_being_made() {
    let world = slow_world();
    world.configure(|options| {
        options.limits = Limits::aws();
        options.limits.changes = None;
    });
    for number in 0..20 {
        if number % 5 == 0 {
            world.advance(10 * SECOND);
        } else if number == 9 {
            assert_eq!(world.describe_stream_summary(STREAM).unwrap().consumers, 9);
        }
        world.register_stream_consumer(STREAM, &format!("c-{number:02}")).unwrap();
        if number == 4 {
            assert_eq!(code(world.register_stream_consumer(STREAM, "sixth")), "LimitExceededException");
        }
    }
    world.advance(10 * SECOND);
    assert_eq!(code(world.register_stream_consumer(STREAM, "c-20")), "LimitExceededException");
}

#[test]
fn consumers_are_listed_by_pages() {
    let world = World::with_shards(1);
    for name in ["d", "b", "a", "c", "e"] {
        world.register_stream_consumer(STREAM, name).unwrap();
    }
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let page = world.list_stream_consumers(STREAM, Some(2), token.as_deref(), None).unwrap();
        assert!(page.consumers.len() <= 2);
        names.extend(page.consumers.into_iter().map(|consumer| consumer.name));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);

    let token = world.list_stream_consumers(STREAM, Some(2), None, None).unwrap().next_token.unwrap();
    assert_eq!(
        code(world.list_stream_consumers(STREAM, None, Some("junk"), None)),
        "InvalidArgumentException"
    );
    let created = Some(world.now() - SECOND);
    assert_eq!(code(world.list_stream_consumers(STREAM, None, None, created)), "ResourceNotFoundException");
    world.create_stream("other", 1).unwrap();
    assert_eq!(
        code(world.list_stream_consumers("other", None, Some(&token), None)),
        "InvalidArgumentException"
    );
    world.advance(301 * SECOND);
    assert_eq!(
        code(world.list_stream_consumers(STREAM, None, Some(&token), None)),
        "ExpiredNextTokenException"
    );
}

#[test]
fn a_stream_with_consumers_is_deleted_only_together_with_them() {
    let world = World::with_shards(1);
    let arn = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
    assert_eq!(code(world.delete_stream(STREAM)), "ResourceInUseException");
    world.delete_stream_and_consumers(STREAM).unwrap();
    world.create_stream(STREAM, 1).unwrap();
    assert_eq!(code(world.describe_stream_consumer(&arn)), "ResourceNotFoundException");
}
