//! Has plans made and carries them out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Batch, Coordination, SideDone};
use crate::error::Chain;
use crate::event::Event;
use crate::lease::keeper::Acquisition;
use crate::lease::verb::Verb;
use crate::lease::{AttemptToken, Expectation, Lease, LeaseTable, OwnerExpectation, StoreError, Write};
use crate::metrics::{MetricEvent, PlanFigures};
use crate::model::{Shard, ShardId};
use crate::plan::{self, Action, BalanceInput, BalanceLimits, CleanupInput, LeaseView, SyncInput};

/// How old a listing may be for leases to be created by it.
const FRESH: Duration = Duration::from_secs(50);
/// For how long a worker that starts leaves house-keeping to one that began before.
const HOUSEKEEPER_GRACE: Duration = Duration::from_secs(3);
/// After so many leases that others had created already, whoever creates looks again.
const LOST_RACES: usize = 64;
/// How long after a plan of a fleet the next may be made: so much for each lease, and no more than this.
const PLAN_SPACING_PER_ROW: Duration = Duration::from_micros(20);
const PLAN_SPACING: Duration = Duration::from_millis(250);
/// How many leases are created at a time.
const CREATIONS_AT_A_TIME: usize = 32;

impl Coordination {
    pub(super) fn plan_soon(&mut self, at: Instant) {
        if self.taking {
            self.next_plan = Some(self.next_plan.map_or(at, |planned| planned.min(at)));
        }
    }

    /// When the next plan is made. News of a large fleet come in bursts: its plans keep a distance that grows with the
    /// table, or its workers would do little else.
    pub(super) fn plan_at(&self) -> Option<Instant> {
        let spaced = self.fleet.as_ref().and_then(|fleet| fleet.planned_at()).map(|planned| {
            let rows = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
            planned + (PLAN_SPACING_PER_ROW * rows).min(PLAN_SPACING)
        });
        self.next_plan.map(|at| spaced.map_or(at, |spaced| at.max(spaced)))
    }

    /// Shows the table as it is now, and acts on it.
    pub(super) fn plan(&mut self, now: Instant) {
        if self.fleet.is_some() {
            if self.taking {
                self.plan_fleet(now);
            } else {
                self.publish_fleet_table(now);
            }
            return;
        }
        let table = self.publish_table();
        if !self.taking {
            return;
        }
        let duration = self.settings.lease_duration;
        // What is known must be fresh enough for "has not changed" to mean anything.
        if self.listed_at.is_none_or(|at| now - at > duration.max(self.settings.lease_scan_interval * 3)) {
            return;
        }
        let rows = &table.leases;
        let held: BTreeSet<ShardId> = self.keeper.held().map(|lease| lease.shard.clone()).collect();
        let mut busy = self.keeper.busy();
        busy.retain(|shard| !held.contains(shard));
        busy.extend(self.side_busy.iter().cloned());
        let given_up = self.given_up_until.iter().filter(|(_, until)| **until > now);
        busy.extend(given_up.map(|(shard, _)| shard.clone()));
        let mut next_plan: Option<Instant> = None;
        let mut soonest = |at: Instant| next_plan = Some(next_plan.map_or(at, |known| known.min(at)));
        let grace = duration / 5;
        let mut views = Vec::with_capacity(rows.len());
        for (lease, expires_at) in self.observer.expiries(rows) {
            let mine = lease.is_owned_by(&self.me) && held.contains(&lease.shard);
            let expired = !mine && lease.owner.is_some() && expires_at.is_some_and(|at| now >= at);
            let free = !lease.is_ended() && !mine && (lease.owner.is_none() || expired);
            let free_for = if free {
                let since = *self.free_since.entry(lease.shard.clone()).or_insert(now);
                if now < since + grace {
                    soonest(since + grace);
                }
                Some(now - since)
            } else {
                self.free_since.remove(&lease.shard);
                if !mine
                    && !lease.is_ended()
                    && let Some(at) = expires_at
                {
                    soonest(at.max(now + duration / 100));
                }
                None
            };
            let requested_for = lease.requested_by.as_ref().map(|worker| {
                let seen = self.requests.entry(lease.shard.clone()).or_insert_with(|| (worker.clone(), now));
                if seen.0 != *worker {
                    *seen = (worker.clone(), now);
                }
                now - seen.1
            });
            views.push(LeaseView { lease, expired, free_for, requested_for });
        }
        let decisions = plan::plan_balance(&BalanceInput {
            me: &self.me,
            leases: &views,
            held: &held,
            busy: &busy,
            limits: BalanceLimits {
                max_leases: self.settings.max_leases,
                max_requests: self.settings.max_requests,
                grace,
                // Long enough for a callback to end; only a Java worker never answers.
                request_timeout: duration * 3,
            },
        });
        if self.metrics.is_on() {
            self.metrics.record(&MetricEvent::Planned(self.figures(&views, &held, decisions.len())));
        }
        self.next_plan = next_plan;
        if !decisions.is_empty() && !self.may_take_beside_fleets(now) {
            return;
        }
        for decision in decisions {
            debug!(shard = %decision.shard, action = ?decision.action, reason = %decision.reason, "planned");
            let Some(row) = rows.get(&decision.shard) else { continue };
            let how = match decision.action {
                Action::Adopt => Acquisition::Adopt,
                Action::Take => Acquisition::Take,
                Action::Steal => Acquisition::Steal,
                Action::Request => {
                    self.request(row);
                    continue;
                }
            };
            self.keeper.acquire(row, how, decision.reason.to_string(), now);
        }
    }

    fn figures(&self, views: &[LeaseView<'_>], held: &BTreeSet<ShardId>, to_take: usize) -> PlanFigures {
        let unfinished = || views.iter().filter(|view| !view.lease.is_ended());
        let is_free = |view: &&LeaseView<'_>| view.lease.owner.is_none() || view.expired;
        let owners = unfinished().filter(|view| !is_free(view)).filter_map(|view| view.lease.owner.as_ref());
        let workers: BTreeSet<_> = owners.chain([&self.me]).collect();
        let leases = unfinished().count();
        let share = leases.div_ceil(workers.len());
        let mine = unfinished().filter(|view| held.contains(&view.lease.shard)).count();
        PlanFigures {
            leases,
            free: unfinished().filter(is_free).count(),
            workers: workers.len(),
            needed: share.min(self.settings.max_leases).saturating_sub(mine),
            spillover: share.saturating_sub(self.settings.max_leases),
            to_take,
        }
    }

    pub(super) fn request(&mut self, row: &Lease) {
        let store = Arc::clone(&self.store);
        let verb = Verb::request(row, &self.me);
        self.side_busy.insert(row.shard.clone());
        self.side_calls.push(Box::pin(async move {
            let result = store.update(&verb.shard, &verb.expect, &verb.patch).await;
            SideDone::Requested(verb.shard, Box::new(result))
        }));
    }

    /// Takes back what was asked of others, so that they give nothing to a worker that is leaving.
    pub(super) fn withdraw_requests(&mut self) {
        let mine = self.requests.iter().filter(|(_, (worker, _))| *worker == self.me);
        let rows: Vec<Lease> = mine
            .filter_map(|(shard, _)| self.table.get(shard))
            .filter(|row| !row.is_owned_by(&self.me))
            .map(|row| Lease::clone(row))
            .collect();
        for row in rows {
            let store = Arc::clone(&self.store);
            let verb = Verb::withdraw(&row, &self.me);
            self.side_calls.push(Box::pin(async move {
                if let Err(error) = store.update(&verb.shard, &verb.expect, &verb.patch).await {
                    warn!(shard = %verb.shard, error = %Chain(&error), "a request could not be taken back");
                }
                SideDone::Nothing
            }));
        }
    }

    /// Has shards and leases compared by whoever keeps house, on listings that are fresh.
    pub(super) fn compare(
        &mut self,
        shards: Arc<Vec<Shard>>,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
        now: Instant,
    ) {
        let Some(fleet) = &mut self.fleet else { return self.sync(&shards, answer) };
        if let Some(answer) = answer {
            fleet.admit();
            self.first_compare = Some((shards, answer));
            self.compare_first(now);
        } else if fleet.keeps_house(self.settings.shard_sync_interval, now) {
            self.sync_later = Some((now, shards));
            if self.listed_at.is_some_and(|at| now < at + FRESH) {
                self.sync_when_fresh(now);
            } else {
                self.next_scan = self.next_scan.min(now);
            }
        }
    }

    /// The first comparison, once this worker is a member and has listed the table.
    pub(super) fn compare_first(&mut self, now: Instant) {
        let Some(fleet) = &self.fleet else { return };
        if !fleet.is_listed_since(self.listing_shown_begun) {
            return;
        }
        let Some((shards, answer)) = self.first_compare.take() else { return };
        if fleet.is_first() {
            return self.sync(&shards, Some(answer));
        }
        // Others have begun before. Should they fail, this worker does it.
        self.sync_later = Some((now + HOUSEKEEPER_GRACE, shards));
        self.plan_soon(now + HOUSEKEEPER_GRACE);
        // Whoever asked has gone if this fails.
        let _ = answer.send(Ok(()));
    }

    /// Compares the shards that were to be compared once the leases are listed (R8: decisions to create are void if
    /// the listings behind them are older than 60 s).
    pub(super) fn sync_when_fresh(&mut self, now: Instant) {
        let fresh = self.listed_at.is_some_and(|at| now < at + FRESH);
        if let Some((_, shards)) = self.sync_later.take_if(|(at, _)| *at <= now && fresh) {
            self.sync(&shards, None);
        }
    }

    /// Compares the stream's shards with the leases: creates what is missing, deletes what is done with.
    pub(super) fn sync(&mut self, shards: &[Shard], answer: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let begun = Instant::now();
        let leases = self.rows();
        let plan = plan::plan_sync(&SyncInput {
            shards,
            leases: &leases,
            initial: self.initial,
            stream: &self.stream,
            start_timestamp: Some(self.clock.now()),
            first_start: leases.is_empty() && self.unreadable.is_empty(),
        });
        let token = AttemptToken(self.entropy.uuid());
        let busy = self.keeper.busy();
        let create: Vec<Lease> = plan
            .create
            .into_iter()
            .filter(|planned| !busy.contains(&planned.lease.shard))
            // Whoever repairs the row decides where its shard goes on.
            .filter(|planned| !self.unreadable.contains_key(planned.lease.shard.as_str()))
            .map(|planned| {
                info!(shard = %planned.lease.shard, checkpoint = %planned.lease.checkpoint, reason = %planned.reason,
                    "creating a lease");
                Lease { token: Some(token), ..planned.lease }
            })
            .collect();
        if answer.is_none() {
            self.clean_up(shards, &leases);
        }
        if create.is_empty() {
            self.metrics.record(&MetricEvent::Synced { took: begun.elapsed(), created: 0, ok: true });
            if let Some(answer) = answer {
                let _ = answer.send(Ok(()));
            }
            if let Some(fleet) = &mut self.fleet {
                fleet.kept_house();
            }
            self.plan_soon(Instant::now());
            return;
        }
        let is_fleet = self.fleet.is_some();
        if is_fleet {
            // Should this worker stop at races it lost, the rest is looked at again.
            self.sync_later = Some((Instant::now() + HOUSEKEEPER_GRACE, Arc::new(shards.to_vec())));
        }
        self.side_busy.extend(create.iter().map(|lease| lease.shard.clone()));
        let (store, metrics) = (Arc::clone(&self.store), self.metrics.clone());
        let attempted: Vec<ShardId> = create.iter().map(|lease| lease.shard.clone()).collect();
        self.side_calls.push(Box::pin(async move {
            let mut batch = Batch { attempted, written: Vec::new(), error: None, answer };
            let mut races = 0;
            // Generation by generation, so that a crash midway leaves ancestors first.
            for generation in generations(create) {
                let mut writes = futures_util::stream::iter(generation)
                    .map(|lease| {
                        let store = &store;
                        async move { (store.create(&lease).await, lease.shard) }
                    })
                    .buffer_unordered(CREATIONS_AT_A_TIME);
                while let Some((result, shard)) = writes.next().await {
                    match result {
                        Ok(write) => {
                            races += usize::from(matches!(write, Write::Conflict(_)));
                            batch.written.push((shard, write));
                        }
                        Err(error) => batch.error = Some(error),
                    }
                    if is_fleet && races >= LOST_RACES {
                        break;
                    }
                }
                if batch.error.is_some() || is_fleet && races >= LOST_RACES {
                    break;
                }
            }
            metrics.record(&MetricEvent::Synced {
                took: begun.elapsed(),
                created: batch.written.len() as u64,
                ok: batch.error.is_none(),
            });
            SideDone::Created(batch)
        }));
    }

    pub(super) fn clean_up(&mut self, shards: &[Shard], leases: &LeaseTable) {
        let now = Instant::now();
        let ended_for: BTreeMap<ShardId, Duration> =
            self.ended_since.iter().map(|(shard, since)| (shard.clone(), now - *since)).collect();
        let plan = plan::leases_to_delete(&CleanupInput {
            shards,
            leases,
            ended_for: &ended_for,
            retention: self.settings.ended_lease_retention,
        });
        for lease in plan.trimmed {
            if self.reported_trimmed.insert(lease.shard.clone()) {
                error!(shard = %lease.shard, checkpoint = %lease.checkpoint, "the shard expired before it was read to its end");
                let reason = "the stream no longer lists the shard, and its end was not reached".to_owned();
                self.events.send(Event::DataLoss {
                    shard: lease.shard,
                    checkpoint: lease.checkpoint,
                    reason,
                });
            }
        }
        let rows = plan.delete.into_iter().map(|deletion| {
            info!(shard = %deletion.lease.shard, reason = %deletion.reason, "deleting a lease");
            deletion.lease
        });
        let rows = rows.collect();
        self.delete(rows, None);
    }

    pub(super) fn delete(
        &mut self,
        leases: Vec<Lease>,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    ) {
        if leases.is_empty() {
            if let Some(answer) = answer {
                let _ = answer.send(Ok(()));
            }
            return;
        }
        self.side_busy.extend(leases.iter().map(|lease| lease.shard.clone()));
        let store = Arc::clone(&self.store);
        let attempted: Vec<ShardId> = leases.iter().map(|lease| lease.shard.clone()).collect();
        self.side_calls.push(Box::pin(async move {
            let mut batch = Batch { attempted, written: Vec::new(), error: None, answer };
            for lease in leases {
                let expect = Expectation {
                    counter: Some(lease.counter),
                    owner: lease.owner.map_or(OwnerExpectation::Absent, OwnerExpectation::Is),
                    checkpoint: Some(lease.checkpoint),
                    ..Expectation::default()
                };
                match store.delete(&lease.shard, &expect).await {
                    Ok(write) => batch.written.push((lease.shard, write)),
                    Err(error) => {
                        batch.error = Some(error);
                        break;
                    }
                }
            }
            SideDone::Deleted(batch)
        }));
    }
}

/// Splits leases that are in order of birth, so that no lease is in one part with a parent.
fn generations(leases: Vec<Lease>) -> Vec<Vec<Lease>> {
    let mut generations: Vec<Vec<Lease>> = Vec::new();
    let mut current: BTreeSet<ShardId> = BTreeSet::new();
    for lease in leases {
        if generations.is_empty() || lease.parents.iter().any(|parent| current.contains(parent)) {
            generations.push(Vec::new());
            current.clear();
        }
        current.insert(lease.shard.clone());
        if let Some(generation) = generations.last_mut() {
            generation.push(lease);
        }
    }
    generations
}
