//! What runs are about: anything, or one of the incidents that users of other libraries report.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use kcl_core::testing::Mishap;
use kcl_core::{CheckpointPolicy, Coordination, InitialPosition, Settings};

use super::plan::{Frozen, Plan, Step, Wire};
use super::witness::{Checkpoints, Conduct};

const SECOND: Duration = Duration::from_secs(1);

macro_rules! scenarios {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// What a run is about. The number of an incident is its place among the acceptance criteria.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scenario {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Scenario {
            /// Every scenario.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }
        }
    };
}

scenarios! {
    /// Anything, in any mixture.
    Any = "any",
    /// 1: processors fail and panic, and workers crash; nothing is skipped.
    FailingCode = "failing-code",
    /// 2: a task is frozen for minutes; what is owned is not silent.
    FrozenTasks = "frozen-tasks",
    /// 3: a storm of splits and merges, of empty shards too, and while everything is stopped.
    Resharding = "resharding",
    /// 4: processors that never checkpoint or fail at the end, crashes around it, children not named.
    ShardEnds = "shard-ends",
    /// 8: workers are cut off from the lease table but not from the stream, with clocks that run differently.
    CutOff = "cut-off",
    /// 9: answers are lost, writes land late, the lease table throttles.
    AmbiguousAnswers = "ambiguous-answers",
    /// 10: workers are killed in an otherwise healthy fleet.
    Crashes = "crashes",
    /// 11: processors block for minutes; memory stays bounded and leases are kept.
    BackPressure = "back-pressure",
    /// 12: workers come and go; leases are balanced and then rest.
    Balance = "balance",
    /// 13: checkpoints inside aggregates, late, in two steps, old ones again; crashes in between.
    Checkpoints = "checkpoints",
    /// 17: workers are stopped at any moment.
    Shutdowns = "shutdowns",
    /// 20: workers are paused, batches are small, iterators expire.
    Pauses = "pauses",
    /// Processors stuck for longer than anybody waits for an answer to a request.
    Stolen = "stolen",
    /// The lease table fails for all workers at once, for up to three lease durations: nobody loses anything.
    TableOutages = "table-outages",
    /// A worker hears late of heartbeats that landed long ago, and then nothing.
    LateAnswers = "late-answers",
    /// Workers come, go and die all the time while leases move: hand-overs are cut off at every step.
    HandOvers = "hand-overs",
    /// Nothing goes wrong: the fleet starts, works, rests and stops.
    Calm = "calm",
    /// Nothing happens at all, for an hour.
    Idle = "idle",
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no scenario's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scenario is called {name:?}; there are: {}", names())]
pub struct UnknownScenario {
    name: String,
}

fn names() -> String {
    Scenario::ALL.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        let found = Self::ALL.iter().find(|scenario| scenario.name() == name);
        found.copied().ok_or_else(|| UnknownScenario { name: name.to_owned() })
    }
}

impl Scenario {
    /// How many workers it needs to be about anything.
    #[must_use]
    pub const fn least_workers(self) -> usize {
        match self {
            Self::CutOff | Self::Crashes | Self::Stolen | Self::TableOutages | Self::LateAnswers => 2,
            _ => 1,
        }
    }

    /// Changes a plan that was drawn for anything into one for this.
    pub(super) fn shape(self, plan: &mut Plan, rng: &mut Rng) {
        if self == Self::Any {
            return;
        }
        // What the scenario is about decides, not what was drawn for anything.
        plan.steps.retain(|(_, step)| matches!(step, Step::Put { .. }));
        plan.initial = InitialPosition::TrimHorizon;
        plan.retention = None;
        plan.conduct = Conduct {
            fail: 0.0,
            panic: 0.0,
            slowness: plan.conduct.slowness,
            block: 0.0,
            blocked: Duration::ZERO,
            hang: 0.0,
            spin: 0.0,
            checkpoints: Checkpoints::EachBatch,
            checkpoints_at_shutdown: true,
        };
        plan.workers = plan.workers.max(self.least_workers());
        plan.most_workers = plan.most_workers.max(plan.workers);
        match self {
            Self::Any | Self::Calm => {}
            Self::Idle => {
                plan.steps.clear();
                plan.poll_interval = Duration::from_millis(200);
                plan.settings = Settings::default();
                plan.page_size = NonZeroU32::MAX;
                (plan.wire, plan.drift, plan.storm) = (Wire::Model, 0.0, SECOND);
                (plan.stream_latency, plan.store_latency) = (Duration::ZERO, Duration::ZERO);
                (plan.rest, plan.rest_traffic) = (SECOND * 3600, false);
            }
            Self::FailingCode => {
                (plan.conduct.fail, plan.conduct.panic) = (0.01 + rng.f64() * 0.3, 0.001 + rng.f64() * 0.05);
                every(plan, rng, 4, |rng, _| if rng.bool() { Step::Restart } else { Step::Crash });
                every(plan, rng, 6, |_, _| Step::Start);
            }
            Self::FrozenTasks => {
                let stall = plan.settings.stall_timeout;
                // Nothing else is to keep records waiting.
                (plan.conduct.slowness, plan.fetch_records) = (Duration::ZERO, 10_000);
                plan.settings.callback_limit = plan.settings.callback_limit.min(stall);
                let part = match rng.u8(..4) {
                    0 => Frozen::Supervisor,
                    1 => Frozen::LeaseSide,
                    _ => Frozen::Consumer,
                };
                if part != Frozen::Consumer {
                    // Whatever else is frozen, only another worker can see and help.
                    (plan.workers, plan.most_workers) = (plan.workers.max(2), plan.most_workers.max(2));
                }
                let at = SECOND * rng.u32(3..10);
                let time = plan.patience() + plan.settings.lease_duration * 6 + SECOND * 30;
                plan.steps.push((at, Step::Freeze(part, time)));
                plan.steps.push((at + time - SECOND, Step::NotSilent));
                plan.storm = plan.storm.max(at + time + SECOND);
                every(plan, rng, 20, |_, _| Step::Put { keys: 4, most: 3, padding: 0 });
            }
            Self::Resharding => {
                every(plan, rng, 2, |rng, _| if rng.u8(..6) == 0 { Step::ReshardAll } else { Step::Reshard });
                every(plan, rng, 15, |rng, _| match rng.u8(..4) {
                    0 => Step::Outage(SECOND * rng.u32(1..20)),
                    1 => Step::Restart,
                    2 => Step::Start,
                    _ => Step::Befall(Mishap::HiddenChildren, 1.0),
                });
                if rng.bool() {
                    every(plan, rng, 10, |rng, _| Step::Befall(Mishap::StaleShards, rng.f64() * 0.5));
                }
                if rng.u8(..4) == 0 {
                    plan.steps.retain(|(_, step)| !matches!(step, Step::Put { .. }) || rng.u8(..8) == 0);
                }
            }
            Self::ShardEnds => {
                plan.conduct.checkpoints = match rng.u8(..3) {
                    0 => Checkpoints::Never,
                    1 => Checkpoints::Rarely,
                    _ => Checkpoints::EachBatch,
                };
                plan.conduct.fail = rng.f64() * 0.4;
                plan.conduct.panic = rng.f64() * 0.1;
                every(plan, rng, 4, |_, _| Step::Reshard);
                every(plan, rng, 6, |rng, _| match rng.u8(..3) {
                    0 => Step::Crash,
                    1 => Step::Start,
                    _ => Step::Befall(Mishap::HiddenChildren, 1.0),
                });
                if rng.bool() {
                    every(plan, rng, 8, |_, _| Step::Befall(Mishap::DeniedShards, 0.05));
                }
            }
            Self::CutOff => {
                plan.drift = 0.01;
                plan.settings.lease_safety_margin =
                    plan.settings.lease_duration.mul_f64(0.04 + rng.f64() * 0.06);
                plan.poll_interval = plan.poll_interval.min(Duration::from_millis(300));
                plan.wire = if rng.u8(..8) == 0 { plan.wire } else { Wire::Model };
                let slow = if rng.bool() { Mishap::SlowLeases } else { Mishap::StaleLeases };
                every(plan, rng, 9, |rng, _| match rng.u8(..4) {
                    0 => Step::Befall(slow, 0.6),
                    1 => Step::Stall(SECOND * rng.u32(1..20)),
                    _ => Step::Befall(Mishap::NoLeases, 1.0),
                });
                every(plan, rng, 20, |_, _| Step::Calm);
                if rng.u8(..3) == 0 {
                    // Leases are lost, and perhaps held again, while a callback goes on and on.
                    plan.conduct.block = 0.1 + 0.3 * rng.f64();
                    plan.conduct.blocked = plan.settings.lease_duration.mul_f64(2.0 + 6.0 * rng.f64());
                    plan.settings.callback_limit = plan.conduct.blocked * 2;
                    plan.storm = plan.storm.max(plan.settings.lease_duration * 8);
                    every(plan, rng, 7, |_, _| Step::Calm);
                    every(plan, rng, 12, |rng, _| if rng.bool() { Step::Start } else { Step::Crash });
                }
                every(plan, rng, 1, |_, _| Step::Put { keys: 6, most: 2, padding: 0 });
            }
            Self::AmbiguousAnswers => {
                every(plan, rng, 5, |rng, _| {
                    let mishaps = [
                        Mishap::LostAnswers,
                        Mishap::LateWrites,
                        Mishap::LateWrites,
                        Mishap::HangingLeases,
                        Mishap::ThrottledLeases,
                        Mishap::FailingLeases,
                        Mishap::SlowLeases,
                    ];
                    Step::Befall(mishaps[rng.usize(..mishaps.len())], rng.f64() * 0.4)
                });
                // Leases change hands often, so that what lands late does harm if anything can.
                plan.most_workers = plan.most_workers.max(3);
                every(plan, rng, 4, |rng, _| if rng.bool() { Step::Start } else { Step::Stop });
                every(plan, rng, 1, |_, _| Step::Put { keys: 6, most: 2, padding: 0 });
            }
            Self::Crashes => every(plan, rng, 12, |rng, _| match rng.u8(..3) {
                0 => Step::Start,
                1 => Step::Restart,
                _ => Step::Crash,
            }),
            Self::BackPressure => {
                plan.conduct.block = 0.05 + rng.f64() * 0.2;
                plan.conduct.blocked = plan.settings.lease_duration.mul_f64(2.0 + 4.0 * rng.f64());
                plan.settings.callback_limit = plan.conduct.blocked * 2;
                plan.settings.shard_buffer_bytes = rng.usize(200..5_000);
                plan.settings.worker_buffer_bytes = plan.settings.shard_buffer_bytes * rng.usize(1..6);
                plan.fetch_records = rng.u32(1..10);
                every(plan, rng, 1, |_, _| Step::Put { keys: 8, most: 6, padding: 400 });
            }
            Self::Balance => {
                plan.shards = rng.u32(1..12);
                plan.most_workers = 5;
                every(plan, rng, 6, |rng, _| match rng.u8(..5) {
                    0 | 1 => Step::Start,
                    2 => Step::Stop,
                    3 => Step::Crash,
                    _ => Step::Deploy,
                });
                plan.rest = SECOND * 120;
            }
            Self::Checkpoints => {
                plan.policy = CheckpointPolicy::Manual;
                plan.conduct.checkpoints = match rng.u8(..4) {
                    0 => Checkpoints::Late,
                    1 => Checkpoints::Prepared,
                    _ => Checkpoints::Inside,
                };
                plan.conduct.fail = rng.f64() * 0.3;
                plan.conduct.checkpoints_at_shutdown = rng.bool();
                every(plan, rng, 4, |rng, _| match rng.u8(..4) {
                    0 => Step::Crash,
                    1 => Step::Restart,
                    2 => Step::Stop,
                    _ => Step::Start,
                });
                every(plan, rng, 1, |_, _| Step::Put { keys: 4, most: 12, padding: 0 });
            }
            Self::Shutdowns => {
                plan.conduct.fail = rng.f64() * 0.2;
                every(plan, rng, 3, |rng, _| match rng.u8(..4) {
                    0 | 1 => Step::Stop,
                    2 => Step::Deploy,
                    _ => Step::Start,
                });
                if rng.bool() {
                    every(plan, rng, 6, |rng, _| Step::Befall(Mishap::SlowLeases, rng.f64() * 0.3));
                }
            }
            Self::Pauses => {
                plan.settings.batch_records = rng.usize(1..6);
                plan.settings.shard_buffer_bytes = rng.usize(200..5_000);
                plan.settings.worker_buffer_bytes = plan.settings.shard_buffer_bytes * 4;
                every(plan, rng, 6, |rng, _| {
                    if rng.bool() { Step::Pause(SECOND * rng.u32(1..60)) } else { Step::ExpireIterators }
                });
            }
            Self::TableOutages => {
                plan.coordination = Coordination::Fleet;
                plan.wire = Wire::Model;
                (plan.workers, plan.most_workers) = (rng.usize(2..6), 6);
                plan.shards = rng.u32(1..12);
                let lease_duration = plan.settings.lease_duration;
                let mut at = lease_duration.mul_f64(2.0 + rng.f64());
                for _ in 0..rng.u8(1..4) {
                    let time = lease_duration.mul_f64(0.6 + 2.4 * rng.f64());
                    plan.steps.push((at, Step::CutTable { all: true, time }));
                    at += time + lease_duration.mul_f64(2.0 + rng.f64());
                }
                plan.storm = at;
                every(plan, rng, 2, |_, _| Step::Put { keys: 4, most: 3, padding: 0 });
            }
            Self::LateAnswers => {
                plan.coordination = Coordination::Fleet;
                plan.wire = Wire::Model;
                // The more look at the row, the sooner somebody finds out; and nothing else is to hide it.
                (plan.workers, plan.most_workers) = (rng.usize(4..7), 7);
                plan.shards = rng.u32(4..9);
                plan.drift = 0.0;
                plan.store_latency = plan.store_latency.min(Duration::from_millis(10));
                plan.poll_interval = plan.poll_interval.min(Duration::from_millis(300));
                let lease_duration = plan.settings.lease_duration;
                plan.settings.lease_safety_margin = lease_duration.mul_f64(0.02);
                let mut at = lease_duration.mul_f64(1.0 + rng.f64());
                for _ in 0..4 {
                    // An answer that takes a sixth is not waited for.
                    let late = lease_duration.mul_f64(0.1 + 0.065 * rng.f64());
                    let time = lease_duration.mul_f64(1.5 + rng.f64() * 0.5);
                    plan.steps.push((at, Step::LateAnswers { late, time }));
                    at += late * 6 + time + lease_duration;
                }
                plan.storm = at;
                every(plan, rng, 1, |_, _| Step::Put { keys: 6, most: 2, padding: 0 });
            }
            Self::HandOvers => {
                plan.coordination = Coordination::Fleet;
                plan.shards = rng.u32(2..10);
                (plan.workers, plan.most_workers) = (plan.workers.max(2), 6);
                plan.storm = plan.storm.max(SECOND * 40);
                every(plan, rng, 3, |rng, plan| match rng.u8(..8) {
                    0..3 => Step::Start,
                    3 | 4 => Step::Stop,
                    5 => Step::Crash,
                    6 => Step::Restart,
                    _ => Step::Stall(plan.settings.lease_duration.mul_f64(0.2 + 1.8 * rng.f64())),
                });
                if rng.bool() {
                    every(plan, rng, 6, |rng, _| {
                        let mishaps = [Mishap::LostAnswers, Mishap::LateWrites, Mishap::SlowLeases];
                        Step::Befall(mishaps[rng.usize(..mishaps.len())], rng.f64() * 0.3)
                    });
                    every(plan, rng, 15, |_, _| Step::Calm);
                }
                every(plan, rng, 1, |_, _| Step::Put { keys: 6, most: 2, padding: 0 });
            }
            Self::Stolen => {
                // Members of a fleet give leases away themselves.
                plan.coordination = Coordination::PerLease;
                plan.workers = 2;
                plan.most_workers = 4;
                plan.shards = plan.shards.max(3);
                plan.conduct.block = 0.1 + rng.f64() * 0.3;
                plan.conduct.blocked = plan.settings.lease_duration.mul_f64(3.0 + 2.0 * rng.f64());
                plan.storm = plan.storm.max(plan.settings.lease_duration * 8);
                every(plan, rng, 10, |_, _| Step::Start);
                every(plan, rng, 1, |_, _| Step::Put { keys: 8, most: 2, padding: 0 });
            }
        }
    }
}

/// Adds a step about every so many seconds of the storm.
fn every(plan: &mut Plan, rng: &mut Rng, seconds: u32, mut step: impl FnMut(&mut Rng, &Plan) -> Step) {
    let pause = SECOND * seconds;
    let mut at = pause.mul_f64(rng.f64());
    while at < plan.storm {
        let step = step(rng, plan);
        plan.steps.push((at, step));
        at += pause.mul_f64(0.5 + rng.f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name_and_others_are_told_what_there_is() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(*scenario));
        }
        let error = "war".parse::<Scenario>().unwrap_err().to_string();
        assert!(error.contains("\"war\"") && error.contains("cut-off"), "{error}");
    }
}
