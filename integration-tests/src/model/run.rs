//! Runs of the models, and what they print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use stateright::{Checker, Expectation, HasDiscoveries, Model};
use tokio::time::Instant;

/// When a run ends, if not with the last state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// So many states, repeats included.
    pub states: Option<usize>,
    /// So much time.
    pub time: Option<Duration>,
    /// How many threads.
    pub threads: usize,
}

impl Limits {
    /// One thread, and so the shortest counter-examples.
    pub const SHORTEST: Self = Self { states: None, time: None, threads: 1 };
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The states, without repeats.
    pub states: usize,
    /// The longest path, in steps.
    pub depth: usize,
    /// Whether every reachable state was seen.
    pub complete: bool,
    /// The properties that fell, with the steps of the counter-example.
    pub fallen: Vec<(&'static str, Vec<String>)>,
    /// What should happen somewhere and was not seen: the model says less than it seems to.
    pub missing: Vec<&'static str>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether every property held and, if all states were seen, what should happen somewhere did.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fallen.is_empty() && (self.missing.is_empty() || !self.complete)
    }

    /// The counter-example of a property, if it fell.
    #[must_use]
    pub fn counter_example(&self, property: &str) -> Option<&[String]> {
        self.fallen.iter().find(|(name, _)| *name == property).map(|(_, steps)| steps.as_slice())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = if self.complete { "complete" } else { "bounded" };
        write!(
            f,
            "{:>9} states, depth {:>2}, {extent}, {:.1} s: ",
            self.states,
            self.depth,
            self.took.as_secs_f32()
        )?;
        if self.is_clean() {
            f.write_str("clean")?;
            return self.missing.iter().try_for_each(|name| write!(f, "; not reached: {name}"));
        }
        self.missing.iter().try_for_each(|name| write!(f, "never {name} "))?;
        self.fallen
            .iter()
            .try_for_each(|(name, steps)| write!(f, "{name} falls in {} steps; ", steps.len() - 1))
    }
}

/// Explores a model breadth first until one of `properties` falls (any, if there are none), or there is nothing left.
#[must_use]
pub fn explore<M>(model: M, limits: Limits, properties: &[&'static str]) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + fmt::Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + fmt::Debug,
{
    let until = if properties.is_empty() {
        HasDiscoveries::AnyFailures
    } else {
        HasDiscoveries::AnyOf(properties.iter().copied().collect::<BTreeSet<_>>())
    };
    let mut checker = model.checker().threads(limits.threads.max(1)).finish_when(until);
    if let Some(states) = limits.states {
        checker = checker.target_state_count(states);
    }
    if let Some(time) = limits.time {
        checker = checker.timeout(time);
    }
    let began = Instant::now();
    let checker = checker.spawn_bfs().join();
    let took = began.elapsed();
    let mut found: BTreeMap<_, _> = checker.discoveries().into_iter().collect();
    let (mut fallen, mut missing) = (Vec::new(), Vec::new());
    for property in checker.model().properties() {
        match (found.remove(property.name), property.expectation) {
            (Some(path), Expectation::Always) => fallen.push((property.name, steps(path.into_vec()))),
            (None, Expectation::Sometimes) => missing.push(property.name),
            _ => {}
        }
    }
    if !fallen.is_empty() {
        missing.clear();
    }
    let in_time = limits.time.is_none_or(|time| took < time);
    let in_bounds = limits.states.is_none_or(|states| checker.state_count() < states);
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth() - 1,
        complete: fallen.is_empty() && in_time && in_bounds,
        fallen,
        missing,
        took,
    }
}

fn steps<S: fmt::Debug, A: fmt::Debug>(path: Vec<(S, Option<A>)>) -> Vec<String> {
    let mut last = "at first".to_owned();
    let mut lines = Vec::with_capacity(path.len());
    for (state, action) in path {
        lines.push(format!("{last}\n      {state:?}"));
        last = action.map_or_else(String::new, |action| format!("{action:?}"));
    }
    lines
}
