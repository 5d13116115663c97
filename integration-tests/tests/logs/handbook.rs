//! The operator's handbook (`docs/operations.md`) knows each line at WARN and ERROR, and no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CRATES: [&str; 4] = ["kcl-core", "kcl-lease-dynamo", "kcl-lease-memory", "kpl-aggregation"];
const HEADING: &str = "## Warnings and errors in the log";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of a crate that run in production.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "tests" && name != "testing" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The messages of a macro's calls in a text: in each the last literal that is an argument of its own.
fn messages(text: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let call = format!("{name}!(");
    let mut rest = text;
    while let Some(at) = rest.find(&call) {
        let before = rest[..at].chars().next_back();
        let body = &rest[at + call.len()..];
        rest = body;
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        found.push(message(body).unwrap_or_else(|| panic!("no message: {}", &body[..80])));
    }
    found
}

fn message(body: &str) -> Option<String> {
    let (mut depth, mut last, mut previous) = (1_u32, None, ' ');
    let mut characters = body.chars();
    while let Some(c) = characters.next() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => {
                depth -= 1;
                if depth == 0 {
                    return last;
                }
            }
            '"' => {
                let literal: String = characters.by_ref().take_while(|c| *c != '"').collect();
                assert!(!literal.contains('\\'), "a message without escapes: {literal}");
                if depth == 1 && matches!(previous, ' ' | ',' | '(') {
                    last = Some(literal);
                }
            }
            _ => {}
        }
        if !c.is_whitespace() {
            previous = c;
        }
    }
    None
}

/// The lines that the code writes, with their levels.
fn written() -> BTreeMap<String, &'static str> {
    let mut written = BTreeMap::new();
    for member in CRATES {
        let mut files = Vec::new();
        sources(&root().join(member).join("src"), &mut files);
        assert!(!files.is_empty(), "no sources of {member}");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for (name, level) in [("warn", "WARN"), ("error", "ERROR")] {
                for message in messages(text, name) {
                    let before = written.insert(message.clone(), level);
                    assert!(before.is_none_or(|before| before == level), "two levels: {message}");
                }
            }
        }
    }
    written
}

/// The lines that the handbook explains.
fn explained() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = text.split_once(HEADING).expect("the handbook has the section");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.splitn(2, "` | ");
        let message = cells.next()?.to_owned();
        let (level, action) = cells.next()?.split_once(" | ")?;
        assert!(action.trim_end_matches(['|', ' ']).len() > 20, "what is to be done? {message}");
        Some((message, level.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_handbook_explains_each_warning_and_error() {
    let written = written();
    let explained = explained();
    assert!(written.len() > 20, "{written:#?}");
    for (message, level) in &written {
        let row = explained.get(message);
        assert_eq!(row.map(String::as_str), Some(*level), "docs/operations.md has no row for: {message}");
    }
    for message in explained.keys() {
        assert!(written.contains_key(message), "nothing writes this any more: {message}");
    }
}

#[test]
fn messages_are_found_in_calls_of_any_shape() {
    let text = r#"
        tracing::warn!(shard = %a("x"), why = "no message", "first");
        warn!("second");
        error!(
            ?has,
            "third",
        );
        my_warn!("none");
    "#;
    assert_eq!(messages(text, "warn"), ["first", "second"]);
    assert_eq!(messages(text, "error"), ["third"]);
}
