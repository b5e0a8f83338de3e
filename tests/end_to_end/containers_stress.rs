//! Containers started, stopped, restarted and killed at random by several processes, for half a minute; `./dev
//! containers-stress` does it with two hundred for five.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;

#[test]
fn containers_disturbed_at_random_share_nothing_and_leave_nothing() {
    // It says when there is no root.
    let Some(_bench) = Bench::new() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/containers_stress");
    let output = Command::new("python3")
        .arg(script)
        .args(["--containers", "16", "--seconds", "25", "--rbuild", env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nothing was given twice, nothing is left"), "{said}");
}
