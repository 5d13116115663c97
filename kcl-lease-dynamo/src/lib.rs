//! A DynamoDB lease store for kcl-core, in the table format of the Amazon KCL.
//!
//! [`DynamoLeaseStore`] keeps one item per lease in a table whose partition key is `leaseKey`. Items have the
//! attributes of the Java KCL, so that its tools, and workers of KCL 2.x, can share the table. Four attributes
//! are ours: `attemptToken`, `handOverRequest`, `startTimestampMillis` and `streamIdentity`. Writes change
//! named attributes only; whatever else an item holds stays as it is. Items of other kinds, which KCL 3.x keeps
//! in the same table, are reported and never written.
//!
//! ```no_run
//! # fn example(client: aws_sdk_dynamodb::Client) {
//! use kcl_lease_dynamo::{DynamoLeaseStore, TableMode, TableSettings};
//!
//! let table = TableSettings::new().tag("team", "orders").point_in_time_recovery(true);
//! let store = DynamoLeaseStore::new(client, "orders-app").with_table_mode(TableMode::CreateIfMissing(table));
//! # }
//! ```
//!
//! # Rights
//! | what for | rights on the lease table |
//! |---|---|
//! | always | `dynamodb:GetItem`, `PutItem`, `UpdateItem`, `DeleteItem`, `Scan` |
//! | [`TableMode::CreateIfMissing`] | and `DescribeTable`, `CreateTable`, with tags `TagResource` |
//! | [`TableSettings::point_in_time_recovery`] | and `UpdateContinuousBackups` |
//!
//! Unless switched off by [`DynamoLeaseStore::without_legacy_probe`], `GetItem` is also needed on the table
//! `<lease table>-CoordinatorState`, whether or not it exists.

mod classify;
mod client;
#[cfg(feature = "config")]
mod configured;
mod expr;
mod fleet;
#[cfg(test)]
mod fuzz;
mod items;
mod meter;
mod probe;
mod schema;
mod settings;
mod store;
mod table;

pub use items::{Item, ItemPage, ItemWrite, StoredRow};
pub use settings::{Billing, TableMode, TableSettings};
pub use store::DynamoLeaseStore;
