//! The stream as it was seen, and how far behind its tip each lease is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use kcl_core::lease::{Lease, LeaseTable};
use kcl_core::model::{Checkpoint, SequenceNumber, Shard, ShardId, SourceRecord, StreamIdentity};
use kcl_core::source::{SourceError, SourceErrorKind, StartFrom, StreamSource};
use serde::Serialize;
use tokio::time::timeout;

use crate::access::{Access, patiently};
use crate::error::{CliError, usage};
use crate::table::TableView;

/// How long to look for one record.
const LIMIT: Duration = Duration::from_secs(10);

/// How many answers without records to read past: the service gives some on its way to a record.
const ANSWERS: u32 = 20;

/// How many shards are looked at at once.
const AT_ONCE: usize = 8;

/// The stream and its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamView {
    /// Which stream it is.
    pub identity: StreamIdentity,
    /// Every shard it lists.
    pub shards: Vec<Shard>,
    /// Why it is this stream, if nobody named it.
    pub note: Option<String>,
}

impl StreamView {
    /// Arranges a listing.
    #[must_use]
    pub const fn new(identity: StreamIdentity, shards: Vec<Shard>) -> Self {
        Self { identity, shards, note: None }
    }
}

/// The stream that was named, or the one that the rows of our workers name.
pub(crate) fn named(access: &Access, view: &TableView) -> Option<String> {
    if let Some(name) = access.stream_name() {
        return Some(name.to_owned());
    }
    let mut streams = view.streams();
    (streams.len() == 1).then(|| streams.pop_first()).flatten()
}

/// Lists the stream's shards; nothing if it is not known which stream it is.
pub(crate) async fn observe(access: &Access, view: &TableView) -> Result<Option<StreamView>, CliError> {
    let Some(name) = named(access, view) else { return Ok(None) };
    let mut stream = list(access, &name).await?;
    if access.stream_name().is_none() {
        stream.note = Some(format!("the stream is the one the rows name: {name}"));
    }
    Ok(Some(stream))
}

/// Lists the shards of the stream, which must have been named.
pub(crate) async fn observe_named(access: &Access) -> Result<StreamView, CliError> {
    let name =
        access.stream_name().ok_or_else(|| usage("which stream?").with_hint("give --stream NAME_OR_ARN"))?;
    list(access, name).await
}

async fn list(access: &Access, name: &str) -> Result<StreamView, CliError> {
    let source = access.stream(name);
    let identity = patiently(|| source.identity()).await?;
    let shards = patiently(|| source.list_shards()).await?;
    Ok(StreamView::new(identity, shards))
}

/// How far processing of a shard is behind the tip of the stream, and how old its checkpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Position {
    /// How far behind the tip, in milliseconds, as the service says.
    pub lag_millis: Option<u64>,
    /// How long ago the record at the checkpoint arrived in the stream, in milliseconds.
    pub checkpoint_age_millis: Option<u64>,
    /// Whether the record at the checkpoint is beyond the stream's retention: what followed may be lost.
    pub trimmed: bool,
    /// Why something is not known.
    pub note: Option<String>,
}

impl Position {
    fn unknown(note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..Self::default() }
    }
}

/// Where a look at a lease begins; none if there is nothing to look at, and why.
pub(crate) fn place(lease: &Lease) -> Result<StartFrom, &'static str> {
    match (lease.checkpoint, lease.start_timestamp) {
        (Checkpoint::At(position), _) => Ok(StartFrom::AtSequence(position.sequence)),
        (Checkpoint::TrimHorizon, _) => Ok(StartFrom::TrimHorizon),
        (Checkpoint::Latest | Checkpoint::AtTimestamp, Some(time)) => Ok(StartFrom::AtTimestamp(time)),
        (Checkpoint::Latest, None) => Err("LATEST without a time: nothing was processed yet"),
        (Checkpoint::AtTimestamp, None) => Err("AT_TIMESTAMP: the time is in the settings of the workers"),
        (Checkpoint::ShardEnd, _) => Err("ended"),
    }
}

/// What the first record at a place, and how far behind the tip it is, say of a lease.
#[must_use]
pub fn judge(
    lease: &Lease,
    first: Option<&SourceRecord>,
    behind: Option<Duration>,
    now: SystemTime,
) -> Position {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let age = |record: &SourceRecord| Some(millis(now.duration_since(record.arrival?).unwrap_or_default()));
    let at: Option<SequenceNumber> = lease.checkpoint.position().map(|position| position.sequence);
    let mut position = Position { lag_millis: behind.map(millis), ..Position::default() };
    match (at, first) {
        (Some(at), Some(record)) if record.sequence_number == at => {
            position.checkpoint_age_millis = age(record)
        }
        (Some(at), Some(record)) if record.sequence_number > at => {
            position.trimmed = true;
            // The record that was read is still to be processed.
            position.lag_millis = age(record).max(position.lag_millis);
            position.note = Some("the checkpoint is beyond the retention of the stream".into());
        }
        (Some(_), _) => position.note = Some("the record at the checkpoint is not there any more".into()),
        (None, Some(record)) => position.lag_millis = age(record).max(position.lag_millis),
        (None, None) => {}
    }
    position
}

/// Looks at the record at the checkpoint of each lease. Costs one `GetShardIterator` and at least one `GetRecords` for
/// each shard, which count against the five a second that consumers share.
pub(crate) async fn positions(
    access: &Access,
    stream: &StreamView,
    leases: &LeaseTable,
    now: SystemTime,
) -> BTreeMap<ShardId, Position> {
    let source = access.stream(&stream.identity.arn);
    let listed: BTreeSet<&ShardId> = stream.shards.iter().map(|shard| &shard.id).collect();
    let looks = leases.values().filter(|lease| !lease.is_ended()).map(|lease| {
        let (source, listed) = (&source, &listed);
        async move {
            let position = match place(lease) {
                _ if !listed.contains(&lease.shard) => {
                    Position::unknown("the stream does not list the shard")
                }
                Err(why) => Position::unknown(why),
                Ok(from) => match timeout(LIMIT, first_record(source, &lease.shard, from)).await {
                    Ok(Ok((record, behind))) => judge(lease, record.as_ref(), behind, now),
                    Ok(Err(error)) if error.kind() == SourceErrorKind::PositionUnknown => {
                        Position::unknown("the shard does not know the checkpoint")
                    }
                    Ok(Err(error)) => Position::unknown(error.to_string()),
                    Err(_) => Position::unknown("no answer in 10 s: throttled, or unreachable"),
                },
            };
            (lease.shard.clone(), position)
        }
    });
    futures_util::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await
}

async fn first_record(
    source: &impl StreamSource,
    shard: &ShardId,
    from: StartFrom,
) -> Result<(Option<SourceRecord>, Option<Duration>), SourceError> {
    let mut reader = source.open(shard, from).await?;
    for _ in 0..ANSWERS {
        let mut batch = reader.next().await?;
        let is_last = batch.end.is_some() || batch.behind.is_some_and(|behind| behind.is_zero());
        if !batch.records.is_empty() {
            return Ok((Some(batch.records.swap_remove(0)), batch.behind));
        }
        if is_last {
            return Ok((None, batch.behind));
        }
    }
    Ok((None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, arrived_before: u64, now: SystemTime) -> SourceRecord {
        let arrival = now - Duration::from_millis(arrived_before);
        SourceRecord::new(sequence.into(), Some(arrival), None, Vec::new().into())
    }

    fn lease(checkpoint: Checkpoint) -> Lease {
        Lease::new("shardId-0".into(), checkpoint)
    }

    #[test]
    fn the_record_at_the_checkpoint_tells_its_age_and_the_service_the_lag() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = lease(Checkpoint::At(kcl_core::Position::new(7.into(), 2)));
        let behind = Some(Duration::from_millis(900));
        let position = judge(&at, Some(&record(7, 5_000, now)), behind, now);
        assert_eq!((position.lag_millis, position.checkpoint_age_millis), (Some(900), Some(5_000)));
        assert!(!position.trimmed);

        let position = judge(&at, Some(&record(9, 4_000, now)), behind, now);
        assert_eq!((position.lag_millis, position.checkpoint_age_millis), (Some(4_000), None));
        assert!(position.trimmed);

        assert!(judge(&at, None, Some(Duration::ZERO), now).note.is_some());
    }

    #[test]
    fn a_start_lags_as_much_as_its_first_record_is_old() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let start = lease(Checkpoint::TrimHorizon);
        assert_eq!(
            judge(&start, Some(&record(1, 5_000, now)), Some(Duration::ZERO), now).lag_millis,
            Some(5_000)
        );
        assert_eq!(judge(&start, None, Some(Duration::ZERO), now).lag_millis, Some(0));
    }

    #[test]
    fn a_sentinel_without_a_time_cannot_be_looked_at() {
        assert!(place(&lease(Checkpoint::Latest)).is_err());
        assert!(place(&lease(Checkpoint::AtTimestamp)).is_err());
        let mut latest = lease(Checkpoint::Latest);
        latest.start_timestamp = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(place(&latest), Ok(StartFrom::AtTimestamp(SystemTime::UNIX_EPOCH)));
    }
}
