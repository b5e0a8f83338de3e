//! Steps and containers, a third of them killed at a random moment, leave nothing; `./dev leaks` does it with two thousand.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;

#[test]
fn steps_and_containers_that_are_killed_at_any_moment_leave_nothing() {
    // It says when there is no root.
    let Some(_bench) = Bench::new() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/leaks");
    let output = Command::new("python3")
        .arg(script)
        .args(["--count", "150", "--parallel", "4", "--rbuild", env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("150 done") && said.contains("nothing is left"), "{said}");
}
