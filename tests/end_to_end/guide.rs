//! The documentation's commands, run as they stand.

use std::process::Command;

use crate::bench::Bench;

/// The blocks of shell commands of a page.
fn blocks(page: &str) -> Vec<&str> {
    let blocks: Vec<&str> = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(!blocks.is_empty(), "the page has no commands");
    blocks
}

#[test]
fn the_first_ten_minutes_work_as_written() {
    let Some(bench) = Bench::with_busybox() else { return };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_rbuild"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/getting-started.md")).unwrap();
    let place = bench.path("guide");
    std::fs::create_dir(&place).unwrap();
    // One shell for the whole page: it changes its directory on the way.
    let script: String = blocks(&page).iter().map(|block| format!("{block}\n")).collect();
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&place)
        .env("PATH", path)
        .env("RBUILD_ROOT", bench.store())
        .env("HOME", bench.path("home"))
        .output()
        .unwrap();
    let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{told}");
    for expected in ["Hello from ", ", you", "greet.sh", "1000 /data/numbers"] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}\n{told}");
    }
    assert!(told.contains(": 0 steps ran"), "the second build did nothing: {told}");
}
