//! What became of each key of a `.properties` file.

use std::fmt;

use serde::Serialize;

use super::super::problem::Problem;

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "treatment", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum PropertyTreatment {
    /// It is a setting of the same name.
    Taken {
        /// The setting's key.
        setting: String,
        /// The value, as TOML.
        value: String,
        /// What to know about it.
        note: Option<String>,
    },
    /// It is a setting of another name.
    Renamed {
        /// The setting's key.
        setting: String,
        /// The value, as TOML.
        value: String,
        /// What to know about it.
        note: Option<String>,
    },
    /// It means nothing here.
    WithoutMeaning {
        /// Why.
        why: String,
        /// What to do instead.
        instead: String,
    },
    /// The Java KCL does not know it either, and ignores it.
    Unknown {
        /// The known key that is spelt most like it.
        nearest: Option<String>,
    },
    /// A later line of the same key replaces it, as in Java.
    Replaced {
        /// That line.
        by_line: usize,
    },
    /// Its value is wrong.
    Wrong {
        /// What is wrong, and what is allowed.
        problem: String,
    },
}

/// A key of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PropertyEntry {
    /// The line.
    pub line: usize,
    /// The key, as it stands there.
    pub key: String,
    /// What became of it.
    #[serde(flatten)]
    pub treatment: PropertyTreatment,
}

/// What is done where the file says nothing, and the Java KCL does something that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Assumption {
    /// The key that is missing, if it is about one.
    pub key: Option<String>,
    /// What the Java KCL does without it.
    pub java: String,
    /// The setting.
    pub setting: String,
    /// Its value here, as TOML.
    pub value: String,
}

/// What became of each key of a `.properties` file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PropertiesReport {
    /// The file, as it was named.
    pub file: String,
    /// Every key in it.
    pub entries: Vec<PropertyEntry>,
    /// What the file leaves open.
    pub assumptions: Vec<Assumption>,
    /// Everything that is wrong; empty if there is a configuration.
    pub problems: Vec<Problem>,
}

impl PropertiesReport {
    /// Whether there is nothing to be looked at: nothing wrong and no unknown key.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        let unknown = |entry: &PropertyEntry| matches!(entry.treatment, PropertyTreatment::Unknown { .. });
        self.problems.is_empty() && !self.entries.iter().any(unknown)
    }
}

impl PropertyEntry {
    /// The word for the treatment, and lines about it.
    fn row(&self) -> (&'static str, Vec<String>) {
        let with_note = |setting: &str, value: &str, note: &Option<String>| {
            let mut lines = vec![format!("{setting} = {value}")];
            lines.extend(note.clone());
            lines
        };
        match &self.treatment {
            PropertyTreatment::Taken { setting, value, note } => ("taken", with_note(setting, value, note)),
            PropertyTreatment::Renamed { setting, value, note } => {
                ("renamed", with_note(setting, value, note))
            }
            PropertyTreatment::WithoutMeaning { why, instead } => {
                ("no meaning", vec![why.clone(), format!("instead: {instead}")])
            }
            PropertyTreatment::Unknown { nearest } => {
                let meant = nearest.as_ref().map(|nearest| format!("is {nearest} meant?"));
                let ignored = "Java does not know it and ignores it".to_owned();
                ("UNKNOWN", meant.into_iter().chain([ignored]).collect())
            }
            PropertyTreatment::Replaced { by_line } => ("replaced", vec![format!("by line {by_line}")]),
            PropertyTreatment::Wrong { problem } => ("WRONG", vec![problem.clone()]),
        }
    }
}

impl fmt::Display for PropertiesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |text: &str| text.chars().count().min(50);
        let width = self.entries.iter().map(|entry| widest(&entry.key)).max().unwrap_or(0);
        writeln!(f, "{}: {} keys", self.file, self.entries.len())?;
        for entry in &self.entries {
            let (word, lines) = entry.row();
            let mut lines = lines.iter();
            let first = lines.next().map_or("", String::as_str);
            writeln!(
                f,
                "{:>5}  {:width$}  {word:10}  {first}",
                entry.line,
                entry.key.escape_debug().to_string()
            )?;
            for line in lines {
                writeln!(f, "{:>5}  {:width$}  {:10}  {line}", "", "", "")?;
            }
        }
        if !self.assumptions.is_empty() {
            writeln!(f, "\nWhere the file says nothing:")?;
        }
        for Assumption { key, java, setting, value } in &self.assumptions {
            let key = key.as_ref().map(|key| format!("no {key}: ")).unwrap_or_default();
            writeln!(f, "  {setting} = {value}\n      {key}{java}")?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nProblems:")?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "- {problem}"))
    }
}
