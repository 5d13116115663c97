//! An in-memory lease store for kcl-core.
