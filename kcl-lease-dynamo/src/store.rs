use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};
use kcl_core::fleet::{FleetRow, FleetRowKey};
use kcl_core::lease::{
    Consistency, Expectation, FleetChange, FleetWrite, Lease, LeasePage, LeaseStore, PageToken, Patch,
    Prepared, StoreError, StoreOperation, StoreUsage, Write,
};
use kcl_core::model::ShardId;

use crate::classify::Call;
use crate::client::{self, Witness};
use crate::expr::Expression;
use crate::meter::{Counted, Meter};
use crate::schema::{self, Item, Row, name};
use crate::settings::TableMode;

const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Lease rows in a DynamoDB table.
///
/// # Consistency
/// Writes are single conditional `PutItem`, `UpdateItem` and `DeleteItem` calls. `get` reads as it is told to.
/// `list` is one `Scan` call a page, eventually consistent unless
/// [`with_consistent_lists`](Self::with_consistent_lists) says otherwise.
///
/// # Ambiguity
/// The client's own retries are switched off: each call is one request. An error says that it may have applied
/// if the request left and no answer, or one of status 5xx, came back. A request that the service refused or
/// throttled, or that never left, did not apply.
///
/// # Rows that are no leases
/// A row whose `entityType` is not `LEASE` is listed as foreign and reads as no lease; writes conflict with
/// it and never change it, and `create` under its key fails. A lease row that cannot be understood is listed
/// as unreadable; reading it, and writes that meet it, fail with [`StoreErrorKind::Invalid`].
///
/// # Clone
/// Clones use the same table and the same connections, and count together.
///
/// [`StoreErrorKind::Invalid`]: kcl_core::lease::StoreErrorKind::Invalid
#[derive(Clone, Debug)]
pub struct DynamoLeaseStore {
    pub(crate) client: Client,
    pub(crate) table: String,
    pub(crate) table_mode: TableMode,
    pub(crate) request_timeout: Duration,
    pub(crate) legacy_table: Option<String>,
    pub(crate) meter: Meter,
    consistent_lists: bool,
    page_size: Option<NonZeroU32>,
}

impl DynamoLeaseStore {
    /// Creates a store over the table with this name, or with this ARN for a table of another account.
    ///
    /// Nothing is sent before [`prepare`](LeaseStore::prepare). The client's region, credentials, endpoint and
    /// connections are used; its retry and time-out settings are not.
    pub fn new(client: Client, table_name: impl Into<String>) -> Self {
        let table = table_name.into();
        Self {
            client: client::rebuild(&client, DEFAULT_REQUEST_TIMEOUT),
            legacy_table: Some(format!("{table}-CoordinatorState")),
            table,
            table_mode: TableMode::default(),
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            meter: Meter::default(),
            consistent_lists: false,
            page_size: None,
        }
    }

    /// Sets what to do about the table at the start. Default: create it if it is missing.
    #[must_use]
    pub fn with_table_mode(mut self, mode: TableMode) -> Self {
        self.table_mode = mode;
        self
    }

    /// Sets how long one call may take, connection and answer included. Default 2 s.
    ///
    /// Must be well below the renewal interval: a renewal whose request or answer is lost can be repeated
    /// within the lease duration only if the loss is noticed soon. Calls of [`prepare`](LeaseStore::prepare)
    /// may take ten seconds each if that is longer, because credentials are fetched on the first.
    #[must_use]
    pub fn with_request_timeout(mut self, time_out: Duration) -> Self {
        self.request_timeout = time_out;
        self.client = client::rebuild(&self.client, time_out);
        self
    }

    /// Whether listings see every write that was answered before, for twice the price. Default no.
    #[must_use]
    pub const fn with_consistent_lists(mut self, consistent: bool) -> Self {
        self.consistent_lists = consistent;
        self
    }

    /// Sets how many rows a page of a listing has at most. Default: what fits 1 MB.
    #[must_use]
    pub const fn with_page_size(mut self, rows: NonZeroU32) -> Self {
        self.page_size = Some(rows);
        self
    }

    /// Sets the table in which workers of the Java KCL 3.0 to 3.4 elect their leader. Default: the lease
    /// table's name with `-CoordinatorState` after it, which is Java's unless its application name differs
    /// from its table name.
    #[must_use]
    pub fn with_legacy_coordinator_table(mut self, table_name: impl Into<String>) -> Self {
        self.legacy_table = Some(table_name.into());
        self
    }

    /// Does not look for a Java leader outside the lease table, and needs no right to.
    ///
    /// Use it where no Java KCL 3.x works under this application's name: such workers would not be noticed,
    /// and both would assign the same leases.
    #[must_use]
    pub fn without_legacy_probe(mut self) -> Self {
        self.legacy_table = None;
        self
    }

    pub(crate) fn call<'a>(&self, operation: &'static str, table: &'a str) -> Call<'a> {
        let has_region = self.client.config().region().is_some();
        Call { operation, table, has_region, witness: Witness::default() }
    }

    /// The item that a conditional write met when its condition did not hold. DynamoDB says so in the error, unless
    /// there is no row; some of its stand-ins never do. Then it is looked up, as a request of `look_up`.
    pub(crate) async fn conflict(
        &self,
        call: &Call<'_>,
        counted: &mut Counted,
        look_up: StoreOperation,
        key: &str,
        item: Option<&Item>,
    ) -> Result<Option<Item>, StoreError> {
        counted.refused(item);
        if item.is_some() {
            return Ok(item.cloned());
        }
        let item = self.read(look_up, key, true).await.map_err(|error| {
            // The write itself was answered: its condition did not hold.
            StoreError::new(error.kind(), call.operation, call.table, "lost a race, then could not read")
                .with_may_have_applied(false)
                .with_source(error)
        })?;
        counted.refused(item.as_ref());
        Ok(item)
    }

    /// One page of the table, and where the next one begins.
    pub(crate) async fn scan(
        &self,
        page: Option<PageToken>,
        consistent: bool,
    ) -> Result<(ScanOutput, Option<PageToken>), StoreError> {
        let call = self.call("Scan", &self.table);
        let mut request = self.client.scan().table_name(&self.table).consistent_read(consistent);
        if let Some(PageToken(last)) = page {
            request = request.exclusive_start_key(name::KEY, schema::key(&last));
        }
        if let Some(rows) = self.page_size {
            request = request.limit(i32::try_from(rows.get()).unwrap_or(i32::MAX));
        }
        let mut counted = self.counted(StoreOperation::List, &call);
        let answer = request
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone())
            .send()
            .await
            .map_err(|error| call.failed(error))?;
        counted.read(answer.consumed_capacity());
        let next = match answer.last_evaluated_key() {
            Some(last) => {
                let key = last.get(name::KEY).and_then(|key| key.as_s().ok());
                let key =
                    key.ok_or_else(|| call.invalid("the answer does not say where the next page begins"))?;
                Some(PageToken(key.clone()))
            }
            None => None,
        };
        Ok((answer, next))
    }

    pub(crate) async fn read(
        &self,
        operation: StoreOperation,
        key: &str,
        consistent: bool,
    ) -> Result<Option<Item>, StoreError> {
        let call = self.call("GetItem", &self.table);
        let mut counted = self.counted(operation, &call);
        let request = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(name::KEY, schema::key(key))
            .consistent_read(consistent)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let answer = request.send().await.map_err(|error| call.failed(error))?;
        counted.read(answer.consumed_capacity());
        Ok(answer.item)
    }
}

impl fmt::Display for DynamoLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table)
    }
}

/// The lease of a row; none if the row is of another kind.
fn lease(call: &Call<'_>, row: Option<Row>) -> Result<Option<Lease>, StoreError> {
    match row {
        Some(Row::Lease(lease)) => Ok(Some(*lease)),
        Some(Row::Foreign(_)) | None => Ok(None),
        Some(Row::Unreadable(row)) => {
            Err(call.invalid(format!("the row cannot be read: key={} reason={}", row.key, row.reason)))
        }
    }
}

/// The lease of a row that was written.
fn written(call: &Call<'_>, attributes: Option<Item>) -> Result<Write, StoreError> {
    match lease(call, attributes.as_ref().map(schema::read)) {
        Ok(Some(lease)) => Ok(Write::Applied(lease)),
        Ok(None) => Err(call.invalid("written, but the answer has no row").with_may_have_applied(true)),
        Err(error) => Err(error.with_may_have_applied(true)),
    }
}

#[async_trait]
impl LeaseStore for DynamoLeaseStore {
    /// Creates or checks the table, then looks for leaders of the Java KCL 3.x.
    ///
    /// A table that is being created is waited for, up to two minutes.
    ///
    /// # Errors
    /// [`StoreErrorKind::Misconfigured`] for a name no table can have and for settings the service refuses,
    /// [`StoreErrorKind::TableMissing`] in [`TableMode::MustExist`], [`StoreErrorKind::TableForeign`] if the
    /// table's key is not `leaseKey` (a string) alone, [`StoreErrorKind::Denied`] also if the place where a
    /// Java leader would be must not be read.
    ///
    /// [`StoreErrorKind::Misconfigured`]: kcl_core::lease::StoreErrorKind::Misconfigured
    /// [`StoreErrorKind::TableMissing`]: kcl_core::lease::StoreErrorKind::TableMissing
    /// [`StoreErrorKind::TableForeign`]: kcl_core::lease::StoreErrorKind::TableForeign
    /// [`StoreErrorKind::Denied`]: kcl_core::lease::StoreErrorKind::Denied
    async fn prepare(&self) -> Result<Prepared, StoreError> {
        self.check_name()?;
        let mut prepared = Prepared::default();
        if let TableMode::CreateIfMissing(settings) = &self.table_mode {
            prepared = self.create_table_if_missing(settings).await?;
        }
        prepared.java_leadership = self.java_leadership().await?;
        Ok(prepared)
    }

    async fn list(&self, page: Option<PageToken>, consistency: Consistency) -> Result<LeasePage, StoreError> {
        let consistent = self.consistent_lists || consistency == Consistency::Strong;
        let (answer, next) = self.scan(page, consistent).await?;
        let mut listed = LeasePage::default();
        for item in answer.items() {
            match schema::read(item) {
                Row::Lease(lease) => listed.leases.push(Arc::from(lease)),
                Row::Foreign(row) => listed.foreign.push(row),
                Row::Unreadable(row) => listed.unreadable.push(row),
            }
        }
        listed.next = next;
        Ok(listed)
    }

    async fn get(&self, shard: &ShardId, consistency: Consistency) -> Result<Option<Lease>, StoreError> {
        let item = self.read(StoreOperation::Get, shard.as_str(), consistency == Consistency::Strong).await?;
        lease(&self.call("GetItem", &self.table), item.as_ref().map(schema::read))
    }

    async fn create(&self, new: &Lease) -> Result<Write, StoreError> {
        let call = self.call("PutItem", &self.table);
        let mut counted = self.counted(StoreOperation::Create, &call);
        let expression = Expression::no_row();
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(schema::to_item(new)))
            .condition_expression(expression.condition())
            .set_expression_attribute_names(Some(expression.names()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return Ok(Write::Applied(new.clone()));
            }
            Err(error) => error,
        };
        let Some(PutItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        let key = new.shard.as_str();
        let item = self.conflict(&call, &mut counted, StoreOperation::Get, key, failed.item()).await?;
        let row = item.as_ref().map(schema::read);
        if let Some(Row::Foreign(row)) = &row {
            return Err(call.invalid(format!(
                "the key is taken by a row of another kind: key={} entity_type={}",
                row.key, row.entity_type
            )));
        }
        Ok(Write::Conflict(lease(&call, row)?))
    }

    async fn update(
        &self,
        shard: &ShardId,
        expect: &Expectation,
        patch: &Patch,
    ) -> Result<Write, StoreError> {
        let call = self.call("UpdateItem", &self.table);
        let mut counted = self.counted(StoreOperation::Update, &call);
        let expression = Expression::patching(expect, patch);
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(name::KEY, schema::key(shard.as_str()))
            .condition_expression(expression.condition())
            .set_update_expression(expression.update())
            .set_expression_attribute_names(Some(expression.names()))
            .set_expression_attribute_values(expression.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return written(&call, answer.attributes);
            }
            Err(error) => error,
        };
        let Some(UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        let key = shard.as_str();
        let item = self.conflict(&call, &mut counted, StoreOperation::Get, key, failed.item()).await?;
        Ok(Write::Conflict(lease(&call, item.as_ref().map(schema::read))?))
    }

    async fn delete(&self, shard: &ShardId, expect: &Expectation) -> Result<Write, StoreError> {
        let call = self.call("DeleteItem", &self.table);
        let mut counted = self.counted(StoreOperation::Delete, &call);
        let expression = Expression::expecting(expect);
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(name::KEY, schema::key(shard.as_str()))
            .condition_expression(expression.condition())
            .set_expression_attribute_names(Some(expression.names()))
            .set_expression_attribute_values(expression.values())
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .interceptor(call.witness.clone());
        let error = match request.send().await {
            Ok(answer) => {
                counted.wrote(answer.consumed_capacity());
                return written(&call, answer.attributes);
            }
            Err(error) => error,
        };
        let Some(DeleteItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(call.failed(error));
        };
        let key = shard.as_str();
        let item = self.conflict(&call, &mut counted, StoreOperation::Get, key, failed.item()).await?;
        Ok(Write::Conflict(lease(&call, item.as_ref().map(schema::read))?))
    }

    async fn fleet_row(
        &self,
        row: FleetRowKey,
        consistency: Consistency,
    ) -> Result<Option<FleetRow>, StoreError> {
        self.read_fleet_row(row, consistency == Consistency::Strong).await
    }

    async fn change_fleet(&self, row: FleetRowKey, change: &FleetChange) -> Result<FleetWrite, StoreError> {
        self.write_fleet_row(row, change).await
    }

    /// Units are those the service says were consumed; those of a refused write are computed from the size of the row
    /// it met. A request that left and was not answered counts as a request and no units.
    fn usage(&self) -> StoreUsage {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
