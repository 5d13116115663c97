//! How a model behaves: delays, lifetimes, limits.

use std::time::Duration;

/// How the service behaves.
///
/// Start from [`Default`] and change fields; [`Kinesis::configure`](super::Kinesis::configure)
/// changes them while the service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KinesisOptions {
    /// The region in ARNs. Default `us-east-1`.
    pub region: String,
    /// The account in ARNs, twelve digits. Default `000000000000`.
    pub account: String,
    /// How long a new stream stays `CREATING`. Default zero: it is `ACTIVE` at once.
    pub create_delay: Duration,
    /// How long a split, merge or change of the shard count takes; the stream is `UPDATING` until
    /// then and the old shards stay open. Default zero.
    pub reshard_delay: Duration,
    /// How long a deleted stream stays `DELETING`. Default zero.
    pub delete_delay: Duration,
    /// How long a new consumer stays `CREATING`. Default zero: it is `ACTIVE` at once.
    pub consumer_create_delay: Duration,
    /// How long a deregistered consumer stays `DELETING`. Default zero.
    pub consumer_delete_delay: Duration,
    /// How subscriptions behave.
    pub subscriptions: SubscriptionOptions,
    /// The retention of new streams. Default 24 hours.
    pub retention: Duration,
    /// How long a shard iterator can be used. Default 5 minutes, as the service.
    pub iterator_lifetime: Duration,
    /// How long a paging token can be used. Default 300 seconds, as the service.
    pub token_lifetime: Duration,
    /// The rates that are enforced. Default none.
    pub limits: Limits,
}

impl Default for KinesisOptions {
    fn default() -> Self {
        Self {
            region: "us-east-1".into(),
            account: "000000000000".into(),
            create_delay: Duration::ZERO,
            reshard_delay: Duration::ZERO,
            delete_delay: Duration::ZERO,
            consumer_create_delay: Duration::ZERO,
            consumer_delete_delay: Duration::ZERO,
            subscriptions: SubscriptionOptions::default(),
            retention: Duration::from_hours(24),
            iterator_lifetime: Duration::from_mins(5),
            token_lifetime: Duration::from_secs(300),
            limits: Limits::default(),
        }
    }
}

/// How the subscriptions of `SubscribeToShard` behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// How long a subscription lasts before it ends without an error. Default 5 minutes, as the
    /// service. It is fixed when the subscription is made.
    pub session: Duration,
    /// For how long after a successful call for a consumer and a shard another one is refused.
    /// Later the call takes the subscription over. Default 5 seconds, as the service.
    pub exclusive: Duration,
    /// After how long without an event an empty one is sent, which tells where to go on. Default 5
    /// seconds, about the pace of the service.
    pub heartbeat: Duration,
    /// How much later than its arrival a record is pushed. Default zero; for the service AWS names
    /// about 70 ms from the put to the consumer.
    pub propagation_delay: Duration,
    /// The most records of one event, at least 1. Default 10,000.
    pub event_records: usize,
    /// The most bytes (data and partition keys) of one event; a larger record comes alone. Default
    /// 1 MiB. The service's own bound is not documented.
    pub event_bytes: usize,
    /// Leaves the child shards out of the event that ends a shard. Default false.
    pub hide_children: bool,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            session: Duration::from_mins(5),
            exclusive: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
            propagation_delay: Duration::ZERO,
            event_records: 10_000,
            event_bytes: 1 << 20,
            hide_children: false,
        }
    }
}

/// The rates a service enforces; `None` means without limit, which is the default for all.
///
/// Each rate is a token bucket that holds one second's worth and starts full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// `GetRecords` calls per second and shard.
    pub reads: Option<u32>,
    /// Bytes per second and shard that `GetRecords` returns. An answer is never cut for it: one
    /// that overdraws the allowance blocks the shard until the allowance is full again.
    pub read_bytes: Option<u32>,
    /// `GetShardIterator` calls per second and shard.
    pub iterators: Option<u32>,
    /// Records written per second and shard.
    pub write_records: Option<u32>,
    /// Bytes (data and partition keys) written per second and shard. A record larger than one
    /// second's worth passes when the allowance is full.
    pub write_bytes: Option<u32>,
    /// `ListShards` calls per second and stream.
    pub list_shards: Option<u32>,
    /// `DescribeStream` calls per second and account.
    pub describe_stream: Option<u32>,
    /// `DescribeStreamSummary` calls per second and account.
    pub describe_stream_summary: Option<u32>,
    /// `ListStreams` calls per second and account.
    pub list_streams: Option<u32>,
    /// `SubscribeToShard` calls per second, consumer and shard, refused ones included.
    pub subscribe: Option<u32>,
    /// Bytes per second, consumer and shard that a subscription pushes. An event is never cut for
    /// it: one that overdraws the allowance holds the next back until the allowance is full again.
    pub subscription_bytes: Option<u32>,
    /// `DescribeStreamConsumer` calls per second and stream.
    pub describe_consumer: Option<u32>,
    /// `ListStreamConsumers` calls per second and stream.
    pub list_consumers: Option<u32>,
    /// Registered consumers per stream.
    pub consumers: Option<u32>,
    /// Consumers per stream that are `CREATING`.
    pub creating_consumers: Option<u32>,
    /// Calls per second and account, for each operation that changes a stream or a consumer.
    pub changes: Option<u32>,
    /// Open shards per account, over all provisioned streams.
    pub open_shards: Option<u32>,
}

impl Limits {
    /// The limits AWS documents for an account without raised quotas.
    ///
    /// Sources: "Quotas and limits" in the Kinesis Data Streams developer guide, and the API reference
    /// of `SubscribeToShard`, `RegisterStreamConsumer`, `DescribeStreamConsumer` and
    /// `ListStreamConsumers`.
    #[must_use]
    pub const fn aws() -> Self {
        Self {
            reads: Some(5),
            read_bytes: Some(2 << 20),
            iterators: Some(5),
            write_records: Some(1_000),
            write_bytes: Some(1 << 20),
            list_shards: Some(1_000),
            describe_stream: Some(10),
            describe_stream_summary: Some(20),
            list_streams: Some(5),
            subscribe: Some(1),
            subscription_bytes: Some(2 << 20),
            describe_consumer: Some(20),
            list_consumers: Some(5),
            consumers: Some(20),
            creating_consumers: Some(5),
            changes: Some(5),
            open_shards: Some(20_000),
        }
    }
}
