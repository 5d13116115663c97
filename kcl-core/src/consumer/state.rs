//! What a consumer does next: a pure function of what is the case.

use super::{Order, Stage};

/// What there is to hand to the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing yet.
    Nothing,
    /// A batch.
    Batch,
    /// The end of the shard; every batch before it is acknowledged.
    End,
}

/// What is the case between two callbacks.
///
/// The consumer asks for the stage whenever no callback runs. There are no transitions to get wrong: whatever
/// happened meanwhile, in whatever order, shows in the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The lease is lost.
    pub(super) lost: bool,
    /// What is asked: by the supervisor, by the holder of the next lease, by the error policy.
    pub(super) order: Order,
    /// Every parent's end is stored.
    pub(super) parents_done: bool,
    /// `initialize` succeeded.
    pub(super) initialized: bool,
    /// What there is to hand to the processor.
    pub(super) work: Work,
    /// The last callback failed and its next attempt is not due.
    pub(super) resting: bool,
    /// The lease can be proven valid right now.
    pub(super) provable: bool,
}

impl Facts {
    /// The stage that follows from the facts.
    pub(super) const fn stage(self) -> Stage {
        if self.lost {
            return Stage::Losing;
        }
        match self.order {
            Order::Drain => return Stage::Draining,
            _ if !self.parents_done => return Stage::WaitingForParents,
            Order::Pause => return Stage::Paused,
            Order::Run => {}
        }
        match (self.initialized, self.work, self.resting, self.provable) {
            (true, Work::Nothing, _, _) => Stage::Fetching,
            (true, Work::Batch, true, _) => Stage::Retrying,
            (_, _, _, false) => Stage::Fenced,
            (false, _, _, true) => Stage::Initializing,
            (true, Work::Batch, false, true) => Stage::Delivering,
            (true, Work::End, _, true) => Stage::Ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_case() -> impl Iterator<Item = Facts> {
        (0..32u8).flat_map(|bits| {
            let bit = move |index: u8| bits & (1 << index) != 0;
            [Order::Run, Order::Pause, Order::Drain].into_iter().flat_map(move |order| {
                [Work::Nothing, Work::Batch, Work::End].map(|work| Facts {
                    lost: bit(0),
                    order,
                    parents_done: bit(1),
                    initialized: bit(2),
                    work,
                    resting: bit(3),
                    provable: bit(4),
                })
            })
        })
    }

    #[test]
    fn loss_comes_before_orders_and_orders_before_everything_else() {
        for facts in every_case() {
            let stage = facts.stage();
            assert_eq!(stage == Stage::Losing, facts.lost, "{facts:?}");
            assert_eq!(stage == Stage::Draining, !facts.lost && facts.order == Order::Drain, "{facts:?}");
        }
    }

    #[test]
    fn nothing_is_handed_to_a_processor_unless_every_promise_allows_it() {
        for facts in every_case() {
            let calls_processor =
                matches!(facts.stage(), Stage::Initializing | Stage::Delivering | Stage::Ending);
            let allowed = !facts.lost
                && facts.order == Order::Run
                && facts.parents_done // S-1
                && facts.provable; // L-1
            assert!(!calls_processor || allowed, "{facts:?} -> {:?}", facts.stage());
        }
    }

    #[test]
    fn callbacks_come_in_legal_order_and_each_when_it_is_due() {
        for facts in every_case() {
            match facts.stage() {
                Stage::Initializing => assert!(!facts.initialized, "{facts:?}"),
                Stage::Delivering => {
                    assert!(facts.initialized && facts.work == Work::Batch && !facts.resting, "{facts:?}");
                }
                Stage::Ending => assert!(facts.initialized && facts.work == Work::End, "{facts:?}"),
                Stage::Retrying => assert!(facts.resting && facts.work == Work::Batch, "{facts:?}"),
                Stage::Fetching => assert!(facts.initialized && facts.work == Work::Nothing, "{facts:?}"),
                Stage::Fenced => assert!(!facts.provable, "{facts:?}"),
                Stage::Paused => assert_eq!(facts.order, Order::Pause, "{facts:?}"),
                Stage::WaitingForParents => assert!(!facts.parents_done, "{facts:?}"),
                Stage::Losing | Stage::Draining => {}
                Stage::Done => panic!("facts never say that a consumer is done: {facts:?}"),
            }
        }
    }

    #[test]
    fn a_shard_that_may_run_and_has_work_is_never_left_waiting() {
        for facts in every_case() {
            let free = !facts.lost
                && facts.order == Order::Run
                && facts.parents_done
                && facts.provable
                && !facts.resting
                && (!facts.initialized || facts.work != Work::Nothing);
            if free {
                let stage = facts.stage();
                let works = matches!(stage, Stage::Initializing | Stage::Delivering | Stage::Ending);
                assert!(works, "{facts:?} -> {stage:?}");
            }
        }
    }
}
