use proptest::prelude::*;

use super::*;
use crate::entropy::Entropy;

const LATENCY: Duration = Duration::from_millis(20);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Answered { bytes: usize, behind: bool },
    Throttled,
    Failed { delay: u64 },
    Dropped,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => (0usize..100_000, any::<bool>()).prop_map(|(bytes, behind)| Outcome::Answered { bytes, behind }),
        1 => (0usize..11 << 20).prop_map(|bytes| Outcome::Answered { bytes, behind: true }),
        1 => Just(Outcome::Throttled),
        1 => (0u64..5_000).prop_map(|delay| Outcome::Failed { delay }),
        1 => Just(Outcome::Dropped),
    ]
}

proptest! {
    #[test]
    fn no_second_has_more_than_five_calls_and_no_byte_is_read_unpaid(
        steps in prop::collection::vec((outcome(), 0u64..300, 0u64..400, 0.0f64..1.0), 1..200),
        min_interval in 0u64..400,
    ) {
        let config = PollingConfig { min_interval: millis(min_interval), ..PollingConfig::default() };
        let start = Instant::now();
        let mut pace = Pace::new(&config, start);
        let (mut now, mut calls, mut bytes_read) = (start, Vec::new(), 0usize);
        for (outcome, latency, idle, jitter) in steps {
            now = now.max(pace.ready()) + millis(idle);
            // What was read before this call was paid for, up to a second's allowance.
            let allowed = ((now - start).as_secs_f64() + 1.0) * BYTES_PER_SECOND;
            prop_assert!(bytes_read as f64 <= allowed + 1.0);
            calls.push(now);
            pace.called(now);
            now += millis(latency);
            match outcome {
                Outcome::Answered { bytes, behind } => {
                    bytes_read += bytes;
                    pace.answered(now, bytes, behind, jitter);
                }
                Outcome::Throttled => pace.throttled(now, jitter),
                Outcome::Failed { delay } => pace.postpone(now + millis(delay)),
                Outcome::Dropped => {}
            }
        }
        for six in calls.windows(CALLS_PER_SECOND + 1) {
            prop_assert!(six[CALLS_PER_SECOND] - six[0] > SECOND, "{six:?}");
        }
    }
}

#[test]
fn alone_at_the_tip_calls_are_two_hundred_milliseconds_apart() {
    let start = Instant::now();
    let (mut pace, entropy) = (Pace::new(&PollingConfig::default(), start), Entropy::seeded(1));
    let mut last = start;
    for call in 0..100 {
        let now = pace.ready();
        pace.called(now);
        pace.answered(now + LATENCY, 100, false, entropy.unit());
        if call > 0 {
            assert!((millis(200)..=millis(221)).contains(&(now - last)), "{:?}", now - last);
        }
        last = now;
    }
}

#[test]
fn incident_22_behind_the_tip_calls_follow_each_other_at_once() {
    let start = Instant::now();
    let mut pace = Pace::new(&PollingConfig::default(), start);
    for call in 0..CALLS_PER_SECOND as u32 {
        assert_eq!(pace.ready(), start + LATENCY * call);
        pace.called(pace.ready());
        pace.answered(start + LATENCY * (call + 1), 1_000, true, 0.5);
    }
    assert_eq!(pace.ready(), start + SECOND + TICK);
}

#[test]
fn the_largest_answer_is_paid_for_with_five_seconds() {
    let start = Instant::now();
    let mut pace = Pace::new(&PollingConfig::default(), start);
    pace.called(start);
    pace.answered(start, 10 << 20, true, 0.0);
    assert_eq!(pace.ready(), start + Duration::from_secs(5));
}

#[test]
fn a_dropped_call_is_not_repeated_at_once() {
    let start = Instant::now();
    let mut pace = Pace::new(&PollingConfig::default(), start);
    pace.called(start);
    assert_eq!(pace.ready(), start + millis(200));
}

/// The service's side: five calls per second, a second's worth saved up.
struct Shard {
    tokens: f64,
    at: Instant,
}

impl Shard {
    fn admits(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * 5.0).min(5.0);
        self.at = now;
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

/// Lets readers poll one shard and returns the calls (admitted, refused) of each between `from` and `until`
/// seconds; `leaves` says when a reader stops.
fn share(seed: u64, behind: bool, leaves: &[u64], from: u64, until: u64) -> Vec<(u32, u32)> {
    let (start, entropy) = (Instant::now(), Entropy::seeded(seed));
    let second = Duration::from_secs;
    let mut shard = Shard { tokens: 5.0, at: start };
    let mut paces: Vec<_> = leaves
        .iter()
        .map(|_| Pace::new(&PollingConfig::default(), start + millis(entropy.below(1_000))))
        .collect();
    let mut counts = vec![(0, 0); leaves.len()];
    loop {
        let present = (0..paces.len()).filter(|at| paces[*at].ready() < start + second(leaves[*at]));
        let Some(next) = present.min_by_key(|at| paces[*at].ready()) else { return counts };
        let now = paces[next].ready();
        if now >= start + second(until) {
            return counts;
        }
        let admitted = shard.admits(now);
        paces[next].called(now);
        if admitted {
            paces[next].answered(now + LATENCY, 100, behind, entropy.unit());
        } else {
            paces[next].throttled(now + LATENCY, entropy.unit());
        }
        if now >= start + second(from) {
            if admitted { counts[next].0 += 1 } else { counts[next].1 += 1 }
        }
    }
}

#[test]
fn three_readers_get_a_quarter_each_at_least_without_a_storm_of_calls() {
    for seed in 0..50 {
        for behind in [false, true] {
            let counts = share(seed, behind, &[u64::MAX >> 32; 3], 20, 320);
            let admitted: u32 = counts.iter().map(|count| count.0).sum();
            let refused: u32 = counts.iter().map(|count| count.1).sum();
            for count in &counts {
                assert!(count.0 * 4 >= admitted, "seed {seed}: {counts:?}");
            }
            assert!(admitted >= 5 * 300 * 6 / 10, "seed {seed}: the shard is used: {counts:?}");
            assert!(refused * 5 <= admitted, "seed {seed}: few calls are refused: {counts:?}");
        }
    }
}

#[test]
fn a_reader_left_alone_takes_the_whole_shard_within_a_minute() {
    for seed in 0..20 {
        let counts = share(seed, false, &[u64::MAX >> 32, 100, 100], 160, 260);
        assert!(counts[0].0 >= 440 && counts[0].1 <= 5, "seed {seed}: {counts:?}");
    }
}
