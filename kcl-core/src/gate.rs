//! A switch that holds tasks of one worker as they are, as a stopped process would: how tests stall workers.
//!
//! Without the feature `test-util` there is nothing to switch, and guarding a task costs nothing.

#[cfg(any(test, feature = "test-util"))]
pub use switched::{Gate, Part};

#[cfg(not(any(test, feature = "test-util")))]
pub(crate) use open::{Gate, Part};

#[cfg(any(test, feature = "test-util"))]
mod switched {
    use std::collections::BTreeMap;
    use std::fmt;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::{Context, Poll, Waker};

    use crate::model::ShardId;

    /// A task of a worker.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    #[non_exhaustive]
    pub enum Part {
        /// The future of `run()`: supervision, listings, shutdown.
        Supervisor,
        /// The task that reads and writes the lease table.
        LeaseSide,
        /// The consumer of a shard: its reader, its processor.
        Consumer(ShardId),
    }

    impl fmt::Display for Part {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Supervisor => f.write_str("supervisor"),
                Self::LeaseSide => f.write_str("lease side"),
                Self::Consumer(shard) => write!(f, "consumer of {shard}"),
            }
        }
    }

    /// Holds tasks of one worker, all or some, and lets them go on. Clones are the same gate.
    ///
    /// A held task is not polled, whatever wakes it; time goes on for everybody else. Once let go it finds out
    /// how late it is, as a process does that was suspended or starved.
    #[derive(Clone, Debug, Default)]
    pub struct Gate(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        all: bool,
        /// The parts held, and the number of the last task that is: a later one in its place runs.
        held: BTreeMap<Part, u64>,
        guarded: u64,
        waiting: BTreeMap<u64, Waker>,
    }

    impl Gate {
        /// Creates a gate that holds nothing.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Holds every task, those included that are yet to start.
        pub fn stall(&self) {
            self.lock().all = true;
        }

        /// Holds the task that is this part now; one that takes its place runs.
        pub fn freeze(&self, part: Part) {
            let mut state = self.lock();
            let last = state.guarded;
            state.held.insert(part, last);
        }

        /// Lets one task go on, unless all are held.
        pub fn thaw(&self, part: &Part) {
            let mut state = self.lock();
            state.held.remove(part);
            wake(state);
        }

        /// Lets every task go on.
        pub fn resume(&self) {
            let mut state = self.lock();
            (state.all, state.held) = (false, BTreeMap::new());
            wake(state);
        }

        /// Whether anything is held.
        #[must_use]
        pub fn holds_any(&self) -> bool {
            let state = self.lock();
            state.all || !state.held.is_empty()
        }

        /// The future, polled only while its part is not held.
        pub(crate) fn guard<F: Future>(
            &self,
            part: Part,
            future: F,
        ) -> impl Future<Output = F::Output> + use<F> {
            let id = {
                let mut state = self.lock();
                state.guarded += 1;
                state.guarded
            };
            Guarded { gate: self.clone(), id, part, future: Box::pin(future) }
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Wakes whoever waits; those still held wait again. Outside the lock: a waker may run anything.
    fn wake(mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
    }

    struct Guarded<F> {
        gate: Gate,
        id: u64,
        part: Part,
        future: Pin<Box<F>>,
    }

    impl<F: Future> Future for Guarded<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            {
                let mut state = self.gate.lock();
                if state.all || state.held.get(&self.part).is_some_and(|last| self.id <= *last) {
                    state.waiting.insert(self.id, context.waker().clone());
                    return Poll::Pending;
                }
            }
            self.future.as_mut().poll(context)
        }
    }

    #[cfg(test)]
    mod tests {
        use std::time::Duration;

        use tokio::time::{Instant, sleep, timeout};

        use super::*;

        const SECOND: Duration = Duration::from_secs(1);

        #[tokio::test(start_paused = true)]
        async fn a_held_task_goes_on_late_and_knows_it() {
            let gate = Gate::new();
            let task = tokio::task::JoinSet::from_iter([gate.guard(Part::LeaseSide, async {
                let begun = Instant::now();
                sleep(SECOND).await;
                begun.elapsed()
            })]);
            sleep(SECOND / 2).await;
            gate.stall();
            sleep(SECOND * 10).await;
            gate.resume();
            assert_eq!(task.join_all().await, [SECOND * 10 + SECOND / 2]);
        }

        #[tokio::test(start_paused = true)]
        async fn only_the_frozen_part_is_held() {
            let gate = Gate::new();
            let part = Part::Consumer("a".into());
            let frozen = gate.guard(part.clone(), sleep(SECOND));
            gate.freeze(part.clone());
            timeout(SECOND * 2, gate.guard(part.clone(), sleep(SECOND))).await.unwrap();
            timeout(SECOND * 2, gate.guard(Part::Consumer("b".into()), sleep(SECOND))).await.unwrap();
            let mut frozen = Box::pin(frozen);
            assert!(timeout(SECOND * 5, &mut frozen).await.is_err(), "its time is long over");
            gate.thaw(&part);
            timeout(SECOND * 2, frozen).await.unwrap();
            assert!(!gate.holds_any());
        }
    }
}

#[cfg(not(any(test, feature = "test-util")))]
mod open {
    use crate::model::ShardId;

    /// A task of a worker.
    #[derive(Debug)]
    pub(crate) enum Part {
        LeaseSide,
        #[expect(dead_code, reason = "told apart in tests only")]
        Consumer(ShardId),
    }

    /// A gate that is always open.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Gate(());

    impl Gate {
        #[expect(clippy::unused_self, reason = "the switched gate needs it")]
        pub(crate) fn guard<F: Future>(&self, part: Part, future: F) -> F {
            drop(part);
            future
        }
    }
}
