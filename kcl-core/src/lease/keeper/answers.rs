//! What an answered write means for its lease.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::held::Held;
use super::{Acquisition, Goal, Keeper, Outcome, Slot, State, accept, refuse};
use crate::checkpointer::CheckpointError;
use crate::lease::handle::{Liveness, Standing};
use crate::lease::{Lease, LeaseHandle, LossReason, Phase, StoreError};
use crate::model::ShardId;
use crate::plant::{Plant, planted};

impl Keeper {
    pub(super) fn confirmed(
        &mut self,
        shard: &ShardId,
        goal: Goal,
        row: Lease,
        written_after: Instant,
        now: Instant,
    ) {
        match goal {
            Goal::Acquire | Goal::CreateChild => self.acquired(shard, row, written_after, now),
            Goal::Renew => self.still_held(shard, row, written_after, now),
            Goal::Checkpoint(answers) => {
                self.still_held(shard, row, written_after, now);
                answers.into_iter().for_each(accept);
            }
            Goal::Release { answers, reason } => {
                self.outcomes.push(Outcome::GivenUp(row));
                self.drop_slot(shard, reason);
                answers.into_iter().for_each(accept);
            }
            Goal::End(answers) => {
                self.outcomes.push(Outcome::Ended { row });
                self.drop_slot(shard, LossReason::Ended);
                answers.into_iter().for_each(accept);
            }
        }
    }

    pub(super) fn acquired(&mut self, shard: &ShardId, row: Lease, written_after: Instant, now: Instant) {
        let (duration, margin) = (self.settings.lease_duration, self.settings.safety_margin);
        let (renewal, first_promise) = (self.settings.renewal_interval(), self.settings.first_promise);
        let spread = 0.5 + self.entropy.unit() / 2.0;
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let Some(slot) = self.slots.get_mut(shard) else { return };
        let State::Acquiring { how, reason, parents } = &slot.state else { return };
        let announce_at = match how {
            Acquisition::Adopt | Acquisition::Take => now,
            Acquisition::Steal if planted(Plant::StealStartsAtOnce) => now,
            Acquisition::Steal => now + duration,
        };
        let parents = parents.clone();
        self.outcomes.push(Outcome::Acquired { shard: shard.clone(), how: *how, reason: reason.clone() });
        let (standing, shown) = watch::channel(Standing {
            valid_until: written_after + duration - margin,
            phase: Phase::Held,
            checkpoint: row.checkpoint,
        });
        let liveness = Arc::new(Liveness::new(first_promise + (announce_at - now)));
        let handle = LeaseHandle::new(
            row.clone(),
            incarnation,
            shown,
            self.commands.clone(),
            Arc::clone(&liveness),
            self.settings.proof.clone(),
        );
        let next_renewal = written_after + renewal.mul_f64(spread);
        slot.state = State::Held(Box::new(Held {
            row,
            standing,
            handle,
            liveness,
            next_renewal,
            announce_at,
            checkpoints: Vec::new(),
            release: None,
            end: None,
            give_to: None,
            switches: 0,
        }));
        self.changed = true;
        self.schedule_at(shard, next_renewal);
        self.child_settled(&parents, shard, now);
    }

    pub(super) fn still_held(&mut self, shard: &ShardId, row: Lease, written_after: Instant, now: Instant) {
        let renewal = self.settings.renewal_interval();
        let validity = self.settings.lease_duration - self.settings.safety_margin;
        let Some(Slot { state: State::Held(held), .. }) = self.slots.get_mut(shard) else { return };
        held.row = row;
        held.next_renewal = written_after + renewal;
        let valid_until = written_after + validity;
        let checkpoint = held.row.checkpoint;
        held.standing.send_modify(|standing| {
            standing.valid_until = standing.valid_until.max(valid_until);
            standing.checkpoint = checkpoint;
        });
        held.show_request(&self.me);
        let next = if held.has_work() { now } else { held.next_renewal };
        self.schedule_at(shard, next);
    }

    pub(super) fn overwritten(&mut self, shard: &ShardId, goal: Goal, row: Lease, now: Instant) {
        // The write landed before somebody else's did: what was asked for is done, the lease is not ours.
        let reason = LossReason::Taken { by: row.owner.clone() };
        let answers = match goal {
            Goal::Checkpoint(answers) | Goal::Release { answers, .. } | Goal::End(answers) => answers,
            Goal::Acquire | Goal::CreateChild | Goal::Renew => Vec::new(),
        };
        self.outcomes.push(Outcome::Seen(row));
        let parents = self.parents_of(shard);
        self.drop_slot(shard, reason);
        answers.into_iter().for_each(accept);
        self.child_settled(&parents, shard, now);
    }

    pub(super) fn refused(&mut self, shard: &ShardId, goal: Goal, row: Option<Lease>, now: Instant) {
        let reason =
            row.as_ref().map_or(LossReason::Deleted, |row| LossReason::Taken { by: row.owner.clone() });
        let parents = self.parents_of(shard);
        match row {
            Some(row) => self.outcomes.push(Outcome::Seen(row)),
            None => self.outcomes.push(Outcome::Gone(shard.clone())),
        }
        match goal {
            Goal::Checkpoint(answers) if planted(Plant::SwallowRefusedCheckpoint) => {
                answers.into_iter().for_each(accept);
            }
            Goal::Checkpoint(answers) | Goal::End(answers) | Goal::Release { answers, .. } => {
                answers.into_iter().for_each(refuse);
            }
            Goal::Acquire | Goal::CreateChild | Goal::Renew => {}
        }
        self.drop_slot(shard, reason);
        // A child that exists already, whoever made it, is what the end of its parent needs.
        self.child_settled(&parents, shard, now);
    }

    pub(super) fn failed(&mut self, shard: &ShardId, error: Arc<StoreError>, sent: Instant, now: Instant) {
        let Some(slot) = self.slots.get_mut(shard) else { return };
        let Some(operation) = slot.operation.as_mut() else { return };
        operation.failures += 1;
        operation.unanswered |= error.may_have_applied();
        let failures = operation.failures;
        self.outcomes.push(Outcome::WriteFailed {
            shard: shard.clone(),
            failures,
            error: Arc::clone(&error),
        });
        let hopeless = !error.is_retryable() && !operation.unanswered;
        match &mut operation.goal {
            // Nothing of an acquisition is in force yet. If it should land late, the row will name this worker
            // without being held, and is adopted by a fencing write.
            Goal::Acquire if failures >= 3 || hopeless => {
                self.remove(shard);
            }
            Goal::Release { answers, .. }
                if planted(Plant::TrustReadAfterUnanswered) && operation.unanswered =>
            {
                for answer in answers.drain(..) {
                    let _ = answer.send(Err(CheckpointError::Store(Arc::clone(&error))));
                }
                slot.operation = None;
                if let State::Held(held) = &mut slot.state {
                    // As if the plan had changed meanwhile: the shard is kept.
                    held.row.requested_by = None;
                    held.show_request(&self.me);
                }
                self.schedule_at(shard, now + self.settings.renewal_interval());
            }
            Goal::Checkpoint(answers) | Goal::End(answers) if hopeless => {
                for answer in answers.drain(..) {
                    let _ = answer.send(Err(CheckpointError::Store(Arc::clone(&error))));
                }
                slot.operation = None;
                let delay = slot.backoff.next_delay();
                self.schedule_at(shard, now + delay);
            }
            Goal::Release { answers, reason } if hopeless => {
                for answer in answers.drain(..) {
                    let _ = answer.send(Err(CheckpointError::Store(Arc::clone(&error))));
                }
                let reason = reason.clone();
                self.drop_slot(shard, reason);
            }
            _ => {
                let mut delay = slot.backoff.next_delay();
                if let State::Held(held) = &slot.state {
                    delay = held.hurried(delay, now, self.settings.safety_margin);
                }
                // What was waited for the answer counts: the lease does not wait.
                self.schedule_at(shard, now.max(sent + delay));
            }
        }
    }

    /// The shards whose ends wait for the lease of this child to be created.
    pub(super) fn parents_of(&self, child: &ShardId) -> BTreeSet<ShardId> {
        match self.slots.get(child).map(|slot| &slot.state) {
            Some(State::Acquiring { parents, .. }) => parents.clone(),
            Some(State::Held(_)) | None => BTreeSet::new(),
        }
    }

    pub(super) fn child_settled(&mut self, parents: &BTreeSet<ShardId>, child: &ShardId, now: Instant) {
        for parent in parents {
            let Some(Slot { state: State::Held(held), .. }) = self.slots.get_mut(parent) else { continue };
            let Some(ending) = held.end.as_mut() else { continue };
            ending.without_lease.remove(child);
            if ending.without_lease.is_empty() {
                self.schedule_at(parent, now);
            }
        }
    }
}
