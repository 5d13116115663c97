use std::time::Duration;

/// What waits in all buffers of a worker unless the configuration says otherwise: for a while, the full rate of thirty
/// shards, whose processors are busy.
pub(crate) const BUFFER_BYTES: usize = 64 << 20;

/// How long a subscription may take for each of its steps before it counts as dead.
///
/// A wait counts only while the reader waits for the service: a processor that takes its time is never mistaken for
/// a dead subscription. Closing waits for nothing, so it needs no limit: the stream is reset and let go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FanOutTimeouts {
    /// From the call until the service has taken the subscription, connecting included. Default 10 s; 1 s to 5 min.
    pub open: Duration,
    /// From then until the first event. Default 15 s; 1 s to 5 min. The service sends one within about five seconds,
    /// be there records or not.
    pub first_event: Duration,
    /// From one event to the next. Default 15 s, three events missed; 1 s to 5 min. Less than six seconds takes the
    /// pauses of an idle shard for its death.
    #[doc(alias = "MAX_TIME_BETWEEN_REQUEST_RESPONSE")]
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

impl FanOutTimeouts {
    /// The same, with values out of range brought into it.
    pub(super) fn in_range(&self) -> Self {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
        let clamp = |time: Duration| time.clamp(least, most);
        Self {
            open: clamp(self.open),
            first_event: clamp(self.first_event),
            inactivity: clamp(self.inactivity),
        }
    }
}
