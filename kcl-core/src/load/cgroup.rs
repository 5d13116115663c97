//! Control groups of Linux: what a container may use of the CPU, and has used.

use std::path::Path;
use std::time::Duration;

use super::{LoadError, Reading, all_cpus, text, understood};

/// Version 2: one hierarchy, `cpu.max` and `cpu.stat`.
pub(super) fn v2(root: &Path) -> Option<Reading> {
    let own = text(root, "proc/self/cgroup")?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Inside a container the path is often that of the host, and the files are at the mount point.
    let dir = [format!("sys/fs/cgroup{group}"), "sys/fs/cgroup".to_owned()]
        .into_iter()
        .find(|dir| text(root, &format!("{dir}/cpu.stat")).is_some())?;
    let used = understood(parse_usage(&text(root, &format!("{dir}/cpu.stat"))?))?;
    let limit = text(root, &format!("{dir}/cpu.max"));
    let cpus = limit.and_then(|limit| understood(parse_max(&limit))).flatten().unwrap_or_else(all_cpus);
    Some(Reading { used, cpus })
}

/// Version 1: a hierarchy for each controller.
pub(super) fn v1(root: &Path) -> Option<Reading> {
    let own = text(root, "proc/self/cgroup")?;
    let group_of = |controller: &str| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, group) = rest.split_once(':')?;
            controllers
                .split(',')
                .any(|name| name == controller)
                .then(|| group.trim_end_matches('/').to_owned())
        })
    };
    let file = |controller: &str, name: &str| {
        let group = group_of(controller).unwrap_or_default();
        text(root, &format!("sys/fs/cgroup/{controller}{group}/{name}"))
            .or_else(|| text(root, &format!("sys/fs/cgroup/{controller}/{name}")))
    };
    let used = understood(number("cpuacct.usage", &file("cpuacct", "cpuacct.usage")?))?;
    let quota = file("cpu", "cpu.cfs_quota_us").and_then(|text| understood(signed(&text)));
    let period = file("cpu", "cpu.cfs_period_us").and_then(|text| understood(signed(&text)));
    let cpus = match (quota, period) {
        (Some(quota), Some(period)) if quota > 0.0 && period > 0.0 => quota / period,
        _ => all_cpus(),
    };
    Some(Reading { used: Duration::from_nanos(used), cpus })
}

/// `cpu.max`: `<quota> <period>`, or `max <period>` without a limit.
fn parse_max(text: &str) -> Result<Option<f64>, LoadError> {
    let bad = || LoadError::new("cpu.max", text);
    let mut parts = text.split_whitespace();
    let quota = parts.next().ok_or_else(bad)?;
    if quota == "max" {
        return Ok(None);
    }
    let quota: f64 = quota.parse().map_err(|_| bad())?;
    let period: f64 = parts.next().unwrap_or("100000").parse().map_err(|_| bad())?;
    if quota > 0.0 && period > 0.0 { Ok(Some(quota / period)) } else { Err(bad()) }
}

/// The `usage_usec` of `cpu.stat`.
fn parse_usage(text: &str) -> Result<Duration, LoadError> {
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let usage = usage.ok_or_else(|| LoadError::new("cpu.stat", text))?;
    number("cpu.stat", usage).map(Duration::from_micros)
}

fn number(what: &'static str, text: &str) -> Result<u64, LoadError> {
    text.trim().parse().map_err(|_| LoadError::new(what, text))
}

fn signed(text: &str) -> Result<f64, LoadError> {
    text.trim().parse::<i64>().map(|number| number as f64).map_err(|_| LoadError::new("cpu.cfs", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_max("150000 100000\n"), Ok(Some(1.5)));
        assert_eq!(parse_max("max 100000\n"), Ok(None));
        assert_eq!(parse_max("50000\n"), Ok(Some(0.5)));
        for bad in ["", "x 1", "1 x", "0 100000", "100 0"] {
            assert!(parse_max(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn usage_is_read_from_among_the_other_counters() {
        let text = "usage_usec 27182818\nuser_usec 20000000\nsystem_usec 7182818\nnr_periods 0\n";
        assert_eq!(parse_usage(text), Ok(Duration::from_micros(27_182_818)));
        assert!(parse_usage("user_usec 1\n").is_err());
        let error = parse_usage("usage_usec -1").unwrap_err().to_string();
        assert!(error.contains("cpu.stat"), "{error}");
    }
}
