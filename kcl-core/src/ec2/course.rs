//! What follows from what the instance metadata says: pure.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::error::MetadataErrorKind;
use super::notice::{Notice, Reason};
use super::observation::{Look, SpotInterruption, TargetState};
use super::settings::{ActivateWhen, InstanceSettings, OnRebalance};

/// From how many failed looks in a row on a service that answered before is in trouble. One call may get lost.
const FAILURES: u32 = 2;
/// What draining has at least.
const LEAST_DRAIN: Duration = Duration::from_secs(5);
/// How much earlier a new deadline must be to matter.
const NOTABLE: Duration = Duration::from_secs(1);

/// Something to do, with its reason.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Say it, and no more.
    Tell(Notice),
    /// Let the workers take leases.
    Activate { reason: &'static str },
    /// Shut the workers down, by this deadline or an earlier one if they are already leaving.
    ShutDown { reason: Reason, deadline: Duration },
}

/// What is known so far.
#[derive(Clone, Debug)]
pub(super) struct Course {
    settings: InstanceSettings,
    began: Instant,
    answered: bool,
    /// What kind of trouble was told last; none if the service was said to answer, or nothing was said yet.
    trouble: Option<MetadataErrorKind>,
    failures: u32,
    target: Option<TargetState>,
    spot: Option<SpotInterruption>,
    rebalance: Option<SystemTime>,
    is_active: bool,
    leaving: Option<(Reason, Instant)>,
}

impl Course {
    pub(super) fn new(settings: InstanceSettings, now: Instant) -> Self {
        let is_active = settings.activate == ActivateWhen::Never;
        Self {
            settings,
            began: now,
            answered: false,
            trouble: None,
            failures: 0,
            target: None,
            spot: None,
            rebalance: None,
            is_active,
            leaving: None,
        }
    }

    /// Why the workers were shut down, if they were.
    pub(super) fn reason(&self) -> Option<&Reason> {
        self.leaving.as_ref().map(|(reason, _)| reason)
    }

    /// Whether Auto Scaling may be waiting for this instance to let go: whatever the workers were shut down for.
    pub(super) const fn is_awaited(&self) -> bool {
        matches!(self.target, Some(TargetState::Terminated | TargetState::OutOfService(_)))
            && self.leaving.is_some()
    }

    /// Whether the instance is at its end, by what was seen last.
    pub(super) const fn is_terminating(&self) -> bool {
        matches!(self.target, Some(TargetState::Terminated))
    }

    /// How long to wait until the next look; none if there is nothing to look at.
    pub(super) fn next_look(&self) -> Option<Duration> {
        match self.trouble {
            Some(MetadataErrorKind::Disabled) => None,
            Some(MetadataErrorKind::Absent) if !self.answered => Some(self.settings.absent_interval),
            _ => Some(self.settings.poll_interval),
        }
    }

    /// Takes in a look and says what to do about it.
    pub(super) fn observe(&mut self, now: Instant, wall: SystemTime, look: &Look) -> Vec<Step> {
        let mut steps = Vec::new();
        self.judge_service(look, &mut steps);
        self.take_in(look, &mut steps);
        self.leave(now, wall, &mut steps);
        self.activate(now, look, &mut steps);
        steps
    }

    fn judge_service(&mut self, look: &Look, steps: &mut Vec<Step>) {
        let Some(error) = look.problem() else {
            if !self.answered || self.trouble.is_some() {
                steps.push(Step::Tell(Notice::MetadataAnswers));
            }
            (self.answered, self.trouble, self.failures) = (true, None, 0);
            return;
        };
        self.failures = self.failures.saturating_add(1);
        let is_passing = self.answered && self.failures < FAILURES;
        if self.trouble != Some(error.kind()) && !is_passing {
            self.trouble = Some(error.kind());
            let error = error.clone();
            steps.push(Step::Tell(Notice::MetadataTrouble { error, answered_before: self.answered }));
        }
    }

    /// Keeps what was said. What could not be asked for stays as it was.
    fn take_in(&mut self, look: &Look, steps: &mut Vec<Step>) {
        if let Ok(target) = &look.target {
            if let Some(state) = target.as_ref().filter(|_| *target != self.target) {
                steps.push(Step::Tell(Notice::Target(state.clone())));
            }
            self.target.clone_from(target);
        }
        if let Ok(spot) = &look.spot {
            if let Some(notice) = spot.as_ref().filter(|_| *spot != self.spot) {
                steps.push(Step::Tell(Notice::SpotInterruption(notice.clone())));
            }
            self.spot.clone_from(spot);
        }
        if let Ok(rebalance) = &look.rebalance {
            if let Some(at) = rebalance.filter(|_| *rebalance != self.rebalance) {
                steps.push(Step::Tell(Notice::RebalanceRecommended(at)));
            }
            self.rebalance = *rebalance;
        }
    }

    fn leave(&mut self, now: Instant, wall: SystemTime, steps: &mut Vec<Step>) {
        let drain = self.settings.drain_deadline;
        let lifecycle = match &self.target {
            Some(TargetState::Terminated) => Some((Reason::Terminating, drain)),
            Some(state @ TargetState::OutOfService(_)) if self.is_active => {
                Some((Reason::OutOfService(state.clone()), drain))
            }
            _ => None,
        };
        let spot = self.spot.clone().map(|notice| {
            let left = notice.at.duration_since(wall).unwrap_or_default();
            let left = left.saturating_sub(self.settings.spot_margin).max(LEAST_DRAIN);
            (Reason::Spot(notice), left.min(drain))
        });
        let rebalance = (self.rebalance.is_some() && self.settings.on_rebalance == OnRebalance::ShutDown)
            .then_some((Reason::Rebalance, drain));
        let soonest =
            [lifecycle, spot, rebalance].into_iter().flatten().min_by_key(|(_, deadline)| *deadline);
        let Some((reason, deadline)) = soonest else { return };
        let ends = now + deadline;
        if self.leaving.as_ref().is_none_or(|(_, before)| ends + NOTABLE < *before) {
            self.leaving = Some((reason.clone(), ends));
            steps.push(Step::ShutDown { reason, deadline });
        }
    }

    fn activate(&mut self, now: Instant, look: &Look, steps: &mut Vec<Step>) {
        if self.is_active || self.leaving.is_some() {
            return;
        }
        let is_patience_over = now.duration_since(self.began) >= self.settings.activate_after;
        let reason = match &look.target {
            Ok(Some(TargetState::InService)) => "the instance is, or goes, into service",
            Ok(Some(TargetState::Detached)) => "no Auto Scaling group says where the instance goes",
            Ok(None) => "no Auto Scaling group says where the instance goes",
            Err(error)
                if !self.answered
                    && matches!(error.kind(), MetadataErrorKind::Absent | MetadataErrorKind::Disabled) =>
            {
                "there is no metadata service to wait for"
            }
            Err(_) if self.target.is_none() && is_patience_over => "the metadata service says nothing",
            Ok(Some(_)) | Err(_) => return,
        };
        self.is_active = true;
        steps.push(Step::Activate { reason });
    }
}
