//! Which calls suffer, and how.

use std::fmt;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, Seen, StreamFault, When};
use crate::wire::{Service, Target};

type Predicate = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A fault and the calls that it befalls: all conditions must hold.
#[must_use = "a rule does nothing until it is added"]
pub struct Rule {
    service: Service,
    operation: Option<String>,
    predicates: Vec<Predicate>,
    calls: (Bound<u64>, Bound<u64>),
    probability: Option<f64>,
    window: Option<Range<Instant>>,
    is_on: bool,
    fault: Fault,
}

impl Rule {
    /// `fault` befalls every call of `operation`.
    pub fn on(service: Service, operation: &str, fault: Fault) -> Self {
        Self { operation: Some(operation.to_owned()), ..Self::on_every_operation(service, fault) }
    }

    /// `fault` befalls every call of the service.
    pub fn on_every_operation(service: Service, fault: Fault) -> Self {
        Self {
            service,
            operation: None,
            predicates: Vec::new(),
            calls: (Bound::Unbounded, Bound::Unbounded),
            probability: None,
            window: None,
            is_on: true,
            fault,
        }
    }

    /// Only calls whose body contains `text`, such as a shard id or a lease key.
    pub fn when_body_contains(self, text: impl Into<String>) -> Self {
        let text = text.into().into_bytes();
        self.when_body(move |body| {
            text.is_empty() || body.windows(text.len()).any(|window| window == text.as_slice())
        })
    }

    /// Only calls whose body, as sent, satisfies `predicate`.
    pub fn when_body(mut self, predicate: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push(Box::new(predicate));
        self
    }

    /// Only these of the calls that match otherwise: 1 is the first after the rule was added.
    pub fn calls(mut self, range: impl RangeBounds<u64>) -> Self {
        self.calls = (range.start_bound().cloned(), range.end_bound().cloned());
        self
    }

    /// Only the first of the calls that match otherwise.
    pub fn once(self) -> Self {
        self.calls(1..=1)
    }

    /// Each call that matches otherwise suffers with this probability, 0.0 to 1.0.
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Only calls made in this stretch of tokio's time.
    pub fn during(mut self, window: Range<Instant>) -> Self {
        self.window = Some(window);
        self
    }

    /// Without effect until [`RuleHandle::switch_on`].
    pub fn switched_off(mut self) -> Self {
        self.is_on = false;
        self
    }

    pub(super) fn armed(self, seed: u64, number: u64) -> RuleState {
        // An odd factor spreads neighbouring numbers over the whole range of seeds.
        let seed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        RuleState { rule: self, random: fastrand::Rng::with_seed(seed), matched: 0, hits: 0 }
    }

    fn matches(&self, target: &Target, body: &[u8], now: Instant) -> bool {
        self.is_on
            && self.service == target.service
            && self.operation.as_ref().is_none_or(|operation| *operation == target.operation)
            && self.window.as_ref().is_none_or(|window| window.contains(&now))
            && self.predicates.iter().all(|predicate| predicate(body))
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("service", &self.service)
            .field("operation", &self.operation)
            .field("calls", &self.calls)
            .field("probability", &self.probability)
            .field("is_on", &self.is_on)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// A rule at work.
#[derive(Debug)]
pub(super) struct RuleState {
    rule: Rule,
    random: fastrand::Rng,
    matched: u64,
    hits: u64,
}

impl RuleState {
    /// Counts the call if it matches, and adds what it suffers to the verdict.
    pub(super) fn judge(&mut self, target: &Target, body: &[u8], now: Instant, verdict: &mut Verdict) {
        if !self.rule.matches(target, body, now) {
            return;
        }
        self.matched += 1;
        if !self.rule.calls.contains(&self.matched) {
            return;
        }
        if self.rule.probability.is_some_and(|probability| self.random.f64() >= probability) {
            return;
        }
        if verdict.add(&self.rule.fault) {
            self.hits += 1;
        }
    }
}

/// What becomes of the request itself.
#[derive(Debug)]
pub(super) enum Fate {
    Fail(Seen),
    DropAnswer(Seen),
    LandLate { after: Duration, seen: Seen },
    Duplicate,
}

/// What a call suffers.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) delay_request: Duration,
    pub(super) delay_answer: Duration,
    pub(super) fate: Option<Fate>,
    pub(super) stream: Vec<(When, StreamFault)>,
}

impl Verdict {
    /// Returns whether the fault takes effect: it does not if another one has sealed the fate.
    fn add(&mut self, fault: &Fault) -> bool {
        let fate = match fault {
            Fault::DelayRequest(by) => {
                self.delay_request += *by;
                return true;
            }
            Fault::DelayAnswer(by) => {
                self.delay_answer += *by;
                return true;
            }
            Fault::Stream(when, fault) => {
                self.stream.push((*when, fault.clone()));
                return true;
            }
            Fault::Fail(seen) => Fate::Fail(seen.clone()),
            Fault::DropAnswer(seen) => Fate::DropAnswer(seen.clone()),
            Fault::LandLate { after, seen } => Fate::LandLate { after: *after, seen: seen.clone() },
            Fault::Duplicate => Fate::Duplicate,
        };
        let is_first = self.fate.is_none();
        self.fate.get_or_insert(fate);
        is_first
    }

    pub(super) fn changes_anything(&self) -> bool {
        self.changes_the_call() || !self.stream.is_empty()
    }

    pub(super) fn changes_the_call(&self) -> bool {
        self.fate.is_some() || !self.delay_request.is_zero() || !self.delay_answer.is_zero()
    }
}

/// Switches a rule and tells what it did. Dropping the handle leaves the rule in force.
#[derive(Clone, Debug)]
pub struct RuleHandle {
    rule: Arc<Mutex<RuleState>>,
}

impl RuleHandle {
    pub(super) fn new(rule: Arc<Mutex<RuleState>>) -> Self {
        Self { rule }
    }

    /// Lets the rule take effect again.
    pub fn switch_on(&self) {
        self.lock().rule.is_on = true;
    }

    /// Suspends the rule: calls neither suffer nor count.
    pub fn switch_off(&self) {
        self.lock().rule.is_on = false;
    }

    /// How many calls suffered.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.lock().hits
    }

    /// How many calls matched apart from their number and the probability.
    #[must_use]
    pub fn matched(&self) -> u64 {
        self.lock().matched
    }

    fn lock(&self) -> MutexGuard<'_, RuleState> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
