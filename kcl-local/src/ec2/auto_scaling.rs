use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Answer, Message, Service};
use crate::clock::{SharedClock, SystemClock};

/// How a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// `Throttling`.
    Throttled,
    /// `AccessDenied`.
    Denied,
    /// `ServiceUnavailable`.
    Unavailable,
    /// The call is carried out and never answered.
    Lost,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleCall {
    /// The operation.
    pub action: String,
    /// The parameters, without `Action` and `Version`.
    pub parameters: BTreeMap<String, String>,
    /// Whether it was refused.
    pub refused: Option<Refusal>,
}

/// An Auto Scaling group as its lifecycle hook sees it. Clones share one state.
///
/// The hook does not wait until [`begin_wait`](Self::begin_wait). From then on it waits until it is completed, or until
/// its time-out has passed since the wait began or the last heartbeat.
#[derive(Clone, Debug)]
pub struct AutoScaling {
    clock: SharedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    time_out: Duration,
    waits_until: Option<SystemTime>,
    calls: Vec<LifecycleCall>,
    next: BTreeMap<String, VecDeque<Refusal>>,
    always: Option<Refusal>,
}

impl Default for AutoScaling {
    /// On the operating system's clock.
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl AutoScaling {
    /// Creates a group on `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// The hook waits from now on, for `time_out` without a heartbeat.
    pub fn begin_wait(&self, time_out: Duration) {
        let until = self.clock.now() + time_out;
        let mut state = self.state();
        (state.time_out, state.waits_until) = (time_out, Some(until));
    }

    /// Whether the hook waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let now = self.clock.now();
        self.state().is_waiting(now)
    }

    /// Refuses the next calls of an operation, one after the other, like this.
    pub fn refuse_next(&self, action: &str, refusals: impl IntoIterator<Item = Refusal>) {
        self.state().next.entry(action.to_owned()).or_default().extend(refusals);
    }

    /// Refuses every call like this; none ends it.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.state().always = refusal;
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<LifecycleCall> {
        self.state().calls.clone()
    }

    /// How many calls of an operation were carried out.
    #[must_use]
    pub fn carried_out(&self, action: &str) -> usize {
        self.state().calls.iter().filter(|call| call.action == action && call.refused.is_none()).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_waiting(&self, now: SystemTime) -> bool {
        self.waits_until.is_some_and(|until| now < until)
    }

    fn carry_out(&mut self, action: &str, instance: &str, now: SystemTime) -> Answer {
        if !self.is_waiting(now) {
            let problem = format!("No active Lifecycle Action found with instance ID {instance}");
            return error(400, "ValidationError", &problem);
        }
        match action {
            "RecordLifecycleActionHeartbeat" => self.waits_until = Some(now + self.time_out),
            "CompleteLifecycleAction" => self.waits_until = None,
            _ => return error(400, "InvalidAction", &format!("no such action: {action}")),
        }
        let body = format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result/>\
             <ResponseMetadata><RequestId>local</RequestId></ResponseMetadata></{action}Response>"
        );
        Answer::new(200, body)
    }
}

impl Service for AutoScaling {
    fn answer(&self, message: &Message) -> Option<Answer> {
        let now = self.clock.now();
        let mut parameters = form(&message.body);
        let action = parameters.remove("Action").unwrap_or_default();
        parameters.remove("Version");
        let instance = parameters.get("InstanceId").cloned().unwrap_or_default();
        let mut state = self.state();
        let refused = state.next.get_mut(&action).and_then(VecDeque::pop_front).or(state.always);
        state.calls.push(LifecycleCall { action: action.clone(), parameters, refused });
        Some(match refused {
            None => state.carry_out(&action, &instance, now),
            Some(Refusal::Throttled) => error(400, "Throttling", "Rate exceeded"),
            Some(Refusal::Denied) => {
                error(403, "AccessDenied", &format!("not authorized to perform: autoscaling:{action}"))
            }
            Some(Refusal::Unavailable) => error(503, "ServiceUnavailable", "try again"),
            Some(Refusal::Lost) => {
                let _ = state.carry_out(&action, &instance, now);
                return None;
            }
        })
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>local</RequestId></ErrorResponse>"
    );
    Answer::new(status, body)
}

/// Reads a form of `name=value` pairs.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let escaped = (byte == b'%').then(|| {
            let digits =
                [bytes.next(), bytes.next()].map(|digit| char::from(digit.unwrap_or(b'0')).to_digit(16));
            digits.into_iter().flatten().fold(0, |value, digit| value * 16 + digit)
        });
        out.push(match escaped {
            Some(value) => u8::try_from(value).unwrap_or(b'?'),
            None if byte == b'+' => b' ',
            None => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_with_its_escapes() {
        let read = form(b"Action=A&Name=a%2Fb+c%3D&Odd&Empty=");
        let expected = [("Action", "A"), ("Name", "a/b c="), ("Empty", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
