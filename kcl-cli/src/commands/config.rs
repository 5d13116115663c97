//! `config`: files of configuration.

use std::fmt;
use std::path::Path;

use kcl_core::config::{
    Configuration, ConfigurationError, ConfigurationLoader, Conversion, Problem, PropertiesReport,
    convert_properties,
};
use serde::Serialize;

use super::Outcome;
use crate::console::Console;
use crate::error::{CliError, CliErrorKind, usage};

pub(super) fn check(
    file: &Path,
    with_environment: bool,
    console: &mut Console<'_>,
) -> Result<Outcome, CliError> {
    let bytes = read(file)?;
    if is_properties(file) {
        if with_environment {
            return Err(usage("--with-environment is for TOML: the Java KCL reads no variables"));
        }
        let report = convert_properties(&name(file), &bytes).report;
        console.show(&report)?;
        return Ok(Outcome::of(!report.is_in_order()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        CliError::new(CliErrorKind::Invalid, format!("{} is not UTF-8", name(file))).with_source(error)
    })?;
    let mut loader = ConfigurationLoader::new().toml(name(file), &text);
    if with_environment {
        loader = loader.environment();
    }
    let checked = Checked::of(&name(file), loader.load());
    console.show(&checked)?;
    Ok(Outcome::of(!checked.problems.is_empty()))
}

pub(super) fn convert(file: &Path, console: &mut Console<'_>) -> Result<(), CliError> {
    if !is_properties(file) {
        return Err(usage(format!("{} does not end in .properties", name(file)))
            .with_hint("kcl config check looks at TOML"));
    }
    let conversion = convert_properties(&name(file), &read(file)?);
    let Conversion { report, configuration, .. } = &conversion;
    match (configuration, conversion.to_toml()) {
        (Ok(configuration), Ok(toml)) => {
            if console.is_json() {
                return console.show(&Converted { configuration, report });
            }
            console.note(report)?;
            console.print(&toml)
        }
        _ => {
            if !console.is_json() {
                console.note(report)?;
            }
            let mut message = format!("{} was not converted", name(file));
            if let (Err(error), true) = (configuration, console.is_json()) {
                message.push_str(&format!(": {error}"));
            }
            Err(CliError::new(CliErrorKind::Invalid, message)
                .with_hint("correct the lines that are named; kcl config check shows them again"))
        }
    }
}

fn is_properties(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("properties"))
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| {
        CliError::new(CliErrorKind::Missing, format!("cannot read {}", file.display())).with_source(error)
    })
}

/// What `config check` says of TOML.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    configuration: Option<Configuration>,
    problems: Vec<Problem>,
}

impl Checked {
    fn of(file: &str, loaded: Result<Configuration, ConfigurationError>) -> Self {
        let (configuration, problems) = match loaded {
            Ok(configuration) => (Some(configuration), Vec::new()),
            Err(error) => (None, error.problems().to_vec()),
        };
        Self { file: file.to_owned(), configuration, problems }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.configuration {
            Some(configuration) => {
                writeln!(f, "{} is in order; with the defaults left out it says", self.file)?;
                writeln!(f)?;
                f.write_str(&configuration.to_toml())
            }
            None => {
                writeln!(f, "{} makes no sense:", self.file)?;
                self.problems.iter().try_for_each(|problem| writeln!(f, "- {problem}"))
            }
        }
    }
}

/// What `config convert --json` says.
#[derive(Debug, Serialize)]
struct Converted<'a> {
    configuration: &'a Configuration,
    report: &'a PropertiesReport,
}

impl fmt::Display for Converted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.configuration.to_toml())
    }
}
