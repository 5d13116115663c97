//! Faults on the caller's side of any SDK client, against the local services and AWS alike.
//!
//! [`Faults::wrap`] puts a layer around an HTTP client of the SDK. [`Rule`]s say which calls suffer
//! and what: a delay, an error, a lost connection, an answer that is dropped after the request was
//! executed, a request that lands later than the caller believes, a duplicate; for an event stream
//! also silence, a break, an exception or a damaged frame at a chosen moment. The layer also
//! counts calls and streams per operation and records requests for assertions.
//!
//! ```
//! # #[cfg(feature = "aws")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use kcl_local::LocalAws;
//! use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
//! use kcl_local::wire::Service;
//!
//! let faults = Faults::seeded(7);
//! let aws = LocalAws::builder().faults(&faults).in_process()?;
//! let throttle = Fault::Fail(Seen::Error(errors::throttling()));
//! let rule = faults.add(Rule::on(Service::DynamoDb, "ListTables", throttle).once());
//!
//! let dynamodb = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
//! dynamodb.list_tables().send().await?; // the SDK tries again
//! assert_eq!(rule.hits(), 1);
//! assert_eq!(faults.calls(Service::DynamoDb, "ListTables"), 2);
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "aws"))]
//! # fn main() {}
//! ```
//!
//! Each attempt of the SDK is a call of its own here. With the same seed, the same rules and the
//! same order of calls the same calls suffer; every rule draws from its own source, so that one
//! rule's calls do not move another's. Delays run on tokio's clock, paused or not.

mod connector;
pub mod errors;
mod rule;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::wire::{Service, Target};
use connector::FaultyClient;
pub use rule::{Rule, RuleHandle};
use rule::{RuleState, Verdict};
pub use stream::{StreamFault, When};

/// What happens to a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The request reaches the service this much later.
    ///
    /// A caller that gives up meanwhile has changed nothing.
    DelayRequest(Duration),
    /// The request is executed at once, its answer reaches the caller this much later.
    DelayAnswer(Duration),
    /// The request is not executed.
    Fail(Seen),
    /// The request is executed (as far as the service can be reached), its answer is dropped.
    DropAnswer(Seen),
    /// The caller sees the outcome now; the request is executed later all the same.
    ///
    /// The layer owns the task that does it, see [`Faults::landed`].
    LandLate {
        /// How much later.
        after: Duration,
        /// What the caller sees meanwhile.
        seen: Seen,
    },
    /// The request is executed twice and the caller sees the second answer, as after a retry that
    /// some proxy made on its own.
    Duplicate,
    /// The request is executed; if its answer is an event stream, that suffers. It counts as a hit
    /// when the call is made.
    ///
    /// A stream can suffer several faults, of one rule or of many: delays add up, and what breaks
    /// the stream off first is the end of it.
    Stream(When, StreamFault),
}

/// What the caller sees instead of the answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// No connection came about.
    Refused,
    /// The connection broke: whether the request was executed is open.
    Reset,
    /// A timeout of the HTTP client after this long, whatever its own settings.
    TimedOut(Duration),
    /// Nothing, until the caller gives up or the SDK's read timeout strikes.
    Hang,
    /// An error answer; [`errors`] has the usual ones.
    Error(ApiError),
}

/// A call that passed the layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedCall {
    /// When it was made.
    pub at: Instant,
    /// What it asked for.
    pub target: Target,
    /// The body; empty if it was a stream.
    pub body: Bytes,
    /// Whether a rule changed its course.
    pub suffered: bool,
}

/// The fault layer: rules, counters and a recorder. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    state: Mutex<State>,
    late: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Arc<Mutex<RuleState>>>,
    added: u64,
    calls: BTreeMap<Target, u64>,
    streams: BTreeMap<Target, StreamCount>,
    recorded: VecDeque<RecordedCall>,
    keep: usize,
}

/// The event streams of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCount {
    /// Those that were opened.
    pub opened: u64,
    /// Those of them that have neither ended nor been dropped by the caller.
    pub open: u64,
}

/// Counts a stream as open until it is dropped.
#[derive(Debug)]
struct OpenStream {
    faults: Faults,
    target: Target,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(count) = self.faults.state().streams.get_mut(&self.target) {
            count.open -= 1;
        }
    }
}

impl Faults {
    /// Creates a layer without rules; `seed` feeds the probabilities.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { shared: Arc::new(Shared { seed, state: Mutex::default(), late: Mutex::default() }) }
    }

    /// Puts the layer around `client`. Several clients can be wrapped; they share rules and counters.
    #[must_use]
    pub fn wrap(&self, client: SharedHttpClient) -> SharedHttpClient {
        SharedHttpClient::new(FaultyClient::new(client, self.clone()))
    }

    /// Adds a rule, behind those that are there.
    ///
    /// Every rule that matches a call counts it. Delays of several rules add up; of the other
    /// faults the first rule's wins.
    pub fn add(&self, rule: Rule) -> RuleHandle {
        let mut state = self.state();
        state.added += 1;
        let rule = Arc::new(Mutex::new(rule.armed(self.shared.seed, state.added)));
        state.rules.push(Arc::clone(&rule));
        RuleHandle::new(rule)
    }

    /// Removes all rules. Counters and recordings stay, requests that land late still do.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// How many calls of `operation` were made, suffering or not.
    #[must_use]
    pub fn calls(&self, service: Service, operation: &str) -> u64 {
        let target = Target { service, operation: operation.to_owned() };
        self.state().calls.get(&target).copied().unwrap_or(0)
    }

    /// How many calls of each operation were made.
    #[must_use]
    pub fn all_calls(&self) -> BTreeMap<Target, u64> {
        self.state().calls.clone()
    }

    /// How many event streams calls of `operation` have opened, and how many are open.
    #[must_use]
    pub fn streams(&self, service: Service, operation: &str) -> StreamCount {
        let target = Target { service, operation: operation.to_owned() };
        self.state().streams.get(&target).copied().unwrap_or_default()
    }

    /// Keeps the last `count` calls from now on; 0, the default, keeps none.
    pub fn record_last(&self, count: usize) {
        let mut state = self.state();
        state.keep = count;
        let excess = state.recorded.len().saturating_sub(count);
        state.recorded.drain(..excess);
    }

    /// The calls that were kept, oldest first.
    #[must_use]
    pub fn recorded(&self) -> Vec<RecordedCall> {
        self.state().recorded.iter().cloned().collect()
    }

    /// Waits until no request of [`Fault::LandLate`] is under way.
    ///
    /// Such requests end with the last clone of the layer and the last client that it wraps.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn landed(&self) {
        poll_fn(|cx| {
            let mut late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
            while std::task::ready!(late.poll_join_next(cx)).is_some() {}
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Runs `landing` on the current runtime, owned by the layer.
    fn land_late(&self, landing: impl Future<Output = ()> + Send + 'static) {
        let mut late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        while late.try_join_next().is_some() {}
        late.spawn(landing);
    }

    fn stream_opened(&self, target: Target) -> OpenStream {
        let mut state = self.state();
        let count = state.streams.entry(target.clone()).or_default();
        count.opened += 1;
        count.open += 1;
        OpenStream { faults: self.clone(), target }
    }

    /// Counts and records a call, and asks the rules.
    fn judge(&self, target: &Target, body: &[u8]) -> Verdict {
        let now = Instant::now();
        let mut state = self.state();
        *state.calls.entry(target.clone()).or_default() += 1;
        let mut verdict = Verdict::default();
        for rule in &state.rules {
            rule.lock().unwrap_or_else(PoisonError::into_inner).judge(target, body, now, &mut verdict);
        }
        if state.keep > 0 {
            if state.recorded.len() == state.keep {
                state.recorded.pop_front();
            }
            let body = Bytes::copy_from_slice(body);
            let suffered = verdict.changes_anything();
            state.recorded.push_back(RecordedCall { at: now, target: target.clone(), body, suffered });
        }
        verdict
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
