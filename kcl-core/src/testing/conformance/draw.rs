use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{hash_key_range, shard, token};
use crate::Entropy;
use crate::lease::{Change, Expectation, Lease, OwnerExpectation, OwnerSwitches, Patch, PendingCheckpoint};
use crate::model::{Checkpoint, HashKeyRange, Position, SequenceNumber, ShardId, StreamIdentity, WorkerId};

/// Draws leases, expectations and patches from a seed; few distinct values, so that they often coincide.
pub(super) struct Draw {
    entropy: Entropy,
}

impl Draw {
    pub(super) fn seeded(seed: u64) -> Self {
        Self { entropy: Entropy::seeded(seed) }
    }

    /// True once in `n` times.
    pub(super) fn once_in(&self, n: u64) -> bool {
        self.entropy.below(n) == 0
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    pub(super) fn index(&self, length: usize) -> usize {
        usize::try_from(self.entropy.below(length as u64)).unwrap_or_default()
    }

    fn maybe<T>(&self, draw: impl FnOnce() -> T) -> Option<T> {
        self.once_in(2).then(draw)
    }

    pub(super) fn shard(&self) -> ShardId {
        shard(self.index(4))
    }

    pub(super) fn worker(&self) -> WorkerId {
        ["worker-a", "worker-b", "10.0.0.1:a5b1"][self.index(3)].into()
    }

    pub(super) fn token(&self) -> crate::lease::AttemptToken {
        token(self.entropy.uuid().as_u128())
    }

    fn sequence(&self) -> SequenceNumber {
        match self.below(3) {
            0 => self.below(3).into(),
            1 => self.entropy.next_u64().into(),
            _ => SequenceNumber::from_limbs([
                self.entropy.next_u64() >> 6,
                self.entropy.next_u64(),
                self.entropy.next_u64(),
            ]),
        }
    }

    fn position(&self) -> Position {
        Position::new(self.sequence(), self.below(3))
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        match self.below(8) {
            0 => Checkpoint::AtTimestamp,
            1 => Checkpoint::TrimHorizon,
            2 => Checkpoint::Latest,
            3 => Checkpoint::ShardEnd,
            _ => Checkpoint::At(self.position()),
        }
    }

    pub(super) fn pending(&self) -> PendingCheckpoint {
        let state = self.maybe(|| {
            let length = 1 + self.below(300);
            (0..length).map(|_| self.below(256) as u8).collect::<Bytes>()
        });
        PendingCheckpoint { position: self.position(), state }
    }

    fn shards(&self) -> std::collections::BTreeSet<ShardId> {
        (0..self.below(3)).map(|_| shard(self.index(9))).collect()
    }

    fn range(&self) -> HashKeyRange {
        let a = u128::from(self.entropy.next_u64()) << 64;
        let b = u128::from(self.entropy.next_u64());
        hash_key_range(a.min(b), a.max(b).saturating_add(1))
    }

    pub(super) fn lease(&self, shard: ShardId) -> Lease {
        let mut lease = Lease::new(shard, self.checkpoint());
        lease.owner = self.maybe(|| self.worker());
        lease.counter = self.below(3);
        lease.pending = self.maybe(|| self.pending());
        lease.owner_switches = self.below(3);
        lease.parents = self.shards();
        lease.children = self.shards();
        lease.hash_key_range = self.maybe(|| self.range());
        lease.start_timestamp =
            self.maybe(|| SystemTime::UNIX_EPOCH + Duration::from_millis(self.below(4_000_000_000_000)));
        lease.stream = self.maybe(|| StreamIdentity {
            arn: "arn:aws:kinesis:eu-central-1:123456789012:stream/orders".into(),
            created_millis: self.below(4_000_000_000_000),
        });
        lease.token = self.maybe(|| self.token());
        lease.requested_by = self.maybe(|| self.worker());
        lease.checkpoint_owner = self.maybe(|| self.worker());
        lease
    }

    /// An expectation that holds for `lease` about half of the time.
    pub(super) fn expectation(&self, lease: Option<&Lease>) -> Expectation {
        let mut expect = Expectation::default();
        let Some(lease) = lease else {
            expect.counter = self.maybe(|| self.below(3));
            return expect;
        };
        expect.counter = self.maybe(|| if self.once_in(4) { self.below(3) } else { lease.counter });
        expect.owner = match self.below(4) {
            0 => OwnerExpectation::Is(self.worker()),
            1 => lease.owner.clone().map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
            2 if self.once_in(2) => OwnerExpectation::Absent,
            _ => OwnerExpectation::Any,
        };
        expect.checkpoint = self.maybe(|| if self.once_in(4) { self.checkpoint() } else { lease.checkpoint });
        expect.unrequested_but_by = self.once_in(4).then(|| self.worker());
        expect
    }

    fn change<T>(&self, draw: impl FnOnce() -> T) -> Change<T> {
        match self.below(3) {
            0 => Change::Keep,
            1 => Change::Set(draw()),
            _ => Change::Remove,
        }
    }

    pub(super) fn patch(&self) -> Patch {
        Patch {
            counter: self.maybe(|| self.below(3)),
            owner: self.change(|| self.worker()),
            checkpoint: self.maybe(|| self.checkpoint()),
            pending: self.change(|| self.pending()),
            owner_switches: match self.below(3) {
                0 => OwnerSwitches::Keep,
                1 => OwnerSwitches::Increment,
                _ => OwnerSwitches::Reset,
            },
            children: self.maybe(|| self.shards()),
            hash_key_range: self.maybe(|| self.range()),
            token: self.maybe(|| self.token()),
            requested_by: self.change(|| self.worker()),
            clear_checkpoint_owner: self.once_in(2),
            start_timestamp: self.change(|| SystemTime::UNIX_EPOCH + Duration::from_millis(self.below(3))),
        }
    }
}
