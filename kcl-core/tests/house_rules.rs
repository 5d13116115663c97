//! Rules of the house that no lint knows.

#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file of the library crates and of the simulator.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = [
        "kcl-core",
        "kcl-lease-dynamo",
        "kcl-lease-memory",
        "kcl-local",
        "integration-tests",
        "examples",
        "examples/ec2-autoscaling",
        "kcl-cli",
    ];
    let mut folders: Vec<PathBuf> = crates.iter().map(|name| root.join(name).join("src")).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// A `select!` that is not biased draws its order from the runtime, and the same seed no longer gives the same history.
#[test]
fn every_select_is_biased() {
    let mut selects = 0;
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (index, line) in lines.iter().enumerate() {
            if line.ends_with("select! {") {
                selects += 1;
                let place = format!("{}:{}", path.display(), index + 1);
                let first = lines[index + 1..].iter().find(|line| !line.starts_with("//"));
                assert_eq!(first, Some(&"biased;"), "{place}: a select must be biased");
            }
        }
    }
    assert!(selects > 10, "the rule finds the selects it is about: {selects}");
}
