//! `.properties` files of the Java KCL (its MultiLangDaemon).
//!
//! [`keys`] is the closed table of what such a file can hold. [`convert_properties`] reads a file by it and says what
//! became of each key; nothing is ignored without a word. Where the Java KCL takes a default for a value it does not
//! understand, a wrong value is an error here.

mod convert;
mod credentials;
mod keys;
mod read;
mod report;

pub use convert::{Conversion, convert_properties};
#[cfg(test)]
pub(super) use keys::{JAVA_KEYS, java_names};
pub use report::{Assumption, PropertiesReport, PropertyEntry, PropertyTreatment};
