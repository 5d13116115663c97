//! The numbers of retrieval, apart from what they are given to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::millis;

/// What waits in all buffers of a worker unless the configuration says otherwise: for a while, the full rate of thirty
/// shards, whose processors are busy.
#[cfg(any(test, feature = "test-util", feature = "config", feature = "fan-out-without-tls"))]
pub(crate) const BUFFER_BYTES: usize = 64 << 20;

/// How many subscriptions share a connection unless the configuration says otherwise.
#[cfg(any(feature = "config", feature = "fan-out-without-tls"))]
pub(crate) const SUBSCRIPTIONS_PER_CONNECTION: usize = 16;

/// How a shard is polled. Start from the default and change fields. Serialised, durations are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct PollingConfig {
    /// The time from one call to the next at the tip of a shard that nobody else polls. Default 200 ms, the five
    /// calls per second and shard the service allows; a smaller value does not lift that limit.
    #[doc(alias = "idleTimeBetweenReadsInMillis")]
    #[serde(with = "millis")]
    pub min_interval: Duration,
    /// The longest time from one call to the next, reached while the service keeps throttling because others
    /// poll the shard too. Default 2 s, which lets ten applications share a shard.
    #[serde(with = "millis")]
    pub max_interval: Duration,
    /// The most records of one `GetRecords` call. Default and maximum 10,000.
    #[doc(alias = "maxRecords")]
    pub fetch_records: u32,
    /// How long one call may take, from its start to the last byte of the answer. Default 15 s.
    #[doc(alias = "maxGetRecordsWaitTime")]
    #[serde(with = "millis")]
    pub call_timeout: Duration,
}

impl Default for PollingConfig {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(200),
            max_interval: Duration::from_secs(2),
            fetch_records: 10_000,
            call_timeout: Duration::from_secs(15),
        }
    }
}

/// How long a subscription may take for each of its steps before it counts as dead.
///
/// A wait counts only while the reader waits for the service: a processor that takes its time is never mistaken for
/// a dead subscription. Closing waits for nothing, so it needs no limit: the stream is reset and let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct FanOutTimeouts {
    /// From the call until the service has taken the subscription, connecting included. Default 10 s; 1 s to 5 min.
    #[serde(with = "millis")]
    pub open: Duration,
    /// From then until the first event. Default 15 s; 1 s to 5 min. The service sends one within about five seconds,
    /// be there records or not.
    #[serde(with = "millis")]
    pub first_event: Duration,
    /// From one event to the next. Default 15 s, three events missed; 1 s to 5 min. Less than six seconds takes the
    /// pauses of an idle shard for its death.
    #[doc(alias = "MAX_TIME_BETWEEN_REQUEST_RESPONSE")]
    #[serde(with = "millis")]
    pub inactivity: Duration,
}

impl Default for FanOutTimeouts {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(10),
            first_event: Duration::from_secs(15),
            inactivity: Duration::from_secs(15),
        }
    }
}

#[cfg(any(test, feature = "test-util", feature = "fan-out-without-tls"))]
impl FanOutTimeouts {
    /// The same, with values out of range brought into it.
    pub(crate) fn in_range(&self) -> Self {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
        let clamp = |time: Duration| time.clamp(least, most);
        Self {
            open: clamp(self.open),
            first_event: clamp(self.first_event),
            inactivity: clamp(self.inactivity),
        }
    }
}
