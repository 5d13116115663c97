//! A configuration as TOML.

use std::fmt::Write as _;

use serde_json::Value;

use super::configuration::Configuration;
use super::key::{KEYS, Key, Kind, Presence};
use super::value::at;

impl Configuration {
    /// This configuration as TOML, with what differs from the defaults and what is required. The loader makes the same
    /// configuration of it, to the millisecond.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.to_commented_toml(|_| None)
    }

    /// The same, with a comment above the keys that have one.
    pub(super) fn to_commented_toml(&self, comment: impl Fn(&str) -> Option<String>) -> String {
        let (values, defaults) = (self.values(), Self::default().values());
        let (mut text, mut section) = (String::new(), "");
        for key in KEYS {
            let value = at(&values, key.path).filter(|value| !is_unlimited(key, value));
            let is_default = value == at(&defaults, key.path);
            let (comment, required) = (comment(key.path), key.presence == Presence::Required);
            let Some(value) = value.filter(|_| !is_default || required || comment.is_some()) else {
                continue;
            };
            let (its_section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if its_section != section {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "\n[{its_section}]");
                section = its_section;
            }
            for line in comment.iter().flat_map(|comment| comment.lines()) {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "{name} = {}", key.kind.written(value));
        }
        text
    }

    /// The values as they are serialised.
    pub(super) fn values(&self) -> Value {
        // Maps have texts as keys and numbers are finite, so that serialising cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Whether it is the largest number, which stands for no limit.
pub(super) fn is_unlimited(key: &Key, value: &Value) -> bool {
    key.presence == Presence::Optional
        && matches!(key.kind, Kind::Number { .. })
        && value.as_u64().is_some_and(|number| i64::try_from(number).is_err())
}
