//! Where a reader goes on.

use std::time::{Duration, SystemTime};

use crate::model::SequenceNumber;
use crate::plant::{Plant, planted};
use crate::source::StartFrom;

/// How much earlier than its opening a reader at [`StartFrom::Latest`] looks when it has to start again.
const LATEST_SLACK: Duration = Duration::from_secs(1);

/// The place of a reader in its shard: behind the last record it returned, or where it was told to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    from: StartFrom,
    opened: SystemTime,
    asked: bool,
    last: Option<SequenceNumber>,
}

impl Place {
    pub(crate) const fn new(from: StartFrom, opened: SystemTime) -> Self {
        Self { from, opened, asked: false, last: None }
    }

    /// What to ask the next iterator for. Call it once per request.
    ///
    /// `LATEST` is asked for once, right after the opening. Asked for again it would mean a later place, and
    /// what was put in between would be skipped; so from then on the time of the opening is asked for. It is
    /// this machine's time, hence the slack: records of the last second before the opening may come in addition,
    /// and none is missed unless this machine's clock is ahead of the service's by more than the slack.
    pub(crate) fn ask(&mut self, now: SystemTime) -> StartFrom {
        let first = !std::mem::replace(&mut self.asked, true);
        let Some(last) = self.last else {
            let elapsed = now.duration_since(self.opened).unwrap_or_default();
            return match self.from {
                StartFrom::Latest if first && elapsed < LATEST_SLACK => StartFrom::Latest,
                StartFrom::Latest => StartFrom::AtTimestamp(self.opened - LATEST_SLACK),
                from => from,
            };
        };
        if planted(Plant::ReopenAtLatest) {
            return StartFrom::Latest;
        }
        StartFrom::AfterSequence(last)
    }

    /// Whether the reader stands where its opener said, at a sequence number.
    pub(crate) const fn is_at_sequence(&self) -> bool {
        self.last.is_some() || matches!(self.from, StartFrom::AtSequence(_) | StartFrom::AfterSequence(_))
    }

    /// Whether the reader stands at the tip as of its opening, having seen no record.
    pub(crate) const fn is_at_latest(&self) -> bool {
        self.last.is_none() && matches!(self.from, StartFrom::Latest)
    }

    /// Moves behind a record that is about to be returned.
    pub(crate) const fn advance(&mut self, to: SequenceNumber) {
        self.last = Some(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn latest_is_asked_for_once_and_never_late() {
        let opened = SystemTime::UNIX_EPOCH + OPENED;
        let mut prompt = Place::new(StartFrom::Latest, opened);
        assert_eq!(prompt.ask(opened), StartFrom::Latest);
        let again = StartFrom::AtTimestamp(opened - LATEST_SLACK);
        assert_eq!(prompt.ask(opened + Duration::from_millis(1)), again);
        let mut late = Place::new(StartFrom::Latest, opened);
        assert_eq!(late.ask(opened + Duration::from_secs(2)), again);
    }

    #[test]
    fn other_beginnings_are_kept_until_a_record_was_returned() {
        let opened = SystemTime::UNIX_EPOCH + OPENED;
        for from in [
            StartFrom::TrimHorizon,
            StartFrom::AtTimestamp(opened),
            StartFrom::AtSequence(7.into()),
            StartFrom::AfterSequence(7.into()),
        ] {
            let mut place = Place::new(from, opened);
            assert_eq!(place.ask(opened), from);
            assert_eq!(place.ask(opened), from);
            place.advance(9.into());
            assert_eq!(place.ask(opened), StartFrom::AfterSequence(9.into()));
        }
    }
}
