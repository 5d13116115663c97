//! Splits, merges and changes of the shard count, with their lineage.

use crate::error::ApiError;

use super::errors::{in_use, invalid, limit, not_found, validation, within};
use super::hash_key::HashKeyRange;
use super::shard::{Shard, shard_index};
use super::state::State;
use super::stream::{Stream, StreamMode, StreamStatus};
use super::{Kinesis, StreamRef, millis_of};

/// A change that takes effect when the delay for it has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Activate,
    Split { shard: u32, at: u128 },
    Merge { shard: u32, adjacent: u32 },
    Scale { target: u32 },
    Delete,
}

/// The answer of `UpdateShardCount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardCountUpdate {
    /// The number of open shards before.
    pub current: u32,
    /// The number of open shards to be reached.
    pub target: u32,
}

impl Kinesis {
    /// Splits an open shard in two; the second child starts at `new_starting_hash_key`.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException` (the stream is not active),
    /// `InvalidArgumentException` (the shard is closed, or the key leaves no room for two),
    /// `ValidationException` (on-demand stream), `LimitExceededException`.
    pub fn split_shard<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        shard: &str,
        new_starting_hash_key: u128,
    ) -> Result<(), ApiError> {
        self.change(&stream.into(), "SplitShard", |state, stream| {
            let found = changeable(stream, shard)?;
            let HashKeyRange { start, end } = found.range;
            // The service demands two keys on the left and one to spare on the right.
            if new_starting_hash_key <= start.saturating_add(1) || new_starting_hash_key >= end {
                return Err(invalid(format!(
                    "NewStartingHashKey {new_starting_hash_key} used in SplitShard() on shard {shard} in stream {} \
                     under account {} is not both greater than one plus the shard's StartingHashKey {start} and less \
                     than the shard's EndingHashKey {end}.",
                    stream.name, stream.account
                )));
            }
            state.check_open_shards(stream, 1)?;
            Ok(((), Change::Split { shard: found.index, at: new_starting_hash_key }))
        })
    }

    /// Merges two open shards, the second right above the first.
    ///
    /// # Errors
    /// As [`split_shard`](Self::split_shard), and `InvalidArgumentException` if the hash keys of `adjacent` do not
    /// begin where those of `shard` end; the service refuses the two in inverse order.
    pub fn merge_shards<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        shard: &str,
        adjacent: &str,
    ) -> Result<(), ApiError> {
        self.change(&stream.into(), "MergeShards", |_, stream| {
            let (first, second) = (changeable(stream, shard)?, changeable(stream, adjacent)?);
            if first.range.end.checked_add(1) != Some(second.range.start) {
                return Err(invalid(format!(
                    "Shards {shard} and {adjacent} in stream {} under account {} are not an adjacent pair of shards \
                     eligible for merging",
                    stream.name, stream.account
                )));
            }
            Ok(((), Change::Merge { shard: first.index, adjacent: second.index }))
        })
    }

    /// Splits and merges until `target` shards are open; of equal size if they were before and their number is
    /// doubled or halved.
    ///
    /// Every shard on the way has its parents, so a shard may be opened and closed at once.
    ///
    /// # Errors
    /// As [`split_shard`](Self::split_shard), and `InvalidArgumentException` if `target` is more than
    /// double or less than half the open shards.
    pub fn update_shard_count<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        target: u32,
    ) -> Result<ShardCountUpdate, ApiError> {
        within(target, (1, u32::MAX), "targetShardCount")?;
        self.change(&stream.into(), "UpdateShardCount", |state, stream| {
            let current = u32::try_from(stream.open.len()).unwrap_or(u32::MAX);
            if target > current.saturating_mul(2) {
                return Err(invalid(format!(
                    "UpdateShardCount cannot scale up over double your current open shard count. Current open shard \
                     count: {current} Target shard count: {target}"
                )));
            }
            if target < current.div_ceil(2) {
                return Err(invalid(format!(
                    "UpdateShardCount cannot scale down below half your current open shard count. Current open shard \
                     count: {current} Target shard count: {target}"
                )));
            }
            state.check_open_shards(stream, u64::from(target.saturating_sub(current)))?;
            Ok((ShardCountUpdate { current, target }, Change::Scale { target }))
        })
    }

    /// Checks that a stream can be resharded, lets `check` decide on the change, and starts it.
    fn change<T>(
        &self,
        stream: &StreamRef<'_>,
        operation: &'static str,
        check: impl FnOnce(&State, &Stream) -> Result<(T, Change), ApiError>,
    ) -> Result<T, ApiError> {
        self.altering(|state| {
            state.allow_change(operation)?;
            let (now, delay) = (state.now, state.options.reshard_delay);
            let name = state.resolve(stream)?.name.clone();
            let found = state.stream_named(&name)?;
            if found.mode == StreamMode::OnDemand {
                return Err(validation(format!(
                    "Request is invalid. Stream {name} is in On-Demand mode, {operation} needs the provisioned mode."
                )));
            }
            if found.status != StreamStatus::Active {
                return Err(not_active(found));
            }
            let (answer, change) = check(state, found)?;
            let found = state.resolve(stream)?;
            if delay.is_zero() {
                found.apply(change, now);
            } else {
                found.status = StreamStatus::Updating;
                found.pending = Some((now.saturating_add(millis_of(delay)), change));
            }
            Ok(answer)
        })
    }
}

impl State {
    /// Checks that `more` shards may be opened in the account.
    pub(crate) fn check_open_shards(&self, stream: &Stream, more: u64) -> Result<(), ApiError> {
        let Some(most) = self.options.limits.open_shards else { return Ok(()) };
        let open = self.open_shards() + more;
        if open > u64::from(most) {
            return Err(limit(format!(
                "This request would exceed the shard limit for the account {} in {}. Current shard count for the \
                 account: {}. Limit: {most}.",
                stream.account,
                self.options.region,
                open - more
            )));
        }
        Ok(())
    }
}

impl Stream {
    /// Carries out a reshard as of `now`.
    pub(crate) fn apply(&mut self, change: Change, now: u64) {
        match change {
            Change::Split { shard, at } => self.split(shard, at, now),
            Change::Merge { shard, adjacent } => self.merge(shard, adjacent, now),
            Change::Scale { target } => self.scale(target, now),
            // Deletion takes the stream out of the account's list, which is not the stream's to do.
            Change::Activate | Change::Delete => {}
        }
    }

    fn split(&mut self, parent: u32, at: u128, now: u64) {
        let (range, epoch) = (self.shards[&parent].range, self.child_epoch(&[parent], now));
        let left = HashKeyRange { start: range.start, end: at - 1 };
        let right = HashKeyRange { start: at, end: range.end };
        let left = self.add_shard(left, vec![parent], epoch, now);
        let right = self.add_shard(right, vec![parent], epoch, now);
        self.close(parent, vec![left, right], now);
    }

    fn merge(&mut self, shard: u32, adjacent: u32, now: u64) {
        let (first, second) = (self.shards[&shard].range, self.shards[&adjacent].range);
        let epoch = self.child_epoch(&[shard, adjacent], now);
        let range = HashKeyRange { start: first.start, end: second.end };
        self.open.remove(&first.start);
        self.open.remove(&second.start);
        let child = self.add_shard(range, vec![shard, adjacent], epoch, now);
        self.close(shard, vec![child], now);
        self.close(adjacent, vec![child], now);
    }

    /// More shards: halves every one, then merges neighbours until the count is right. Fewer: merges neighbours.
    ///
    /// The service has been seen to make exactly as many shards on the way (moto's tests of `UpdateShardCount`,
    /// verified against AWS), though it promises shards of equal size, which this gives for doubling and halving.
    fn scale(&mut self, target: u32, now: u64) {
        let target = usize::try_from(target).unwrap_or(usize::MAX);
        if self.open.len() < target {
            let open: Vec<u32> = self.open.values().copied().collect();
            for shard in open {
                let HashKeyRange { start, end } = self.shards[&shard].range;
                // A single hash key cannot be halved.
                if start < end {
                    self.split(shard, start + (end - start) / 2 + 1, now);
                }
            }
        }
        while self.open.len() > target {
            let excess = self.open.len() - target;
            let open: Vec<u32> = self.open.values().copied().collect();
            for pair in open.chunks_exact(2).take(excess) {
                self.merge(pair[0], pair[1], now);
            }
        }
    }

    fn close(&mut self, shard: u32, children: Vec<u32>, now: u64) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.close(children, now);
        }
    }

    /// A creation second that puts a child's numbers above those of its parents.
    fn child_epoch(&self, parents: &[u32], now: u64) -> u64 {
        let parents = parents.iter().map(|parent| self.shards[parent].epoch + 1);
        parents.fold(now / 1_000, u64::max)
    }
}

/// The error for a change of a stream that is going through another.
pub(crate) fn not_active(stream: &Stream) -> ApiError {
    in_use(format!(
        "Stream {} under account {} not ACTIVE, instead in state {}",
        stream.name, stream.account, stream.status
    ))
}

/// The open shard with this id.
fn changeable<'a>(stream: &'a Stream, id: &str) -> Result<&'a Shard, ApiError> {
    let found = shard_index(id).and_then(|index| stream.shards.get(&index));
    let shard = found.ok_or_else(|| {
        not_found(format!(
            "Could not find shard {id} in stream {} under account {}.",
            stream.name, stream.account
        ))
    })?;
    if !shard.is_open() {
        return Err(invalid(format!(
            "Shard {id} in stream {} under account {} has already been merged or split, and thus is not eligible for \
             merging or splitting.",
            stream.name, stream.account
        )));
    }
    Ok(shard)
}
