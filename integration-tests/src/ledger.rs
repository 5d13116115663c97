//! What was put, delivered, acknowledged and checkpointed, and whether that keeps the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kcl_core::lease::Lease;
use kcl_core::model::Checkpoint;
use kcl_core::{Position, ShardId, WorkerId};
use tokio::time::Instant;

/// One delivery of one user record.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Who delivered it.
    pub worker: WorkerId,
    /// From which shard.
    pub shard: ShardId,
    /// When.
    pub at: Instant,
}

/// The ledger. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// Per key, how many records were put; their counters are 0, 1, 2, …
    put: BTreeMap<String, u64>,
    delivered: BTreeMap<(String, u64), Vec<Delivery>>,
    /// Per key, the next counter not seen yet.
    next: BTreeMap<String, u64>,
    acknowledged: BTreeMap<ShardId, Position>,
    stored: BTreeMap<ShardId, Checkpoint>,
    finished: BTreeSet<ShardId>,
    broken: Vec<String>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The payload of the next record of `key`.
    #[must_use]
    pub fn payload(&self, key: &str) -> String {
        let mut entries = self.entries();
        let counter = entries.put.entry(key.to_owned()).or_default();
        let payload = format!("{key}:{counter}");
        *counter += 1;
        payload
    }

    /// Takes note of a delivery and checks order per key and parents before children (S-1).
    pub fn deliver(&self, payload: &[u8], delivery: Delivery, leases: &BTreeMap<ShardId, Lease>) {
        let mut entries = self.entries();
        let text = String::from_utf8_lossy(payload);
        let Some((key, counter)) = text.split_once(':').and_then(|(k, c)| Some((k, c.parse::<u64>().ok()?)))
        else {
            entries.broken.push(format!("a record nobody put: {text:?}"));
            return;
        };
        let next = entries.next.entry(key.to_owned()).or_default();
        if counter > *next {
            let problem = format!("D-1: {key}:{counter} came before {key}:{next} from {}", delivery.shard);
            *next = counter + 1;
            entries.broken.push(problem);
        } else if counter == *next {
            *next += 1;
        }
        let parents = leases.get(&delivery.shard).map(|lease| lease.parents.clone()).unwrap_or_default();
        for parent in parents {
            if leases.get(&parent).is_some_and(|lease| !lease.is_ended()) {
                let problem = format!("S-1: {} delivered before its parent {parent} ended", delivery.shard);
                entries.broken.push(problem);
            }
        }
        entries.delivered.entry((key.to_owned(), counter)).or_default().push(delivery);
    }

    /// Takes note that everything of a shard up to a position was acknowledged.
    pub fn acknowledge(&self, shard: &ShardId, position: Position) {
        let mut entries = self.entries();
        let known = entries.acknowledged.entry(shard.clone()).or_insert(position);
        *known = (*known).max(position);
    }

    /// Takes note that `shard_ended` succeeded.
    pub fn finish(&self, shard: &ShardId) {
        self.entries().finished.insert(shard.clone());
    }

    /// Checks the stored checkpoints (D-2): never beyond what was acknowledged, never back.
    pub fn check_leases(&self, leases: &BTreeMap<ShardId, Lease>) {
        let mut entries = self.entries();
        for (shard, lease) in leases {
            let acknowledged = entries.acknowledged.get(shard).copied();
            match lease.checkpoint {
                Checkpoint::At(position) if acknowledged.is_none_or(|known| position > known) => {
                    let problem = format!(
                        "D-2: checkpoint {position} of {shard} is beyond what was acknowledged: {acknowledged:?}"
                    );
                    entries.broken.push(problem);
                }
                Checkpoint::ShardEnd if !entries.finished.contains(shard) => {
                    entries
                        .broken
                        .push(format!("D-2: {shard} is stored as ended before shard_ended succeeded"));
                }
                _ => {}
            }
            let stored = entries.stored.insert(shard.clone(), lease.checkpoint);
            if stored.is_some_and(|stored| stored > lease.checkpoint) {
                let problem = format!("D-2: the checkpoint of {shard} moved back from {stored:?}");
                entries.broken.push(problem);
            }
        }
    }

    /// How many records were put.
    #[must_use]
    pub fn put(&self) -> u64 {
        self.entries().put.values().sum()
    }

    /// How many of the records put were delivered at least once.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.entries().delivered.len() as u64
    }

    /// How many deliveries were repetitions.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.entries().delivered.values().map(|deliveries| deliveries.len() as u64 - 1).sum()
    }

    /// Every delivery, in the order of time.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        let mut all: Vec<Delivery> = self.entries().delivered.values().flatten().cloned().collect();
        all.sort_by_key(|delivery| delivery.at);
        all
    }

    /// The broken promises; empty if none.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.entries().broken.clone()
    }

    /// Every record put that was never delivered.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        let entries = self.entries();
        let all = entries.put.iter().flat_map(|(key, count)| (0..*count).map(move |c| (key.clone(), c)));
        all.filter(|record| !entries.delivered.contains_key(record))
            .map(|(key, counter)| format!("{key}:{counter}"))
            .collect()
    }

    /// Fails unless everything put was delivered and no promise was broken.
    ///
    /// # Panics
    /// With the first of what is missing or broken.
    #[track_caller]
    pub fn assert_complete(&self) {
        let (lost, broken) = (self.lost(), self.broken());
        assert!(
            lost.is_empty() && broken.is_empty(),
            "lost {} of {}: {:?}; broken: {:?}",
            lost.len(),
            self.put(),
            &lost[..lost.len().min(5)],
            &broken[..broken.len().min(5)]
        );
    }
}
