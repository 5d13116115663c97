//! What a run will be like: drawn whole from the seed before anything happens.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use kcl_core::testing::Mishap;
use kcl_core::{CheckpointPolicy, Coordination, InitialPosition, Settings};

use super::scenario::Scenario;
use super::seed::Seed;
use super::witness::{Checkpoints, Conduct, Sleepless, Strike};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What stands between the workers and the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Nothing: the model of the stream and the memory store.
    Model,
    /// The AWS SDK's clients, over the in-process HTTP client, and the DynamoDB store.
    Sdk,
}

/// How shards are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// By polling.
    Polling,
    /// By enhanced fan-out.
    FanOut,
}

/// A task of a worker that can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The supervisor.
    Supervisor,
    /// The task that reads and writes the lease table.
    LeaseSide,
    /// The consumer of some shard.
    Consumer,
}

/// Something that befalls a certain worker. No plan draws it: tests write it down.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// It stops in order.
    Leave,
    /// It is held, and goes on this much later.
    Stall(Duration),
    /// One task of it is held, and goes on this much later.
    Freeze(Frozen, Duration),
    /// One of its requests to the lease table is struck.
    Strike(Strike),
    /// The fleet rows throttle its writes, and its reads as well if asked for, for this long.
    ThrottleFleetRows {
        /// Whether reads are throttled, too.
        reads: bool,
        /// For how long.
        time: Duration,
    },
    /// What it deletes from the lease table is deleted this much later.
    HoldDeletions(Duration),
    /// A clock of its leaps ahead of the monotonic one, as if it had been suspended.
    Leap(Sleepless, Duration),
    /// The others hold it for dead: its entry is removed.
    Evict,
}

/// Something the world does. Which worker or shard it concerns is drawn when it is done, unless it says so itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts records of a few keys, some of them as aggregates.
    Put {
        /// How many keys get records.
        keys: usize,
        /// The most records of a key.
        most: u64,
        /// How much a payload is padded at most, in bytes.
        padding: usize,
    },
    /// Puts a record on each open shard.
    PutOnEach,
    /// Does something to the worker of this name.
    To(String, Deed),
    /// Splits a shard, or merges two neighbours.
    Reshard,
    /// Doubles or halves the shards.
    ReshardAll,
    /// Starts a worker.
    Start,
    /// Kills a worker.
    Crash,
    /// Kills a worker and starts it again under its id.
    Restart,
    /// Stops a worker in order.
    Stop,
    /// Holds a worker, and lets it go on this much later.
    Stall(Duration),
    /// Holds one task of a worker, and lets it go on this much later.
    Freeze(Frozen, Duration),
    /// Lets a mishap befall a share of a worker's calls.
    Befall(Mishap, f64),
    /// Ends all mishaps of a worker.
    Calm,
    /// Replaces all workers one by one.
    Deploy,
    /// Stops or kills all workers; they start again this much later.
    Outage(Duration),
    /// Cuts all workers, or about half of them, off from the lease table, for this long.
    CutTable {
        /// Whether all are cut off.
        all: bool,
        /// For how long.
        time: Duration,
    },
    /// Lets the answers to a worker's fleet writes come late, then cuts it off from the lease table for a while.
    LateAnswers {
        /// How late they come.
        late: Duration,
        /// For how long it is cut off.
        time: Duration,
    },
    /// Pauses a worker, and lets it go on this much later.
    Pause(Duration),
    /// Makes every shard iterator expire.
    ExpireIterators,
    /// Looks whether everything put is processed, but for what is quite new.
    NotSilent,
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No shards.
    #[error("a world needs at least one shard")]
    NoShards,
    /// No workers.
    #[error("a world needs at least one worker")]
    NoWorkers,
    /// Too few workers for what the scenario is about.
    #[error("scenario {scenario} needs at least {least} workers, and {workers} are asked for")]
    TooFewWorkers {
        /// The scenario.
        scenario: Scenario,
        /// How many it needs.
        least: usize,
        /// How many were asked for.
        workers: usize,
    },
    /// More than the machine is asked to simulate.
    #[error("{what} {asked} is more than a run takes: {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        asked: usize,
        /// How many are possible.
        most: usize,
    },
}

/// What a run will be like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it was drawn from; what happens by chance in the run is drawn from it, too.
    pub seed: Seed,
    /// What it is about.
    pub scenario: Scenario,
    /// What stands between workers and services.
    pub wire: Wire,
    /// How workers read.
    pub reading: Reading,
    /// How workers coordinate.
    pub coordination: Coordination,
    /// How many shards the stream has at first.
    pub shards: u32,
    /// How many workers start at first.
    pub workers: usize,
    /// The most workers at a time.
    pub most_workers: usize,
    /// The numbers of every worker, by a clock that runs right.
    pub settings: Settings,
    /// How much faster or slower the workers' clocks run at most, as a share.
    pub drift: f64,
    /// Where workers start.
    pub initial: InitialPosition,
    /// Who checkpoints.
    pub policy: CheckpointPolicy,
    /// How processors behave.
    pub conduct: Conduct,
    /// The time between reads at the tip.
    pub poll_interval: Duration,
    /// The most records of a read.
    pub fetch_records: u32,
    /// About how long calls to the stream take.
    pub stream_latency: Duration,
    /// How long calls to the lease table take at most, there and back each.
    pub store_latency: Duration,
    /// The most rows of a page of the lease table.
    pub page_size: NonZeroU32,
    /// How long the stream keeps records, if so short that some may expire.
    pub retention: Option<Duration>,
    /// What happens when.
    pub steps: Vec<(Duration, Step)>,
    /// When the last fault is over.
    pub storm: Duration,
    /// How long nothing may move once everything is at rest.
    pub rest: Duration,
    /// Whether records are put meanwhile.
    pub rest_traffic: bool,
}

/// What of a plan is asked for in place of what is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How many shards.
    pub shards: Option<u32>,
    /// How many workers.
    pub workers: Option<usize>,
    /// What stands between workers and services.
    pub wire: Option<Wire>,
    /// How workers read.
    pub reading: Option<Reading>,
    /// How workers coordinate.
    pub coordination: Option<Coordination>,
}

/// The most shards and workers of a run.
const MOST: usize = 10_000;

impl Plan {
    /// Draws a plan.
    ///
    /// # Errors
    /// If the wishes contradict the scenario or make no sense.
    pub fn draw(seed: Seed, scenario: Scenario, wishes: Wishes) -> Result<Self, PlanError> {
        let mut rng = Rng::with_seed(seed.0);
        let mut plan = Self::anything(seed, &mut rng);
        plan.scenario = scenario;
        scenario.shape(&mut plan, &mut rng);
        if let Some(shards) = wishes.shards {
            plan.shards = shards;
        }
        if let Some(workers) = wishes.workers {
            (plan.workers, plan.most_workers) = (workers, plan.most_workers.max(workers));
        }
        if let Some(wire) = wishes.wire {
            plan.wire = wire;
        }
        if let Some(reading) = wishes.reading {
            plan.reading = reading;
        }
        if let Some(coordination) = wishes.coordination {
            plan.coordination = coordination;
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), PlanError> {
        let least = self.scenario.least_workers();
        if self.shards == 0 {
            return Err(PlanError::NoShards);
        }
        if self.workers == 0 {
            return Err(PlanError::NoWorkers);
        }
        if self.workers < least {
            let (scenario, workers) = (self.scenario, self.workers);
            return Err(PlanError::TooFewWorkers { scenario, least, workers });
        }
        for (what, asked) in [("shards:", self.shards as usize), ("workers:", self.workers)] {
            if asked > MOST {
                return Err(PlanError::TooMany { what, asked, most: MOST });
            }
        }
        Ok(())
    }

    fn anything(seed: Seed, rng: &mut Rng) -> Self {
        let wire = if rng.u8(..16) == 0 { Wire::Sdk } else { Wire::Model };
        let workers = rng.usize(1..4);
        let settings = settings(rng);
        let storm = SECOND * rng.u32(10..40);
        let mut plan = Self {
            seed,
            scenario: Scenario::Any,
            wire,
            reading: reading(seed),
            coordination: coordination(seed),
            shards: rng.u32(1..5),
            workers,
            most_workers: workers + rng.usize(0..3),
            drift: if rng.bool() { 0.0 } else { rng.f64() * 0.02 },
            initial: InitialPosition::TrimHorizon,
            policy: policy(rng),
            conduct: conduct(rng, settings.lease_duration),
            settings,
            poll_interval: MS * rng.u32(200..1000),
            fetch_records: if rng.bool() { 10_000 } else { rng.u32(1..20) },
            stream_latency: MS * rng.u32(0..60),
            store_latency: MS * rng.u32(0..60),
            page_size: page_size(seed),
            retention: None,
            steps: Vec::new(),
            storm,
            rest: SECOND * 30,
            rest_traffic: true,
        };
        if rng.u8(..8) == 0 {
            plan.initial = InitialPosition::Latest;
        }
        if rng.u8(..16) == 0 {
            plan.retention = Some(SECOND * rng.u32(5..60));
        }
        plan.traffic(rng);
        plan.storm(rng);
        plan
    }

    /// Puts every second or so.
    fn traffic(&mut self, rng: &mut Rng) {
        let mut at = Duration::ZERO;
        while at < self.storm {
            let step = Step::Put {
                keys: rng.usize(1..8),
                most: rng.u64(1..12),
                padding: if rng.u8(..4) == 0 { 1_000 } else { 0 },
            };
            self.steps.push((at, step));
            at += MS * rng.u32(100..3000);
        }
    }

    /// Faults of every kind, now many, now few.
    fn storm(&mut self, rng: &mut Rng) {
        let pause = MS * rng.u32(500..6000);
        let mut at = SECOND;
        let resharding = rng.u8(..4);
        while at < self.storm {
            let step = match rng.u8(..24) {
                0..4 if resharding > 0 => Step::Reshard,
                0..8 if resharding == 3 => Step::Reshard,
                8 if resharding > 1 => Step::ReshardAll,
                9 | 10 => Step::Start,
                11 => Step::Crash,
                12 => Step::Restart,
                13 => Step::Stop,
                14 => Step::Stall(self.settings.lease_duration.mul_f64(0.2 + 2.3 * rng.f64())),
                15 => self.freeze(rng),
                16..20 => Step::Befall(mishap(rng), if rng.u8(..4) == 0 { 0.5 } else { rng.f64() * 0.1 }),
                20 => Step::Calm,
                21 if rng.u8(..3) == 0 => Step::Deploy,
                22 if rng.u8(..3) == 0 => Step::Outage(SECOND * rng.u32(1..30)),
                23 => match rng.u8(..3) {
                    0 => Step::Pause(SECOND * rng.u32(1..20)),
                    _ => Step::ExpireIterators,
                },
                _ => Step::Put { keys: 2, most: 3, padding: 0 },
            };
            self.steps.push((at, step));
            at += pause.mul_f64(0.2 + 1.6 * rng.f64());
        }
    }

    fn freeze(&self, rng: &mut Rng) -> Step {
        let part = match rng.u8(..4) {
            0 => Frozen::Supervisor,
            1 => Frozen::LeaseSide,
            _ => Frozen::Consumer,
        };
        let longest = self.settings.stall_timeout * 3;
        Step::Freeze(part, longest.mul_f64(rng.f64()))
    }

    /// For how long a consumer may be silent before its lease must not be renewed: what it may have promised, and
    /// the time to the renewal after that.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let promised = self.settings.callback_limit.max(self.settings.stall_timeout * 2);
        promised + SECOND * 5 + self.settings.lease_duration
    }

    /// Within what time after the last fault everything must be delivered, owned and balanced.
    #[must_use]
    pub fn recovery(&self) -> Duration {
        let callbacks = self.conduct.blocked.max(self.settings.callback_limit.min(SECOND * 60));
        self.patience()
            + self.settings.lease_duration * 12
            + self.settings.retry_max * 4
            + callbacks
            + SECOND * 120
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, scenario {}: {:?}, {:?}, {:?}",
            self.seed, self.scenario, self.wire, self.reading, self.coordination
        )?;
        writeln!(
            f,
            "{} shards, {} workers at first and {} at most, clocks off by up to {:.2} %, start {:?}, {:?}",
            self.shards,
            self.workers,
            self.most_workers,
            self.drift * 100.0,
            self.initial,
            self.policy
        )?;
        writeln!(f, "{:?}", self.settings)?;
        writeln!(f, "{:?}", self.conduct)?;
        writeln!(
            f,
            "polls every {:?} up to {} records in about {:?}, lease table within {:?} in pages of {}, retention {:?}",
            self.poll_interval,
            self.fetch_records,
            self.stream_latency,
            self.store_latency,
            self.page_size,
            self.retention
        )?;
        for (at, step) in &self.steps {
            writeln!(f, "{:>10.3} {step:?}", at.as_secs_f64())?;
        }
        write!(f, "{:>10.3} faults are over", self.storm.as_secs_f64())
    }
}

fn settings(rng: &mut Rng) -> Settings {
    let mut settings = Settings::default();
    settings.lease_duration = if rng.bool() { SECOND * 10 } else { MS * rng.u32(3_000..12_000) };
    let duration = settings.lease_duration;
    settings.lease_safety_margin = duration.mul_f64(0.06 + 0.2 * rng.f64());
    settings.lease_scan_interval = duration.mul_f64(0.15 + 0.25 * rng.f64());
    settings.max_lease_writes = if rng.u8(..4) == 0 { 1 } else { 32 };
    settings.max_requests = rng.usize(1..17);
    settings.shard_sync_interval = SECOND * rng.u32(5..60);
    settings.ended_lease_retention = if rng.bool() { SECOND * 900 } else { SECOND * rng.u32(20..60) };
    settings.parent_poll_interval = MS * rng.u32(200..3_000);
    if rng.bool() {
        settings.shard_buffer_bytes = rng.usize(500..20_000);
        settings.worker_buffer_bytes = settings.shard_buffer_bytes * rng.usize(1..4);
    }
    if rng.bool() {
        settings.batch_records = rng.usize(1..20);
        settings.batch_bytes = rng.usize(10..4_000);
    }
    settings.retry_max = MS * rng.u32(500..8_000);
    settings.callback_limit = if rng.bool() { SECOND * 900 } else { SECOND * rng.u32(20..60) };
    settings.stall_timeout = if rng.bool() { SECOND * 60 } else { SECOND * rng.u32(16..40) };
    settings
}

fn policy(rng: &mut Rng) -> CheckpointPolicy {
    match rng.u8(..4) {
        0 => CheckpointPolicy::AfterBatch,
        1 => CheckpointPolicy::Every(MS * rng.u32(100..5_000)),
        _ => CheckpointPolicy::Manual,
    }
}

fn conduct(rng: &mut Rng, lease_duration: Duration) -> Conduct {
    let checkpoints = match rng.u8(..8) {
        0 => Checkpoints::Rarely,
        1 => Checkpoints::Never,
        2 | 3 => Checkpoints::Inside,
        4 => Checkpoints::Late,
        5 => Checkpoints::Prepared,
        _ => Checkpoints::EachBatch,
    };
    let often = |rng: &mut Rng, most: f64| if rng.bool() { 0.0 } else { rng.f64() * most };
    Conduct {
        fail: often(rng, 0.2),
        panic: often(rng, 0.05),
        slowness: if rng.bool() { Duration::ZERO } else { MS * rng.u32(0..800) },
        block: often(rng, 0.02),
        blocked: lease_duration.mul_f64(0.5 + 3.0 * rng.f64()),
        hang: if rng.u8(..8) == 0 { 0.005 } else { 0.0 },
        spin: 0.0,
        checkpoints,
        checkpoints_at_shutdown: rng.bool(),
    }
}

/// Drawn by a generator of its own: what is added later must not change what the seeds pinned before mean.
fn page_size(seed: Seed) -> NonZeroU32 {
    let mut rng = Rng::with_seed(seed.0.rotate_left(32) ^ 0x70a6e);
    if rng.bool() { NonZeroU32::MAX } else { NonZeroU32::MIN.saturating_add(rng.u32(..6)) }
}

/// Drawn by a generator of its own, as [`page_size`] is.
fn coordination(seed: Seed) -> Coordination {
    let mut rng = Rng::with_seed(seed.0.rotate_left(16) ^ 0x0f1e_e700);
    if rng.u8(..3) == 0 { Coordination::PerLease } else { Coordination::Fleet }
}

/// Drawn by a generator of its own, as [`page_size`] is.
fn reading(seed: Seed) -> Reading {
    let mut rng = Rng::with_seed(seed.0.rotate_left(48) ^ 0xfa_0007);
    if rng.bool() { Reading::FanOut } else { Reading::Polling }
}

/// A mishap for the storm.
fn mishap(rng: &mut Rng) -> Mishap {
    Mishap::ALL[rng.usize(..Mishap::ALL.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_that_cannot_be_are_refused_with_the_reason() {
        let draw =
            |scenario, wishes| Plan::draw(Seed(1), scenario, wishes).map(drop).unwrap_err().to_string();
        let none = Wishes::default();
        let refused = draw(Scenario::Any, Wishes { shards: Some(0), ..none });
        assert!(refused.contains("at least one shard"), "{refused}");
        let refused = draw(Scenario::Any, Wishes { workers: Some(0), ..none });
        assert!(refused.contains("at least one worker"), "{refused}");
        let refused = draw(Scenario::CutOff, Wishes { workers: Some(1), ..none });
        assert!(refused.contains("cut-off needs at least 2 workers"), "{refused}");
        let refused = draw(Scenario::Any, Wishes { shards: Some(1_000_000), ..none });
        assert!(refused.contains("more than a run takes"), "{refused}");
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_seed_and_scenario() {
        for scenario in Scenario::ALL {
            let draw = |seed| Plan::draw(Seed(seed), *scenario, Wishes::default()).unwrap().to_string();
            assert_eq!(draw(5), draw(5));
            assert_ne!(draw(5), draw(6));
        }
    }
}
