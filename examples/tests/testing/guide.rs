//! Whether the guide says what is.

use kcl_core::testing::Mishap;

use super::services::VARIABLE;

const GUIDE: &str = include_str!("../../../docs/testing.md");
const MANIFEST: &str = include_str!("../../Cargo.toml");
/// Where the guide's code is from. All of it is compiled and run.
const SOURCES: [&str; 4] = [
    include_str!("main.rs"),
    include_str!("services.rs"),
    include_str!("totals.rs"),
    include_str!("../../../kcl-lease-memory/tests/memory.rs"),
];

/// The blocks of the guide in this language.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let (mut blocks, mut block) = (Vec::new(), None::<String>);
    for line in GUIDE.lines() {
        block = match block {
            None => (line == opening).then(String::new),
            Some(block) if line == "```" => {
                blocks.push(block);
                None
            }
            Some(block) => Some(block + line + "\n"),
        };
    }
    blocks
}

/// The lines that are not empty, without indentation.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_line_of_code_in_the_guide_is_of_a_test_that_runs() {
    let excerpts = blocks("rust");
    assert!(excerpts.len() >= 5, "{}", excerpts.len());
    for excerpt in excerpts {
        let wanted = lines(&excerpt);
        let is_there =
            SOURCES.iter().any(|source| lines(source).windows(wanted.len()).any(|window| window == wanted));
        assert!(is_there, "in no test:\n{excerpt}");
    }
}

#[test]
fn the_first_test_of_the_guide_has_at_most_40_lines() {
    let first = blocks("rust").remove(0);
    assert!(first.contains("reshard") && first.contains("crash") && first.contains("deploy"), "{first}");
    assert!(first.lines().count() <= 40, "{} lines", first.lines().count());
}

#[test]
fn the_guide_names_every_mishap_and_says_what_it_does() {
    let rows: Vec<(&str, &str)> = GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .filter(|(name, _)| name.contains('-'))
        .collect();
    let mishaps: Vec<_> = Mishap::ALL.iter().map(|mishap| (mishap.name(), mishap.description())).collect();
    assert_eq!(rows, mishaps);
}

#[test]
fn the_dependencies_of_the_guide_are_those_of_its_tests() {
    let manifest: Vec<_> = MANIFEST.lines().collect();
    for line in blocks("toml").join("").lines().filter(|line| line.contains(" = ")) {
        let (name, value) = line.split_once(" = ").unwrap();
        let (_, features) = value.split_once('[').unwrap_or_default();
        let here: Vec<_> = manifest.iter().filter(|line| line.starts_with(&format!("{name} = "))).collect();
        assert!(!here.is_empty(), "{name} is no dependency of these tests");
        for feature in features.split('"').skip(1).step_by(2) {
            let is_there = here.iter().any(|line| line.contains(&format!("\"{feature}\"")));
            assert!(is_there, "{name} has no feature {feature} here");
        }
    }
}

#[test]
fn the_commands_of_the_guide_name_the_variable_and_the_feature() {
    let commands = blocks("sh").join("");
    assert!(commands.contains(&format!("{VARIABLE}=1")) && commands.contains("--features aws"), "{commands}");
}
