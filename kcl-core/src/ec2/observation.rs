//! What the instance metadata service says about the future of this instance.

use std::fmt;
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Deserialize;

use super::error::MetadataError;
use super::imds::Imds;
use super::instance::cut;

const TARGET: &str = "autoscaling/target-lifecycle-state";
const SPOT: &str = "spot/instance-action";
const REBALANCE: &str = "events/recommendations/rebalance";

/// Where Auto Scaling is taking this instance.
///
/// The values are those of the Auto Scaling user guide, "Retrieve the target lifecycle state through instance
/// metadata".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetState {
    /// Into service, or it is there.
    InService,
    /// Out of the group, and it goes on running.
    Detached,
    /// To its end, from the group or from its warm pool.
    Terminated,
    /// Out of service for a while: `Standby`, or a state of the warm pool.
    OutOfService(String),
    /// A state that is not known here. It changes nothing.
    Other(String),
}

impl TargetState {
    fn parse(text: &str) -> Result<Self, String> {
        let is_state = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b':');
        if !is_state {
            return Err(format!("{TARGET} is {:?}, which is no state", cut(text)));
        }
        Ok(match text {
            "InService" => Self::InService,
            "Detached" => Self::Detached,
            "Terminated" | "Warmed:Terminated" => Self::Terminated,
            // The target of these is `Terminated`; who writes them means the same.
            text if text.starts_with("Terminating") => Self::Terminated,
            text if text == "Standby" || text.starts_with("Warmed:") => Self::OutOfService(text.to_owned()),
            text => Self::Other(text.to_owned()),
        })
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InService => "InService",
            Self::Detached => "Detached",
            Self::Terminated => "Terminated",
            Self::OutOfService(state) | Self::Other(state) => state,
        })
    }
}

/// EC2 takes a Spot instance back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpotInterruption {
    /// What happens to the instance: `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When, about two minutes after the notice. Hibernation begins at once.
    pub at: SystemTime,
}

impl SpotInterruption {
    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            action: String,
            time: String,
        }
        let odd = || format!("{SPOT} is {:?}, which is no interruption notice", cut(text));
        let Document { action, time } = serde_json::from_str(text).map_err(|_| odd())?;
        let is_action =
            !action.is_empty() && action.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        let at = time_of(&time).filter(|_| is_action).ok_or_else(odd)?;
        Ok(Self { action, at })
    }
}

fn rebalance(text: &str) -> Result<SystemTime, String> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "noticeTime")]
        notice_time: String,
    }
    let read: Option<Document> = serde_json::from_str(text).ok();
    read.and_then(|read| time_of(&read.notice_time))
        .ok_or_else(|| format!("{REBALANCE} is {:?}, which is no rebalance notice", cut(text)))
}

fn time_of(text: &str) -> Option<SystemTime> {
    let time = DateTime::from_str(text, Format::DateTime).ok()?;
    SystemTime::try_from(time).ok()
}

/// What one item said: nothing, something, or what kept it from saying.
type Said<T> = Result<Option<T>, MetadataError>;

/// One look at all that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) target: Said<TargetState>,
    pub(super) spot: Said<SpotInterruption>,
    pub(super) rebalance: Said<SystemTime>,
}

impl Look {
    /// Looks. What is wrong with one item does not hide the others; a service that is not there is asked once.
    pub(super) async fn at(imds: &Imds) -> Self {
        let target = read(imds, TARGET, TargetState::parse).await;
        if let Err(error) = &target
            && !matches!(error.kind(), super::MetadataErrorKind::Odd)
        {
            return Self { spot: Err(error.clone()), rebalance: Err(error.clone()), target };
        }
        let spot = read(imds, SPOT, SpotInterruption::parse).await;
        let rebalance = read(imds, REBALANCE, rebalance).await;
        Self { target, spot, rebalance }
    }

    /// What is wrong, if something is.
    pub(super) fn problem(&self) -> Option<&MetadataError> {
        self.target.as_ref().err().or(self.spot.as_ref().err()).or(self.rebalance.as_ref().err())
    }
}

async fn read<T>(imds: &Imds, path: &str, parse: fn(&str) -> Result<T, String>) -> Said<T> {
    match imds.get(path).await? {
        None => Ok(None),
        Some(text) => parse(&text).map(Some).map_err(|problem| imds.odd(&problem)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_a_line_of_bounded_length(text in ".*") {
            for outcome in [
                TargetState::parse(&text).map(drop),
                SpotInterruption::parse(&text).map(drop),
                rebalance(&text).map(drop),
            ] {
                if let Err(problem) = outcome {
                    prop_assert!(problem.chars().count() < 1_000 && !problem.contains('\n'), "{problem}");
                }
            }
        }
    }

    #[test]
    fn target_states_are_told_apart() {
        for (text, state) in [
            ("InService", TargetState::InService),
            ("Detached", TargetState::Detached),
            ("Terminated", TargetState::Terminated),
            ("Terminating:Wait", TargetState::Terminated),
            ("Warmed:Terminated", TargetState::Terminated),
            ("Standby", TargetState::OutOfService("Standby".to_owned())),
            ("Warmed:Stopped", TargetState::OutOfService("Warmed:Stopped".to_owned())),
            ("Sideways", TargetState::Other("Sideways".to_owned())),
        ] {
            assert_eq!(TargetState::parse(text), Ok(state), "{text}");
        }
        for odd in ["", "<html>", "In Service", &"a".repeat(65)] {
            assert!(TargetState::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn notices_are_read_with_their_times() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_505_722_920);
        let notice = SpotInterruption::parse(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#);
        assert_eq!(notice, Ok(SpotInterruption { action: "terminate".to_owned(), at }));
        assert_eq!(rebalance(r#"{"noticeTime": "2017-09-18T08:22:00Z"}"#), Ok(at));
        for odd in [
            "",
            "<html>",
            "{}",
            r#"{"action":"terminate"}"#,
            r#"{"action":"terminate","time":"soon"}"#,
            r#"{"action":"<b>","time":"2017-09-18T08:22:00Z"}"#,
            r#"{"noticeTime":"soon"}"#,
        ] {
            assert!(SpotInterruption::parse(odd).is_err(), "{odd}");
            assert!(rebalance(odd).is_err(), "{odd}");
        }
    }
}
