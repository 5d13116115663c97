//! What systemd is told, if it is systemd that started us.

use std::convert::Infallible;
use std::time::Duration;

use kcl_core::{Health, SchedulerHandle, SchedulerPhase};
use sd_notify::NotifyState;
use tokio::time::sleep;
use tracing::warn;

/// How often the state is told where there is no watchdog that asks for it more often.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells that the worker is ready, then pings the watchdog while it lives, and tells when it begins to stop.
///
/// A drain is life: pings go on while it lasts. A worker that is dead, or whose runtime no longer gets round to this, is
/// not pinged for, and systemd starts it anew. Never ends; to be dropped with the worker.
pub(crate) async fn attend(handle: SchedulerHandle) -> Infallible {
    handle.ready().await;
    if handle.snapshot().phase == SchedulerPhase::Running {
        tell(&[NotifyState::Ready]);
    }
    // Three pings in each of the watchdog's periods, so that one may be late.
    let interval = sd_notify::watchdog_enabled().map_or(INTERVAL, |period| period / 3);
    let mut is_stopping = false;
    loop {
        let snapshot = handle.snapshot();
        let health = handle.health();
        let shards = snapshot.shards.len();
        let status = match (&health, snapshot.phase) {
            (_, SchedulerPhase::Stopping) => format!("draining {shards} shards"),
            (Health::Ready, _) => format!("working on {shards} shards"),
            (health, _) => format!("working on {shards} shards: {health:?}"),
        };
        tell(&[NotifyState::Status(&status)]);
        if snapshot.phase == SchedulerPhase::Stopping && !is_stopping {
            is_stopping = true;
            tell(&[NotifyState::Stopping]);
        }
        if snapshot.phase == SchedulerPhase::Stopping || health != Health::Dead {
            tell(&[NotifyState::Watchdog]);
        }
        sleep(interval).await;
    }
}

/// Without systemd there is nobody to tell, which is no error.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd could not be told");
    }
}
