//! Whether a lease table fits the stream it is to be used with (MS-1).

use std::fmt;

use super::bounds;
use super::lineage::ShardGraph;
use crate::lease::{Lease, LeaseTable};
use crate::model::{Checkpoint, HashKeyRange, SequenceNumber, Shard, ShardId, StreamIdentity};

/// A row that must not be worked on with this stream. Its text names the row and the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row.
    pub shard: ShardId,
    /// What is wrong with it.
    pub reason: RefusalReason,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The row was made for another stream.
    OtherStream {
        /// The stream it was made for.
        stored: StreamIdentity,
        /// The stream that is to be read.
        configured: StreamIdentity,
    },
    /// The row was made for a stream of the same ARN that was deleted since and created again.
    RecreatedStream {
        /// The stream it was made for.
        stored: StreamIdentity,
        /// The stream that is to be read.
        configured: StreamIdentity,
    },
    /// The row names no stream, and its hash keys are not those of the stream's shard of this id.
    OtherHashKeys {
        /// The hash keys in the row.
        stored: HashKeyRange,
        /// The hash keys of the shard.
        listed: HashKeyRange,
    },
    /// The row names no stream, and its id is younger than every shard of the stream.
    NeverListed {
        /// The youngest shard of the stream.
        youngest: ShardId,
    },
    /// The checkpoint is not a position of the shard.
    CheckpointOutside {
        /// The checkpoint in the row.
        checkpoint: Checkpoint,
        /// The smallest sequence number of the shard.
        starting: SequenceNumber,
        /// The largest sequence number of the shard, if it is closed.
        ending: Option<SequenceNumber>,
    },
    /// The row says that the shard has ended, while it is open and nothing knows any child of it.
    EndedWhileOpen,
}

impl Refusal {
    /// Whether the refusal is about which stream the row belongs to, so that an explicit `adopt` overrules it.
    /// The others can only be cured by `reset` or by correcting the row.
    #[must_use]
    pub const fn yields_to_adopt(&self) -> bool {
        match self.reason {
            RefusalReason::OtherStream { .. }
            | RefusalReason::RecreatedStream { .. }
            | RefusalReason::OtherHashKeys { .. }
            | RefusalReason::NeverListed { .. } => true,
            RefusalReason::CheckpointOutside { .. } | RefusalReason::EndedWhileOpen => false,
        }
    }
}

/// What to choose from when these rows were refused, in words.
#[must_use]
pub fn choices(refusals: &[Refusal]) -> &'static str {
    if refusals.iter().all(Refusal::yields_to_adopt) {
        "ForeignLeases::Reset to delete these leases and start over, ForeignLeases::Adopt to go on from their \
         checkpoints with this stream, or another application name"
    } else {
        "ForeignLeases::Reset to delete these leases and start over, another application name, or correct the \
         checkpoint in the row: to a position of the shard or to TRIM_HORIZON"
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = &self.shard;
        match &self.reason {
            RefusalReason::OtherStream { stored, configured } => write!(
                f,
                "the lease belongs to another stream: shard={shard} stored={stored} configured={configured}"
            )?,
            RefusalReason::RecreatedStream { stored, configured } => write!(
                f,
                "the lease belongs to an earlier stream of the same name: shard={shard} stored={stored} \
                 configured={configured}"
            )?,
            RefusalReason::OtherHashKeys { stored, listed } => {
                let ((stored_first, stored_last), (first, last)) = (bounds(stored), bounds(listed));
                write!(
                    f,
                    "the lease has other hash keys than the stream's shard of this id: shard={shard} \
                     stored={stored_first}-{stored_last} listed={first}-{last}"
                )?;
            }
            RefusalReason::NeverListed { youngest } => {
                write!(f, "the lease is of a shard this stream never had: shard={shard} youngest={youngest}")?
            }
            RefusalReason::CheckpointOutside { checkpoint, starting, ending } => {
                write!(
                    f,
                    "the checkpoint is not a position of the shard: shard={shard} checkpoint={checkpoint} \
                     starting={starting} ending="
                )?;
                match ending {
                    Some(ending) => write!(f, "{ending}")?,
                    None => f.write_str("none")?,
                }
            }
            RefusalReason::EndedWhileOpen => write!(
                f,
                "the lease says that the shard has ended, but it is open and has no children: shard={shard}"
            )?,
        }
        Ok(())
    }
}

/// Checks the rows of a table against the stream; in the order of shards, at most one refusal for each row.
///
/// Rows of shards that the stream no longer lists are fine: they outlive their shards for a while. The rows
/// must be read before the shards are listed; an end that is stored in between would look like
/// [`RefusalReason::EndedWhileOpen`].
#[must_use]
pub fn check_table(shards: &[Shard], leases: &LeaseTable, identity: &StreamIdentity) -> Vec<Refusal> {
    let graph = ShardGraph::new(shards);
    let youngest = graph.shards().filter_map(|shard| Some((number(&shard.id)?, &shard.id))).max();
    leases
        .values()
        .filter_map(|lease| {
            let reason = other_stream(lease, &graph, identity, youngest)
                .or_else(|| unknown_position(lease, &graph, leases))?;
            Some(Refusal { shard: lease.shard.clone(), reason })
        })
        .collect()
}

fn other_stream(
    lease: &Lease,
    graph: &ShardGraph<'_>,
    identity: &StreamIdentity,
    youngest: Option<(u64, &ShardId)>,
) -> Option<RefusalReason> {
    if let Some(stored) = &lease.stream {
        let (stored, configured) = (stored.clone(), identity.clone());
        return match (stored.arn == configured.arn, stored == configured) {
            (_, true) => None,
            (true, false) => Some(RefusalReason::RecreatedStream { stored, configured }),
            (false, false) => Some(RefusalReason::OtherStream { stored, configured }),
        };
    }
    if let Some(shard) = graph.get(&lease.shard) {
        let (stored, listed) = (lease.hash_key_range?, shard.hash_key_range);
        return (bounds(&stored) != bounds(&listed))
            .then_some(RefusalReason::OtherHashKeys { stored, listed });
    }
    // A child that was named with its parent's last records can be younger than the listing.
    let newborn = lease.parents.iter().any(|parent| graph.is_listed(parent));
    let (youngest, youngest_id) = youngest?;
    (!newborn && number(&lease.shard)? > youngest)
        .then(|| RefusalReason::NeverListed { youngest: youngest_id.clone() })
}

fn unknown_position(lease: &Lease, graph: &ShardGraph<'_>, leases: &LeaseTable) -> Option<RefusalReason> {
    let shard = graph.get(&lease.shard)?;
    match lease.checkpoint {
        Checkpoint::At(position) => {
            let (starting, ending) = (shard.starting_sequence_number, shard.ending_sequence_number);
            let known =
                position.sequence >= starting && ending.is_none_or(|ending| position.sequence <= ending);
            (!known).then_some(RefusalReason::CheckpointOutside {
                checkpoint: lease.checkpoint,
                starting,
                ending,
            })
        }
        Checkpoint::ShardEnd => {
            // A shard's children are created before its end is stored, so an end without children is no end.
            let has_children = !lease.children.is_empty()
                || graph.children(&lease.shard).next().is_some()
                || leases.values().any(|other| other.parents.contains(&lease.shard));
            (shard.is_open() && !has_children).then_some(RefusalReason::EndedWhileOpen)
        }
        Checkpoint::AtTimestamp | Checkpoint::TrimHorizon | Checkpoint::Latest => None,
    }
}

/// The number in a shard id; Kinesis counts them up.
fn number(shard: &ShardId) -> Option<u64> {
    shard.as_str().strip_prefix("shardId-")?.parse().ok()
}

#[cfg(test)]
mod tests;
