//! One held lease: what is asked of it, and the next write on its row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Answer, Call, Goal, Operation, accept};
use crate::lease::handle::{CheckpointUpdate, Liveness, Proof, ReleaseTo, Standing};
use crate::lease::verb::Verb;
use crate::lease::{AttemptToken, Lease, LeaseHandle, LossReason, Phase};
use crate::model::{Checkpoint, ShardId, WorkerId};
use crate::plant::{Plant, planted};

/// Nothing is repeated sooner than this because the end of the lease is near.
const SHORTEST_DELAY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: Lease,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) handle: LeaseHandle,
    pub(super) liveness: Arc<Liveness>,
    pub(super) next_renewal: Instant,
    pub(super) announce_at: Instant,
    pub(super) checkpoints: Vec<(CheckpointUpdate, Answer)>,
    pub(super) release: Option<(Option<Checkpoint>, ReleaseTo, Answer)>,
    pub(super) end: Option<Ending>,
    /// To whom this worker gives the lease of its own accord (R4).
    pub(super) give_to: Option<WorkerId>,
    /// How often it has changed hands of late, once it is given.
    pub(super) switches: u64,
}

#[derive(Debug)]
pub(super) struct Ending {
    pub(super) children: BTreeSet<ShardId>,
    pub(super) without_lease: BTreeSet<ShardId>,
    pub(super) answers: Vec<Answer>,
}

impl Held {
    pub(super) fn has_work(&self) -> bool {
        self.release.is_some()
            || !self.checkpoints.is_empty()
            || self.end.as_ref().is_some_and(|ending| ending.without_lease.is_empty())
    }

    /// The delay before another attempt, but at most a quarter of the time that is left until others may take the
    /// lease: an outage that ends just before that must not cost it.
    pub(super) fn hurried(&self, delay: Duration, now: Instant, margin: Duration) -> Duration {
        let left = (self.standing.borrow().valid_until + margin).saturating_duration_since(now);
        if left.is_zero() { delay } else { delay.min((left / 4).max(SHORTEST_DELAY)) }
    }

    /// Shows consumers who asked for the lease.
    pub(super) fn show_request(&self, me: &WorkerId) {
        let phase = match self.give_to.as_ref().or(self.row.requested_by.as_ref()) {
            Some(worker) if worker != me => Phase::HandOver(worker.clone()),
            Some(_) | None => Phase::Held,
        };
        self.standing.send_if_modified(|standing| {
            let changes = !matches!(standing.phase, Phase::Lost(_)) && standing.phase != phase;
            if changes {
                standing.phase = phase;
            }
            changes
        });
    }

    /// The next write, if one is needed now. Prefers what ends the lease, then checkpoints, then renewal.
    pub(super) fn next_operation(
        &mut self,
        token: AttemptToken,
        now: Instant,
        (proof, check_interval): (&Proof, Duration),
    ) -> Option<Operation> {
        if let Some((checkpoint, to, answer)) = self.release.take() {
            let (queued, mut answers) = self.take_checkpoints();
            answers.push(answer);
            let checkpoint = checkpoint.into_iter().chain(queued).max().filter(|c| *c > self.row.checkpoint);
            let successor = match to {
                ReleaseTo::Anybody => None,
                ReleaseTo::Worker(worker) => Some(worker),
            };
            let verb = match successor {
                Some(receiver) if self.give_to.as_ref() == Some(&receiver) => {
                    Verb::give(&self.row, checkpoint, receiver, self.switches, token)
                }
                successor => Verb::release(&self.row, checkpoint, successor, token),
            };
            let goal = Goal::Release { answers, reason: LossReason::Released };
            return Some(Operation::new(goal, Call::Update(verb)));
        }
        if self.end.as_ref().is_some_and(|ending| ending.without_lease.is_empty()) {
            let ending = self.end.take()?;
            let verb = Verb::end(&self.row, ending.children, token);
            return Some(Operation::new(Goal::End(ending.answers), Call::Update(verb)));
        }
        if let Some(operation) = self.checkpoint_operation(token) {
            return Some(operation);
        }
        if now < self.next_renewal {
            return None;
        }
        let is_alive = self.liveness.is_alive() || planted(Plant::RenewDeadConsumer);
        if is_alive && matches!(proof, Proof::Member(_)) {
            // The worker's heartbeats renew the lease; what remains is to look after its consumer (L-3).
            self.next_renewal = now + check_interval;
            return None;
        }
        if is_alive {
            return Some(Operation::new(Goal::Renew, Call::Update(Verb::renew(&self.row, token))));
        }
        // The consumer broke its promise. It may still be running, so it is told before the lease is given up.
        self.standing.send_modify(|standing| standing.phase = Phase::Lost(LossReason::Stalled));
        let verb = Verb::release(&self.row, None, None, token);
        let goal = Goal::Release { answers: Vec::new(), reason: LossReason::Stalled };
        Some(Operation::new(goal, Call::Update(verb)))
    }

    pub(super) fn checkpoint_operation(&mut self, token: AttemptToken) -> Option<Operation> {
        let prepared =
            self.checkpoints.iter().rposition(|(update, _)| matches!(update, CheckpointUpdate::Prepare(_)));
        if let Some(index) = prepared
            && self.checkpoints[..index].iter().all(|(update, _)| match update {
                CheckpointUpdate::Commit(checkpoint) => *checkpoint <= self.row.checkpoint,
                CheckpointUpdate::Prepare(_) => true,
            })
        {
            // Only prepared checkpoints (and commits that are stored already) precede: the latest counts.
            let rest = self.checkpoints.split_off(index + 1);
            let mut taken = std::mem::replace(&mut self.checkpoints, rest);
            let (update, answer) = taken.pop()?;
            let mut answers: Vec<Answer> = taken.into_iter().map(|(_, answer)| answer).collect();
            answers.push(answer);
            let CheckpointUpdate::Prepare(pending) = update else { return None };
            let verb = Verb::prepare_checkpoint(&self.row, pending, token);
            return Some(Operation::new(Goal::Checkpoint(answers), Call::Update(verb)));
        }
        let (checkpoint, answers) = self.take_checkpoints();
        match checkpoint {
            Some(checkpoint) if checkpoint > self.row.checkpoint || planted(Plant::CheckpointGoesBack) => {
                let verb = Verb::checkpoint(&self.row, checkpoint, token);
                Some(Operation::new(Goal::Checkpoint(answers), Call::Update(verb)))
            }
            // Old and repeated positions are stored already (D-2).
            _ => {
                answers.into_iter().for_each(accept);
                None
            }
        }
    }

    /// Takes the commits that come before the next prepared checkpoint, or all of them; the largest counts.
    pub(super) fn take_checkpoints(&mut self) -> (Option<Checkpoint>, Vec<Answer>) {
        let end = self
            .checkpoints
            .iter()
            .position(|(update, _)| matches!(update, CheckpointUpdate::Prepare(_)))
            .unwrap_or(self.checkpoints.len());
        let mut largest = None;
        let mut answers = Vec::with_capacity(end);
        for (update, answer) in self.checkpoints.drain(..end) {
            if let CheckpointUpdate::Commit(checkpoint) = update {
                largest = largest.max(Some(checkpoint));
            }
            answers.push(answer);
        }
        (largest, answers)
    }
}
