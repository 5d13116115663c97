//! The whole machine, by `/proc/stat`.

use std::path::Path;
use std::time::Duration;

use super::{LoadError, Reading, all_cpus, text, understood};

/// How many ticks a second of CPU time has in `/proc/stat`; the kernel shows it so on every architecture of Linux
/// that matters (`USER_HZ`).
const TICKS: u64 = 100;

pub(super) fn machine(root: &Path) -> Option<Reading> {
    let used = understood(parse(&text(root, "proc/stat")?))?;
    Some(Reading { used, cpus: all_cpus() })
}

/// The time all CPUs were busy: everything of the first line but `idle` and `iowait`; `guest` times are in `user`.
fn parse(text: &str) -> Result<Duration, LoadError> {
    let bad = || LoadError::new("/proc/stat", text);
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or_else(bad)?;
    let numbers: Vec<u64> =
        line.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = numbers[..] else {
        return Err(bad());
    };
    let ticks = [user, nice, system, irq, softirq, steal].into_iter().fold(0, u64::saturating_add);
    Ok(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count() {
        let text = "cpu  10132153 290696 3084719 46828483 16683 0 25195 0 0 0\ncpu0 1393280 32966\nintr 1\n";
        let busy = 10_132_153 + 290_696 + 3_084_719 + 25_195;
        assert_eq!(parse(text), Ok(Duration::from_millis(busy * 10)));
        for bad in ["", "cpu0 1 2", "cpu  1 2 3", "cpu  a b c d e f g h"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
