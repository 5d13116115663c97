//! What happens, in types, and the metrics each event comes to.

use std::time::Duration;

use super::{Dimension, Metric};
use crate::lease::{LossReason, StoreUsage};
use crate::model::ShardId;
use crate::processor::Callback;

/// A call that reads a shard by polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchCall {
    /// `GetRecords`.
    GetRecords,
    /// `GetShardIterator`.
    GetShardIterator,
}

/// A write on a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseWrite {
    /// One that is to get it.
    Acquire,
    /// One that creates the lease of a child.
    CreateChild,
    /// One that does nothing but renew it.
    Renew,
}

/// How a worker got a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseMove {
    /// Its row named this worker: another gave it, or it is from an earlier run.
    Adopted,
    /// It was free, or its owner is dead.
    Taken,
    /// From an owner that does not answer.
    Stolen,
}

/// Who showed no sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stalled {
    /// The source.
    Source,
    /// The consumer, which was dropped or panicked.
    Consumer,
}

/// What a plan of a `PerLease` worker saw and decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanFigures {
    /// Unfinished leases.
    pub leases: usize,
    /// Of them those without a live owner.
    pub free: usize,
    /// Workers that own live leases, and this one.
    pub workers: usize,
    /// What this worker lacks of its share.
    pub needed: usize,
    /// What its limit leaves to others of its share.
    pub spillover: usize,
    /// Leases it goes for.
    pub to_take: usize,
}

/// Something that is measured. The catalogue of metrics is [`Metric`]; [`MetricEvent::data`] says what an event comes to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum MetricEvent<'a> {
    /// A scheduler started, or could not.
    Started {
        /// Whether it runs.
        ok: bool,
    },
    /// A callback other than `process_records` returned, or was given up.
    CallbackReturned {
        /// Which.
        callback: Callback,
        /// After this long.
        took: Duration,
    },
    /// A callback failed.
    CallbackFailed {
        /// Which.
        callback: Callback,
    },
    /// The error policy has a failed callback called again.
    CallbackRetried {
        /// Which.
        callback: Callback,
    },
    /// `process_records` returned, or was given up.
    Delivered {
        /// The shard.
        shard: &'a ShardId,
        /// The user records of the batch.
        records: u64,
        /// Their payloads.
        bytes: u64,
        /// How long the callback took.
        took: Duration,
        /// Whether it returned `Ok`.
        ok: bool,
    },
    /// The error policy passed a batch over.
    Skipped {
        /// Its user records.
        records: u64,
    },
    /// What taking apart aggregates dropped or found damaged, and holes before a batch.
    OpenedUp {
        /// Records dropped because they belong to another shard.
        out_of_range: u64,
        /// Damaged aggregates.
        damaged: u64,
        /// Whether records before the batch may have expired.
        hole: bool,
    },
    /// The source said how far a shard is behind its tip.
    Behind {
        /// The shard.
        shard: &'a ShardId,
        /// How far.
        behind: Duration,
    },
    /// A call that reads a shard was answered.
    Fetched {
        /// The shard.
        shard: &'a ShardId,
        /// The call.
        call: FetchCall,
        /// How long it took.
        took: Duration,
        /// Whether it succeeded.
        ok: bool,
    },
    /// An iterator had expired.
    IteratorExpired,
    /// A call of a service failed.
    CallFailed {
        /// The service's name of it.
        call: &'static str,
        /// Whether because the service asks to slow down.
        throttled: bool,
    },
    /// A checkpoint was stored, or could not be.
    Checkpointed {
        /// The shard.
        shard: &'a ShardId,
        /// From the call to the answer.
        took: Duration,
        /// Whether it is stored.
        ok: bool,
    },
    /// A subscription ended, or was not opened.
    SubscriptionEnded {
        /// Why, of a closed set: see `docs/metrics.md`.
        cause: &'static str,
    },
    /// A shard is polled instead of subscribed to, or no more.
    Fallback {
        /// Whether it begins.
        started: bool,
    },
    /// Something showed no sign of life.
    Stall(Stalled),
    /// A write on a lease was answered, or went without an answer.
    LeaseWritten {
        /// What for.
        write: LeaseWrite,
        /// How long it took.
        took: Duration,
        /// Whether it is in force.
        ok: bool,
    },
    /// A heartbeat of a member of a fleet was answered, or went without an answer.
    Heartbeat {
        /// How long it took.
        took: Duration,
        /// Whether it was confirmed.
        ok: bool,
    },
    /// This worker got a lease.
    Moved(LeaseMove),
    /// This worker gave a lease to another.
    Gave,
    /// A lease is no longer held.
    Lost(&'a LossReason),
    /// A lease was handed over.
    HandedOver {
        /// For how long its shard stood still here.
        took: Duration,
    },
    /// A page of the lease table was listed.
    Listed {
        /// How long it took.
        took: Duration,
        /// Whether it came.
        ok: bool,
    },
    /// A `PerLease` worker planned.
    Planned(PlanFigures),
    /// Shards and leases were compared.
    Synced {
        /// How long it took, with its writes.
        took: Duration,
        /// How many leases were to be created and are there.
        created: u64,
        /// Whether nothing failed.
        ok: bool,
    },
    /// A sample of a worker.
    WorkerSample {
        /// Leases whose consumers run.
        leases: usize,
        /// How long ago the lease renewed longest ago was.
        since_renewal: Option<Duration>,
        /// Shards whose lease cannot be proven valid.
        fenced: usize,
        /// What is read ahead.
        buffer_bytes: usize,
        /// Whether it keeps house.
        housekeeper: bool,
    },
    /// A sample of a shard.
    ShardSample {
        /// The shard.
        shard: &'a ShardId,
        /// For how long what was delivered waits for the checkpoint to move.
        checkpoint_age: Duration,
        /// What is read ahead.
        buffer_bytes: usize,
    },
    /// A sample of a fleet, by whoever keeps house.
    FleetSample {
        /// Unfinished leases.
        leases: usize,
        /// Of them those without an owner that is a member.
        free: usize,
        /// Members.
        workers: usize,
    },
    /// What the lease table cost in the minute that is over.
    TableMinute(&'a StoreUsage),
    /// An adapter lost values.
    Dropped {
        /// How many.
        values: u64,
    },
}

/// One value of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Datum<'a> {
    /// The metric.
    pub metric: Metric,
    /// The value, in the metric's unit.
    pub value: f64,
    /// The shard, for metrics that have the dimension.
    pub shard: Option<&'a str>,
    /// The call or the cause, for metrics that have the one or the other.
    pub label: Option<&'static str>,
}

impl<'a> Datum<'a> {
    const fn new(metric: Metric, value: f64) -> Self {
        Self { metric, value, shard: None, label: None }
    }

    fn of_shard(self, shard: &'a ShardId) -> Self {
        Self { shard: Some(shard.as_str()), ..self }
    }

    const fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// The value of a dimension; `worker` is the one of [`Dimension::WorkerIdentifier`].
    #[must_use]
    pub fn dimension<'b>(&self, dimension: Dimension, worker: &'b str) -> Option<&'b str>
    where
        'a: 'b,
    {
        match dimension {
            Dimension::Operation => Some(self.metric.descriptor().operation),
            Dimension::ShardId => self.shard,
            Dimension::WorkerIdentifier => Some(worker),
            Dimension::Call | Dimension::Cause => self.label,
        }
    }
}

/// In milliseconds, to a tenth: finer tells nothing, and would make every value of a distribution a value of its own.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[allow(clippy::cast_precision_loss, reason = "no count gets near 2^53")]
const fn count(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "no count gets near 2^53")]
const fn size(number: usize) -> f64 {
    number as f64
}

const fn outcome(ok: bool) -> f64 {
    if ok { 1.0 } else { 0.0 }
}

const fn callback_name(callback: Callback) -> &'static str {
    match callback {
        Callback::Initialize => "initialize",
        Callback::ProcessRecords => "process_records",
        Callback::ShardEnded => "shard_ended",
        Callback::ShutdownRequested => "shutdown_requested",
        Callback::LeaseLost => "lease_lost",
    }
}

impl MetricEvent<'_> {
    /// What the event comes to: hands each datum to `take`. The same event always comes to the same metrics.
    pub fn data(&self, mut take: impl FnMut(Datum<'_>)) {
        let mut give = |metric, value| take(Datum::new(metric, value));
        match *self {
            Self::Started { ok } => give(Metric::InitializeSuccess, outcome(ok)),
            Self::CallbackReturned { callback: Callback::Initialize, took } => {
                give(Metric::InitializeTime, millis(took));
            }
            // Told by `Delivered`.
            Self::CallbackReturned { callback: Callback::ProcessRecords, .. } => {}
            Self::CallbackReturned { took, .. } => give(Metric::ShutdownTime, millis(took)),
            Self::CallbackFailed { callback } => {
                take(Datum::new(Metric::CallbackFailures, 1.0).labelled(callback_name(callback)));
            }
            Self::CallbackRetried { callback } => {
                take(Datum::new(Metric::CallbackRetries, 1.0).labelled(callback_name(callback)));
            }
            Self::Delivered { shard, records, bytes, took, ok } => {
                let (records, bytes) = if ok { (records, bytes) } else { (0, 0) };
                for (metric, value) in [
                    (Metric::RecordsProcessed, count(records)),
                    (Metric::DataBytesProcessed, count(bytes)),
                    (Metric::ProcessSuccess, outcome(ok)),
                    (Metric::ProcessTime, millis(took)),
                    (Metric::ProcessRecordsTime, millis(took)),
                ] {
                    take(Datum::new(metric, value).of_shard(shard));
                }
            }
            Self::Skipped { records } => give(Metric::RecordsSkipped, count(records)),
            Self::OpenedUp { out_of_range, damaged, hole } => {
                for (metric, number) in [
                    (Metric::RecordsOutOfRange, out_of_range),
                    (Metric::DamagedAggregates, damaged),
                    (Metric::HolesFound, u64::from(hole)),
                ] {
                    if number > 0 {
                        give(metric, count(number));
                    }
                }
            }
            Self::Behind { shard, behind } => {
                take(Datum::new(Metric::MillisBehindLatest, millis(behind)).of_shard(shard));
                take(Datum::new(Metric::ApplicationMillisBehindLatest, millis(behind)));
            }
            Self::Fetched { shard, call, took, ok } => {
                let (success, time) = match call {
                    FetchCall::GetRecords => (Metric::GetRecordsSuccess, Metric::GetRecordsTime),
                    FetchCall::GetShardIterator => {
                        (Metric::GetShardIteratorSuccess, Metric::GetShardIteratorTime)
                    }
                };
                take(Datum::new(success, outcome(ok)).of_shard(shard));
                take(Datum::new(time, millis(took)).of_shard(shard));
            }
            Self::IteratorExpired => give(Metric::ExpiredIterator, 1.0),
            Self::CallFailed { call, throttled } => {
                let metric = if throttled { Metric::Throttles } else { Metric::CallFailures };
                take(Datum::new(metric, 1.0).labelled(call));
            }
            Self::Checkpointed { shard, took, ok } => {
                take(Datum::new(Metric::UpdateLeaseSuccess, outcome(ok)).of_shard(shard));
                take(Datum::new(Metric::UpdateLeaseTime, millis(took)).of_shard(shard));
            }
            Self::SubscriptionEnded { cause } => {
                take(Datum::new(Metric::SubscriptionsEnded, 1.0).labelled(cause));
            }
            Self::Fallback { started: true } => give(Metric::FallbacksStarted, 1.0),
            Self::Fallback { started: false } => give(Metric::FallbacksEnded, 1.0),
            Self::Stall(what) => {
                let cause = match what {
                    Stalled::Source => "source",
                    Stalled::Consumer => "consumer",
                };
                take(Datum::new(Metric::Stalls, 1.0).labelled(cause));
            }
            Self::LeaseWritten { write, took, ok } => match write {
                LeaseWrite::Acquire => {
                    give(Metric::TakeLeaseSuccess, outcome(ok));
                    give(Metric::TakeLeaseTime, millis(took));
                    if !ok {
                        give(Metric::UntakenLeases, 1.0);
                    }
                }
                LeaseWrite::CreateChild => {
                    give(Metric::ChildLeaseSuccess, outcome(ok));
                    give(Metric::ChildLeaseTime, millis(took));
                }
                LeaseWrite::Renew => {
                    for metric in [Metric::RenewLeaseSuccess, Metric::RenewSuccess] {
                        give(metric, outcome(ok));
                    }
                    for metric in [Metric::RenewLeaseTime, Metric::RenewTime] {
                        give(metric, millis(took));
                    }
                }
            },
            Self::Heartbeat { took, ok } => {
                give(Metric::RenewSuccess, outcome(ok));
                give(Metric::RenewTime, millis(took));
            }
            Self::Moved(how) => {
                let cause = match how {
                    LeaseMove::Adopted => "adopted",
                    LeaseMove::Taken => "taken",
                    LeaseMove::Stolen => "stolen",
                };
                if how != LeaseMove::Adopted {
                    give(Metric::TakenLeases, 1.0);
                }
                take(Datum::new(Metric::LeaseMoves, 1.0).labelled(cause));
            }
            Self::Gave => give(Metric::LeasesReassigned, 1.0),
            Self::Lost(reason) => {
                let (cause, against_will) = match reason {
                    LossReason::Taken { .. } => ("taken", true),
                    LossReason::Expired => ("expired", true),
                    LossReason::Deleted => ("deleted", true),
                    LossReason::Stalled => ("stalled", false),
                    LossReason::Released => ("released", false),
                    LossReason::Evicted => ("evicted", true),
                    LossReason::Ended => ("ended", false),
                };
                if against_will {
                    give(Metric::LostLeases, 1.0);
                }
                take(Datum::new(Metric::LeasesLost, 1.0).labelled(cause));
            }
            Self::HandedOver { took } => give(Metric::HandOverTime, millis(took)),
            Self::Listed { took, ok } => {
                for metric in [Metric::ListLeasesSuccess, Metric::TakeLeasesSuccess] {
                    give(metric, outcome(ok));
                }
                for metric in [Metric::ListLeasesTime, Metric::TakeLeasesTime] {
                    give(metric, millis(took));
                }
            }
            Self::Planned(figures) => {
                for (metric, number) in [
                    (Metric::TotalLeases, figures.leases),
                    (Metric::ExpiredLeases, figures.free),
                    (Metric::NumWorkers, figures.workers),
                    (Metric::NeededLeases, figures.needed),
                    (Metric::LeaseSpillover, figures.spillover),
                    (Metric::LeasesToTake, figures.to_take),
                ] {
                    give(metric, size(number));
                }
            }
            Self::Synced { took, created, ok } => {
                give(Metric::ShardSyncSuccess, outcome(ok));
                give(Metric::SyncShardsSuccess, outcome(ok));
                give(Metric::ShardSyncTime, millis(took));
                for _ in 0..created {
                    give(Metric::SyncCreateLeaseSuccess, 1.0);
                }
                if !ok {
                    give(Metric::SyncCreateLeaseSuccess, 0.0);
                }
            }
            Self::WorkerSample { leases, since_renewal, fenced, buffer_bytes, housekeeper } => {
                give(Metric::CurrentLeases, size(leases));
                give(Metric::FencedShards, size(fenced));
                give(Metric::WorkerBufferBytes, size(buffer_bytes));
                give(Metric::IsLeader, outcome(housekeeper));
                if let Some(since) = since_renewal {
                    give(Metric::TimeSinceRenewal, millis(since));
                }
            }
            Self::ShardSample { shard, checkpoint_age, buffer_bytes } => {
                take(Datum::new(Metric::CheckpointAge, millis(checkpoint_age)).of_shard(shard));
                take(Datum::new(Metric::ApplicationCheckpointAge, millis(checkpoint_age)));
                take(Datum::new(Metric::ShardBufferBytes, size(buffer_bytes)).of_shard(shard));
            }
            Self::FleetSample { leases, free, workers } => {
                give(Metric::FleetTotalLeases, size(leases));
                give(Metric::FleetExpiredLeases, size(free));
                give(Metric::FleetNumWorkers, size(workers));
            }
            Self::TableMinute(usage) => {
                let total = usage.total();
                give(Metric::TableRequests, count(total.requests));
                give(Metric::TableReadUnits, total.read_units);
                give(Metric::TableWriteUnits, total.write_units);
            }
            Self::Dropped { values } => give(Metric::DataDropped, count(values)),
        }
    }
}
