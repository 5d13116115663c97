//! Values as Java writes them.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::super::key::key;
use super::super::text::Given;
use super::keys::Form;
use crate::model::InitialPosition;

/// Which way of reading the file asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Polling,
    FanOut,
}

/// Reads a value as Java would have it, without Java's leniency.
pub(super) fn read(form: Form, path: &'static str, text: &str) -> Result<Value, String> {
    let given = match form {
        Form::Text => Given::Text(text.to_owned()),
        Form::Number | Form::Millis => Given::Integer(number(text)?),
        Form::Seconds => Given::Integer(number(text)?.saturating_mul(1_000)),
        Form::Flag => Given::Flag(flag(text)?),
        Form::Word | Form::Names => Given::Untyped(text.to_owned()),
    };
    let Some(key) = key(path) else { return Err(format!("there is no setting {path}; report it")) };
    key.kind.read(&given).map_err(|problem| match form {
        Form::Number | Form::Millis if number(text) == Ok(0) => {
            format!("{problem} (Java takes its default for 0: leave the key out for the default)")
        }
        _ => problem,
    })
}

fn number(text: &str) -> Result<i128, String> {
    let trimmed = text.trim();
    let wrong = || {
        let short: String = trimmed.chars().take(40).collect();
        format!("{short:?} is not a whole number; Java takes its default for it without a word")
    };
    let digits = trimmed.strip_prefix('-').unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    trimmed.parse().map_err(|_| wrong())
}

/// The words of Java's bean converter.
fn flag(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "no" | "n" | "off" | "0" => Ok(false),
        other => {
            let short: String = other.chars().take(40).collect();
            Err(format!("{short:?} is neither true nor false; Java takes its default for it without a word"))
        }
    }
}

pub(super) fn java_position(text: &str) -> Result<InitialPosition, String> {
    match text.trim().to_ascii_uppercase().as_str() {
        "TRIM_HORIZON" => Ok(InitialPosition::TrimHorizon),
        "LATEST" => Ok(InitialPosition::Latest),
        "AT_TIMESTAMP" => {
            Err("AT_TIMESTAMP needs its time: give initialPositionInStreamExtended, in seconds since 1970"
                .to_owned())
        }
        _ => Err("is neither TRIM_HORIZON nor LATEST".to_owned()),
    }
}

/// Seconds since 1970. More than the year 9999 has are milliseconds by mistake.
pub(super) fn epoch(text: &str) -> Result<InitialPosition, String> {
    let seconds = number(text)?;
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds < 253_402_300_800)
        .map(|seconds| InitialPosition::AtTimestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
        .ok_or_else(|| format!("{seconds} is no time in seconds since 1970 (not milliseconds)"))
}

pub(super) fn java_mode(text: &str) -> Result<Option<Mode>, String> {
    match text.trim().to_ascii_uppercase().as_str() {
        "FANOUT" => Ok(Some(Mode::FanOut)),
        "POLLING" => Ok(Some(Mode::Polling)),
        "DEFAULT" => Ok(None),
        _ => Err("is none of FANOUT, POLLING and DEFAULT".to_owned()),
    }
}
