//! A local Kinesis, DynamoDB and CloudWatch for tests and first steps.
