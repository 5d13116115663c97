use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Answer, Message, Service};
use crate::clock::{SharedClock, SystemClock};

/// The path of session tokens.
const TOKEN_PATH: &str = "/latest/api/token";
/// What the paths of values begin with.
const VALUE_PREFIX: &str = "/latest/meta-data/";
/// The longest life of a token: six hours, the service's own limit.
const MAX_TTL: u64 = 21_600;

/// How the service behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// It takes requests and never answers, as when a hop limit swallows the answers.
    Silent,
    /// It hands out tokens and never answers anything else.
    SilentAfterToken,
    /// `403` to everything: the metadata options of the instance switch it off.
    Disabled,
    /// `401` to every value, whatever the token.
    Unauthorized,
    /// This status to everything.
    Failing(u16),
    /// `200` and a page of HTML to every value, as a captive proxy answers.
    Garbled,
}

/// The instance metadata service, version 2. Clones share one state.
///
/// It begins as the service of instance `i-0123456789abcdef0` in `us-east-1`, on which no notice was served.
#[derive(Clone, Debug)]
pub struct Imds {
    clock: SharedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    values: BTreeMap<String, String>,
    /// Until when each token is good.
    tokens: BTreeMap<String, SystemTime>,
    issued: u64,
    calls: Vec<String>,
}

impl Default for Imds {
    /// On the operating system's clock.
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl Imds {
    /// Creates a service whose tokens expire by `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let this = Self { clock, state: Arc::default() };
        this.set("instance-id", "i-0123456789abcdef0");
        this.set("placement/region", "us-east-1");
        this
    }

    /// Sets the value at a path below `/latest/meta-data/`.
    pub fn set(&self, path: &str, value: &str) {
        self.state().values.insert(path.to_owned(), value.to_owned());
    }

    /// Takes a value away: its path answers `404` from then on.
    pub fn clear(&self, path: &str) {
        self.state().values.remove(path);
    }

    /// Changes how the service behaves.
    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Makes every token invalid, as a restart of the service does.
    pub fn forget_tokens(&self) {
        self.state().tokens.clear();
    }

    /// How many tokens were handed out.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.state().issued
    }

    /// The requests so far, each as method and path.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Imds {
    fn answer(&self, message: &Message) -> Option<Answer> {
        let now = self.clock.now();
        let mut state = self.state();
        state.calls.push(format!("{} {}", message.method, message.path));
        match state.mood {
            Mood::Silent => return None,
            Mood::Disabled => return Some(Answer::new(403, "")),
            Mood::Failing(status) => return Some(Answer::new(status, "")),
            Mood::Well | Mood::SilentAfterToken | Mood::Unauthorized | Mood::Garbled => {}
        }
        if message.path == TOKEN_PATH {
            return Some(state.token(message, now));
        }
        if state.mood == Mood::SilentAfterToken {
            return None;
        }
        let token = message.headers.get("x-aws-ec2-metadata-token");
        let is_good = token.is_some_and(|token| state.tokens.get(token).is_some_and(|until| now < *until));
        if !is_good || state.mood == Mood::Unauthorized {
            return Some(Answer::new(401, ""));
        }
        if state.mood == Mood::Garbled {
            return Some(Answer::new(200, "<html><body>Sign in</body></html>"));
        }
        let value = message.path.strip_prefix(VALUE_PREFIX).and_then(|path| state.values.get(path));
        Some(value.map_or_else(|| Answer::new(404, ""), |value| Answer::new(200, value.clone())))
    }
}

impl State {
    fn token(&mut self, message: &Message, now: SystemTime) -> Answer {
        if message.method != "PUT" {
            return Answer::new(405, "");
        }
        let ttl = message.headers.get("x-aws-ec2-metadata-token-ttl-seconds").map(|text| text.parse());
        let Some(Ok(ttl @ 1..=MAX_TTL)) = ttl else { return Answer::new(400, "") };
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        self.tokens.insert(token.clone(), now + Duration::from_secs(ttl));
        let mut answer = Answer::new(200, token);
        answer.headers.push(("x-aws-ec2-metadata-token-ttl-seconds", ttl.to_string()));
        answer
    }
}
