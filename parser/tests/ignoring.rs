//! `.dockerignore` against what BuildKit recorded: each case's context is made, walked with the matcher as a build walks it, and the
//! files that are left are compared. Needs `sh`; without the cases the test says so and passes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rbuild_parser::{Ignore, MatchState};
use serde_json::Value;

/// Walks a directory, leaving out whole directories where nothing can come back.
fn walk(ignore: &Ignore, root: &Path, directory: &str, state: &MatchState, kept: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        let (ignored, below) = ignore.step(state, &path);
        if !ignored {
            // A file that is kept brings back the directories above it.
            kept.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            kept.insert(path.clone());
        }
        if entry.file_type().unwrap().is_dir() && (!ignored || ignore.may_restore_below(&path)) {
            walk(ignore, root, &path, &below, kept);
        }
    }
}

#[test]
fn contexts_hold_what_is_recorded() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    if !corpus.is_dir() {
        println!("skipped: the conformance cases are not at {}", corpus.display());
        return;
    }
    let mut seen = 0;
    for entry in fs::read_dir(corpus.join("cases")).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let Ok(dockerfile) = fs::read_to_string(case.join("Dockerfile")) else { continue };
        if !name.starts_with("ignore-") || dockerfile.trim_end() != "FROM cf/base\nCOPY . /c/" {
            continue;
        }
        seen += 1;
        let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::remove_dir_all(&context).ok();
        fs::create_dir_all(&context).unwrap();
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let made = Command::new("sh").arg(case.join("setup.sh")).current_dir(&context).status().unwrap();
        assert!(made.success(), "{name}: setup.sh");

        let ignore = Ignore::parse(&fs::read(context.join(".dockerignore")).unwrap()).unwrap();
        let mut kept = BTreeSet::new();
        walk(&ignore, &context, "", &MatchState::default(), &mut kept);
        let golden = fs::read_to_string(corpus.join("expected").join(format!("{name}.json"))).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let files = golden["images"]["linux/amd64"]["files"].as_object().unwrap();
        let wanted: BTreeSet<_> = files.keys().filter_map(|path| path.strip_prefix("/c/")).map(str::to_owned).collect();
        assert_eq!(kept, wanted, "{name}");
    }
    assert!(seen >= 8, "only {seen} cases");
}
