//! A worker in a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use integration_tests::line::Line;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::Link;

/// The lines of all workers, those of each in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<Vec<(&'static str, Line)>>>);

impl Book {
    pub(crate) fn lines(&self) -> MutexGuard<'_, Vec<(&'static str, Line)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often this worker told something of the kind.
    pub(crate) fn count(&self, name: &str, is: impl Fn(&Line) -> bool) -> usize {
        self.lines().iter().filter(|(worker, line)| *worker == name && is(line)).count()
    }
}

/// A process. It is killed with its owner.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) link: Link,
    process: Child,
    pid: Pid,
    reading: JoinSet<()>,
}

impl Worker {
    pub(crate) async fn start(
        name: &'static str,
        aws: SocketAddr,
        lease_duration: Duration,
        checkpoint_interval: Duration,
        book: &Book,
    ) -> Self {
        let link = Link::to(aws).await;
        let mut process = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["--name", name, "--kinesis", &format!("http://{aws}"), "--dynamodb", &link.url()])
            .args(["--lease-duration", &lease_duration.as_millis().to_string()])
            .args(["--checkpoint-interval", &checkpoint_interval.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        let mut reading = JoinSet::new();
        reading.spawn(read(name, process.stdout.take().unwrap(), book.clone()));
        Self { link, process, pid, reading }
    }

    /// Sends a signal. The process is not waited for before its end, so the number is its own.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end of the process, and until everything it wrote is read.
    pub(crate) async fn ended(mut self, limit: Duration) -> ExitStatus {
        let status = timeout(limit, self.process.wait()).await.expect("the process ends in time").unwrap();
        while let Some(read) = self.reading.join_next().await {
            read.unwrap();
        }
        status
    }
}

async fn read(name: &'static str, stdout: ChildStdout, book: Book) {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    // Half a line is what a killed process did not get to write.
    while stdout.read_line(&mut line).await.unwrap() > 0 && line.ends_with('\n') {
        book.lines().push((name, line.trim_end().parse().unwrap()));
        line.clear();
    }
}
