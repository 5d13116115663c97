//! Becomes a member: finds a row with room, and puts an entry there under an id of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::in_time;
use crate::entropy::Entropy;
use crate::fleet::{FleetEntry, FleetRow, FleetRowKey, MEMBERS_PER_ROW, member_id};
use crate::lease::{Consistency, FleetChange, FleetWrite, LeaseStore, StoreError};
use crate::model::WorkerId;

/// What an attempt to join needs.
pub(super) struct Join<'a> {
    pub(super) store: &'a dyn LeaseStore,
    pub(super) prefix: &'a str,
    pub(super) entry: FleetEntry,
    pub(super) entropy: &'a Entropy,
    pub(super) time_out: Duration,
}

/// A member, and what it saw on the way: strongly consistent views of all rows, each with the time it was asked for
/// and the time its answer came.
#[derive(Debug)]
pub(in super::super) struct Joined {
    pub(super) id: WorkerId,
    pub(super) row: FleetRowKey,
    pub(super) views: BTreeMap<FleetRowKey, (Option<FleetRow>, Instant, Instant)>,
}

impl Join<'_> {
    /// Joins the lowest row that has room.
    ///
    /// Each attempt has a new id (R10, H5). One that is not answered is given up together with its id: if it lands, it
    /// leaves an entry that takes nothing and is removed by the others after its lease duration.
    pub(super) async fn run(self) -> Result<Joined, StoreError> {
        let mut views = BTreeMap::new();
        let first = self.look(FleetRowKey::FIRST, &mut views).await?;
        let mut rows = first.and_then(|row| row.rows).unwrap_or(0).max(1);
        for row in 1..rows {
            self.look(FleetRowKey(row), &mut views).await?;
        }
        loop {
            let room = (0..rows).map(FleetRowKey).find(|key| {
                views
                    .get(key)
                    .and_then(|(row, ..)| row.as_ref())
                    .is_some_and(|row| row.workers.len() < MEMBERS_PER_ROW)
            });
            let missing =
                (0..rows).map(FleetRowKey).find(|key| views.get(key).is_none_or(|(row, ..)| row.is_none()));
            let key = match (room, missing) {
                (Some(room), Some(missing)) => room.min(missing),
                (Some(key), None) | (None, Some(key)) => key,
                (None, None) => {
                    let key = FleetRowKey(rows);
                    rows += 1;
                    self.look(key, &mut views).await?;
                    continue;
                }
            };
            if views.get(&key).is_none_or(|(row, ..)| row.is_none()) {
                self.change(key, FleetChange::Create, &mut views).await?;
            }
            let id = member_id(self.prefix, self.entropy.uuid(), key);
            let join = FleetChange::Join { worker: id.clone(), entry: self.entry.clone() };
            // Refused: the row is full, or was deleted meanwhile; its view says which.
            if self.change(key, join, &mut views).await? {
                return Ok(Joined { id, row: key, views });
            }
        }
    }

    async fn look(
        &self,
        key: FleetRowKey,
        views: &mut BTreeMap<FleetRowKey, (Option<FleetRow>, Instant, Instant)>,
    ) -> Result<Option<FleetRow>, StoreError> {
        let sent = Instant::now();
        let read = self.store.fleet_row(key, Consistency::Strong);
        let row = in_time(self.store, "GetItem", self.time_out, read).await?;
        views.insert(key, (row.clone(), sent, Instant::now()));
        Ok(row)
    }

    async fn change(
        &self,
        key: FleetRowKey,
        change: FleetChange,
        views: &mut BTreeMap<FleetRowKey, (Option<FleetRow>, Instant, Instant)>,
    ) -> Result<bool, StoreError> {
        let sent = Instant::now();
        let operation = if change == FleetChange::Create { "PutItem" } else { "UpdateItem" };
        let write = self.store.change_fleet(key, &change);
        let write = in_time(self.store, operation, self.time_out, write).await?;
        let applied = matches!(write, FleetWrite::Applied(_));
        let (FleetWrite::Applied(row) | FleetWrite::Conflict(row)) = write;
        views.insert(key, (row, sent, Instant::now()));
        Ok(applied)
    }
}
