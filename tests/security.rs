//! The table of `docs/security.md`: what it names exists, and no class of vulnerability that we know is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The table's rows: class, examples, what protects, tests.
fn rows() -> Vec<[String; 4]> {
    let text = fs::read_to_string(root().join("docs/security.md")).expect("it is there");
    let cells = |line: &str| -> Option<[String; 4]> {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        inner.split(" | ").map(str::to_owned).collect::<Vec<_>>().try_into().ok()
    };
    let table = text.lines().skip_while(|line| !line.starts_with("| class | examples |")).skip(2);
    table.take_while(|line| line.starts_with('|')).map(|line| cells(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All source texts of the workspace.
fn sources() -> String {
    let mut text = String::new();
    let mut queue: Vec<PathBuf> =
        ["parser", "image", "executor", "cache", "solver", "container", "src", "tests"].map(|d| root().join(d)).into();
    while let Some(dir) = queue.pop() {
        for path in fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).expect("text"));
            }
        }
    }
    text
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = sources();
    let rows = rows();
    assert!(rows.len() > 25, "the table was not found");
    for [class, _, _, tests] in &rows {
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || tests == "–", "{class}: names no test");
        for name in named {
            let exists = if name.contains('/') {
                root().join(name).exists()
            } else {
                // A test of libtest's, or one of the sandbox harness.
                sources.contains(&format!("fn {name}(")) || sources.contains(&format!("::{name}\""))
            };
            assert!(exists, "{class}: there is no {name}");
        }
    }
}

#[test]
fn every_class_of_the_contract_is_in_the_table() {
    let Ok(contract) = fs::read_to_string(root().join("../shared/security.md")) else {
        eprintln!("SKIPPED: the contract is not beside this checkout");
        return;
    };
    let numbers = |text: &str| -> BTreeSet<String> {
        let word = |word: &str| word.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
        text.split(|c: char| c.is_whitespace() || "(),;".contains(c))
            .filter(|text| text.starts_with("CVE-"))
            .map(word)
            .collect()
    };
    let ours = numbers(&fs::read_to_string(root().join("docs/security.md")).expect("it is there"));
    let missing: Vec<String> = numbers(&contract).difference(&ours).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}
