//! A Kinesis consumer framework: leases, lineage, delivery, checkpoints.
