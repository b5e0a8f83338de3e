//! Much output and many containers, volumes and networks, in small; `./dev scale` does it with a gigabyte and a thousand.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;

#[test]
fn output_and_numbers_of_any_size_leave_memory_and_costs_as_they_are() {
    // It says when there is no root.
    let Some(_bench) = Bench::new() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/scale");
    let sizes = [
        "--megabytes=32",
        "--sequential=6",
        "--parallel=8",
        "--containers=12",
        "--volumes=6",
        "--networks=4",
        "--layers=5",
    ];
    let output = Command::new("python3")
        .arg(script)
        .args(sizes)
        .args(["--rbuild", env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nothing grew, nothing is left"), "{said}");
}
