//! Sends what the keeper decided, and takes what comes back.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use super::{Batch, Control, Coordination, SideDone, in_time};
use crate::error::Chain;
use crate::event::Event;
use crate::lease::keeper::{Acquisition, Attempt, Call, Outcome};
use crate::lease::verb::Verb;
use crate::lease::{Command, Consistency, LossReason, StoreErrorKind, Write};
use crate::metrics::{LeaseMove, MetricEvent};

impl Coordination {
    pub(super) fn send_due(&mut self, now: Instant) {
        for Attempt { shard, number, call, time_out } in self.keeper.due(now) {
            let store = Arc::clone(&self.store);
            let span = debug_span!("lease_write", %shard);
            let flight = async move {
                let sent = Instant::now();
                let write = async {
                    match &call {
                        Call::Update(Verb { shard, expect, patch }) => {
                            store.update(shard, expect, patch).await
                        }
                        Call::Create(lease) => store.create(lease).await,
                    }
                };
                let result = in_time(&*store, "write", time_out, write).await;
                ((shard, number), sent, result.map_err(Arc::new))
            };
            self.flights.push(Box::pin(flight.instrument(span)));
        }
    }

    pub(super) fn take_command(&mut self, command: Command, now: Instant) {
        let Command::Read { shards, answer } = command else {
            return self.keeper.command(command, now);
        };
        let store = Arc::clone(&self.store);
        self.side_calls.push(Box::pin(async move {
            let mut rows = Vec::with_capacity(shards.len());
            for shard in &shards {
                match store.get(shard, Consistency::Strong).await {
                    Ok(row) => rows.extend(row),
                    Err(error) => {
                        let _ = answer.send(Err(error));
                        return SideDone::Nothing;
                    }
                }
            }
            let _ = answer.send(Ok(rows));
            SideDone::Nothing
        }));
    }

    pub(super) fn take_control(&mut self, control: Control) {
        match control {
            Control::Shards { shards, answer } => self.compare(shards, answer, Instant::now()),
            Control::Delete { leases, answer } => self.delete(leases, Some(answer)),
            Control::StopTaking { deadline, drain } => {
                self.taking = false;
                self.next_plan = None;
                self.withdraw_requests();
                self.leave_fleet(deadline, drain, Instant::now());
            }
            Control::Activate => {
                if let Some(fleet) = &mut self.fleet {
                    fleet.activate();
                }
                self.taking = true;
                self.plan_soon(Instant::now());
            }
        }
    }

    pub(super) fn side_done(&mut self, done: SideDone) {
        let now = Instant::now();
        match done {
            SideDone::Nothing => {}
            SideDone::PassedOn(shard, result) => self.passed_on(shard, *result, now),
            SideDone::Peers(rows, result) => self.saw_peers(rows, result, now),
            SideDone::Requested(shard, result) => {
                self.side_busy.remove(&shard);
                match *result {
                    Ok(Write::Applied(row)) => {
                        self.requests.insert(shard, (self.me.clone(), now));
                        self.saw(row, now);
                        self.next_scan = self.next_scan.min(now + self.scan_interval());
                    }
                    Ok(Write::Conflict(Some(row))) => self.saw(row, now),
                    Ok(Write::Conflict(None)) => self.gone(&shard),
                    Err(error) => {
                        debug!(%shard, error = %Chain(&error), "a hand-over could not be asked for");
                    }
                }
            }
            SideDone::Created(batch) => {
                self.batch_done(&batch, true, now);
                batch.finish();
                self.next_plan = None;
                self.plan_soon(now);
            }
            SideDone::Deleted(batch) => {
                self.batch_done(&batch, false, now);
                batch.finish();
            }
        }
    }

    pub(super) fn batch_done(&mut self, batch: &Batch, created: bool, now: Instant) {
        for shard in &batch.attempted {
            self.side_busy.remove(shard);
        }
        for (shard, write) in &batch.written {
            match write {
                Write::Conflict(Some(row)) => self.saw(row.clone(), now),
                Write::Applied(row) if created => self.saw(row.clone(), now),
                Write::Applied(_) | Write::Conflict(None) => self.gone(shard),
            }
        }
        if let Some(error) = &batch.error {
            let what = if created { "created" } else { "deleted" };
            warn!(what, error = %Chain(error), "leases could not be created or deleted; the next listing tries again");
        }
        if let Some(fleet) = &mut self.fleet
            && batch.written.iter().any(|(_, write)| matches!(write, Write::Applied(_)))
        {
            fleet.moved();
        }
        if let Some(fleet) = &mut self.fleet
            && created
            && batch.error.is_none()
        {
            fleet.kept_house();
        }
        self.publish_table();
    }

    pub(super) fn handle_outcomes(&mut self, now: Instant) {
        for outcome in self.keeper.take_outcomes() {
            match outcome {
                Outcome::Acquired { shard, how, reason } => {
                    info!(%shard, %reason, "lease acquired");
                    self.metrics.record(&MetricEvent::Moved(match how {
                        Acquisition::Adopt => LeaseMove::Adopted,
                        Acquisition::Take => LeaseMove::Taken,
                        Acquisition::Steal => LeaseMove::Stolen,
                    }));
                    match &mut self.fleet {
                        Some(fleet) if how != Acquisition::Adopt => fleet.moved(),
                        Some(_) => {}
                        None => self.confirm_no_fleet(),
                    }
                    self.has_written = true;
                    if let Some(fleet) = &mut self.fleet
                        && how == Acquisition::Adopt
                    {
                        fleet.was_given(shard.clone(), now);
                    }
                    self.requests.remove(&shard);
                    self.free_since.remove(&shard);
                    self.events.send(Event::LeaseAcquired { shard, reason });
                }
                Outcome::GivenUp(row) => {
                    if row.owner.is_some() {
                        self.metrics.record(&MetricEvent::Gave);
                    }
                    match (&mut self.fleet, &row.owner) {
                        (Some(fleet), Some(to)) => fleet.gave(row.shard.clone(), to.clone(), now),
                        (Some(fleet), None) => fleet.moved(),
                        (None, _) => {}
                    }
                    self.saw(row, now);
                    if self.fleet.is_some() {
                        self.plan_soon(now);
                    }
                }
                Outcome::Seen(row) => {
                    let mine = row.is_owned_by(&self.me);
                    self.saw(row, now);
                    if self.fleet.is_some() {
                        // The cached row was old; the plan is made again with this one.
                        self.plan_soon(now);
                    } else if mine && self.taking {
                        // The row names this worker, but the write that did was not recognised: adopt it soon.
                        self.plan_soon(now + self.settings.lease_duration / 20);
                    }
                }
                Outcome::Gone(shard) => {
                    self.gone(&shard);
                    self.want_listing();
                }
                Outcome::Lost { shard, reason } => {
                    self.metrics.record(&MetricEvent::Lost(&reason));
                    if let Some(fleet) = &mut self.fleet {
                        fleet.lost(&shard, reason == LossReason::Stalled, now);
                    }
                    match &reason {
                        LossReason::Taken { by: Some(owner) }
                            if *owner == self.me && self.fleet.is_none() =>
                        {
                            warn!(%shard, "a write under this worker's id is not this worker's: is the id used twice?");
                        }
                        LossReason::Ended => {}
                        LossReason::Released => info!(%shard, "lease released"),
                        _ => warn!(%shard, ?reason, "lease lost"),
                    }
                    let given = self.fleet.is_some()
                        && self
                            .table
                            .get(&shard)
                            .is_some_and(|row| row.owner.as_ref().is_some_and(|o| *o != self.me));
                    if matches!(reason, LossReason::Released | LossReason::Stalled) && !given {
                        self.given_up_until.insert(shard.clone(), now + self.settings.lease_duration);
                    }
                    self.events.send(Event::LeaseLost { shard, reason });
                }
                Outcome::Ended { row } => {
                    info!(shard = %row.shard, "shard ended");
                    if let Some(fleet) = &mut self.fleet {
                        fleet.moved();
                    }
                    self.ended_since.insert(row.shard.clone(), now);
                    self.saw(row, now);
                    self.publish_table();
                    self.ended.notify_waiters();
                }
                Outcome::WriteFailed { shard, failures, error } => {
                    // A worker that may not write leases would look busy for ever and do nothing. One that has
                    // written some goes on: rights and credentials that were taken away may come back.
                    if error.kind() == StoreErrorKind::Denied && !self.has_written {
                        self.fatal.get_or_insert_with(|| Arc::clone(&error).into());
                    }
                    if failures == 1 {
                        debug!(%shard, error = %Chain(&*error), "a lease write failed, repeating it");
                    } else {
                        warn!(%shard, failures, error = %Chain(&*error), "a lease write fails again and again");
                    }
                }
            }
        }
    }

    pub(super) fn publish_held(&mut self, now: Instant) {
        let has_left = self.fleet.as_ref().is_none_or(|fleet| fleet.has_left());
        let is_idle = !self.taking && self.keeper.is_idle() && self.side_calls.is_empty() && has_left;
        self.idle.send_if_modified(|idle| std::mem::replace(idle, is_idle) != is_idle);
        if let Some(held) = self.keeper.take_changed_handles(now) {
            self.held.send_if_modified(|current| {
                let same = current.len() == held.len()
                    && current
                        .iter()
                        .zip(&held)
                        .all(|((a, x), (b, y))| a == b && x.incarnation() == y.incarnation());
                if !same {
                    *current = Arc::new(held);
                }
                !same
            });
        }
    }
}
