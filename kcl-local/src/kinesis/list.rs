//! Listing shards.

use std::time::SystemTime;

use crate::error::ApiError;

use super::control::parse_shard_id;
use super::errors::{call_rate, invalid, not_found, within};
use super::reshard::not_active;
use super::shard::{Shard, ShardDescription};
use super::state::State;
use super::stream::{Stream, StreamStatus};
use super::token::{self, Kind};
use super::{Kinesis, StreamRef, millis, millis_of};

/// The shards of a page by default and at most.
const PAGE: u32 = 1_000;

/// Which shards to list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardFilter {
    /// Those whose ids follow this one.
    AfterShardId(String),
    /// Those that were open at the trim horizon: the oldest ones kept.
    AtTrimHorizon,
    /// All that retention keeps.
    FromTrimHorizon,
    /// The open ones.
    AtLatest,
    /// Those that were open at this time; at the trim horizon if the time is before it. A shard
    /// that closed and its children that opened at that very millisecond all count as open.
    AtTimestamp(SystemTime),
    /// The open ones and those that closed at this time or later.
    FromTimestamp(SystemTime),
}

/// A call of `ListShards`. [`Default`] and setting fields makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListShards<'a> {
    /// The stream; left out when `next_token` is given.
    pub stream: StreamRef<'a>,
    /// The token of the page before. It stands for the stream and the filter too.
    pub next_token: Option<&'a str>,
    /// Lists only shards whose ids follow this one.
    pub exclusive_start_shard_id: Option<&'a str>,
    /// The most shards to return, 1 to 10,000; values above 1,000, the default, mean 1,000.
    pub max_results: Option<u32>,
    /// Which shards to list; default all that retention keeps.
    pub filter: Option<ShardFilter>,
    /// Tells streams of the same name apart by when they were created.
    pub stream_creation: Option<SystemTime>,
}

/// A page of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardPage {
    /// The shards, in the order of their ids.
    pub shards: Vec<ShardDescription>,
    /// The token for the next page, if there is one.
    pub next_token: Option<String>,
}

/// A filter as the tokens carry it, with times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    All,
    After(u32),
    Oldest,
    Open,
    OpenAt(u64),
    ClosedSince(u64),
}

impl Rule {
    fn new(filter: Option<&ShardFilter>) -> Result<Self, ApiError> {
        Ok(match filter {
            None | Some(ShardFilter::FromTrimHorizon) => Self::All,
            Some(ShardFilter::AfterShardId(id)) => Self::After(parse_shard_id(id)?),
            Some(ShardFilter::AtTrimHorizon) => Self::Oldest,
            Some(ShardFilter::AtLatest) => Self::Open,
            Some(ShardFilter::AtTimestamp(time)) => Self::OpenAt(millis(*time)),
            Some(ShardFilter::FromTimestamp(time)) => Self::ClosedSince(millis(*time)),
        })
    }

    fn to_fields(self) -> [u64; 2] {
        match self {
            Self::All => [0, 0],
            Self::After(shard) => [1, shard.into()],
            Self::Oldest => [2, 0],
            Self::Open => [3, 0],
            Self::OpenAt(at) => [4, at],
            Self::ClosedSince(at) => [5, at],
        }
    }

    fn from_fields(fields: [u64; 2]) -> Option<Self> {
        Some(match fields {
            [0, _] => Self::All,
            [1, shard] => Self::After(u32::try_from(shard).ok()?),
            [2, _] => Self::Oldest,
            [3, _] => Self::Open,
            [4, at] => Self::OpenAt(at),
            [5, at] => Self::ClosedSince(at),
            _ => return None,
        })
    }

    /// Says whether the rule takes `shard` of `stream`, all expired shards being gone.
    fn takes(self, stream: &Stream, shard: &Shard, now: u64) -> bool {
        // A shard opens when its parents close, so it was open at the trim horizon exactly if the
        // parents have run out of retention. Unlike times, this knows no ties.
        let oldest = || shard.parents.iter().all(|parent| !stream.shards.contains_key(parent));
        match self {
            Self::All => true,
            Self::After(other) => shard.index > other,
            Self::Oldest => oldest(),
            Self::Open => shard.is_open(),
            Self::OpenAt(at) if at < now.saturating_sub(stream.retention).max(stream.created) => oldest(),
            Self::OpenAt(at) => shard.created <= at && shard.closed_at().is_none_or(|closed| closed >= at),
            Self::ClosedSince(at) => shard.closed_at().is_none_or(|closed| closed >= at),
        }
    }
}

/// What a paging token says.
struct Bookmark {
    stream: u64,
    after: u32,
    issued: u64,
    rule: Rule,
}

impl Bookmark {
    fn seal(&self) -> String {
        let [rule, argument] = self.rule.to_fields();
        token::seal(Kind::Shards, &[self.stream, self.after.into(), self.issued, rule, argument], "")
    }

    fn open(text: &str) -> Option<Self> {
        let ([stream, after, issued, rule, argument], _) = token::open(Kind::Shards, text)?;
        let rule = Rule::from_fields([rule, argument])?;
        Some(Self { stream, after: u32::try_from(after).ok()?, issued, rule })
    }
}

impl Kinesis {
    /// Lists a page of shards.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while the stream is being made or
    /// deleted; `InvalidArgumentException` (a junk token, or one together with what it stands for);
    /// `ExpiredNextTokenException`; `LimitExceededException`; `ValidationException`.
    pub fn list_shards(&self, call: &ListShards<'_>) -> Result<ShardPage, ApiError> {
        let most = within(call.max_results.unwrap_or(PAGE), (1, 10_000), "maxResults")?.min(PAGE);
        let bookmark = call.next_token.map(|text| checked_bookmark(call, text)).transpose()?;
        let start = call.exclusive_start_shard_id.map(parse_shard_id).transpose()?;
        let rule = Rule::new(call.filter.as_ref())?;
        self.with(|state| {
            let stream = match &bookmark {
                Some(bookmark) => {
                    state.check_token_age(bookmark.issued)?;
                    if !call.stream.is_empty() && state.resolve(&call.stream)?.id != bookmark.stream {
                        return Err(invalid("NextToken and StreamARN do not name the same stream."));
                    }
                    bookmark.stream
                }
                None => state.resolve(&call.stream)?.id,
            };
            let (now, rate) = (state.now, state.options.limits.list_shards);
            let stream = state
                .by_id(stream)
                .ok_or_else(|| not_found("The stream of the NextToken does not exist."))?;
            if !stream.list_shards.take(rate, 1, now) {
                return Err(call_rate("ListShards"));
            }
            if matches!(stream.status, StreamStatus::Creating | StreamStatus::Deleting) {
                return Err(not_active(stream));
            }
            if call.stream_creation.is_some_and(|created| millis(created) != stream.created) {
                return Err(not_found(format!(
                    "Stream {} under account {} was not created at the given time.",
                    stream.name, stream.account
                )));
            }
            stream.expire_shards(now);
            let (after, rule) = match bookmark {
                Some(bookmark) => (Some(bookmark.after), bookmark.rule),
                None => (start, rule),
            };
            let all = stream.shards.range(after.map_or(0, |after| after.saturating_add(1))..);
            let mut taken = all.map(|(_, shard)| shard).filter(|shard| rule.takes(stream, shard, now));
            let page: Vec<_> = taken.by_ref().take(most as usize).collect();
            let more = taken.next().is_some();
            let next_token = page
                .last()
                .filter(|_| more)
                .map(|last| Bookmark { stream: stream.id, after: last.index, issued: now, rule }.seal());
            Ok(ShardPage {
                shards: page.into_iter().map(|shard| stream.describe_shard(shard)).collect(),
                next_token,
            })
        })
    }

    /// Lists all shards that `filter` takes, in the order of their ids.
    ///
    /// # Errors
    /// As [`list_shards`](Self::list_shards).
    pub fn shards<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        filter: ShardFilter,
    ) -> Result<Vec<ShardDescription>, ApiError> {
        let first = ListShards { stream: stream.into(), filter: Some(filter), ..ListShards::default() };
        let mut page = self.list_shards(&first)?;
        let mut shards = page.shards;
        while let Some(token) = page.next_token {
            page = self.list_shards(&ListShards { next_token: Some(&token), ..ListShards::default() })?;
            shards.append(&mut page.shards);
        }
        Ok(shards)
    }
}

impl State {
    /// Checks that a paging token issued then can still be used.
    pub(crate) fn check_token_age(&self, issued: u64) -> Result<(), ApiError> {
        let lifetime = millis_of(self.options.token_lifetime);
        if issued.saturating_add(lifetime) >= self.now {
            return Ok(());
        }
        let message = format!("NextToken has expired: it was issued more than {lifetime} milliseconds ago.");
        Err(ApiError::client("ExpiredNextTokenException", message))
    }
}

fn checked_bookmark(call: &ListShards<'_>, text: &str) -> Result<Bookmark, ApiError> {
    let excluded = [
        ("StreamName", call.stream.name().is_some()),
        ("StreamCreationTimestamp", call.stream_creation.is_some()),
        ("ExclusiveStartShardId", call.exclusive_start_shard_id.is_some()),
    ];
    if let Some((member, _)) = excluded.iter().find(|(_, given)| *given) {
        return Err(invalid(format!("NextToken and {member} cannot be provided together.")));
    }
    Bookmark::open(text).ok_or_else(|| invalid("NextToken is not valid."))
}
