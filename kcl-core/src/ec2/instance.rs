use std::fmt;

use crate::model::WorkerId;

/// Which instance this is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// Its id, for example `i-0123456789abcdef0`.
    pub id: String,
    /// Its region, for example `eu-west-1`.
    pub region: String,
}

impl Instance {
    pub(super) fn new(id: &str, region: &str) -> Result<Self, String> {
        let is_id = id.strip_prefix("i-").is_some_and(|digits| {
            matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        });
        if !is_id {
            return Err(format!("{:?} is not an instance id", cut(id)));
        }
        let is_region = (1..=32).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_region {
            return Err(format!("{:?} is not a region", cut(region)));
        }
        Ok(Self { id: id.to_owned(), region: region.to_owned() })
    }

    /// The id of the only worker on this instance: the instance's id.
    ///
    /// It is the same after a restart of the process. In a fleet that is of no consequence; with
    /// [`Coordination::PerLease`](crate::Coordination::PerLease) the worker goes on with its leases at once.
    #[must_use]
    pub fn worker_id(&self) -> WorkerId {
        WorkerId::new(self.id.clone())
    }

    /// The id of one of several workers on this instance: `i-0123456789abcdef0-SUFFIX`. Each needs its own suffix, for
    /// example its number.
    #[must_use]
    pub fn worker_id_with(&self, suffix: impl fmt::Display) -> WorkerId {
        WorkerId::new(format!("{}-{suffix}", self.id))
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_ids_begin_with_the_id_of_the_instance() {
        let instance = Instance::new("i-0123456789abcdef0", "us-gov-west-1").unwrap();
        assert_eq!(instance.worker_id().as_str(), "i-0123456789abcdef0");
        assert_eq!(instance.worker_id_with(2).as_str(), "i-0123456789abcdef0-2");
        assert!(Instance::new("i-12345678", "us-east-1").is_ok(), "ids were shorter once");
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for (id, region) in [("", "us-east-1"), ("<html>", "us-east-1"), ("i-0123456789abcdefg", "us-east-1")]
        {
            assert!(Instance::new(id, region).is_err(), "{id}");
        }
        for region in ["", "<html>", "us east 1"] {
            assert!(Instance::new("i-12345678", region).is_err(), "{region}");
        }
    }
}
