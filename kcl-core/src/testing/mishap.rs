//! What can go wrong between a worker and the services, by name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Fault, FaultRule, FaultyStore, MemoryStream, StoreOperation};
use crate::lease::{LeaseStore, StoreErrorKind};

macro_rules! mishaps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// Something that goes wrong, over and over, between one worker and the services.
        ///
        /// Named in text by words joined with hyphens: `"lost-answers".parse::<Mishap>()`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Mishap {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mishap {
            /// Every mishap.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }

            /// What goes wrong, in a sentence or two.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_start()),+
                }
            }
        }
    };
}

mishaps! {
    /// The lease table throttles calls.
    ThrottledLeases = "throttled-leases",
    /// The lease table fails calls, and it is open whether they were carried out. They were not.
    FailingLeases = "failing-leases",
    /// Lease writes are carried out and their answers lost.
    LostAnswers = "lost-answers",
    /// Lease writes seem lost and are carried out up to half a lease duration (of 10 s) later.
    LateWrites = "late-writes",
    /// Lease writes and listings hang for three seconds and are not carried out.
    HangingLeases = "hanging-leases",
    /// Listings of the lease table show what they showed up to three seconds ago.
    StaleLeases = "stale-leases",
    /// Lease calls take up to two seconds.
    SlowLeases = "slow-leases",
    /// The lease table cannot be reached; what is asked of it is not carried out.
    NoLeases = "no-leases",
    /// Reads are throttled, fail, or find their iterator expired.
    DisturbedReads = "disturbed-reads",
    /// The stream says now and then that it does not know a shard that is there.
    DeniedShards = "denied-shards",
    /// Calls to the stream hang for half a minute.
    HangingReads = "hanging-reads",
    /// The end of a shard names no children.
    HiddenChildren = "hidden-children",
    /// Every answer claims to be at the tip of its shard.
    LyingLag = "lying-lag",
    /// Listings of the stream's shards show what they showed up to ten seconds ago.
    StaleShards = "stale-shards",
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`Mishap`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no mishap is called {name:?}; there are: {}", names())]
pub struct UnknownMishap {
    name: String,
}

fn names() -> String {
    Mishap::ALL.iter().map(|mishap| mishap.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Mishap {
    type Err = UnknownMishap;

    fn from_str(name: &str) -> Result<Self, UnknownMishap> {
        let found = Self::ALL.iter().find(|mishap| mishap.name() == name);
        found.copied().ok_or_else(|| UnknownMishap { name: name.to_owned() })
    }
}

impl Mishap {
    /// Lets it befall this share of the calls, 0.0 to 1.0, that go through the store and the stream of a worker.
    ///
    /// Adds to what befalls them already, but for the stream's: there the latest share counts.
    pub fn befall<S: LeaseStore>(self, store: &FaultyStore<S>, stream: &MemoryStream, share: f64) {
        let second = Duration::from_secs(1);
        match self {
            Self::DisturbedReads => stream.disturb(share),
            Self::DeniedShards => stream.deny_shards(share),
            Self::HangingReads => stream.hang(share, second * 30),
            Self::HiddenChildren => stream.hide_children(share > 0.0),
            Self::LyingLag => stream.claim_behind((share > 0.0).then_some(Duration::ZERO)),
            Self::StaleShards => stream.list_stale(share, second * 10),
            _ => {
                if let Some(rule) = self.lease_rule(share) {
                    store.add(rule);
                }
            }
        }
    }

    /// The rule for this share of a store's calls, if it is a mishap of the lease table.
    pub(super) fn lease_rule(self, share: f64) -> Option<FaultRule> {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis(1));
        let writes = StoreOperation::WRITES;
        let rule = match self {
            Self::ThrottledLeases => FaultRule::new(Fault::Refuse(StoreErrorKind::Throttled)),
            Self::FailingLeases | Self::NoLeases => {
                FaultRule::new(Fault::Refuse(StoreErrorKind::Unavailable))
            }
            Self::LostAnswers => FaultRule::new(Fault::LoseAnswer).on(writes),
            Self::LateWrites => FaultRule::new(Fault::LandLate { delay: ms * 10..second * 5 }).on(writes),
            Self::HangingLeases => FaultRule::new(Fault::Hang(second * 3)).on([
                StoreOperation::Create,
                StoreOperation::Update,
                StoreOperation::Delete,
                StoreOperation::List,
                StoreOperation::ChangeFleet,
            ]),
            Self::StaleLeases => {
                FaultRule::new(Fault::Stale(second * 3)).on([StoreOperation::List, StoreOperation::FleetRow])
            }
            Self::SlowLeases => FaultRule::new(Fault::Delay { before: ms..second, after: ms..second }),
            Self::DisturbedReads
            | Self::DeniedShards
            | Self::HangingReads
            | Self::HiddenChildren
            | Self::LyingLag
            | Self::StaleShards => return None,
        };
        Some(rule.probability(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mishap_is_found_by_its_name_and_others_are_told_what_there_is() {
        for mishap in Mishap::ALL {
            assert_eq!(mishap.name().parse(), Ok(*mishap));
        }
        let error = "rain".parse::<Mishap>().unwrap_err().to_string();
        assert!(error.contains("\"rain\"") && error.contains("lost-answers"), "{error}");
    }
}
