//! Registered consumers of a stream: enhanced fan-out's named readers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use crate::error::ApiError;

use super::bucket::Bucket;
use super::errors::{constraint, in_use, invalid, limit, not_found, within};
use super::reshard::not_active;
use super::settings::check_tags;
use super::state::State;
use super::stream::{Stream, StreamStatus};
use super::token::{self, Kind};
use super::{Kinesis, StreamRef, instant, millis, millis_of};

/// The most consumers one list carries, and how many it carries by default.
const PAGE: u32 = 10_000;
const DEFAULT_PAGE: u32 = 100;

/// What a consumer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerStatus {
    /// It is being registered and cannot subscribe yet.
    Creating,
    /// It is being deregistered and cannot subscribe any more.
    Deleting,
    /// It can subscribe.
    Active,
}

impl fmt::Display for ConsumerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "CREATING",
            Self::Deleting => "DELETING",
            Self::Active => "ACTIVE",
        })
    }
}

/// A registered consumer as `DescribeStreamConsumer` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerDescription {
    /// The name, unique in the stream.
    pub name: String,
    /// The ARN. It ends in the second of the registration, so that a consumer registered again
    /// under the same name has another.
    pub arn: String,
    /// What the consumer is doing.
    pub status: ConsumerStatus,
    /// When it was registered, in whole seconds as in the ARN.
    pub created: SystemTime,
    /// The ARN of its stream.
    pub stream_arn: String,
}

/// A page of consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerPage {
    /// The consumers, in the order of their names.
    pub consumers: Vec<ConsumerDescription>,
    /// The token for the next page, if there is one.
    pub next_token: Option<String>,
}

/// Names a consumer by its own ARN, by the stream's ARN and its name, or by both.
///
/// Made from text it is the consumer's ARN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerRef<'a> {
    stream_arn: Option<&'a str>,
    name: Option<&'a str>,
    arn: Option<&'a str>,
}

impl<'a> ConsumerRef<'a> {
    /// Names a consumer by what a request gives. If it gives all, they must mean the same consumer.
    #[must_use]
    pub const fn new(stream_arn: Option<&'a str>, name: Option<&'a str>, arn: Option<&'a str>) -> Self {
        Self { stream_arn, name, arn }
    }

    /// Names a consumer by the ARN of its stream and its name.
    #[must_use]
    pub const fn named(stream_arn: &'a str, name: &'a str) -> Self {
        Self::new(Some(stream_arn), Some(name), None)
    }
}

impl<'a> From<&'a str> for ConsumerRef<'a> {
    fn from(arn: &'a str) -> Self {
        Self::new(None, None, Some(arn))
    }
}

impl<'a> From<&'a String> for ConsumerRef<'a> {
    fn from(arn: &'a String) -> Self {
        arn.as_str().into()
    }
}

/// A consumer at work.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) status: ConsumerStatus,
    /// The second of the registration; later than the clock where an earlier consumer of the name had it.
    pub(crate) second: u64,
    /// When the registration or the deregistration is over, in milliseconds.
    due: u64,
    /// What is known of its subscriptions, by shard.
    pub(crate) slots: BTreeMap<u32, Slot>,
}

/// The subscription of one consumer to one shard.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The subscription that holds the slot; `None` once it has ended.
    pub(crate) holder: Option<u64>,
    /// When the last successful call was made.
    pub(crate) opened: Option<u64>,
    pub(crate) calls: Bucket,
    pub(crate) bytes: Bucket,
}

impl Consumer {
    fn describe(&self, stream: &Stream) -> ConsumerDescription {
        ConsumerDescription {
            name: self.name.clone(),
            arn: self.arn.clone(),
            status: self.status,
            created: instant(self.second * 1_000),
            stream_arn: stream.arn.clone(),
        }
    }
}

/// The consumers of one stream.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    pub(crate) registered: BTreeMap<String, Consumer>,
    /// The last second used under the name of a consumer that is gone.
    graves: BTreeMap<String, u64>,
    pub(crate) describes: Bucket,
    pub(crate) lists: Bucket,
}

impl Consumers {
    /// Carries out what is due by `now`.
    pub(crate) fn settle(&mut self, now: u64) {
        let graves = &mut self.graves;
        self.registered.retain(|name, consumer| {
            let is_due = consumer.due <= now;
            match consumer.status {
                ConsumerStatus::Creating if is_due => consumer.status = ConsumerStatus::Active,
                ConsumerStatus::Deleting if is_due => {
                    graves.insert(name.clone(), consumer.second);
                    return false;
                }
                ConsumerStatus::Creating | ConsumerStatus::Deleting | ConsumerStatus::Active => {}
            }
            true
        });
    }

    fn creating(&self) -> usize {
        let creating = |consumer: &&Consumer| consumer.status == ConsumerStatus::Creating;
        self.registered.values().filter(creating).count()
    }
}

impl Kinesis {
    /// Registers a consumer with a stream. It is `ACTIVE` at once unless a delay is set.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` if the stream has a consumer of the
    /// name, or is being made or deleted; `LimitExceededException`; `ValidationException`.
    pub fn register_stream_consumer<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        name: &str,
    ) -> Result<ConsumerDescription, ApiError> {
        self.register_tagged(&stream.into(), name, &BTreeMap::new())
    }

    /// As [`register_stream_consumer`](Self::register_stream_consumer). The tags are checked and
    /// not kept: no operation that is served shows them.
    pub(crate) fn register_tagged(
        &self,
        stream: &StreamRef<'_>,
        name: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<ConsumerDescription, ApiError> {
        super::errors::identifier(name, "consumerName")?;
        check_tags(tags, 0)?;
        self.altering(|state| {
            state.allow_change("RegisterStreamConsumer")?;
            let (now, limits) = (state.now, state.options.limits);
            let delay = millis_of(state.options.consumer_create_delay);
            let stream = state.resolve(stream)?;
            if matches!(stream.status, StreamStatus::Creating | StreamStatus::Deleting) {
                return Err(not_active(stream));
            }
            let consumers = &mut stream.consumers;
            if consumers.registered.contains_key(name) {
                return Err(in_use(format!(
                    "Consumer {name} under stream {}, account {} already exists.",
                    stream.name, stream.account
                )));
            }
            let count = |most: Option<u32>, count: usize| most.is_some_and(|most| count >= most as usize);
            if count(limits.consumers, consumers.registered.len())
                || count(limits.creating_consumers, consumers.creating())
            {
                return Err(limit(format!(
                    "Failed to create consumer {name} under stream {}, account {}: too many consumers are registered \
                     or being created.",
                    stream.name, stream.account
                )));
            }
            let grave = consumers.graves.get(name).copied();
            let second = grave.map_or(now / 1_000, |grave| (now / 1_000).max(grave + 1));
            let consumer = Consumer {
                name: name.to_owned(),
                arn: format!("{}/consumer/{name}:{second}", stream.arn),
                status: if delay == 0 { ConsumerStatus::Active } else { ConsumerStatus::Creating },
                second,
                due: now.saturating_add(delay),
                slots: BTreeMap::new(),
            };
            // The answer tells of the registration under way, however short.
            let description = ConsumerDescription { status: ConsumerStatus::Creating, ..consumer.describe(stream) };
            stream.consumers.registered.insert(name.to_owned(), consumer);
            Ok(description)
        })
    }

    /// Deregisters a consumer. Its subscriptions end at once, with `ResourceNotFoundException`.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while it is being registered;
    /// `InvalidArgumentException`; `LimitExceededException`.
    pub fn deregister_stream_consumer<'a>(
        &self,
        consumer: impl Into<ConsumerRef<'a>>,
    ) -> Result<(), ApiError> {
        let consumer = consumer.into();
        self.altering(|state| {
            state.allow_change("DeregisterStreamConsumer")?;
            let (now, delay) = (state.now, millis_of(state.options.consumer_delete_delay));
            let (stream, name) = state.consumer(&consumer)?;
            let account = stream.account.clone();
            let Some(found) = stream.consumers.registered.get_mut(&name) else {
                return Err(consumer_not_found(&name, &stream.name, &account));
            };
            match found.status {
                ConsumerStatus::Creating => return Err(consumer_not_active(found, &stream.name, &account)),
                ConsumerStatus::Deleting => return Ok(()),
                ConsumerStatus::Active => {}
            }
            found.status = ConsumerStatus::Deleting;
            found.due = now.saturating_add(delay);
            stream.consumers.settle(now);
            Ok(())
        })
    }

    /// Describes a consumer.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `InvalidArgumentException`, `LimitExceededException`.
    pub fn describe_stream_consumer<'a>(
        &self,
        consumer: impl Into<ConsumerRef<'a>>,
    ) -> Result<ConsumerDescription, ApiError> {
        let consumer = consumer.into();
        self.with(|state| {
            let (now, rate) = (state.now, state.options.limits.describe_consumer);
            let (stream, name) = state.consumer(&consumer)?;
            if !stream.consumers.describes.take(rate, 1, now) {
                return Err(super::errors::call_rate("DescribeStreamConsumer"));
            }
            let found = stream.consumers.registered.get(&name);
            let found = found.ok_or_else(|| consumer_not_found(&name, &stream.name, &stream.account))?;
            Ok(found.describe(stream))
        })
    }

    /// Lists up to `max_results` (1 to 10,000, default 100) consumers of a stream from a token.
    ///
    /// `created` tells streams of the same name apart by when they were created.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while the stream is being made or
    /// deleted; `InvalidArgumentException` (junk token); `ExpiredNextTokenException`;
    /// `LimitExceededException`; `ValidationException`.
    pub fn list_stream_consumers<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        max_results: Option<u32>,
        next_token: Option<&str>,
        created: Option<SystemTime>,
    ) -> Result<ConsumerPage, ApiError> {
        let stream = stream.into();
        let most = within(max_results.unwrap_or(DEFAULT_PAGE), (1, PAGE), "maxResults")? as usize;
        let token = next_token.map(|text| {
            token::open::<2>(Kind::Consumers, text).ok_or_else(|| invalid("NextToken is not valid."))
        });
        let token = token.transpose()?;
        self.with(|state| {
            let (now, rate) = (state.now, state.options.limits.list_consumers);
            if let Some(([_, issued], _)) = token {
                state.check_token_age(issued)?;
            }
            let stream = state.resolve(&stream)?;
            if !stream.consumers.lists.take(rate, 1, now) {
                return Err(super::errors::call_rate("ListStreamConsumers"));
            }
            if matches!(stream.status, StreamStatus::Creating | StreamStatus::Deleting) {
                return Err(not_active(stream));
            }
            if token.as_ref().is_some_and(|([id, _], _)| *id != stream.id) {
                return Err(invalid("NextToken and StreamARN do not name the same stream."));
            }
            if created.is_some_and(|created| millis(created) != stream.created) {
                return Err(not_found(format!(
                    "Stream {} under account {} was not created at the given time.",
                    stream.name, stream.account
                )));
            }
            let after = token.as_ref().map(|(_, name)| name.as_str());
            let all = stream.consumers.registered.values();
            let mut rest = all.filter(|consumer| after.is_none_or(|after| consumer.name.as_str() > after));
            let page: Vec<_> = rest.by_ref().take(most).map(|consumer| consumer.describe(stream)).collect();
            let last = page.last().filter(|_| rest.next().is_some());
            let next_token = last.map(|last| token::seal(Kind::Consumers, &[stream.id, now], &last.name));
            Ok(ConsumerPage { consumers: page, next_token })
        })
    }
}

impl State {
    /// The stream of a consumer, its due changes carried out, and the name of the consumer, which
    /// is there unless the reference names it by the ARN of its stream.
    pub(crate) fn consumer(&mut self, consumer: &ConsumerRef<'_>) -> Result<(&mut Stream, String), ApiError> {
        let ConsumerRef { stream_arn, name, arn } = *consumer;
        let (stream_arn, name, arn) = match (stream_arn, name, arn) {
            (stream_arn, name, Some(arn)) => {
                let (stream, named) = parse_consumer_arn(arn)?;
                if stream_arn.is_some_and(|given| given != stream) || name.is_some_and(|given| given != named)
                {
                    return Err(invalid(format!(
                        "ConsumerARN {arn} and the given StreamARN and ConsumerName do not name the same consumer."
                    )));
                }
                (stream, named, Some(arn))
            }
            (Some(stream), Some(name), None) => {
                super::errors::identifier(name, "consumerName")?;
                (stream, name, None)
            }
            _ => {
                return Err(invalid("Either ConsumerARN or both StreamARN and ConsumerName must be given."));
            }
        };
        let stream = self.resolve(&StreamRef::new(None, Some(stream_arn)))?;
        if let Some(arn) = arn {
            let found = stream.consumers.registered.get(name);
            if found.is_none_or(|found| found.arn != arn) {
                return Err(consumer_not_found(arn, &stream.name, &stream.account));
            }
        }
        Ok((stream, name.to_owned()))
    }
}

pub(crate) fn consumer_not_found(consumer: &str, stream: &str, account: &str) -> ApiError {
    not_found(format!("Consumer {consumer} under stream {stream}, account {account} not found."))
}

/// The error for a consumer that is being registered or deregistered, worded as the service was
/// seen to word it.
pub(crate) fn consumer_not_active(consumer: &Consumer, stream: &str, account: &str) -> ApiError {
    in_use(format!(
        "Consumer {} with creation timestamp {} under stream: {stream}, account {account} is not in ACTIVE status.",
        consumer.name, consumer.second
    ))
}

/// Reads the stream's ARN and the consumer's name from a consumer's ARN.
fn parse_consumer_arn(arn: &str) -> Result<(&str, &str), ApiError> {
    let parts = arn.split_once("/consumer/").and_then(|(stream, rest)| {
        let (name, second) = rest.split_once(':')?;
        let is_number = !second.is_empty() && second.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !name.is_empty()).then_some((stream, name))
    });
    parts.ok_or_else(|| {
        let rule = r"satisfy regular expression pattern: ^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+";
        constraint(arn, "consumerARN", rule)
    })
}
