use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::key::{KEYS, Key, Kind};
use super::super::{Configuration, ConfigurationLoader};
use super::full;

/// A value of a key, in TOML.
fn value(key: &Key) -> BoxedStrategy<String> {
    let text = "[a-zA-Z0-9 '\"\\\\#=\u{7f}\u{e9}\n\t-]{1,12}";
    let quoted = |text: String| super::super::text::quoted(&text);
    match key.kind {
        Kind::Text if key.path == "stream" => Just("'orders'".to_owned()).boxed(),
        Kind::Text if key.path.starts_with("endpoints.") => {
            Just("'http://localhost:4566'".to_owned()).boxed()
        }
        Kind::Text if key.path == "application" => "'[a-z-]{3,12}'".boxed(),
        Kind::Text => text.prop_map(quoted).boxed(),
        Kind::Flag => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        Kind::Number { least, most } | Kind::Time { least, most } => {
            (least..=most).prop_map(|number| number.to_string()).boxed()
        }
        Kind::Bytes { least } => {
            prop_oneof![least..1 << 40, (1_u64..1 << 20).prop_map(|number| number << 20)]
                .prop_map(|number| number.to_string())
                .boxed()
        }
        Kind::Choice(choices) | Kind::Names(choices) => {
            let is_list = matches!(key.kind, Kind::Names(_));
            proptest::sample::select(choices)
                .prop_map(move |choice| if is_list { format!("['{choice}']") } else { format!("'{choice}'") })
                .boxed()
        }
        Kind::Position => (0_u32..u32::MAX)
            .prop_map(|seconds| {
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::from(seconds) * 777);
                format!("'{}'", humantime::format_rfc3339(time))
            })
            .boxed(),
        Kind::Tags => proptest::collection::btree_map(text, text, 0..3)
            .prop_map(move |tags| {
                let tags = tags.into_iter().map(|(name, tag)| format!("{} = {}", quoted(name), quoted(tag)));
                format!("{{ {} }}", tags.collect::<Vec<_>>().join(", "))
            })
            .boxed(),
    }
}

/// Values for some keys. What contradicts is taken out again, so that a configuration is left.
fn configurations() -> impl Strategy<Value = Configuration> {
    let values: Vec<_> = KEYS.iter().map(|key| proptest::option::weighted(0.3, value(key))).collect();
    values.prop_map(|values| {
        let mut lines: Vec<_> = KEYS
            .iter()
            .zip(values)
            .filter_map(|(key, value)| Some((key.path.to_owned(), format!("{} = {}", key.path, value?))))
            .collect();
        loop {
            let mut text = String::new();
            for (_, line) in &lines {
                writeln!(text, "{line}").unwrap();
            }
            let loader = ConfigurationLoader::new().set("application", "orders-app").set("stream", "orders");
            match loader.toml("a.toml", &text).load() {
                Ok(configuration) => return configuration,
                Err(error) => {
                    let named = |path: &String| {
                        error.problems().iter().any(|problem| problem.key.as_ref() == Some(path))
                    };
                    let before = lines.len();
                    lines.retain(|(path, _)| !named(path));
                    if lines.len() == before {
                        // A default does not fit a value: the other settings, billing or checkpoint policy go.
                        let section = error.problems()[0].key.clone().unwrap();
                        let section = section.split('.').next().unwrap().to_owned();
                        lines.retain(|(path, _)| {
                            !path.starts_with(&section) && !path.starts_with("settings.leaseD")
                        });
                    }
                    assert!(lines.len() < before, "{error}\n{text}");
                }
            }
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(configuration in configurations()) {
        let text = configuration.to_toml();
        let read = ConfigurationLoader::new().toml("a.toml", &text).load();
        prop_assert_eq!(read, Ok(configuration.clone()), "{}", text);
        let json = serde_json::to_string(&configuration).unwrap();
        prop_assert_eq!(serde_json::from_str::<Configuration>(&json).unwrap(), configuration);
    }
}

#[test]
fn every_value_is_written_that_differs_from_its_default() {
    let text = full().to_toml();
    let defaults = Configuration::default().values();
    for key in KEYS.iter().filter(|key| super::super::value::at(&defaults, key.path).is_none()) {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} = "))), "{}: {text}", key.path);
    }
    assert_eq!(Configuration::new("a-1", "s").to_toml(), "application = \"a-1\"\nstream = \"s\"\n");
}
