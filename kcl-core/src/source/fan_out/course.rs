//! Where the next subscription starts, when it may be opened, and what a failure means.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::failure::{Class, Failure, Pause, Then};
use crate::entropy::Entropy;
use crate::model::SequenceNumber;
use crate::retry::Backoff;
use crate::source::place::Place;
use crate::source::{SourceError, SourceErrorKind, StartFrom};

/// The service refuses a second subscription of the same consumer and shard this long after one it took; later, the
/// second one takes over. Source: API reference of `SubscribeToShard`.
pub(super) const RULE: Duration = Duration::from_secs(5);
/// The service takes one call per consumer and shard in this time, refused ones included. Source: ibid.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the service keeps a subscription open. Source: ibid.
const SESSION: Duration = Duration::from_secs(300);
/// The least part of a session that a subscription lasts that is ended early.
const SHORTEST_SHARE: f64 = 0.1;
/// How long to wait, about, when somebody else's subscription is in the way: how much of its five seconds is over
/// nobody knows.
const IN_USE_PAUSE: Duration = Duration::from_secs(1);
/// From how many refusals in a row on the pause grows: somebody else reads the shard by the same consumer.
const IN_USE_PATIENCE: u32 = 8;
/// The delays after other failures.
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often in a row the service may be silent before whoever reads is told.
const MAX_SILENCES: u32 = 3;

/// What to do after a failure.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Subscribe again when it is time.
    Retry,
    /// The same, and whoever reads is told.
    Report(SourceError),
}

/// The course of one reader through its shard: all that outlives a subscription.
#[derive(Debug)]
pub(super) struct Course {
    place: Place,
    entropy: Entropy,
    backoff: Backoff,
    /// When the service took the latest subscription.
    opened: Option<Instant>,
    /// No subscription before.
    ready: Instant,
    /// Whether the latest subscription brought an event.
    has_progressed: bool,
    /// Whether the next subscription takes over from one that ended in order, so that its end falls on the same
    /// moment of the five minutes.
    is_relay: bool,
    refusals: u32,
    silences: u32,
    failures: u32,
    latest: Option<Arc<SourceError>>,
}

impl Course {
    pub(super) fn new(from: StartFrom, wall: SystemTime, now: Instant, entropy: Entropy) -> Self {
        Self {
            place: Place::new(from, wall),
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX, entropy.fork()),
            entropy,
            opened: None,
            ready: now,
            has_progressed: false,
            is_relay: false,
            refusals: 0,
            silences: 0,
            failures: 0,
            latest: None,
        }
    }

    /// When the next subscription may be opened.
    pub(super) const fn ready(&self) -> Instant {
        self.ready
    }

    /// How many failures in a row were absorbed since the last event, and the latest of them.
    pub(super) fn absorbed(&self) -> Option<(u32, Arc<SourceError>)> {
        self.latest.as_ref().map(|latest| (self.failures, Arc::clone(latest)))
    }

    /// Where the subscription that is opened now starts. Call it once per subscription.
    pub(super) fn start(&mut self, wall: SystemTime, now: Instant) -> StartFrom {
        self.has_progressed = false;
        self.ready = now + CALL_INTERVAL;
        self.place.ask(wall)
    }

    /// The service took the subscription. Returns when to end it early, if at all.
    ///
    /// Readers that started together would be cut off together by the service every five minutes, and have to
    /// subscribe again all at once. So each subscription that does not take over from one that ended in order lasts
    /// a random part of the five minutes; from then on the ends of all readers are spread evenly.
    pub(super) fn opened(&mut self, now: Instant) -> Option<Instant> {
        self.opened = Some(now);
        self.ready = now + RULE;
        if std::mem::replace(&mut self.is_relay, false) {
            return None;
        }
        let share = SHORTEST_SHARE + (1.0 - SHORTEST_SHARE) * self.entropy.unit();
        Some(now + SESSION.mul_f64(share))
    }

    /// An event is in the buffer: later subscriptions start after it.
    pub(super) fn accepted(&mut self, continuation: Option<SequenceNumber>) {
        if let Some(number) = continuation {
            self.place.advance(number);
        }
        self.has_progressed = true;
        (self.refusals, self.silences, self.failures, self.latest) = (0, 0, 0, None);
        self.backoff.reset();
    }

    /// The subscription ended in order. Returns false, and changes nothing, if it brought nothing: taken for
    /// progress, that could be repeated for ever.
    pub(super) const fn ended(&mut self) -> bool {
        self.is_relay = self.has_progressed;
        self.has_progressed
    }

    /// The subscription failed, or a step towards one did.
    pub(super) fn failed(&mut self, now: Instant, failure: Failure) -> Verdict {
        let reaction = failure.class.reaction();
        self.is_relay = false;
        let delay = match reaction.pause {
            Pause::Rule if self.refusals < IN_USE_PATIENCE => {
                self.refusals += 1;
                self.entropy.jitter(IN_USE_PAUSE)
            }
            Pause::Rule | Pause::Growing => self.backoff.next_delay(),
        };
        self.ready = self.ready.max(now + delay);
        if failure.class == Class::Silent {
            self.silences += 1;
        }
        let reported = match reaction.then {
            Then::Report => true,
            Then::AbsorbForNow => self.silences >= MAX_SILENCES,
            Then::Absorb | Then::LookAgain => false,
            // The service's clock has not reached the time of the opening yet. It will.
            Then::AskPosition => !self.place.is_at_latest(),
        };
        if reported {
            self.silences = 0;
            return Verdict::Report(self.reported(failure));
        }
        self.failures = self.failures.saturating_add(1);
        self.latest = Some(Arc::new(failure.error));
        Verdict::Retry
    }

    fn reported(&self, failure: Failure) -> SourceError {
        if failure.class == Class::Argument && self.place.is_at_sequence() {
            let message = "the shard does not know the sequence number it was asked for; correct the checkpoint of its \
                           lease, or delete the lease to start over";
            let (operation, resource) = (failure.error.operation(), failure.error.resource().to_owned());
            let kind = SourceErrorKind::PositionUnknown;
            return SourceError::new(kind, operation, resource, message).with_source(failure.error);
        }
        failure.error
    }
}
