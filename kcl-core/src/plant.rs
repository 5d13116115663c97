//! Bugs that can be switched on, to see that the tests would notice them.
//!
//! Each is a mistake somebody could make, at the place where it would be made. With the feature `plants`, which
//! only the simulator's tests switch on, one can be planted in the current thread; without it `planted` is
//! constantly false and the mistakes are compiled away.

macro_rules! plants {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// A bug to be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        #[cfg_attr(not(feature = "plants"), expect(unreachable_pub, reason = "public with `plants`"))]
        #[cfg_attr(not(feature = "plants"), allow(dead_code, reason = "some places are behind features, too"))]
        pub enum Plant {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "plants")]
        impl Plant {
            /// Every plant.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, in words joined by hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }
        }
    };
}

plants! {
    /// L-2: writes do not name the owner they expect.
    SkipOwnerCondition = "skip-owner-condition",
    /// L-2: writes do not name the counter they expect.
    SkipCounterCondition = "skip-counter-condition",
    /// L-2: a release without an answer counts as refused, because a read shows the row unchanged: the lease is
    /// worked on again, and the release lands.
    TrustReadAfterUnanswered = "trust-read-after-unanswered",
    /// L-2: a refused checkpoint is reported as stored.
    SwallowRefusedCheckpoint = "swallow-refused-checkpoint",
    /// L-1: validity counts from the answer to a write, not from before it was sent.
    ValidityFromAnswer = "validity-from-answer",
    /// L-1: a delivery starts as long as nobody said that the lease is lost.
    DeliverUntilToldLost = "deliver-until-told-lost",
    /// L-1: a lease that names this worker is worked on without a fencing write.
    AdoptWithoutFence = "adopt-without-fence",
    /// L-1: a lease taken from an owner that may be alive is worked on at once.
    StealStartsAtOnce = "steal-starts-at-once",
    /// L-1: a lease counts as expired after half of its duration.
    ExpireEarly = "expire-early",
    /// L-3: a lease is renewed although its consumer broke its promise to show life.
    RenewDeadConsumer = "renew-dead-consumer",
    /// S-1: a child starts when its first parent has ended, whatever the other does.
    IgnoreOneParent = "ignore-one-parent",
    /// S-1: a child does not look at its parents at all.
    IgnoreParents = "ignore-parents",
    /// S-1: a parent is marked as ended before its children have leases.
    ParentBeforeChildren = "parent-before-children",
    /// S-2: the children of a shard are those its last answer names, even if it names none.
    TrustNamedChildren = "trust-named-children",
    /// D-1: a shard that the source does not know just now counts as ended.
    MissingShardIsEnd = "missing-shard-is-end",
    /// D-1: a batch whose callback failed is passed over.
    SkipFailedBatch = "skip-failed-batch",
    /// D-1: reading goes on after the Kinesis record of the checkpoint, even in the middle of an aggregate.
    ResumeAfterAggregate = "resume-after-aggregate",
    /// D-1: a reader that has to start again does so at the tip.
    ReopenAtLatest = "reopen-at-latest",
    /// D-1: an event counts as taken once it came, whether or not there was room for it.
    AcceptWithoutRoom = "accept-without-room",
    /// D-2: records count as acknowledged as soon as they are handed over.
    CheckpointAheadOfAck = "checkpoint-ahead-of-ack",
    /// D-2: an old position overwrites a newer one.
    CheckpointGoesBack = "checkpoint-goes-back",
    /// P-1: a shard that is held again gets a second consumer while the first is still ending.
    TwoConsumers = "two-consumers",
    /// P-1: the processor is told of the shutdown after it was told of the end of its shard.
    CallAfterLast = "call-after-last",
    /// B-1: leases are asked for as long as somebody has more.
    NeverRest = "never-rest",
    /// a worker that stops leaves its leases to run out.
    LeaveWithoutRelease = "leave-without-release",
    /// M-1: reading ahead does not wait for the budget.
    IgnoreBudget = "ignore-budget",
    /// R1: the validity of a member counts from the answer to its heartbeat.
    HeartbeatFromAnswer = "heartbeat-from-answer",
    /// R2: a member is removed after half of its lease duration.
    EvictEarly = "evict-early",
    /// R2: time in which nothing was seen counts as time in which a heartbeat stood still.
    CreditBlindTime = "credit-blind-time",
    /// R3: any view of its row that lacks an owner proves that it is gone, however old.
    StaleAbsence = "stale-absence",
}

#[cfg(feature = "plants")]
mod switch {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs on this thread, in place of the one planted before.
    pub fn plant(plant: Option<Plant>) {
        PLANTED.set(plant);
    }

    pub(crate) fn planted(plant: Plant) -> bool {
        PLANTED.get() == Some(plant)
    }
}

#[cfg(feature = "plants")]
pub use switch::plant;
#[cfg(feature = "plants")]
pub(crate) use switch::planted;

#[cfg(not(feature = "plants"))]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}
