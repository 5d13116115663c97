//! Everything the service knows, behind its one lock.

use std::collections::BTreeMap;

use crate::error::ApiError;

use super::bucket::Bucket;
use super::errors::{call_rate, constraint, identifier, invalid, stream_not_found};
use super::options::KinesisOptions;
use super::reshard::Change;
use super::sleepers::Sleepers;
use super::stream::{Stream, StreamMode, StreamStatus};

/// Names a stream by its name, its ARN, or both.
///
/// Made from text it is an ARN if it starts with `arn:` and a name otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamRef<'a> {
    name: Option<&'a str>,
    arn: Option<&'a str>,
}

impl<'a> StreamRef<'a> {
    /// Names a stream by what a request gives. If it gives both, they must mean the same stream.
    #[must_use]
    pub const fn new(name: Option<&'a str>, arn: Option<&'a str>) -> Self {
        Self { name, arn }
    }

    pub(crate) const fn name(&self) -> Option<&'a str> {
        self.name
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.name.is_none() && self.arn.is_none()
    }
}

impl<'a> From<&'a str> for StreamRef<'a> {
    fn from(text: &'a str) -> Self {
        if text.starts_with("arn:") { Self::new(None, Some(text)) } else { Self::new(Some(text), None) }
    }
}

impl<'a> From<&'a String> for StreamRef<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: KinesisOptions,
    /// The time of the operation that runs, in milliseconds since the Unix epoch.
    pub(crate) now: u64,
    /// The number of iterators issued.
    pub(crate) issued: u64,
    /// The number of subscriptions made.
    pub(crate) subscribed: u64,
    pub(crate) sleepers: Sleepers,
    next_id: u64,
    ids: BTreeMap<String, u64>,
    streams: BTreeMap<u64, Stream>,
    /// The last creation second used under the name of a deleted stream: a stream of the same name
    /// starts after it, so no sequence number is ever used twice.
    graves: BTreeMap<String, u64>,
    calls: BTreeMap<&'static str, Bucket>,
}

impl State {
    pub(crate) fn new(options: KinesisOptions) -> Self {
        Self {
            options,
            now: 0,
            issued: 0,
            subscribed: 0,
            sleepers: Sleepers::default(),
            next_id: 1,
            ids: BTreeMap::new(),
            streams: BTreeMap::new(),
            graves: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }

    /// The stream in whatever status it is, its due changes carried out.
    pub(crate) fn resolve(&mut self, stream: &StreamRef<'_>) -> Result<&mut Stream, ApiError> {
        let (name, account) = match (stream.name, stream.arn) {
            (None, None) => return Err(invalid("Either StreamName or StreamARN must be given.")),
            (Some(name), None) => {
                identifier(name, "streamName")?;
                (name, None)
            }
            (name, Some(arn)) => {
                let (account, named) = parse_arn(arn)?;
                if name.is_some_and(|name| name != named) {
                    return Err(invalid(format!(
                        "StreamName {} and StreamARN {arn} do not name the same stream.",
                        name.unwrap_or_default()
                    )));
                }
                (named, Some(account))
            }
        };
        let missing = stream_not_found(name, account.unwrap_or(&self.options.account));
        let Some(found) = self.ids.get(name).copied().and_then(|id| self.by_id(id)) else {
            return Err(missing);
        };
        if stream.arn.is_some_and(|arn| arn != found.arn) {
            return Err(missing);
        }
        Ok(found)
    }

    /// The stream if it takes reads and writes.
    pub(crate) fn live(&mut self, stream: &StreamRef<'_>) -> Result<&mut Stream, ApiError> {
        let found = self.resolve(stream)?;
        match found.status {
            StreamStatus::Active | StreamStatus::Updating => Ok(found),
            StreamStatus::Creating | StreamStatus::Deleting => {
                Err(stream_not_found(&found.name, &found.account))
            }
        }
    }

    /// The stream with this id, its due changes carried out.
    pub(crate) fn by_id(&mut self, id: u64) -> Option<&mut Stream> {
        self.settle(id);
        self.streams.get_mut(&id)
    }

    pub(crate) fn stream_named(&self, name: &str) -> Result<&Stream, ApiError> {
        let found = self.ids.get(name).and_then(|id| self.streams.get(id));
        found.ok_or_else(|| stream_not_found(name, &self.options.account))
    }

    /// The names of all streams, sorted, their due changes carried out.
    pub(crate) fn names(&mut self) -> Vec<String> {
        let ids: Vec<_> = self.ids.values().copied().collect();
        for id in ids {
            self.settle(id);
        }
        self.ids.keys().cloned().collect()
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// The open shards of all provisioned streams.
    pub(crate) fn open_shards(&self) -> u64 {
        let provisioned = self.streams().filter(|stream| stream.mode == StreamMode::Provisioned);
        provisioned.map(|stream| stream.open.len() as u64).sum()
    }

    /// A new id, and the creation second of the first shards of a stream of this name.
    pub(crate) fn next_stream(&mut self, name: &str) -> (u64, u64) {
        let id = self.next_id;
        self.next_id += 1;
        let second = self.now / 1_000;
        (id, self.graves.get(name).map_or(second, |grave| second.max(grave + 1)))
    }

    pub(crate) fn insert(&mut self, stream: Stream) {
        self.ids.insert(stream.name.clone(), stream.id);
        self.streams.insert(stream.id, stream);
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(stream) = self.streams.remove(&id) {
            let last = stream.shards.values().map(|shard| shard.epoch).max().unwrap_or_default();
            self.ids.remove(&stream.name);
            self.graves.insert(stream.name, last);
        }
    }

    /// Counts a call against a rate of the account.
    pub(crate) fn allow(&mut self, operation: &'static str, rate: Option<u32>) -> Result<(), ApiError> {
        let now = self.now;
        let fits = rate.is_none() || self.calls.entry(operation).or_default().take(rate, 1, now);
        if fits { Ok(()) } else { Err(call_rate(operation)) }
    }

    /// Counts a call that changes a stream.
    pub(crate) fn allow_change(&mut self, operation: &'static str) -> Result<(), ApiError> {
        self.allow(operation, self.options.limits.changes)
    }

    /// Carries out what is due for a stream, as of when it was due.
    fn settle(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.consumers.settle(self.now);
        let Some((due, change)) = stream.pending.filter(|(due, _)| *due <= self.now) else { return };
        stream.pending = None;
        if let Change::Delete = change {
            self.remove(id);
        } else {
            stream.apply(change, due);
            stream.status = StreamStatus::Active;
        }
    }
}

/// Reads account and stream name from an ARN.
fn parse_arn(arn: &str) -> Result<(&str, &str), ApiError> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (scheme, partition, service, region, account, resource) =
        (next(), next(), next(), next(), next(), next());
    let name = resource.strip_prefix("stream/").unwrap_or_default();
    let well_formed = scheme == "arn"
        && partition.starts_with("aws")
        && service == "kinesis"
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty();
    if !well_formed {
        let rule = r"satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:.*stream/\S+";
        return Err(constraint(arn, "streamARN", rule));
    }
    Ok((account, name))
}
