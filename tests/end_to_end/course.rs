//! What a beginner's Docker course types, in a real terminal, by rbuild and, where it is installed, by Docker.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;
use crate::peers::has;

#[test]
fn a_beginners_course_works_as_it_is_typed() {
    // It says when there is no root.
    let Some(_bench) = Bench::new() else { return };
    if !["tmux", "mmdebstrap", "docker-registry", "htpasswd", "curl", "cc"].into_iter().all(has) {
        return;
    }
    // Beside Docker where it is installed: then no screen may differ but where the script says why.
    let engine = if ["dockerd", "docker"].into_iter().all(has) { "both" } else { "rbuild" };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/course");
    let output = Command::new("python3")
        .arg(script)
        .args(["--engine", engine, "--rbuild", env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("all as expected"), "{said}");
    assert!(engine == "rbuild" || said.contains(", 0 wrongly"), "{said}");
}
