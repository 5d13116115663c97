//! The KPL aggregated-record format: decode and encode, zero-copy, on bytes.
