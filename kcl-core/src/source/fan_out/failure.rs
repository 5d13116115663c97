//! What a failed subscription means.

use crate::source::SourceError;

/// What went wrong, by what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody holds, or just opened, a subscription of this consumer and shard.
    InUse,
    /// The service asks to call or to read more slowly.
    Throttled,
    /// The service failed, or the connection did: refused, reset, gone away.
    Unavailable,
    /// Bytes came that are no events: a frame that is cut off or corrupt, a record nobody can read.
    Corrupt,
    /// Nothing came for too long.
    Silent,
    /// Something is not there: shard, stream or consumer. Which of them takes a second look.
    Missing,
    /// The second look found what is not there; the error says what.
    Gone,
    /// Somebody has to grant or configure something.
    Denied,
    /// An argument has the right form and does not fit: a sequence number of another stream, a time to come.
    Argument,
    /// The request or the answer is wrong.
    Invalid,
}

/// How long to wait before the next subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// As long as the service wants between two subscriptions of a shard.
    Rule,
    /// Longer each time.
    Growing,
}

/// Who deals with the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The reader, by subscribing again; it counts the failure.
    Absorb,
    /// The reader, unless the service stays silent again and again.
    AbsorbForNow,
    /// A second look says what it really is.
    LookAgain,
    /// The position decides: what does not fit may be a sequence number, or the time of a `LATEST` start.
    AskPosition,
    /// Whoever reads.
    Report,
}

/// What a class of failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaction {
    pub(super) pause: Pause,
    pub(super) then: Then,
    /// Whether the service, or the network, said something: then the reader goes on giving signs of life.
    pub(super) is_answer: bool,
    /// Whether all subscriptions of the worker are to be opened more slowly.
    pub(super) slows: bool,
    /// Whether nothing more is to be asked of the connection.
    pub(super) condemns: bool,
}

impl Class {
    /// For metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Silent => "silent",
            Self::Missing | Self::Gone => "missing",
            Self::Denied => "denied",
            Self::Argument | Self::Invalid => "invalid",
        }
    }

    /// The table. It holds whenever the failure comes: while opening, before the first event, between events.
    pub(super) const fn reaction(self) -> Reaction {
        const RETRY: Reaction = Reaction {
            pause: Pause::Growing,
            then: Then::Absorb,
            is_answer: true,
            slows: false,
            condemns: false,
        };
        match self {
            Self::InUse => Reaction { pause: Pause::Rule, ..RETRY },
            Self::Throttled => Reaction { slows: true, ..RETRY },
            Self::Unavailable => RETRY,
            Self::Corrupt => Reaction { condemns: true, ..RETRY },
            Self::Silent => Reaction { then: Then::AbsorbForNow, is_answer: false, condemns: true, ..RETRY },
            Self::Missing => Reaction { then: Then::LookAgain, ..RETRY },
            Self::Argument => Reaction { then: Then::AskPosition, ..RETRY },
            Self::Gone | Self::Denied | Self::Invalid => Reaction { then: Then::Report, ..RETRY },
        }
    }
}

/// A failed subscription, or a failed step towards one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    pub(crate) error: SourceError,
}
