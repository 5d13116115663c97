//! What the workers of a run are built from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kcl_core::testing::{Fault, FaultRule};
use kcl_core::{Entropy, SchedulerBuilder, Settings, ShardContext};

use super::MS;
use crate::sim::judge::Judge;
use crate::sim::plan::Plan;
use crate::sim::seat::{Cloud, Seat};
use crate::sim::witness::{Manners, Strikes};

/// What each worker is built from.
pub(super) struct Application {
    pub(super) plan: Plan,
    pub(super) judge: Judge,
    pub(super) cloud: Cloud,
    pub(super) seats: Rc<RefCell<BTreeMap<String, Seat>>>,
    pub(super) entropy: Entropy,
    pub(super) manners: Manners,
    pub(super) strikes: Strikes,
}

impl Application {
    /// Gives a new worker its place between the services and the judge.
    pub(super) fn seat(&self, name: &str, builder: SchedulerBuilder) -> SchedulerBuilder {
        // 1 if the clock runs right, more if it is fast.
        let rate = 1.0 + self.plan.drift * (2.0 * self.entropy.unit() - 1.0);
        let settings = by_clock(&self.plan.settings, rate);
        let life = self.judge.live(name, settings.lease_duration, settings.lease_safety_margin);
        let seen_by = (&self.judge, &self.strikes);
        let (mut seat, builder) =
            self.cloud.seat(&self.plan, (life.clone(), rate), seen_by, &self.entropy, builder);
        if !self.plan.store_latency.is_zero() {
            let way = MS..self.plan.store_latency + MS * 2;
            seat.rule(FaultRule::new(Fault::Delay { before: way.clone(), after: way }));
        }
        self.seats.borrow_mut().insert(name.to_owned(), seat);
        let (manners, entropy) = (self.manners.clone(), self.entropy.fork());
        builder
            .initial_position(self.plan.initial)
            .coordination(self.plan.coordination)
            .checkpoint_policy(self.plan.policy)
            .settings(settings)
            .processor(move |shard: &ShardContext| manners.processor(&life, shard, entropy.fork()))
    }
}

/// The settings as a worker lives them whose clock runs at this rate: a duration it measures as ten seconds takes
/// ten seconds divided by the rate. All waiting of the library that matters to leases comes from its settings, so this
/// is a clock that is off.
fn by_clock(settings: &Settings, rate: f64) -> Settings {
    let mut scaled = settings.clone();
    for duration in [
        &mut scaled.lease_duration,
        &mut scaled.lease_safety_margin,
        &mut scaled.lease_scan_interval,
        &mut scaled.shard_sync_interval,
        &mut scaled.ended_lease_retention,
        &mut scaled.parent_poll_interval,
        &mut scaled.retry_initial,
        &mut scaled.retry_max,
        &mut scaled.callback_limit,
        &mut scaled.stall_timeout,
        &mut scaled.start_timeout,
        &mut scaled.shutdown_deadline,
    ] {
        *duration = duration.div_f64(rate);
    }
    scaled
}
