//! Runs seeds: each on a runtime of its own, cut off when it hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kcl_core::testing::{Plant, plant};
use tokio::sync::oneshot;

use super::judge::{Breach, Promise};
use super::plan::Plan;
use super::world::{Verdict, World};

/// How much real time a run may take.
pub const REAL_LIMIT: Duration = Duration::from_secs(60);
/// How much virtual time a run may take.
pub const VIRTUAL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Runs a plan on this thread, with a bug planted if there is one.
///
/// A run that makes no headway is cut off after [`VIRTUAL_LIMIT`] or, however little virtual time passes, after
/// [`REAL_LIMIT`], and counts as a broken promise of liveness, with what every shard was doing.
#[must_use]
pub fn run(plan: Plan, bug: Option<Plant>) -> Verdict {
    run_within(plan, bug, REAL_LIMIT)
}

/// As [`run`], with another limit of real time.
#[must_use]
pub fn run_within(plan: Plan, bug: Option<Plant>, limit: Duration) -> Verdict {
    plant(bug);
    let verdict = catch_unwind(AssertUnwindSafe(|| play(plan.clone(), limit)));
    plant(None);
    verdict.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let breach =
            Breach { promise: Promise::B1, at: Duration::ZERO, seen: format!("the run panicked: {text}") };
        Verdict {
            plan,
            breach: Some(breach),
            history: super::history::History::default(),
            records: (0, 0),
            took: Duration::ZERO,
            state: String::new(),
            requests: Vec::new(),
        }
    })
}

fn play(plan: Plan, limit: Duration) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    let (overdue, alarm, _watch) = watch(limit);
    let verdict = runtime.block_on(async move {
        let mut world = World::of(plan);
        let cut_off = tokio::select! {
            biased;
            _ = alarm => Some(format!("cut off after {limit:?} of real time")),
            () = tokio::time::sleep(VIRTUAL_LIMIT) => Some(format!("cut off after {VIRTUAL_LIMIT:?}")),
            () = world.play() => None,
        };
        if let Some(reason) = cut_off {
            world.judge().find(Promise::L3, reason);
        }
        world.verdict().await
    });
    drop(overdue);
    verdict
}

/// An alarm after so much real time, from a thread of its own; it ends at once when the first of the three is
/// dropped.
fn watch(limit: Duration) -> (std::sync::mpsc::Sender<()>, oneshot::Receiver<()>, impl Sized) {
    let (done, wait): (_, Receiver<()>) = channel();
    let (ring, alarm) = oneshot::channel();
    #[allow(clippy::disallowed_methods, reason = "nothing on the run's own thread can see that it hangs")]
    let thread = std::thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // A run that ended at the same moment does not listen.
            let _ = ring.send(());
        }
    });
    (done, alarm, thread)
}
