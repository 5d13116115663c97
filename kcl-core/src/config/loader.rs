//! Putting a configuration together, in layers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::configuration::Configuration;
use super::key::{KEYS, Presence, is_section, key, nearest};
use super::problem::{ConfigurationError, Origin, Problem};
use super::text::Given;
use super::value::put;

/// What every variable of ours begins with.
const PREFIX: &str = "KCL_";

/// A value somebody gave, before anything is known of it.
#[derive(Clone, Debug)]
struct Entry {
    path: String,
    given: Given,
    origin: Origin,
}

/// Puts a [`Configuration`] together: each layer over those before it, and all over the defaults.
///
/// Nothing is ignored: a key that does not exist, in a file or as a variable that begins with `KCL_`, is a problem, and
/// so is each value that is out of range, even if a later layer replaces it. For a key without a default, the text
/// `none` takes back what an earlier layer said.
#[derive(Clone, Default)]
pub struct ConfigurationLoader {
    entries: Vec<Entry>,
    problems: Vec<Problem>,
    ignored: BTreeSet<String>,
}

impl fmt::Debug for ConfigurationLoader {
    /// Says where values are, not which: what is not a key of ours may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins: Vec<_> = self.entries.iter().map(|entry| entry.origin.to_string()).collect();
        f.debug_struct("ConfigurationLoader").field("entries", &origins).finish_non_exhaustive()
    }
}

impl ConfigurationLoader {
    /// Begins with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file of TOML. That it cannot be read is a problem like others.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        let name = path.as_ref().display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.toml(name, &text),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                let origin = Origin::File { file: name, line: 0 };
                self.problems.push(Problem { origin, key: None, message });
                self
            }
        }
    }

    /// Adds TOML; `name` is what messages call it.
    #[must_use]
    pub fn toml(mut self, name: impl Into<String>, text: &str) -> Self {
        let name = name.into();
        let (table, errors) = DeTable::parse_recoverable(text);
        let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        for error in errors {
            let line = line(error.span().map_or(0, |span| span.start));
            // The message alone: the whole error quotes the line, in which a secret may stand by mistake.
            let message = format!("not TOML: {}", error.message().replace('\n', " "));
            self.problems.push(Problem {
                origin: Origin::File { file: name.clone(), line },
                key: None,
                message,
            });
        }
        let origin = |offset: usize| Origin::File { file: name.clone(), line: line(offset) };
        flatten(table.get_ref(), "", &origin, &mut self.entries);
        self
    }

    /// Adds the variables of this process: `KCL_`, then the key in capitals, with `__` for a dot and `_` between words.
    /// `settings.leaseDuration` is `KCL_SETTINGS__LEASE_DURATION`.
    #[must_use]
    pub fn environment(mut self) -> Self {
        for (name, value) in std::env::vars_os() {
            if !name.to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => self = self.variables([(name, value)]),
                (name, value) => {
                    let name = name.unwrap_or_else(|name: OsString| name.to_string_lossy().into_owned());
                    let what = if value.is_err() { "its value" } else { "its name" };
                    let message = format!("{what} is not UTF-8");
                    self.problems.push(Problem { origin: Origin::Variable { name }, key: None, message });
                }
            }
        }
        self
    }

    /// Adds variables as if they were of the environment. Those that do not begin with `KCL_` are left alone.
    #[must_use]
    pub fn variables<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        for (name, value) in variables {
            let name = name.into();
            if let Some(rest) = name.strip_prefix(PREFIX) {
                let key = KEYS.iter().find(|key| key.variable() == rest);
                let path = key.map_or_else(String::new, |key| key.path.to_owned());
                let origin = Origin::Variable { name };
                self.entries.push(Entry { path, given: Given::Untyped(value.into()), origin });
            }
        }
        self
    }

    /// Allows variables that begin with `KCL_` and are for somebody else.
    #[must_use]
    pub fn ignore_variables<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignored.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a value by its key, as an argument of a command line would have it.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (path, given) = (key.into(), Given::Untyped(value.into()));
        self.entries.push(Entry { path, given, origin: Origin::Program });
        self
    }

    /// Puts it together and checks it.
    ///
    /// # Errors
    /// With every problem, each with its place, its key, what is wrong and what is allowed.
    pub fn load(self) -> Result<Configuration, ConfigurationError> {
        let Self { entries, mut problems, ignored } = self;
        let mut chosen: BTreeMap<&str, (Value, Origin)> = BTreeMap::new();
        let mut wrong: BTreeSet<&str> = BTreeSet::new();
        for entry in entries {
            let Some(key) = key(&entry.path) else {
                problems.extend(unknown(&entry, &ignored));
                continue;
            };
            if key.presence == Presence::Optional && entry.given.is_none() {
                chosen.remove(key.path);
                continue;
            }
            match key.kind.read(&entry.given) {
                Ok(value) => {
                    chosen.insert(key.path, (value, entry.origin));
                }
                Err(message) => {
                    wrong.insert(key.path);
                    problems.push(Problem::new(entry.origin, key.path, message));
                }
            }
        }
        let mut tree = Map::new();
        for (path, (value, _)) in &chosen {
            put(&mut tree, path, value.clone());
        }
        match serde_json::from_value::<Configuration>(Value::Object(tree)) {
            Ok(configuration) => {
                for (key, message) in configuration.problems() {
                    if !wrong.contains(key.as_str()) {
                        let origin = chosen.get(key.as_str());
                        let origin = origin.map_or(Origin::Default, |(_, origin)| origin.clone());
                        problems.push(Problem::new(origin, key, message));
                    }
                }
                if problems.is_empty() {
                    return Ok(configuration);
                }
            }
            Err(error) => {
                let message = format!("{error}; this should not happen: report it");
                problems.push(Problem { origin: Origin::Program, key: None, message });
            }
        }
        Err(ConfigurationError::new(problems))
    }
}

/// Takes the values out of a table, by their paths.
fn flatten(table: &DeTable<'_>, section: &str, origin: &dyn Fn(usize) -> Origin, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let name_text: &str = name.get_ref();
        let path = if section.is_empty() { name_text.to_owned() } else { format!("{section}.{name_text}") };
        match value.get_ref() {
            DeValue::Table(inner) if key(&path).is_none() && !inner.is_empty() => {
                flatten(inner, &path, origin, entries);
            }
            // An empty section says nothing.
            DeValue::Table(_) if is_section(&path) => {}
            _ => entries.push(Entry { path, given: given(value), origin: origin(name.span().start) }),
        }
    }
}

fn given(value: &Spanned<DeValue<'_>>) -> Given {
    match value.get_ref() {
        DeValue::String(text) => Given::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            Given::Integer(i128::from_str_radix(&digits, number.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Float(number) => Given::Float(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Given::Flag(*flag),
        DeValue::Datetime(time) => Given::Date(time.to_string()),
        DeValue::Array(items) => Given::List(items.iter().map(given).collect()),
        DeValue::Table(table) => Given::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), given(value))).collect(),
        ),
    }
}

/// What to say of a key or a variable that does not exist.
fn unknown(entry: &Entry, ignored: &BTreeSet<String>) -> Option<Problem> {
    let message = match &entry.origin {
        Origin::Variable { name } => {
            if ignored.contains(name) {
                return None;
            }
            let variables: Vec<_> = KEYS.iter().map(|key| format!("{PREFIX}{}", key.variable())).collect();
            match nearest(name, variables.iter().map(String::as_str)) {
                Some(near) => format!("there is no such variable; is {near} meant?"),
                None => format!(
                    "there is no such variable; docs/configuration.md lists them. If it is somebody else's, the program \
                     must name it to ignore_variables, or it must not begin with {PREFIX}"
                ),
            }
        }
        _ if is_section(&entry.path) => {
            format!("is a section: write its keys below [{}]", entry.path)
        }
        _ => {
            let near = nearest(&entry.path, KEYS.iter().map(|key| key.path)).or_else(|| {
                // The right name in the wrong section.
                let name = entry.path.rsplit('.').next()?;
                KEYS.iter().map(|key| key.path).find(|path| path.rsplit('.').next() == Some(name))
            });
            match near {
                Some(near) => format!("there is no such key; is {near} meant?"),
                None => "there is no such key; docs/configuration.md lists them".to_owned(),
            }
        }
    };
    let key = (!entry.path.is_empty()).then(|| entry.path.clone());
    Some(Problem { origin: entry.origin.clone(), key, message })
}
