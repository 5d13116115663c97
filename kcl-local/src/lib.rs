//! A local Kinesis, DynamoDB and CloudWatch for tests and first steps.

pub mod clock;
pub mod error;
pub mod kinesis;
