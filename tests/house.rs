//! The house rules that a compiler does not check: which crate may use which, and where unsafe code may live.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only arrows allowed between our crates (docs/architecture.md).
const ARROWS: [(&str, &[&str]); 7] = [
    ("rbuild-parser", &[]),
    ("rbuild-image", &[]),
    ("rbuild-executor", &["rbuild-image"]),
    ("rbuild-cache", &["rbuild-executor", "rbuild-image"]),
    ("rbuild-solver", &["rbuild-cache", "rbuild-image", "rbuild-parser"]),
    ("rbuild-container", &["rbuild-cache", "rbuild-executor", "rbuild-image"]),
    (
        "rbuild",
        &["rbuild-cache", "rbuild-container", "rbuild-executor", "rbuild-image", "rbuild-parser", "rbuild-solver"],
    ),
];

#[test]
fn crates_use_only_what_they_may() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo prints JSON");
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), allowed.len(), "a crate was added or removed: draw its arrows first");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("name");
            let ours = used == "rbuild" || used.starts_with("rbuild-");
            assert!(!ours || may.contains(&used), "a new arrow: {name} uses {used}");
        }
    }
}

/// Licences that what we ship may carry (as in deny.toml).
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

#[test]
fn dependencies_are_licensed_for_us_and_come_from_one_registry() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo prints JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let source = package["source"].as_str().unwrap_or_default();
        assert!(source.is_empty() || source.starts_with("registry+"), "{name} comes from {source}");
        assert!(!["tokio", "openssl-sys"].contains(&name), "{name}: the engine is synchronous, TLS is rustls");
        let licence = package["license"].as_str().unwrap_or_default();
        // Each part that is joined by AND needs one choice of those joined by OR.
        let fine = licence
            .replace(['(', ')'], "")
            .split(" AND ")
            .all(|part| part.split([' ', '/']).any(|word| LICENCES.contains(&word)));
        assert!(fine, "{name} has the licence {licence:?}");
    }
}

#[test]
fn unsafe_code_lives_behind_one_wall() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in sources(root) {
        let inside = file.strip_prefix(root).expect("below the root");
        let wall = inside.starts_with("executor/src/sys") || inside == Path::new("executor/src/sys.rs");
        if wall || inside == Path::new("tests/house.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code", "expect(unsafe_code"];
            assert!(
                !found.iter().any(|word| code.contains(word)),
                "{}:{}: unsafe outside executor/src/sys",
                inside.display(),
                number + 1
            );
        }
    }
}

#[test]
fn files_are_read_in_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in sources(root) {
        let text = std::fs::read_to_string(&file).expect("readable");
        let lines = text.lines().count();
        assert!(lines <= 1000, "{}: {lines} lines; find the second concept in it", file.display());
        let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let dump = ["util", "utils", "common", "helpers", "misc", "imp", "types"].contains(&name);
        assert!(!dump, "{}: find the concept and name it", file.display());
        assert!(text.starts_with("//!"), "{}: say what the file is for (`//!`)", file.display());
    }
}

/// What an error says, as `#[error("…")]` has it, on one line.
fn words_of_errors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in text.split("#[error(").skip(1) {
        let Some(body) = after.trim_start().strip_prefix('"') else { continue };
        let mut words = String::new();
        let mut chars = body.chars();
        while let Some(c) = chars.next().filter(|c| *c != '"') {
            match c {
                '\\' => match chars.next() {
                    // A line that goes on.
                    Some('\n') => chars = chars.as_str().trim_start().chars(),
                    other => words.extend(other),
                },
                c => words.push(c),
            }
        }
        found.push(words);
    }
    found
}

/// The longest part of an error's words that is always the same.
fn constant_part(words: &str) -> &str {
    words.split(['{', '}']).step_by(2).map(str::trim).max_by_key(|part| part.len()).unwrap_or_default()
}

/// New errors may be this far ahead of their tests.
const AHEAD: usize = 12;

/// A test writes down what each error says, or `docs/troubleshooting.md` does.
#[test]
fn the_words_of_errors_are_written_down_in_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut errors, mut seen) = (Vec::new(), String::new());
    for file in sources(root) {
        let text = std::fs::read_to_string(&file).expect("readable");
        let place = file.strip_prefix(root).expect("below the root").display().to_string();
        let is_test = place.split(['/', '.']).any(|part| part == "tests") || place.ends_with("_tests.rs");
        let (program, tests) =
            if is_test { ("", text.as_str()) } else { text.split_at(text.find("#[cfg(test)]").unwrap_or(text.len())) };
        seen.push_str(&tests.replace("\\\"", "\""));
        errors.extend(words_of_errors(program).into_iter().map(|words| (place.clone(), words)));
    }
    seen.push_str(include_str!("../docs/troubleshooting.md"));
    let seen: String = seen.split_whitespace().flat_map(|word| [word, " "]).collect();
    assert!(errors.len() > 400, "{} errors", errors.len());
    // Shorter ones are the beginning of what a cause says.
    errors.retain(|(_, words)| constant_part(words).len() > 3 && !seen.contains(constant_part(words)));
    let mut unseen: Vec<String> = errors.into_iter().map(|(place, words)| format!("{place}: {words}")).collect();
    unseen.sort();
    unseen.dedup();
    assert!(unseen.len() <= AHEAD, "errors whose words no test has, write tests that meet them: {unseen:#?}");
}

/// docs/reliability.md names the test of each rule.
#[test]
fn rules_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).expect("the page");
    let places = ["tests/end_to_end", "image/tests/registry", "image/src/registry"].map(|place| root.join(place));
    for rule in (30..=36).chain(40..=48) {
        let row = page.lines().find(|line| line.starts_with(&format!("| R-{rule} |")));
        let row = row.unwrap_or_else(|| panic!("R-{rule} has no row"));
        let named: Vec<(&str, &str)> =
            row.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect();
        assert!(!named.is_empty(), "R-{rule} has no test");
        for (file, test) in named {
            let here = places.iter().any(|place| {
                let source = std::fs::read_to_string(place.join(format!("{file}.rs"))).unwrap_or_default();
                let lines: Vec<&str> = source.lines().map(str::trim).collect();
                let at = lines.iter().position(|line| *line == format!("fn {test}() {{"));
                // An attribute may stand between.
                at.is_some_and(|at| lines[at.saturating_sub(2)..at].contains(&"#[test]"))
            });
            assert!(here, "R-{rule}: {file} has no test {test}");
        }
    }
}

/// Every source file of the workspace.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue: Vec<PathBuf> = ["parser", "image", "executor", "cache", "solver", "container", "src", "tests"]
        .map(|dir| root.join(dir))
        .into();
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable").map(|entry| entry.expect("entry").path()) {
            match entry.extension().and_then(|ext| ext.to_str()) {
                Some("rs") => found.push(entry),
                None if entry.is_dir() => queue.push(entry),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
