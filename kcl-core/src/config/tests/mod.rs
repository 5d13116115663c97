mod applying;
mod documentation;
mod loading;
mod properties;
mod writing;

use serde_json::Value;

use super::key::{KEYS, Kind};
use super::value::at;
use super::{Configuration, ConfigurationLoader};

/// A configuration in which every key has a value.
fn full() -> Configuration {
    let mut values = Configuration::new("orders-app", "orders").values();
    for key in KEYS {
        if at(&values, key.path).is_none() {
            let sample = match key.kind {
                Kind::Text => Value::from("text"),
                _ => Value::from(1),
            };
            let Value::Object(tree) = &mut values else { unreachable!("a configuration is a map") };
            super::value::put(tree, key.path, sample);
        }
    }
    serde_json::from_value(values).unwrap()
}

fn loader() -> ConfigurationLoader {
    ConfigurationLoader::new().set("application", "orders-app").set("stream", "orders")
}

/// The problems of what must not load, one text each.
fn problems(loader: ConfigurationLoader) -> Vec<String> {
    loader.load().unwrap_err().problems().iter().map(ToString::to_string).collect()
}

#[test]
fn every_field_has_a_key_and_every_key_is_a_field() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if path != "leaseTable.tags" => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    leaves(value, &path, found);
                }
            }
            _ => found.push(path.to_owned()),
        }
    }
    let mut fields = Vec::new();
    leaves(&full().values(), "", &mut fields);
    fields.sort();
    let mut keys: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    keys.sort();
    assert_eq!(fields, keys);
}

#[test]
fn the_kinds_of_keys_are_those_of_their_fields() {
    let values = full().values();
    for key in KEYS {
        let value = at(&values, key.path).unwrap();
        let fits = match key.kind {
            Kind::Text | Kind::Position => value.is_string(),
            Kind::Choice(choices) => choices.contains(&value.as_str().unwrap()),
            Kind::Flag => value.is_boolean(),
            Kind::Number { .. } | Kind::Bytes { .. } | Kind::Time { .. } => value.is_u64(),
            Kind::Names(_) => value.is_array(),
            Kind::Tags => value.is_object(),
        };
        assert!(fits, "{}: {value}", key.path);
    }
}

/// The ranges are written twice: where a text is read, and where settings made in code are checked.
#[test]
fn what_the_range_of_a_setting_excludes_the_settings_refuse_too() {
    for key in KEYS.iter().filter(|key| key.path.starts_with("settings.")) {
        let (least, most) = match key.kind {
            Kind::Number { least, .. } | Kind::Bytes { least } => (least, None),
            Kind::Time { least, most } => (least, Some(most).filter(|most| *most < 365 * 86_400_000)),
            _ => continue,
        };
        // Of the two delays the problem is told of the first; no load at all is a choice in code.
        if matches!(key.path, "settings.maxLoad" | "settings.retryMax") {
            continue;
        }
        let outside = [least.checked_sub(1), most.map(|most| most + 1)];
        for number in outside.into_iter().flatten() {
            let mut values = Configuration::new("orders-app", "orders").values();
            let Value::Object(tree) = &mut values else { unreachable!("a configuration is a map") };
            super::value::put(tree, key.path, Value::from(number));
            // The longest lease there is, for limits that depend on it.
            if key.path != "settings.leaseDuration" {
                super::value::put(tree, "settings.leaseDuration", Value::from(600_000));
            }
            let configuration: Configuration = serde_json::from_value(values).unwrap();
            let problems = configuration.problems();
            assert!(
                problems.iter().any(|(path, _)| path == key.path),
                "{} = {number}: {problems:?}",
                key.path
            );
        }
    }
}
