//! Tools for tests. Outside semver.
