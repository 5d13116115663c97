//! Lease rows as items, in the attributes of the Java KCL.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use kcl_core::lease::{AttemptToken, ForeignRow, Lease, PendingCheckpoint, UnreadableRow};
use kcl_core::model::{Checkpoint, HashKeyRange, Position, ShardId, StreamIdentity};

/// The names of the attributes.
pub(crate) mod name {
    pub(crate) const KEY: &str = "leaseKey";
    pub(crate) const COUNTER: &str = "leaseCounter";
    pub(crate) const OWNER: &str = "leaseOwner";
    pub(crate) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
    pub(crate) const CHECKPOINT: &str = "checkpoint";
    pub(crate) const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
    pub(crate) const PENDING: &str = "pendingCheckpoint";
    pub(crate) const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
    pub(crate) const PENDING_STATE: &str = "pendingCheckpointState";
    pub(crate) const PARENTS: &str = "parentShardId";
    pub(crate) const CHILDREN: &str = "childShardIds";
    pub(crate) const FIRST_HASH_KEY: &str = "startingHashKey";
    pub(crate) const LAST_HASH_KEY: &str = "endingHashKey";
    pub(crate) const CHECKPOINT_OWNER: &str = "checkpointOwner";
    pub(crate) const ENTITY_TYPE: &str = "entityType";
    // Ours. Java workers leave them alone: after creation they write named attributes only.
    pub(crate) const TOKEN: &str = "attemptToken";
    pub(crate) const REQUEST: &str = "handOverRequest";
    pub(crate) const START_TIMESTAMP: &str = "startTimestampMillis";
    pub(crate) const STREAM: &str = "streamIdentity";
}

/// The `entityType` of a lease. KCL 3.5 writes it when it creates a lease, and so do we; older ones ignore it.
/// An item without it is a lease.
pub(crate) const LEASE: &str = "LEASE";

/// The largest count that Java, whose numbers have a sign, can hold. No row was counted up beyond it.
pub(crate) const LARGEST_COUNT: u64 = i64::MAX as u64;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// What an item is.
#[derive(Debug)]
pub(crate) enum Row {
    Lease(Box<Lease>),
    Foreign(ForeignRow),
    Unreadable(UnreadableRow),
}

/// What is wrong with an item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("attribute is missing: name={0}")]
    Missing(&'static str),
    #[error("attribute is of another type than expected: name={0}")]
    Type(&'static str),
    #[error("attribute cannot be understood: name={name} value={value:?}")]
    Value { name: &'static str, value: String },
}

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn bytes(value: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(value.as_ref()))
}

/// A set of texts; DynamoDB has no empty sets.
pub(crate) fn set(shards: &BTreeSet<ShardId>) -> Option<AttributeValue> {
    let texts: Vec<_> = shards.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then_some(AttributeValue::Ss(texts))
}

/// The two hash-key attributes.
pub(crate) fn hash_keys(range: HashKeyRange) -> [(&'static str, AttributeValue); 2] {
    [
        (name::FIRST_HASH_KEY, text(range.start().to_string())),
        (name::LAST_HASH_KEY, text(range.end().to_string())),
    ]
}

fn read_hash_keys(first: &str, last: &str) -> Result<HashKeyRange, Problem> {
    HashKeyRange::parse(first, last).map_err(|_| Problem::Value {
        name: name::FIRST_HASH_KEY,
        value: format!("{}-{}", shown(first), shown(last)),
    })
}

/// The two checkpoint attributes; both are always written.
pub(crate) fn checkpoint(checkpoint: Checkpoint) -> [(&'static str, AttributeValue); 2] {
    [
        (name::CHECKPOINT, text(checkpoint.sequence_text())),
        (name::CHECKPOINT_SUB, number(checkpoint.sub_sequence())),
    ]
}

/// The milliseconds since 1970. Times before that and fractions of milliseconds are dropped.
pub(crate) fn millis(at: SystemTime) -> AttributeValue {
    number(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis())
}

/// The key of an item.
pub(crate) fn key(shard: &str) -> AttributeValue {
    text(shard)
}

/// The whole item of a new lease.
///
/// Times before 1970 and fractions of milliseconds of the start timestamp are dropped.
pub(crate) fn to_item(lease: &Lease) -> Item {
    let mut item = Item::new();
    let mut put = |name: &str, value: AttributeValue| {
        item.insert(name.to_owned(), value);
    };
    put(name::KEY, text(lease.shard.as_str()));
    put(name::ENTITY_TYPE, text(LEASE));
    put(name::COUNTER, number(lease.counter));
    put(name::OWNER_SWITCHES, number(lease.owner_switches));
    for (name, value) in checkpoint(lease.checkpoint) {
        put(name, value);
    }
    for (name, worker) in [
        (name::OWNER, &lease.owner),
        (name::REQUEST, &lease.requested_by),
        (name::CHECKPOINT_OWNER, &lease.checkpoint_owner),
    ] {
        if let Some(worker) = worker {
            put(name, text(worker.as_str()));
        }
    }
    if let Some(pending) = &lease.pending {
        put(name::PENDING, text(pending.position.sequence.to_string()));
        put(name::PENDING_SUB, number(pending.position.sub_sequence));
        if let Some(state) = &pending.state {
            put(name::PENDING_STATE, bytes(state));
        }
    }
    for (name, shards) in [(name::PARENTS, &lease.parents), (name::CHILDREN, &lease.children)] {
        if let Some(shards) = set(shards) {
            put(name, shards);
        }
    }
    for (name, value) in lease.hash_key_range.map(hash_keys).into_iter().flatten() {
        put(name, value);
    }
    if let Some(at) = lease.start_timestamp {
        put(name::START_TIMESTAMP, millis(at));
    }
    if let Some(stream) = &lease.stream {
        put(name::STREAM, text(stream.to_string()));
    }
    if let Some(token) = lease.token {
        put(name::TOKEN, text(token.to_string()));
    }
    item
}

/// Reads an item of any kind.
pub(crate) fn read(item: &Item) -> Row {
    let key = match item.get(name::KEY) {
        Some(AttributeValue::S(key)) => key.clone(),
        _ => String::new(),
    };
    match item.get(name::ENTITY_TYPE) {
        Some(AttributeValue::S(entity_type)) if entity_type != LEASE => {
            return Row::Foreign(ForeignRow { key, entity_type: entity_type.clone() });
        }
        Some(other) if !other.is_s() => {
            let reason = Problem::Type(name::ENTITY_TYPE).to_string();
            return Row::Unreadable(UnreadableRow { key, reason });
        }
        _ => {}
    }
    match read_lease(&Reader(item)) {
        Ok(lease) => Row::Lease(Box::new(lease)),
        Err(problem) => Row::Unreadable(UnreadableRow { key, reason: problem.to_string() }),
    }
}

/// Reads a lease as Java's reader does, but for two attributes: a range of one hash key is one, and half a
/// range is none, because the rest of the row is good.
fn read_lease(item: &Reader<'_>) -> Result<Lease, Problem> {
    let key = item.text(name::KEY)?.ok_or(Problem::Missing(name::KEY))?;
    let sequence = item.text(name::CHECKPOINT)?.ok_or(Problem::Missing(name::CHECKPOINT))?;
    let sub_sequence = item.number(name::CHECKPOINT_SUB)?.unwrap_or_default();
    let checkpoint = Checkpoint::from_parts(sequence, sub_sequence)
        .map_err(|_| Problem::Value { name: name::CHECKPOINT, value: shown(sequence) })?;

    let mut lease = Lease::new(key.into(), checkpoint);
    lease.counter = item.count(name::COUNTER)?;
    lease.owner_switches = item.count(name::OWNER_SWITCHES)?;
    lease.owner = item.text(name::OWNER)?.map(Into::into);
    lease.requested_by = item.text(name::REQUEST)?.map(Into::into);
    lease.checkpoint_owner = item.text(name::CHECKPOINT_OWNER)?.map(Into::into);
    lease.pending = read_pending(item)?;
    lease.parents = item.shards(name::PARENTS)?;
    lease.children = item.shards(name::CHILDREN)?;
    if let (Some(first), Some(last)) = (item.text(name::FIRST_HASH_KEY)?, item.text(name::LAST_HASH_KEY)?) {
        lease.hash_key_range = Some(read_hash_keys(first, last)?);
    }
    lease.start_timestamp = match item.number(name::START_TIMESTAMP)? {
        Some(millis) => Some(
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_millis(millis))
                .ok_or_else(|| Problem::Value { name: name::START_TIMESTAMP, value: millis.to_string() })?,
        ),
        None => None,
    };
    lease.stream = item.parsed(name::STREAM, |text| {
        let (arn, created) = text.rsplit_once('@')?;
        Some(StreamIdentity { arn: arn.to_owned(), created_millis: created.parse().ok()? })
    })?;
    lease.token = item.parsed(name::TOKEN, |text| Some(AttemptToken(text.parse().ok()?)))?;
    Ok(lease)
}

/// Reads the pending checkpoint.
///
/// Java can prepare the end of a shard, which no processor of ours commits: it is not taken up. Java also
/// creates rows whose pending state is a number, by mistake: that is not taken for a state.
fn read_pending(item: &Reader<'_>) -> Result<Option<PendingCheckpoint>, Problem> {
    let sub_sequence = item.number(name::PENDING_SUB)?.unwrap_or_default();
    let pending = item.parsed(name::PENDING, |text| Checkpoint::from_parts(text, sub_sequence).ok())?;
    let Some(Checkpoint::At(position)) = pending else { return Ok(None) };
    let state = match item.0.get(name::PENDING_STATE) {
        Some(AttributeValue::B(state)) => Some(Bytes::copy_from_slice(state.as_ref())),
        Some(AttributeValue::N(_)) | None => None,
        Some(_) => return Err(Problem::Type(name::PENDING_STATE)),
    };
    Ok(Some(PendingCheckpoint { position: Position::new(position.sequence, sub_sequence), state }))
}

struct Reader<'a>(&'a Item);

impl<'a> Reader<'a> {
    fn text(&self, name: &'static str) -> Result<Option<&'a str>, Problem> {
        match self.0.get(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::Type(name)),
        }
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Problem::Value { name, value: shown(text) })
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        match self.0.get(name) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Problem::Value { name, value: shown(digits) }),
            },
            Some(_) => Err(Problem::Type(name)),
        }
    }

    /// Reads what every write or change of owner adds to, and must not overflow.
    fn count(&self, name: &'static str) -> Result<u64, Problem> {
        let count = self.number(name)?.ok_or(Problem::Missing(name))?;
        if count > LARGEST_COUNT {
            return Err(Problem::Value { name, value: count.to_string() });
        }
        Ok(count)
    }

    fn shards(&self, name: &'static str) -> Result<BTreeSet<ShardId>, Problem> {
        match self.0.get(name) {
            None => Ok(BTreeSet::new()),
            Some(AttributeValue::Ss(texts)) => {
                Ok(texts.iter().map(|text| ShardId::from(text.as_str())).collect())
            }
            Some(_) => Err(Problem::Type(name)),
        }
    }
}

/// As much of a value as fits a message.
fn shown(value: &str) -> String {
    value.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
