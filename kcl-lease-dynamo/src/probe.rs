//! Looking for leaders of the Java KCL 3.x, which assign the leases of a table on their own.
//!
//! KCL 3.0 to 3.4 elect the leader in a table of its own (key `key`), 3.5 in the lease table unless the older
//! table exists. The leader's lock is the row `Leader`; a leader that stopped in good order marks it released.

use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use kcl_core::lease::{StoreError, StoreErrorKind, StoreOperation};

use crate::client::patiently;
use crate::schema::{self, Item, name};
use crate::store::DynamoLeaseStore;
use crate::table::{foreign, is_validation};

const LOCK: &str = "Leader";
const MIGRATION: &str = "Migration3.0";
const LEGACY_KEY: &str = "key";

impl DynamoLeaseStore {
    /// Says where a Java leader was found. The first read also shows whether the lease table exists and has
    /// the right key, with no other right than to read items.
    pub(crate) async fn java_leadership(&self) -> Result<Option<String>, StoreError> {
        if let Some(leader) = self.leader(&self.table, name::KEY).await? {
            return Ok(Some(leader));
        }
        match &self.legacy_table {
            Some(table) => self.leader(table, LEGACY_KEY).await,
            None => Ok(None),
        }
    }

    async fn leader(&self, table: &str, key: &str) -> Result<Option<String>, StoreError> {
        let Some(lock) = self.coordinator_row(table, key, LOCK).await? else { return Ok(None) };
        let text =
            |item: &Item, attribute: &str| item.get(attribute).and_then(|value| value.as_s().ok()).cloned();
        if lock.contains_key("isReleased") {
            return Ok(None);
        }
        // In the lease table a row without the type is a lease; older versions, which wrote none, keep their
        // lock elsewhere.
        let is_lock = match text(&lock, name::ENTITY_TYPE) {
            Some(entity_type) => entity_type == "LEADER",
            None => key == LEGACY_KEY,
        };
        if !is_lock {
            return Ok(None);
        }
        let owner = text(&lock, "ownerName").unwrap_or_else(|| "unknown".to_owned());
        let version = match self.coordinator_row(table, key, MIGRATION).await? {
            Some(migration) => text(&migration, "cv").unwrap_or_else(|| "unknown".to_owned()),
            None => "unknown".to_owned(),
        };
        Ok(Some(format!(
            "a leader of the Java KCL 3.x is registered: table={table} row={LOCK} owner={owner} \
             client_version={version}; stop that fleet, or, if it is gone for good, delete the row"
        )))
    }

    /// A row of the coordinator; none also if `table` is not the lease table and does not exist, or is
    /// something else.
    async fn coordinator_row(&self, table: &str, key: &str, row: &str) -> Result<Option<Item>, StoreError> {
        let call = self.call("GetItem", table);
        let mut counted = self.counted(StoreOperation::Prepare, &call);
        let request = self
            .client
            .get_item()
            .table_name(table)
            .key(key, schema::key(row))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone())
            .config_override(patiently(self.request_timeout));
        let error = match request.send().await {
            Ok(answer) => {
                counted.read(answer.consumed_capacity());
                return Ok(answer.item);
            }
            Err(error) => error,
        };
        let is_missing = matches!(error.as_service_error(), Some(GetItemError::ResourceNotFoundException(_)));
        match (key == name::KEY, is_missing, is_validation(&error)) {
            (false, true, _) | (false, _, true) => Ok(None),
            (true, _, true) => Err(foreign(&call, "the service refuses this key").with_source(error)),
            (true, ..) => Err(call.failed(error)),
            (false, ..) => Err(legacy(call.failed(error))),
        }
    }
}

/// Adds what to do about a table that the user may never have heard of.
fn legacy(error: StoreError) -> StoreError {
    if error.kind() != StoreErrorKind::Denied {
        return error;
    }
    let message = "cannot tell whether a Java KCL 3.x leads this application; allow dynamodb:GetItem on this \
                   table although it may not exist, or, if no such KCL works under this name, switch the \
                   probe off (DynamoLeaseStore::without_legacy_probe)";
    StoreError::new(error.kind(), error.operation(), error.resource(), message).with_source(error)
}
