use std::collections::BTreeMap;

use super::super::key::{KEYS, Key, Presence};
use super::super::properties::java_names;
use super::super::value::at;
use super::super::write::is_unlimited;
use super::super::{Configuration, ConfigurationLoader};

const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");
const EXAMPLE: &str = include_str!("../../../../docs/consumer.toml");

/// The default, as the documentation writes it.
fn default(key: &Key) -> String {
    let defaults = Configuration::default().values();
    let value = at(&defaults, key.path).filter(|value| !is_unlimited(key, value));
    match (key.presence, value) {
        (Presence::Required, _) => "required".to_owned(),
        (_, None) => "none".to_owned(),
        (_, Some(value)) => format!("`{}`", key.kind.written(value)),
    }
}

/// What must stand in a row: variable, default, what is allowed, keys of Java.
fn row(key: &Key) -> [String; 4] {
    let java: Vec<_> = java_names(key.path).iter().map(|name| format!("`{name}`")).collect();
    [format!("`KCL_{}`", key.variable()), default(key), key.kind.allowed(), java.join(", ")]
}

/// The rows of all tables of keys, by their keys.
fn documented() -> BTreeMap<&'static str, [String; 4]> {
    let mut in_table = false;
    let mut rows = BTreeMap::new();
    for line in DOCUMENTATION.lines() {
        if line.starts_with("| key | variable |") {
            in_table = true;
        } else if !line.starts_with('|') {
            in_table = false;
        } else if in_table && !line.starts_with("|---") {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [key, variable, default, allowed, what, java] = cells[..] else { panic!("{line}") };
            assert!(what.len() > 5, "{line}");
            let row = [variable, default, allowed, java].map(str::to_owned);
            assert!(rows.insert(key.trim_matches('`'), row).is_none(), "twice: {line}");
        }
    }
    rows
}

#[test]
fn the_documentation_has_every_key_with_variable_default_range_and_java_name() {
    let mut documented = documented();
    for key in KEYS {
        let found = documented.remove(key.path).unwrap_or_else(|| panic!("{} is not documented", key.path));
        assert_eq!(found, row(key), "{}", key.path);
    }
    assert!(documented.is_empty(), "not keys: {documented:?}");
}

#[test]
fn the_example_loads_and_shows_the_defaults() {
    let configuration = ConfigurationLoader::new().toml("consumer.toml", EXAMPLE).load().unwrap();
    assert_eq!(
        configuration,
        Configuration::new("orders-app", "orders"),
        "the example's values are the defaults"
    );
}

#[test]
fn the_example_has_every_key() {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches("#: ");
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}{name}"));
        }
    }
    let expected: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(keys, expected);
}
