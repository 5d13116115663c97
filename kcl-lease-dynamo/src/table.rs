//! Creating the lease table, and telling one from another table.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::update_continuous_backups::UpdateContinuousBackupsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ProvisionedThroughput, ScalarAttributeType, SseSpecification, SseType, TableDescription, TableStatus,
    Tag,
};
use kcl_core::lease::{Prepared, ProvisionedUnits, StoreError, StoreErrorKind, StoreOperation};
use tokio::time::{Instant, sleep};

use crate::classify::Call;
use crate::client::patiently;
use crate::schema::name;
use crate::settings::{Billing, TableSettings};
use crate::store::DynamoLeaseStore;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const CREATION_LIMIT: Duration = Duration::from_secs(120);

impl DynamoLeaseStore {
    /// Refuses names that no table can have, which the service would refuse call by call.
    pub(crate) fn check_name(&self) -> Result<(), StoreError> {
        let is_arn = self.table.starts_with("arn:");
        let is_name = (3..=255).contains(&self.table.len())
            && self.table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if is_arn || is_name {
            return Ok(());
        }
        let message = "not a table name: 3 to 255 of a-z, A-Z, 0-9, '_', '-' and '.' are allowed";
        Err(StoreError::new(
            StoreErrorKind::Misconfigured,
            "DescribeTable",
            format!("{:?}", self.table),
            message,
        ))
    }

    /// Returns whether this call created the table, and what it may serve.
    pub(crate) async fn create_table_if_missing(
        &self,
        settings: &TableSettings,
    ) -> Result<Prepared, StoreError> {
        let deadline = Instant::now() + CREATION_LIMIT;
        let mut created = false;
        let provisioned = loop {
            match self.describe().await {
                Ok(Some(table)) => {
                    self.check_shape(&table)?;
                    // A table that is being changed serves requests like an active one.
                    if matches!(table.table_status(), Some(TableStatus::Active | TableStatus::Updating)) {
                        break provisioned(&table);
                    }
                }
                // Looked at again at once: some stand-ins for DynamoDB need no time to create a table. If it
                // cannot be seen yet, creating it once more says that it exists, and then it is waited for.
                Ok(None) => {
                    if self.create_table(settings).await? {
                        created = true;
                        continue;
                    }
                }
                // What was begun is seen through: a hiccup while waiting is no reason to give up.
                Err(error) if created && error.is_retryable() => {}
                Err(error) => return Err(error),
            }
            self.wait(deadline, "DescribeTable", "the table is not active yet").await?;
        };
        if settings.point_in_time_recovery {
            while !self.enable_recovery().await? {
                self.wait(deadline, "UpdateContinuousBackups", "backups are not available yet").await?;
            }
        }
        let mut prepared = Prepared::default();
        (prepared.created, prepared.provisioned) = (created, provisioned);
        Ok(prepared)
    }

    async fn wait(&self, deadline: Instant, operation: &'static str, what: &str) -> Result<(), StoreError> {
        if Instant::now() >= deadline {
            let message = format!("{what}; waited {} s", CREATION_LIMIT.as_secs());
            let error = StoreError::new(StoreErrorKind::Unavailable, operation, &self.table, message);
            return Err(error.with_may_have_applied(false));
        }
        sleep(POLL_INTERVAL).await;
        Ok(())
    }

    /// Describes the table as it is, whatever it holds; nothing if there is none. Needs `dynamodb:DescribeTable`.
    ///
    /// # Errors
    /// Those of [`LeaseStore::prepare`](kcl_core::lease::LeaseStore::prepare).
    pub async fn describe(&self) -> Result<Option<TableDescription>, StoreError> {
        let call = self.call("DescribeTable", &self.table);
        let _counted = self.counted(StoreOperation::Prepare, &call);
        let request = self
            .client
            .describe_table()
            .table_name(&self.table)
            .customize()
            .interceptor(call.witness.clone())
            .config_override(patiently(self.request_timeout));
        match request.send().await {
            Ok(answer) => match answer.table {
                Some(table) => Ok(Some(table)),
                None => Err(call.invalid("the answer does not describe the table")),
            },
            Err(error) => match error.as_service_error() {
                Some(DescribeTableError::ResourceNotFoundException(_)) => Ok(None),
                _ => Err(call.failed(error)),
            },
        }
    }

    fn check_shape(&self, table: &TableDescription) -> Result<(), StoreError> {
        let is_key =
            |key: &KeySchemaElement| key.attribute_name() == name::KEY && *key.key_type() == KeyType::Hash;
        let is_text = |attribute: &AttributeDefinition| {
            attribute.attribute_name() == name::KEY && *attribute.attribute_type() == ScalarAttributeType::S
        };
        if matches!(table.key_schema(), [key] if is_key(key))
            && table.attribute_definitions().iter().any(is_text)
        {
            return Ok(());
        }
        let keys = table.key_schema().iter();
        let keys: Vec<_> = keys.map(|key| format!("{} {}", key.attribute_name(), key.key_type())).collect();
        Err(foreign(&self.call("DescribeTable", &self.table), &format!("its key is {}", keys.join(", "))))
    }

    /// Returns false if the table has come into being meanwhile.
    async fn create_table(&self, settings: &TableSettings) -> Result<bool, StoreError> {
        let call = self.call("CreateTable", &self.table);
        let _counted = self.counted(StoreOperation::Prepare, &call);
        let request = describe_wanted(self.client.create_table().table_name(&self.table), settings)
            .map_err(|error| call.invalid("the table settings make no sense").with_source(error))?
            .customize()
            .interceptor(call.witness.clone())
            .config_override(patiently(self.request_timeout));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
                _ if is_validation(&error) => Err(misconfigured(&call, error)),
                _ => Err(call.failed(error)),
            },
        }
    }

    /// Returns false while a new table cannot have backups yet.
    async fn enable_recovery(&self) -> Result<bool, StoreError> {
        let call = self.call("UpdateContinuousBackups", &self.table);
        let specification = PointInTimeRecoverySpecification::builder()
            .point_in_time_recovery_enabled(true)
            .build()
            .map_err(|error| call.invalid("the request could not be built").with_source(error))?;
        let _counted = self.counted(StoreOperation::Prepare, &call);
        let request = self
            .client
            .update_continuous_backups()
            .table_name(&self.table)
            .point_in_time_recovery_specification(specification)
            .customize()
            .interceptor(call.witness.clone())
            .config_override(patiently(self.request_timeout));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateContinuousBackupsError::ContinuousBackupsUnavailableException(_)) => Ok(false),
                _ => Err(call.failed(error)),
            },
        }
    }
}

/// What the table may serve; nothing if it is on demand, which the service describes as zero units.
fn provisioned(table: &TableDescription) -> Option<ProvisionedUnits> {
    let throughput = table.provisioned_throughput()?;
    let units =
        |units: Option<i64>| units.and_then(|units| u64::try_from(units).ok()).filter(|units| *units > 0);
    Some(ProvisionedUnits::new(
        units(throughput.read_capacity_units())?,
        units(throughput.write_capacity_units())?,
    ))
}

/// Fills in a request. Fails only if a mandatory part of a key or tag is missing.
fn describe_wanted(
    request: CreateTableFluentBuilder,
    settings: &TableSettings,
) -> Result<CreateTableFluentBuilder, aws_sdk_dynamodb::error::BuildError> {
    let key = KeySchemaElement::builder().attribute_name(name::KEY).key_type(KeyType::Hash).build()?;
    let attribute = AttributeDefinition::builder()
        .attribute_name(name::KEY)
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    let mut request = request.key_schema(key).attribute_definitions(attribute);
    request = match settings.billing {
        Billing::OnDemand => request.billing_mode(BillingMode::PayPerRequest),
        Billing::Provisioned { read, write } => {
            let throughput = ProvisionedThroughput::builder()
                .read_capacity_units(i64::from(read))
                .write_capacity_units(i64::from(write))
                .build()?;
            request.billing_mode(BillingMode::Provisioned).provisioned_throughput(throughput)
        }
    };
    for (key, value) in &settings.tags {
        request = request.tags(Tag::builder().key(key).value(value).build()?);
    }
    if settings.deletion_protection {
        request = request.deletion_protection_enabled(true);
    }
    if let Some(key) = &settings.kms_key {
        let encryption =
            SseSpecification::builder().enabled(true).sse_type(SseType::Kms).kms_master_key_id(key).build();
        request = request.sse_specification(encryption);
    }
    Ok(request)
}

/// The table exists and is something else.
pub(crate) fn foreign(call: &Call<'_>, why: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::TableForeign,
        call.operation,
        call.table,
        format!("not a lease table, whose key is the string {} alone: {why}", name::KEY),
    )
}

/// The service found fault with a request that holds nothing but the store's settings.
fn misconfigured<E>(call: &Call<'_>, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let said = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or("no reason given");
    let message = format!("the service refuses these table settings: {said}");
    StoreError::new(StoreErrorKind::Misconfigured, call.operation, call.table, message).with_source(error)
}

/// Whether the service found fault with the request itself; DynamoDB's calls do not model this error.
pub(crate) fn is_validation<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("ValidationException")
}
