//! Making, deleting and describing streams.

use std::collections::BTreeMap;

use crate::error::ApiError;

use super::bucket::Bucket;
use super::consumer::Consumers;
use super::errors::{constraint, identifier, in_use, invalid, within};
use super::hash_key::HashKeyRange;
use super::reshard::Change;
use super::settings::check_tags;
use super::shard::{ShardDescription, shard_index};
use super::state::State;
use super::stream::{Stream, StreamMode, StreamStatus, StreamSummary};
use super::token::{self, Kind};
use super::{Kinesis, StreamRef, millis_of};

/// The shards of an on-demand stream that names no count, as the service makes them.
const ON_DEMAND_SHARDS: u32 = 4;
/// The most shards or streams one description or list carries.
const PAGE: usize = 100;
/// The largest record by default, and the range it can be set to, in KiB.
const RECORD_KIB: u32 = 1_024;
pub(crate) const RECORD_KIB_RANGE: (u32, u32) = (1_024, 10_240);

/// A stream to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewStream {
    /// The name: 1 to 128 characters of `[a-zA-Z0-9_.-]`.
    pub name: String,
    /// Who decides on the number of shards.
    pub mode: StreamMode,
    /// The number of shards; must be given for a provisioned stream, 4 otherwise.
    pub shards: Option<u32>,
    /// The largest record (data and partition key) in KiB, 1,024 to 10,240. Default 1,024.
    pub max_record_kib: u32,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

impl NewStream {
    /// A stream with so many shards.
    #[must_use]
    pub fn provisioned(name: impl Into<String>, shards: u32) -> Self {
        Self {
            name: name.into(),
            mode: StreamMode::Provisioned,
            shards: Some(shards),
            max_record_kib: RECORD_KIB,
            tags: BTreeMap::new(),
        }
    }

    /// A stream whose shards the service decides on: 4 at first.
    #[must_use]
    pub fn on_demand(name: impl Into<String>) -> Self {
        Self { mode: StreamMode::OnDemand, shards: None, ..Self::provisioned(name, 1) }
    }
}

/// A stream with a page of its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDescription {
    /// The stream.
    pub summary: StreamSummary,
    /// The shards, in the order of their ids.
    pub shards: Vec<ShardDescription>,
    /// Whether more shards follow.
    pub has_more_shards: bool,
}

/// A page of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPage {
    /// The streams, in the order of their names.
    pub streams: Vec<StreamSummary>,
    /// The token for the next page, if there is one.
    pub next_token: Option<String>,
}

/// What the account has and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountLimits {
    /// The open shards of provisioned streams.
    pub open_shards: u64,
    /// The most of them.
    pub shard_limit: u32,
    /// The on-demand streams.
    pub on_demand_streams: u64,
    /// The most of them; told, not enforced.
    pub on_demand_stream_limit: u32,
}

impl Kinesis {
    /// Makes a provisioned stream with so many shards.
    ///
    /// # Errors
    /// As [`create_stream_with`](Self::create_stream_with).
    pub fn create_stream(&self, name: &str, shards: u32) -> Result<(), ApiError> {
        self.create_stream_with(NewStream::provisioned(name, shards))
    }

    /// Makes a stream. It is `ACTIVE` at once unless a delay is set.
    ///
    /// # Errors
    /// `ResourceInUseException` if the name is taken, `ValidationException` or
    /// `InvalidArgumentException` for a bad value, `LimitExceededException`.
    pub fn create_stream_with(&self, stream: NewStream) -> Result<(), ApiError> {
        identifier(&stream.name, "streamName")?;
        within(stream.max_record_kib, RECORD_KIB_RANGE, "maxRecordSizeInKiB")?;
        check_tags(&stream.tags, 0)?;
        let shards = match (stream.mode, stream.shards) {
            (StreamMode::OnDemand, shards) => shards.unwrap_or(ON_DEMAND_SHARDS),
            (StreamMode::Provisioned, Some(shards)) => shards,
            (StreamMode::Provisioned, None) => {
                return Err(invalid("ShardCount must be given for a stream in provisioned mode."));
            }
        };
        within(shards, (1, 100_000), "shardCount")?;
        self.altering(|state| {
            state.allow_change("CreateStream")?;
            if state.names().contains(&stream.name) {
                return Err(in_use(format!(
                    "Stream {} under account {} already exists.",
                    stream.name, state.options.account
                )));
            }
            let made = make(state, stream, shards);
            if made.mode == StreamMode::Provisioned {
                state.check_open_shards(&made, shards.into())?;
            }
            state.insert(made);
            Ok(())
        })
    }

    /// Deletes a stream with all its records.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while the stream is being made, or if
    /// consumers are registered with it.
    pub fn delete_stream<'a>(&self, stream: impl Into<StreamRef<'a>>) -> Result<(), ApiError> {
        self.delete(&stream.into(), false)
    }

    /// Deletes a stream with all its records and its registered consumers. Their subscriptions end
    /// at once, with `ResourceNotFoundException`.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while the stream is being made.
    pub fn delete_stream_and_consumers<'a>(&self, stream: impl Into<StreamRef<'a>>) -> Result<(), ApiError> {
        self.delete(&stream.into(), true)
    }

    pub(crate) fn delete(&self, stream: &StreamRef<'_>, with_consumers: bool) -> Result<(), ApiError> {
        self.altering(|state| {
            state.allow_change("DeleteStream")?;
            let (now, delay) = (state.now, millis_of(state.options.delete_delay));
            let found = state.resolve(stream)?;
            match found.status {
                StreamStatus::Creating => return Err(super::reshard::not_active(found)),
                StreamStatus::Deleting => return Ok(()),
                StreamStatus::Active | StreamStatus::Updating => {}
            }
            if !with_consumers && !found.consumers.registered.is_empty() {
                return Err(in_use(format!(
                    "Stream {} under account {} has {} registered consumers; set EnforceConsumerDeletion to delete \
                     them too.",
                    found.name,
                    found.account,
                    found.consumers.registered.len()
                )));
            }
            if delay == 0 {
                let id = found.id;
                state.remove(id);
            } else {
                found.status = StreamStatus::Deleting;
                found.pending = Some((now.saturating_add(delay), Change::Delete));
            }
            Ok(())
        })
    }

    /// Describes a stream without its shards.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `LimitExceededException`.
    pub fn describe_stream_summary<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
    ) -> Result<StreamSummary, ApiError> {
        let stream = stream.into();
        self.with(|state| {
            state.allow("DescribeStreamSummary", state.options.limits.describe_stream_summary)?;
            Ok(state.resolve(&stream)?.summary())
        })
    }

    /// Describes a stream and up to `limit` (default and at most 100) of its shards.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `LimitExceededException`, `ValidationException`.
    pub fn describe_stream<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        limit: Option<u32>,
        exclusive_start_shard_id: Option<&str>,
    ) -> Result<StreamDescription, ApiError> {
        let stream = stream.into();
        let limit = page_size(limit, "limit")?;
        let after = exclusive_start_shard_id.map(parse_shard_id).transpose()?;
        self.with(|state| {
            state.allow("DescribeStream", state.options.limits.describe_stream)?;
            let now = state.now;
            let found = state.resolve(&stream)?;
            found.expire_shards(now);
            let summary = found.summary();
            // The service lists no shards before the stream can be used.
            let visible = summary.status != StreamStatus::Creating;
            let all = found.shards.range(after.map_or(0, |after| after.saturating_add(1))..);
            let mut shards: Vec<_> = all
                .filter(|_| visible)
                .take(limit + 1)
                .map(|(_, shard)| found.describe_shard(shard))
                .collect();
            let has_more_shards = shards.len() > limit;
            shards.truncate(limit);
            Ok(StreamDescription { summary, shards, has_more_shards })
        })
    }

    /// Lists up to `limit` (default and at most 100) streams after a name or from a token.
    ///
    /// # Errors
    /// `InvalidArgumentException` (junk token), `ExpiredNextTokenException`,
    /// `LimitExceededException`, `ValidationException`.
    pub fn list_streams(
        &self,
        limit: Option<u32>,
        exclusive_start_name: Option<&str>,
        next_token: Option<&str>,
    ) -> Result<StreamPage, ApiError> {
        let limit = page_size(limit, "limit")?;
        let token = next_token.map(|text| {
            token::open::<1>(Kind::Streams, text).ok_or_else(|| invalid("NextToken is not valid."))
        });
        let token = token.transpose()?;
        self.with(|state| {
            state.allow("ListStreams", state.options.limits.list_streams)?;
            if let Some(([issued], _)) = token {
                state.check_token_age(issued)?;
            }
            let after = token.as_ref().map(|(_, name)| name.as_str()).or(exclusive_start_name);
            let names = state.names();
            let mut rest = names.iter().filter(|name| after.is_none_or(|after| name.as_str() > after));
            let page: Vec<_> = rest.by_ref().take(limit).collect();
            let streams = page.iter().map(|name| Ok(state.stream_named(name)?.summary()));
            let streams = streams.collect::<Result<_, _>>()?;
            let more = rest.next().is_some();
            let next_token =
                page.last().filter(|_| more).map(|last| token::seal(Kind::Streams, &[state.now], last));
            Ok(StreamPage { streams, next_token })
        })
    }

    /// Tells how many shards and on-demand streams the account has and may have.
    #[must_use]
    pub fn describe_limits(&self) -> AccountLimits {
        self.with(|state| {
            state.names();
            let on_demand = state.streams().filter(|stream| stream.mode == StreamMode::OnDemand);
            AccountLimits {
                open_shards: state.open_shards(),
                shard_limit: state.options.limits.open_shards.unwrap_or(i32::MAX as u32),
                on_demand_streams: on_demand.count() as u64,
                on_demand_stream_limit: 50,
            }
        })
    }
}

fn make(state: &mut State, stream: NewStream, shards: u32) -> Stream {
    let (id, epoch) = state.next_stream(&stream.name);
    let (now, options) = (state.now, &state.options);
    let delay = millis_of(options.create_delay);
    let mut made = Stream {
        id,
        arn: format!("arn:aws:kinesis:{}:{}:stream/{}", options.region, options.account, stream.name),
        account: options.account.clone(),
        name: stream.name,
        mode: stream.mode,
        status: if delay == 0 { StreamStatus::Active } else { StreamStatus::Creating },
        created: now,
        retention: millis_of(options.retention),
        max_record_kib: stream.max_record_kib,
        tags: stream.tags,
        pending: (delay > 0).then(|| (now.saturating_add(delay), Change::Activate)),
        oldest_iterator: 0,
        list_shards: Bucket::default(),
        shards: BTreeMap::new(),
        open: BTreeMap::new(),
        next_shard: 0,
        consumers: Consumers::default(),
        expired_total: 0,
    };
    for range in HashKeyRange::uniform(shards) {
        made.add_shard(range, Vec::new(), epoch, now);
    }
    made
}

fn page_size(limit: Option<u32>, member: &str) -> Result<usize, ApiError> {
    let limit = limit.map(|limit| within(limit, (1, 10_000), member)).transpose()?;
    Ok(limit.map_or(PAGE, |limit| (limit as usize).min(PAGE)))
}

/// Reads a shard id that need not exist.
pub(crate) fn parse_shard_id(id: &str) -> Result<u32, ApiError> {
    shard_index(id)
        .ok_or_else(|| constraint(id, "shardId", "satisfy regular expression pattern: shardId-[0-9]{12}"))
}
