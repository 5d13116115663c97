//! Storing how far an application got.

use std::time::Duration;

use crate::lease::StoreError;
use crate::model::Position;

/// Who stores checkpoints, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// The processor, through its [`Checkpointer`].
    #[default]
    Manual,
    /// The library, after each batch that `process_records` acknowledged.
    AfterBatch,
    /// The library, at this interval, over what `process_records` acknowledged by then; also at the end of the
    /// shard and when it is given up.
    Every(Duration),
}

/// Why a checkpoint was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The lease is lost; another worker goes on from the stored checkpoint.
    #[error("the lease is lost; another worker continues from the stored checkpoint")]
    LeaseLost,
    /// The position lies beyond what was delivered.
    #[error("the position was not delivered yet: position={position}, delivered={delivered:?}")]
    NotDelivered {
        /// The position asked for.
        position: Position,
        /// The last position delivered, if any.
        delivered: Option<Position>,
    },
    /// The store failed.
    #[error("the checkpoint could not be stored")]
    Store(#[source] std::sync::Arc<StoreError>),
}

/// Stores checkpoints of one shard. A handle: clones may be kept and used from other tasks.
#[derive(Clone, Debug)]
pub struct Checkpointer {}

impl Checkpointer {
    /// Stores everything delivered so far as processed.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] or [`CheckpointError::Store`].
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        Err(CheckpointError::LeaseLost)
    }
}
