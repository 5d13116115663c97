//! Amazon Kinesis Data Streams as a source, over the AWS SDK.
