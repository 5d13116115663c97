//! The verbs of the lease protocol: for each, what it requires of the row and what it changes.
//!
//! Written once, for every store. The conditions are those of the Java KCL 2.x (`leaseCounter` unchanged), so
//! that workers of both kinds can share a table; what ours write beyond that are attributes Java leaves alone.

use std::collections::BTreeSet;

use super::{
    AttemptToken, Change, Expectation, Lease, OwnerExpectation, OwnerSwitches, Patch, PendingCheckpoint,
    Write,
};
use crate::model::{Checkpoint, ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// One conditional write: sent as often as it takes to get an answer, always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verb {
    /// The row.
    pub shard: ShardId,
    /// What it requires.
    pub expect: Expectation,
    /// What it changes; always carries a token and, but for requests, a new counter.
    pub patch: Patch,
}

/// What an answer says about a write that may have been sent several times.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The write is in force and the row is as it left it.
    InForce(Lease),
    /// The write landed, and somebody has changed the row since.
    Overwritten(Lease),
    /// The write did not land, and cannot land any more as long as counters only grow; the row, if any.
    Refused(Option<Lease>),
}

impl Verb {
    fn new(lease: &Lease, token: AttemptToken) -> Self {
        let mut expect = Expectation {
            counter: Some(lease.counter),
            owner: lease.owner.clone().map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
            ..Expectation::default()
        };
        if planted(Plant::SkipOwnerCondition) {
            expect.owner = OwnerExpectation::Any;
        }
        if planted(Plant::SkipCounterCondition) {
            expect.counter = None;
        }
        let patch = Patch { counter: Some(lease.counter + 1), token: Some(token), ..Patch::default() };
        Self { shard: lease.shard.clone(), expect, patch }
    }

    /// Renews a lease that its owner holds, and nothing else. Also the fence of a lease that was found.
    #[must_use]
    pub fn renew(lease: &Lease, token: AttemptToken) -> Self {
        Self::new(lease, token)
    }

    /// Takes a lease that is free, expired, or given up by nobody, for `me`.
    #[must_use]
    pub fn take(lease: &Lease, me: &WorkerId, token: AttemptToken) -> Self {
        let mut verb = Self::new(lease, token);
        verb.patch.owner = Change::Set(me.clone());
        verb.patch.requested_by = Change::Remove;
        verb.patch.clear_checkpoint_owner = true;
        if lease.owner.as_ref().is_some_and(|owner| owner != me) {
            verb.patch.owner_switches = OwnerSwitches::Increment;
        }
        verb
    }

    /// Asks the owner for its lease. Changes no counter, so it disturbs neither owner nor observers.
    #[must_use]
    pub fn request(lease: &Lease, me: &WorkerId) -> Self {
        Self {
            shard: lease.shard.clone(),
            expect: Expectation {
                owner: lease.owner.clone().map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
                unrequested_but_by: Some(me.clone()),
                ..Expectation::default()
            },
            patch: Patch { requested_by: Change::Set(me.clone()), ..Patch::default() },
        }
    }

    /// Takes back what [`Verb::request`] asked for, if nobody else has asked since.
    #[must_use]
    pub fn withdraw(lease: &Lease, me: &WorkerId) -> Self {
        let mut verb = Self::request(lease, me);
        verb.patch.requested_by = Change::Remove;
        verb
    }

    /// Stores a checkpoint (which also renews), and drops any prepared one.
    #[must_use]
    pub fn checkpoint(lease: &Lease, checkpoint: Checkpoint, token: AttemptToken) -> Self {
        let mut verb = Self::new(lease, token);
        verb.patch.checkpoint = Some(checkpoint);
        verb.patch.pending = Change::Remove;
        verb.patch.owner_switches = OwnerSwitches::Reset;
        verb
    }

    /// Stores a prepared checkpoint beside the checkpoint.
    #[must_use]
    pub fn prepare_checkpoint(lease: &Lease, pending: PendingCheckpoint, token: AttemptToken) -> Self {
        let mut verb = Self::new(lease, token);
        verb.patch.pending = Change::Set(pending);
        verb
    }

    /// Marks the shard as ended and frees the lease: ended leases have no owner and are renewed by nobody.
    #[must_use]
    pub fn end(lease: &Lease, children: BTreeSet<ShardId>, token: AttemptToken) -> Self {
        let mut verb = Self::checkpoint(lease, Checkpoint::ShardEnd, token);
        if !children.is_empty() {
            verb.patch.children = Some(children);
        }
        verb.patch.owner = Change::Remove;
        verb.patch.requested_by = Change::Remove;
        verb
    }

    /// Gives the lease up: to `successor`, or to whoever takes it. A final checkpoint can go along.
    #[must_use]
    pub fn release(
        lease: &Lease,
        checkpoint: Option<Checkpoint>,
        successor: Option<WorkerId>,
        token: AttemptToken,
    ) -> Self {
        let mut verb = match checkpoint {
            Some(checkpoint) => Self::checkpoint(lease, checkpoint, token),
            None => Self::new(lease, token),
        };
        if successor.is_some() {
            verb.patch.owner_switches = OwnerSwitches::Increment;
        }
        verb.patch.owner = successor.map_or(Change::Remove, Change::Set);
        verb.patch.requested_by = Change::Remove;
        verb
    }

    /// [`Verb::release`] to a member of the fleet, who is told how often the lease has changed hands of late, this time
    /// included. A checkpoint by the new owner resets that.
    #[must_use]
    pub fn give(
        lease: &Lease,
        checkpoint: Option<Checkpoint>,
        receiver: WorkerId,
        switches: u64,
        token: AttemptToken,
    ) -> Self {
        let mut verb = Self::release(lease, checkpoint, Some(receiver), token);
        verb.patch.owner_switches = OwnerSwitches::Set(switches);
        verb
    }

    /// The token the write carries, if it carries one.
    #[must_use]
    pub const fn token(&self) -> Option<AttemptToken> {
        self.patch.token
    }

    /// Judges an answer.
    ///
    /// `sent_before` says whether an earlier, unanswered attempt of the same write was sent: only then can a
    /// conflicting row be the write's own result.
    pub fn judge(&self, answer: Write, sent_before: bool) -> Verdict {
        match answer {
            Write::Applied(lease) => Verdict::InForce(lease),
            Write::Conflict(Some(lease)) if sent_before && self.is_author_of(&lease) => {
                if self.patch.counter.is_some_and(|counter| counter == lease.counter) {
                    Verdict::InForce(lease)
                } else {
                    Verdict::Overwritten(lease)
                }
            }
            Write::Conflict(lease) => Verdict::Refused(lease),
        }
    }

    /// Whether the last write by a worker of ours on `lease` was this one. Java workers keep the token, but
    /// cannot lower the counter.
    fn is_author_of(&self, lease: &Lease) -> bool {
        self.patch.token.is_some()
            && lease.token == self.patch.token
            && self.patch.counter.is_some_and(|counter| lease.counter >= counter)
    }
}
