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
            retention: Duration::from_hours(24),
            iterator_lifetime: Duration::from_mins(5),
            token_lifetime: Duration::from_secs(300),
            limits: Limits::default(),
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
    /// Calls per second and account, for each operation that changes a stream.
    pub changes: Option<u32>,
    /// Open shards per account, over all provisioned streams.
    pub open_shards: Option<u32>,
}

impl Limits {
    /// The limits AWS documents for an account without raised quotas.
    ///
    /// Source: "Quotas and limits" in the Kinesis Data Streams developer guide.
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
            changes: Some(5),
            open_shards: Some(20_000),
        }
    }
}
