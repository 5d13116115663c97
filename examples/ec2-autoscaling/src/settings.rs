//! The worker's variables.
//!
//! | variable | what | default |
//! |---|---|---|
//! | `KCL_STREAM` | name or ARN of the stream | required |
//! | `KCL_APPLICATION` | the application: names lease table, metrics and fan-out consumer | required |
//! | `KCL_COORDINATION` | `fleet` or `per-lease` | `fleet` |
//! | `KCL_RETRIEVAL` | `polling` or `fan-out` | `polling` |
//! | `KCL_METRICS` | `no`, or `yes`: to CloudWatch, under the names of the KCL | `no` |
//! | `KCL_HTTP_PORT` | where probes and the status page are served, on this machine only | none |
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
    pub(crate) is_measured: bool,
    pub(crate) http_port: Option<u16>,
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
        let is_measured = choice("KCL_METRICS", "no", "yes");
        let port = value("KCL_HTTP_PORT");
        let http_port = port.as_deref().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        if let Some(port) = port.filter(|_| http_port.is_none()) {
            problems.push(format!("KCL_HTTP_PORT is {port:?}; 1 to 65535 is expected"));
        }
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
            is_measured,
            http_port,
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
            (
                settings.is_fan_out,
                settings.is_measured,
                settings.drain_deadline.as_secs(),
                settings.lifecycle
            ),
            (false, false, 300, None)
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let error = read(&[
            ("KCL_STREAM", " "),
            ("KCL_COORDINATION", "Kcl3"),
            ("KCL_RETRIEVAL", "pull"),
            ("KCL_METRICS", "true"),
            ("KCL_HTTP_PORT", "0"),
            ("KCL_DRAIN_SECONDS", "0"),
            ("KCL_LIFECYCLE_HOOK", "drain"),
        ])
        .unwrap_err();
        for name in [
            "KCL_STREAM is not set",
            "KCL_APPLICATION is not set",
            "KCL_COORDINATION is \"Kcl3\"",
            "KCL_RETRIEVAL is \"pull\"",
            "KCL_METRICS is \"true\"",
            "KCL_HTTP_PORT is \"0\"",
            "KCL_DRAIN_SECONDS is \"0\"",
            "KCL_AUTO_SCALING_GROUP and",
        ] {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
