//! rbuild in another program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::bench::{Bench, Ran};

/// The example, which `cargo test` makes as well; only where a part of the tests runs alone it may be missing or old.
fn example(name: &str) -> PathBuf {
    let made = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().unwrap().join("examples").join(name);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newest = ["src", "examples"].iter().flat_map(|part| changes(&sources.join(part))).max();
    if changes(&made).next() < newest {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--offline", "--example", name]).current_dir(sources);
        // What this test was given by its own cargo would make build scripts run again.
        cargo.env_clear().envs(std::env::vars_os().filter(|(name, _)| {
            ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"].iter().any(|kept| name == *kept)
        }));
        assert!(cargo.status().unwrap().success(), "the example is compiled");
    }
    made
}

/// When a file, or each file below a directory, was written.
fn changes(path: &Path) -> Box<dyn Iterator<Item = SystemTime>> {
    match path.read_dir() {
        Ok(entries) => Box::new(entries.flat_map(|entry| changes(&entry.unwrap().path()))),
        Err(_) => Box::new(path.metadata().and_then(|found| found.modified()).into_iter()),
    }
}

#[test]
fn the_example_of_the_library_builds_an_image() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "context",
        [(
            "Dockerfile",
            "FROM busybox\nARG GREETING\nRUN echo \"$GREETING from $(hostname)\" > /said\nCMD [\"cat\", \"/said\"]\n",
        )],
    );
    let built = Command::new(example("build_image"))
        .current_dir(&context)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", bench.path("home"))
        .env("RBUILD_ROOT", bench.store())
        .output()
        .unwrap();
    let built = Ran::new(built).ok().says("[2/2] RUN");
    let said = bench.rbuild(["run", "--rm", "--network=none", "hello:0.1"]).run().ok();
    assert!(said.stdout.starts_with("Hello from "), "{}", said.stdout);
    let id = bench.rbuild(["inspect", "-f", "{{.Id}}", "hello:0.1"]).run().ok();
    assert_eq!(id.stdout, built.stdout, "the answer is the image's id");
}
