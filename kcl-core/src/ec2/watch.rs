use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join, join_all};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::course::{Course, Step};
use super::imds::Imds;
use super::lifecycle::{LifecycleAnswer, LifecycleError, LifecycleErrorKind, LifecycleHook};
use super::notice::{Notice, Reason};
use super::observation::Look;
use super::settings::InstanceSettings;
use crate::entropy::Entropy;
use crate::error::Error;
use crate::retry::Backoff;
use crate::scheduler::{Scheduler, SchedulerHandle, ShutdownReport};
use crate::time::{Clock, SystemClock};

/// How many notices a listener may fall behind.
const NOTICE_CAPACITY: usize = 64;
/// No call about the lifecycle action takes longer, whoever makes it.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const RETRY_INITIAL: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Watches what EC2 and Auto Scaling plan for this instance and turns it into shutdowns.
///
/// | the metadata say | the worker |
/// |---|---|
/// | target state `Terminated` (the hook of the group waits in `Terminating:Wait`) | shuts down within [`drain_deadline`](InstanceSettings::drain_deadline) |
/// | target state `Standby` or `Warmed:…`, and it is active | the same; to be started again by whoever runs the process, to stand by ([`Reason::may_come_back`]) |
/// | target state `Standby` or `Warmed:…`, and it stands by | goes on standing by |
/// | target state `InService`, and it stands by | is activated, if [`activate`](InstanceSettings::activate) says so |
/// | a Spot interruption | shuts down, [`spot_margin`](InstanceSettings::spot_margin) before the interruption at the latest |
/// | a rebalance recommendation | as [`on_rebalance`](InstanceSettings::on_rebalance) says; by default goes on |
/// | nothing, or nothing that makes sense | goes on; the trouble is told once for each change |
///
/// While it drains for Auto Scaling the [lifecycle hook](Self::lifecycle_hook) is told to wait, so that the hook's
/// time-out does not cut it short; when it has ended, the lifecycle action is completed, once, also if not everything
/// could be drained. If the worker ends for another reason (SIGTERM, an error), the metadata are looked at once more, and
/// the action is completed if the instance is being terminated.
///
/// One watch serves all workers of a process. Of several processes on an instance only one may have the lifecycle hook,
/// and it must be the one that ends last: completing the action ends the instance for all.
///
/// ```no_run
/// use kcl_core::ec2::{AutoScalingHook, Imds, InstanceWatch};
/// # async fn example(
/// #     builder: kcl_core::SchedulerBuilder,
/// #     auto_scaling: aws_sdk_autoscaling::Client,
/// #     sigterm: impl std::future::Future<Output = ()> + Send,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let imds = Imds::from_env()?;
/// let instance = imds.instance().await?;
/// let scheduler = builder.worker_id(instance.worker_id()).build()?;
/// let hook = AutoScalingHook::new(&auto_scaling, "orders-workers", "drain", &instance);
/// let watch = InstanceWatch::new(imds).lifecycle_hook(hook);
/// let (report, instance_report) = watch.run_scheduler(scheduler, sigterm).await;
/// println!("{}, because {:?}", report?, instance_report.reason);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InstanceWatch {
    imds: Imds,
    settings: InstanceSettings,
    hook: Option<Arc<dyn LifecycleHook>>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    notices: broadcast::Sender<Notice>,
}

/// What a watch did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceReport {
    /// Why it shut the workers down; none if they ended for another reason.
    pub reason: Option<Reason>,
    /// How many lifecycle heartbeats were answered.
    pub heartbeats: u32,
    /// What came of the lifecycle action; none if there is no hook or the instance was not to go.
    pub lifecycle: Option<Result<LifecycleAnswer, LifecycleError>>,
}

impl InstanceWatch {
    /// A watch with the default settings and no lifecycle hook.
    #[must_use]
    pub fn new(imds: Imds) -> Self {
        Self {
            imds,
            settings: InstanceSettings::default(),
            hook: None,
            clock: Arc::new(SystemClock),
            entropy: Entropy::default(),
            notices: broadcast::Sender::new(NOTICE_CAPACITY),
        }
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with every interval or deadline that is too short.
    pub fn settings(mut self, settings: InstanceSettings) -> Result<Self, Error> {
        settings.check()?;
        self.settings = settings;
        Ok(self)
    }

    /// The hook that keeps a terminating instance waiting. Default: none; nothing of Auto Scaling is called then.
    #[must_use]
    pub fn lifecycle_hook(mut self, hook: impl LifecycleHook) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// The wall clock, by which the time of a Spot interruption is read. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The source of randomness of retries. Default: seeded by the operating system.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// The notices from now on. A listener that falls more than 64 behind misses the oldest and is told.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Runs a scheduler until it ends by `signal`, by a notice or by an error, and then settles the lifecycle action.
    ///
    /// # Errors
    /// Those of [`Scheduler::run_until`]; the report of the watch comes in any case.
    ///
    /// # Cancel safety
    /// Dropping the future drops the scheduler, as a crash would, and completes nothing.
    pub async fn run_scheduler(
        self,
        scheduler: Scheduler,
        signal: impl Future<Output = ()> + Send,
    ) -> (Result<ShutdownReport, Error>, InstanceReport) {
        let watch = self.run([scheduler.handle()]);
        join(Box::pin(scheduler.run_until(signal)), watch).await
    }

    /// Watches for the workers of this process until all of them have ended, and then settles the lifecycle action.
    /// Somebody else runs them.
    ///
    /// # Cancel safety
    /// Dropping the future ends the watch: shutdowns it asked for go on, and nothing is completed.
    pub async fn run(self, workers: impl IntoIterator<Item = SchedulerHandle>) -> InstanceReport {
        let workers: Vec<SchedulerHandle> = workers.into_iter().collect();
        let backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX, self.entropy.clone());
        let course = Course::new(self.settings.clone(), Instant::now());
        Box::pin(Run { watch: self, course, workers, backoff, heartbeats: 0, told: None }.run()).await
    }
}

/// How the last heartbeat went: a failure is told when it follows something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Answered(LifecycleAnswer),
    Failed(LifecycleErrorKind),
}

type Call = BoxFuture<'static, Result<LifecycleAnswer, LifecycleError>>;

/// A watch under way.
struct Run {
    watch: InstanceWatch,
    course: Course,
    workers: Vec<SchedulerHandle>,
    backoff: Backoff,
    heartbeats: u32,
    told: Option<Beat>,
}

impl Run {
    async fn run(mut self) -> InstanceReport {
        let handles = self.workers.clone();
        let mut ended = join_all(handles.iter().map(SchedulerHandle::ended)).boxed();
        let mut look = Some(self.look());
        let mut next_look = None;
        let mut beat: Option<Call> = None;
        let mut next_beat: Option<Instant> = None;
        // Answers of shutdowns: only the first asks for what came of the shards, later ones shorten its deadline.
        let mut leaving: Vec<BoxFuture<'static, Vec<ShutdownReport>>> = Vec::new();
        let mut reports = None;
        loop {
            tokio::select! {
                // The end goes first: what comes after it is the lifecycle action's. Answers go before new calls, and
                // calls are one at a time of each kind, so none starves another.
                biased;
                _ = &mut ended => break,
                answered = first(&mut leaving) => reports = Some(answered),
                seen = under_way(&mut look) => {
                    look = None;
                    for step in self.course.observe(Instant::now(), self.watch.clock.now(), &seen) {
                        self.carry_out(step, &mut leaving).await;
                    }
                    next_look = self.course.next_look().map(|wait| Instant::now() + wait);
                    if next_beat.is_none() && beat.is_none() && self.is_to_beat() {
                        next_beat = Some(Instant::now());
                    }
                }
                answer = under_way(&mut beat) => {
                    beat = None;
                    next_beat = Some(Instant::now() + self.beaten(answer));
                }
                () = until(next_beat) => {
                    next_beat = None;
                    beat = self.watch.hook.clone().map(|hook| call(async move { hook.heartbeat().await }));
                }
                () = until(next_look) => {
                    next_look = None;
                    look = Some(self.look());
                }
            }
        }
        drop(ended);
        if reports.is_none() && !leaving.is_empty() {
            reports = Some(first(&mut leaving).await);
        }
        self.settle(reports).await
    }

    /// Whether the hook is to be kept waiting.
    fn is_to_beat(&self) -> bool {
        self.watch.hook.is_some() && self.course.is_awaited()
    }

    fn look(&self) -> BoxFuture<'static, Look> {
        let imds = self.watch.imds.clone();
        async move { Look::at(&imds).await }.boxed()
    }

    fn tell(&self, notice: Notice) {
        notice.log();
        // Without listeners there is nobody to miss it.
        let _ = self.watch.notices.send(notice);
    }

    async fn carry_out(&self, step: Step, leaving: &mut Vec<BoxFuture<'static, Vec<ShutdownReport>>>) {
        match step {
            Step::Tell(notice) => self.tell(notice),
            Step::Activate { reason } => {
                self.tell(Notice::Activated { reason });
                for worker in &self.workers {
                    worker.activate().await;
                }
            }
            Step::ShutDown { reason, deadline } => {
                self.tell(Notice::ShuttingDown { reason, deadline });
                let workers = self.workers.clone();
                let shutdowns =
                    async move { join_all(workers.iter().map(|worker| worker.shutdown(deadline))).await };
                leaving.push(shutdowns.boxed());
            }
        }
    }

    /// Takes in what came of a heartbeat; returns how long to wait until the next.
    fn beaten(&mut self, answer: Result<LifecycleAnswer, LifecycleError>) -> Duration {
        let interval = self.watch.settings.heartbeat_interval;
        let (beat, wait) = match &answer {
            Ok(answer) => {
                self.backoff.reset();
                self.heartbeats += u32::from(*answer == LifecycleAnswer::Done);
                (Beat::Answered(*answer), interval)
            }
            Err(error) if error.is_retryable() => {
                (Beat::Failed(error.kind()), self.backoff.next_delay().min(interval))
            }
            Err(error) => (Beat::Failed(error.kind()), interval),
        };
        if self.told != Some(beat) {
            self.told = Some(beat);
            self.tell(match answer {
                Ok(answer) => Notice::HeartbeatAnswered(answer),
                Err(error) => Notice::HeartbeatFailed(error),
            });
        }
        wait
    }

    /// Completes the lifecycle action if there is one and the instance is to go.
    async fn settle(mut self, reports: Option<Vec<ShutdownReport>>) -> InstanceReport {
        if let Some(reports) = reports {
            let is_clean = reports.iter().all(ShutdownReport::is_clean);
            let outcome = reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            self.tell(Notice::Drained { is_clean, outcome });
        }
        let reason = self.course.reason().cloned();
        let mut lifecycle = None;
        if let Some(hook) = self.watch.hook.clone() {
            if !self.course.is_awaited() {
                // The workers ended on their own; perhaps because the system goes down with the instance.
                let look = Look::at(&self.watch.imds).await;
                for step in self.course.observe(Instant::now(), self.watch.clock.now(), &look) {
                    if let Step::Tell(notice) = step {
                        self.tell(notice);
                    }
                }
            }
            if self.course.is_awaited() || self.course.is_terminating() {
                lifecycle = Some(self.complete(&*hook).await);
            }
        }
        if let Some(outcome) = &lifecycle {
            self.tell(match outcome {
                Ok(answer) => Notice::LifecycleCompleted(*answer),
                Err(error) => Notice::CompletionFailed(error.clone()),
            });
        }
        InstanceReport { reason, heartbeats: self.heartbeats, lifecycle }
    }

    async fn complete(&mut self, hook: &dyn LifecycleHook) -> Result<LifecycleAnswer, LifecycleError> {
        let until = Instant::now() + self.watch.settings.complete_timeout;
        self.backoff.reset();
        loop {
            let error = match within_limit(hook.complete()).await {
                // What was carried out without an answer is found not waiting the next time.
                Ok(LifecycleAnswer::NotWaiting) if self.backoff.attempts() > 0 => {
                    return Ok(LifecycleAnswer::Done);
                }
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = self.backoff.next_delay();
            if !error.is_retryable() || Instant::now() + wait >= until {
                return Err(error);
            }
            debug!(%error, attempt = self.backoff.attempts(), "completing the lifecycle action again");
            sleep(wait).await;
        }
    }
}

fn call(call: impl Future<Output = Result<LifecycleAnswer, LifecycleError>> + Send + 'static) -> Call {
    within_limit(call).boxed()
}

async fn within_limit(
    call: impl Future<Output = Result<LifecycleAnswer, LifecycleError>> + Send,
) -> Result<LifecycleAnswer, LifecycleError> {
    timeout(CALL_LIMIT, call).await.unwrap_or_else(|_| {
        let message = format!("no answer about the lifecycle action within {CALL_LIMIT:?}");
        Err(LifecycleError::new(LifecycleErrorKind::Unavailable, message))
    })
}

/// Waits for a call, if there is one. Cancel-safe: the call goes on where it was.
async fn under_way<T>(call: &mut Option<BoxFuture<'static, T>>) -> T {
    match call {
        Some(call) => call.await,
        None => pending().await,
    }
}

/// The reports of the first shutdown of several to answer; the others, which have the same, are driven with it.
/// Cancel-safe.
async fn first(leaving: &mut Vec<BoxFuture<'static, Vec<ShutdownReport>>>) -> Vec<ShutdownReport> {
    if leaving.is_empty() {
        return pending().await;
    }
    let (reports, index, _) = futures_util::future::select_all(leaving.iter_mut()).await;
    drop(leaving.swap_remove(index));
    reports
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
