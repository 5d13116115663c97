use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Lease;
use crate::model::{ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// Judges from this worker's own clock whether the holders of leases are alive.
///
/// Rows hold no time. A holder is taken to be alive for the lease duration after its row was *seen* to change;
/// the moment counts from the arrival of the answer that showed the change, which is never before the write.
#[derive(Debug)]
pub struct LeaseObserver {
    lease_duration: Duration,
    seen: BTreeMap<ShardId, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    counter: u64,
    owner: Option<WorkerId>,
    changed_at: Instant,
}

impl LeaseObserver {
    /// Creates an observer that has seen nothing.
    #[must_use]
    pub const fn new(lease_duration: Duration) -> Self {
        Self { lease_duration, seen: BTreeMap::new() }
    }

    /// Takes note of a row that arrived at `now`.
    pub fn observe(&mut self, lease: &Lease, now: Instant) {
        let unchanged = self
            .seen
            .get(&lease.shard)
            .is_some_and(|sighting| sighting.counter == lease.counter && sighting.owner == lease.owner);
        if !unchanged {
            let sighting = Sighting { counter: lease.counter, owner: lease.owner.clone(), changed_at: now };
            self.seen.insert(lease.shard.clone(), sighting);
        }
    }

    /// Forgets rows that `exists` says are gone.
    pub fn retain(&mut self, exists: impl Fn(&ShardId) -> bool) {
        self.seen.retain(|shard, _| exists(shard));
    }

    /// Forgets everything: every owner counts as alive for another lease duration once seen again.
    pub fn reset(&mut self) {
        self.seen.clear();
    }

    /// When the holder of `lease` counts as dead unless the row changes; none if it was never seen like this.
    #[must_use]
    pub fn expires_at(&self, lease: &Lease) -> Option<Instant> {
        let sighting = self.seen.get(&lease.shard)?;
        (sighting.counter == lease.counter && sighting.owner == lease.owner).then(|| {
            let duration =
                if planted(Plant::ExpireEarly) { self.lease_duration / 2 } else { self.lease_duration };
            sighting.changed_at + duration
        })
    }

    /// Whether the row stood still for the lease duration.
    #[must_use]
    pub fn is_expired(&self, lease: &Lease, now: Instant) -> bool {
        self.expires_at(lease).is_some_and(|at| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Checkpoint;

    #[tokio::test(start_paused = true)]
    async fn a_row_expires_after_standing_still_for_the_lease_duration() {
        let duration = Duration::from_secs(10);
        let mut observer = LeaseObserver::new(duration);
        let mut lease = Lease::new("shard".into(), Checkpoint::TrimHorizon);
        lease.owner = Some("worker".into());
        let start = Instant::now();
        assert!(!observer.is_expired(&lease, start + duration), "never seen");
        observer.observe(&lease, start);
        observer.observe(&lease, start + duration / 2);
        assert!(!observer.is_expired(&lease, start + duration - Duration::from_millis(1)));
        assert!(observer.is_expired(&lease, start + duration));
        lease.counter += 1;
        assert!(!observer.is_expired(&lease, start + duration), "changed since it was last observed");
        observer.observe(&lease, start + duration);
        assert!(!observer.is_expired(&lease, start + duration));
        assert!(observer.is_expired(&lease, start + duration * 2));
    }
}
