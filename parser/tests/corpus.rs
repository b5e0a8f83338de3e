//! Dockerfiles written the way public ones are: each parses without errors, and its reading is pinned by a snapshot.
#![expect(clippy::unwrap_used, reason = "tests")]

mod dump;

use std::fs;
use std::path::Path;

use dump::dump;
use rbuild_parser::{NoVariables, Severity, Source, parse};

fn corpus() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfiles");
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "Dockerfile") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn every_file_reads_as_pinned() {
    let files = corpus();
    assert!(files.len() >= 60, "only {} files", files.len());
    for (name, text) in files {
        let source = Source::new(format!("{name}.Dockerfile"), text);
        let parsed = parse(&source);
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|it| it.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        insta::assert_snapshot!(name.as_str(), dump(&source, &parsed));
    }
}

#[test]
fn places_show_what_was_written() {
    for (name, text) in corpus() {
        let source = Source::new(name.clone(), text);
        let parsed = parse(&source);
        for stage in &parsed.value.stages {
            assert_eq!(source.slice(stage.image.span()), stage.image.raw(), "{name}");
            stage.image.expand(&NoVariables).unwrap();
            for instruction in &stage.instructions {
                let written = source.slice(instruction.span());
                assert!(written.starts_with(&instruction.origin().keyword), "{name}: {written}");
                assert!(!written.ends_with('\n'), "{name}: {written}");
            }
        }
    }
}
