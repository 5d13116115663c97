//! Values as people write them.

use serde_json::{Map, Value, json};

use super::key::Kind;
use super::position;

/// A value as it was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given {
    /// Text that may stand for anything: of a variable, or of the program.
    Untyped(String),
    /// A string of TOML.
    Text(String),
    Integer(i128),
    Flag(bool),
    /// A date, or a time with or without one, as it was written.
    Date(String),
    Float(String),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl Given {
    /// How it looked, cut short.
    fn shown(&self) -> String {
        match self {
            Self::Untyped(text) | Self::Text(text) => {
                let short: String = text.chars().take(80).collect();
                format!("{short:?}")
            }
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Date(text) | Self::Float(text) => text.clone(),
            Self::List(_) => "this list".to_owned(),
            Self::Table(_) => "this table".to_owned(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it takes an optional value away.
    pub(super) fn is_none(&self) -> bool {
        self.text() == Some("none")
    }

    /// The number in it, if there is one to be read.
    fn number(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Untyped(text) => {
                let digits = text.trim().replace('_', "");
                (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
                    .then(|| digits.parse().unwrap_or(i128::MAX))
            }
            _ => None,
        }
    }
}

impl Kind {
    /// Reads a value, as it is serialised: durations in milliseconds.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub(super) fn read(self, given: &Given) -> Result<Value, String> {
        let value = match self {
            Self::Text => given.text().filter(|text| !text.trim().is_empty()).map(|text| json!(text)),
            Self::Flag => match given {
                Given::Flag(flag) => Some(json!(flag)),
                Given::Untyped(text) => text.trim().parse::<bool>().ok().map(|flag| json!(flag)),
                _ => None,
            },
            Self::Number { least, most } => within(given.number(), least, most),
            Self::Bytes { least } => {
                let read = given.number().or_else(|| parse_bytes(given.text()?));
                within(read, least, i64::MAX.unsigned_abs())
            }
            Self::Time { least, most } => {
                let millis = match (given.number(), given.text()) {
                    (Some(number), _) => Ok(Some(number)),
                    (None, Some(text)) => parse_time(text),
                    (None, None) => Ok(None),
                };
                within(millis.map_err(|problem| format!("{}: {problem}", given.shown()))?, least, most)
            }
            Self::Choice(choices) => {
                given.text().and_then(|text| choice(text, choices)).map(|text| json!(text))
            }
            Self::Position => match given {
                Given::Untyped(text) | Given::Text(text) | Given::Date(text) => {
                    position::parse(text.trim()).map(|position| json!(position::text(position)))
                }
                _ => None,
            },
            Self::Names(names) => list(given).and_then(|items| {
                let items: Option<Vec<_>> = items.iter().map(|item| choice(item, names)).collect();
                items.map(|items| json!(items))
            }),
            Self::Tags => tags(given),
        };
        value.ok_or_else(|| self.refusal(given))
    }

    fn refusal(self, given: &Given) -> String {
        let hint = match (self, given) {
            (Self::Text, Given::Untyped(_) | Given::Text(_)) => return "must not be empty".to_owned(),
            (Self::Number { .. } | Self::Flag, Given::Text(_)) => ", without quotes",
            (Self::Time { .. }, _) => ", as 500ms, 10s or 5m; a plain number is milliseconds",
            (Self::Bytes { .. }, _) => ", as 16MiB; a plain number is bytes",
            (Self::Tags, Given::Untyped(_)) => ", as name=value,name=value",
            _ => "",
        };
        format!("{} is not allowed here; allowed is {}{hint}", given.shown(), self.allowed())
    }

    /// A value as people write it, in TOML.
    pub(super) fn written(self, value: &Value) -> String {
        let text = |value: &Value| quoted(value.as_str().unwrap_or_default());
        match (self, value) {
            (Self::Time { .. }, Value::Number(millis)) => {
                quoted(&time_text(millis.as_u64().unwrap_or_default()))
            }
            (Self::Bytes { .. }, Value::Number(bytes)) => {
                let size = bytes_text(bytes.as_u64().unwrap_or_default());
                if size.ends_with('B') { quoted(&size) } else { size }
            }
            (_, Value::Array(items)) => {
                format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", "))
            }
            (_, Value::Object(tags)) => {
                let tags = tags.iter().map(|(name, tag)| format!("{} = {}", quoted(name), text(tag)));
                let tags: Vec<_> = tags.collect();
                if tags.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", tags.join(", ")) }
            }
            (_, Value::String(text)) => quoted(text),
            (_, value) => value.to_string(),
        }
    }
}

fn within(number: Option<i128>, least: u64, most: u64) -> Option<Value> {
    let number = u64::try_from(number?).ok()?;
    (least..=most).contains(&number).then(|| json!(number))
}

/// The choice that is meant, whatever its case and hyphens.
fn choice(text: &str, choices: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| text.trim().replace(['-', '_'], "").to_ascii_lowercase();
    choices.iter().copied().find(|choice| plain(choice) == plain(text))
}

fn list(given: &Given) -> Option<Vec<String>> {
    match given {
        Given::Untyped(text) => {
            Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
        Given::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Tags: a table of texts, or `name=value,name=value`.
fn tags(given: &Given) -> Option<Value> {
    let tags: Option<Map<_, _>> = match given {
        Given::Table(tags) => {
            tags.iter().map(|(name, tag)| Some((name.clone(), json!(tag.text()?)))).collect()
        }
        Given::Untyped(text) => text
            .split(',')
            .filter(|pair| !pair.trim().is_empty())
            .map(|pair| {
                let (name, tag) = pair.split_once('=')?;
                Some((name.trim().to_owned(), json!(tag.trim())))
            })
            .collect(),
        _ => None,
    };
    tags.filter(|tags| tags.keys().all(|name| !name.is_empty())).map(Value::Object)
}

/// Reads a duration with units, in milliseconds; nothing if it is none.
fn parse_time(text: &str) -> Result<Option<i128>, &'static str> {
    let Ok(time) = humantime::parse_duration(text.trim()) else { return Ok(None) };
    if !time.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("times are whole milliseconds");
    }
    Ok(Some(i128::try_from(time.as_millis()).unwrap_or(i128::MAX)))
}

/// A duration in milliseconds, in the largest unit that is exact.
pub(super) fn time_text(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

/// A size in bytes, in the largest unit that is exact.
pub(super) fn bytes_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    unit.map_or_else(|| bytes.to_string(), |(bits, name)| format!("{}{name}", bytes >> bits))
}

fn parse_bytes(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let bits = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "b" => 0,
        "kib" => 10,
        "mib" => 20,
        "gib" => 30,
        _ => return None,
    };
    let digits = digits.trim_end();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse::<i128>().ok()?.checked_mul(1 << bits)).flatten()
}

/// A string of TOML, for keys too. The escapes of JSON are escapes of TOML; TOML wants one more.
pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007F")
}
