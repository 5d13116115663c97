use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::coordination::TableView;
use crate::consumer::{Lineage, LineageError};
use crate::lease::{Command, Lease, StoreError, StoreErrorKind};
use crate::model::{ChildShard, InitialPosition, Shard, ShardId, StreamIdentity};
use crate::plan::{self, SyncInput};
use crate::source::{SourceError, SourceErrorKind};

/// The stream's shards as last listed.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// When the listing was begun; what happened before is in it.
    pub(crate) begun: Instant,
    pub(crate) shards: Arc<Vec<Shard>>,
}

/// How long a consumer waits for a listing it asked for before it reports that none came.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);

/// What consumers learn of other shards: from the lease table and from the stream's listing, each read once for
/// all who ask.
#[derive(Debug)]
pub(crate) struct StreamLineage {
    pub(crate) stream: StreamIdentity,
    pub(crate) initial: InitialPosition,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) table: watch::Receiver<Arc<TableView>>,
    /// Tells when this worker stored the end of a shard.
    pub(crate) ended: Arc<Notify>,
    pub(crate) listing: watch::Receiver<Listing>,
    /// Tells when there is a new listing. A `watch` wakes those who wait in random order; this one in theirs.
    pub(crate) listed: Arc<Notify>,
    pub(crate) listing_wanted: Arc<Notify>,
}

impl StreamLineage {
    async fn read(&self, shards: BTreeSet<ShardId>) -> Result<Vec<Lease>, StoreError> {
        let closed = || {
            StoreError::new(
                StoreErrorKind::Unavailable,
                "GetItem",
                "lease table",
                "the scheduler is stopping",
            )
        };
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Read { shards, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Waits for a listing begun after now.
    async fn fresh_listing(&self) -> Result<Listing, SourceError> {
        let asked = Instant::now();
        self.listing_wanted.notify_one();
        let fresh = async {
            loop {
                let mut listed = pin!(self.listed.notified());
                listed.as_mut().enable();
                let listing = self.listing.borrow().clone();
                if listing.begun >= asked {
                    return listing;
                }
                listed.await;
            }
        };
        match tokio::time::timeout(LISTING_TIMEOUT, fresh).await {
            Ok(listing) => Ok(listing),
            Err(_) => Err(SourceError::new(
                SourceErrorKind::Unavailable,
                "ListShards",
                self.stream.arn.clone(),
                "the stream's shards could not be listed in time",
            )),
        }
    }
}

#[async_trait]
impl Lineage for StreamLineage {
    async fn parents_done(&self, lease: &Lease) -> Result<bool, LineageError> {
        if lease.parents.is_empty() {
            return Ok(true);
        }
        let rows = self.read(lease.parents.clone()).await?;
        let mut leases = BTreeMap::clone(&self.table.borrow().leases);
        for parent in &lease.parents {
            leases.remove(parent);
        }
        leases.extend(rows.into_iter().map(|row| (row.shard.clone(), Arc::new(row))));
        if lease.parents.iter().all(|parent| leases.contains_key(parent)) {
            return Ok(plan::parents_done(lease, &leases, &|_| false).is_done());
        }
        // A parent without a row may be done with long ago, or may still have to get one: another worker may not
        // have reached the end of *its* parent yet. Only a listing that knows this very shard can tell.
        let listing = self.fresh_listing().await?;
        let is_older = |shards: &[Shard]| shards.iter().all(|listed| listed.id < lease.shard);
        if is_older(&listing.shards) {
            return Ok(false);
        }
        let sync = plan::plan_sync(&SyncInput {
            shards: &listing.shards,
            leases: &leases,
            initial: self.initial,
            stream: &self.stream,
            start_timestamp: None,
            first_start: false,
        });
        Ok(plan::parents_done(lease, &leases, &|parent| sync.awaits(parent)).is_done())
    }

    async fn some_shard_ended(&self) {
        self.ended.notified().await;
    }

    async fn children(
        &self,
        shard: &ShardId,
        named: Option<&[ChildShard]>,
    ) -> Result<Vec<ChildShard>, LineageError> {
        if let Some(named @ [_, ..]) = named {
            return Ok(named.to_vec());
        }
        let listing = self.fresh_listing().await?;
        if named.is_none() && listing.shards.iter().any(|listed| listed.id == *shard) {
            return Err(LineageError::StillListed(shard.clone()));
        }
        let children: Vec<ChildShard> = listing
            .shards
            .iter()
            .filter(|candidate| candidate.parents().any(|parent| parent == shard))
            .map(ChildShard::from)
            .collect();
        if !children.is_empty() {
            return Ok(children);
        }
        match listing.shards.iter().find(|listed| listed.id == *shard) {
            Some(listed) if listed.is_open() => Err(LineageError::StillOpen(shard.clone())),
            // The listing may lag behind the reshard.
            Some(_) => Err(LineageError::ChildrenUnknown(shard.clone())),
            // A listing that knows no younger shard may be older than this one.
            None if listing.shards.iter().all(|listed| listed.id <= *shard) => {
                Err(LineageError::ChildrenUnknown(shard.clone()))
            }
            // Closed shards stay listed for the stream's retention: this one is gone, and its children with it.
            None => Err(LineageError::Source(SourceError::new(
                SourceErrorKind::ShardMissing,
                "ListShards",
                format!("{} {shard}", self.stream.arn),
                "the stream lists neither the shard nor any child of it",
            ))),
        }
    }
}
