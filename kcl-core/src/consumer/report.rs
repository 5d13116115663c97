//! Parts of what a consumer shows of itself. Its loop writes some, its reader the others.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ShardReport;
use crate::model::Position;
use crate::source::SourceErrorKind;

/// A callback that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackReport {
    /// The method, for example `process_records`.
    pub name: &'static str,
    /// When it was called.
    pub since: Instant,
}

/// A step that failed and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryReport {
    /// How often it failed in a row.
    pub failures: u32,
    /// When it failed first.
    pub since: Instant,
    /// When it is tried again, if that is known.
    pub next_attempt: Option<Instant>,
    /// The latest error, with its causes.
    pub error: String,
}

/// A byte budget that can keep a reader from reading on (M-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Budget {
    /// The shard's: [`Settings::shard_buffer_bytes`](crate::Settings::shard_buffer_bytes).
    Shard,
    /// The worker's, which all its shards share:
    /// [`Settings::worker_buffer_bytes`](crate::Settings::worker_buffer_bytes).
    Worker,
}

/// What the reader of a shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReaderActivity {
    /// It was not told to read yet, or no longer.
    Off,
    /// It waits for an answer of the source.
    Asking,
    /// It has read as far ahead as this budget allows.
    HeldUp(Budget),
    /// An attempt failed; the next is due then.
    Resting {
        /// When.
        until: Instant,
    },
    /// It has nothing more to read: the shard has ended, is gone, or is given up.
    Finished,
}

/// What the reader of a shard shows of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReaderReport {
    /// What it does.
    pub activity: ReaderActivity,
    /// Since when; while it asks, since the latest answer. A reader that is built anew because the source was silent
    /// goes on counting.
    pub since: Instant,
    /// How often reading failed since the latest success.
    pub failures: u32,
    /// When the first of these failures was.
    pub failing_since: Option<Instant>,
    /// The latest of them, with its causes; also the silence after which the reader was built anew.
    pub error: Option<String>,
    /// Its kind.
    pub error_kind: Option<SourceErrorKind>,
    /// Why the shard is polled although it was to be subscribed to, if it is.
    pub fallback: Option<String>,
    /// Since when every answer came from the tip and without records.
    pub quiet_since: Option<Instant>,
    /// The smallest lag since the tip was reached or records came, in milliseconds, and when that was.
    pub least_behind: Option<(u64, Instant)>,
}

impl ReaderReport {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            activity: ReaderActivity::Off,
            since: now,
            failures: 0,
            failing_since: None,
            error: None,
            error_kind: None,
            fallback: None,
            quiet_since: None,
            least_behind: None,
        }
    }

    /// Notes what the reader does now.
    pub(super) fn does(&mut self, activity: ReaderActivity, now: Instant) {
        if self.activity != activity {
            (self.activity, self.since) = (activity, now);
        }
    }

    /// Notes failures in a row, of which the latest is this one; none with 0.
    pub(super) fn fails(&mut self, failures: u32, error: Option<(String, SourceErrorKind)>, now: Instant) {
        self.failures = failures;
        self.failing_since = (failures > 0).then(|| self.failing_since.unwrap_or(now));
        (self.error, self.error_kind) = error.unzip();
    }

    /// Notes an answer and how far it was behind the tip, if the source said so.
    pub(super) fn answered(&mut self, has_records: bool, behind: Option<Duration>, now: Instant) {
        self.since = now;
        let behind = behind.map(millis).unwrap_or_default();
        let is_quiet = !has_records && behind == 0 && self.failures == 0;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        self.least_behind = match self.least_behind {
            _ if behind == 0 => None,
            Some((least, at)) if !has_records && behind >= least => Some((least, at)),
            _ => Some((behind, now)),
        };
    }
}

/// Changes a report without waking anybody: whoever looks at it sees the change, and nobody waits for it.
pub(super) fn note(report: &watch::Sender<ShardReport>, change: impl FnOnce(&mut ShardReport)) {
    report.send_if_modified(|report| {
        change(report);
        false
    });
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first and the last position of a batch.
pub(super) type BatchEnds = (Position, Position);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_quiet_from_the_first_empty_answer_at_the_tip_until_records_lag_or_failures() {
        let start = Instant::now();
        let mut reader = ReaderReport::new(start);
        reader.answered(true, Some(Duration::ZERO), after(1, start));
        assert_eq!(reader.quiet_since, None);
        for seconds in [2, 3, 9] {
            reader.answered(false, None, after(seconds, start));
            assert_eq!(reader.quiet_since, Some(after(2, start)));
        }
        reader.answered(false, Some(Duration::from_secs(1)), after(10, start));
        assert_eq!(reader.quiet_since, None);
        reader.fails(1, Some(("slow down".into(), SourceErrorKind::Throttled)), after(11, start));
        reader.answered(false, None, after(11, start));
        assert_eq!(reader.quiet_since, None, "an answer that only says that nothing failed for good");
        reader.fails(2, Some(("slow down".into(), SourceErrorKind::Throttled)), after(12, start));
        assert_eq!(reader.failing_since, Some(after(11, start)));
        reader.fails(0, None, after(13, start));
        assert_eq!((reader.failing_since, reader.error, reader.error_kind), (None, None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_smallest_lag_is_remembered_until_records_come_or_the_tip_is_reached() {
        let start = Instant::now();
        let mut reader = ReaderReport::new(start);
        let lag = |seconds| Some(Duration::from_secs(seconds));
        reader.answered(false, lag(50), after(1, start));
        reader.answered(false, lag(40), after(2, start));
        reader.answered(false, lag(45), after(3, start));
        assert_eq!(reader.least_behind, Some((40_000, after(2, start))));
        reader.answered(true, lag(46), after(4, start));
        assert_eq!(reader.least_behind, Some((46_000, after(4, start))));
        reader.answered(false, lag(0), after(5, start));
        assert_eq!(reader.least_behind, None);
    }
}
