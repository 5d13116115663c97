//! The KPL aggregated-record format: decode and encode, zero-copy, on bytes.

/// An inclusive range of 128-bit hash keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    /// The first hash key.
    pub start: u128,
    /// The last hash key.
    pub end: u128,
}
