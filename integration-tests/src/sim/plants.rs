//! The bugs that are planted, and within how many seeds of which scenario the judge must notice each.

use kcl_core::Coordination;
use kcl_core::testing::Plant;

use super::judge::Promise;
use super::plan::{Reading, Wire};
use super::scenario::Scenario;

/// A bug to plant.
#[derive(Clone, Copy, Debug)]
pub struct Planting {
    /// The bug.
    pub plant: Plant,
    /// What runs it is planted in.
    pub scenario: Scenario,
    /// What stands between workers and services; drawn if none is given.
    pub wire: Option<Wire>,
    /// How workers read.
    pub reading: Reading,
    /// How workers coordinate.
    pub coordination: Coordination,
    /// Within how many seeds, from 0 on, it must be noticed.
    pub seeds: u64,
    /// Promises of which one must be the first that is broken.
    pub breaks: &'static [Promise],
}

const fn planting(plant: Plant, scenario: Scenario, seeds: u64, breaks: &'static [Promise]) -> Planting {
    Planting {
        plant,
        scenario,
        wire: None,
        reading: Reading::Polling,
        coordination: Coordination::PerLease,
        seeds,
        breaks,
    }
}

const fn in_fleets(plant: Plant, scenario: Scenario, seeds: u64, breaks: &'static [Promise]) -> Planting {
    Planting {
        plant,
        scenario,
        wire: None,
        reading: Reading::Polling,
        coordination: Coordination::Fleet,
        seeds,
        breaks,
    }
}

/// Every bug, in the order of the promises they break.
pub const PLANTINGS: &[Planting] = &[
    planting(Plant::SkipFailedBatch, Scenario::FailingCode, 20, &[Promise::D1, Promise::D2]),
    planting(Plant::ResumeAfterAggregate, Scenario::Checkpoints, 50, &[Promise::D1]),
    planting(Plant::MissingShardIsEnd, Scenario::ShardEnds, 50, &[Promise::D1, Promise::S1, Promise::S2]),
    Planting {
        plant: Plant::ReopenAtLatest,
        scenario: Scenario::Any,
        wire: Some(Wire::Sdk),
        reading: Reading::Polling,
        coordination: Coordination::PerLease,
        seeds: 50,
        breaks: &[Promise::D1],
    },
    Planting {
        plant: Plant::AcceptWithoutRoom,
        scenario: Scenario::BackPressure,
        wire: None,
        reading: Reading::FanOut,
        coordination: Coordination::PerLease,
        seeds: 50,
        breaks: &[Promise::D1],
    },
    planting(Plant::CheckpointAheadOfAck, Scenario::Any, 200, &[Promise::D2]),
    planting(Plant::CheckpointGoesBack, Scenario::Checkpoints, 50, &[Promise::D2]),
    planting(Plant::ValidityFromAnswer, Scenario::CutOff, 500, &[Promise::L1]),
    planting(Plant::DeliverUntilToldLost, Scenario::CutOff, 100, &[Promise::L1]),
    planting(Plant::AdoptWithoutFence, Scenario::Any, 500, &[Promise::L1, Promise::L2]),
    planting(Plant::StealStartsAtOnce, Scenario::Stolen, 500, &[Promise::L1]),
    planting(Plant::ExpireEarly, Scenario::CutOff, 500, &[Promise::L1]),
    planting(Plant::SkipOwnerCondition, Scenario::Calm, 10, &[Promise::L2]),
    planting(Plant::SkipCounterCondition, Scenario::Calm, 10, &[Promise::L2]),
    planting(Plant::TrustReadAfterUnanswered, Scenario::AmbiguousAnswers, 300, &[Promise::L1, Promise::P1]),
    planting(Plant::SwallowRefusedCheckpoint, Scenario::CutOff, 500, &[Promise::L2]),
    planting(Plant::RenewDeadConsumer, Scenario::FrozenTasks, 50, &[Promise::L3]),
    planting(Plant::IgnoreOneParent, Scenario::Resharding, 50, &[Promise::S1, Promise::D1]),
    planting(Plant::IgnoreParents, Scenario::Resharding, 50, &[Promise::S1, Promise::D1]),
    planting(Plant::ParentBeforeChildren, Scenario::Resharding, 20, &[Promise::S1]),
    planting(Plant::TrustNamedChildren, Scenario::ShardEnds, 50, &[Promise::S1]),
    planting(Plant::TwoConsumers, Scenario::CutOff, 500, &[Promise::P1]),
    planting(Plant::CallAfterLast, Scenario::Resharding, 10, &[Promise::P1]),
    planting(Plant::NeverRest, Scenario::Balance, 50, &[Promise::B1]),
    planting(Plant::LeaveWithoutRelease, Scenario::Calm, 20, &[Promise::X1]),
    planting(Plant::IgnoreBudget, Scenario::BackPressure, 50, &[Promise::M1]),
    in_fleets(Plant::HeartbeatFromAnswer, Scenario::LateAnswers, 400, &[Promise::L1]),
    in_fleets(Plant::EvictEarly, Scenario::CutOff, 500, &[Promise::L1]),
    in_fleets(Plant::CreditBlindTime, Scenario::TableOutages, 50, &[Promise::B1]),
    in_fleets(Plant::StaleAbsence, Scenario::Any, 500, &[Promise::L1]),
];
