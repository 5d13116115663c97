//! Sessions one after the other, whatever happens in between: each record comes once, in order.

use std::time::Duration;

use kcl_local::kinesis::{IteratorStart, KinesisOptions, NewRecord, SequenceNumber, Step, Subscription};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{option, prop_assert, prop_assert_eq, proptest};

use super::support::{HALF, STREAM, World, id};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Act {
    Put(usize),
    Wait(u64),
    /// Closes the subscription and goes on from where it told: at that number, or after it.
    Renew {
        at: bool,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..400_usize).prop_map(Act::Put),
        2 => (0..7_000_u64).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(|at| Act::Renew { at }),
        1 => Just(Act::Wait(20_000)),
    ];
    vec(act, 0..60)
}

fn options() -> impl Strategy<Value = KinesisOptions> {
    (1..5_usize, 1..1_000_usize, 0..300_u64, option::of(200..2_000_u32), 6..40_u64).prop_map(
        |(records, bytes, delay, rate, session)| {
            let mut options = KinesisOptions::default();
            options.subscriptions.event_records = records;
            options.subscriptions.event_bytes = bytes;
            options.subscriptions.propagation_delay = Duration::from_millis(delay);
            options.subscriptions.session = Duration::from_secs(session);
            options.limits.subscription_bytes = rate;
            options
        },
    )
}

struct Reader<'w> {
    world: &'w World,
    consumer: String,
    subscription: Option<Subscription>,
    number: Option<SequenceNumber>,
    seen: Vec<SequenceNumber>,
    has_ended: bool,
}

impl Reader<'_> {
    /// Takes what is there now; says until when there is nothing more.
    fn drain(&mut self) -> Option<Duration> {
        let bounds = self.world.options().subscriptions;
        while !self.has_ended {
            let Some(subscription) = &mut self.subscription else {
                self.renew(false);
                continue;
            };
            match subscription.try_next().unwrap() {
                Step::Event(event) => {
                    let sizes =
                        event.records.iter().map(|record| record.data.len() + record.partition_key.len());
                    assert!(event.records.len() <= bounds.event_records);
                    assert!(event.records.len() == 1 || sizes.sum::<usize>() <= bounds.event_bytes);
                    self.seen.extend(event.records.iter().map(|record| record.sequence_number));
                    self.has_ended = event.continuation.is_none();
                    if let Some(number) = event.continuation {
                        assert!(self.seen.last().is_none_or(|last| *last < number));
                        assert!(self.number.is_none_or(|before| before <= number));
                        self.number = Some(number);
                    }
                }
                Step::Wait(until) => return Some(until.duration_since(self.world.now()).unwrap()),
                Step::End => self.subscription = None,
                _ => unreachable!("there are no other steps"),
            }
        }
        None
    }

    fn renew(&mut self, at: bool) {
        self.subscription = None;
        self.world.advance(5 * SECOND);
        let start = match self.number {
            None => IteratorStart::TrimHorizon,
            Some(number) if at => IteratorStart::AtSequenceNumber(number),
            Some(number) => IteratorStart::AfterSequenceNumber(number),
        };
        self.subscription = Some(self.world.subscribe_to_shard(&self.consumer, &id(0), &start).unwrap());
    }
}

proptest! {
    #[test]
    fn every_record_comes_once_and_in_order(options in options(), acts in acts()) {
        let world = World::new(options);
        world.create_stream(STREAM, 1).unwrap();
        let consumer = world.register_stream_consumer(STREAM, "audit").unwrap().arn;
        let (seen, number) = (Vec::new(), None);
        let mut reader = Reader { world: &world, consumer, subscription: None, number, seen, has_ended: false };
        let mut put = Vec::new();
        for act in acts {
            match act {
                Act::Put(size) => {
                    let placed = world.put_record(STREAM, NewRecord::new("k", vec![0; size])).unwrap();
                    put.push(placed.sequence_number);
                }
                Act::Wait(millis) => world.advance(Duration::from_millis(millis)),
                Act::Renew { at } => reader.renew(at),
            }
            reader.drain();
        }
        world.split(0, HALF);
        let mut steps = 0;
        while let Some(wait) = reader.drain() {
            prop_assert!(!wait.is_zero(), "a wait leads on");
            world.advance(wait);
            steps += 1;
            prop_assert!(steps < 10_000, "the shard ends");
        }
        prop_assert_eq!(reader.seen, put);
    }
}
