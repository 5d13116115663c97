//! The initial position as text.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::model::InitialPosition;

pub(super) const FORMS: &str = "TRIM_HORIZON, LATEST, or a time in UTC as 2026-01-31T12:00:00Z";

pub(super) fn text(position: InitialPosition) -> String {
    match position {
        InitialPosition::TrimHorizon => "TRIM_HORIZON".to_owned(),
        InitialPosition::Latest => "LATEST".to_owned(),
        InitialPosition::AtTimestamp(time) => humantime::format_rfc3339(time).to_string(),
    }
}

pub(super) fn parse(text: &str) -> Option<InitialPosition> {
    match text {
        "TRIM_HORIZON" => Some(InitialPosition::TrimHorizon),
        "LATEST" => Some(InitialPosition::Latest),
        _ => {
            let time = humantime::parse_rfc3339(text).ok()?;
            (time >= SystemTime::UNIX_EPOCH).then_some(InitialPosition::AtTimestamp(time))
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field")]
pub(super) fn serialize<S: Serializer>(position: &InitialPosition, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*position))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InitialPosition, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| de::Error::custom(format!("not a position: {text:?}; write {FORMS}")))
}
