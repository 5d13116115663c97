use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// What a worker does when EC2 recommends to replace its instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRebalance {
    /// It is told, and the worker goes on. An Auto Scaling group with capacity rebalancing starts a replacement and
    /// then terminates this instance in its own time.
    #[default]
    GoOn,
    /// The worker shuts down, as on a Spot interruption. For instances that nobody else replaces.
    ShutDown,
}

/// When a worker that was started with [`StartMode::Standby`](crate::StartMode::Standby) is activated by the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivateWhen {
    /// Never: the user does it, or started it active.
    #[default]
    Never,
    /// When the instance's target state is `InService`. Also if there is no target state or no metadata service, since
    /// then nobody would ever say so; and if the service has said nothing usable for
    /// [`activate_after`](InstanceSettings::activate_after).
    InService,
}

/// The numbers of an [`InstanceWatch`](super::InstanceWatch).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceSettings {
    /// How long to wait from one look at the metadata to the next. Default 5 s, as AWS recommends for Spot notices.
    /// Each look makes three requests on the machine itself. 100 ms or more.
    pub poll_interval: Duration,
    /// The same while there is no metadata service. Default 60 s.
    pub absent_interval: Duration,
    /// How long draining may take when the instance is to go. Default 5 min. A lifecycle hook is kept waiting meanwhile,
    /// up to 100 times its own time-out or 48 h, whichever is less (Auto Scaling's limit).
    pub drain_deadline: Duration,
    /// How long before a Spot interruption the worker is to be gone. Default 10 s. At least 5 s are left for draining,
    /// also if by this host's clock there are fewer.
    pub spot_margin: Duration,
    /// How often a lifecycle hook is told to go on waiting. Default 30 s; less than half of the hook's
    /// `HeartbeatTimeout`.
    pub heartbeat_interval: Duration,
    /// How long completing the lifecycle action is tried. Default 60 s. After that the hook's own time-out ends it.
    pub complete_timeout: Duration,
    /// What to do about rebalance recommendations. Default: go on.
    pub on_rebalance: OnRebalance,
    /// When to activate a worker that stands by. Default: never.
    pub activate: ActivateWhen,
    /// For how long a metadata service that says nothing usable keeps a worker standing by. Default 30 s.
    pub activate_after: Duration,
}

impl Default for InstanceSettings {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(5),
            absent_interval: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(300),
            spot_margin: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            complete_timeout: Duration::from_secs(60),
            on_rebalance: OnRebalance::default(),
            activate: ActivateWhen::default(),
            activate_after: Duration::from_secs(30),
        }
    }
}

impl InstanceSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let least = Duration::from_millis(100);
        let problems: Vec<String> = [
            ("poll_interval", self.poll_interval, least),
            ("absent_interval", self.absent_interval, least),
            ("heartbeat_interval", self.heartbeat_interval, least),
            ("drain_deadline", self.drain_deadline, Duration::from_secs(1)),
        ]
        .iter()
        .filter(|(_, value, least)| value < least)
        .map(|(name, value, least)| format!("- {name} is {value:?}; it must be {least:?} or more"))
        .collect();
        if problems.is_empty() {
            return Ok(());
        }
        let list = problems.join("\n");
        Err(Error::new(
            ErrorKind::Config,
            format!("the settings of the instance watch make no sense:\n{list}"),
        ))
    }
}
