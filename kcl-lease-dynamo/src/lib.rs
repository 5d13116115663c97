//! A DynamoDB lease store for kcl-core, in the table format of the Amazon KCL.
