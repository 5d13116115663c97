//! What lets a member of a fleet deliver: one proof for all its leases (R1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::fleet::rules;
use crate::plant::{Plant, planted};
use crate::time::Clock;

/// The validity of a member of a fleet, shared by the handles of all its leases.
///
/// It ends at the earliest of: the monotonic clock, and any clock that ran ahead of it by more than the margin since
/// the confirmed heartbeat was sent. Monotonic clocks stand still while a machine is suspended; its leases do not.
#[derive(Clone, Debug)]
pub(crate) struct MemberProof(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    margin: Duration,
    proven: Mutex<Option<Proven>>,
}

#[derive(Clone, Copy, Debug)]
struct Proven {
    sent: Readings,
    until: Instant,
}

/// What the clocks of this host say at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readings {
    pub(crate) monotonic: Instant,
    wall: SystemTime,
    since_boot: Option<Duration>,
}

impl Readings {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { monotonic: Instant::now(), wall: clock.now(), since_boot: clock.since_boot() }
    }
}

impl MemberProof {
    pub(crate) fn new(clock: Arc<dyn Clock>, margin: Duration) -> Self {
        Self(Arc::new(Shared { clock, margin, proven: Mutex::new(None) }))
    }

    /// R1: the attempt that was sent at `sent` was confirmed.
    pub(crate) fn confirm(&self, sent: Readings, lease_duration: Duration) {
        let valid_for = rules::valid_until(Duration::ZERO, lease_duration, self.0.margin);
        let proven = Proven { sent, until: sent.monotonic + valid_for };
        let mut current = self.lock();
        // Attempts overlap, and their answers may come in any order.
        if current.is_none_or(|current| current.until < proven.until) {
            *current = Some(proven);
        }
    }

    /// Nothing is proven any more.
    pub(crate) fn withdraw(&self) {
        *self.lock() = None;
    }

    /// Until when deliveries may start by the monotonic clock; none if nothing is proven.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.lock().map(|proven| proven.until)
    }

    /// Whether a delivery may start now (L-1).
    pub(crate) fn holds(&self) -> bool {
        let Some(proven) = *self.lock() else { return false };
        let now = Readings::now(&*self.0.clock);
        if now.monotonic >= proven.until {
            return planted(Plant::DeliverUntilToldLost);
        }
        let monotonic = now.monotonic.saturating_duration_since(proven.sent.monotonic);
        // A wall clock that was set back says nothing.
        let wall = now.wall.duration_since(proven.sent.wall).unwrap_or_default();
        let since_boot = match (now.since_boot, proven.sent.since_boot) {
            (Some(now), Some(sent)) => now.saturating_sub(sent),
            _ => Duration::ZERO,
        };
        !rules::was_suspended(monotonic, wall.max(since_boot), self.0.margin)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Proven>> {
        self.0.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_secs(10);
    const MARGIN: Duration = Duration::from_secs(1);

    /// A wall clock that can be moved.
    #[derive(Debug)]
    struct Moved(Mutex<Duration>, Instant);

    impl Clock for Moved {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + D * 1_000 + *self.0.lock().unwrap() + self.1.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_lasts_from_the_sending_of_the_confirmed_attempt() {
        let clock = Arc::new(Moved(Mutex::default(), Instant::now()));
        let proof = MemberProof::new(Arc::clone(&clock) as Arc<dyn Clock>, MARGIN);
        assert!(!proof.holds(), "nothing is confirmed");
        let sent = Readings::now(&*clock);
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = Readings::now(&*clock);
        proof.confirm(second, D);
        proof.confirm(sent, D);
        assert_eq!(proof.until(), Some(second.monotonic + D - MARGIN), "a late answer takes nothing away");
        tokio::time::advance(Duration::from_millis(8_999)).await;
        assert!(proof.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!proof.holds());
        proof.confirm(Readings::now(&*clock), D);
        assert!(proof.holds(), "a lapsed proof is renewed");
        proof.withdraw();
        assert!(!proof.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_finds_its_proof_void() {
        let clock = Arc::new(Moved(Mutex::default(), Instant::now()));
        let proof = MemberProof::new(Arc::clone(&clock) as Arc<dyn Clock>, MARGIN);
        proof.confirm(Readings::now(&*clock), D);
        *clock.0.lock().unwrap() += MARGIN;
        assert!(proof.holds(), "within the margin");
        *clock.0.lock().unwrap() += Duration::from_millis(1);
        assert!(!proof.holds());
        proof.confirm(Readings::now(&*clock), D);
        assert!(!proof.holds(), "an attempt sent at the same monotonic time proves nothing more");
        tokio::time::advance(Duration::from_millis(10)).await;
        proof.confirm(Readings::now(&*clock), D);
        assert!(proof.holds());
        *clock.0.lock().unwrap() = Duration::ZERO;
        assert!(proof.holds(), "set back");
    }
}
