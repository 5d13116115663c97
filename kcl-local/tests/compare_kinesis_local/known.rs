//! The known differences: the step and its reason.

/// Each step whose answers differ, and why that is right.
pub(crate) const DIFFERENCES: &[(&str, &str)] = &[];
