//! Many builds on one store at once, against a prune loop (rule R-14), for a few seconds; `./dev stress` does it for ten
//! minutes.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;

#[test]
fn many_builds_and_a_prune_loop_do_not_disturb_each_other() {
    // It says when there is no root.
    let Some(_bench) = Bench::new() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/stress");
    let output = Command::new("python3")
        .arg(script)
        .args(["--parallel", "12", "--seconds", "6", "--rbuild", env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("12 builds at once") && said.contains("no failures"), "{said}");
}
