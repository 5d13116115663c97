//! The worker's variables.
//!
//! | variable | what | default |
//! |---|---|---|
//! | `KCL_STREAM` | name or ARN of the stream | required |
//! | `KCL_APPLICATION` | the application: names lease table, metrics and fan-out consumer | required |
//! | `KCL_COORDINATION` | `fleet` or `per-lease` | `fleet` |
//! | `KCL_RETRIEVAL` | `polling` or `fan-out` | `polling` |
//! | `KCL_DRAIN_SECONDS` | how long draining may take, 1 to 86,400 | `300` |
//! | `KCL_AUTO_SCALING_GROUP`, `KCL_LIFECYCLE_HOOK` | the group and its termination hook, both or none | none |
//!
//! Region, credentials and endpoints are those of the AWS SDK (`AWS_REGION`, …), the filter of the log is `RUST_LOG`.

use std::time::Duration;

use kcl_core::Coordination;

/// What the variables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) stream: String,
    pub(crate) application: String,
    pub(crate) coordination: Coordination,
    pub(crate) is_fan_out: bool,
    pub(crate) drain_deadline: Duration,
    /// Group and hook.
    pub(crate) lifecycle: Option<(String, String)>,
}

impl Settings {
    /// Reads them; the error lists everything that is wrong.
    pub(crate) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut problems = Vec::new();
        let value = |name: &str| variable(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let mut required = |name: &str| {
            value(name).unwrap_or_else(|| {
                problems.push(format!("{name} is not set"));
                String::new()
            })
        };
        let (stream, application) = (required("KCL_STREAM"), required("KCL_APPLICATION"));
        let mut choice = |name: &str, first: &str, second: &str| match value(name).as_deref() {
            None => false,
            Some(text) if text == first => false,
            Some(text) if text == second => true,
            Some(text) => {
                problems.push(format!("{name} is {text:?}; {first} or {second} is expected"));
                false
            }
        };
        let is_per_lease = choice("KCL_COORDINATION", "fleet", "per-lease");
        let is_fan_out = choice("KCL_RETRIEVAL", "polling", "fan-out");
        let drain = value("KCL_DRAIN_SECONDS").unwrap_or_else(|| "300".to_owned());
        let drain_seconds = drain.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
        if drain_seconds.is_none() {
            problems.push(format!("KCL_DRAIN_SECONDS is {drain:?}; 1 to 86400 is expected"));
        }
        let lifecycle = match (value("KCL_AUTO_SCALING_GROUP"), value("KCL_LIFECYCLE_HOOK")) {
            (Some(group), Some(hook)) => Some((group, hook)),
            (None, None) => None,
            _ => {
                problems.push("KCL_AUTO_SCALING_GROUP and KCL_LIFECYCLE_HOOK go together".to_owned());
                None
            }
        };
        if !problems.is_empty() {
            return Err(format!("the configuration makes no sense: {}", problems.join("; ")));
        }
        Ok(Self {
            stream,
            application,
            coordination: if is_per_lease { Coordination::PerLease } else { Coordination::Fleet },
            is_fan_out,
            drain_deadline: Duration::from_secs(drain_seconds.unwrap_or_default()),
            lifecycle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        Settings::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn two_variables_are_enough() {
        let settings = read(&[("KCL_STREAM", "orders"), ("KCL_APPLICATION", "orders-app")]).unwrap();
        assert_eq!((settings.stream.as_str(), settings.application.as_str()), ("orders", "orders-app"));
        assert_eq!(settings.coordination, Coordination::Fleet);
        assert_eq!(
            (settings.is_fan_out, settings.drain_deadline.as_secs(), settings.lifecycle),
            (false, 300, None)
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let error = read(&[
            ("KCL_STREAM", " "),
            ("KCL_COORDINATION", "Kcl3"),
            ("KCL_RETRIEVAL", "pull"),
            ("KCL_DRAIN_SECONDS", "0"),
            ("KCL_LIFECYCLE_HOOK", "drain"),
        ])
        .unwrap_err();
        for name in [
            "KCL_STREAM is not set",
            "KCL_APPLICATION is not set",
            "KCL_COORDINATION is \"Kcl3\"",
            "KCL_RETRIEVAL is \"pull\"",
            "KCL_DRAIN_SECONDS is \"0\"",
            "KCL_AUTO_SCALING_GROUP and",
        ] {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
