//! The variants: each is the protocol without one of its rules.

use super::fleet::Config;

/// A rule that is removed from the core model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// R1: validity counts from the answer, not from the send.
    ValidFromAnswer,
    /// R1: the margin is too small: deliveries start a tick longer than others wait.
    MarginTooSmall,
    /// R1: the margin leaves out that clocks run at different rates.
    MarginWithoutDrift,
    /// R2: a sighting is stamped when the read was sent, not when its answer arrived.
    StampAtSend,
    /// R2: an observer counts by its own, shorter duration instead of that in the entry.
    OtherDuration,
    /// *evict* does not ask for the number that stood still.
    EvictUnconditionally,
    /// R3: a lease is taken from whoever owns it.
    NoEvidence,
    /// R3: the last view of the fleet row counts, however old it is.
    OldEvidence,
    /// R3: a view counts that was asked for before the lease was read, if it arrives afterwards.
    EvidenceAskedBefore,
    /// R3: a worker looks at its own row alone, whatever row the owner's id names.
    OwnRowOnly,
    /// *take* asks for neither owner nor counter.
    TakeUnconditionally,
    /// R5: a worker that a listing names as the owner starts without adopting.
    StartWithoutAdopting,
    /// R4: a donor gives a lease before it stops.
    GiveWithoutStopping,
    /// R10: an unanswered give or release counts as not done if a read shows the lease unchanged.
    SettleByReading,
    /// R10: an unanswered heartbeat is repeated with the same number.
    SameNumber,
    /// *heartbeat* does not ask for a smaller number, and one is on the wire twice.
    BeatUnconditionally,
    /// R10: an unanswered join is repeated under the same id and its validity counts from the repeat.
    RepeatedJoin,
    /// Ids: a worker joins again under the id it had.
    SameId,
    /// R7: the last member deletes its row without asking whether it is empty.
    DeleteUnconditionally,
    /// R5: a refused write is recognised as one's own by owner and counter, not by token.
    RecognisedByCounter,
    /// *checkpoint* asks for neither owner nor counter.
    CheckpointUnconditionally,
    /// R1: a lease is taken although a callback of an earlier hold still runs in this process.
    RestartBesideOld,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::ValidFromAnswer,
        Self::MarginTooSmall,
        Self::MarginWithoutDrift,
        Self::StampAtSend,
        Self::OtherDuration,
        Self::EvictUnconditionally,
        Self::NoEvidence,
        Self::OldEvidence,
        Self::EvidenceAskedBefore,
        Self::OwnRowOnly,
        Self::TakeUnconditionally,
        Self::StartWithoutAdopting,
        Self::GiveWithoutStopping,
        Self::SettleByReading,
        Self::SameNumber,
        Self::BeatUnconditionally,
        Self::RepeatedJoin,
        Self::SameId,
        Self::DeleteUnconditionally,
        Self::RecognisedByCounter,
        Self::CheckpointUnconditionally,
        Self::RestartBesideOld,
    ];

    /// The name for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ValidFromAnswer => "valid-from-answer",
            Self::MarginTooSmall => "margin-too-small",
            Self::MarginWithoutDrift => "margin-without-drift",
            Self::StampAtSend => "stamp-at-send",
            Self::OtherDuration => "other-duration",
            Self::EvictUnconditionally => "evict-unconditionally",
            Self::NoEvidence => "no-evidence",
            Self::OldEvidence => "old-evidence",
            Self::EvidenceAskedBefore => "evidence-asked-before",
            Self::OwnRowOnly => "own-row-only",
            Self::TakeUnconditionally => "take-unconditionally",
            Self::StartWithoutAdopting => "start-without-adopting",
            Self::GiveWithoutStopping => "give-without-stopping",
            Self::SettleByReading => "settle-by-reading",
            Self::SameNumber => "same-number",
            Self::BeatUnconditionally => "beat-unconditionally",
            Self::RepeatedJoin => "repeated-join",
            Self::SameId => "same-id",
            Self::DeleteUnconditionally => "delete-unconditionally",
            Self::RecognisedByCounter => "recognised-by-counter",
            Self::CheckpointUnconditionally => "checkpoint-unconditionally",
            Self::RestartBesideOld => "restart-beside-old",
        }
    }

    /// The property that must fall.
    #[must_use]
    pub const fn property(self) -> &'static str {
        match self {
            Self::RecognisedByCounter | Self::CheckpointUnconditionally => "CK",
            Self::RestartBesideOld => "DBL",
            _ => "L-1",
        }
    }

    /// The bounds within which it is refuted, and within which the unbroken rules are clean.
    #[must_use]
    pub const fn config(self) -> Config {
        match self {
            Self::MarginTooSmall
            | Self::OtherDuration
            | Self::NoEvidence
            | Self::OldEvidence
            | Self::EvidenceAskedBefore
            | Self::TakeUnconditionally => Config::SMALL,
            Self::MarginWithoutDrift => Config { moves: false, ..Config::DRIFT },
            Self::BeatUnconditionally => Config { in_flight: 1, ..Config::SMALL },
            Self::OwnRowOnly => Config { rows: 2, ..Config::SMALL },
            Self::SettleByReading => Config::LATE,
            Self::DeleteUnconditionally => Config { leave: true, ..Config::MOVES },
            Self::RecognisedByCounter => Config { moves: false, positions: 2, ..Config::LATE },
            Self::CheckpointUnconditionally => Config { positions: 2, ..Config::SMALL },
            Self::RestartBesideOld => Config { callbacks: true, rejoin: true, ..Config::SMALL },
            _ => Config::MOVES,
        }
    }

    /// The variant of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|broken| broken.name() == name)
    }
}
