//! An in-memory lease store for kcl-core.
//!
//! [`MemoryLeaseStore`] keeps lease rows in a map of this process. It serves tests, simulations and
//! applications of a single process that need no memory across restarts. Several workers of one process can
//! share it: clones keep the same rows. Workers of different processes cannot.

mod rows;
mod size;
mod store;

pub use store::MemoryLeaseStore;
