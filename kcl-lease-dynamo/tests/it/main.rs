//! The DynamoDB lease store over the real SDK client and the local DynamoDB.

mod conformance;
mod errors;
mod java;
mod rows;
mod support;
mod table;
