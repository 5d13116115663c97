//! What a scheduler reports while it runs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::lease::LossReason;
use crate::model::{Checkpoint, Position, ShardId, WorkerId};
use crate::processor::Callback;

/// Something an operator may want to know. Delivered by [`SchedulerHandle::events`](crate::SchedulerHandle::events).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// This worker got a lease.
    LeaseAcquired {
        /// The shard.
        shard: ShardId,
        /// Why it was taken.
        reason: String,
    },
    /// This worker no longer has a lease.
    LeaseLost {
        /// The shard.
        shard: ShardId,
        /// Why.
        reason: LossReason,
    },
    /// A shard was processed to its end and its children have leases.
    ShardEnded {
        /// The shard.
        shard: ShardId,
        /// Its children.
        children: Vec<ShardId>,
    },
    /// A callback failed; what happens next is the error policy's decision.
    CallbackFailed {
        /// The shard.
        shard: ShardId,
        /// The callback.
        callback: Callback,
        /// How often it failed in a row.
        failures: u32,
        /// The error, with its causes.
        error: String,
    },
    /// A batch was skipped because the error policy said so.
    BatchSkipped {
        /// The shard.
        shard: ShardId,
        /// The first record skipped.
        first: Position,
        /// The last record skipped.
        last: Position,
        /// How many records.
        records: usize,
    },
    /// Aggregated records were dropped because their keys hash outside the shard.
    RecordsOutOfRange {
        /// The shard.
        shard: ShardId,
        /// How many records.
        records: u64,
    },
    /// A record looked like an aggregate and is damaged; it was delivered whole, as a plain record.
    DamagedAggregate {
        /// The shard.
        shard: ShardId,
        /// The record.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// Records may have been lost: the shard no longer holds what was to be read next.
    DataLoss {
        /// The shard.
        shard: ShardId,
        /// Where reading was to go on.
        checkpoint: Checkpoint,
        /// What was found.
        reason: String,
    },
    /// A shard showed no sign of life for this long.
    Stalled {
        /// The shard.
        shard: ShardId,
        /// The stage it is in.
        stage: String,
        /// Since when.
        silent_for: Duration,
    },
    /// Reading a shard fails again and again.
    ReaderFailing {
        /// The shard.
        shard: ShardId,
        /// How many attempts failed in a row.
        failures: u32,
        /// The latest error, with its causes.
        error: String,
    },
    /// A shard is polled, because it cannot be subscribed to.
    FallbackStarted {
        /// The shard.
        shard: ShardId,
        /// Why, with the causes.
        error: String,
    },
    /// A shard that was polled instead is subscribed to again.
    FallbackEnded {
        /// The shard.
        shard: ShardId,
    },
    /// A row of the lease table cannot be read; it is left alone.
    UnreadableLease {
        /// The row's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This worker became a member of its fleet.
    FleetJoined {
        /// The id under which it is one.
        member: WorkerId,
    },
    /// The others removed this worker from the fleet: they hold it for dead. It drops its leases and joins again.
    FleetEvicted {
        /// The id under which it was a member.
        member: WorkerId,
    },
    /// Another member left the fleet, or was removed because it is dead.
    FleetMemberGone {
        /// The id under which it was a member.
        member: WorkerId,
    },
    /// A lease is owned by a worker that is not a member of the fleet. Nothing is taken while its counters move.
    ForeignOwner {
        /// The owner.
        owner: WorkerId,
    },
    /// The HTTP endpoint cannot listen; the scheduler goes on, and it keeps trying. Sent once, and again if the error
    /// becomes another one.
    EndpointFailing {
        /// The address it was told to listen on.
        address: SocketAddr,
        /// Why.
        error: String,
    },
    /// The HTTP endpoint listens.
    EndpointListening {
        /// Where.
        address: SocketAddr,
    },
    /// A consumer task panicked, or showed no sign of life and was dropped; it is started again if the lease is held.
    ConsumerRepaired {
        /// The shard.
        shard: ShardId,
        /// What happened to it.
        reason: String,
    },
}

/// Sends events to whoever listens; nobody has to.
#[derive(Clone, Debug)]
pub(crate) struct EventSender(broadcast::Sender<Event>);

impl EventSender {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(broadcast::channel(capacity).0)
    }

    pub(crate) fn send(&self, event: Event) {
        // Without listeners there is nobody to miss the event.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
