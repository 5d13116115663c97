//! How busy this host is, for placement by load.
//!
//! [`HostLoad`] looks, in this order, at the CPU limit of the ECS task (if its metadata were read, see
//! [`HostLoad::with_cpus`]), at cgroup v2, at cgroup v1, and at the whole machine. Each look reads a few small files
//! of `/proc` and `/sys`, which never block for long; it is made every few seconds on the thread of the lease side.

mod cgroup;
mod ecs;
mod proc_stat;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use ecs::EcsTask;

/// Says how busy this host is.
pub trait LoadSource: Debug + Send + Sync + 'static {
    /// The share of the CPU limit in use since the last call, in thousandths; none if it is not known. Must not block
    /// for long: it is called on the thread of the lease side every few seconds.
    fn cpu(&self) -> Option<u16>;
}

/// A count of CPU time, and how many CPUs there are to use it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    used: Duration,
    cpus: f64,
}

/// What a file of the system should have said, and did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be understood: {text:?}")]
pub struct LoadError {
    what: &'static str,
    text: String,
}

impl LoadError {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(80).collect() }
    }
}

/// The CPU of this container or machine, by what Linux says. Knows nothing on other systems.
#[derive(Debug)]
pub struct HostLoad {
    root: PathBuf,
    cpus: Option<f64>,
    last: Mutex<Option<(Instant, Duration)>>,
}

impl Default for HostLoad {
    fn default() -> Self {
        Self::at("/")
    }
}

impl HostLoad {
    /// Reads the files of this system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads files below another root.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cpus: None, last: Mutex::new(None) }
    }

    /// Sets how many CPUs this worker may use, where the files do not say: an ECS task whose limit is that of all its
    /// containers together, see [`EcsTask`].
    #[must_use]
    pub const fn with_cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    fn read(&self) -> Option<Reading> {
        let reading = cgroup::v2(&self.root).or_else(|| cgroup::v1(&self.root));
        let mut reading = reading.or_else(|| proc_stat::machine(&self.root))?;
        if let Some(cpus) = self.cpus {
            reading.cpus = cpus;
        }
        (reading.cpus > 0.0).then_some(reading)
    }
}

impl LoadSource for HostLoad {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is clamped first")]
    fn cpu(&self) -> Option<u16> {
        let Reading { used, cpus } = self.read()?;
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, used_before) = last.replace((now, used))?;
        let passed = now.saturating_duration_since(before).as_secs_f64();
        if passed <= 0.0 {
            return None;
        }
        let share = used.saturating_sub(used_before).as_secs_f64() / (passed * cpus);
        Some((share.clamp(0.0, 1.0) * 1000.0).round() as u16)
    }
}

/// The text of a file below `root`, if it can be read.
#[allow(clippy::disallowed_methods, reason = "files of /proc and /sys are in memory")]
fn text(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path.trim_start_matches('/'))).ok()
}

/// Says what is wrong, once for each look; what cannot be understood counts as not there.
fn understood<T>(parsed: Result<T, LoadError>) -> Option<T> {
    parsed.map_err(|error| tracing::debug!(%error, "the load of this host")).ok()
}

/// How many CPUs the machine has.
#[allow(clippy::cast_precision_loss, reason = "no machine has that many CPUs")]
fn all_cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of files, gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("kcl-load-{}-{name}", std::process::id()));
            let this = Self(root);
            for (path, text) in files {
                this.write(path, text);
            }
            this
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_of_a_container_counts_from_one_look_to_the_next() {
        let root = Root::new(
            "v2",
            &[
                ("proc/self/cgroup", "0::/app\n"),
                ("sys/fs/cgroup/app/cpu.max", "200000 100000\n"),
                ("sys/fs/cgroup/app/cpu.stat", "usage_usec 1000000\nuser_usec 1\n"),
            ],
        );
        let load = HostLoad::at(&root.0);
        assert_eq!(load.cpu(), None, "there is nothing to compare with");
        tokio::time::advance(Duration::from_secs(2)).await;
        root.write("sys/fs/cgroup/app/cpu.stat", "usage_usec 2000000\n");
        assert_eq!(load.cpu(), Some(250), "one second of the four that two CPUs have");
        tokio::time::advance(Duration::from_secs(1)).await;
        root.write("sys/fs/cgroup/app/cpu.stat", "usage_usec 99000000\n");
        assert_eq!(load.cpu(), Some(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn version_one_and_the_machine_are_read_where_there_is_nothing_better() {
        let root = Root::new(
            "v1",
            &[
                ("proc/self/cgroup", "4:cpu,cpuacct:/docker/1\n"),
                ("sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpuacct/docker/1/cpuacct.usage", "1000000000\n"),
            ],
        );
        let load = HostLoad::at(&root.0);
        let _ = load.cpu();
        tokio::time::advance(Duration::from_secs(10)).await;
        root.write("sys/fs/cgroup/cpuacct/docker/1/cpuacct.usage", "2000000000\n");
        assert_eq!(load.cpu(), Some(200));
        let root = Root::new("machine", &[("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\ncpu1 1\n")]);
        let load = HostLoad::at(&root.0).with_cpus(2.0);
        let _ = load.cpu();
        tokio::time::advance(Duration::from_secs(1)).await;
        root.write("proc/stat", "cpu  150 0 150 900 0 0 0 0 0 0\n");
        assert_eq!(load.cpu(), Some(500));
    }

    #[test]
    fn what_is_not_there_or_makes_no_sense_is_not_known() {
        let root = Root::new("none", &[]);
        assert_eq!(HostLoad::at(&root.0).read(), None);
        root.write("proc/self/cgroup", "nonsense");
        root.write("proc/stat", "nonsense");
        assert_eq!(HostLoad::at(&root.0).read(), None);
    }
}
