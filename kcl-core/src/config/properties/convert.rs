//! From a file to a configuration and a report.

use std::collections::BTreeMap;

use java_properties::{LineContent, PropertiesIter};
use serde_json::{Map, Value, json};

use super::super::configuration::Configuration;
use super::super::key::{key, nearest};
use super::super::position;
use super::super::problem::{ConfigurationError, Origin, Problem};
use super::super::value::{at, put};
use super::credentials;
use super::keys::{Form, Group, JAVA_KEYS, Rule, java_key};
use super::read::{Mode, epoch, java_mode, java_position, read};
use super::report::{Assumption, PropertiesReport, PropertyEntry, PropertyTreatment};

/// What came of a `.properties` file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conversion {
    /// What became of each key.
    pub report: PropertiesReport,
    /// The configuration, or everything that is wrong with it.
    pub configuration: Result<Configuration, ConfigurationError>,
}

impl Conversion {
    /// The configuration as TOML, with a comment on where each value comes from.
    ///
    /// # Errors
    /// If there is none.
    pub fn to_toml(&self) -> Result<String, ConfigurationError> {
        let configuration = self.configuration.clone()?;
        let text = configuration.to_commented_toml(|path| {
            let assumed = self.report.assumptions.iter().find(|assumption| assumption.setting == path);
            if let Some(Assumption { key, java, .. }) = assumed {
                let key = key.as_ref().map(|key| format!("No {key}: ")).unwrap_or_default();
                return Some(format!("{key}{java}"));
            }
            self.report.entries.iter().rev().find_map(|entry| match &entry.treatment {
                PropertyTreatment::Taken { setting, .. } | PropertyTreatment::Renamed { setting, .. }
                    if setting == path =>
                {
                    Some(format!("{}, line {}", entry.key.escape_debug(), entry.line))
                }
                _ => None,
            })
        });
        Ok(format!("# Made from {}.\n\n{text}", self.report.file.escape_debug()))
    }
}

/// Makes a configuration of a `.properties` file of the Java KCL; `file` is what messages call it.
///
/// The bytes are read as Java reads them: ISO-8859-1, with its escapes and continued lines. Everything that is wrong is
/// reported at once; then there is no configuration. Keys without meaning here, and keys that Java does not know
/// either, are in the report and no error.
///
/// Where the file says nothing, and it matters, what Java does is taken and put into the report: it starts at `LATEST`,
/// reads by fan-out unless a polling key is set, and sends detailed metrics. Coordination is `PerLease`, which works beside
/// workers of KCL 2.x.
#[must_use]
pub fn convert_properties(file: &str, bytes: &[u8]) -> Conversion {
    let (lines, broken) = lines(bytes);
    let mut conversion = Converter::new(file);
    conversion.problems.extend(broken.map(|(line, message)| Problem {
        origin: Origin::File { file: file.to_owned(), line },
        key: None,
        message,
    }));
    for (place, line) in lines.iter().enumerate() {
        let later = lines.iter().skip(place + 1).rev().find(|later| later.key == line.key);
        conversion.take(line, later);
    }
    conversion.finish()
}

struct Line {
    number: usize,
    key: String,
    value: String,
}

/// The keys of a file, and where and why it could not be read on.
fn lines(bytes: &[u8]) -> (Vec<Line>, Option<(usize, String)>) {
    let mut lines = Vec::new();
    for line in PropertiesIter::new(bytes) {
        match line {
            Ok(line) => {
                let number = line.line_number();
                if let LineContent::KVPair(key, value) = line.consume_content() {
                    lines.push(Line { number, key, value });
                }
            }
            Err(error) => {
                let message = format!("cannot be read from here on: {error}");
                return (lines, Some((error.line_number().unwrap_or(0), message)));
            }
        }
    }
    (lines, None)
}

/// A setting as a line gave it.
struct Chosen {
    entry: usize,
    value: Value,
}

struct Converter {
    file: String,
    entries: Vec<PropertyEntry>,
    assumptions: Vec<Assumption>,
    problems: Vec<Problem>,
    chosen: BTreeMap<&'static str, Chosen>,
    mode: Option<Mode>,
    polls: bool,
}

impl Converter {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            entries: Vec::new(),
            assumptions: Vec::new(),
            problems: Vec::new(),
            chosen: BTreeMap::new(),
            mode: None,
            polls: false,
        }
    }

    /// Treats a line; `later` is the last line of the same key, if there is one.
    fn take(&mut self, line: &Line, later: Option<&Line>) {
        let treatment = match (later, java_key(&line.key)) {
            (Some(later), _) => PropertyTreatment::Replaced { by_line: later.number },
            (None, None) => {
                let names = JAVA_KEYS.iter().map(|key| key.name);
                PropertyTreatment::Unknown { nearest: nearest(&line.key, names).map(str::to_owned) }
            }
            (None, Some(key)) => {
                self.polls |= key.group == Group::Polling;
                match self.apply(&key.rule, line) {
                    Ok(treatment) => treatment,
                    Err(problem) => {
                        self.wrong(line.number, &line.key, &problem);
                        PropertyTreatment::Wrong { problem }
                    }
                }
            }
        };
        self.entries.push(PropertyEntry { line: line.number, key: line.key.clone(), treatment });
    }

    fn apply(&mut self, rule: &Rule, line: &Line) -> Result<PropertyTreatment, String> {
        let (path, value, note) = match *rule {
            Rule::Without { why, instead } => {
                return Ok(PropertyTreatment::WithoutMeaning {
                    why: why.to_owned(),
                    instead: instead.to_owned(),
                });
            }
            Rule::Credentials => {
                return Ok(PropertyTreatment::WithoutMeaning {
                    why: "credentials come with the clients of the SDK".to_owned(),
                    instead: credentials::instead(&line.value),
                });
            }
            Rule::Takes { path, form, note } => {
                let value = read(form, path, &line.value)?;
                let zero = matches!(form, Form::Number | Form::Millis | Form::Seconds) && value == json!(0);
                let note = if zero { "Java takes its default for 0; here 0 is what it says" } else { note };
                (path, value, note)
            }
            Rule::Position => ("initialPosition", json!(position::text(java_position(&line.value)?)), ""),
            Rule::Epoch => ("initialPosition", json!(position::text(epoch(&line.value)?)), ""),
            Rule::Mode => {
                self.mode = java_mode(&line.value)?;
                let mode = match self.mode {
                    Some(Mode::Polling) => "Polling",
                    Some(Mode::FanOut) => "FanOut",
                    None => {
                        return Ok(PropertyTreatment::WithoutMeaning {
                            why: "DEFAULT is what holds without the key".to_owned(),
                            instead: "see what is said below of retrieval.mode".to_owned(),
                        });
                    }
                };
                ("retrieval.mode", json!(mode), "")
            }
        };
        self.choose(path, value, note, line)
    }

    /// Makes it the setting's value, unless another key has done so.
    fn choose(
        &mut self,
        path: &'static str,
        value: Value,
        note: &str,
        line: &Line,
    ) -> Result<PropertyTreatment, String> {
        if let Some(other) = self.chosen.get(path).and_then(|chosen| self.entries.get_mut(chosen.entry)) {
            match (other.key.as_str(), line.key.as_str()) {
                // Java prefers the ARN, wherever it stands.
                ("streamArn", "streamName") => return Ok(beaten("streamArn")),
                ("streamName", "streamArn") => other.treatment = beaten("streamArn"),
                (key, _) if self.chosen.get(path).is_some_and(|chosen| chosen.value != value) => {
                    return Err(format!(
                        "{key} in line {} says something else of the same thing, and Java takes one of the two by \
                         chance: remove one",
                        other.line
                    ));
                }
                _ => {}
            }
        }
        let written = key(path).map_or_else(String::new, |key| key.kind.written(&value));
        self.chosen.insert(path, Chosen { entry: self.entries.len(), value });
        let note = (!note.is_empty()).then(|| note.to_owned());
        let same_name = path.rsplit('.').next() == line.key.rsplit('.').next();
        let setting = path.to_owned();
        Ok(if same_name {
            PropertyTreatment::Taken { setting, value: written, note }
        } else {
            PropertyTreatment::Renamed { setting, value: written, note }
        })
    }

    fn wrong(&mut self, line: usize, key: &str, problem: &str) {
        let origin = Origin::File { file: self.file.clone(), line };
        self.problems.push(Problem::new(origin, key.escape_debug().to_string(), problem));
    }

    /// Takes a setting that the file does not name.
    fn assume(&mut self, java_key: Option<&str>, java: &str, path: &'static str, value: Value) {
        self.assumptions.push(Assumption {
            key: java_key.map(str::to_owned),
            java: java.to_owned(),
            setting: path.to_owned(),
            value: key(path).map_or_else(String::new, |key| key.kind.written(&value)),
        });
        self.chosen.insert(path, Chosen { entry: usize::MAX, value });
    }

    fn finish(mut self) -> Conversion {
        self.settle_position();
        self.settle_retrieval();
        self.settle_times();
        if !self.chosen.contains_key("metrics.level") && !self.is_wrong("metrics.level") {
            let java = "Java sends detailed metrics to CloudWatch. Its price is by the number of metrics.";
            self.assume(Some("metricsLevel"), java, "metrics.level", json!("Detailed"));
        }
        if !self.chosen.contains_key("settings.shutdownDeadline")
            && !self.is_wrong("settings.shutdownDeadline")
        {
            let java = "Java waits for nothing (0). Here shards are drained within this time.";
            let value = json!(default_millis("settings.shutdownDeadline"));
            self.assume(Some("shutdownGraceMillis"), java, "settings.shutdownDeadline", value);
        }
        let java = "PerLease works beside workers of Java KCL 2.x. Once they are gone, change to Fleet: docs/migrating.md.";
        self.assume(None, java, "coordination", json!("PerLease"));

        let mut tree = Map::new();
        for (path, chosen) in &self.chosen {
            put(&mut tree, path, chosen.value.clone());
        }
        let configuration = serde_json::from_value::<Configuration>(Value::Object(tree));
        match &configuration {
            Ok(configuration) => self.judge(configuration),
            Err(error) => self.wrong(0, "", &format!("{error}; this should not happen: report it")),
        }
        let report = PropertiesReport {
            file: self.file,
            entries: self.entries,
            assumptions: self.assumptions,
            problems: self.problems,
        };
        let error = || ConfigurationError::new(report.problems.clone());
        let configuration = configuration.map_err(|_| error());
        let configuration = if report.problems.is_empty() { configuration } else { Err(error()) };
        Conversion { report, configuration }
    }

    /// Whether a line for this setting is wrong, so that nothing is said of it besides.
    fn is_wrong(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| {
            matches!(entry.treatment, PropertyTreatment::Wrong { .. })
                && java_key(&entry.key).is_some_and(|key| key.rule.path() == Some(path))
        })
    }

    fn settle_position(&mut self) {
        if !self.chosen.contains_key("initialPosition") && !self.is_wrong("initialPosition") {
            let java = "Java starts at LATEST on shards without a checkpoint, and never reads what came before. \
                        TRIM_HORIZON would read it.";
            self.assume(Some("initialPositionInStream"), java, "initialPosition", json!("LATEST"));
        }
    }

    fn settle_retrieval(&mut self) {
        if self.is_wrong("retrieval.mode") {
            return;
        }
        if self.mode.is_none() {
            let (mode, java) = if self.polls {
                ("Polling", "Java polls, since a key of polling is set.")
            } else {
                ("FanOut", "Java reads by enhanced fan-out, at a price of its own; polling has none.")
            };
            self.assume(Some("retrievalMode"), java, "retrieval.mode", json!(mode));
        }
        let polls = self.mode.map_or(self.polls, |mode| mode == Mode::Polling);
        let both = ["retrieval.fanOut.consumerArn", "retrieval.fanOut.consumerName"];
        let unused: &[&str] = match polls {
            true => &both,
            false if self.chosen.contains_key(both[0]) => &both[1..],
            false => &[],
        };
        for path in unused {
            let Some(chosen) = self.chosen.remove(path) else { continue };
            if let Some(entry) = self.entries.get_mut(chosen.entry) {
                entry.treatment = if polls {
                    PropertyTreatment::WithoutMeaning {
                        why: "the stream is polled".to_owned(),
                        instead: "retrievalMode=FANOUT reads by fan-out".to_owned(),
                    }
                } else {
                    beaten("fanoutConfig.consumerArn")
                };
            }
        }
        let min = self.millis("retrieval.polling.minInterval");
        if let Some(min) = min.filter(|min| *min > default_millis("retrieval.polling.maxInterval")) {
            let java = "The longest interval, under throttling, must be as long as the shortest.";
            self.assume(None, java, "retrieval.polling.maxInterval", json!(min));
        } else if polls && min.is_none() && !self.is_wrong("retrieval.polling.minInterval") {
            let java =
                "Java waits 1500 ms between reads. Here the pace adapts to the other readers of the shard.";
            let key = Some("idleTimeBetweenReadsInMillis");
            let value = json!(default_millis("retrieval.polling.minInterval"));
            self.assume(key, java, "retrieval.polling.minInterval", value);
        }
    }

    /// What a short lease duration makes necessary.
    fn settle_times(&mut self) {
        let lease = self.millis("settings.leaseDuration").unwrap_or(u64::MAX / 4);
        let java = "The lease duration is short.";
        for (path, most) in [
            ("settings.leaseSafetyMargin", lease / 3),
            ("settings.leaseScanInterval", lease * 4 / 10),
            ("leaseTable.requestTimeout", lease / 3),
        ] {
            if most < default_millis(path) {
                self.assume(None, java, path, json!(most));
            }
        }
        let first = self.millis("settings.retryInitial");
        if let Some(first) = first.filter(|first| *first > default_millis("settings.retryMax")) {
            let java = "The largest delay after failures must be at least the first.";
            self.assume(None, java, "settings.retryMax", json!(first));
        }
    }

    fn millis(&self, path: &str) -> Option<u64> {
        self.chosen.get(path)?.value.as_u64()
    }

    /// Adds what is wrong with the whole.
    fn judge(&mut self, configuration: &Configuration) {
        for (path, message) in configuration.problems() {
            if self.is_wrong(&path) {
                continue;
            }
            let entry = self.chosen.get(path.as_str()).and_then(|chosen| self.entries.get_mut(chosen.entry));
            match entry {
                Some(entry) => {
                    let (line, key) = (entry.line, entry.key.clone());
                    entry.treatment = PropertyTreatment::Wrong { problem: message.clone() };
                    self.wrong(line, &key, &message);
                }
                None => {
                    let java = JAVA_KEYS.iter().find(|key| key.rule.path() == Some(path.as_str()));
                    let name = java.map_or(path.as_str(), |key| key.name);
                    self.wrong(0, name, &message);
                }
            }
        }
    }
}

/// The default of a duration.
fn default_millis(path: &str) -> u64 {
    at(&Configuration::default().values(), path).and_then(Value::as_u64).unwrap_or_default()
}

fn beaten(by: &str) -> PropertyTreatment {
    PropertyTreatment::WithoutMeaning {
        why: format!("{by} is set, too"),
        instead: format!("{by}, as in Java"),
    }
}
