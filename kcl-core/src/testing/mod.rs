//! Tools for tests. Outside semver.

mod stream;

pub use stream::{MemoryStream, StreamCall};
