use std::collections::BTreeMap;

use kcl_core::lease::{Lease, StoreError, StoreErrorKind};
use kcl_core::model::ShardId;

/// A call of the lease store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `LeaseStore::prepare`.
    Prepare,
    /// `LeaseStore::list`; counts pages.
    List,
    /// `LeaseStore::get`.
    Get,
    /// `LeaseStore::create`.
    Create,
    /// `LeaseStore::update`.
    Update,
    /// `LeaseStore::delete`.
    Delete,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// How often each operation was called, whatever the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    counts: BTreeMap<Operation, u64>,
}

impl Requests {
    /// How often `operation` was called.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.counts.get(&operation).copied().unwrap_or_default()
    }

    /// How often any operation was called.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn add(&mut self, operation: Operation) {
        *self.counts.entry(operation).or_default() += 1;
    }
}

/// What the map holds under a key.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    Lease(Box<Lease>),
    Unreadable(String),
    Foreign(String),
}

/// The rows and the counters, under one lock.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<ShardId, Row>,
    pub(crate) requests: Requests,
}

impl Rows {
    pub(crate) fn count(&mut self, operation: Operation) {
        self.requests.add(operation);
    }

    /// The lease under a key: nothing if there is no row or one of another kind.
    pub(crate) fn lease(&self, operation: Operation, shard: &ShardId) -> Result<Option<&Lease>, StoreError> {
        match self.rows.get(shard) {
            Some(Row::Lease(lease)) => Ok(Some(lease)),
            Some(Row::Unreadable(reason)) => {
                Err(invalid(operation, format!("the row cannot be read: key={shard} reason={reason}")))
            }
            Some(Row::Foreign(_)) | None => Ok(None),
        }
    }

    pub(crate) fn put(&mut self, lease: Lease) {
        self.rows.insert(lease.shard.clone(), Row::Lease(Box::new(lease)));
    }
}

pub(crate) fn invalid(operation: Operation, message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, operation.name(), "memory", message)
}
