//! Real sandboxes, as root, with a static busybox as the image.
//!
//! A harness of its own, because `main` has to call [`reexec_entry`] before any thread exists and because a census of
//! mounts, cgroups and processes needs the tests to run one after the other. Prints what libtest would.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is a test and its runner")]

mod ahead;
mod bench;
mod confinement;
mod denied;
mod exec;
mod files;
mod hosts;
mod lifetime;
mod process;
mod stacking;
mod variants;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use rbuild_executor::reexec_entry;

use world::Test;

fn main() -> ExitCode {
    reexec_entry();
    if let Some(code) = lifetime::be_victim().or_else(hosts::be_elsewhere).or_else(stacking::be_elsewhere) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let tests: Vec<Test> = [
        process::TESTS,
        files::TESTS,
        confinement::TESTS,
        denied::TESTS,
        exec::TESTS,
        lifetime::TESTS,
        ahead::TESTS,
        hosts::TESTS,
        stacking::TESTS,
        variants::TESTS,
        bench::TESTS,
    ]
    .concat();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let wanted: Vec<Test> = tests.into_iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|a| a == "--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    if let Some(missing) = world::missing() {
        println!("SKIPPED, every one of them: {missing}");
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out", wanted.len());
        return ExitCode::SUCCESS;
    }
    let world = world::World::new();
    let mut failed = Vec::new();
    for (name, test) in &wanted {
        let ok = catch_unwind(AssertUnwindSafe(|| test(&world))).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(*name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = wanted.len() - failed.len();
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
