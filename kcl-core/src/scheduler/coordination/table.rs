//! Lists the lease table and remembers what it showed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{Coordination, Scan, TableView, in_time};
use crate::error::Chain;
use crate::event::Event;
use crate::lease::{Consistency, Lease, LeasePage, LeaseTable, PageToken, StoreError};
use crate::metrics::MetricEvent;
use crate::model::ShardId;
use crate::plan;

/// For how long a member shows the table it has published.
const SHOWN_FOR: Duration = Duration::from_secs(1);

impl Coordination {
    pub(super) fn scan_interval(&self) -> Duration {
        if let Some(fleet) = &self.fleet {
            return fleet
                .listing_interval(self.settings.lease_duration, self.table.len(), !self.unreadable.is_empty())
                .mul_f64(0.9 + self.entropy.unit() / 10.0);
        }
        let scan = self.settings.lease_scan_interval;
        let interval = if self.requests.values().any(|(worker, _)| *worker == self.me) {
            scan.min(Duration::from_secs(1))
        } else if self.is_alone() {
            // Nobody else holds anything, so nothing but a newcomer's request can be seen, and renewals show that.
            self.settings.lease_duration.max(scan)
        } else {
            scan
        };
        // Workers that started together drift apart.
        interval.mul_f64(0.9 + self.entropy.unit() / 10.0)
    }

    pub(super) fn is_alone(&self) -> bool {
        let held: BTreeSet<&ShardId> = self.keeper.held().map(|lease| &lease.shard).collect();
        !held.is_empty() && self.table.values().all(|lease| lease.is_ended() || held.contains(&lease.shard))
    }

    /// Begins to list the table.
    pub(super) fn begin_listing(&mut self, now: Instant) {
        let consistency = match &mut self.fleet {
            Some(fleet) => fleet.begin_listing(now),
            None => Consistency::Eventual,
        };
        self.listing_begun = now;
        self.scan = Some(Scan { consistency, ..Scan::default() });
        self.request_page(None);
    }

    pub(super) fn request_page(&mut self, token: Option<PageToken>) {
        let store = Arc::clone(&self.store);
        let consistency = self.scan.as_ref().map_or(Consistency::Eventual, |scan| scan.consistency);
        let timeout = self.settings.lease_duration / 2;
        let metrics = self.metrics.clone();
        self.page = Some(Box::pin(async move {
            let begun = Instant::now();
            let page = in_time(&*store, "list", timeout, store.list(token, consistency)).await;
            metrics.record(&MetricEvent::Listed { took: begun.elapsed(), ok: page.is_ok() });
            page
        }));
    }

    /// The table, with the rows of held leases as last confirmed.
    pub(super) fn rows(&self) -> LeaseTable {
        let mut rows = self.table.clone();
        rows.extend(self.keeper.held().map(|lease| (lease.shard.clone(), Arc::new(lease.clone()))));
        rows
    }

    pub(super) fn page_arrived(&mut self, page: Result<LeasePage, StoreError>, now: Instant) {
        match page {
            Ok(page) => match self.take_page(page, now) {
                Some(token) => self.request_page(Some(token)),
                None => {
                    self.scan_backoff.reset();
                    self.next_scan = now + self.scan_interval();
                    if let Some(at) = self.fleet.as_ref().and_then(|fleet| fleet.wants_listing_at()) {
                        self.next_scan = self.next_scan.min(at);
                    }
                    self.plan(now);
                    self.compare_first(now);
                    self.sync_when_fresh(now);
                }
            },
            Err(error) => {
                self.scan = None;
                let delay = self.scan_backoff.next_delay();
                if self.scan_backoff.attempts() == 2 {
                    warn!(error = %Chain(&error), "the lease table cannot be listed, trying again");
                }
                self.next_scan = now + delay;
            }
        }
    }

    /// Takes a page of the listing; returns where the next one begins. After the last, the table is replaced.
    pub(super) fn take_page(&mut self, page: LeasePage, now: Instant) -> Option<PageToken> {
        let scan = self.scan.get_or_insert_default();
        for row in page.unreadable {
            if self.unreadable.get(&row.key) != Some(&row.reason) {
                warn!(key = %row.key, reason = %row.reason, "a row of the lease table cannot be read; it is left alone");
                let (key, reason) = (row.key.clone(), row.reason.clone());
                self.events.send(Event::UnreadableLease { key, reason });
            }
            scan.unreadable.insert(row.key, row.reason);
        }
        for row in page.foreign {
            scan.foreign.insert(row.key, row.entity_type);
        }
        let mut scan = std::mem::take(scan);
        self.observer.observe_page(&page.leases, now);
        for lease in page.leases {
            if let (Some(fleet), Some(owner)) = (&mut self.fleet, &lease.owner) {
                fleet.see_owner(owner, now);
                self.watch_foreign(&lease, now);
            }
            self.keeper.note_row(&lease);
            scan.rows.push((lease.shard.clone(), lease));
        }
        if page.next.is_some() {
            self.scan = Some(scan);
            return page.next;
        }
        let Scan { consistency: _, rows, unreadable, foreign, written } = scan;
        let mut rows: LeaseTable = rows.into_iter().collect();
        self.scan = None;
        for (shard, row) in written {
            match row {
                Some(row) => rows.insert(shard, row),
                None => rows.remove(&shard),
            };
        }
        if let Some(fleet) = &mut self.fleet {
            for (shard, row) in &rows {
                fleet.compare(self.table.get(shard).map(|row| &**row), row, now);
            }
        }
        self.table = rows;
        self.unreadable = unreadable;
        self.foreign_rows = foreign;
        self.listed_at = Some(now);
        self.listing_shown_begun = Some(self.listing_begun);
        self.table_dirty = true;
        self.notice_missing_rows(now);
        self.judge_foreign(now);
        None
    }

    pub(super) fn notice_missing_rows(&mut self, now: Instant) {
        let table = &self.table;
        // Every row of the table was observed, so that as many are the same.
        if self.observer.len() != table.len() {
            self.observer.retain(|shard| table.contains_key(shard));
        }
        self.requests.retain(|shard, (worker, _)| {
            table.get(shard).is_some_and(|lease| lease.requested_by.as_ref() == Some(worker))
        });
        self.ended_since.retain(|shard, _| table.contains_key(shard));
        self.given_up_until.retain(|_, until| *until > now);
        if let Some(fleet) = &mut self.fleet {
            let owners: BTreeSet<_> = table.values().filter_map(|lease| lease.owner.as_ref()).collect();
            fleet.retain_owners(|owner| owners.contains(owner));
        }
        for lease in table.values().filter(|lease| lease.is_ended()) {
            self.ended_since.entry(lease.shard.clone()).or_insert(now);
        }
        let is_there =
            |shard: &ShardId| table.contains_key(shard) || self.unreadable.contains_key(shard.as_str());
        let hole = table.values().any(|lease| lease.is_ended() && !lease.children.iter().all(is_there));
        if hole {
            self.want_listing();
        }
    }

    pub(super) fn want_listing(&self) {
        self.listing_wanted.send_modify(|count| *count += 1);
    }

    pub(super) fn saw(&mut self, row: Lease, now: Instant) {
        self.observer.observe(&row, now);
        self.table_dirty = true;
        if let (Some(fleet), Some(owner)) = (&mut self.fleet, &row.owner) {
            fleet.see_owner(owner, now);
            fleet.compare(self.table.get(&row.shard).map(|row| &**row), &row, now);
        }
        let row = Arc::new(row);
        if let Some(scan) = &mut self.scan {
            scan.written.insert(row.shard.clone(), Some(Arc::clone(&row)));
        }
        self.table.insert(row.shard.clone(), row);
    }

    pub(super) fn gone(&mut self, shard: &ShardId) {
        self.table_dirty = true;
        if let Some(scan) = &mut self.scan {
            scan.written.insert(shard.clone(), None);
        }
        self.table.remove(shard);
    }

    /// Shows the table, and returns what is shown.
    pub(super) fn publish_table(&mut self) -> Arc<TableView> {
        let now = Instant::now();
        let leases = Arc::new(self.rows());
        self.table_dirty = false;
        self.published = Some((now, Arc::clone(&leases)));
        let leader = self.keeps_house(&leases, now);
        let view = Arc::new(self.view_of(leases, leader, now));
        self.view.send_replace(Arc::clone(&view));
        view
    }

    fn view_of(&mut self, leases: Arc<LeaseTable>, leader: bool, now: Instant) -> TableView {
        let stands_still = |shard: &ShardId| leases.get(shard).is_some_and(|lease| lease.owner.is_some());
        let expired = self.free_since.iter().filter(|(shard, _)| stands_still(shard));
        let expired = expired.map(|(shard, since)| (shard.clone(), *since)).collect();
        let given_up = self.given_up_until.clone();
        let taking = match &self.fleet {
            Some(fleet) => self.taking && fleet.takes(),
            None => self.taking,
        };
        TableView {
            owners: self.owners.see(&leases, now),
            leases,
            leader,
            fleet: self.fleet_snapshot(now),
            listed_at: self.listed_at,
            unreadable: self.unreadable.clone(),
            expired,
            given_up,
            taking,
        }
    }

    /// R8 for members of a fleet, else the rule of KCL 2.x.
    fn keeps_house(&self, leases: &LeaseTable, now: Instant) -> bool {
        match &self.fleet {
            Some(fleet) => fleet.keeps_house(self.settings.shard_sync_interval, now),
            None => plan::is_leader(&self.me, leases.values().map(|lease| &**lease)),
        }
    }

    /// Shows what a member sees. The table itself is large, and is shown anew at most once a second.
    pub(super) fn publish_fleet_table(&mut self, now: Instant) {
        let shown = self.published.as_ref();
        if self.table_dirty && shown.is_none_or(|(at, _)| now >= *at + SHOWN_FOR) {
            self.publish_table();
            return;
        }
        let Some((_, leases)) = shown else { return };
        let leases = Arc::clone(leases);
        let leader = self.keeps_house(&leases, now);
        let view = self.view_of(leases, leader, now);
        self.view.send_replace(Arc::new(view));
    }
}
