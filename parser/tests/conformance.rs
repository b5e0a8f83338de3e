//! The recorded behaviour of BuildKit, as far as it shows in the text alone: what it refuses and where, what it accepts, and which
//! build checks speak. The cases live beside the repository; without them the test says so and passes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_parser::{Dockerfile, Parsed, Severity, Source, parse};
use serde_json::Value;

/// The cases that fail before anything is expanded or run.
const REFUSED: [&str; 39] = [
    "err-arg-empty-name",
    "err-arg-no-argument",
    "err-copy-bad-bool",
    "err-copy-duplicate-flag",
    "err-copy-flag-without-value",
    "err-copy-one-argument",
    "err-copy-unknown-flag",
    "err-directive-duplicate",
    "err-directive-escape-invalid",
    "err-dockerfile-empty",
    "err-dockerfile-only-comments",
    "err-env-blank-name",
    "err-env-mixed-forms",
    "err-env-name-only",
    "err-env-no-argument",
    "err-flag-on-flagless",
    "err-from-bad-as",
    "err-from-no-argument",
    "err-from-stage-name",
    "err-healthcheck-interval-small",
    "err-healthcheck-none-arguments",
    "err-healthcheck-retries-negative",
    "err-healthcheck-unknown-type",
    "err-heredoc-arithmetic-shift",
    "err-heredoc-unterminated",
    "err-instruction-no-argument",
    "err-label-blank-name",
    "err-maintainer-none",
    "err-no-from",
    "err-onbuild-chained",
    "err-onbuild-from",
    "err-onbuild-maintainer",
    "err-only-args",
    "err-run-network-unknown",
    "err-several-lines-down",
    "err-shell-not-json",
    "err-trailing-comment",
    "err-unknown-instruction",
    "err-volume-blank",
];

/// The checks that need nothing but the text.
const TEXT_RULES: [&str; 8] = [
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "FromAsCasing",
    "InvalidDefinitionDescription",
    "MaintainerDeprecated",
    "NoEmptyContinuation",
    "ReservedStageName",
    "StageNameCasing",
];

fn corpus() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: the conformance cases are not at {}", root.display());
    None
}

/// Every case that has its Dockerfile beside it, with what is expected of it.
fn cases(root: &Path) -> Vec<(String, Value, String)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(root.join("cases")).unwrap() {
        let entry = entry.unwrap();
        let Ok(text) = fs::read_to_string(entry.path().join("Dockerfile")) else { continue };
        let case = fs::read_to_string(entry.path().join("case.json")).unwrap();
        cases.push((entry.file_name().into_string().unwrap(), serde_json::from_str(&case).unwrap(), text));
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn parsed(text: &str) -> (Source, Parsed<Dockerfile>) {
    let source = Source::new("Dockerfile", text);
    let parsed = parse(&source);
    (source, parsed)
}

#[test]
fn refused_files_are_refused_in_the_same_words_and_place() {
    let Some(root) = corpus() else { return };
    let mut seen = 0;
    for (name, case, text) in cases(&root) {
        if !REFUSED.contains(&name.as_str()) {
            continue;
        }
        seen += 1;
        let (source, parsed) = parsed(&text);
        let error = parsed.first_error().unwrap_or_else(|| panic!("{name}: no error"));
        let wanted = case["expect"]["error"].as_str().unwrap();
        assert!(
            regex::Regex::new(wanted).unwrap().is_match(&error.message),
            "{name}: {} is not {wanted}",
            error.message
        );
        if let Some(line) = case["expect"]["line"].as_u64() {
            let found = error.span.map(|span| u64::from(source.position(span.start()).line));
            assert_eq!(found, Some(line), "{name}: {}", error.message);
        }
    }
    assert!(seen >= 38, "only {seen} cases");
}

#[test]
fn all_other_files_are_accepted() {
    let Some(root) = corpus() else { return };
    let mut seen = 0;
    for (name, _, text) in cases(&root) {
        if REFUSED.contains(&name.as_str()) {
            continue;
        }
        seen += 1;
        let (_, parsed) = parsed(&text);
        assert!(parsed.first_error().is_none(), "{name}: {:?}", parsed.first_error());
    }
    assert!(seen > 300, "only {seen} cases");
}

#[test]
fn checks_on_the_text_speak_as_recorded() {
    let Some(root) = corpus() else { return };
    let mut seen = 0;
    for (name, case, text) in cases(&root) {
        if case["expect"]["warnings"].is_null() {
            continue;
        }
        seen += 1;
        let golden = fs::read_to_string(root.join("expected").join(format!("{name}.json"))).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let wanted: BTreeSet<(String, u64, String)> = golden["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["rule"].as_str().unwrap(), it["line"].as_u64().unwrap(), it["detail"].as_str().unwrap()))
            .filter(|(rule, ..)| TEXT_RULES.contains(rule))
            .map(|(rule, line, detail)| (rule.to_owned(), line, detail.to_owned()))
            .collect();
        let (source, parsed) = parsed(&text);
        let warnings = parsed.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning);
        let found: BTreeSet<(String, u64, String)> = warnings
            .map(|it| {
                let line = source.position(it.span.unwrap().start()).line;
                (it.rule.unwrap().name.to_owned(), u64::from(line), it.message.clone())
            })
            .collect();
        assert_eq!(found, wanted, "{name}");
    }
    assert!(seen > 20, "only {seen} cases");
}
