//! What follows from what was seen.

use tokio::time::Instant;

use super::super::course::{Course, Step};
use super::super::error::{MetadataError, MetadataErrorKind};
use super::super::notice::{Notice, Reason};
use super::super::observation::{Look, SpotInterruption, TargetState};
use super::super::settings::{ActivateWhen, InstanceSettings, OnRebalance};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn quiet() -> Look {
    Look { target: Ok(Some(TargetState::InService)), spot: Ok(None), rebalance: Ok(None) }
}

fn target(state: TargetState) -> Look {
    Look { target: Ok(Some(state)), ..quiet() }
}

fn warmed() -> Look {
    target(TargetState::OutOfService("Warmed:Running".to_owned()))
}

fn spot_in(left: Duration) -> Look {
    let notice = SpotInterruption { action: "terminate".to_owned(), at: epoch() + left };
    Look { spot: Ok(Some(notice)), ..quiet() }
}

fn failing(kind: MetadataErrorKind) -> Look {
    let error = MetadataError::new(kind, "trouble");
    Look { target: Err(error.clone()), spot: Err(error.clone()), rebalance: Err(error) }
}

struct Bench {
    course: Course,
    now: Instant,
}

impl Bench {
    fn new(change: impl FnOnce(&mut InstanceSettings)) -> Self {
        let mut settings = InstanceSettings::default();
        change(&mut settings);
        let now = Instant::now();
        Self { course: Course::new(settings, now), now }
    }

    /// What follows from a look, after some time. The wall clock stands still, so that times of notices stay near.
    fn after(&mut self, passed: Duration, look: &Look) -> Vec<Step> {
        self.now += passed;
        self.course.observe(self.now, epoch(), look)
    }

    fn shutdowns(&mut self, look: &Look) -> Vec<(Reason, Duration)> {
        let steps = self.after(SECOND * 5, look);
        let shutdowns = steps.into_iter().filter_map(|step| match step {
            Step::ShutDown { reason, deadline } => Some((reason, deadline)),
            _ => None,
        });
        shutdowns.collect()
    }

    fn activates(&mut self, passed: Duration, look: &Look) -> bool {
        self.after(passed, look).iter().any(|step| matches!(step, Step::Activate { .. }))
    }

    fn troubles(&mut self, look: &Look) -> Vec<(MetadataErrorKind, bool)> {
        let steps = self.after(SECOND * 5, look);
        let troubles = steps.into_iter().filter_map(|step| match step {
            Step::Tell(Notice::MetadataTrouble { error, answered_before }) => {
                Some((error.kind(), answered_before))
            }
            _ => None,
        });
        troubles.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn termination_shuts_down_once() {
    let mut bench = Bench::new(|_| {});
    assert!(bench.shutdowns(&quiet()).is_empty());
    assert!(!bench.course.is_awaited());
    let shutdowns = bench.shutdowns(&target(TargetState::Terminated));
    assert_eq!(shutdowns, [(Reason::Terminating, MINUTE * 5)]);
    assert!(bench.course.is_awaited() && bench.course.is_terminating());
    for _ in 0..10 {
        assert!(bench.shutdowns(&target(TargetState::Terminated)).is_empty());
        assert!(bench.shutdowns(&failing(MetadataErrorKind::Slow)).is_empty());
    }
    assert!(bench.course.is_awaited(), "trouble with the service does not make the hook forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_spot_interruption_leaves_until_before_it_and_shortens_a_shutdown_under_way() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.shutdowns(&target(TargetState::Terminated)).len(), 1);
    let shutdowns = bench.shutdowns(&spot_in(MINUTE * 2));
    assert!(
        matches!(shutdowns[..], [(Reason::Spot(_), deadline)] if deadline == SECOND * 110),
        "{shutdowns:?}"
    );
    assert!(bench.shutdowns(&spot_in(MINUTE * 2)).is_empty());

    for (left, deadline) in [
        (MINUTE * 20, MINUTE * 5),
        (SECOND * 100, SECOND * 90),
        (SECOND * 12, SECOND * 5),
        // By this host's clock it is over; there is nothing to lose by trying.
        (Duration::ZERO, SECOND * 5),
    ] {
        let shutdowns = Bench::new(|_| {}).shutdowns(&spot_in(left));
        assert!(
            matches!(&shutdowns[..], [(Reason::Spot(_), d)] if *d == deadline),
            "{left:?}: {shutdowns:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_recommendation_is_told_and_followed_only_if_wanted() {
    let look = Look { rebalance: Ok(Some(epoch())), ..quiet() };
    let mut bench = Bench::new(|_| {});
    let steps = bench.after(SECOND, &look);
    assert!(steps.iter().any(|step| matches!(step, Step::Tell(Notice::RebalanceRecommended(_)))));
    assert!(bench.shutdowns(&look).is_empty());
    let mut bench = Bench::new(|settings| settings.on_rebalance = OnRebalance::ShutDown);
    assert_eq!(bench.shutdowns(&look), [(Reason::Rebalance, MINUTE * 5)]);
    assert!(!bench.course.is_awaited(), "no hook waits for that");
}

#[tokio::test(start_paused = true)]
async fn a_worker_stands_by_in_the_warm_pool_and_is_activated_for_service() {
    let mut bench = Bench::new(|settings| settings.activate = ActivateWhen::InService);
    for _ in 0..100 {
        assert!(!bench.activates(MINUTE, &warmed()));
        assert!(bench.shutdowns(&warmed()).is_empty());
        // The pool was seen: silence does not mean service.
        assert!(!bench.activates(MINUTE, &failing(MetadataErrorKind::Slow)));
    }
    assert!(bench.activates(SECOND, &quiet()));
    assert!(!bench.activates(SECOND, &quiet()), "once");
    let shutdowns = bench.shutdowns(&warmed());
    assert!(matches!(&shutdowns[..], [(reason, _)] if reason.may_come_back()), "{shutdowns:?}");
    assert!(bench.course.is_awaited(), "the way back to the pool has the hook of a termination");
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_not_kept_standing_by_where_nobody_will_say_anything() {
    let gated = || Bench::new(|settings| settings.activate = ActivateWhen::InService);
    let no_group = Look { target: Ok(None), ..quiet() };
    assert!(gated().activates(SECOND, &no_group));
    assert!(gated().activates(SECOND, &target(TargetState::Detached)));
    assert!(gated().activates(SECOND, &failing(MetadataErrorKind::Absent)));
    assert!(gated().activates(SECOND, &failing(MetadataErrorKind::Disabled)));
    let mut bench = gated();
    assert!(!bench.activates(SECOND * 29, &failing(MetadataErrorKind::Refused)));
    assert!(bench.activates(SECOND, &failing(MetadataErrorKind::Refused)));
    let mut bench = gated();
    assert!(!bench.activates(SECOND, &target(TargetState::Terminated)), "not on its way out");
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_once_for_each_change_and_a_single_lost_call_not_at_all() {
    use MetadataErrorKind::{Absent, Failing, Slow};
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.troubles(&failing(Absent)), [(Absent, false)]);
    assert_eq!(bench.course.next_look(), Some(MINUTE), "off EC2 it is asked seldom");
    assert!(bench.troubles(&failing(Absent)).is_empty());
    let answers = bench.after(SECOND, &quiet());
    assert!(answers.iter().any(|step| matches!(step, Step::Tell(Notice::MetadataAnswers))));
    assert_eq!(bench.course.next_look(), Some(SECOND * 5));
    for _ in 0..3 {
        assert!(bench.troubles(&failing(Slow)).is_empty());
        assert!(bench.after(SECOND, &quiet()).is_empty(), "what was not told is not taken back");
    }
    assert!(bench.troubles(&failing(Slow)).is_empty());
    assert_eq!(bench.troubles(&failing(Slow)), [(Slow, true)]);
    assert!(bench.troubles(&failing(Slow)).is_empty());
    assert_eq!(bench.troubles(&failing(Failing)), [(Failing, true)]);
    assert_eq!(bench.troubles(&failing(Absent)), [(Absent, true)]);
    assert_eq!(bench.course.next_look(), Some(SECOND * 5), "it was there, and may come back");
    assert_eq!(bench.after(SECOND, &quiet()).len(), 1);
    let mut disabled = Bench::new(|_| {});
    assert_eq!(disabled.troubles(&failing(MetadataErrorKind::Disabled)).len(), 1);
    assert_eq!(disabled.course.next_look(), None);
}
