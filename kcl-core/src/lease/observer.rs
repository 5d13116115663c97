use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lease, LeaseTable};
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

impl Sighting {
    fn of(lease: &Lease, now: Instant) -> Self {
        Self { counter: lease.counter, owner: lease.owner.clone(), changed_at: now }
    }

    fn shows(&self, lease: &Lease) -> bool {
        self.counter == lease.counter && self.owner == lease.owner
    }

    fn see(&mut self, lease: &Lease, now: Instant) {
        if !self.shows(lease) {
            *self = Self::of(lease, now);
        }
    }
}

impl LeaseObserver {
    /// Creates an observer that has seen nothing.
    #[must_use]
    pub const fn new(lease_duration: Duration) -> Self {
        Self { lease_duration, seen: BTreeMap::new() }
    }

    /// Takes note of a row that arrived at `now`.
    pub fn observe(&mut self, lease: &Lease, now: Instant) {
        match self.seen.get_mut(&lease.shard) {
            Some(sighting) => sighting.see(lease, now),
            None => {
                self.seen.insert(lease.shard.clone(), Sighting::of(lease, now));
            }
        }
    }

    /// Takes note of a page of rows that arrived at `now`. Looks nothing up: pages and sightings are gone through side
    /// by side.
    pub(crate) fn observe_page(&mut self, leases: &[Arc<Lease>], now: Instant) {
        let mut page: Vec<&Lease> = leases.iter().map(|lease| &**lease).collect();
        page.sort_by(|one, other| one.shard.cmp(&other.shard));
        let Some(first) = page.first() else { return };
        let mut unseen = Vec::new();
        let mut seen = self.seen.range_mut(first.shard.clone()..).peekable();
        for lease in page {
            while seen.next_if(|(shard, _)| **shard < lease.shard).is_some() {}
            match seen.next_if(|(shard, _)| **shard == lease.shard) {
                Some((_, sighting)) => sighting.see(lease, now),
                None => unseen.push(lease),
            }
        }
        self.seen.extend(unseen.into_iter().map(|lease| (lease.shard.clone(), Sighting::of(lease, now))));
    }

    /// The rows of a table in their order, and when the holder of each counts as dead: [`LeaseObserver::expires_at`].
    pub(crate) fn expiries<'a>(
        &'a self,
        rows: &'a LeaseTable,
    ) -> impl Iterator<Item = (&'a Lease, Option<Instant>)> {
        let mut seen = self.seen.iter().peekable();
        rows.values().map(move |lease| {
            while seen.next_if(|(shard, _)| **shard < lease.shard).is_some() {}
            let sighting = seen.next_if(|(shard, _)| **shard == lease.shard);
            (&**lease, sighting.and_then(|(_, sighting)| self.expiry(sighting, lease)))
        })
    }

    /// How many rows it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
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
        self.expiry(self.seen.get(&lease.shard)?, lease)
    }

    fn expiry(&self, sighting: &Sighting, lease: &Lease) -> Option<Instant> {
        sighting.shows(lease).then(|| {
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
